//! `cargo xtask bench`: what sealing and opening cost, against a plain Postfix relay in the same run.
//!
//! smtp-source → X → smtp-sink on loopback, 20 sessions, a new connection for every message. X is nothing, a plain
//! Postfix relay, sealgate sealing, sealgate opening. Messages a second are counted until the last one has left X; the
//! CPU time is that of all processes of X. Writes `docs/BENCHMARKS.md`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::mail;
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::process::{self, Running};

use crate::{packages, root};

mod report;

/// Runs the benchmark; whether every target was reached.
pub(crate) fn run(options: &[&str]) -> bool {
    let divisor = match options {
        [] => 1,
        ["--quick"] => 10,
        _ => {
            eprintln!("cargo xtask bench [--quick]");
            return false;
        }
    };
    if let Err(why) = packages::install() {
        eprintln!("{why}");
        return false;
    }
    let status = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["build", "--release", "--package", "sealgate"])
        .status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("sealgate does not build");
        return false;
    }
    let mut rows = Vec::new();
    for size in Size::ALL {
        let load = Load { size, count: size.messages() / divisor };
        rows.push(nothing(&load));
        rows.push(postfix(&load));
        for algorithm in ALGORITHMS {
            rows.extend(sealgate(&load, algorithm));
        }
    }
    report::finish(&rows)
}

/// Message sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    TenKilobytes,
    OneMegabyte,
}

impl Size {
    const ALL: [Self; 2] = [Self::TenKilobytes, Self::OneMegabyte];

    fn bytes(self) -> usize {
        match self {
            Self::TenKilobytes => 10_000,
            Self::OneMegabyte => 1_000_000,
        }
    }

    /// Enough that a clock tick of 10 ms does not matter.
    fn messages(self) -> usize {
        match self {
            Self::TenKilobytes => 5000,
            Self::OneMegabyte => 400,
        }
    }
}

struct Load {
    size: Size,
    count: usize,
}

/// What X did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Nothing,
    Postfix,
    Sealing,
    Opening,
}

/// One line of the table.
struct Row {
    size: Size,
    work: Work,
    algorithm: Option<&'static str>,
    count: usize,
    per_second: f64,
    cpu_ms: Option<f64>,
    memory_mb: Option<f64>,
}

fn nothing(load: &Load) -> Row {
    let sink = Sink::start();
    let file = plain_message(load.size);
    let took = pump(sink.address, Protocol::Smtp, ALICE, BOB, &file, load.count);
    row(load, Work::Nothing, None, took, None, None)
}

fn postfix(load: &Load) -> Row {
    let sink = Sink::start();
    let postfix = Postfix::start(&Settings {
        hostname: "relay.example",
        domains: &[],
        mailboxes: None,
        next_hop: format!("smtp:[127.0.0.1]:{}", sink.address.port()),
        more: "maillog_file =\nsyslog_name = bench\n",
        more_services: "",
    });
    let file = plain_message(load.size);
    pump(postfix.smtp, Protocol::Smtp, ALICE, BOB, &file, WARM_UP);
    process::await_that("postfix drains", || postfix.queue_length() == 0);
    let before = cpu_of_tree(postfix.id());
    let started = Instant::now();
    pump(postfix.smtp, Protocol::Smtp, ALICE, BOB, &file, load.count);
    process::await_that("postfix drains", || postfix.queue_length() == 0);
    let took = started.elapsed();
    let cpu = cpu_of_tree(postfix.id()).saturating_sub(before);
    row(load, Work::Postfix, None, took, Some(cpu), None)
}

/// Sealing and opening with keys of one algorithm.
fn sealgate(load: &Load, algorithm: &'static str) -> [Row; 2] {
    let sink = Sink::start();
    let binary = root().join("target/release/sealgate");
    let binary = binary.to_str().expect("a path in UTF-8");
    let mut first = Gate::init(binary, &["nec.example"]);
    let mut second = Gate::init(binary, &["abc.example"]);
    first.generate_key(ALICE, algorithm);
    second.generate_key(BOB, algorithm);
    first.trust(&second, &[BOB]);
    second.trust(&first, &[ALICE]);
    for gate in [&first, &second] {
        gate.configure(|config| {
            set(config, &["outside", "next_hop"], format!("smtp://{}", sink.address));
            set(config, &["inside", "mail_server"], format!("smtp://{}", sink.address));
        });
    }
    let plain = plain_message(load.size);
    let crlf = mail::with_crlf(&fs::read(&plain.path).expect("the message"));
    let sealed = first.must(&["seal", "--from", ALICE, "--to", BOB], &crlf);
    let sealed = Message::new(&sealed);

    first.start();
    let lmtp = first.ready().inside_lmtp.expect("inside-lmtp");
    let sealing = measure(load, Work::Sealing, algorithm, &first, lmtp, Protocol::Lmtp, &plain);
    first.stop();
    second.start();
    let smtp = second.ready().outside_smtp.expect("outside-smtp");
    let opening = measure(load, Work::Opening, algorithm, &second, smtp, Protocol::Smtp, &sealed);
    second.stop();
    [sealing, opening]
}

fn measure(
    load: &Load,
    work: Work,
    algorithm: &'static str,
    gate: &Gate,
    address: SocketAddr,
    protocol: Protocol,
    message: &Message,
) -> Row {
    pump(address, protocol, ALICE, BOB, message, WARM_UP);
    let before = cpu_of(gate.id()).own;
    let took = pump(address, protocol, ALICE, BOB, message, load.count);
    let cpu = cpu_of(gate.id()).own.saturating_sub(before);
    let memory = peak_memory_mb(gate.id());
    row(load, work, Some(algorithm), took, Some(cpu), memory)
}

fn row(
    load: &Load,
    work: Work,
    algorithm: Option<&'static str>,
    took: Duration,
    cpu_ticks: Option<u64>,
    memory_mb: Option<f64>,
) -> Row {
    let count = f64::from(u32::try_from(load.count).expect("a small count"));
    let ticks = cpu_ticks.map(|ticks| f64::from(u32::try_from(ticks).expect("few ticks")));
    let row = Row {
        size: load.size,
        work,
        algorithm,
        count: load.count,
        per_second: count / took.as_secs_f64(),
        cpu_ms: ticks.map(|ticks| ticks * TICK_MS / count),
        memory_mb,
    };
    println!("{}", report::line(&row));
    row
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Lmtp,
    Smtp,
}

/// Sends a message so many times with Postfix's smtp-source and gives the time it took.
fn pump(
    address: SocketAddr,
    protocol: Protocol,
    from: &str,
    to: &str,
    message: &Message,
    count: usize,
) -> Duration {
    let mut command = Command::new("smtp-source");
    if protocol == Protocol::Lmtp {
        command.arg("-L");
    }
    command.args(["-s", &SESSIONS.to_string(), "-m", &count.to_string(), "-f", from, "-t", to]);
    command.arg("-F").arg(&message.path).arg(format!("inet:{address}"));
    let started = Instant::now();
    process::run(&mut command, b"").expect_ok("smtp-source");
    started.elapsed()
}

/// Postfix's smtp-sink.
struct Sink {
    address: SocketAddr,
    _running: Running,
}

impl Sink {
    fn start() -> Self {
        let address = process::loopback(process::free_port());
        let mut command = Command::new("smtp-sink");
        // As root it insists on another user.
        command.args(["-u", "nobody"]).arg(format!("inet:{address}")).arg("1000");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let running = Running::start("smtp-sink", &mut command);
        process::await_listener("smtp-sink", address);
        Self { address, _running: running }
    }
}

/// A message in a file as smtp-source wants it: LF at line ends, dots not doubled.
struct Message {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Message {
    fn new(message: &[u8]) -> Self {
        let dir = process::open_temp_dir("bench");
        let path = dir.path().join("message");
        let text: Vec<u8> = message.iter().copied().filter(|byte| *byte != b'\r').collect();
        fs::write(&path, text).expect("a temporary file");
        Self { path, _dir: dir }
    }
}

fn plain_message(size: Size) -> Message {
    let mut entity = b"Content-Type: text/plain; charset=us-ascii\r\n\r\n".to_vec();
    while entity.len() < size.bytes() {
        let line =
            format!("{:08} the quick brown fox jumps over the lazy dog again\r\n", entity.len());
        entity.extend_from_slice(line.as_bytes());
    }
    Message::new(&mail::message(ALICE, BOB, "benchmark", &entity))
}

/// Clock ticks of a process.
#[derive(Clone, Copy, Default)]
struct Ticks {
    /// utime and stime, all threads.
    own: u64,
    /// cutime and cstime: children that have ended and were waited for.
    reaped: u64,
    parent: u32,
}

fn cpu_of(id: u32) -> Ticks {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The second field is a name in parentheses that may hold spaces; proc(5) counts from 1.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    Ticks {
        own: number(14).unwrap_or(0) + number(15).unwrap_or(0),
        reaped: number(16).unwrap_or(0) + number(17).unwrap_or(0),
        parent: number(4).and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
    }
}

/// A process, its children that live and those that have ended.
fn cpu_of_tree(id: u32) -> u64 {
    let root = cpu_of(id);
    let living: u64 = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(cpu_of)
        .filter(|ticks| ticks.parent == id)
        .map(|ticks| ticks.own + ticks.reaped)
        .sum();
    root.own + root.reaped + living
}

/// VmHWM of proc(5).
fn peak_memory_mb(id: u32) -> Option<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
const ALGORITHMS: [&str; 3] = ["rsa2048", "rsa3072", "p256"];
const SESSIONS: usize = 20;
const WARM_UP: usize = 40;

/// USER_HZ is 100 on every Linux.
const TICK_MS: f64 = 10.0;
