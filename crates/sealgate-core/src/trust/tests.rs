//! Chains made for each outcome.
