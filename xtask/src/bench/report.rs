//! The benchmark's table, its targets, and `docs/BENCHMARKS.md`.

use std::fmt::Write as _;
use std::fs;

use super::{Row, SESSIONS, Size, Work};
use crate::root;

/// One row as text.
pub(super) fn line(row: &Row) -> String {
    let size = match row.size {
        Size::TenKilobytes => "10 kB",
        Size::OneMegabyte => "1 MB",
    };
    let work = match row.work {
        Work::Nothing => "nothing",
        Work::Postfix => "Postfix, plain relay",
        Work::Sealing => "sealgate sealing",
        Work::Opening => "sealgate opening",
    };
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    format!(
        "| {size:5} | {work:20} | {:8} | {:>5} | {:>10.0} | {:>6} | {:>7} |",
        row.algorithm.unwrap_or("–"),
        row.count,
        row.per_second,
        number(row.cpu_ms, 2),
        number(row.memory_mb, 0),
    )
}

/// Prints the targets and writes the page; whether all were reached.
pub(super) fn finish(rows: &[Row]) -> bool {
    let targets = targets(rows);
    let mut page = String::from(HEAD);
    for row in rows {
        page.push_str(&line(row));
        page.push('\n');
    }
    page.push_str("\n## Targets\n\n| target | measured | |\n|---|---|---|\n");
    for target in &targets {
        let verdict = if target.reached { "reached" } else { "missed" };
        println!("{}: {}: {verdict}", target.what, target.measured);
        writeln!(page, "| {} | {} | {verdict} |", target.what, target.measured)
            .expect("a String takes all");
    }
    writeln!(page, "\nMachine: {}.", machine()).expect("a String takes all");
    let path = root().join("docs/BENCHMARKS.md");
    let written = fs::create_dir_all(root().join("docs")).and_then(|()| fs::write(&path, page));
    match written {
        Ok(()) => println!("written: docs/BENCHMARKS.md"),
        Err(why) => println!("docs/BENCHMARKS.md: {why}"),
    }
    targets.iter().all(|target| target.reached)
}

struct Target {
    what: String,
    measured: String,
    reached: bool,
}

fn targets(rows: &[Row]) -> Vec<Target> {
    let find = |size: Size, work: Work, algorithm: Option<&str>| {
        rows.iter().find(|row| (row.size, row.work, row.algorithm) == (size, work, algorithm))
    };
    let mut targets = Vec::new();
    for work in [Work::Sealing, Work::Opening] {
        let name = if work == Work::Sealing { "sealing" } else { "opening" };
        for (size, text, limit) in
            [(Size::TenKilobytes, "10 kB", 0.6), (Size::OneMegabyte, "1 MB", 5.0)]
        {
            let Some(row) = find(size, work, Some("rsa2048")) else { continue };
            let cpu = row.cpu_ms.unwrap_or(f64::INFINITY);
            targets.push(Target {
                what: format!("{name} {text} with RSA-2048: at most {limit} ms CPU"),
                measured: format!("{cpu:.2} ms"),
                reached: cpu <= limit,
            });
            let memory = row.memory_mb.unwrap_or(f64::INFINITY);
            let size_mb = f64::from(u32::try_from(size.bytes()).unwrap_or(u32::MAX)) / 1048576.0;
            let sessions = f64::from(u32::try_from(SESSIONS).unwrap_or(u32::MAX));
            let allowed = 3.0 * size_mb * sessions + 40.0;
            targets.push(Target {
                what: format!("{name} {text}: at most {allowed:.0} MB of memory"),
                measured: format!("{memory:.0} MB"),
                reached: memory <= allowed,
            });
        }
        let relay = find(Size::TenKilobytes, Work::Postfix, None);
        let row = find(Size::TenKilobytes, work, Some("rsa2048"));
        if let (Some(relay), Some(row)) = (relay, row) {
            let factor = row.per_second / relay.per_second;
            targets.push(Target {
                what: format!("{name} 10 kB: at least 3 times Postfix's messages a second"),
                measured: format!("{factor:.1} times"),
                reached: factor >= 3.0,
            });
        }
    }
    targets
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(": "))
    };
    let model = field("model name").map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores, {model}")
}

const HEAD: &str = "\
# What sealing and opening cost

`cargo xtask bench` wrote this page. smtp-source → X → smtp-sink on loopback, 20 sessions, a new connection for every
message, all in one run on one machine; load generator and sink share its cores with X. X is nothing, a plain Postfix
relay (until its queue is empty), sealgate sealing (LMTP in, SMTP out: RSA or ECDSA signature, AES-256-GCM) and sealgate
opening (SMTP in and out: one sealed copy again and again). CPU time is that of all processes of X, a message; memory is
the peak of resident memory (VmHWM).

| size  | X                    | keys     | count | messages/s | CPU ms | peak MB |
|-------|----------------------|----------|-------|------------|--------|---------|
";
