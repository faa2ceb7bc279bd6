//! `cargo xtask bench`: what sealing and opening cost, next to a plain Postfix relay in the same run.
//!
//! `smtp-source` → X → `smtp-sink` on loopback, for X = nothing, a Postfix relay, sealgate sealing, sealgate opening.
//! Every message that sealgate was given must be in its log as signed and encrypted, or the run fails: nothing is
//! measured that was not done. It needs root and Debian's postfix package. It is no test: it fails when it cannot
//! measure, not when a target is missed.

mod load;
mod subject;
mod table;
mod usage;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use load::{Load, Sink};
use subject::{Organisations, Subject};
use usage::Usage;

use crate::root;

/// Measures everything and writes the tables; whether it could measure.
pub(crate) fn run(options: &[&str]) -> bool {
    let done = Options::parse(options).and_then(|options| {
        let load_before = load_average();
        let figures = measure_all(&options)?;
        let conditions = format!(
            "Median of {} rounds (memory: the highest). {} processor cores, Linux {}; load average \
             before the run {load_before}.",
            options.rounds,
            std::thread::available_parallelism().map_or(0, usize::from),
            std::env::consts::ARCH,
        );
        let text = table::render(&figures, &conditions);
        println!("\n{text}");
        if options.quick { Ok(()) } else { table::write(&text) }
    });
    if let Err(why) = &done {
        eprintln!("bench: {why}");
    }
    done.is_ok()
}

/// What the command line asks for.
struct Options {
    binary: PathBuf,
    rounds: usize,
    quick: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let mut binary = None;
        let mut rounds = None;
        let mut quick = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match *word {
                "--binary" => binary = Some(PathBuf::from(value()?)),
                "--rounds" => {
                    let count: usize = value()?.parse().map_err(|_| "--rounds wants a number")?;
                    rounds = Some(count.max(1));
                }
                "--quick" => quick = true,
                other => return Err(format!("no such option: {other}")),
            }
        }
        let binary = match binary {
            Some(path) => {
                path.canonicalize().map_err(|why| format!("{}: {why}", path.display()))?
            }
            None => build()?,
        };
        Ok(Self { binary, rounds: rounds.unwrap_or(if quick { 1 } else { ROUNDS }), quick })
    }
}

/// One row of the tables before and after it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    what: What,
    size: Size,
}

/// X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Nothing,
    Postfix,
    Sealing(Algorithm),
    Opening(Algorithm),
}

/// The keys of both parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rsa2048,
    Rsa3072,
    P256,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Rsa2048, Self::Rsa3072, Self::P256];

    /// As `sealgate secret-key generate --algorithm` knows it.
    fn option(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::P256 => "p256",
        }
    }

    /// As people know it.
    fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::P256 => "P-256",
        }
    }
}

/// The plain message's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Small => 10_000,
            Self::Large => 1_000_000,
        }
    }

    /// Messages measured and messages to warm up with.
    fn counts(self, quick: bool) -> (usize, usize) {
        match (self, quick) {
            (Self::Small, false) => (4_000, 400),
            (Self::Small, true) => (1_000, 100),
            (Self::Large, false) => (300, 40),
            (Self::Large, true) => (60, 20),
        }
    }
}

/// What one run of one case gave.
#[derive(Clone, Debug)]
struct Figure {
    case: Case,
    /// The bytes of one message on its way to X.
    sent_bytes: usize,
    messages_per_sec: f64,
    /// None where X is nothing.
    cost: Option<Cost>,
}

/// What X used.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// User and system time a message.
    cpu_ms: f64,
    /// The sum of VmHWM of its processes.
    memory_kib: u64,
}

/// All cases, round after round, so that a disturbance of the machine does not hit one case alone.
fn measure_all(options: &Options) -> Result<Vec<Vec<Figure>>, String> {
    let cases = cases();
    let mut organisations = Algorithm::ALL
        .iter()
        .map(|algorithm| Organisations::make(&options.binary, *algorithm))
        .collect::<Result<Vec<_>, _>>()?;
    let mut figures: Vec<Vec<Figure>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for (case, figures) in cases.iter().zip(&mut figures) {
            let figure = measure(*case, &mut organisations, options.quick)?;
            println!("round {round}: {}", table::line(&figure));
            figures.push(figure);
        }
    }
    Ok(figures)
}

fn cases() -> Vec<Case> {
    let sealing = Algorithm::ALL.map(What::Sealing);
    let opening = Algorithm::ALL.map(What::Opening);
    let mut cases = Vec::new();
    for size in [Size::Small, Size::Large] {
        for what in [What::Nothing, What::Postfix].into_iter().chain(sealing).chain(opening) {
            cases.push(Case { what, size });
        }
    }
    cases
}

fn measure(case: Case, all: &mut [Organisations], quick: bool) -> Result<Figure, String> {
    let sink = Sink::start()?;
    let message = subject::message(case, all);
    let mut subject = Subject::start(case.what, all, sink.address);
    let load = Load::new(&message, subject.address())?;
    let (count, warm_up) = case.size.counts(quick);
    load.send(warm_up)?;
    subject.settle()?;
    let before = subject.usage()?;
    let started = Instant::now();
    load.send(count)?;
    subject.settle()?;
    let took = started.elapsed();
    let after = subject.usage()?;
    subject.finish(warm_up + count)?;
    Ok(Figure {
        case,
        sent_bytes: message.len(),
        messages_per_sec: per(count, took),
        cost: before.zip(after).map(|(before, after)| cost(&before, &after, count)),
    })
}

fn cost(before: &Usage, after: &Usage, count: usize) -> Cost {
    let ticks = after.cpu_ticks.saturating_sub(before.cpu_ticks);
    let cpu_ms = as_f64(ticks) * usage::TICK_MS / as_f64(count);
    Cost { cpu_ms, memory_kib: after.memory_kib }
}

fn per(count: usize, took: Duration) -> f64 {
    as_f64(count) / took.as_secs_f64()
}

/// Counts of a run are far below 2^52.
#[expect(clippy::as_conversions, reason = "no From for f64; counts stay exact")]
fn as_f64(number: impl TryInto<u64>) -> f64 {
    number.try_into().unwrap_or_default() as f64
}

/// `cargo build --release -p sealgate`; where the program is.
fn build() -> Result<PathBuf, String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(["build", "--release", "-p", "sealgate"]);
    let status = command.status().map_err(|why| format!("cargo build: {why}"))?;
    if !status.success() {
        return Err(format!("cargo build: {status}"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    Ok(root().join(target).join("release/sealgate"))
}

/// Of the last minute: whether something else was running.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// How often everything is measured.
const ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_every_subject_at_both_sizes() {
        let cases = cases();
        assert_eq!(cases.len(), 16);
        assert!(cases.contains(&Case { what: What::Opening(Algorithm::P256), size: Size::Large }));
    }

    #[test]
    fn refuses_options_that_it_does_not_know() {
        assert!(Options::parse(&["--fast"]).is_err());
        assert!(Options::parse(&["--binary"]).is_err());
    }

    #[test]
    fn reckons_the_cost_of_one_message() {
        let before = Usage { cpu_ticks: 100, memory_kib: 5 };
        let after = Usage { cpu_ticks: 150, memory_kib: 9 };
        let cost = cost(&before, &after, 1_000);
        assert!((cost.cpu_ms - 0.5).abs() < 1e-9);
        assert_eq!(cost.memory_kib, 9);
    }
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
