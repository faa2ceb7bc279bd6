//! Sessions as strangers and mail servers see them: who may come in, limits, TLS, reload and drain.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealgate_testkit::clock::Clock;
use sealgate_testkit::gate::Gate;
use sealgate_testkit::pki::Pki;
use sealgate_testkit::process::{self, await_that};
use sealgate_testkit::session::{Session, send_smtp};
use sealgate_testkit::sink::{Protocol, Sink, Stage};
use sealgate_testkit::tls_session::TlsSession;

fn gate(sink: &Sink, edit: impl FnOnce(&Gate)) -> Gate {
    let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    gate.set(&["hostname"], "gate.nec.example");
    gate.set(&["policy", "sign"], "never");
    gate.set(&["policy", "encrypt"], "never");
    gate.set(&["outside", "next_hop"], format!("smtp://{}", sink.address));
    gate.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
    edit(&gate);
    gate.start();
    gate
}

/// A TLS certificate of its own making.
fn with_tls(gate: &Gate) {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(gate.dir()).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=gate.nec.example",
        "-days",
        "2",
        "-keyout",
        "tls.key",
        "-out",
        "tls.pem",
    ]);
    process::run(&mut openssl, b"").expect_ok("openssl req");
    gate.set(&["tls", "certificate"], "tls.pem");
    gate.set(&["tls", "key"], "tls.key");
}

const MAIL: &[u8] = b"From: alice@nec.example\r\nTo: bob@abc.example\r\n\r\nx\r\n";
const BOB: &str = "bob@abc.example";
const ALICE: &str = "alice@nec.example";

#[test]
fn there_is_no_open_relay() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    let outside = gate.ready().outside_smtp.unwrap();
    for to in [
        "x@foreign.example",
        "\"a@nec.example\"@foreign.example",
        "x@sub.nec.example",
        // What a mail server that trusts its neighbour sends on.
        "x%foreign.example@nec.example",
        "\"x@foreign.example\"@nec.example",
        "foreign.example!x@nec.example",
    ] {
        let reply = send_smtp(outside, BOB, &[to], MAIL);
        assert_eq!(reply.status(), "550 5.7.1", "{to} {reply:?}");
    }
    let routed = send_smtp(outside, BOB, &["@nec.example:x@foreign.example"], MAIL);
    assert_eq!(routed.status(), "550 5.7.1");
    let inside = gate.ready().inside_smtp.unwrap();
    let own = send_smtp(inside, ALICE, &["bob@nec.example"], MAIL);
    assert_eq!(own.status(), "550 5.4.6", "{own:?}");
    assert!(sink.received().is_empty());
}

#[test]
fn strangers_are_turned_away_at_the_inside() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |gate| {
        gate.set(&["inside", "allow"], vec!["192.0.2.0/24"]);
    });
    for address in [gate.ready().inside_smtp.unwrap(), gate.ready().inside_lmtp.unwrap()] {
        let (mut session, greeting) = Session::connect(address);
        assert_eq!(greeting.code, 554, "{greeting:?}");
        assert_eq!(session.reply_or_end().map(|reply| reply.code), None);
    }
    assert_eq!(Session::connect(gate.ready().outside_smtp.unwrap()).1.code, 220);
}

/// Where addresses prove too little, a certificate says who hands in plain mail (L11).
#[test]
fn clients_inside_show_a_certificate_where_it_is_asked_for() {
    let sink = Sink::smtp();
    let (pki, others) = (Pki::new("Inside"), Pki::new("Others"));
    let server = pki.issue_for_tls(
        "gate",
        "/CN=gate",
        "serverAuth",
        "subjectAltName=DNS:gate.nec.example\n",
    );
    let client = |pki: &Pki| pki.issue_for_tls("mail", "/CN=mail.nec.example", "clientAuth", "");
    let (ours, theirs) = (client(&pki), client(&others));
    let gate = gate(&sink, |gate| {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        gate.set(&["tls", "certificate"], text(&server.0));
        gate.set(&["tls", "key"], text(&server.1));
        gate.set(&["inside", "client_ca"], text(&pki.root));
    });
    let ready = gate.ready();
    for (address, hello) in [
        (ready.inside_smtp.unwrap(), "EHLO x.example"),
        (ready.inside_lmtp.unwrap(), "LHLO x.example"),
    ] {
        let (mut plain, _) = Session::connect(address);
        let offered = plain.command(hello);
        assert!(offered.lines.iter().any(|line| line == "STARTTLS"), "{offered:?}");
        let refused = plain.command("MAIL FROM:<alice@nec.example>");
        assert_eq!((refused.code, refused.lines[0].as_str()), (530, "5.7.0 issue STARTTLS first"));
    }
    let connect = |files: Option<&(PathBuf, PathBuf)>| {
        let files = files.map(|(chain, key)| (chain.as_path(), key.as_path()));
        let inside = ready.inside_smtp.unwrap();
        TlsSession::connect_as(inside, "gate.nec.example", &pki.root, files)
    };
    for stranger in [None, Some(&theirs)] {
        let said = connect(stranger).try_command("EHLO client.example");
        assert!(said.is_none(), "{stranger:?}: {said:?}");
    }
    assert!(gate.log().contains("a client from inside failed in TLS"), "{}", gate.log());
    let mut mail_server = connect(Some(&ours));
    assert_eq!(mail_server.command("EHLO mail.nec.example").code, 250);
    assert_eq!(mail_server.command("MAIL FROM:<alice@nec.example>").code, 250);
    // The Internet has no certificate of ours.
    let outside = ready.outside_smtp.unwrap();
    let mut internet = TlsSession::connect(outside, "gate.nec.example", &pki.root);
    assert_eq!(internet.command("EHLO client.example").code, 250);
    assert_eq!(Session::connect(outside).0.command("EHLO client.example").code, 250);
    gate.must(&["check"], b"");
}

/// Each of them could hold a descriptor for as long as it is heard.
#[test]
fn a_crowd_that_is_turned_away_takes_few_descriptors() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |gate| {
        gate.set(&["inside", "allow"], vec!["192.0.2.0/24"]);
        gate.set(&["limits", "connections_per_address_max"], 1);
    });
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", gate.id())).unwrap().count();
    let outside = gate.ready().outside_smtp.unwrap();
    let _one = Session::connect(outside);
    let before = descriptors();
    for (address, code) in [(gate.ready().inside_smtp.unwrap(), 554), (outside, 421)] {
        let crowd: Vec<_> = (0..100).map(|_| Session::connect(address)).collect();
        sleep(Duration::from_millis(200));
        let most = descriptors();
        assert!(crowd.iter().all(|(_, greeting)| greeting.code == code), "each is told why");
        assert!(most <= before + 40, "{before}, {most} with a hundred of {address}");
        drop(crowd);
        await_that("all are gone", || descriptors() <= before);
    }
}

/// Who meets a reset while he sends reads no reply, and sends again.
#[test]
fn a_client_hears_why_its_content_is_refused_however_much_follows() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |gate| gate.set(&["limits", "message_bytes_max"], 20_000_000));
    let mail = [MAIL, b"a bare\nline feed\r\n", &b"0123456789abcd\r\n".repeat(1_000_000)].concat();
    for (address, from, to) in [
        (gate.ready().outside_smtp.unwrap(), BOB, ALICE),
        (gate.ready().inside_smtp.unwrap(), ALICE, BOB),
    ] {
        let begin = || {
            let (mut client, _) = Session::connect(address);
            client.command("EHLO c");
            client.command(&format!("MAIL FROM:<{from}>"));
            client.command(&format!("RCPT TO:<{to}>"));
            client.command("DATA");
            client
        };
        let mut client = begin();
        client.send(&mail);
        assert_eq!(client.reply().status(), "550 5.5.2", "{address}");
        // No more than a message may have.
        let mut client = begin();
        client.send(&mail);
        client.send_unless_closed(&mail);
        client.send_unless_closed(&mail);
        await_that("its session has ended", || {
            metric(&gate, "sealgate_connections_open") == Some(0.0)
        });
    }
    assert!(sink.received().is_empty());
}

#[test]
fn smuggled_messages_end_the_session() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    for end in ["\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n\0.\r\n", "\r\n.\r\r\n"] {
        let (mut client, _) = Session::connect(gate.ready().outside_smtp.unwrap());
        client.send(
            b"EHLO c\r\nMAIL FROM:<bob@abc.example>\r\nRCPT TO:<alice@nec.example>\r\nDATA\r\n",
        );
        while client.reply().code != 354 {}
        client.send_unless_closed(
            format!(
                "x{end}MAIL FROM:<evil@abc.example>\r\nRCPT TO:<{ALICE}>\r\nDATA\r\ny\r\n.\r\n"
            )
            .as_bytes(),
        );
        let reply = client.reply();
        assert_eq!(reply.status(), "550 5.5.2", "{end:?}");
        assert!(client.reply_or_end().is_none(), "{end:?}");
    }
    assert!(sink.received().is_empty());
}

#[test]
fn mandatory_encryption_without_a_key_is_refused_at_rcpt() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |gate| gate.set(&["policy", "encrypt"], "require"));
    let (mut client, _) = Session::connect(gate.ready().inside_lmtp.unwrap());
    client.command("LHLO mail.nec.example");
    client.command("MAIL FROM:<alice@nec.example>");
    let reply = client.command("RCPT TO:<bob@abc.example>");
    assert_eq!(reply.status(), "550 5.7.3", "{reply:?}");
    assert!(reply.text().contains("bob@abc.example"), "{reply:?}");
    assert_eq!(client.command("DATA").code, 503);
}

#[test]
fn limits_hold() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |gate| {
        gate.set(&["limits", "message_bytes_max"], 100_000);
        gate.set(&["limits", "memory_bytes_max"], 300_000);
        gate.set(&["limits", "connections_per_address_max"], 2);
        gate.set(&["limits", "recipients_max"], 3);
        gate.set(&["limits", "idle_secs_max"], 2);
    });
    let inside = gate.ready().inside_smtp.unwrap();
    let of = |size: usize| [MAIL, "0123456789abcde\r\n".repeat(size / 17).as_bytes()].concat();
    assert_eq!(send_smtp(inside, ALICE, &[BOB], &of(90_000)).code, 250);
    let mut holding = half_sent(inside, &of(40_000));
    await_that("content is held", || {
        metric(&gate, "sealgate_memory_in_flight_kibibytes").unwrap() > 100.0
    });
    let overloaded = send_smtp(inside, ALICE, &[BOB], &of(90_000));
    assert_eq!(overloaded.status(), "452 4.3.1", "{overloaded:?}");
    let large = send_smtp(inside, ALICE, &[BOB], &of(110_000));
    assert!([452, 552].contains(&large.code), "{large:?}");
    let (mut client, _) = Session::connect(inside);
    client.command("EHLO c");
    assert_eq!(client.command("MAIL FROM:<> SIZE=100001").status(), "552 5.3.4");
    assert_eq!(client.command("MAIL FROM:<> SIZE=70000").status(), "452 4.3.1");
    client.command("MAIL FROM:<>");
    for code in [250, 250, 250, 452] {
        assert_eq!(client.command("RCPT TO:<bob@abc.example>").code, code);
    }
    holding.send(b"\r\n.\r\n");
    assert_eq!(holding.reply().code, 250, "there was room for it");
    drop(holding);
    let outside = gate.ready().outside_smtp.unwrap();
    drop(client);
    await_that("the session's end", || metric(&gate, "sealgate_connections_open") == Some(0.0));
    let one = Session::connect(outside);
    let _two = Session::connect(outside);
    assert_eq!(Session::connect(outside).1.code, 421);
    let (mut idle, _) = one;
    assert_eq!(idle.reply().code, 421, "idle for two seconds");
}

/// REQUIREMENTS O17: who looks for a message finds one line of it, whatever became of it.
#[test]
fn content_that_becomes_no_message_has_a_line_with_its_envelope() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |gate| {
        gate.set(&["limits", "message_bytes_max"], 100_000);
        gate.set(&["limits", "idle_secs_max"], 2);
    });
    let inside = gate.ready().inside_smtp.unwrap();
    let large = [MAIL, "0123456789abcde\r\n".repeat(6000).as_bytes(), b"\r\n.\r\n"].concat();
    let long = [&b"x".repeat(1 << 20)[..], b"\r\n.\r\n"].concat();
    // What comes after DATA, what is said of it, and the line's aborted.
    let cases: [(&[u8], u16, bool); 6] = [
        (b"a\r\nb\nc\r\n", 550, false),
        (b"a\r\nb\rc\r\n", 550, false),
        (b"a\r\nb\0c\r\n", 550, false),
        (&long, 550, false),
        (&large, 552, false),
        (b"a\r\nb\r\n", 421, true),
    ];
    for (index, (content, code, aborted)) in cases.iter().enumerate() {
        let mut client = half_sent(inside, content);
        assert_eq!(client.reply().code, *code, "{index}");
        let line = last_transaction(&gate, index + 1);
        assert_eq!(line["reply"]["code"], *code, "{line}");
        assert_eq!(line["aborted"], *aborted, "{line}");
        assert_envelope(&line);
        // What offends in the first octets that come ends all before they are counted.
        assert!(*code == 550 || line["size_bytes"].as_u64() > Some(0), "{line}");
    }
    let count = cases.len();
    drop(half_sent(inside, b"a\r\nb\r\n"));
    let gone = last_transaction(&gate, count + 1);
    assert_eq!((&gone["aborted"], &gone["size_bytes"]), (&true.into(), &6.into()), "{gone}");
    assert_envelope(&gone);
    // Chunks, of which the client takes back the first.
    let (mut client, _) = Session::connect(inside);
    client.command("EHLO c");
    client.command("MAIL FROM:<alice@nec.example>");
    client.command("RCPT TO:<bob@abc.example>");
    client.send(b"BDAT 3\r\na\r\n");
    assert_eq!(client.reply().code, 250);
    assert_eq!(client.command("RSET").code, 250);
    let taken_back = last_transaction(&gate, count + 2);
    assert_eq!(taken_back["aborted"], true, "{taken_back}");
    assert_envelope(&taken_back);
    // The next one is another transaction.
    let too_large = client.command("MAIL FROM:<alice@nec.example> SIZE=100001");
    assert_eq!(too_large.status(), "552 5.3.4");
    let line = last_transaction(&gate, count + 3);
    assert_eq!((&line["from"], &line["reply"]["code"]), (&ALICE.into(), &552.into()), "{line}");
    assert_ne!(line["id"], taken_back["id"]);
    assert!(too_large.text().contains(line["id"].as_str().unwrap()), "{too_large:?}");
    assert!(!client.command("BDAT 0 LAST").text().contains("(id"), "no transaction");
    drop(client);
    sleep(Duration::from_millis(100));
    assert_eq!(transactions(&gate).len(), count + 3);
    assert!(sink.received().is_empty());
}

fn transactions(gate: &Gate) -> Vec<serde_json::Value> {
    let lines = gate.log_lines();
    lines.into_iter().filter(|line| line["event"] == "transaction").collect()
}

/// The last of so many, once they are there.
fn last_transaction(gate: &Gate, count: usize) -> serde_json::Value {
    await_that("the line", || transactions(gate).len() >= count);
    let mut lines = transactions(gate);
    assert_eq!(lines.len(), count, "{lines:?}");
    lines.pop().unwrap()
}

fn assert_envelope(line: &serde_json::Value) {
    assert_eq!((&line["from"], &line["to"][0]), (&ALICE.into(), &BOB.into()), "{line}");
    assert_ne!(line["seconds"], 0.0, "{line}");
}

/// Content that does not end.
fn half_sent(inside: SocketAddr, content: &[u8]) -> Session {
    let (mut client, _) = Session::connect(inside);
    client.command("EHLO c");
    client.command("MAIL FROM:<alice@nec.example>");
    client.command("RCPT TO:<bob@abc.example>");
    assert_eq!(client.command("DATA").code, 354);
    client.send(content);
    client
}

#[test]
fn tls_is_spoken_on_both_sides() {
    let sink = Sink::smtp();
    let receiving = gate(&sink, with_tls);
    let sending = gate(&sink, |gate| {
        let next = receiving.ready().outside_smtp.unwrap();
        gate.set(&["outside", "next_hop"], format!("smtp://{next}"));
        gate.set(&["hostname"], "gate.abc.example");
        gate.set(&["domains"], vec!["abc.example"]);
    });
    for _ in 0..2 {
        let inside = sending.ready().inside_smtp.unwrap();
        let reply = send_smtp(inside, BOB, &[ALICE], MAIL);
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    let received = sink.await_received(2);
    let text = String::from_utf8_lossy(&received[1].content).into_owned();
    assert!(text.contains("with ESMTPS id ") && text.contains("(using TLSv1_3 "), "{text}");
    assert!(text.contains("with ESMTP id "), "{text}");
}

#[test]
fn a_reload_takes_effect_and_a_wrong_one_does_not() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    let size = |gate: &Gate| {
        let (mut client, _) = Session::connect(gate.ready().inside_smtp.unwrap());
        client.command("EHLO c").text()
    };
    gate.set(&["limits", "message_bytes_max"], 12_345);
    gate.signal("HUP");
    await_that("the new limit", || size(&gate).contains("SIZE 12345"));
    std::fs::write(gate.configuration(), "version = 9\n").unwrap();
    gate.signal("HUP");
    await_that("the complaint", || gate.log().contains("stays as it was"));
    assert!(size(&gate).contains("SIZE 12345"));
}

#[test]
fn a_reload_names_what_takes_a_restart_and_nothing_else() {
    let gate = gate(&Sink::smtp(), |_| {});
    let reloads = || gate.log().matches("configuration reloaded").count();
    gate.set(&["limits", "message_bytes_max"], 12_345);
    gate.signal("HUP");
    await_that("the first reload", || reloads() == 1);
    assert!(!gate.log().contains("restart"), "{}", gate.log());
    gate.set(&["hostname"], "other.nec.example");
    gate.set(&["outside", "ca"], gate.authority().to_str().unwrap());
    gate.set(&["dns", "resolvers"], vec!["127.0.0.1:9"]);
    gate.set(&["limits", "connections_per_next_hop_max"], 7);
    gate.signal("HUP");
    await_that("the second reload", || reloads() == 2);
    let lines = gate.log_lines().into_iter();
    let named =
        lines.filter(|line| line["message"].as_str().is_some_and(|m| m.contains("restart")));
    let named: Vec<String> = named.map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    let next_hop = "[limits] connections_per_next_hop_max";
    assert_eq!(named, ["hostname", "[outside] ca", "[dns]", next_hop], "{}", gate.log());
}

#[test]
fn a_drain_lets_transactions_finish_and_turns_others_away() {
    let sink = Sink::scripted(Protocol::Smtp, |stage| {
        if matches!(stage, Stage::Dot(_)) {
            sleep(Duration::from_millis(800));
        }
        None
    });
    let mut gate = gate(&sink, |_| {});
    let inside = gate.ready().inside_smtp.unwrap();
    let (mut idle, _) = Session::connect(inside);
    idle.command("EHLO c");
    let sending = std::thread::spawn(move || send_smtp(inside, ALICE, &[BOB], MAIL).code);
    sleep(Duration::from_millis(300));
    gate.signal("TERM");
    assert_eq!(idle.reply().code, 421);
    await_that("closed doors", || TcpStream::connect(inside).is_err());
    assert_eq!(sending.join().unwrap(), 250);
    assert!(gate.stop().success());
    assert_eq!(sink.received().len(), 1);
}

/// REQUIREMENTS G15, without anybody who asks.
#[test]
fn certificates_of_ours_that_end_soon_are_in_the_log_and_the_metrics() {
    const GAUGE: &str = "sealgate_own_certificate_days_left_min";
    let sink = Sink::smtp();
    let mut gate = gate(&sink, |gate| {
        for name in 0..12 {
            gate.generate_key(&format!("user{name}@nec.example"), "p256");
        }
    });
    await_that("the first look", || metric(&gate, GAUGE).is_some());
    let days = metric(&gate, GAUGE).unwrap() as i64 - 10;
    assert!(days > 700, "{days}");
    assert!(!gate.log().contains("ends"), "{}", gate.log());
    gate.stop();
    let clock = Clock::right();
    clock.jump(days * 86_400);
    gate.set_environment(clock.environment());
    with_tls(&gate);
    gate.start();
    await_that("the first look", || metric(&gate, GAUGE).is_some());
    // That of TLS, made for two days, ended some seconds more than so many days before.
    assert_eq!(metric(&gate, GAUGE), Some((2 - days - 1) as f64));
    let lines = gate.log_lines();
    let about = |what: &str| {
        let says =
            |line: &&serde_json::Value| line["message"].as_str().is_some_and(|m| m.contains(what));
        lines.iter().filter(says).cloned().collect::<Vec<_>>()
    };
    let keys = about("sealgate secret-key generate");
    assert_eq!(keys.len(), 20, "{lines:?}");
    assert_eq!(
        (&keys[0]["owner"], &keys[0]["purpose"]),
        (&"user0@nec.example".into(), &"encrypt".into())
    );
    assert_eq!(keys[0]["ends"].as_str().map(str::len), Some("2026-11-23".len()), "{}", keys[0]);
    assert_eq!(about("more certificates of ours end")[0]["more"], 4);
    let tls = about("tls certificate ends");
    assert!(tls[0]["file"].as_str().unwrap().ends_with("tls.pem"), "{tls:?}");
    assert!(about("sealgate ca renew").is_empty());
}

#[test]
fn health_and_metrics_are_served() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    assert!(gate.get("/livez").starts_with("HTTP/1.1 200"));
    assert!(gate.get("/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(send_smtp(gate.ready().inside_smtp.unwrap(), ALICE, &[BOB], MAIL).code, 250);
    let counted =
        "sealgate_transactions_total{direction=\"outbound\",outcome=\"accepted\",verdict=\"none\"}";
    await_that("the count", || metric(&gate, counted) == Some(1.0));
}

#[test]
fn readiness_says_that_the_mail_server_is_away_and_finds_out_that_it_is_back() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| {
        let is_gone = matches!(stage, Stage::Connect) && is_away.load(Ordering::SeqCst);
        is_gone.then(String::new)
    });
    let gate = gate(&sink, |gate| gate.set(&["inside", "check_recipients"], false));
    assert_eq!(gate.readiness(), (200, "ready".to_owned()), "nothing is known of it yet");
    let outside = gate.ready().outside_smtp.unwrap();
    for _ in 0..3 {
        assert_eq!(send_smtp(outside, BOB, &[ALICE], MAIL).status(), "451 4.4.1");
    }
    await_that("the bad news", || gate.readiness().0 == 503);
    let (_, why) = gate.readiness();
    assert_eq!(why, format!("mail server smtp://{}: away", sink.address));
    assert!(gate.get("/livez").starts_with("HTTP/1.1 200"));
    // However often it is asked, it looks seldom.
    let before = sink.connections();
    (0..50).for_each(|_| drop(gate.readiness()));
    assert!(sink.connections() - before <= 2, "{} connections", sink.connections() - before);
    away.store(false, Ordering::SeqCst);
    // Nobody sends meanwhile.
    await_that("the good news", || gate.readiness().0 == 200);
    assert_eq!(send_smtp(outside, BOB, &[ALICE], MAIL).code, 250);
}

#[test]
fn readiness_says_that_the_next_hop_is_away_and_finds_out_that_it_is_back() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| {
        let is_gone = matches!(stage, Stage::Connect) && is_away.load(Ordering::SeqCst);
        is_gone.then(String::new)
    });
    let mail_server = Sink::smtp();
    // What policy demands of the way there makes no difference.
    let gate = gate(&mail_server, |gate| {
        gate.set(&["outside", "next_hop"], format!("smtp://{}", sink.address));
        gate.set(&["policy", "tls"], "require");
    });
    let inside = gate.ready().inside_smtp.unwrap();
    for _ in 0..3 {
        assert_eq!(send_smtp(inside, ALICE, &[BOB], MAIL).status(), "451 4.4.1");
    }
    await_that("the bad news", || gate.readiness().0 == 503);
    let (_, why) = gate.readiness();
    assert_eq!(why, format!("next hop smtp://{}: away", sink.address));
    away.store(false, Ordering::SeqCst);
    // Nobody sends meanwhile.
    await_that("the good news", || gate.readiness().0 == 200);
    // One that has no TLS is there: mail that demands no TLS would go.
    for _ in 0..4 {
        assert_eq!(send_smtp(inside, ALICE, &[BOB], MAIL).code, 451);
    }
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        assert_eq!(gate.readiness(), (200, "ready".to_owned()));
        sleep(Duration::from_millis(500));
    }
}

fn metric(gate: &Gate, name: &str) -> Option<f64> {
    let text = gate.get("/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Its content is held until then.
#[test]
fn a_message_counts_as_memory_until_its_reply_is_out() {
    let mut gate = gate(&Sink::smtp(), |_| {});
    gate.stop();
    // Behind the wait for the tick at which refusals go out.
    let point = ("SEALGATE_FAILPOINTS".to_owned(), "session.last_reply=delay:2000".into());
    gate.set_environment(vec![point]);
    let outside = gate.start().outside_smtp.unwrap();
    let kibibytes = || metric(&gate, "sealgate_memory_in_flight_kibibytes").unwrap();
    assert_eq!(kibibytes(), 0.0);
    let broken = [
        &b"From: bob@abc.example\r\nContent-Type: application/pkcs7-mime\r\n\r\n"[..],
        &b"AAAA\r\n".repeat(2_000),
    ]
    .concat();
    let sending = std::thread::spawn(move || send_smtp(outside, BOB, &[ALICE], &broken).code);
    await_that("the reply is due", || gate.log().contains("failpoint session.last_reply"));
    assert!(kibibytes() > 30.0, "{}", kibibytes());
    assert_eq!(sending.join().unwrap(), 550);
    await_that("it is given back", || kibibytes() == 0.0);
}

/// What a client takes back with RSET between two chunks is not held against the others.
#[test]
fn content_that_was_taken_back_costs_no_memory() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |gate| {
        gate.set(&["limits", "memory_bytes_max"], 400_000);
        gate.set(&["limits", "message_bytes_max"], 133_000);
    });
    let inside = gate.ready().inside_smtp.unwrap();
    let (mut client, _) = Session::connect(inside);
    client.command("EHLO c");
    client.command("MAIL FROM:<alice@nec.example>");
    client.command("RCPT TO:<bob@abc.example>");
    client.send(b"BDAT 100000\r\n");
    client.send(&b"0123456789abcd\r\n".repeat(6_250));
    assert_eq!(client.reply().code, 250);
    assert_eq!(client.command("RSET").code, 250);
    assert_eq!(client.command("NOOP").code, 250);
    let large = [MAIL, &b"0123456789abcd\r\n".repeat(6_250)].concat();
    let reply = send_smtp(inside, ALICE, &[BOB], &large);
    assert_eq!(reply.code, 250, "{}", reply.text());
}
