//! What an attacker learns who sends a captured ciphertext again, changed in a thousand ways: nothing (REQUIREMENTS J1, J2).
//! All that fails behind one of our keys gets one reply, at one of the same times.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "../../sealgate-core/tests/support/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use random::Random;
use sealgate_testkit::cms::{Target, locate};
use sealgate_testkit::der::Element;
use sealgate_testkit::gate::Gate;
use sealgate_testkit::mail;
use sealgate_testkit::openssl::OpenSsl;
use sealgate_testkit::peer::{Cipher, Form, Peer as _, Signing, Transport};
use sealgate_testkit::pki::{Identity, KeyKind, PASSWORD, Pki, Reads};
use sealgate_testkit::process;
use sealgate_testkit::session::{Session, send_smtp};
use sealgate_testkit::sink::Sink;
use socket2::{Domain, Socket, Type};

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
const CANARY: &str = "the plaintext that nobody must learn";

struct World {
    gate: Gate,
    sink: Sink,
    alice: Identity,
    bob: Identity,
    _pki: Pki,
}

impl World {
    fn new(unauthenticated: &str) -> Self {
        // Far more than anybody may ask in an hour.
        Self::answering(unauthenticated, 1_000_000)
    }

    fn answering(unauthenticated: &str, failures_max: i64) -> Self {
        let pki = Pki::new("Test");
        let alice = pki.issue(ALICE, KeyKind::Rsa2048, Reads::Unsaid);
        let bob = pki.issue(BOB, KeyKind::P256, Reads::Unsaid);
        let sink = Sink::smtp();
        let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
        let password = gate.dir().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        gate.must(
            &[
                "secret-key",
                "import",
                ALICE,
                alice.pkcs12.to_str().unwrap(),
                "--password-file",
                password.to_str().unwrap(),
            ],
            b"",
        );
        gate.must(&["anchor", "import", pki.root.to_str().unwrap()], b"");
        gate.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
        gate.set(&["policy", "unauthenticated_encryption"], unauthenticated);
        gate.set(&["limits", "connections_per_address_max"], 200);
        gate.set(&["limits", "decryption_failures_per_hour_max"], failures_max);
        gate.start();
        Self { gate, sink, alice, bob, _pki: pki }
    }

    /// A signed mail, as it stands inside an encryption.
    fn signed(&self) -> Vec<u8> {
        let text = format!("Content-Type: text/plain\r\n\r\n{CANARY}\r\n");
        let signature = OpenSsl.sign(&self.bob, Signing::P256, Form::Der, text.as_bytes());
        let base64 = String::from_utf8(mail::encode_base64(&signature.unwrap())).unwrap();
        format!(
            "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256; boundary=b\r\n\
             \r\n--b\r\n{text}\r\n--b\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{base64}\r\n--b--\r\n"
        )
        .into_bytes()
    }

    fn encrypted(&self, cipher: Cipher, transport: Transport, plain: &[u8]) -> Vec<u8> {
        OpenSsl.encrypt(&self.alice, transport, cipher, Form::Der, plain).unwrap()
    }

    /// RSA of this under Alice's public key.
    fn wrapped(&self, key: &[u8]) -> Vec<u8> {
        let mut command = Command::new("openssl");
        command.args(["pkeyutl", "-encrypt", "-certin", "-inkey"]).arg(&self.alice.certificate);
        process::run(&mut command, key).expect_ok("openssl pkeyutl")
    }
}

/// A variant, with what was done to it.
type Variant = (&'static str, Vec<u8>);

/// A thousand changes to captured mails, and mails that an attacker makes of what he knows.
fn variants(world: &World) -> Vec<Variant> {
    let mut random = Random(0x5ea1_6a7e);
    let captured = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed());
    let gcm = world.encrypted(Cipher::Gcm, Transport::RsaPkcs1, &world.signed());
    let mut variants: Vec<Variant> = Vec::new();
    let flipped = |cms: &[u8], at: usize, by: usize| {
        let mut changed = cms.to_vec();
        changed[at] ^= u8::try_from(by).unwrap();
        changed
    };
    for (what, cms) in [("cbc: the wrapped key", &captured), ("gcm: the wrapped key", &gcm)] {
        let key = locate(cms, Target::EncryptedKey);
        for _ in 0..150 {
            let at = key.start + random.below(key.len());
            variants.push((what, flipped(cms, at, 1 + random.below(255))));
        }
    }
    for (what, cms) in [("cbc: the content", &captured), ("gcm: the content", &gcm)] {
        let content = locate(cms, Target::EncryptedContent);
        for _ in 0..150 {
            let at = content.start + random.below(content.len());
            variants.push((what, flipped(cms, at, 1 + random.below(255))));
        }
    }
    // Vaudenay's question, all of its answers: the last octet but one block.
    let content = locate(&captured, Target::EncryptedContent);
    for by in 1..256 {
        variants.push(("cbc: the padding", flipped(&captured, content.end - 17, by)));
    }
    for octet in 0..16 {
        let at = gcm.len() - 16 + octet;
        variants.push(("gcm: the tag", flipped(&gcm, at, 1 << (octet % 8))));
    }
    // Bleichenbacher's: keys of every length, well padded.
    for octets in [0, 1, 5, 15, 16, 17, 24, 31, 32, 33, 48, 64, 100] {
        let wrapped = world.wrapped(&vec![7; octets]);
        let key = locate(&captured, Target::EncryptedKey);
        let mut changed = captured.clone();
        changed[key].copy_from_slice(&wrapped);
        variants.push(("cbc: a key of another length", changed));
    }
    for _ in 0..20 {
        let (iv, blocks) = (random.below(256), 1 + random.below(4));
        variants.push(("gcm as cbc", as_cbc(&gcm, iv, blocks)));
    }
    // What opens, and is not what it must be.
    let mut broken = world.signed();
    let at = mail::find(&broken, CANARY.as_bytes()).unwrap();
    broken[at] ^= 1;
    let mut garbage = Vec::new();
    for _ in 0..200 {
        garbage.push(u8::try_from(random.below(256)).unwrap());
    }
    let unsigned = format!("Content-Type: text/plain\r\n\r\n{CANARY}\r\n");
    for _ in 0..20 {
        for (what, plain) in [
            ("cbc: a broken signature inside", broken.as_slice()),
            ("cbc: garbage inside", garbage.as_slice()),
            ("cbc: unsigned mail inside", unsigned.as_bytes()),
        ] {
            variants.push((what, world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, plain)));
        }
    }
    variants
}

/// The key and the first blocks of an authenticated encryption, called an unauthenticated one.
fn as_cbc(gcm: &[u8], iv: usize, blocks: usize) -> Vec<u8> {
    const ENVELOPED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03";
    const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    const AES_256_CBC: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a";
    let fields = Element::at(gcm, 0).child(gcm, 1).child(gcm, 0).children(gcm);
    let recipients = fields.iter().find(|field| field.tag == 0x31).unwrap();
    let recipients = tlv(0x31, &[&gcm[recipients.contents.clone()]]);
    let content = locate(gcm, Target::EncryptedContent);
    let ciphertext = tlv(0x80, &[&gcm[content.start..content.start + 16 * blocks]]);
    let vector = tlv(0x04, &[&[u8::try_from(iv).unwrap(); 16]]);
    let algorithm = tlv(0x30, &[AES_256_CBC, &vector]);
    let info = tlv(0x30, &[DATA, &algorithm, &ciphertext]);
    let enveloped = tlv(0x30, &[b"\x02\x01\x00", &recipients, &info]);
    tlv(0x30, &[ENVELOPED_DATA, &tlv(0xa0, &[&enveloped])])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
    let mut out = vec![tag, 0x84];
    out.extend_from_slice(&length);
    out.extend_from_slice(&contents);
    out
}

fn mail_of(cms: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "From: {BOB}\r\nTo: {ALICE}\r\nSubject: captured\r\nMIME-Version: 1.0\r\n\
         Content-Type: application/pkcs7-mime; name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    .into_bytes();
    out.extend_from_slice(&mail::encode_base64(cms));
    out
}

/// A session of an attacker.
struct Attacker(Session);

impl Attacker {
    fn new(world: &World) -> Self {
        Self::over(Session::connect_silently(world.gate.ready().outside_smtp.unwrap()))
    }

    /// From another address of this machine.
    fn at(world: &World, address: [u8; 4]) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&world.gate.ready().outside_smtp.unwrap().into()).unwrap();
        Self::over(Session::over(socket.into()))
    }

    fn over(mut session: Session) -> Self {
        assert_eq!(session.reply().code, 220);
        session.command("EHLO abc.example");
        Self(session)
    }

    /// Everything that the server says to one message, without its id, and how long the last of it took.
    fn ask(&mut self, cms: &[u8]) -> (String, Duration) {
        let message = mail::stuffed(&mail_of(cms));
        let mut said = Vec::new();
        for line in [format!("MAIL FROM:<{BOB}>"), format!("RCPT TO:<{ALICE}>"), "DATA".to_owned()]
        {
            said.push(self.0.command(&line));
        }
        let (content, dot) = message.split_at(message.len() - 5);
        self.0.send(content);
        // Before the dot leaves: afterwards this thread may be made to wait while the relay's clock runs.
        let started = Instant::now();
        self.0.send(dot);
        said.push(self.0.reply());
        let took = started.elapsed();
        let text = said.iter().map(|reply| format!("{} {}\n", reply.code, reply.text()));
        (text.map(|line| without_id(&line)).collect(), took)
    }
}

/// The transaction's id is the one thing that differs by design.
fn without_id(line: &str) -> String {
    match line.split_once("(id ") {
        Some((before, after)) => {
            format!("{before}(id){}", after.split_once(')').map_or("", |(_, rest)| rest))
        }
        None => line.to_owned(),
    }
}

/// Asks all of it over many sessions at once.
fn ask_all(world: &World, variants: &[Variant]) -> Vec<(&'static str, String, Duration)> {
    const SESSIONS: usize = 32;
    thread::scope(|scope| {
        let asked: Vec<_> = (0..SESSIONS)
            .map(|session| {
                scope.spawn(move || {
                    // Every second message is some other's: sessions end after a number of commands and of refusals.
                    let mine = variants.iter().skip(session).step_by(SESSIONS);
                    let answers = mine.map(|(what, cms)| {
                        let (text, took) = Attacker::new(world).ask(cms);
                        (*what, text, took)
                    });
                    answers.collect::<Vec<_>>()
                })
            })
            .collect();
        asked.into_iter().flat_map(|one| one.join().unwrap()).collect()
    })
}

fn transcripts(
    answers: &[(&'static str, String, Duration)],
) -> BTreeMap<String, Vec<&'static str>> {
    let mut found: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for (what, text, _) in answers {
        let kinds = found.entry(text.clone()).or_default();
        if !kinds.contains(what) {
            kinds.push(what);
        }
    }
    found
}

#[test]
fn a_thousand_variants_of_a_captured_mail_get_one_reply() {
    let world = World::new("refuse");
    let captured = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed());
    let (text, _) = Attacker::new(&world).ask(&captured);
    assert!(text.contains("\n250 2.0.0"), "the captured mail itself is good: {text}");
    let delivered = world.sink.await_received(1);
    assert!(mail::find(&delivered[0].content, CANARY.as_bytes()).is_some());

    let variants = variants(&world);
    assert!(variants.len() >= 960, "{}", variants.len());
    let answers = ask_all(&world, &variants);
    let found = transcripts(&answers);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found.keys().all(|text| text.contains("\n550 5.7.7 ")), "{found:#?}");
    assert_eq!(world.sink.received().len(), 1, "none of them is delivered");
    times_are_alike(&answers);
}

#[test]
fn where_unsigned_encryption_passes_all_its_variants_get_one_reply_too() {
    let world = World::new("pass");
    let variants = variants(&world);
    let (cbc, gcm): (Vec<_>, Vec<_>) =
        variants.into_iter().partition(|(what, _)| !what.starts_with("gcm: "));
    for (variants, code) in [(cbc, "\n250 2.0.0 "), (gcm, "\n550 5.7.7 ")] {
        let answers = ask_all(&world, &variants);
        let found = transcripts(&answers);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found.keys().all(|text| text.contains(code)), "{found:#?}");
        times_are_alike(&answers);
    }
}

/// REQUIREMENTS J5. What is put off is put off before a key is used, so that good and bad look alike.
#[test]
fn a_network_that_fails_too_often_is_put_off_and_another_is_served() {
    const FAILURES_MAX: usize = 3;
    // Where unsigned encryption passes, opened mail and mail that cannot be opened both get 250, and both count.
    for (unauthenticated, answer) in [("refuse", "\n550 5.7.7 "), ("pass", "\n250 2.0.0 ")] {
        let world = World::answering(unauthenticated, i64::try_from(FAILURES_MAX).unwrap());
        let captured = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed());
        let mut broken = captured.clone();
        let content = locate(&captured, Target::EncryptedContent);
        broken[content.end - 17] ^= 0x55;
        let unsigned = format!("Content-Type: text/plain\r\n\r\n{CANARY}\r\n");
        let unsigned = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, unsigned.as_bytes());
        // What is good is not counted.
        for _ in 0..=FAILURES_MAX {
            assert!(Attacker::new(&world).ask(&captured).0.contains("\n250 2.0.0 "));
        }
        for cms in [&broken, &unsigned, &broken] {
            let (text, _) = Attacker::at(&world, [127, 0, 0, 7]).ask(cms);
            assert!(text.contains(answer), "{text}");
        }
        let over = [&broken, &captured, &unsigned].map(|cms| Attacker::new(&world).ask(cms).0);
        assert!(over[0].contains("\n451 4.7.1 "), "{}", over[0]);
        assert!(over.iter().all(|text| *text == over[0]), "{over:?}");
        let delivered = world.sink.received().len();
        let (text, _) = Attacker::at(&world, [127, 0, 1, 1]).ask(&captured);
        assert!(text.contains("\n250 2.0.0 "), "{text}");
        // What nobody has to open.
        let outside = world.gate.ready().outside_smtp.unwrap();
        let plain = format!("From: {BOB}\r\nTo: {ALICE}\r\n\r\nx\r\n");
        assert_eq!(send_smtp(outside, BOB, &[ALICE], plain.as_bytes()).code, 250);
        assert_eq!(world.sink.received().len(), delivered + 2, "nothing unread was delivered");
        assert_eq!(world.gate.log().matches("put off").count(), 1, "{}", world.gate.log());
        let metrics = world.gate.get("/metrics");
        assert!(metrics.contains("sealgate_decryptions_put_off_total 3"), "{metrics}");
    }
}

/// No reply goes out before the tick, whatever the variant.
fn times_are_alike(answers: &[(&'static str, String, Duration)]) {
    let mut kinds: Vec<&'static str> = answers.iter().map(|(what, ..)| *what).collect();
    kinds.sort_unstable();
    kinds.dedup();
    println!("{} variants of {} kinds", answers.len(), kinds.len());
    let earliest = answers.iter().map(|(.., took)| *took).min().unwrap();
    assert!(earliest >= TICK, "{earliest:?}");
}

/// When replies go out: at the next multiple of this.
const TICK: Duration = Duration::from_millis(100);

/// The pairs that oracles are made of, asked alternately: does the time tell the one from the
/// other? By chance it may, but not twice, with more samples.
#[test]
fn the_time_tells_nothing_of_what_failed() {
    let world = World::new("refuse");
    let captured = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed());
    let content = locate(&captured, Target::EncryptedContent);
    let key = locate(&captured, Target::EncryptedKey);
    let mut bad_padding = captured.clone();
    bad_padding[content.end - 17] ^= 0x55;
    let mut bad_key = captured;
    bad_key[key.start + 100] ^= 1;
    let mut broken = world.signed();
    let at = mail::find(&broken, CANARY.as_bytes()).unwrap();
    broken[at] ^= 1;
    let bad_signature = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &broken);
    let kinds = [("padding", bad_padding), ("key", bad_key), ("signature", bad_signature)];
    let first = told_apart(&world, &kinds, 400);
    let second = if first.is_empty() { first.clone() } else { told_apart(&world, &kinds, 800) };
    let told: Vec<_> = second.iter().filter(|pair| first.contains(pair)).collect();
    assert!(told.is_empty(), "{told:?}");
}

/// The pairs of kinds that their replies' times tell apart.
fn told_apart(
    world: &World,
    kinds: &[(&'static str, Vec<u8>); 3],
    samples: usize,
) -> Vec<[&'static str; 2]> {
    let times: Vec<[Duration; 3]> = thread::scope(|scope| {
        let asking: Vec<_> = (0..SESSIONS_AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let ask = |_| [0, 1, 2].map(|kind| Attacker::new(world).ask(&kinds[kind].1).1);
                    (0..samples / SESSIONS_AT_ONCE).map(ask).collect::<Vec<_>>()
                })
            })
            .collect();
        asking.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let mut told = Vec::new();
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let of = |kind: usize| times.iter().map(|round| round[kind]).collect::<Vec<_>>();
        let distance = kolmogorov_smirnov(&of(one), &of(other));
        // Where both are of one distribution, more than this has a probability of 0.1 %.
        let limit = 1.95 * (2.0 / times.len() as f64).sqrt();
        let pair = [kinds[one].0, kinds[other].0];
        println!("{} against {}: {distance:.3}, limit {limit:.3}", pair[0], pair[1]);
        if distance >= limit {
            told.push(pair);
        }
    }
    told
}

/// The greatest distance between two empirical distribution functions.
fn kolmogorov_smirnov(one: &[Duration], other: &[Duration]) -> f64 {
    let share = |times: &[Duration], limit: Duration| {
        times.iter().filter(|time| **time <= limit).count() as f64 / times.len() as f64
    };
    one.iter()
        .chain(other)
        .map(|limit| (share(one, *limit) - share(other, *limit)).abs())
        .fold(0.0, f64::max)
}

const SESSIONS_AT_ONCE: usize = 8;
