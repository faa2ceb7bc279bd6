//! Mail decrypting means; to be written.
