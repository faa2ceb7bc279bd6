//! BER becomes DER, once and for all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::cms;

fuzz_target!(|data: &[u8]| cms::cms_transcode(data));
