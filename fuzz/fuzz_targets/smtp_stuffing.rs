//! Content comes back from the wire as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::smtp;

fuzz_target!(|data: &[u8]| smtp::smtp_stuffing(data));
