//! Replies are read alike however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::smtp;

fuzz_target!(|data: &[u8]| smtp::smtp_client(data));
