//! Embodiment 3: a relay without any key store of its own. Secret keys are at `sealgate key-server`, certificates at
//! OpenLDAP. Both are killed and brought back while mail goes through.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "support/elsewhere.rs"]
mod elsewhere;
#[path = "support/memory.rs"]
mod memory;

use std::time::{Duration, Instant};

use elsewhere::{
    PROGRAM, describe_kmip, describe_token, embedded, move_keys, serve_keys, set_master_key_aside,
    use_directory, use_key_server,
};
use memory::occurrences;
use sealgate_testkit::gate::Gate;
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::mail;
use sealgate_testkit::pki::{KeyKind, PASSWORD, Pki, Reads, pem_body};
use sealgate_testkit::process;
use sealgate_testkit::pykmip_server::PyKmipServer;
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::sink::Sink;
use sealgate_testkit::slapd::{Person, Settings, Slapd};
use sealgate_testkit::softhsm::SoftHsm;

const ALICE: &str = "alice@nec.example";
const WORDS: &str = "the quarterly turnover";
/// How soon mail flows again once a store is back.
const BACK_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn mail_is_sealed_with_keys_and_certificates_from_elsewhere() {
    let bed = Bed::start();
    let reply = bed.send("bob@abc.example", "sealed");
    assert_eq!(reply.code, 250, "{reply:?}\n{}", bed.relay.log());
    let received = bed.sink.await_received(1).remove(0).content;
    assert!(!mail::contains(&received, WORDS), "plain text left");
    assert!(mail::contains(&received, "smime.p7m"));
    // Nothing of Alice is in the relay's own database.
    let database = std::fs::read(bed.relay.dir().join("sealgate.db")).unwrap();
    assert!(!mail::contains(&database, ALICE), "the relay's database knows Alice");
    let audit = bed.keys.as_ref().unwrap().audit();
    let signed = |line: &&serde_json::Value| {
        line["operation"] == "sign" && line["owner"] == ALICE && line["outcome"] == "done"
    };
    assert!(audit.iter().any(|line| signed(&line)), "{audit:?}");
}

#[test]
fn mail_comes_in_opened_with_a_key_from_the_key_server() {
    let bed = Bed::start();
    let sender = Gate::init(PROGRAM, &["abc.example"]);
    sender.generate_key("bob@abc.example", "rsa2048");
    bed.relay.must(&["anchor", "import", sender.authority().to_str().unwrap()], b"");
    sender.must(&["anchor", "import", bed.key_host.authority().to_str().unwrap()], b"");
    let certificates = bed.relay.must(&["secret-key", "certificate", ALICE], b"");
    let file = sender.dir().join("alice.pem");
    std::fs::write(&file, certificates).unwrap();
    sender.must(&["public-key", "import", "--address", ALICE, file.to_str().unwrap()], b"");
    let message = mail::message("bob@abc.example", ALICE, "in", &entity());
    let sealed = sender.must(&["seal", "--from", "bob@abc.example", "--to", ALICE], &message);
    let outside = bed.relay.ready().outside_smtp.unwrap();
    assert_eq!(send_smtp(outside, "bob@abc.example", &[ALICE], &sealed).code, 250);
    let received = bed.sink.await_received(1).remove(0).content;
    assert!(mail::contains(&received, WORDS), "not opened");
}

#[test]
fn mail_waits_while_the_directory_is_away_and_is_never_sent_plain() {
    let mut bed = Bed::start();
    assert_eq!(bed.relay.readiness().0, 200);
    bed.directory.kill();
    let reply = bed.send("carol@abc.example", "waits");
    assert_eq!(reply.code, 451, "{reply:?}");
    assert!(format!("{reply:?}").contains("4.7.5"), "{reply:?}");
    assert!(bed.sink.received().is_empty(), "something left");
    await_readiness(&bed.relay, 503, "directory server");
    bed.directory.start_again();
    bed.flows_within(BACK_WITHIN, "carol@abc.example");
    await_readiness(&bed.relay, 200, "ready");
}

#[test]
fn mail_waits_while_the_key_server_is_away_and_is_never_sent_plain() {
    let mut bed = Bed::start();
    assert_eq!(bed.send("bob@abc.example", "before").code, 250);
    bed.keys.take().unwrap().kill();
    let reply = bed.send("bob@abc.example", "waits");
    assert_eq!(reply.code, 451, "{reply:?}");
    assert_eq!(bed.sink.received().len(), 1, "only the first left");
    await_readiness(&bed.relay, 503, "key management server");
    bed.keys = Some(KeyServer::start(PROGRAM, &bed.key_host.configuration()));
    bed.flows_within(BACK_WITHIN, "bob@abc.example");
    await_readiness(&bed.relay, 200, "ready");
}

/// Waits until `/readyz` says so, with this in its line.
fn await_readiness(relay: &Gate, status: u16, word: &str) {
    process::await_that("the news", || relay.readiness().0 == status);
    let (_, line) = relay.readiness();
    assert!(line.contains(word) && line.lines().count() == 1, "{line}");
}

/// The relay signs and decrypts and never has the key: its memory is searched, and the same search finds it in the key
/// server's.
#[test]
fn the_relays_memory_holds_no_secret_key() {
    const CANARY: &str = "canary@nec.example";
    let bed = Bed::start();
    let ours = Pki::new("Ours");
    let identity = ours.issue(CANARY, KeyKind::P256, Reads::GcmAndOaep);
    let password = bed.key_host.dir().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let pkcs12 = identity.pkcs12.to_str().unwrap();
    let import = ["secret-key", "import", CANARY, pkcs12, "--password-file"];
    bed.key_host.must(&[&import[..], &[password.to_str().unwrap()]].concat(), b"");
    for _ in 0..5 {
        let message = mail::message(CANARY, "bob@abc.example", "canary", &entity());
        let inside = bed.relay.ready().inside_smtp.unwrap();
        assert_eq!(send_smtp(inside, CANARY, &["bob@abc.example"], &message).code, 250);
    }
    let audit = bed.keys.as_ref().unwrap().audit();
    let uses = audit.iter().filter(|line| line["operation"] == "sign" && line["owner"] == CANARY);
    assert!(uses.count() >= 5, "{audit:?}");
    // ECPrivateKey (RFC 5915): the scalar follows its version. In memory it stands in words, the least first.
    let der = pem_body(&identity.key);
    let at = mail::find(&der, &[0x02, 0x01, 0x01, 0x04, 0x20]).unwrap() + 5;
    let scalar = der[at..at + 32].to_vec();
    let words: Vec<u8> = scalar.iter().rev().copied().collect();
    let holds = |id: u32| occurrences(id, &scalar) + occurrences(id, &words) > 0;
    assert!(holds(bed.keys.as_ref().unwrap().id()), "the search finds nothing where the key is");
    assert!(!holds(bed.relay.id()), "the relay holds the key");
}

/// A key management server that is not ours: it signs itself, and as it does not decrypt the key is fetched for that. Killed
/// and brought back, it serves again.
#[test]
fn mail_is_sealed_and_opened_with_keys_at_pykmip() {
    let mut server = PyKmipServer::start();
    let (certificate, key) = server.client("gate1");
    let gate = Gate::init(PROGRAM, &["nec.example"]);
    for address in [ALICE, "bob@nec.example"] {
        gate.generate_key(address, "rsa2048");
    }
    describe_kmip(&gate, server.port, &server.pki.root, &certificate, &key);
    let moved = move_keys(&gate, "kmip");
    assert!(moved.contains("4 moved"), "{moved}\n{}", server.log());
    let message = mail::message(ALICE, "bob@nec.example", "pykmip", &entity());
    let seal = ["seal", "--from", ALICE, "--to", "bob@nec.example"];
    let sealed = gate.must(&seal, &message);
    assert!(!mail::contains(&sealed, WORDS));
    let opened = gate.must(&["open", "--from", ALICE, "--to", "bob@nec.example"], &sealed);
    assert!(mail::contains(&opened, WORDS) && mail::contains(&opened, "smime=pass"));
    server.kill();
    let away = gate.run(&seal, &message);
    assert_eq!(away.code, 75, "{}", away.stderr);
    assert!(away.stderr.contains("451 4.7.5"), "{}", away.stderr);
    server.start_again();
    assert!(!mail::contains(&gate.must(&seal, &message), WORDS));
}

/// Keys move into a token, which does not give them out again, and mail is sealed and opened with them there.
#[test]
fn mail_is_sealed_and_opened_with_keys_in_a_token() {
    let token = SoftHsm::new();
    let mut gate = Gate::init(PROGRAM, &["nec.example"]);
    gate.generate_key(ALICE, "rsa2048");
    gate.generate_key("bob@nec.example", "p256");
    describe_token(&mut gate, &token);
    let moved = move_keys(&gate, "pkcs11");
    assert!(moved.contains("4 moved"), "{moved}");
    assert!(embedded(&gate, "secret-key").is_empty());
    let listed = String::from_utf8(gate.must(&["secret-key", "list"], b"")).unwrap();
    assert!(listed.contains(ALICE) && listed.contains("bob@nec.example"), "{listed}");
    for (from, to) in [(ALICE, "bob@nec.example"), ("bob@nec.example", ALICE)] {
        let message = mail::message(from, to, "token", &entity());
        let sealed = gate.must(&["seal", "--from", from, "--to", to], &message);
        assert!(!mail::contains(&sealed, WORDS));
        let opened = gate.must(&["open", "--from", from, "--to", to], &sealed);
        assert!(mail::contains(&opened, WORDS));
        assert!(mail::contains(&opened, "smime=pass"), "{}", String::from_utf8_lossy(&opened));
    }
}

/// Between `secret-key move` and the change of the configuration mail neither goes out unsigned nor comes in sealed.
#[test]
fn mail_of_moved_keys_waits_until_their_store_is_named() {
    const BOB: &str = "bob@abc.example";
    let token = SoftHsm::new();
    let sink = Sink::smtp();
    let mut gate = Gate::init(PROGRAM, &["nec.example"]);
    let abc = Gate::init(PROGRAM, &["abc.example"]);
    gate.generate_key(ALICE, "rsa2048");
    abc.generate_key(BOB, "rsa2048");
    gate.trust(&abc, &[BOB]);
    abc.trust(&gate, &[ALICE]);
    let message = mail::message(BOB, ALICE, "in", &entity());
    let sealed = abc.must(&["seal", "--from", BOB, "--to", ALICE], &message);
    describe_token(&mut gate, &token);
    gate.set(&["outside", "next_hop"], format!("smtp://{}", sink.address));
    gate.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
    let ready = gate.start();
    let inside = || {
        let message = mail::message(ALICE, BOB, "out", &entity());
        send_smtp(ready.inside_smtp.unwrap(), ALICE, &[BOB], &message)
    };
    let outside = || send_smtp(ready.outside_smtp.unwrap(), BOB, &[ALICE], &sealed);
    assert_eq!((inside().code, outside().code), (250, 250), "{}", gate.log());
    sink.await_received(2);

    // Where to is plain: one store outside is described.
    gate.must(&["secret-key", "move"], b"");
    for send in [&inside as &dyn Fn() -> sealgate_testkit::session::Reply, &outside] {
        // Another process's change is seen within a second; until then the key is in memory.
        let mut replies = Vec::new();
        process::await_that("mail waits", || {
            replies.push(send());
            replies.last().unwrap().code != 250
        });
        let reply = replies.pop().unwrap();
        assert_eq!(reply.code, 451, "{reply:?}");
        assert!(format!("{reply:?}").contains("4.7.5"), "{reply:?}");
    }
    assert!(gate.log().contains("[secret_keys] store ="), "{}", gate.log());
    let checked = gate.run(&["check"], b"");
    assert!(!checked.ok(), "`check` does not see it");

    gate.set(&["secret_keys", "store"], "pkcs11");
    gate.signal("HUP");
    for send in [&inside as &dyn Fn() -> sealgate_testkit::session::Reply, &outside] {
        process::await_that("mail flows again", || send().code == 250);
    }
    for received in sink.received() {
        let is_outgoing = mail::contains(&received.content, "smime.p7m");
        assert!(is_outgoing != mail::contains(&received.content, WORDS), "plain or unopened");
        if !is_outgoing {
            assert!(mail::contains(&received.content, "smime=pass"), "not verified");
        }
    }
}

struct Bed {
    // Dropped from the top: what asks ends before what answers.
    relay: Gate,
    keys: Option<KeyServer>,
    key_host: Gate,
    directory: Slapd,
    sink: Sink,
}

impl Bed {
    fn start() -> Self {
        let sink = Sink::smtp();
        let mut directory = Slapd::start(Settings::default());
        let others = Pki::new("Others");
        for address in ["bob@abc.example", "carol@abc.example"] {
            let identity = others.issue(address, KeyKind::Rsa2048, Reads::GcmAndOaep);
            directory.add_person(&Person {
                address: address.to_owned(),
                certificates: vec![pem_body(&identity.certificate)],
                signed_data: Vec::new(),
            });
        }
        let key_host = Gate::init(PROGRAM, &["nec.example"]);
        key_host.generate_key(ALICE, "rsa2048");
        let keys = serve_keys(&key_host);
        let mut relay = Gate::init(PROGRAM, &["nec.example"]);
        relay.must(&["anchor", "import", others.root.to_str().unwrap()], b"");
        use_key_server(&relay, &keys, &key_host);
        use_directory(&relay, &directory);
        relay.set(&["outside", "next_hop"], format!("smtp://{}", sink.address));
        relay.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
        set_master_key_aside(&relay);
        relay.start();
        Self { relay, keys: Some(keys), key_host, directory, sink }
    }

    fn send(&self, to: &str, subject: &str) -> sealgate_testkit::session::Reply {
        let message = mail::message(ALICE, to, subject, &entity());
        send_smtp(self.relay.ready().inside_smtp.unwrap(), ALICE, &[to], &message)
    }

    /// What a mail server does: it tries again.
    fn flows_within(&self, patience: Duration, to: &str) {
        let began = Instant::now();
        let mut code = 0;
        process::await_that("mail flows again", || {
            code = self.send(to, "again").code;
            code == 250
        });
        assert!(began.elapsed() < patience, "{:?} until mail flows", began.elapsed());
    }
}

fn entity() -> Vec<u8> {
    format!("Content-Type: text/plain; charset=us-ascii\r\n\r\n{WORDS}\r\n").into_bytes()
}
