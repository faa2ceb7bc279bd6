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

use sealgate_testkit::faults::{Course, StoreKind, points, run};
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
        stores: StoreKind::Embedded,
    });
    println!("{summary}");
    assert!(summary.is_good(), "{summary}");
    assert!(summary.delivered > 50, "{summary}");
}

#[test]
fn key_stores_that_die_and_come_back_cost_no_mail() {
    let summary = run(&Course {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_sealgate")),
        sources: Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        seed: 5_321,
        every_point: false,
        random_for: Duration::from_secs(12),
        mail_server: Protocol::Smtp,
        stores: StoreKind::Servers,
    });
    println!("{summary}");
    assert!(summary.is_good(), "{summary}");
    let troubles = summary.faults.iter().filter(|(kind, _)| kind.starts_with("stores: "));
    assert!(troubles.map(|(_, count)| count).sum::<u64>() > 0, "{summary}");
}
