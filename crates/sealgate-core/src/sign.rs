//! Mail signing means; to be written.
