//! A policy is read the same however it is written.
#![no_main]

sealgate_fuzz::target!();
