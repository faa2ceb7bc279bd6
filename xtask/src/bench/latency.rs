//! TODO
use super::Bench;
pub(super) fn measure_all(_bench: &Bench) -> Result<String, String> {
    Err("not yet".to_owned())
}
