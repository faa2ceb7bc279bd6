//! What is written is read back, by another reader too.
#![no_main]

sealgate_fuzz::target!();
