//! temp
mod config;
fn main() {}
