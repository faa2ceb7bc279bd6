//! SignedData is read and verified without a panic.
#![no_main]

sealgate_fuzz::target!();
