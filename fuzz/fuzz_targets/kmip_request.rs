//! Messages of KMIP clients are read without a panic, and written as they were read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::foreign;

fuzz_target!(|data: &[u8]| foreign::kmip_request(data));
