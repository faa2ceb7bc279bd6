//! `cargo xtask torture`: everything breaks, for as long as asked, and nothing may be lost (docs/RELIABILITY.md).
//!
//! It is the fault test with more time, of which it prints everything: so it uses what is built for the tests, a debug
//! build, because a release build has no fail points.

use std::process::Command;

use crate::root;

/// Runs it; whether every promise was kept.
pub(crate) fn run(options: &[&str]) -> bool {
    let done = Options::parse(options).and_then(|options| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(root()).args(["test", "--workspace", "--test", "faults", "--"]);
        command.args(["--nocapture", "--exact", TEST]);
        command.env("SEALGATE_TORTURE_MINUTES", options.minutes.to_string());
        command.env("SEALGATE_TORTURE_SEED", options.seed.to_string());
        command.status().map_err(|why| format!("cargo test: {why}"))
    });
    match done {
        Ok(status) => status.success(),
        Err(why) => {
            eprintln!("torture: {why}");
            false
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    minutes: u64,
    seed: u64,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { minutes: 10, seed: 1 };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} wants a value"))?;
            let number = value.parse().map_err(|_| format!("{word} wants a number"))?;
            match *word {
                "--minutes" => options.minutes = number,
                "--seed" => options.seed = number,
                other => return Err(format!("no such option: {other}")),
            }
        }
        Ok(options)
    }
}

/// In crates/sealgate/tests/faults.rs.
const TEST: &str = "whatever_breaks_nothing_is_lost_and_nothing_leaks";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_and_seed_are_numbers_and_there_is_nothing_else() {
        assert_eq!(Options::parse(&["--seed", "7"]), Ok(Options { minutes: 10, seed: 7 }));
        assert!(Options::parse(&["--minutes", "many"]).is_err());
        assert!(Options::parse(&["--hours", "1"]).is_err());
    }

    #[test]
    fn the_test_that_it_runs_is_there() {
        let path = root().join("crates/sealgate/tests/faults.rs");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&format!("fn {TEST}()")));
    }
}
