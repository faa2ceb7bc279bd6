//! Another reader that agrees sees the same signed part.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::mime;

fuzz_target!(|data: &[u8]| mime::signed_part(data));
