//! Random schedules of the relay's own transactions in virtual time (docs/RELIABILITY.md).
//!
//! A schedule is a whole world in one thread: clients that hand mail to the relay's sessions, the relay with its pools,
//! circuit breakers, done-records and timers, and the mail servers that it delivers to, on connections within the process.
//! Time is tokio's paused clock, which jumps to the next timer as soon as nobody has anything to do: minutes of silence
//! cost nothing. One seed decides everything, so what fails once fails again.
//!
//! What other threads do (the key database, cryptography) is waited for while the clock stands still
//! ([`world::off_the_clock`]).

use std::time::{Duration, Instant};

mod books;
mod chance;
mod client;
mod course;
mod gate;
mod line;
mod patience;
mod pipe;
mod server;
mod world;

pub(crate) use pipe::End;
pub(crate) use world::{DATE, are_running, dial, note, off_the_clock};

use books::Counts;
use chance::Chance;
use course::Course;
use gate::Gate;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;

use super::listener::Entrance;
use super::stream::Stream;

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
                    if counts.0["schedules"].is_multiple_of(TOLD_EVERY) {
                        println!("  thread {first}: {} schedules", counts.0["schedules"]);
                    }
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
/// A long run shows that it goes on.
const TOLD_EVERY: u64 = 20_000;
/// Of the test command.
const COUNT_SHORT: u64 = 1000;

#[test]
fn whatever_the_schedule_nothing_is_lost_and_nothing_hangs() {
    let (seed, count) = (number(SEED).unwrap_or(1), number(COUNT).unwrap_or(COUNT_SHORT));
    let began = Instant::now();
    let counts = run_all(seed, count);
    let rate = u128::from(count) * 1000 / began.elapsed().as_millis().max(1);
    println!("{count} schedules from seed {seed} on, {rate} a second");
    for (what, count) in &counts.0 {
        println!("  {what}: {count}");
    }
    assert_eq!(counts.0["schedules"], count);
}

/// Small contents go out together with their dot. Found by the schedules: that was waited for without end.
#[test]
fn a_server_that_takes_a_few_octets_a_second_holds_up_no_reply() {
    let mut gate = Gate::new();
    for entrance in [Entrance::InsideLmtp, Entrance::InsideSmtp] {
        let mut course = Course::quiet(entrance, 1, &[1]);
        course.servers[0].room = (8, 8);
        course.servers[0].slow = Some((8, Duration::from_secs(10)));
        let outcome = gate.take(course, Chance::new(1), true);
        assert!(
            outcome.problems.is_empty(),
            "{:?}\n{}",
            outcome.problems,
            outcome.trace.join("\n")
        );
        assert!(outcome.counts.0["told 4xx"] > 0, "{}", outcome.trace.join("\n"));
        assert_eq!(outcome.counts.0["told 2xx"], 1);
    }
}

/// Found by the schedules: where it was a reply that could not be written, the other copies were delivered nevertheless.
#[test]
fn nothing_is_delivered_for_a_client_that_has_gone_before_the_first_dot() {
    let mut gate = Gate::new();
    let mut course = Course::quiet(Entrance::InsideLmtp, 1, &[1, 2]);
    // Nobody is there for the first recipient, which is known at once; the second one's server is slow to begin.
    course.servers.remove(0);
    course.servers[0].slow = Some((4096, Duration::from_secs(1)));
    course.clients[0].leaves_after = Some(Duration::ZERO);
    let trace = gate.take(course, Chance::new(1), true).trace.join("\n");
    assert!(!trace.contains("has all of m0.0") && trace.contains("has all of m0.1"), "{trace}");
}

/// RFC 5321 §4.5.3.2.1: some hold off senders of spam so.
#[test]
fn a_server_that_greets_late_is_waited_for() {
    let mut gate = Gate::new();
    for secs in [33, 200] {
        let mut course = Course::quiet(Entrance::InsideLmtp, 1, &[1]);
        course.servers[0].greets_after = Duration::from_secs(secs);
        let outcome = gate.take(course, Chance::new(1), true);
        let told = ["told 2xx", "told 4xx"].map(|told| outcome.counts.0.get(told).copied());
        assert_eq!(told, [Some(1), None], "{}", outcome.trace.join("\n"));
    }
}

/// RFC 3461 §5.2.2.
#[test]
fn who_asked_for_success_hears_of_a_server_that_confirms_none() {
    let mut gate = Gate::new();
    for entrance in [Entrance::InsideLmtp, Entrance::InsideSmtp] {
        for (notify, confirmations) in
            [(Some(books::SUCCESS), Some(&1)), (Some(books::NEVER), None), (None, None)]
        {
            let mut course = Course::quiet(entrance, 3, &[1, 2]);
            course.books.mails[0].notify = notify;
            // The second exchanger confirms, and nobody else does.
            course.servers[0].keywords = vec!["PIPELINING"];
            course.clients[0].old = true;
            let outcome = gate.take(course, Chance::new(1), true);
            let trace = outcome.trace.join("\n");
            assert!(outcome.problems.is_empty(), "{:?}\n{trace}", outcome.problems);
            assert_eq!(outcome.counts.0.get("confirmations"), confirmations, "{trace}");
        }
    }
}

/// Found by the schedules: a client that reads no faster than that heard the first replies twice, and took them for others'.
#[tokio::test(start_paused = true)]
async fn a_reply_that_was_given_up_goes_on_where_it_ended() {
    let (ours, mut theirs) = pipe::pair((4, 4));
    let mut stream = Stream::Memory(ours);
    let mut output = BytesMut::from("250 one\r\n451 two\r\n");
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, stream.write(&mut output)).await.is_err());
    let mut heard = [0; 18];
    let (written, read) = tokio::join!(stream.write(&mut output), theirs.read_exact(&mut heard));
    assert!(written.is_ok() && read.is_ok());
    assert_eq!(&heard, b"250 one\r\n451 two\r\n");
}

#[test]
fn the_same_seed_takes_the_same_course() {
    let (mut one, mut other) = (Gate::new(), Gate::new());
    // The second relay has others' schedules behind it.
    (900..920).for_each(|seed| drop(other.run(seed, false)));
    for seed in 0..60 {
        let (first, second) = (one.run(seed, true), other.run(seed, true));
        assert!(!first.trace.is_empty());
        let pairs = first.trace.iter().zip(&second.trace);
        for (one, other) in pairs {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}
