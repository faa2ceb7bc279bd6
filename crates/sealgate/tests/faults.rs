//! Whatever breaks, nothing is lost: every fail point kills and stops the relay once, then anything happens at random
//! (docs/RELIABILITY.md). `cargo xtask torture` runs the same for longer.
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

use sealgate_testkit::faults::{Course, StoreKind, points, run, torture};
use sealgate_testkit::sink::Protocol;

/// A short run; every choice as this seed has it.
fn course(seed: u64) -> Course {
    Course {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_sealgate")),
        sources: Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        seed,
        random_for: Duration::from_secs(12),
        mail_server: Protocol::Lmtp,
        stores: StoreKind::Embedded,
        exchangers: false,
        clock_jumps: false,
    }
}

/// What `cargo xtask torture` asks for.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_breaks_nothing_is_lost_and_nothing_leaks() {
    let course = course(asked("SEALGATE_TORTURE_SEED").unwrap_or(20_261_123));
    assert!(points(&course.sources).len() >= 40);
    let summary = match asked("SEALGATE_TORTURE_MINUTES") {
        Some(minutes) => torture(&course, Duration::from_secs(60 * minutes)),
        None => run(&course),
    };
    println!("{summary}");
    assert!(summary.is_good(), "a promise was broken, see above");
    assert!(summary.delivered > 50, "too little was delivered, see above");
}

/// Exchangers of three domains, one by DANE, found by a DNS that fails in every way, and at every fail point as well.
#[test]
fn a_dns_that_fails_costs_no_mail_and_sends_none_elsewhere() {
    let summary = run(&Course { exchangers: true, ..course(1_035) });
    println!("{summary}");
    assert!(summary.is_good(), "a promise was broken, see above");
    assert!(summary.delivered > 20, "too little was delivered, see above");
    assert!(summary.at_random("names") > 0, "nothing befell the DNS");
}

/// Database, directory and key server outside, over lines that break at every fail point as well.
#[test]
fn key_stores_that_fail_and_come_back_cost_no_mail() {
    let summary = run(&Course {
        mail_server: Protocol::Smtp,
        stores: StoreKind::Servers,
        exchangers: false,
        ..course(5_321)
    });
    println!("{summary}");
    assert!(summary.is_good(), "a promise was broken, see above");
    assert!(summary.delivered > 20, "too little was delivered, see above");
    assert!(summary.at_random("stores") > 0, "nothing befell the stores");
}
