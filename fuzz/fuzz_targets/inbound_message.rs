//! A mail from the Internet, whole: each recipient is served once, and nothing passes without a valid signature.
#![no_main]

sealgate_fuzz::target!();
