//! The figures as tables, the targets held against them, and docs/BENCHMARKS.md.

use std::fmt::Write;
use std::fs;

use super::load::SESSIONS;
use super::{Algorithm, Figure, Size, What, as_f64};
use crate::root;

/// One run of one case in one line.
pub(super) fn line(figure: &Figure) -> String {
    let Figure { case, messages_per_sec, cost, .. } = figure;
    let cost = cost.map_or(String::new(), |cost| {
        format!("{:>8.3} ms CPU {:>7.1} MB", cost.cpu_ms, megabytes(cost.memory_kib))
    });
    format!("{:<6} {:<18} {messages_per_sec:>8.1}/s {cost}", size(case.size), name(case.what))
}

/// All tables; each element of the argument holds the rounds of one case.
pub(super) fn render(rounds: &[Vec<Figure>], conditions: &str) -> String {
    let figures: Vec<Figure> = rounds.iter().filter_map(|rounds| median(rounds)).collect();
    let mut text = format!("{conditions}\n\n");
    text.push_str(
        "| message | X | bytes to X | messages/s | × Postfix | CPU ms a message | peak MB |\n",
    );
    text.push_str("|---|---|--:|--:|--:|--:|--:|\n");
    for figure in &figures {
        let ratio = figure.messages_per_sec / postfix(&figures, figure.case.size);
        let (cpu, memory) = figure.cost.map_or(("–".to_owned(), "–".to_owned()), |cost| {
            (format!("{:.2}", cost.cpu_ms), format!("{:.0}", megabytes(cost.memory_kib)))
        });
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} | {ratio:.1} | {cpu} | {memory} |",
            size(figure.case.size),
            name(figure.case.what),
            figure.sent_bytes,
            figure.messages_per_sec,
        );
    }
    text.push_str("\n| target | limit | measured | |\n|---|--:|--:|---|\n");
    for target in targets(&figures) {
        let _ = writeln!(text, "{}", target.row());
    }
    text
}

/// Puts the tables between the markers of docs/BENCHMARKS.md.
pub(super) fn write(text: &str) -> Result<(), String> {
    let path = root().join("docs/BENCHMARKS.md");
    let old = fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    let new = replace(&old, text).ok_or(format!("{}: no markers", path.display()))?;
    fs::write(&path, new).map_err(|why| format!("{}: {why}", path.display()))
}

fn replace(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{text}\n{END}{after}"))
}

/// The middle one of each figure by itself.
fn median(rounds: &[Figure]) -> Option<Figure> {
    let mut figure = rounds.first()?.clone();
    figure.messages_per_sec = middle(rounds.iter().map(|round| round.messages_per_sec))?;
    if let Some(cost) = &mut figure.cost {
        cost.cpu_ms = middle(rounds.iter().filter_map(|round| Some(round.cost?.cpu_ms)))?;
        // The highest: it is a peak.
        let peaks = rounds.iter().filter_map(|round| Some(round.cost?.memory_kib));
        cost.memory_kib = peaks.max()?;
    }
    Some(figure)
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// One thing to reach.
struct Target {
    what: String,
    limit: f64,
    measured: f64,
    at_least: bool,
    unit: &'static str,
}

impl Target {
    fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.limit } else { self.measured <= self.limit }
    }

    fn row(&self) -> String {
        let Self { what, limit, measured, unit, .. } = self;
        let sign = if self.at_least { "≥" } else { "≤" };
        let verdict = if self.is_met() { "pass" } else { "miss" };
        format!("| {what} | {sign} {limit:.1} {unit} | {measured:.2} {unit} | {verdict} |")
    }
}

/// The project's targets, held against RSA-2048.
fn targets(figures: &[Figure]) -> Vec<Target> {
    let mut targets = Vec::new();
    for figure in figures {
        let (What::Sealing(Algorithm::Rsa2048) | What::Opening(Algorithm::Rsa2048), Some(cost)) =
            (figure.case.what, figure.cost)
        else {
            continue;
        };
        let what = format!("{} {}", name(figure.case.what), size(figure.case.size));
        let limit = match figure.case.size {
            Size::Small => SMALL_CPU_MS,
            Size::Large => LARGE_CPU_MS,
        };
        targets.push(Target {
            what: format!("{what}, CPU a message"),
            limit,
            measured: cost.cpu_ms,
            at_least: false,
            unit: "ms",
        });
        if figure.case.size == Size::Small {
            targets.push(Target {
                what: format!("{what}, messages/s"),
                limit: POSTFIX_RATIO,
                measured: figure.messages_per_sec / postfix(figures, figure.case.size),
                at_least: true,
                unit: "× Postfix",
            });
        }
        let in_flight = as_f64(SESSIONS * figure.sent_bytes) / MEGABYTE;
        targets.push(Target {
            what: format!("{what}, peak memory"),
            limit: MEMORY_FACTOR * in_flight + MEMORY_BASE_MB,
            measured: megabytes(cost.memory_kib),
            at_least: false,
            unit: "MB",
        });
    }
    targets
}

fn postfix(figures: &[Figure], size: Size) -> f64 {
    let found =
        figures.iter().find(|figure| figure.case.what == What::Postfix && figure.case.size == size);
    found.map_or(f64::NAN, |figure| figure.messages_per_sec)
}

fn name(what: What) -> String {
    match what {
        What::Nothing => "nothing".to_owned(),
        What::Postfix => "Postfix relay".to_owned(),
        What::Sealing(algorithm) => format!("sealing, {}", algorithm.name()),
        What::Opening(algorithm) => format!("opening, {}", algorithm.name()),
    }
}

fn size(size: Size) -> &'static str {
    match size {
        Size::Small => "10 kB",
        Size::Large => "1 MB",
    }
}

fn megabytes(kib: u64) -> f64 {
    as_f64(kib) * 1024.0 / MEGABYTE
}

const MEGABYTE: f64 = 1_000_000.0;
const SMALL_CPU_MS: f64 = 0.6;
const LARGE_CPU_MS: f64 = 5.0;
const POSTFIX_RATIO: f64 = 3.0;
/// Of the bytes in flight.
const MEMORY_FACTOR: f64 = 3.0;
const MEMORY_BASE_MB: f64 = 40.0;
const BEGIN: &str = "<!-- figures: written by cargo xtask bench -->";
const END: &str = "<!-- end of figures -->";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Case, Cost};

    fn figure(what: What, messages_per_sec: f64, cpu_ms: f64) -> Figure {
        Figure {
            case: Case { what, size: Size::Small },
            sent_bytes: 10_000,
            messages_per_sec,
            cost: Some(Cost { cpu_ms, memory_kib: 50_000 }),
        }
    }

    #[test]
    fn holds_targets_against_the_relay_of_the_same_run() {
        let sealing = What::Sealing(Algorithm::Rsa2048);
        let figures = [figure(What::Postfix, 100.0, 5.0), figure(sealing, 250.0, 0.59)];
        let verdicts: Vec<bool> = targets(&figures).iter().map(Target::is_met).collect();
        // CPU is kept, 2.5 times Postfix is not 3, 51.2 MB is more than 3 × 0.2 MB + 40 MB.
        assert_eq!(verdicts, [true, false, false]);
    }

    #[test]
    fn takes_the_median_of_the_rounds() {
        let rounds = [10.0, 30.0, 20.0].map(|speed| figure(What::Postfix, speed, speed));
        let middle = median(&rounds).unwrap();
        assert_eq!(middle.messages_per_sec, 20.0);
        assert_eq!(middle.cost.unwrap().cpu_ms, 20.0);
    }

    #[test]
    fn keeps_what_stands_around_the_markers() {
        let old = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replace(&old, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(replace("nothing", "new"), None);
    }
}
