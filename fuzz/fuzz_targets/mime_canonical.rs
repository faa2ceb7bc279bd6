//! The canonical form is safe, a fixed point, and keeps the content.
#![no_main]

sealgate_fuzz::target!();
