//! Envelopes are read and opened without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::{BOB, cms};

fuzz_target!(|data: &[u8]| cms::cms_enveloped_data(data, &BOB));
