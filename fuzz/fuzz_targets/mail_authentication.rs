//! No mail stops the reading that SPF, DKIM, DMARC and ARC begin with.
#![no_main]

sealgate_fuzz::target!();
