//! Several relays and one PostgreSQL database: `init` there, what is changed through one and used by the other, and mail
//! while the database is away.
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

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use elsewhere::{PROGRAM, another_relay};
use sealgate_testkit::gate::Gate;
use sealgate_testkit::mail;
use sealgate_testkit::postgres::{PASSWORD, Postgres, USER};
use sealgate_testkit::process::{self, Ran};
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::sink::Sink;
use tempfile::TempDir;

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
const WORDS: &str = "the quarterly turnover";

/// The counter is read every 30 s where nothing is heard: what is noticed earlier was heard of.
const BELOW_POLL_INTERVAL: Duration = Duration::from_secs(15);

/// `init` with these arguments in a directory.
fn init(directory: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.current_dir(directory).args(["init", "--domain", "nec.example"]).args(arguments);
    process::run(&mut command, b"")
}

/// Relays of nec.example that share a database of this server and a master key.
fn relays<const COUNT: usize>(server: &Postgres, sink: &Sink) -> [Gate; COUNT] {
    let url = server.url(&server.create_database());
    let first = Gate::init_with(PROGRAM, &["nec.example"], &["--database", &url]);
    std::array::from_fn(|_| {
        let mut gate = another_relay(&first, "nec.example", &url);
        gate.set(&["outside", "next_hop"], format!("smtp://{}", sink.address));
        gate.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
        gate.start();
        gate
    })
}

/// The other organisation, with a key for Bob.
fn correspondent() -> Gate {
    let gate = Gate::init(PROGRAM, &["abc.example"]);
    gate.generate_key(BOB, "p256");
    gate
}

fn message(from: &str, to: &str) -> Vec<u8> {
    format!("From: {from}\r\nTo: {to}\r\nSubject: hello\r\nMIME-Version: 1.0\r\n\r\n{WORDS}\r\n")
        .into_bytes()
}

/// The status of the reply to mail that goes out through a relay.
fn send_out(gate: &Gate) -> String {
    let inside = gate.ready().inside_smtp.unwrap();
    send_smtp(inside, ALICE, &[BOB], &message(ALICE, BOB)).status()
}

/// How long it takes until this holds.
fn noticed(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < BELOW_POLL_INTERVAL, "only polling would notice: {what}");
    }
    println!("{what}: after {:?}", started.elapsed());
    started.elapsed()
}

#[test]
fn keys_changed_through_one_relay_are_used_by_the_other() {
    let (server, sink, abc) = (Postgres::shared(), Sink::smtp(), correspondent());
    let [one, other] = relays(&server, &sink);

    assert!(send_out(&other).starts_with("550 5.7."), "no key for Bob: {}", send_out(&other));
    one.trust(&abc, &[BOB]);
    let first = noticed("Bob's certificate", || send_out(&other).starts_with("250 "));
    let sealed = sink.await_received(1).pop().unwrap().content;
    assert!(!mail::contains(&sealed, WORDS) && mail::contains(&sealed, "pkcs7-mime"));

    // What others encrypt to a key that is not here passes as received.
    let outside = other.ready().outside_smtp.unwrap();
    one.generate_key(ALICE, "p256");
    abc.trust(&one, &[ALICE]);
    let plain = message(BOB, ALICE);
    let sealed = abc.must(&["seal", "--from", BOB, "--to", ALICE], &plain);
    let opened = || {
        let before = sink.received().len();
        let reply = send_smtp(outside, BOB, &[ALICE], &sealed);
        assert_eq!(reply.code, 250, "{reply:?}");
        mail::contains(&sink.await_received(before + 1)[before].content, WORDS)
    };
    let second = noticed("Alice's key", opened);
    one.must(&["secret-key", "remove", ALICE], b"");
    let third = noticed("Alice's key is gone", || !opened());
    one.must(&["public-key", "remove", BOB], b"");
    let fourth = noticed("Bob's certificate is gone", || send_out(&other).starts_with("550 5.7."));
    // A busy machine may delay one of them, not most.
    let mut times = [first, second, third, fourth];
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
}

/// One machine rotates the master key. The other waits for its copy and goes on without a restart, whether the copy comes
/// afterwards or came before.
#[test]
fn two_relays_go_on_after_the_master_key_was_rotated() {
    let (server, sink, abc) = (Postgres::shared(), Sink::smtp(), correspondent());
    let [one, other] = relays(&server, &sink);
    one.generate_key(ALICE, "p256");
    one.trust(&abc, &[BOB]);
    for gate in [&one, &other] {
        noticed("keys of both", || send_out(gate) == "250 2.0.0");
    }
    let said = String::from_utf8(one.must(&["master-key", "rotate"], b"")).unwrap();
    assert!(said.contains("3 secrets") && said.contains("master.key.old"), "{said}");
    assert_eq!(send_out(&one), "250 2.0.0", "{}", one.log());
    noticed("the other has the wrong key", || send_out(&other) == "451 4.7.5");
    let refused = other.run(&["secret-key", "generate", "carol@nec.example"], b"");
    assert_eq!(refused.code, 78, "{}", refused.stderr);
    assert!(refused.stderr.contains("not the key that this database is sealed under"));
    assert!(!refused.stderr.contains("carol"), "{}", refused.stderr);
    fs::copy(one.dir().join("master.key"), other.dir().join("master.key")).unwrap();
    noticed("the other has read its key again", || send_out(&other) == "250 2.0.0");

    one.must(&["master-key", "rotate", "--prepare"], b"");
    fs::copy(one.dir().join("master.key.new"), other.dir().join("master.key.new")).unwrap();
    one.must(&["master-key", "rotate"], b"");
    for _ in 0..20 {
        assert_eq!(send_out(&one), "250 2.0.0", "{}", one.log());
        assert_eq!(send_out(&other), "250 2.0.0", "{}", other.log());
    }
    let said = String::from_utf8(other.must(&["master-key", "rotate"], b"")).unwrap();
    assert!(said.contains("finishes a rotation"), "{said}");
    let keys = [&one, &other].map(|gate| fs::read(gate.dir().join("master.key")).unwrap());
    assert_eq!(keys[0], keys[1]);
    other.must(&["secret-key", "generate", "carol@nec.example", "--algorithm", "p256"], b"");
    one.must(&["check"], b"");
}

#[test]
fn mail_waits_while_the_database_is_away() {
    let (server, sink, abc) = (Postgres::start(), Sink::smtp(), correspondent());
    let [gate] = relays(&server, &sink);
    gate.trust(&abc, &[BOB]);
    server.stop();
    assert_eq!(send_out(&gate), "451 4.7.5");
    assert!(sink.received().is_empty());
    assert_eq!(gate.run(&["public-key", "list"], b"").code, 69);
    process::await_that("the news", || gate.readiness().0 == 503);
    let (_, why) = gate.readiness();
    assert!(why.contains("database") && !why.contains(PASSWORD), "{why}");
    server.resume();
    let back = noticed("the database is back", || send_out(&gate) == "250 2.0.0");
    assert!(back < Duration::from_secs(5), "{back:?}");
    process::await_that("the good news", || gate.readiness().0 == 200);
    assert!(!gate.log().contains(PASSWORD), "the password is in the log");
}

#[test]
fn init_makes_its_tables_in_an_empty_database_only() {
    let server = Postgres::shared();
    let url = server.url(&server.create_database());
    let first = TempDir::new().unwrap();
    let said = String::from_utf8(init(first.path(), &["--database", &url]).expect_ok("init"));
    let said = said.unwrap();
    let shown = url.replace(&format!(":{PASSWORD}"), "");
    assert!(said.contains(&shown) && !said.contains(PASSWORD), "{said}");
    let configuration = first.path().join("sealgate.toml");
    assert!(fs::read_to_string(&configuration).unwrap().contains(&url));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&configuration), 0, "others may read the password");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(&configuration).args(arguments);
        process::run(&mut command, b"")
    };
    run(&["secret-key", "generate", ALICE]).expect_ok("secret-key generate");
    let checked = String::from_utf8(run(&["check"]).stdout).unwrap();
    assert!(checked.contains(&shown) && !checked.contains(PASSWORD), "{checked}");

    for (url, code, word) in [
        (url.as_str(), 65, "holds a sealgate already"),
        ("postgres://u:geheim@db.example/x?sslmode=prefer", 64, "sslmode=verify-full"),
        ("mysql://u:geheim@db.example/x", 64, "postgres://USER@HOST/DATABASE"),
        ("postgres://u:geheim@127.0.0.1:1/x", 69, "no connection in time"),
    ] {
        let second = TempDir::new().unwrap();
        let refused = init(second.path(), &["--database", url]);
        assert_eq!(refused.code, code, "{}", refused.stderr);
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
        assert!(!refused.stderr.contains(PASSWORD), "{}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
        assert_eq!(fs::read_dir(second.path()).unwrap().count(), 0, "a file was written");
    }
}

#[test]
fn the_password_may_stand_in_a_file_of_its_own() {
    let server = Postgres::shared();
    let database = server.create_database();
    let directory = TempDir::new().unwrap();
    let password = directory.path().join("pgpass");
    fs::write(&password, "127.0.0.1:vertraulich\n").unwrap();
    process::set_mode(&password, 0o600);
    let url = format!("postgres://{USER}@{}/{database}", server.address);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.current_dir(directory.path()).args(arguments).env("PGPASSFILE", &password);
        process::run(&mut command, b"")
    };
    let init = ["init", "--domain", "nec.example", "--database", &url];
    assert_eq!(run(&init).code, 69, "no password");
    fs::write(&password, format!("127.0.0.1:*:{database}:{USER}:{PASSWORD}\n")).unwrap();
    run(&init).expect_ok("init");
    run(&["secret-key", "list"]).expect_ok("secret-key list");
    // A line that is none is skipped, and not logged either.
    fs::write(&password, "127.0.0.1:vertraulich\n").unwrap();
    let relay = run(&["relay"]);
    assert_eq!(relay.code, 69, "{}", relay.stderr);
    assert!(relay.stderr.contains("password authentication failed"), "{}", relay.stderr);
    assert!(!relay.stderr.contains("vertraulich"), "{}", relay.stderr);
    let text = fs::read_to_string(directory.path().join("sealgate.toml")).unwrap();
    assert!(text.contains(&url) && !text.contains(PASSWORD), "{text}");
}

#[test]
fn init_takes_another_file_too() {
    let directory = TempDir::new().unwrap();
    init(directory.path(), &["--database", "sqlite:keys.db"]).expect_ok("init");
    assert!(directory.path().join("keys.db").exists());
    let text = fs::read_to_string(directory.path().join("sealgate.toml")).unwrap();
    assert!(text.contains("url = \"sqlite:keys.db\""), "{text}");
}
