//! A mailbox that is read from a list is a mailbox by itself.
#![no_main]

sealgate_fuzz::target!();
