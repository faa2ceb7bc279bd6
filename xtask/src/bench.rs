//! `cargo xtask bench`: what sealgate costs, next to what it is to be compared with in the same run.
//!
//! Each group of rows is measured and written by itself, so that one can be measured alone: `cargo xtask bench GROUP...`.
//! Most send mail `smtp-source` → X → `smtp-sink` on loopback. Every message that sealgate was given must be in its log
//! as signed and encrypted, or the run fails: nothing is measured that was not done. It needs root and Debian's postfix,
//! postgresql and slapd packages. It is no test: it fails when it cannot measure, not when a target is missed.

mod client;
mod crowd;
mod document;
mod key_server;
mod latency;
mod load;
mod look_ups;
mod messages;
mod scaling;
mod subject;
mod usage;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;

/// Measures what is asked for and writes the tables; whether it could measure.
pub(crate) fn run(options: &[&str]) -> bool {
    let done = Options::parse(options).and_then(|options| {
        let bench = options.prepare()?;
        for group in options.groups() {
            let load_before = load_average();
            let tables = (group.measure)(&bench)?;
            let text = format!(
                "{} processor cores, Linux {}; load average before the run {load_before}.\n\n{tables}",
                std::thread::available_parallelism().map_or(0, usize::from),
                std::env::consts::ARCH,
            );
            println!("\n{text}");
            if !bench.quick {
                document::write(group.name, &text)?;
            }
        }
        Ok(())
    });
    if let Err(why) = &done {
        eprintln!("bench: {why}");
    }
    done.is_ok()
}

/// Rows that belong together.
struct Group {
    /// On the command line and in the document.
    name: &'static str,
    /// Gives the tables.
    measure: fn(&Bench) -> Result<String, String>,
}

const GROUPS: [Group; 6] = [
    Group { name: "messages", measure: messages::measure_all },
    Group { name: "key-server", measure: key_server::measure_all },
    Group { name: "look-ups", measure: look_ups::measure_all },
    Group { name: "crowd", measure: crowd::measure_all },
    Group { name: "latency", measure: latency::measure_all },
    Group { name: "scaling", measure: scaling::measure_all },
];

/// What every group needs.
#[derive(Clone)]
struct Bench {
    /// sealgate.
    binary: PathBuf,
    /// The program that asks key stores, where it was built.
    look_ups: PathBuf,
    /// How often everything is measured.
    rounds: usize,
    quick: bool,
}

/// What the command line asks for.
struct Options {
    binary: Option<PathBuf>,
    rounds: Option<usize>,
    quick: bool,
    groups: Vec<String>,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { binary: None, rounds: None, quick: false, groups: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match *word {
                "--binary" => options.binary = Some(PathBuf::from(value()?)),
                "--rounds" => {
                    let count: usize = value()?.parse().map_err(|_| "--rounds wants a number")?;
                    options.rounds = Some(count.max(1));
                }
                "--quick" => options.quick = true,
                name if GROUPS.iter().any(|group| group.name == name) => {
                    options.groups.push(name.to_owned());
                }
                other => return Err(format!("neither an option nor a group of rows: {other}")),
            }
        }
        Ok(options)
    }

    /// Those that are named, all where none is.
    fn groups(&self) -> impl Iterator<Item = &'static Group> {
        let wanted = |group: &&Group| {
            self.groups.is_empty() || self.groups.iter().any(|one| one == group.name)
        };
        GROUPS.iter().filter(wanted)
    }

    /// Builds what is not given.
    fn prepare(&self) -> Result<Bench, String> {
        let binary = match &self.binary {
            Some(path) => {
                path.canonicalize().map_err(|why| format!("{}: {why}", path.display()))?
            }
            None => build()?,
        };
        let rounds = self.rounds.unwrap_or(if self.quick { 1 } else { ROUNDS });
        let look_ups = binary.parent().unwrap_or(Path::new("/")).join("examples/look_ups");
        Ok(Bench { binary, look_ups, rounds, quick: self.quick })
    }
}

/// The programs to measure, in one build; where sealgate is.
fn build() -> Result<PathBuf, String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(["build", "--release", "-p", "sealgate", "--bin", "sealgate"]);
    command.args(["-p", "sealgate-keys", "--example", "look_ups"]);
    let status = command.status().map_err(|why| format!("cargo build: {why}"))?;
    if !status.success() {
        return Err(format!("cargo build: {status}"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    Ok(root().join(target).join("release/sealgate"))
}

/// Of the last minute: whether something else was running.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// The middle one.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Counts of a run are far below 2^52.
#[expect(clippy::as_conversions, reason = "no From for f64; counts stay exact")]
fn as_f64(number: impl TryInto<u64>) -> f64 {
    number.try_into().unwrap_or_default() as f64
}

const ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_options_that_it_does_not_know() {
        assert!(Options::parse(&["--fast"]).is_err());
        assert!(Options::parse(&["--binary"]).is_err());
    }

    #[test]
    fn measures_the_groups_that_are_named_or_all() {
        let names = |words: &[&str]| {
            let options = Options::parse(words).unwrap();
            options.groups().map(|group| group.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["--quick", "latency", "crowd"]), ["crowd", "latency"]);
        assert_eq!(names(&[]).len(), GROUPS.len());
    }

    #[test]
    fn takes_the_median() {
        assert!((median([10.0, 30.0, 20.0]) - 20.0).abs() < 1e-9);
    }
}
