//! Canary words of plaintext and of a key are in no place where a mail has been: no log, metric, database, file, core or
//! memory (REQUIREMENTS L4, L5, J7).
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use sealgate_testkit::gate::Gate;
use sealgate_testkit::mail;
use sealgate_testkit::pki::{KeyKind, PASSWORD, Pki, Reads, pem_body};
use sealgate_testkit::process::await_that;
use sealgate_testkit::session::Session;
use sealgate_testkit::sink::Sink;

#[path = "support/memory.rs"]
mod memory;

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
const SUBJECT: &str = "canary-subject-7f3a";
const BODY: &str = "canary-body-91d0";
/// Base64 of the body as it stands, at each of the three offsets that it may have in an encoded part.
const ENCODED: [&str; 3] =
    ["Y2FuYXJ5LWJvZHktOTFk", "NhbmFyeS1ib2R5LTkxZD", "jYW5hcnktYm9keS05MWQw"];

/// Mails of this run; `SEALGATE_LEAK_MAILS=10000` for the long one.
fn mails() -> usize {
    std::env::var("SEALGATE_LEAK_MAILS").map_or(400, |text| text.parse().unwrap())
}

/// Every file below, the relay's own and what it leaves in its folder for temporary files.
fn files_below(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: gate\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn send(session: &mut Session, from: &str, to: &str, content: &[u8]) -> u16 {
    session.command(&format!("MAIL FROM:<{from}>"));
    session.command(&format!("RCPT TO:<{to}>"));
    assert_eq!(session.command("DATA").code, 354);
    session.content(content);
    session.reply().code
}

/// A relay that seals and opens with a key whose octets are known.
struct Bed {
    gate: Gate,
    sink: Sink,
    abc: Gate,
    scalar: Vec<u8>,
}

impl Bed {
    fn new() -> Self {
        let sink = Sink::smtp();
        let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
        let pki = Pki::new("Ours");
        let alice = pki.issue(ALICE, KeyKind::P256, Reads::GcmAndOaep);
        let password = gate.dir().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let import = ["secret-key", "import", ALICE, alice.pkcs12.to_str().unwrap()];
        let with = ["--password-file", password.to_str().unwrap()];
        gate.must(&[&import[..], &with[..]].concat(), b"");
        let abc = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["abc.example"]);
        abc.generate_key(BOB, "p256");
        gate.trust(&abc, &[BOB]);
        abc.must(&["anchor", "import", pki.root.to_str().unwrap()], b"");
        abc.must(&["public-key", "import", alice.certificate.to_str().unwrap()], b"");
        for (table, key) in [("outside", "next_hop"), ("inside", "mail_server")] {
            gate.set(&[table, key], format!("smtp://{}", sink.address));
        }
        gate.set(&["limits", "connections_per_address_max"], 100);
        let temporary = gate.dir().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        gate.set_environment(vec![("TMPDIR".to_owned(), temporary.into_os_string())]);
        gate.start();
        // ECPrivateKey (RFC 5915): the scalar follows its version.
        let der = pem_body(&alice.key);
        let at = mail::find(&der, &[0x02, 0x01, 0x01, 0x04, 0x20]).unwrap() + 5;
        Self { gate, sink, abc, scalar: der[at..at + 32].to_vec() }
    }

    /// Mail out and in, whole and falsified, refused and delivered.
    fn mails_pass(&self, count: usize) {
        let plain = |number: usize| {
            format!(
                "From: {ALICE}\r\nTo: {BOB}\r\nSubject: {SUBJECT} {number}\r\n\r\n{BODY} {number}\r\n"
            )
            .into_bytes()
        };
        let answer = format!("From: {BOB}\r\nTo: {ALICE}\r\nSubject: {SUBJECT}\r\n\r\n{BODY}\r\n");
        let sealed = self.abc.must(&["seal", "--from", BOB, "--to", ALICE], answer.as_bytes());
        let ready = self.gate.ready();
        for round in 0..count.div_ceil(40) {
            let (mut inside, _) = Session::connect(ready.inside_smtp.unwrap());
            inside.command("EHLO mail.nec.example");
            let (mut outside, _) = Session::connect(ready.outside_smtp.unwrap());
            outside.command("EHLO mail.abc.example");
            for number in 0..18 {
                assert_eq!(send(&mut inside, ALICE, BOB, &plain(round * 18 + number)), 250);
                assert_eq!(send(&mut outside, BOB, ALICE, &sealed), 250);
            }
            for target in [
                sealgate_testkit::cms::Target::EncryptedKey,
                sealgate_testkit::cms::Target::EncryptedContent,
            ] {
                let falsified = sealgate_testkit::cms::falsified(&sealed, target);
                assert_eq!(send(&mut outside, BOB, ALICE, &falsified), 550);
            }
            let two_from = [b"From: x@nec.example\r\n".as_slice(), &plain(0)].concat();
            assert_eq!(send(&mut inside, ALICE, BOB, &two_from), 550);
            let (mut gone, _) = Session::connect(ready.inside_smtp.unwrap());
            gone.command("EHLO mail.nec.example");
            gone.command(&format!("MAIL FROM:<{ALICE}>"));
            gone.command(&format!("RCPT TO:<{BOB}>"));
            gone.command("DATA");
            gone.send(&plain(1));
        }
    }
}

#[test]
fn canary_words_are_nowhere_after_the_mails() {
    let bed = Bed::new();
    bed.mails_pass(mails());
    let received = bed.sink.received();
    assert!(received.len() >= mails() / 40 * 36, "{}", received.len());
    let opened = received.iter().filter(|one| mail::find(&one.content, BODY.as_bytes()).is_some());
    assert!(opened.count() >= received.len() / 2, "what came in is opened");

    let words: Vec<u8> = bed.scalar.iter().rev().copied().collect();
    let mut canaries: Vec<(&str, &[u8])> = vec![
        ("subject", SUBJECT.as_bytes()),
        ("body", BODY.as_bytes()),
        ("key", &bed.scalar),
        ("key in words", &words),
    ];
    canaries.extend(ENCODED.iter().map(|text| ("encoded body", text.as_bytes())));

    let metrics = get(bed.gate.ready().observe.unwrap(), "/metrics");
    assert!(metrics.contains("sealgate_"), "{metrics}");
    let mut files = Vec::new();
    files_below(bed.gate.dir(), &mut files);
    assert!(files.iter().any(|path| path.ends_with("relay.log")), "{files:?}");
    for (what, canary) in &canaries {
        assert!(
            !mail::contains(metrics.as_bytes(), &String::from_utf8_lossy(canary)),
            "{what}: metrics"
        );
        for path in &files {
            let bytes = std::fs::read(path).unwrap();
            assert!(mail::find(&bytes, canary).is_none(), "{what}: {}", path.display());
        }
    }

    // When all sessions are over nothing of any mail is left in memory; the key, which is in use, is.
    let id = bed.gate.id();
    await_that("the sessions end", || {
        get(bed.gate.ready().observe.unwrap(), "/metrics").contains("sealgate_connections_open 0")
    });
    for (what, canary) in canaries.iter().filter(|(what, _)| !what.starts_with("key")) {
        println!("{what}: {} times in memory", memory::occurrences(id, canary));
    }
    let keys = memory::occurrences(id, &bed.scalar) + memory::occurrences(id, &words);
    assert!(keys > 0, "the search finds nothing where a key is");
    println!("key: {keys} times in memory");
    for (what, canary) in canaries.iter().filter(|(what, _)| !what.starts_with("key")) {
        assert_eq!(memory::occurrences(id, canary), 0, "{what}: memory");
    }
}

#[test]
fn a_relay_that_is_killed_by_its_own_signal_leaves_no_core() {
    let mut bed = Bed::new();
    bed.mails_pass(40);
    let limit = std::fs::read_to_string(format!("/proc/{}/limits", bed.gate.id())).unwrap();
    let core = limit.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    bed.gate.signal("ABRT");
    let status = bed.gate.stop();
    assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&status), "{status}");
    let mut files = Vec::new();
    files_below(bed.gate.dir(), &mut files);
    assert!(!files.iter().any(|path| path.to_string_lossy().contains("core")), "{files:?}");
}
