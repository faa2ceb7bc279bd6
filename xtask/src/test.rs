//! `cargo xtask test`: every check of the project in one command, with a table at the end.
//!
//! A step that cannot run fails by name; nothing is skipped. Later steps run although earlier ones failed, so that
//! one run tells everything.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{package, packages, root, tidy};

/// Runs everything; whether all passed.
pub(crate) fn run() -> bool {
    let started = Instant::now();
    let mut steps = vec![step("Debian packages", || match packages::install() {
        Ok(()) => Outcome::checked(true),
        Err(why) => Outcome::failed(&why),
    })];
    steps.push(step("mail servers aside", || match packages::unpack_aside() {
        Ok(()) => Outcome::checked(true),
        Err(why) => Outcome::failed(&why),
    }));
    steps.push(step("PyKMIP", || match packages::install_pykmip() {
        Ok(()) => Outcome::checked(true),
        Err(why) => Outcome::failed(&why),
    }));
    steps.push(step("format", || cargo(&["fmt", "--all", "--check"], &[])));
    steps.push(step("tidy", || Outcome::checked(tidy::run())));
    steps.push(step("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
    }));
    // Who has no use for a token builds without this.
    steps.push(step("without pkcs11", || {
        let program = ["-p", "sealgate", "--bin", "sealgate", "--no-default-features"];
        cargo(&[&["clippy"], &program[..], &["--", "-D", "warnings"]].concat(), &[])
    }));
    steps.push(step("tests", || {
        cargo_test(&["test", "--workspace", "--no-fail-fast", "--", "--show-output"])
    }));
    steps.push(step("package", || match package::prove(&root().join("target/debug/sealgate")) {
        Ok(()) => Outcome::checked(true),
        Err(why) => Outcome::failed(&why),
    }));
    steps.push(step("documentation", || {
        cargo(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])
    }));
    report(&steps, started.elapsed())
}

struct Step {
    name: &'static str,
    took: Duration,
    outcome: Outcome,
}

#[derive(Default)]
struct Outcome {
    passed: u64,
    failed: u64,
    ignored: u64,
    notes: Vec<String>,
    /// What failed tests printed, told again at the very end, where whoever reads a long log looks first.
    failures: Failures,
}

/// The `failures:` sections of cargo test's output, the last lines of each.
#[derive(Default)]
struct Failures {
    inside: bool,
    lines: VecDeque<String>,
}

impl Failures {
    fn read(&mut self, line: &str) {
        match line {
            "failures:" => self.inside = true,
            _ if line.starts_with("test result: ") => self.inside = false,
            _ if self.inside => self.lines.push_back(line.to_owned()),
            _ => {}
        }
        if self.lines.len() > FAILURE_LINES_MAX {
            self.lines.pop_front();
        }
    }
}

/// Enough for a table and an assertion of a few tests.
const FAILURE_LINES_MAX: usize = 200;

impl Outcome {
    /// The outcome of something that is one check.
    fn checked(ok: bool) -> Self {
        Self { passed: u64::from(ok), failed: u64::from(!ok), ..Self::default() }
    }

    fn failed(why: &str) -> Self {
        Self { failed: 1, notes: vec![why.to_owned()], ..Self::default() }
    }
}

fn step(name: &'static str, run: impl FnOnce() -> Outcome) -> Step {
    println!("\n=== {name}");
    let started = Instant::now();
    let outcome = run();
    Step { name, took: started.elapsed(), outcome }
}

/// Prints the table; whether all passed.
fn report(steps: &[Step], took: Duration) -> bool {
    for line in steps.iter().flat_map(|step| &step.outcome.failures.lines) {
        println!("{line}");
    }
    println!("\n{:<18} {:>7} {:>7} {:>8}", "step", "passed", "failed", "seconds");
    for step in steps {
        let Outcome { passed, failed, .. } = step.outcome;
        println!("{:<18} {passed:>7} {failed:>7} {:>8}", step.name, step.took.as_secs());
    }
    for step in steps {
        for note in &step.outcome.notes {
            println!("{}: {note}", step.name);
        }
    }
    let ignored: u64 = steps.iter().map(|step| step.outcome.ignored).sum();
    if ignored > 0 {
        println!("ignored by #[ignore] with its reason: {ignored}");
    }
    println!("{} seconds in all", took.as_secs());
    let passed: u64 = steps.iter().map(|step| step.outcome.passed).sum();
    let failed: u64 = steps.iter().map(|step| step.outcome.failed).sum();
    println!("{passed} passed, {failed} failed");
    failed == 0
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(arguments).envs(environment.iter().copied());
    match command.status() {
        Ok(status) if status.success() => Outcome::checked(true),
        Ok(status) => Outcome::failed(&format!("cargo {}: {status}", arguments[0])),
        Err(why) => Outcome::failed(&format!("cargo {}: {why}", arguments[0])),
    }
}

/// Runs cargo test, passes its output on and adds up its results.
fn cargo_test(arguments: &[&str]) -> Outcome {
    let child = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(why) => return Outcome::failed(&format!("cargo test: {why}")),
    };
    let mut outcome = Outcome::default();
    let output = child.stdout.take().expect("a piped standard output");
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        println!("{line}");
        count(&line, &mut outcome);
        outcome.failures.read(&line);
    }
    match child.wait() {
        Ok(status) if status.success() => {}
        // A crate that does not compile, or a test program that died, shows no failed test.
        Ok(status) if outcome.failed == 0 => {
            outcome.failed = 1;
            outcome.notes.push(format!("cargo test: {status} without a failed test"));
        }
        Ok(_) => {}
        Err(why) => {
            outcome.failed += 1;
            outcome.notes.push(format!("cargo test: {why}"));
        }
    }
    if outcome.passed == 0 {
        outcome.failed += 1;
        outcome.notes.push("no test ran".to_owned());
    }
    outcome
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; ...` and the names of failed tests.
fn count(line: &str, outcome: &mut Outcome) {
    if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
    {
        outcome.notes.push(format!("failed: {name}"));
    }
    let Some(result) = line.strip_prefix("test result: ") else { return };
    let number = |word: &str| -> u64 {
        let before = result.split(word).next().unwrap_or_default().trim_end();
        before.rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    outcome.passed += number(" passed");
    outcome.failed += number(" failed");
    outcome.ignored += number(" ignored");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_results_and_names_failures() {
        let mut outcome = Outcome::default();
        count("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured", &mut outcome);
        count("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured", &mut outcome);
        count("test mail::tests::x ... FAILED", &mut outcome);
        assert_eq!((outcome.passed, outcome.failed, outcome.ignored), (15, 2, 1));
        assert_eq!(outcome.notes, ["failed: mail::tests::x"]);
    }

    #[test]
    fn keeps_what_failed_tests_printed() {
        let mut failures = Failures::default();
        let output = [
            "successes:",
            "noise",
            "failures:",
            "---- x stdout ----",
            "why",
            "test result: FAILED",
            "more",
        ];
        output.iter().for_each(|line| failures.read(line));
        assert_eq!(failures.lines, ["---- x stdout ----", "why"]);
        failures.read("failures:");
        (0..2 * FAILURE_LINES_MAX).for_each(|number| failures.read(&number.to_string()));
        assert_eq!(failures.lines.len(), FAILURE_LINES_MAX);
    }
}
