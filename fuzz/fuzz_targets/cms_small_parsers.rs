//! Capabilities and PKCS#8 are read without a panic.
#![no_main]

sealgate_fuzz::target!();
