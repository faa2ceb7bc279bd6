//! A mailbox that is read from a list is a mailbox by itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate_fuzz::mime;

fuzz_target!(|data: &[u8]| mime::address_list(data));
