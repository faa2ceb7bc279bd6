//! Random schedules of the relay's own transactions in virtual time (docs/RELIABILITY.md).
//!
//! A schedule is a whole world in one thread: clients that hand mail to the relay's sessions, the relay with its pools,
//! circuit breakers, done-records and timers, and the mail servers that it delivers to, on connections within the process.
//! Time is tokio's paused clock, which jumps to the next timer as soon as nobody has anything to do: minutes of silence
//! cost nothing. One seed decides everything, so what fails once fails again.
//!
//! What other threads do (the key database, cryptography) is waited for while the clock stands still
//! ([`world::off_the_clock`]).

use std::time::Instant;

mod books;
mod chance;
mod client;
mod course;
mod gate;
mod line;
mod pipe;
mod server;
mod world;

pub(crate) use pipe::End;
pub(crate) use world::{DATE, are_running, dial, note, off_the_clock};

use books::Counts;
use gate::Gate;

/// Runs `count` schedules from `seed` on; panics with the first one that shows something wrong.
fn run_all(seed: u64, count: u64) -> Counts {
    let threads = threads();
    let workers: Vec<_> = (0..threads)
        .map(|first| {
            std::thread::spawn(move || {
                let mut gate = Gate::new();
                let mut counts = Counts::default();
                for number in (first..count).step_by(usize::try_from(threads).unwrap()) {
                    let seed = seed.wrapping_add(number);
                    let outcome = gate.run(seed, false);
                    if !outcome.problems.is_empty() {
                        panic!("{}", told(&mut gate, seed));
                    }
                    counts.add("schedules", 1);
                    counts.merge(&outcome.counts);
                }
                counts
            })
        })
        .collect();
    let mut counts = Counts::default();
    for worker in workers {
        counts.merge(&worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    counts
}

/// A schedule once more, as somebody who looks for the fault wants to read it.
fn told(gate: &mut Gate, seed: u64) -> String {
    let outcome = gate.run(seed, true);
    format!(
        "{}\nschedule {seed}: {}\nonce more: {SEED}={seed} {COUNT}=1",
        outcome.trace.join("\n"),
        outcome.problems.join("; "),
    )
}

fn threads() -> u64 {
    number(THREADS).unwrap_or(1)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// The first seed.
const SEED: &str = "SEALGATE_SCHEDULES_SEED";
/// How many.
const COUNT: &str = "SEALGATE_SCHEDULES";
/// On so many threads.
const THREADS: &str = "SEALGATE_SCHEDULES_THREADS";
/// Of the test command.
const COUNT_SHORT: u64 = 2000;

#[test]
fn whatever_the_schedule_nothing_is_lost_and_nothing_hangs() {
    let (seed, count) = (number(SEED).unwrap_or(1), number(COUNT).unwrap_or(COUNT_SHORT));
    let began = Instant::now();
    let counts = run_all(seed, count);
    let seconds = began.elapsed().as_secs_f64();
    println!("{count} schedules from seed {seed} on, {:.0} a second", count as f64 / seconds);
    for (what, count) in &counts.0 {
        println!("  {what}: {count}");
    }
    assert_eq!(counts.0["schedules"], count);
}

#[test]
fn the_same_seed_takes_the_same_course() {
    let (mut one, mut other) = (Gate::new(), Gate::new());
    // The second relay has others' schedules behind it.
    (900..920).for_each(|seed| drop(other.run(seed, false)));
    for seed in 0..100 {
        let (first, second) = (one.run(seed, true), other.run(seed, true));
        assert!(!first.trace.is_empty());
        let pairs = first.trace.iter().zip(&second.trace);
        for (one, other) in pairs {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}
