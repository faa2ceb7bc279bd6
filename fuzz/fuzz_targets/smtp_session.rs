//! Commands are read alike however they are cut.
#![no_main]

sealgate_fuzz::target!();
