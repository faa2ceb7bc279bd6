//! `cargo xtask`: the project's own commands; `test` is the one test command.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a development tool: a failure is a message to whoever runs it"
)]

mod bench;
mod fuzz;
mod package;
mod packages;
mod schedules;
mod test;
mod tidy;
mod torture;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test"] => test::run(),
        ["tidy"] => tidy::run(),
        ["package", options @ ..] => package::run(options),
        ["bench", options @ ..] => bench::run(options),
        ["fuzz", options @ ..] => fuzz::run(options),
        ["torture", options @ ..] => torture::run(options),
        ["schedules", options @ ..] => schedules::run(options),
        ["packages"] => packages::install().map(|()| true).unwrap_or_else(|why| {
            eprintln!("{why}");
            false
        }),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The project's root.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the project")
        .to_owned()
}

const USAGE: &str = "\
cargo xtask test              install what is missing, then run every check and test
cargo xtask tidy              the project's own rules about its text
cargo xtask packages          only install the Debian packages that the tests need
cargo xtask torture           break everything for as long as asked (docs/RELIABILITY.md)
      [--minutes N] [--seed S]
cargo xtask schedules         a million random schedules of the relay in virtual time (docs/RELIABILITY.md)
      [--count N] [--seed S] [--threads T]
cargo xtask fuzz [TARGET...]  run the fuzz targets, all where none is named (docs/RELIABILITY.md)
      [--minutes N]           so long each (1)
      [--keep]                then choose anew the small corpora that are checked in
cargo xtask package           make the Debian package in target/package
      [--binary PATH]         out of this program, and build none
cargo xtask bench [GROUP...]  measure, and write docs/BENCHMARKS.md; groups of rows, all where none is named:
                              messages, key-server, look-ups, crowd, latency, scaling
      [--quick]               a short run, printed only
      [--rounds N]            each figure is the median of so many (3)
      [--binary PATH]         measure this program and build none; look-ups need examples/look_ups next to it
";
