//! From one processor core to two, and from one process to two.
//!
//! Keys are RSA-3072, so that sealgate has more to do than the tools, which run on the same cores.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use sealgate_testkit::process;

use super::load::{Load, SESSIONS, Sink};
use super::messages::{self, Algorithm, Case, SMALL, What};
use super::subject::{self, Organisations, Subject};
use super::usage::Usage;
use super::{Bench, median};

/// Each arrangement in turn, round after round.
pub(super) fn measure_all(bench: &Bench) -> Result<String, String> {
    if thread::available_parallelism().map_or(0, usize::from) < 2 {
        return Ok("Not measured: this machine has one processor core.\n".to_owned());
    }
    let dir = process::open_temp_dir("scaling");
    let pinned = |name: &str, cores: &str| pinned(dir.path(), name, &bench.binary, cores);
    let (first, second, both) =
        (pinned("first", "0")?, pinned("second", "1")?, pinned("both", "0,1")?);
    let case = Case::new(What::Sealing(Algorithm::Rsa3072), SMALL);
    let make = |binary: &Path| Organisations::make(binary, Algorithm::Rsa3072);
    // Each process has an organisation of its own here: what they would share is a database that is hardly asked.
    let mut arrangements = [
        ("1 process, 1 core", vec![[make(&first)?]]),
        ("1 process, 2 cores", vec![[make(&both)?]]),
        ("2 processes, 1 core each", vec![[make(&first)?], [make(&second)?]]),
    ];
    let mut rounds: [Vec<(f64, f64)>; 3] = Default::default();
    let count = if bench.quick { COUNT / 4 } else { COUNT };
    for round in 1..=bench.rounds {
        for ((name, organisations), figures) in arrangements.iter_mut().zip(&mut rounds) {
            let (speed, cpu_ms) = measure(case, organisations, count)?;
            println!("round {round}: {name}: {speed:.0}/s {cpu_ms:.3} ms CPU");
            figures.push((speed, cpu_ms));
        }
    }
    let mut text = format!(
        "Median of {} rounds. Sealing 10 kB, RSA-3072; the tools run on the same two cores.\n\n\
         | sealgate | messages/s | × 1 core | CPU ms a message |\n|---|--:|--:|--:|\n",
        bench.rounds
    );
    let speed = |figures: &[(f64, f64)]| median(figures.iter().map(|figure| figure.0));
    let one_core = speed(&rounds[0]);
    for ((name, _), figures) in arrangements.iter().zip(&rounds) {
        let (speed, cpu_ms) = (speed(figures), median(figures.iter().map(|figure| figure.1)));
        let factor = speed / one_core;
        let _ = writeln!(text, "| {name} | {speed:.0} | {factor:.2} | {cpu_ms:.2} |");
    }
    Ok(text)
}

/// Messages a second and CPU ms a message of all processes together, each with an equal part of the load.
fn measure(case: Case, all: &mut [[Organisations; 1]], count: usize) -> Result<(f64, f64), String> {
    let processes = all.len();
    let (share, sessions) = (count / processes, SESSIONS / processes);
    let sink = Sink::start()?;
    let message = subject::message(case, &mut all[0]);
    let mut subjects: Vec<Subject<'_>> =
        all.iter_mut().map(|one| Subject::start(case, one, sink.address)).collect();
    let loads = subjects.iter().map(|subject| Load::new(&message, subject.address(), sessions));
    let loads = loads.collect::<Result<Vec<Load>, String>>()?;
    let warm_up = share / 10;
    send(&loads, warm_up)?;
    let before = usage(&subjects)?;
    let started = Instant::now();
    send(&loads, share)?;
    let took = started.elapsed();
    let cost = messages::cost(&before, &usage(&subjects)?, share * processes);
    subjects.iter_mut().try_for_each(|subject| subject.finish(warm_up + share))?;
    Ok((messages::per(share * processes, took), cost.cpu_ms))
}

/// All loads at the same time.
fn send(loads: &[Load], count: usize) -> Result<(), String> {
    thread::scope(|scope| {
        let threads: Vec<_> =
            loads.iter().map(|load| scope.spawn(move || load.send(count))).collect();
        let mut joined = threads.into_iter().map(|thread| thread.join());
        joined.try_for_each(|sent| sent.unwrap_or_else(|_| Err("a load failed".to_owned())))
    })
}

fn usage(subjects: &[Subject<'_>]) -> Result<Usage, String> {
    let mut sum = Usage::default();
    for subject in subjects {
        let usage = subject.usage()?.unwrap_or_default();
        sum.cpu_ticks += usage.cpu_ticks;
        sum.memory_kib += usage.memory_kib;
    }
    Ok(sum)
}

/// A program that is sealgate on these cores only.
fn pinned(dir: &Path, name: &str, binary: &Path, cores: &str) -> Result<PathBuf, String> {
    let path = dir.join(name);
    let script = format!("#!/bin/sh\nexec taskset -c {cores} {} \"$@\"\n", binary.display());
    let failed = |why: std::io::Error| format!("{}: {why}", path.display());
    fs::write(&path, script).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    Ok(path)
}

const COUNT: usize = 4_000;
