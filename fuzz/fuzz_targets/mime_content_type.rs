//! Media types are read without a panic, boundaries within RFC 2046.
#![no_main]

sealgate_fuzz::target!();
