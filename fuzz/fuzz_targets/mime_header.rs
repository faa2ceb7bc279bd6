//! A header section loses no byte.
#![no_main]

sealgate_fuzz::target!();
