//! A configuration is read, or refused with the line that is wrong.
#![no_main]

sealgate_fuzz::target!();
