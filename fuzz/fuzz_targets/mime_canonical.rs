//! The canonical form is safe, a fixed point, and keeps the content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::mime;

fuzz_target!(|data: &[u8]| mime::canonical(data));
