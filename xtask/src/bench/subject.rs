//! X: what stands between the source and the sink, started, watched and made to prove what it did.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::mail;
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::sink as capture;
use serde_json::Value;

use super::messages::{Algorithm, Case, What};
use super::usage::Usage;

/// Where sealgate's secret keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// In its own database.
    Embedded,
    /// With `sealgate key-server`, another process, over a unix socket.
    KeyServer,
}

/// X, running.
pub(super) enum Subject<'a> {
    Nothing(SocketAddr),
    Postfix(Box<Postfix>),
    Gate(RunningGate<'a>),
}

impl<'a> Subject<'a> {
    pub(super) fn start(case: Case, all: &'a mut [Organisations], sink: SocketAddr) -> Self {
        let next_hop = format!("smtp://{sink}");
        match case.what {
            What::Nothing => Self::Nothing(sink),
            What::Postfix => {
                let settings = Settings {
                    hostname: "relay.example",
                    domains: &[],
                    mailboxes: None,
                    next_hop: format!("smtp:[{}]:{}", sink.ip(), sink.port()),
                    // No pause when mail comes in faster than it leaves: nothing holds it back by intent.
                    more: "in_flow_delay = 0",
                    more_services: "",
                };
                Self::Postfix(Box::new(Postfix::start(&settings)))
            }
            What::Sealing(algorithm) => {
                let organisations = Organisations::find(all, algorithm);
                let gate = &mut organisations.nec;
                gate.set(&["outside", "next_hop"], next_hop);
                let keys = keys(case.keys, gate, &organisations.binary);
                Self::Gate(RunningGate::start(gate, "sealed", Side::Inside, keys))
            }
            What::Opening(algorithm) => {
                let organisations = Organisations::find(all, algorithm);
                let gate = &mut organisations.abc;
                gate.set(&["inside", "mail_server"], next_hop);
                let keys = keys(case.keys, gate, &organisations.binary);
                Self::Gate(RunningGate::start(gate, "plain", Side::Outside, keys))
            }
        }
    }

    /// Where it takes mail.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Nothing(sink) => *sink,
            Self::Postfix(postfix) => postfix.smtp,
            Self::Gate(gate) => gate.address,
        }
    }

    /// Waits until nothing is left in it: only Postfix has a queue.
    pub(super) fn settle(&self) -> Result<(), String> {
        let Self::Postfix(postfix) = self else { return Ok(()) };
        let end = Instant::now() + QUEUE_PATIENCE;
        while postfix.queue_length() > 0 {
            if Instant::now() > end {
                return Err(format!("Postfix keeps mail in its queue:\n{}", postfix.log()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Result<Option<Usage>, String> {
        match self {
            Self::Nothing(_) => Ok(None),
            Self::Postfix(postfix) => Usage::of_family(postfix.id()).map(Some),
            Self::Gate(gate) => gate.usage().map(Some),
        }
    }

    /// Stops it and checks what it did to so many messages.
    pub(super) fn finish(&mut self, count: usize) -> Result<(), String> {
        match self {
            Self::Gate(gate) => gate.finish(count),
            _ => Ok(()),
        }
    }
}

/// A relay that has to account for every message in its log, and its key server, if it has one.
pub(super) struct RunningGate<'a> {
    gate: &'a mut Gate,
    keys: Option<KeyServer>,
    pub(super) address: SocketAddr,
    delivered: &'static str,
    log_start: usize,
    audit_start: usize,
}

/// Starts the key server of a gate, where there is to be one, and tells the gate where its keys are. Both use one
/// database; the relay reads certificates in it and no secret key.
fn keys(keys: Keys, gate: &Gate, binary: &str) -> Option<KeyServer> {
    let store = match keys {
        Keys::Embedded => "embedded",
        Keys::KeyServer => "kmip",
    };
    gate.set(&["secret_keys", "store"], store);
    if keys == Keys::Embedded {
        return None;
    }
    let socket = gate.dir().join("keys.sock");
    let servers = vec![format!("unix:{}", socket.display())];
    gate.set(&["secret_keys", "kmip", "servers"], servers);
    gate.set(&["secret_keys", "kmip", "get"], "never");
    let mut config: toml::Table =
        fs::read_to_string(gate.configuration()).expect("a configuration").parse().expect("TOML");
    set(&mut config, &["secret_keys", "store"], "embedded");
    let uid = fs::metadata(gate.dir()).expect("a directory").uid();
    let mut relay = toml::Table::new();
    set(&mut relay, &["uid"], i64::from(uid));
    set(&mut relay, &["keys"], vec!["*"]);
    set(&mut relay, &["operations"], vec!["sign", "decrypt"]);
    set(&mut config, &["key_server", "socket"], socket.to_str().expect("text"));
    set(&mut config, &["key_server", "audit"], AUDIT);
    set(&mut config, &["key_server", "uses_per_minute"], USES_PER_MINUTE);
    set(&mut config, &["key_server", "relay"], vec![toml::Value::Table(relay)]);
    let path = gate.dir().join("key-server.toml");
    fs::write(&path, toml::to_string(&config).expect("TOML")).expect("a configuration");
    Some(KeyServer::start(binary, &path))
}

/// The key server's audit trail so far.
fn audit(gate: &Gate) -> String {
    fs::read_to_string(gate.dir().join(AUDIT)).unwrap_or_default()
}

/// The two sides of sealgate.
pub(super) enum Side {
    Inside,
    Outside,
}

impl<'a> RunningGate<'a> {
    pub(super) fn start(
        gate: &'a mut Gate,
        delivered: &'static str,
        side: Side,
        keys: Option<KeyServer>,
    ) -> Self {
        let log_start = gate.log().len();
        let audit_start = audit(gate).len();
        let ready = gate.start();
        let address = match side {
            Side::Inside => ready.inside_smtp,
            Side::Outside => ready.outside_smtp,
        };
        Self {
            gate,
            address: address.expect("both listeners"),
            delivered,
            log_start,
            keys,
            audit_start,
        }
    }

    pub(super) fn usage(&self) -> Result<Usage, String> {
        let mut usage = Usage::of_process(self.gate.id())?;
        if let Some(keys) = &self.keys {
            let theirs = Usage::of_process(keys.id())?;
            usage.cpu_ticks += theirs.cpu_ticks;
            usage.memory_kib += theirs.memory_kib;
        }
        Ok(usage)
    }

    pub(super) fn finish(&mut self, count: usize) -> Result<(), String> {
        self.gate.stop();
        if let Some(keys) = self.keys.take() {
            keys.stop();
            // Whatever else is done with the gate finds its keys.
            self.gate.set(&["secret_keys", "store"], "embedded");
            let audit = audit(self.gate);
            let used = audit[self.audit_start..].lines().filter(|line| line.contains("\"done\""));
            let used = used.count();
            if used != count {
                return Err(format!("{used} uses of keys were audited for {count} messages"));
            }
        }
        let log = self.gate.log();
        let lines = log[self.log_start..].lines();
        let records: Vec<Value> =
            lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        let good = records.iter().filter(|record| is_done(record, self.delivered)).count();
        if good == count {
            return Ok(());
        }
        let odd = records.iter().find(|record| !is_done(record, self.delivered));
        Err(format!("{good} of {count} messages were {} with all layers; {odd:?}", self.delivered))
    }
}

/// Whether a report says that the message was accepted and is encrypted with GCM and, within, signed.
pub(super) fn is_done(report: &Value, delivered: &str) -> bool {
    let layers = &report["layers"];
    report["delivered"] == delivered
        && report["reply"]["code"].as_u64().is_none_or(|code| code == 250)
        && layers[0]["kind"] == "encrypted"
        && layers[0]["content"] == "aes-256-gcm"
        && layers[1]["kind"] == "signed"
        && layers[1]["status"] == "valid"
        && (delivered == "sealed" || report["verdict"] == "pass")
}

/// Two organisations that know each other, with keys of one algorithm.
pub(super) struct Organisations {
    algorithm: Algorithm,
    binary: String,
    nec: Gate,
    abc: Gate,
}

impl Organisations {
    /// Makes their stores and keys, and proves with one captured message that what leaves is signed and encrypted.
    pub(super) fn make(binary: &Path, algorithm: Algorithm) -> Result<Self, String> {
        let binary = binary.to_str().ok_or("the program's path is no text")?;
        let nec = Gate::init(binary, &["nec.example"]);
        let abc = Gate::init(binary, &["abc.example"]);
        nec.generate_key(SENDER, algorithm.option());
        abc.generate_key(RECIPIENT, algorithm.option());
        nec.trust(&abc, &[RECIPIENT]);
        abc.trust(&nec, &[SENDER]);
        for gate in [&nec, &abc] {
            gate.set(&["limits", "connections_per_address_max"], CONNECTIONS_MAX);
        }
        let binary = binary.to_owned();
        let mut organisations = Self { algorithm, binary, nec, abc };
        organisations.prove()?;
        Ok(organisations)
    }

    fn find(all: &mut [Self], algorithm: Algorithm) -> &mut Self {
        let found = all.iter_mut().find(|organisations| organisations.algorithm == algorithm);
        found.expect("organisations of every algorithm")
    }

    fn prove(&mut self) -> Result<(), String> {
        let wire = capture::Sink::smtp();
        self.nec.set(&["outside", "next_hop"], format!("smtp://{}", wire.address));
        let inside = self.nec.start().inside_smtp.expect("a listener");
        let reply = send_smtp(inside, SENDER, &[RECIPIENT], &plain(RECIPIENT, PROOF_BYTES));
        self.nec.stop();
        let received = wire.received();
        let [copy] = received.as_slice() else {
            return Err(format!("the proof's message: {reply:?}, {} copies", received.len()));
        };
        if mail::contains(&copy.content, FILLING) {
            return Err("the copy on the wire is readable".to_owned());
        }
        let arguments = ["open", "--from", SENDER, "--to", RECIPIENT];
        let (opened, report) = self.abc.process(&arguments, &copy.content);
        let report = report.unwrap_or_default();
        if !is_done(&report, "plain") || !mail::contains(&opened.stdout, FILLING) {
            return Err(format!("the copy on the wire does not open: {report}"));
        }
        Ok(())
    }
}

/// The message that X is given.
pub(super) fn message(case: Case, all: &mut [Organisations]) -> Vec<u8> {
    let plain = plain(RECIPIENT, case.bytes);
    let What::Opening(algorithm) = case.what else { return plain };
    let nec = &Organisations::find(all, algorithm).nec;
    nec.must(&["seal", "--from", SENDER, "--to", RECIPIENT], &plain)
}

/// A plain message of this size, header included.
pub(super) fn plain(to: &str, bytes: usize) -> Vec<u8> {
    let mut message = format!(
        "From: <{SENDER}>\r\nTo: <{to}>\r\nSubject: a load\r\n\
         Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1.load@nec.example>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    );
    let mut number = 0_u64;
    while message.len() + FILLING.len() + 16 < bytes {
        number += 1;
        message.push_str(&format!("{number:>10} {FILLING}\r\n"));
    }
    message.push_str(&"x".repeat(bytes.saturating_sub(message.len() + 2)));
    message.push_str("\r\n");
    message.into_bytes()
}

/// Whose mail it is.
pub(super) const SENDER: &str = "alice@nec.example";
/// To whom it goes.
pub(super) const RECIPIENT: &str = "bob@abc.example";
/// What the messages say.
const FILLING: &str = "A letter of many lines, each as long as lines of letters are.";
const PROOF_BYTES: usize = 2_000;
/// All sessions come from one address.
pub(super) const CONNECTIONS_MAX: i64 = 500;
/// The audit trail's file.
const AUDIT: &str = "audit.jsonl";
/// More than any load asks for.
const USES_PER_MINUTE: i64 = 1_000_000;
/// How long Postfix may take to empty its queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_has_the_size_asked_for() {
        for bytes in [10_000, 1_000_000] {
            assert_eq!(plain(RECIPIENT, bytes).len(), bytes);
        }
    }

    #[test]
    fn only_signed_and_encrypted_counts_as_done() {
        let mut report = json!({
            "delivered": "sealed", "verdict": "none", "reply": { "code": 250 },
            "layers": [{ "kind": "encrypted", "content": "aes-256-gcm" },
                       { "kind": "signed", "status": "valid" }],
        });
        assert!(is_done(&report, "sealed"));
        assert!(!is_done(&report, "plain"));
        report["layers"] = json!([{ "kind": "encrypted", "content": "aes-256-gcm" }]);
        assert!(!is_done(&report, "sealed"));
    }
}
