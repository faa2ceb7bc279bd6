//! Envelopes are read and opened without a panic.
#![no_main]

sealgate_fuzz::target!();
