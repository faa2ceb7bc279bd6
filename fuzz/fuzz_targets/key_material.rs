//! Key and certificate files are read without a panic.
#![no_main]

sealgate_fuzz::target!();
