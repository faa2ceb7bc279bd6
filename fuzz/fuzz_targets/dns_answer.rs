//! What is taken from answers of DNS is what was asked for, and secure only where it was proven.
#![no_main]

sealgate_fuzz::target!();
