//! Another reader that agrees sees the same signed part.
#![no_main]

sealgate_fuzz::target!();
