//! Capabilities and PKCS#8 are read without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::cms;

fuzz_target!(|data: &[u8]| cms::small_parsers(data));
