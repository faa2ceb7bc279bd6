//! `sealgate demo --keep`: what it leaves behind.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sealgate_testkit::process::{Running, holds_within};

#[test]
fn a_demo_that_was_kept_up_leaves_nothing_behind() {
    for signal in ["TERM", "INT", "HUP"] {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        command.args(["demo", "--keep"]).env("TMPDIR", scratch.path()).stdout(Stdio::piped());
        let mut demo = Running::start("demo", &mut command);
        let mut printed = BufReader::new(demo.child().stdout.take().unwrap()).lines();
        let is_last = |line: &String| line.contains("is printed here");
        assert!(printed.any(|line| is_last(&line.unwrap())), "it did not get so far");
        let children = children_of(demo.id());
        assert_eq!(children.len(), 2, "the relays of both organisations");
        // To it alone: its children hear nothing of it.
        demo.signal(signal);
        let mut status = None;
        let has_ended = holds_within(Duration::from_secs(10), || {
            status = demo.ended();
            status.is_some()
        });
        assert!(has_ended, "SIG{signal} does not end it");
        let left: Vec<&u32> = children
            .iter()
            .filter(|id| Path::new(&format!("/proc/{id}")).exists())
            .inspect(|id| drop(Command::new("kill").arg(id.to_string()).status()))
            .collect();
        assert!(left.is_empty(), "SIG{signal} leaves {left:?} running");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "SIG{signal}");
        assert_eq!(status.unwrap().code(), Some(0), "SIG{signal}");
    }
}

/// The processes that a process started.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = parent.to_string();
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Behind the name, in which anything may stand: the state, then the parent.
        stat.rsplit(')').next().is_some_and(|rest| rest.split(' ').nth(2) == Some(&parent))
    };
    ids.filter(is_child).collect()
}
