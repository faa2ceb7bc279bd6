//! Content comes back from the wire as it was.
#![no_main]

sealgate_fuzz::target!();
