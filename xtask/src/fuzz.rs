//! `cargo xtask fuzz`: every fuzz target, or those named, for so many minutes each (docs/RELIABILITY.md, Fuzzing).
//!
//! What a run finds that reaches new code stays in fuzz/target/corpus, for the next run to begin with; `--keep` chooses the
//! small corpora of it that are checked in. A crash ends its target; its input is in fuzz/artifacts.

use std::env::consts::ARCH;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::root;

mod corpus;

/// Runs them; whether nothing crashed.
pub(crate) fn run(options: &[&str]) -> bool {
    let done = Options::parse(options, &targets()).and_then(|options| {
        build(&options.targets)?;
        // What cannot be run is told with the others, which go on.
        let one = |target: &String| {
            let mut run = Run::of(target);
            if let Err(why) = fuzz(&mut run, &options) {
                run.crashes.push(why);
            }
            run
        };
        let runs: Vec<Run> = options.targets.iter().map(one).collect();
        Ok(report(&runs))
    });
    done.unwrap_or_else(|why| {
        eprintln!("fuzz: {why}");
        false
    })
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    minutes: u64,
    keep: bool,
    targets: Vec<String>,
}

impl Options {
    fn parse(words: &[&str], known: &[String]) -> Result<Self, String> {
        let mut options = Self { minutes: 1, keep: false, targets: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--keep" => options.keep = true,
                "--minutes" => {
                    let value = words.next().ok_or("--minutes wants a value")?;
                    options.minutes = value.parse().map_err(|_| "--minutes wants a number")?;
                }
                name if known.iter().any(|target| target == name) => {
                    options.targets.push(name.to_owned());
                }
                other => {
                    return Err(format!(
                        "no target or option {other}; targets: {}",
                        known.join(" ")
                    ));
                }
            }
        }
        if options.targets.is_empty() {
            options.targets = known.to_vec();
        }
        Ok(options)
    }
}

/// All targets that there are.
fn targets() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("fuzz/Cargo.toml");
    let manifest: toml::Table = manifest.parse().expect("a manifest");
    let programs = manifest["bin"].as_array().expect("programs");
    programs.iter().map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
}

/// With the nightly compiler, whatever this one is.
fn build(targets: &[String]) -> Result<(), String> {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(["+nightly", "fuzz", "build", "--release"]);
    // One target is built by its name, several with all the others.
    if let [one] = targets {
        command.arg(one);
    }
    for name in ["CARGO", "CARGO_TARGET_DIR", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("`cargo +nightly fuzz build` failed; it needs a C++ compiler, `rustup toolchain install \
                      nightly` and `cargo install cargo-fuzz`"
            .to_owned()),
        Err(why) => Err(format!("cargo: {why}")),
    }
}

/// What one target came to.
struct Run {
    target: String,
    executions: u64,
    seconds: u64,
    /// Edges reached.
    coverage: u64,
    /// Files that make it fail.
    crashes: Vec<String>,
}

fn fuzz(run: &mut Run, options: &Options) -> Result<(), String> {
    let target = run.target.as_str();
    let places = Places::of(target)?;
    let started = Instant::now();
    if options.minutes > 0 {
        println!("{target}: {} minutes", options.minutes);
        let log = places.log.display();
        let output = File::create(&places.log).map_err(|why| format!("{log}: {why}"))?;
        let status = Command::new(&places.program)
            .current_dir(root().join("fuzz"))
            .args([&places.grown, &places.kept])
            .arg(format!("-max_total_time={}", options.minutes * 60))
            .arg(format!("-artifact_prefix={}/", places.artifacts.display()))
            .args(LIMITS)
            .arg("-print_final_stats=1")
            .stderr(output)
            .status()
            .map_err(|why| format!("{}: {why}", places.program.display()))?;
        run.read(&fs::read_to_string(&places.log).map_err(|why| format!("{log}: {why}"))?);
        if !status.success() && run.crashes.is_empty() {
            run.crashes.push(format!("{status}, see {log}"));
        }
    }
    run.seconds = started.elapsed().as_secs();
    if options.keep && run.crashes.is_empty() {
        corpus::keep(&places)?;
    }
    Ok(())
}

impl Run {
    /// Of a target that has not run yet.
    fn of(target: &str) -> Self {
        let target = target.to_owned();
        Self { target, executions: 0, seconds: 0, coverage: 0, crashes: Vec::new() }
    }

    /// What libFuzzer says about itself.
    fn read(&mut self, log: &str) {
        for line in log.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| {
                let at = words.iter().position(|one| *one == word)?;
                words.get(at + 1)?.parse().ok()
            };
            if let Some(edges) = after("cov:") {
                self.coverage = edges;
            }
            if let Some(count) = after("stat::number_of_executed_units:") {
                self.executions = count;
            }
            // What only takes long is a crash when it reaches the limit, and is said so then.
            if let Some((_, file)) = line.split_once("Test unit written to ")
                && !file.contains("slow-unit-")
            {
                self.crashes.push(file.to_owned());
            }
        }
    }
}

/// Where a target's files are.
struct Places {
    program: PathBuf,
    /// What runs have found; not checked in.
    grown: PathBuf,
    /// What is checked in.
    kept: PathBuf,
    artifacts: PathBuf,
    log: PathBuf,
}

impl Places {
    fn of(target: &str) -> Result<Self, String> {
        let fuzz = root().join("fuzz");
        let places = Self {
            // cargo-fuzz builds for this machine, by name.
            program: fuzz.join(format!("target/{ARCH}-unknown-linux-gnu/release/{target}")),
            grown: fuzz.join("target/corpus").join(target),
            kept: fuzz.join("corpus").join(target),
            artifacts: fuzz.join("artifacts").join(target),
            log: fuzz.join("target/corpus").join(target).with_extension("log"),
        };
        for folder in [&places.grown, &places.kept, &places.artifacts] {
            make(folder)?;
        }
        Ok(places)
    }
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))
}

/// Prints the table; whether nothing crashed.
fn report(runs: &[Run]) -> bool {
    println!(
        "\n{:<20} {:>12} {:>8} {:>9} {:>8}",
        "target", "executions", "seconds", "coverage", "crashes"
    );
    for run in runs {
        let Run { target, executions, seconds, coverage, crashes } = run;
        println!("{target:<20} {executions:>12} {seconds:>8} {coverage:>9} {:>8}", crashes.len());
    }
    for run in runs {
        for crash in &run.crashes {
            println!("{} fails: {crash}", run.target);
        }
    }
    runs.iter().all(|run| run.crashes.is_empty())
}

/// What one input may have and cost: octets, seconds, memory.
const LIMITS: [&str; 4] =
    ["-max_len=9000", "-timeout=20", "-report_slow_units=20", "-rss_limit_mb=3000"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_minutes_and_targets_that_there_are() {
        let known = ["a".to_owned(), "b".to_owned()];
        let options = Options::parse(&["--minutes", "7", "b"], &known).unwrap();
        assert_eq!(options, Options { minutes: 7, keep: false, targets: vec!["b".to_owned()] });
        assert_eq!(Options::parse(&["--keep"], &known).unwrap().targets, known);
        assert!(Options::parse(&["c"], &known).unwrap_err().contains("a b"));
        assert!(Options::parse(&["--minutes", "many"], &known).is_err());
    }

    /// The fuzz crate is built with another compiler, and not by the test command: a module that it compiles once more may
    /// lean on one that it does not.
    #[test]
    fn modules_that_are_fuzzed_lean_on_no_others() {
        let text = fs::read_to_string(root().join("fuzz/src/lib.rs")).unwrap();
        let relay = text.split("mod relay {").nth(1).unwrap().split("\n    }\n").next().unwrap();
        let names: Vec<&str> = relay
            .lines()
            .filter_map(|line| line.strip_prefix("        pub(crate) mod ")?.strip_suffix(';'))
            .collect();
        assert!(names.contains(&"authentication"), "{names:?}");
        for name in names.iter().filter(|name| **name != "fuzz_bodies") {
            let path = root().join(format!("crates/sealgate/src/relay/{name}.rs"));
            let code = fs::read_to_string(path).unwrap();
            let code = code.split("#[cfg(test)]").next().unwrap();
            for used in code.lines().filter_map(|line| line.strip_prefix("use super::")) {
                let used = used.split("::").next().unwrap();
                assert!(
                    names.contains(&used),
                    "relay/{name}.rs uses {used}: name it in fuzz/src/lib.rs"
                );
            }
        }
    }

    #[test]
    fn what_libfuzzer_says_is_read() {
        let mut run = Run {
            target: String::new(),
            executions: 0,
            seconds: 0,
            coverage: 0,
            crashes: Vec::new(),
        };
        run.read(
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb\n\
             #9\tNEW    cov: 345 ft: 900 corp: 2/9b\n\
             artifact_prefix='a/'; Test unit written to a/crash-1\n\
             stat::number_of_executed_units: 6789\n",
        );
        assert_eq!((run.executions, run.coverage), (6789, 345));
        assert_eq!(run.crashes, ["a/crash-1"]);
    }

    /// A target without a corpus is replayed by no test; one that stands in no table does not start.
    #[test]
    fn every_target_has_a_file_a_corpus_and_a_body() {
        let names = |folder: &str| {
            let entries = fs::read_dir(root().join(folder)).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| {
                    entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()
                })
                .collect();
            names.sort();
            names
        };
        let mut targets = targets();
        targets.sort();
        assert_eq!(names("fuzz/fuzz_targets"), targets);
        assert_eq!(names("fuzz/corpus"), targets);
        let bodies: String = ["sealgate", "sealgate-core", "sealgate-keys"]
            .into_iter()
            .flat_map(|member| {
                fs::read_dir(root().join("crates").join(member).join("tests/fuzz_bodies")).unwrap()
            })
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        for target in targets {
            assert!(bodies.contains(&format!("(\"{target}\", ")), "{target} stands in no table");
        }
    }
}
