//! Messages of KMIP clients are read without a panic, and written as they were read.
#![no_main]

sealgate_fuzz::target!();
