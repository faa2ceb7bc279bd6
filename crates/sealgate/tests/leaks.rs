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
use std::process::Command;

use sealgate_testkit::cms;
use sealgate_testkit::gate::Gate;
use sealgate_testkit::mail;
use sealgate_testkit::pki::{Identity, KeyKind, Pki, Reads, pem_body};
use sealgate_testkit::process::{self, await_that};
use sealgate_testkit::session::Session;
use sealgate_testkit::sink::Sink;

#[path = "support/memory.rs"]
mod memory;

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
/// The two have RSA keys: what the keys of their mails are, `openssl` tells.
const CAROL: &str = "carol@nec.example";
const DAVE: &str = "dave@abc.example";
const SUBJECT: &str = "canary-subject-7f3a";
const BODY: &str = "canary-body-91d0";
/// Of the PKCS#12 file that the key came in.
const PASSWORD: &str = "canary-password-5c21";
/// What `sealgate init` keeps it in.
const MASTER_KEY: &str = "master.key";
/// Base64 of the body as it stands, at each of the three offsets that it may have in an encoded part.
const ENCODED: [&str; 3] =
    ["Y2FuYXJ5LWJvZHktOTFk", "NhbmFyeS1ib2R5LTkxZD", "jYW5hcnktYm9keS05MWQw"];

/// Of so many sealed mails the content keys are looked for.
const CONTENT_KEYS_MAX: usize = 10;

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
    carol: Identity,
    dave: Identity,
    /// Holds their files.
    _pki: Pki,
    scalar: Vec<u8>,
    /// The key under which the database's keys are, in hexadecimal digits and as it is.
    master: (String, Vec<u8>),
}

/// The key that a mail's content is encrypted with, as its recipient finds it.
fn content_key(message: &[u8], recipient: &Identity) -> Vec<u8> {
    let cms = mail::decoded_body(message);
    let encrypted = &cms[cms::locate(&cms, cms::Target::EncryptedKey)];
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", "-decrypt", "-pkeyopt", "rsa_padding_mode:oaep"]);
    command.args(["-pkeyopt", "rsa_oaep_md:sha256", "-inkey"]).arg(&recipient.key);
    let key = process::run(&mut command, encrypted).expect_ok("openssl pkeyutl");
    assert!(key.len() == 16 || key.len() == 32, "{} octets are no AES key", key.len());
    key
}

/// As it would stand in a text: hexadecimal digits of either kind, Base64 at each of the three offsets, the numbers by which
/// Rust shows octets.
fn as_text(octets: &[u8]) -> Vec<Vec<u8>> {
    let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    let base64 = (0..3).map(|before| {
        let shifted = [&[0; 2][..before], octets].concat();
        let text = mail::encode_base64(&shifted).into_iter().filter(|b| !b.is_ascii_whitespace());
        // What stands beside it is in the first and the last characters too.
        let text: Vec<u8> = text.skip(4 * before.min(1)).collect();
        text[..text.len() - 4].to_vec()
    });
    let numbers = format!("{octets:?}");
    let numbers = numbers.trim_matches(['[', ']']).to_owned();
    let texts = [digits.to_ascii_uppercase(), digits, numbers].map(String::into_bytes);
    texts.into_iter().chain(base64).collect()
}

#[test]
fn a_canary_is_known_in_every_dress() {
    let octets = b"\x00canary\xff";
    let lines = [
        "digits 0063616E617279FF.".to_owned(),
        "digits 0063616e617279ff.".to_owned(),
        format!("{:?}", [b"x", &octets[..], b"y"].concat()),
        String::from_utf8(mail::encode_base64(&[b"", &octets[..], b"and more"].concat())).unwrap(),
        String::from_utf8(mail::encode_base64(&[b"x", &octets[..], b"and more"].concat())).unwrap(),
        String::from_utf8(mail::encode_base64(&[b"xy", &octets[..], b"and more"].concat()))
            .unwrap(),
    ];
    let texts = as_text(octets);
    for line in lines {
        assert!(texts.iter().any(|text| mail::find(line.as_bytes(), text).is_some()), "{line}");
    }
}

/// Somebody's key in a file whose password stands in no other test.
fn in_pkcs12(alice: &Identity, to: &Path) {
    let mut command = Command::new("openssl");
    command.args(["pkcs12", "-export", "-passout", &format!("pass:{PASSWORD}")]);
    command.arg("-inkey").arg(&alice.key).arg("-in").arg(&alice.certificate);
    command.arg("-certfile").arg(alice.certificate.with_file_name("root.pem"));
    process::run(command.arg("-out").arg(to), b"").expect_ok("openssl pkcs12");
}

impl Bed {
    fn new() -> Self {
        Self::failing(None)
    }

    /// One that fails at these points.
    fn failing(plan: Option<&str>) -> Self {
        let sink = Sink::smtp();
        let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
        let pki = Pki::new("Ours");
        let alice = pki.issue(ALICE, KeyKind::P256, Reads::GcmAndOaep);
        let [carol, dave] =
            [CAROL, DAVE].map(|one| pki.issue(one, KeyKind::Rsa2048, Reads::GcmAndOaep));
        let [password, container] = ["password", "one.p12"].map(|name| gate.dir().join(name));
        std::fs::write(&password, PASSWORD).unwrap();
        for one in [&alice, &carol] {
            in_pkcs12(one, &container);
            let import = ["secret-key", "import", &one.address, container.to_str().unwrap()];
            let with = ["--password-file", password.to_str().unwrap()];
            gate.must(&[&import[..], &with[..]].concat(), b"");
        }
        // The test's own, not the relay's.
        for path in [password, container] {
            std::fs::remove_file(path).unwrap();
        }
        let digits = std::fs::read_to_string(gate.dir().join(MASTER_KEY)).unwrap();
        let digits = digits.trim().to_owned();
        let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let octets: Vec<u8> = (0..digits.len()).step_by(2).map(octet).collect();
        assert_eq!(octets.len(), 32, "the master key");
        let abc = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["abc.example"]);
        abc.generate_key(BOB, "p256");
        gate.trust(&abc, &[BOB]);
        for (gate, known) in [(&abc, &alice), (&abc, &carol), (&gate, &dave)] {
            gate.must(&["anchor", "import", pki.root.to_str().unwrap()], b"");
            gate.must(&["public-key", "import", known.certificate.to_str().unwrap()], b"");
        }
        for (table, key) in [("outside", "next_hop"), ("inside", "mail_server")] {
            gate.set(&[table, key], format!("smtp://{}", sink.address));
        }
        gate.set(&["limits", "connections_per_address_max"], 100);
        // Falsified mail comes from one address all the time.
        gate.set(&["limits", "decryption_failures_per_hour_max"], 1_000_000);
        let temporary = gate.dir().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let mut environment = vec![("TMPDIR".to_owned(), temporary.into_os_string())];
        if let Some(plan) = plan {
            environment.push(("SEALGATE_FAILPOINTS".to_owned(), plan.into()));
            environment.push(("RUST_BACKTRACE".to_owned(), "full".into()));
        }
        gate.set_environment(environment);
        gate.start();
        // ECPrivateKey (RFC 5915): the scalar follows its version.
        let der = pem_body(&alice.key);
        let at = mail::find(&der, &[0x02, 0x01, 0x01, 0x04, 0x20]).unwrap() + 5;
        let scalar = der[at..at + 32].to_vec();
        Self { gate, sink, abc, carol, dave, _pki: pki, scalar, master: (digits, octets) }
    }

    /// Mail out and in, whole and falsified, refused and delivered. Gives the content key of the mail for Carol, the same one
    /// each time.
    fn mails_pass(&self, count: usize) -> Vec<u8> {
        let plain = |number: usize| {
            format!(
                "From: {ALICE}\r\nTo: {BOB}\r\nSubject: {SUBJECT} {number}\r\n\r\n{BODY} {number}\r\n"
            )
            .into_bytes()
        };
        let answer = format!("From: {BOB}\r\nTo: {ALICE}\r\nSubject: {SUBJECT}\r\n\r\n{BODY}\r\n");
        let [sealed, for_carol] = [ALICE, CAROL]
            .map(|to| self.abc.must(&["seal", "--from", BOB, "--to", to], answer.as_bytes()));
        let ready = self.gate.ready();
        for round in 0..count.div_ceil(40) {
            let (mut inside, _) = Session::connect(ready.inside_smtp.unwrap());
            inside.command("EHLO mail.nec.example");
            let (mut outside, _) = Session::connect(ready.outside_smtp.unwrap());
            outside.command("EHLO mail.abc.example");
            for number in 0..17 {
                assert_eq!(send(&mut inside, ALICE, BOB, &plain(round * 18 + number)), 250);
                assert_eq!(send(&mut outside, BOB, ALICE, &sealed), 250);
            }
            assert_eq!(send(&mut inside, ALICE, DAVE, &plain(round * 18 + 17)), 250);
            assert_eq!(send(&mut outside, BOB, CAROL, &for_carol), 250);
            for target in [cms::Target::EncryptedKey, cms::Target::EncryptedContent] {
                let falsified = cms::falsified(&sealed, target);
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
        content_key(&for_carol, &self.carol)
    }

    /// The content keys of the mails that went out to Dave.
    fn content_keys(&self) -> Vec<Vec<u8>> {
        let received = self.sink.received();
        let daves = received.iter().filter(|one| one.recipients.iter().any(|to| to.contains(DAVE)));
        daves
            .rev()
            .take(CONTENT_KEYS_MAX)
            .map(|one| content_key(&one.content, &self.dave))
            .collect()
    }
}

#[test]
fn canary_words_are_nowhere_after_the_mails() {
    let bed = Bed::new();
    let mut content_keys = vec![bed.mails_pass(mails())];
    content_keys.extend(bed.content_keys());
    assert!(content_keys.len() > mails().div_ceil(40).min(CONTENT_KEYS_MAX));
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
        ("key: master", &bed.master.1),
        ("key: master in digits", bed.master.0.as_bytes()),
        ("password", PASSWORD.as_bytes()),
    ];
    canaries.extend(ENCODED.iter().map(|text| ("encoded body", text.as_bytes())));
    canaries.extend(content_keys.iter().map(|key| ("content key", key.as_slice())));
    let in_text = [SUBJECT.as_bytes(), BODY.as_bytes(), &bed.scalar, &bed.master.1];
    let in_text = in_text.into_iter().chain(content_keys.iter().map(Vec::as_slice));
    let texts: Vec<Vec<u8>> = in_text.flat_map(as_text).collect();

    let metrics = get(bed.gate.ready().observe.unwrap(), "/metrics");
    assert!(metrics.contains("sealgate_"), "{metrics}");
    let mut files = Vec::new();
    files_below(bed.gate.dir(), &mut files);
    assert!(files.iter().any(|path| path.ends_with("relay.log")), "{files:?}");
    let is_masters = |path: &Path| path.ends_with(MASTER_KEY);
    let kept = files.iter().find(|path| is_masters(path)).map(|path| std::fs::read(path).unwrap());
    let found = kept.is_some_and(|text| mail::contains(&text, &bed.master.0));
    assert!(found, "the search finds nothing where the master key is");
    let texts = texts.iter().map(|text| ("in text", text.as_slice()));
    for (what, canary) in canaries.iter().copied().chain(texts) {
        assert!(mail::find(metrics.as_bytes(), canary).is_none(), "{what}: metrics");
        for path in files.iter().filter(|path| !is_masters(path)) {
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
    let masters = memory::occurrences(id, &bed.master.1);
    println!("master key: {masters} times in memory");
    assert!(masters > 0, "the search finds nothing where the master key is");
    for (what, canary) in canaries.iter().filter(|(what, _)| !what.starts_with("key")) {
        assert_eq!(memory::occurrences(id, canary), 0, "{what}: memory");
    }
}

/// A panic says where it happened and not what with, its backtrace included; the next mail meets the next panic.
#[test]
fn a_panic_tells_nothing_of_the_mail() {
    let bed = Bed::failing(Some("transaction.computing=panic"));
    let plain = format!("From: {ALICE}\r\nTo: {BOB}\r\nSubject: {SUBJECT}\r\n\r\n{BODY}\r\n");
    let sealed = bed.abc.must(
        &["seal", "--from", BOB, "--to", ALICE],
        format!("From: {BOB}\r\nTo: {ALICE}\r\nSubject: {SUBJECT}\r\n\r\n{BODY}\r\n").as_bytes(),
    );
    let ready = bed.gate.ready();
    for (entrance, from, to, content) in [
        (ready.inside_smtp, ALICE, BOB, plain.as_bytes()),
        (ready.outside_smtp, BOB, ALICE, sealed.as_slice()),
    ] {
        let (mut session, _) = Session::connect(entrance.unwrap());
        session.command("EHLO mail.example");
        assert_eq!(send(&mut session, from, to, content), 451);
    }
    assert!(bed.sink.received().is_empty());
    let log = bed.gate.log();
    assert_eq!(log.matches("panic: this is a bug").count(), 2, "{log}");
    // What a panic is given may be content.
    assert!(!log.contains("as planned"), "{log}");
    let mut files = Vec::new();
    files_below(bed.gate.dir(), &mut files);
    for canary in [SUBJECT, BODY].into_iter().chain(ENCODED) {
        for path in &files {
            let bytes = std::fs::read(path).unwrap();
            assert!(!mail::contains(&bytes, canary), "{canary}: {}", path.display());
        }
    }
}

#[test]
fn a_relay_that_is_killed_by_its_own_signal_leaves_no_core() {
    let mut bed = Bed::new();
    bed.mails_pass(40);
    let limit = std::fs::read_to_string(format!("/proc/{}/limits", bed.gate.id())).unwrap();
    let core = limit.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    // Soft and hard: it is not for the shell that started it to decide.
    let limits: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(limits, ["0", "0"], "{core}");
    bed.gate.signal("ABRT");
    let status = bed.gate.stop();
    assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&status), "{status}");
    let mut files = Vec::new();
    files_below(bed.gate.dir(), &mut files);
    assert!(!files.iter().any(|path| path.to_string_lossy().contains("core")), "{files:?}");
}
