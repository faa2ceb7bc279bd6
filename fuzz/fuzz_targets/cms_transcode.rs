//! BER becomes DER, once and for all.
#![no_main]

sealgate_fuzz::target!();
