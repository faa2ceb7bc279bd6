//! Key and certificate files are read without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::foreign;

fuzz_target!(|data: &[u8]| foreign::key_material(data));
