//! Much at once: many recipients of one message, a very large message, many sessions.

use std::fmt::Write;
use std::time::Instant;

use sealgate_testkit::gate::Gate;

use super::client::Mailing;
use super::document;
use super::load::Sink;
use super::messages::{
    self, Algorithm, Case, Cost, Figure, LARGE, SMALL, What, megabytes, memory_target,
};
use super::subject::{self, CONNECTIONS_MAX, RunningGate, SENDER, Side};
use super::{Bench, as_f64};

/// All three.
pub(super) fn measure_all(bench: &Bench) -> Result<String, String> {
    let mut organisations = messages::organisations(&bench.binary, &[Algorithm::Rsa2048])?;
    let directions = [What::Sealing(Algorithm::Rsa2048), What::Opening(Algorithm::Rsa2048)];
    let many = directions.map(|what| Case { sessions: MANY_SESSIONS, ..Case::new(what, SMALL) });
    let huge = directions.map(|what| Case { sessions: HUGE_SESSIONS, ..Case::new(what, HUGE) });
    let cases = [many, huge].concat();
    let count = |bytes| if bytes >= HUGE { HUGE_COUNT } else { COUNT };
    let figures = messages::rounds(bench, &cases, &mut organisations, count)?;
    let mut text = format!(
        "Median of {} rounds (memory: the highest).\n\n\
         | load | messages/s | CPU ms a message | CPU ms a recipient | peak MB |\n\
         |---|--:|--:|--:|--:|\n",
        bench.rounds
    );
    let mut targets = Vec::new();
    for figure in figures.iter().filter_map(|rounds| messages::middle(rounds)) {
        let Case { bytes, sessions, .. } = figure.case;
        let name = format!(
            "{}, {}, {sessions} sessions",
            messages::name(figure.case),
            messages::size(bytes)
        );
        let Some(cost) = figure.cost else { continue };
        row(&mut text, &name, &figure, cost, 1);
        targets.push(memory_target(name, &figure, cost));
    }
    let (figure, cost) = many_recipients(bench)?;
    let name = format!("sealing, RSA-2048, 10 kB, {RECIPIENTS} recipients in {DOMAINS} domains");
    row(&mut text, &name, &figure, cost, RECIPIENTS);
    Ok(text + &document::targets(&targets))
}

fn row(text: &mut String, name: &str, figure: &Figure, cost: Cost, recipients: usize) {
    let _ = writeln!(
        text,
        "| {name} | {:.1} | {:.2} | {:.2} | {:.0} |",
        figure.messages_per_sec,
        cost.cpu_ms,
        cost.cpu_ms / as_f64(recipients),
        megabytes(cost.memory_kib)
    );
}

/// One message for many who each have a certificate of their own.
fn many_recipients(bench: &Bench) -> Result<(Figure, Cost), String> {
    let binary = bench.binary.to_str().ok_or("the program's path is no text")?;
    let domains: Vec<String> = (0..DOMAINS).map(|number| format!("d{number}.example")).collect();
    let recipients: Vec<String> = (0..RECIPIENTS)
        .map(|number| format!("bob{number}@{}", domains[number % DOMAINS]))
        .collect();
    let names: Vec<&str> = domains.iter().map(String::as_str).collect();
    let others = Gate::init(binary, &names);
    let mut ours = Gate::init(binary, &["nec.example"]);
    ours.generate_key(SENDER, Algorithm::Rsa2048.option());
    for recipient in &recipients {
        others.generate_key(recipient, Algorithm::Rsa2048.option());
    }
    let addresses: Vec<&str> = recipients.iter().map(String::as_str).collect();
    ours.trust(&others, &addresses);
    ours.set(&["limits", "connections_per_address_max"], CONNECTIONS_MAX);
    let case = Case::new(What::Sealing(Algorithm::Rsa2048), SMALL);
    // Who is not named would get a copy of his own.
    let message = subject::plain(&recipients.join(">,\r\n <"), SMALL);
    let count = if bench.quick { CROWD_COUNT / 4 } else { CROWD_COUNT };
    let mut figures = Vec::new();
    for round in 1..=bench.rounds {
        let sink = Sink::start()?;
        ours.set(&["outside", "next_hop"], format!("smtp://{}", sink.address));
        let mut gate = RunningGate::start(&mut ours, "sealed", Side::Inside, None);
        let mailing = Mailing::new(gate.address, &recipients, &message);
        let warm_up = count / 4;
        mailing.send(warm_up)?;
        let (before, started) = (gate.usage()?, Instant::now());
        mailing.send(count)?;
        let messages_per_sec = messages::per(count, started.elapsed());
        let cost = messages::cost(&before, &gate.usage()?, count);
        gate.finish(warm_up + count)?;
        println!("round {round}: {RECIPIENTS} recipients {messages_per_sec:.1}/s {cost:?}");
        let cost = Some(cost);
        figures.push(Figure { case, sent_bytes: message.len(), messages_per_sec, cost });
    }
    let figure = messages::middle(&figures).ok_or("no round")?;
    let cost = figure.cost.ok_or("no cost")?;
    Ok((figure, cost))
}

const MANY_SESSIONS: usize = 200;
const COUNT: usize = 4_000;
const HUGE: usize = 20 * LARGE;
const HUGE_SESSIONS: usize = 4;
const HUGE_COUNT: usize = 24;
const RECIPIENTS: usize = 50;
const DOMAINS: usize = 10;
/// Messages to all of them.
const CROWD_COUNT: usize = 200;
