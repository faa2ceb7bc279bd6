//! How much later a message is answered because sealgate is in between, at half of the load that it can take.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::client::{Mailing, percentile};
use super::document::{self, Target};
use super::load::Sink;
use super::messages::{self, Algorithm, Case, SMALL, What};
use super::subject::{self, Organisations, RECIPIENT, Subject};
use super::{Bench, median};

/// Both directions.
pub(super) fn measure_all(bench: &Bench) -> Result<String, String> {
    let mut organisations = messages::organisations(&bench.binary, &[Algorithm::Rsa2048])?;
    let mut text = format!(
        "Median of {} rounds. Added: the percentile with sealgate less that of the same pace without.\n\n\
         | 10 kB | messages/s | p50 ms | p99 ms | p50 added ms | p99 added ms |\n\
         |---|--:|--:|--:|--:|--:|\n",
        bench.rounds
    );
    let mut targets = Vec::new();
    for what in [What::Sealing(Algorithm::Rsa2048), What::Opening(Algorithm::Rsa2048)] {
        let case = Case::new(what, SMALL);
        let name = messages::name(case);
        let mut rounds = Vec::new();
        for round in 1..=bench.rounds {
            let figure = measure(case, &mut organisations, bench.quick)?;
            println!("round {round}: {name} {figure:?}");
            rounds.push(figure);
        }
        let of = |value: fn(&Figure) -> f64| median(rounds.iter().map(value));
        let added = [of(|figure| figure.added_ms(0)), of(|figure| figure.added_ms(1))];
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} |",
            of(|figure| figure.messages_per_sec),
            of(|figure| figure.with_ms[0]),
            of(|figure| figure.with_ms[1]),
            added[0],
            added[1],
        );
        for (which, added_ms, limit) in
            [("p50", added[0], ADDED_P50_MS_MAX), ("p99", added[1], ADDED_P99_MS_MAX)]
        {
            let what = format!("{name} 10 kB, latency added, {which}");
            targets.push(Target::at_most(what, limit, added_ms, "ms"));
        }
    }
    Ok(text + &document::targets(&targets))
}

/// One round of one direction: p50 and p99.
#[derive(Debug)]
struct Figure {
    messages_per_sec: f64,
    with_ms: [f64; 2],
    without_ms: [f64; 2],
}

impl Figure {
    fn added_ms(&self, which: usize) -> f64 {
        self.with_ms[which] - self.without_ms[which]
    }
}

fn measure(case: Case, all: &mut [Organisations], quick: bool) -> Result<Figure, String> {
    let count = if quick { QUICK_COUNT } else { COUNT };
    let sink = Sink::start()?;
    let message = subject::message(case, all);
    let recipients = [RECIPIENT.to_owned()];
    let mut subject = Subject::start(case, all, sink.address);
    let through = Mailing::new(subject.address(), &recipients, &message);
    let around = Mailing::new(sink.address, &recipients, &message);
    through.send(count / 4)?;
    let started = Instant::now();
    through.send(count)?;
    let messages_per_sec = messages::per(count, started.elapsed()) / 2.0;
    let without_ms = percentiles(&around.send_at_pace(count, messages_per_sec)?);
    let with_ms = percentiles(&through.send_at_pace(count, messages_per_sec)?);
    subject.finish(count / 4 + 2 * count)?;
    Ok(Figure { messages_per_sec, with_ms, without_ms })
}

fn percentiles(times: &[Duration]) -> [f64; 2] {
    [500, 990].map(|per_mille| percentile(times, per_mille).as_secs_f64() * 1e3)
}

/// Messages of one run.
const COUNT: usize = 4_000;
const QUICK_COUNT: usize = 1_000;
const ADDED_P50_MS_MAX: f64 = 5.0;
const ADDED_P99_MS_MAX: f64 = 30.0;
