//! Whatever breaks, nothing is lost: the short run of the torture, in which every fail point kills the relay once and then
//! anything happens at random.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealgate_testkit::faults::{Course, points, run};
use sealgate_testkit::sink::Protocol;

#[test]
fn whatever_breaks_nothing_is_lost_and_nothing_leaks() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert!(points(&sources).len() >= 40);
    let summary = run(&Course {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_sealgate")),
        sources,
        seed: 20_261_123,
        every_point: true,
        random_for: Duration::from_secs(12),
        mail_server: Protocol::Lmtp,
    });
    println!("{summary}");
    assert!(summary.is_good(), "{summary}");
    assert!(summary.delivered > 50, "{summary}");
}
