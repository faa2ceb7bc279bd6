//! Only CRLF.CRLF ends a message.
#![no_main]

sealgate_fuzz::target!();
