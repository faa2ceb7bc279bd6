//! To be written.
pub(crate) fn run(_options: &[&str]) -> bool {
    false
}
