//! What is written is read back, by another reader too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::mime;

fuzz_target!(|data: &[u8]| mime::wrapped_part(data));
