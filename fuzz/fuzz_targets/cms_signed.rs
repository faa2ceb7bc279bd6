//! SignedData is read and verified without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::cms;

fuzz_target!(|data: &[u8]| cms::cms_signed_data(data));
