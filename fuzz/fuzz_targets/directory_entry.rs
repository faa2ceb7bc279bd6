//! Out of a directory come only certificates that name the address.
#![no_main]

sealgate_fuzz::target!();
