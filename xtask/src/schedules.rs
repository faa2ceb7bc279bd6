//! `cargo xtask schedules`: random schedules of the relay in virtual time, as many as asked (docs/RELIABILITY.md).
//!
//! It is a test of the relay with a larger number, in a release build because of the number.

use std::process::Command;

use crate::root;

/// Runs them; whether nothing was wrong in any.
pub(crate) fn run(options: &[&str]) -> bool {
    let done = Options::parse(options).and_then(|options| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(root());
        command.args(["test", "--release", "--workspace", "--bin", "sealgate", "--"]);
        command.args(["--nocapture", "--exact", TEST]);
        command.env("SEALGATE_SCHEDULES", options.count.to_string());
        command.env("SEALGATE_SCHEDULES_SEED", options.seed.to_string());
        command.env("SEALGATE_SCHEDULES_THREADS", options.threads.to_string());
        command.status().map_err(|why| format!("cargo test: {why}"))
    });
    match done {
        Ok(status) => status.success(),
        Err(why) => {
            eprintln!("schedules: {why}");
            false
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    count: u64,
    seed: u64,
    threads: u64,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = u64::try_from(processors).unwrap_or(1);
        let mut options = Self { count: 1_000_000, seed: 1, threads };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} wants a value"))?;
            let number = value.parse().map_err(|_| format!("{word} wants a number"))?;
            match *word {
                "--count" => options.count = number,
                "--seed" => options.seed = number,
                "--threads" => options.threads = number,
                other => return Err(format!("no such option: {other}")),
            }
        }
        Ok(options)
    }
}

/// In crates/sealgate/src/relay/schedules.rs.
const TEST: &str = "relay::schedules::whatever_the_schedule_nothing_is_lost_and_nothing_hangs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_seed_and_threads_are_numbers_and_there_is_nothing_else() {
        let options = Options::parse(&["--seed", "7", "--count", "9", "--threads", "1"]);
        assert_eq!(options, Ok(Options { count: 9, seed: 7, threads: 1 }));
        assert!(Options::parse(&["--count", "many"]).is_err());
        assert!(Options::parse(&["--minutes", "1"]).is_err());
    }

    #[test]
    fn the_test_that_it_runs_is_there() {
        let path = root().join("crates/sealgate/src/relay/schedules.rs");
        let text = std::fs::read_to_string(path).unwrap();
        let name = TEST.rsplit("::").next().unwrap();
        assert!(text.contains(&format!("fn {name}()")));
    }
}
