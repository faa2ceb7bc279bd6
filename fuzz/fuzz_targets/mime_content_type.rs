//! Media types are read without a panic, boundaries within RFC 2046.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::mime;

fuzz_target!(|data: &[u8]| mime::content_type(data));
