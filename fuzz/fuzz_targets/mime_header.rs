//! A header section loses no byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::mime;

fuzz_target!(|data: &[u8]| mime::mime_header(data));
