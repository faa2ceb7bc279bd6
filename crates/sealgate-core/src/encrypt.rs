//! Mail encrypting means; to be written.
