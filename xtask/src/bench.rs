//! `cargo xtask bench`: what sealing and opening cost, next to a plain Postfix relay in the same run.
//!
//! `smtp-source` → X → `smtp-sink` on loopback, for X = nothing, a Postfix relay, sealgate sealing, sealgate opening.
//! Every message that sealgate was given must be in its log as signed and encrypted, or the run fails: nothing is
//! measured that was not done. It needs root and Debian's postfix package. It is no test: it fails when it cannot
//! measure, not when a target is missed.

mod load;
mod subject;
mod table;
mod usage;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use load::{Load, Sink};
use subject::{Organisations, Subject};
use usage::Usage;

use crate::root;

/// Measures everything and writes the tables; whether it could measure.
pub(crate) fn run(options: &[&str]) -> bool {
    let done = Options::parse(options).and_then(|options| {
        let load_before = load_average();
        let figures = measure_all(&options)?;
        let conditions = format!(
            "Median of {} rounds (memory: the highest). {} processor cores, Linux {}; load average \
             before the run {load_before}.",
            options.rounds,
            std::thread::available_parallelism().map_or(0, usize::from),
            std::env::consts::ARCH,
        );
        let text = table::render(&figures, &conditions);
        println!("\n{text}");
        if options.quick { Ok(()) } else { table::write(&text) }
    });
    if let Err(why) = &done {
        eprintln!("bench: {why}");
    }
    done.is_ok()
}

/// What the command line asks for.
struct Options {
    binary: PathBuf,
    rounds: usize,
    quick: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let mut binary = None;
        let mut rounds = None;
        let mut quick = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match *word {
                "--binary" => binary = Some(PathBuf::from(value()?)),
                "--rounds" => {
                    let count: usize = value()?.parse().map_err(|_| "--rounds wants a number")?;
                    rounds = Some(count.max(1));
                }
                "--quick" => quick = true,
                other => return Err(format!("no such option: {other}")),
            }
        }
        let binary = match binary {
            Some(path) => {
                path.canonicalize().map_err(|why| format!("{}: {why}", path.display()))?
            }
            None => build()?,
        };
        Ok(Self { binary, rounds: rounds.unwrap_or(if quick { 1 } else { ROUNDS }), quick })
    }
}

/// One row of the tables before and after it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    what: What,
    size: Size,
}

/// X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Nothing,
    Postfix,
    Sealing(Algorithm),
    Opening(Algorithm),
}

/// The keys of both parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rsa2048,
    Rsa3072,
    P256,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Rsa2048, Self::Rsa3072, Self::P256];

    /// As `sealgate secret-key generate --algorithm` knows it.
    fn option(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::P256 => "p256",
        }
    }

    /// As people know it.
    fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::P256 => "P-256",
        }
    }
}

/// The plain message's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Small => 10_000,
            Self::Large => 1_000_000,
        }
    }

    /// Messages measured and messages to warm up with.
    fn counts(self, quick: bool) -> (usize, usize) {
        match (self, quick) {
            (Self::Small, false) => (4_000, 400),
            (Self::Small, true) => (1_000, 100),
            (Self::Large, false) => (300, 40),
            (Self::Large, true) => (60, 20),
        }
    }
}

/// What one run of one case gave.
#[derive(Clone, Debug)]
struct Figure {
    case: Case,
    /// The bytes of one message on its way to X.
    sent_bytes: usize,
    messages_per_sec: f64,
    /// None where X is nothing.
    cost: Option<Cost>,
}

/// What X used.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// User and system time a message.
    cpu_ms: f64,
    /// The sum of VmHWM of its processes.
    memory_kib: u64,
}

/// All cases, round after round, so that a disturbance of the machine does not hit one case alone.
fn measure_all(options: &Options) -> Result<Vec<Vec<Figure>>, String> {
    let cases = cases();
    let mut organisations = Algorithm::ALL
        .iter()
        .map(|algorithm| Organisations::make(&options.binary, *algorithm))
        .collect::<Result<Vec<_>, _>>()?;
    let mut figures: Vec<Vec<Figure>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for (case, figures) in cases.iter().zip(&mut figures) {
            let figure = measure(*case, &mut organisations, options.quick)?;
            println!("round {round}: {}", table::line(&figure));
            figures.push(figure);
        }
    }
    Ok(figures)
}

fn cases() -> Vec<Case> {
    let sealing = Algorithm::ALL.map(What::Sealing);
    let opening = Algorithm::ALL.map(What::Opening);
    let mut cases = Vec::new();
    for size in [Size::Small, Size::Large] {
        for what in [What::Nothing, What::Postfix].into_iter().chain(sealing).chain(opening) {
            cases.push(Case { what, size });
        }
    }
    cases
}

fn measure(case: Case, all: &mut [Organisations], quick: bool) -> Result<Figure, String> {
    let sink = Sink::start()?;
    let message = subject::message(case, all);
    let mut subject = Subject::start(case.what, all, sink.address);
    let load = Load::new(&message, subject.address())?;
    let (count, warm_up) = case.size.counts(quick);
    load.send(warm_up)?;
    subject.settle()?;
    let before = subject.usage()?;
    let started = Instant::now();
    load.send(count)?;
    subject.settle()?;
    let took = started.elapsed();
    let after = subject.usage()?;
    subject.finish(warm_up + count)?;
    Ok(Figure {
        case,
        sent_bytes: message.len(),
        messages_per_sec: per(count, took),
        cost: before.zip(after).map(|(before, after)| cost(&before, &after, count)),
    })
}

fn cost(before: &Usage, after: &Usage, count: usize) -> Cost {
    let ticks = after.cpu_ticks.saturating_sub(before.cpu_ticks);
    let cpu_ms = as_f64(ticks) * usage::TICK_MS / as_f64(count);
    Cost { cpu_ms, memory_kib: after.memory_kib }
}

fn per(count: usize, took: Duration) -> f64 {
    as_f64(count) / took.as_secs_f64()
}

/// Counts of a run are far below 2^52.
#[expect(clippy::as_conversions, reason = "no From for f64; counts stay exact")]
fn as_f64(number: impl TryInto<u64>) -> f64 {
    number.try_into().unwrap_or_default() as f64
}

/// `cargo build --release -p sealgate`; where the program is.
fn build() -> Result<PathBuf, String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(["build", "--release", "-p", "sealgate"]);
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

/// How often everything is measured.
const ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_every_subject_at_both_sizes() {
        let cases = cases();
        assert_eq!(cases.len(), 16);
        assert!(cases.contains(&Case { what: What::Opening(Algorithm::P256), size: Size::Large }));
    }

    #[test]
    fn refuses_options_that_it_does_not_know() {
        assert!(Options::parse(&["--fast"]).is_err());
        assert!(Options::parse(&["--binary"]).is_err());
    }

    #[test]
    fn reckons_the_cost_of_one_message() {
        let before = Usage { cpu_ticks: 100, memory_kib: 5 };
        let after = Usage { cpu_ticks: 150, memory_kib: 9 };
        let cost = cost(&before, &after, 1_000);
        assert!((cost.cpu_ms - 0.5).abs() < 1e-9);
        assert_eq!(cost.memory_kib, 9);
    }
}
