//! A DNS of its own: NSD with a root and zones below it, signed with `ldns-signzone`, on a free loopback port.
//!
//! Needs Debian's nsd and ldnsutils packages. One server answers for every zone, the root included, so that a validating
//! stub resolver finds all it needs there: [`Nsd::trust_anchor`] is the key of this root. A zone can be signed, with NSEC or
//! NSEC3, unsigned (an insecure delegation), falsified after it was signed, or not loadable (SERVFAIL).

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::{self, Running};

/// A running server.
#[derive(Debug)]
pub struct Nsd {
    /// Where it answers, over UDP and TCP.
    pub address: SocketAddr,
    dir: TempDir,
    /// `None` while it is killed.
    running: Option<Running>,
}

/// One zone.
#[derive(Clone, Debug)]
pub struct Zone {
    name: String,
    records: String,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Broken,
    Falsified(String, String),
    Hashed,
    Signed,
    Unsigned,
}

impl Zone {
    /// A signed zone: its name (`abc.example`) and records in the zone-file format, relative to it.
    pub fn signed(name: &str, records: &str) -> Self {
        Self { name: name.to_owned(), records: records.to_owned(), state: State::Signed }
    }

    /// A signed zone whose denials are hashed (NSEC3), with opt-out: unsigned zones below it are put in after it was signed,
    /// and so is what is between them and it.
    pub fn hashed(name: &str, records: &str) -> Self {
        Self { state: State::Hashed, ..Self::signed(name, records) }
    }

    /// A zone without signatures, which the zone above says so of.
    pub fn unsigned(name: &str, records: &str) -> Self {
        Self { state: State::Unsigned, ..Self::signed(name, records) }
    }

    /// A signed zone in which a text was replaced by another after it was signed.
    pub fn falsified(name: &str, records: &str, text: &str, by: &str) -> Self {
        let state = State::Falsified(text.to_owned(), by.to_owned());
        Self { state, ..Self::signed(name, records) }
    }

    /// A zone that cannot be loaded: every question about it is answered by SERVFAIL.
    pub fn broken(name: &str) -> Self {
        Self { state: State::Broken, ..Self::signed(name, "") }
    }

    fn is_signed(&self) -> bool {
        matches!(self.state, State::Falsified(..) | State::Hashed | State::Signed)
    }

    fn is_below(&self, parent: &Self) -> bool {
        self.name != parent.name
            && (parent.name.is_empty() || self.name.ends_with(&format!(".{}", parent.name)))
    }
}

impl Nsd {
    /// Starts one for these zones and those above them: the root and `example`, both signed, the latter as
    /// the large zones of the Internet are, with NSEC3 and opt-out.
    pub fn start(zones: &[Zone]) -> Self {
        Self::start_with_ttl(zones, TTL_SECS)
    }

    /// The same, where every answer is forgotten after so many seconds.
    pub fn start_with_ttl(zones: &[Zone], ttl_secs: u32) -> Self {
        let dir = process::open_temp_dir("nsd");
        let mut all = vec![Zone::signed("", ""), Zone::hashed("example", "")];
        all.extend_from_slice(zones);
        let keys: Vec<String> = all.iter().map(|zone| generate_key(dir.path(), zone)).collect();
        let address = process::loopback(process::free_port());
        let mut configuration = configuration(dir.path(), address);
        for (index, zone) in all.iter().enumerate() {
            let file = format!("zone{index}");
            let (own, late) = zone_file(dir.path(), zone, &all, &keys, ttl_secs);
            if zone.state != State::Broken {
                fs::write(dir.path().join(&file), own).unwrap();
            }
            let served = match zone.is_signed() {
                true => sign(dir.path(), &file, &keys[index], zone, &late),
                false => file,
            };
            let name = format!("{}.", zone.name);
            write!(configuration, "zone:\n  name: \"{name}\"\n  zonefile: \"{served}\"\n").unwrap();
        }
        fs::write(dir.path().join(CONFIGURATION), configuration).unwrap();
        let mut server = Self { address, dir, running: None };
        server.start_again();
        server
    }

    /// Starts it after [`Nsd::kill`], at the same address.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "the name server runs already");
        self.running = Some(run(self.dir.path(), self.address));
    }

    /// Starts it again, at the same address, without the lines of its unsigned zones that hold this text.
    pub fn take_out(&mut self, text: &str) {
        self.kill();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // What is served of a signed zone is another file.
            if name.strip_prefix("zone").is_some_and(|number| number.parse::<usize>().is_ok()) {
                let zone = fs::read_to_string(&path).unwrap();
                let kept = zone.split_inclusive('\n').filter(|line| !line.contains(text));
                fs::write(&path, kept.collect::<String>()).unwrap();
            }
        }
        self.start_again();
    }

    /// SIGKILL for all its processes.
    pub fn kill(&mut self) {
        // Stopped first, so that none starts another meanwhile.
        self.signal("STOP");
        let mut ids = self.processes();
        self.signal("KILL");
        let mut running = self.running.take().expect("the name server does not run");
        running.child().wait().unwrap();
        process::await_that("the name server's processes are gone", || {
            ids.retain(|id| process::is_running(*id));
            ids.is_empty()
        });
    }

    /// Sends all its processes a signal: `STOP` and `CONT` make it silent.
    pub fn signal(&self, signal: &str) {
        for id in self.processes() {
            process::send_signal(id, signal);
        }
    }

    /// The first one and those that it started, which share the work.
    fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.running.as_ref().expect("the name server does not run").id()];
        let mut at = 0;
        while let Some(id) = found.get(at) {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            let children = children.unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            at += 1;
        }
        found
    }

    /// The file with the root's key, as a validating resolver wants it.
    pub fn trust_anchor(&self) -> PathBuf {
        self.dir.path().join("root.key")
    }
}

/// What a server without its zones has for a configuration: everything of it is in this directory.
pub(crate) fn configuration(dir: &Path, address: SocketAddr) -> String {
    format!(
        "server:\n  ip-address: {}@{}\n  username: \"\"\n  chroot: \"\"\n  database: \"\"\n  \
         zonesdir: \"{dir}\"\n  pidfile: \"{dir}/pid\"\n  xfrdfile: \"{dir}/xfrd\"\n  \
         zonelistfile: \"{dir}/zonelist\"\n  xfrdir: \"{dir}\"\n  server-count: 1\n  \
         cookie-secret-file: \"{dir}/cookies\"\nremote-control:\n  control-enable: no\n",
        address.ip(),
        address.port(),
        dir = dir.display(),
    )
}

/// Runs a server with the configuration in this directory and waits until it answers.
pub(crate) fn run(dir: &Path, address: SocketAddr) -> Running {
    let output = fs::File::create(dir.join("output")).unwrap();
    let mut command = Command::new("/usr/sbin/nsd");
    command.arg("-d").arg("-c").arg(dir.join(CONFIGURATION)).stdin(Stdio::null());
    command.stdout(output.try_clone().unwrap()).stderr(output);
    let running = Running::start("nsd", &mut command);
    process::await_listener("nsd", address);
    running
}

/// The base name of a new key; the root's is kept as the trust anchor too.
fn generate_key(dir: &Path, zone: &Zone) -> String {
    let mut command = Command::new("ldns-keygen");
    let name = format!("{}.", zone.name);
    command.current_dir(dir).args(["-a", "ECDSAP256SHA256", "-k", &name]);
    let out = process::run(&mut command, b"").expect_ok("ldns-keygen");
    let base = String::from_utf8(out).unwrap().trim().to_owned();
    if zone.name.is_empty() {
        fs::copy(dir.join(format!("{base}.key")), dir.join("root.key")).unwrap();
    }
    base
}

/// SOA, NS, the zone's own records, and the delegations to those right below it; apart from these, the delegations that are
/// not signed (RFC 5155 §6).
fn zone_file(
    dir: &Path,
    zone: &Zone,
    all: &[Zone],
    keys: &[String],
    ttl_secs: u32,
) -> (String, String) {
    let dot = if zone.name.is_empty() { String::new() } else { format!("{}.", zone.name) };
    let mut text = format!(
        "$ORIGIN {}.\n$TTL {ttl_secs}\n@ SOA ns.{dot} admin.{dot} 1 3600 600 86400 {ttl_secs}\n\
         @ NS ns.{dot}\nns.{dot} A 127.0.0.1\n{}\n",
        zone.name, zone.records
    );
    let mut late = String::new();
    for (child, key) in all.iter().zip(keys) {
        let between = |other: &Zone| child.is_below(other) && other.is_below(zone);
        if !child.is_below(zone) || all.iter().any(between) {
            continue;
        }
        let name = &child.name;
        let is_late = zone.state == State::Hashed && !child.is_signed();
        let into = if is_late { &mut late } else { &mut text };
        writeln!(into, "{name}. {ttl_secs} NS ns.{name}.\nns.{name}. {ttl_secs} A 127.0.0.1")
            .unwrap();
        if child.is_signed() {
            text.push_str(&fs::read_to_string(dir.join(format!("{key}.ds"))).unwrap());
        }
    }
    (text, late)
}

/// Signs a zone file, and puts in what is not signed; the name of the signed one.
fn sign(dir: &Path, file: &str, key: &str, zone: &Zone, late: &str) -> String {
    let mut command = Command::new("ldns-signzone");
    command.current_dir(dir).args(["-o", &format!("{}.", zone.name)]);
    if zone.state == State::Hashed {
        // RFC 9276 §3.1: no iterations, no salt.
        command.args(["-n", "-p", "-t", "0"]);
    }
    command.args([file, key]);
    process::run(&mut command, b"").expect_ok("ldns-signzone");
    let signed = format!("{file}.signed");
    let mut text = fs::read_to_string(dir.join(&signed)).unwrap();
    text.push_str(late);
    if let State::Falsified(from, to) = &zone.state {
        assert!(text.contains(from), "no `{from}` in {text}");
        text = text.replace(from, to);
    }
    fs::write(dir.join(&signed), text).unwrap();
    signed
}

/// The name of the configuration's file.
pub(crate) const CONFIGURATION: &str = "nsd.conf";

/// Of every record, unless told otherwise.
const TTL_SECS: u32 = 300;
