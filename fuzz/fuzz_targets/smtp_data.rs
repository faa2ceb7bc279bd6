//! Only CRLF.CRLF ends a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::smtp;

fuzz_target!(|data: &[u8]| smtp::smtp_data(data));
