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

#[path = "support/elsewhere.rs"]
mod elsewhere;
#[path = "../../sealgate-core/tests/support/random.rs"]
mod random;
#[path = "oracles/refusals.rs"]
mod refusals;
#[path = "oracles/variants.rs"]
mod variants;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use elsewhere::{describe_token, move_keys, serve_keys, use_key_server};
use sealgate_testkit::cms::{Target, locate};
use sealgate_testkit::gate::Gate;
use sealgate_testkit::key_server::KeyServer;
use sealgate_testkit::mail;
use sealgate_testkit::openssl::OpenSsl;
use sealgate_testkit::peer::{Cipher, Form, Peer as _, Signing, Transport};
use sealgate_testkit::pki::{Identity, KeyKind, PASSWORD, Pki, Reads};
use sealgate_testkit::process;
use sealgate_testkit::session::{Session, send_smtp};
use sealgate_testkit::sink::Sink;
use sealgate_testkit::softhsm::SoftHsm;
use socket2::{Domain, Socket, Type};
use variants::{Variant, changed, flipped, variants};

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
/// Has a key of her own at the same relay.
const CAROL: &str = "carol@nec.example";
/// Has a key of an elliptic curve.
const ERIN: &str = "erin@nec.example";
const CANARY: &str = "the plaintext that nobody must learn";

/// Where the keys are that open it.
#[derive(Clone, Copy, Debug)]
enum Place {
    Embedded,
    KeyServer,
    Token,
}

struct World {
    gate: Gate,
    sink: Sink,
    alice: Identity,
    bob: Identity,
    carol: Identity,
    erin: Identity,
    _pki: Pki,
    _keys: Option<(KeyServer, Gate)>,
    _token: Option<SoftHsm>,
}

impl World {
    fn new(unauthenticated: &str) -> Self {
        // Far more than anybody may ask in an hour.
        Self::answering(unauthenticated, 1_000_000)
    }

    fn answering(unauthenticated: &str, failures_max: i64) -> Self {
        Self::at(Place::Embedded, unauthenticated, failures_max)
    }

    fn at(place: Place, unauthenticated: &str, failures_max: i64) -> Self {
        Self::before(Sink::smtp(), place, |gate| {
            gate.set(&["policy", "unauthenticated_encryption"], unauthenticated);
            gate.set(&["limits", "decryption_failures_per_hour_max"], failures_max);
        })
    }

    /// With this mail server behind it.
    fn before(sink: Sink, place: Place, configure: impl FnOnce(&Gate)) -> Self {
        let pki = Pki::new("Test");
        let alice = pki.issue(ALICE, KeyKind::Rsa2048, Reads::Unsaid);
        let bob = pki.issue(BOB, KeyKind::P256, Reads::Unsaid);
        let carol = pki.issue(CAROL, KeyKind::Rsa2048, Reads::Unsaid);
        let erin = pki.issue(ERIN, KeyKind::P256, Reads::Unsaid);
        let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
        let import_keys = |into: &Gate| {
            let password = into.dir().join("password");
            std::fs::write(&password, PASSWORD).unwrap();
            for identity in [&alice, &carol, &erin] {
                let pkcs12 = identity.pkcs12.to_str().unwrap();
                let import = ["secret-key", "import", &identity.address, pkcs12];
                let with = ["--password-file", password.to_str().unwrap()];
                into.must(&[&import[..], &with[..]].concat(), b"");
            }
        };
        let (mut keys, mut token) = (None, None);
        match place {
            Place::Embedded => import_keys(&gate),
            Place::KeyServer => {
                let key_host = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
                import_keys(&key_host);
                key_host.set(&["key_server", "uses_per_minute"], 1_000_000);
                let server = serve_keys(&key_host);
                use_key_server(&gate, &server, &key_host);
                keys = Some((server, key_host));
            }
            Place::Token => {
                import_keys(&gate);
                let softhsm = SoftHsm::new();
                describe_token(&mut gate, &softhsm);
                move_keys(&gate, "pkcs11");
                token = Some(softhsm);
            }
        }
        gate.must(&["anchor", "import", pki.root.to_str().unwrap()], b"");
        let scheme = sink.protocol().scheme();
        gate.set(&["inside", "mail_server"], format!("{scheme}://{}", sink.address));
        gate.set(&["limits", "connections_per_address_max"], 200);
        configure(&gate);
        gate.start();
        Self { gate, sink, alice, bob, carol, erin, _pki: pki, _keys: keys, _token: token }
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

    /// The same message with another key wrapped, well padded.
    fn with_key(&self, cms: &[u8], key: &[u8]) -> Vec<u8> {
        let mut changed = cms.to_vec();
        changed[locate(cms, Target::EncryptedKey)].copy_from_slice(&self.wrapped(key));
        changed
    }
}

fn mail_of(subject: &str, cms: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "From: {BOB}\r\nTo: {ALICE}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
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
        self.ask_for(&[ALICE], cms)
    }

    fn ask_for(&mut self, to: &[&str], cms: &[u8]) -> (String, Duration) {
        self.ask_about("captured", to, cms)
    }

    fn ask_about(&mut self, subject: &str, to: &[&str], cms: &[u8]) -> (String, Duration) {
        let message = mail::stuffed(&mail_of(subject, cms));
        let mut said = Vec::new();
        said.push(self.0.command(&format!("MAIL FROM:<{BOB}>")));
        said.extend(to.iter().map(|to| self.0.command(&format!("RCPT TO:<{to}>"))));
        said.push(self.0.command("DATA"));
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
fn ask_all(
    world: &World,
    to: &'static str,
    variants: &[Variant],
) -> Vec<(&'static str, String, Duration)> {
    const SESSIONS: usize = 32;
    thread::scope(|scope| {
        let asked: Vec<_> = (0..SESSIONS)
            .map(|session| {
                scope.spawn(move || {
                    // Every second message is some other's: sessions end after a number of commands and of refusals.
                    let mine = variants.iter().skip(session).step_by(SESSIONS);
                    let answers = mine.map(|(what, cms)| {
                        let (text, took) = Attacker::new(world).ask_for(&[to], cms);
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
    assert!(variants.len() >= 1000, "{}", variants.len());
    let answers = ask_all(&world, ALICE, &variants);
    let found = transcripts(&answers);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found.keys().all(|text| text.contains("\n550 5.7.7 ")), "{found:#?}");
    assert_eq!(world.sink.received().len(), 1, "none of them is delivered");
    times_are_alike(&answers);
}

#[test]
fn where_unsigned_encryption_passes_all_its_variants_get_one_reply_too() {
    let world = World::new("pass");
    get_one_reply(&world, ALICE, variants(&world), "\n250 2.0.0 ");
}

/// All those of an unauthenticated encryption the one of this code, the others a refusal.
fn get_one_reply(world: &World, to: &'static str, variants: Vec<Variant>, unauthenticated: &str) {
    let (cbc, gcm): (Vec<_>, Vec<_>) =
        variants.into_iter().partition(|(what, _)| !what.starts_with("gcm: "));
    for (variants, code) in [(cbc, unauthenticated), (gcm, "\n550 5.7.7 ")] {
        assert!(!variants.is_empty());
        let answers = ask_all(world, to, &variants);
        let found = transcripts(&answers);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found.keys().all(|text| text.contains(code)), "{found:#?}");
        times_are_alike(&answers);
    }
}

/// What keeps the key may say of a padding what it likes: nobody hears it.
#[test]
fn wherever_the_keys_are_a_variant_gets_the_same_reply() {
    const OF_A_KIND: usize = 24;
    for place in [Place::KeyServer, Place::Token] {
        for (unauthenticated, code) in [("refuse", "\n550 5.7.7 "), ("pass", "\n250 2.0.0 ")] {
            let world = World::at(place, unauthenticated, 1_000_000);
            let captured = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed());
            let (text, _) = Attacker::new(&world).ask(&captured);
            assert!(text.contains("\n250 2.0.0"), "{place:?}: {text}\n{}", world.gate.log());
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            let mut variants = variants(&world);
            variants.retain(|(what, _)| {
                let count = counts.entry(what).or_default();
                *count += 1;
                *count <= OF_A_KIND
            });
            get_one_reply(&world, ALICE, variants, code);
        }
    }
}

#[test]
fn however_the_key_was_wrapped_a_variant_gets_the_same_reply() {
    for (unauthenticated, code) in [("refuse", "\n550 5.7.7 "), ("pass", "\n250 2.0.0 ")] {
        let world = World::new(unauthenticated);
        for (to, reader, transport) in
            [(ALICE, &world.alice, Transport::RsaOaep), (ERIN, &world.erin, Transport::EcdhP256)]
        {
            let encrypted = |cipher| {
                OpenSsl.encrypt(reader, transport, cipher, Form::Der, &world.signed()).unwrap()
            };
            let captured = encrypted(Cipher::Cbc);
            let (text, _) = Attacker::new(&world).ask_for(&[to], &captured);
            assert!(text.contains("\n250 2.0.0"), "{to}: {text}");
            let variants = changed(&captured, &encrypted(Cipher::Gcm));
            get_one_reply(&world, to, variants, code);
        }
    }
}

/// Neither the captured mail nor what an attacker makes of it opens for somebody else who has a key here.
#[test]
fn no_variant_opens_for_another_recipient() {
    let world = World::new("pass");
    let captured = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed());
    let gcm = world.encrypted(Cipher::Gcm, Transport::RsaPkcs1, &world.signed());
    let mut variants = variants(&world);
    variants.extend([("captured", captured.clone()), ("captured, gcm", gcm)]);
    let answers = ask_all(&world, CAROL, &variants);
    let code = |code: &str| answers.iter().filter(|(_, text, _)| text.contains(code)).count();
    let (taken, refused) = (code("\n250 2.0.0 "), code("\n550 5.7.7 "));
    println!("{taken} delivered as they were, {refused} refused");
    assert_eq!(taken + refused, variants.len(), "{:#?}", transcripts(&answers));
    let received = world.sink.await_received(taken);
    assert_eq!(received.len(), taken);
    let opened = |content: &[u8]| mail::find(content, CANARY.as_bytes()).is_some();
    assert!(!received.iter().any(|one| opened(&one.content)), "opened for {CAROL}");
    // Not together with the one whom it is for, either.
    let (text, _) = Attacker::new(&world).ask_for(&[CAROL, ALICE], &captured);
    assert!(text.contains("\n250 2.0.0"), "{text}");
    let received = world.sink.received();
    let mut opened = received.iter().filter(|one| opened(&one.content));
    let to = &opened.next().unwrap().recipients;
    assert!(matches!(to.as_slice(), [one] if one.contains(ALICE)), "{to:?}");
    assert!(opened.next().is_none());
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
    the_time_tells_nothing("refuse");
}

#[test]
fn nor_where_unsigned_encryption_passes() {
    the_time_tells_nothing("pass");
}

fn the_time_tells_nothing(unauthenticated: &str) {
    let world = World::new(unauthenticated);
    let captured = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &world.signed());
    let content = locate(&captured, Target::EncryptedContent);
    let key = locate(&captured, Target::EncryptedKey);
    let mut broken = world.signed();
    let at = mail::find(&broken, CANARY.as_bytes()).unwrap();
    broken[at] ^= 1;
    let bad_signature = world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, &broken);
    let unsigned = format!("Content-Type: text/plain\r\n\r\n{CANARY}\r\n");
    let cbc = [
        ("padding", flipped(&captured, content.end - 17, 0x55)),
        ("key", flipped(&captured, key.start + 100, 1)),
        ("signature", bad_signature),
        // Marvin's: the padding of PKCS #1 is good, and what it holds is not.
        ("length of the key", world.with_key(&captured, &[7; 16])),
        ("another key", world.with_key(&captured, &[7; 32])),
        // Vaudenay's yes: it opens, and is refused, or by rule delivered, because it is not signed.
        ("unsigned", world.encrypted(Cipher::Cbc, Transport::RsaPkcs1, unsigned.as_bytes())),
    ];
    let gcm = world.encrypted(Cipher::Gcm, Transport::RsaPkcs1, &world.signed());
    let gcm_key = locate(&gcm, Target::EncryptedKey);
    let gcm_content = locate(&gcm, Target::EncryptedContent);
    let gcm = [
        ("gcm tag", flipped(&gcm, gcm.len() - 1, 1)),
        ("gcm content", flipped(&gcm, gcm_content.start, 1)),
        ("gcm key", flipped(&gcm, gcm_key.start + 100, 1)),
        ("gcm, another key", world.with_key(&gcm, &[7; 32])),
        ("gcm, signature", world.encrypted(Cipher::Gcm, Transport::RsaPkcs1, &broken)),
    ];
    times_tell_nothing(&world, &cbc);
    times_tell_nothing(&world, &gcm);
}

fn times_tell_nothing(world: &World, kinds: &[(&'static str, Vec<u8>)]) {
    let samples = samples();
    let first = told_apart(world, kinds, samples);
    let again = || told_apart(world, kinds, 2 * samples);
    let second = if first.is_empty() { Vec::new() } else { again() };
    let told: Vec<_> = second.iter().filter(|pair| first.contains(pair)).collect();
    assert!(told.is_empty(), "{told:?}");
}

/// Of each kind; `SEALGATE_ORACLE_SAMPLES=20000` for the long run.
fn samples() -> usize {
    std::env::var("SEALGATE_ORACLE_SAMPLES").map_or(320, |text| text.parse().unwrap())
}

/// The pairs of kinds that their replies' times tell apart.
fn told_apart(
    world: &World,
    kinds: &[(&'static str, Vec<u8>)],
    samples: usize,
) -> Vec<[&'static str; 2]> {
    let times: Vec<Vec<Duration>> = thread::scope(|scope| {
        let asking: Vec<_> = (0..SESSIONS_AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let ask = |cms| Attacker::new(world).ask(cms).1;
                    let round = |_| kinds.iter().map(|(_, cms)| ask(cms)).collect();
                    (0..samples / SESSIONS_AT_ONCE).map(round).collect::<Vec<_>>()
                })
            })
            .collect();
        asking.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let of = |kind: usize| {
        let mut of: Vec<Duration> = times.iter().map(|round| round[kind]).collect();
        of.sort_unstable();
        of
    };
    let mut told = Vec::new();
    for one in 0..kinds.len() {
        for other in one + 1..kinds.len() {
            let distance = kolmogorov_smirnov(&of(one), &of(other));
            // Where both are of one distribution, more than this has a probability of 0.1 %.
            let limit = 1.95 * (2.0 / times.len() as f64).sqrt();
            let pair = [kinds[one].0, kinds[other].0];
            println!("{} against {}: {distance:.4}, limit {limit:.4}", pair[0], pair[1]);
            if distance >= limit {
                told.push(pair);
            }
        }
    }
    told
}

/// The greatest distance between the empirical distribution functions of two sorted samples.
fn kolmogorov_smirnov(one: &[Duration], other: &[Duration]) -> f64 {
    let (mut below, mut greatest) = ([0, 0], 0.0);
    while let (Some(a), Some(b)) = (one.get(below[0]), other.get(below[1])) {
        let limit = *a.min(b);
        below[0] += one[below[0]..].iter().take_while(|time| **time <= limit).count();
        below[1] += other[below[1]..].iter().take_while(|time| **time <= limit).count();
        let [a, b] = [below[0] as f64 / one.len() as f64, below[1] as f64 / other.len() as f64];
        greatest = f64::max(greatest, (a - b).abs());
    }
    greatest
}

#[test]
fn the_distance_of_samples_is_found() {
    let sample = |times: &[u64]| times.iter().map(|time| Duration::from_millis(*time)).collect();
    for (one, other, distance) in [
        (&[1, 2, 3, 4][..], &[1, 2, 3, 4][..], 0.0),
        (&[1, 2, 3, 4], &[5, 6, 7, 8], 1.0),
        (&[1, 1, 3, 4], &[1, 3, 3, 4], 0.25),
        (&[1, 2, 3, 4], &[3, 4, 5, 6], 0.5),
    ] {
        let (one, other): (Vec<_>, Vec<_>) = (sample(one), sample(other));
        assert!((kolmogorov_smirnov(&one, &other) - distance).abs() < 1e-9, "{one:?} {other:?}");
    }
}

const SESSIONS_AT_ONCE: usize = 16;
