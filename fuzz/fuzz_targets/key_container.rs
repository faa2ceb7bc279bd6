//! No PKCS#12 file and no encrypted key breaks the reader, down to what is encrypted.
#![no_main]

sealgate_fuzz::target!();
