//! Sealing and opening with the secret keys at `sealgate key-server` over a unix socket, against embedded keys.

use std::fmt::Write;

use super::document::{self, Target};
use super::messages::{self, Algorithm, Case, Figure, SMALL, What, megabytes};
use super::subject::Keys;
use super::{Bench, median};

/// All rows; relay and key server count together.
pub(super) fn measure_all(bench: &Bench) -> Result<String, String> {
    let bench = Bench { rounds: bench.rounds * ROUNDS_FACTOR, ..bench.clone() };
    // What is usual elsewhere, and what `secret-key generate` makes unless told otherwise.
    let algorithms = [Algorithm::Rsa2048, Algorithm::Rsa3072];
    let mut organisations = messages::organisations(&bench.binary, &algorithms)?;
    let directions = algorithms.map(|key| [What::Sealing(key), What::Opening(key)]);
    let pair = |what| {
        let embedded = Case::new(what, SMALL);
        [embedded, Case { keys: Keys::KeyServer, ..embedded }]
    };
    let cases: Vec<Case> = directions.into_iter().flatten().flat_map(pair).collect();
    let figures = messages::rounds(&bench, &cases, &mut organisations, |_| COUNT)?;
    let mut text = format!(
        "Median of {} rounds (memory: the highest); the ratio is the median of the rounds' own.\n\n\
         | 10 kB | messages/s | CPU ms a message | × embedded | peak MB |\n|---|--:|--:|--:|--:|\n",
        bench.rounds
    );
    let mut targets = Vec::new();
    for pair in figures.chunks(2) {
        let [embedded, remote] = pair else { continue };
        let ratio = ratio(embedded, remote);
        for (rounds, ratio) in [(embedded, 1.0), (remote, ratio)] {
            let Some(figure) = messages::middle(rounds) else { continue };
            let Some(cost) = figure.cost else { continue };
            let (name, memory) = (messages::name(figure.case), megabytes(cost.memory_kib));
            let (speed, cpu_ms) = (figure.messages_per_sec, cost.cpu_ms);
            let _ =
                writeln!(text, "| {name} | {speed:.0} | {cpu_ms:.3} | {ratio:.2} | {memory:.0} |");
        }
        if let Some(figure) = remote.first() {
            let what = format!("{}, CPU of both processes", messages::name(figure.case));
            targets.push(Target::at_most(what, RATIO_MAX, ratio, "× embedded"));
        }
    }
    Ok(text + &document::targets(&targets))
}

/// The median of the ratios of CPU time, round by round.
fn ratio(embedded: &[Figure], remote: &[Figure]) -> f64 {
    let cpu = |figure: &Figure| figure.cost.map_or(f64::NAN, |cost| cost.cpu_ms);
    median(embedded.iter().zip(remote).map(|(embedded, remote)| cpu(remote) / cpu(embedded)))
}

/// Messages of one run.
const COUNT: usize = 4_000;
/// Differences are small here: more rounds than elsewhere.
const ROUNDS_FACTOR: usize = 2;
const RATIO_MAX: f64 = 1.15;
