//! Mail from the Internet before anything is done with it: who has a mailbox, whom the mail server hears about, what the sender's
//! domain says about it, and what stands on the mail afterwards.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sealgate_testkit::gate::Gate;
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::process;
use sealgate_testkit::session::{Session, send_smtp};
use sealgate_testkit::sink::{Protocol, Sink, Stage};

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
const MAIL: &[u8] = b"From: bob@abc.example\r\nTo: alice@nec.example\r\nSubject: hello\r\n\
                      Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@abc.example>\r\n\r\nx\r\n";

/// A relay before a mail server.
fn gate(mail_server: &str, edit: impl FnOnce(&Gate)) -> Gate {
    let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    gate.set(&["hostname"], "gate.nec.example");
    gate.set(&["policy", "encrypt"], "never");
    gate.set(&["inside", "mail_server"], mail_server);
    edit(&gate);
    gate.start();
    gate
}

/// A session up to RCPT; the status of its answer.
fn rcpt(gate: &Gate, from: &str, to: &str) -> String {
    let (mut session, _) = Session::connect(gate.ready().outside_smtp.unwrap());
    assert_eq!(session.command("EHLO mx.abc.example").code, 250);
    assert_eq!(session.command(&format!("MAIL FROM:<{from}>")).code, 250);
    session.command(&format!("RCPT TO:<{to}>")).status()
}

/// A mail server that counts what it is asked at RCPT, and refuses as told.
fn counting_sink(
    protocol: Protocol,
    refusals: &'static [(&'static str, &'static str)],
) -> (Sink, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let sink = Sink::scripted(protocol, move |stage| {
        let Stage::Rcpt(line) = stage else { return None };
        asked.fetch_add(1, Ordering::SeqCst);
        let refusal = refusals.iter().find(|(to, _)| line.contains(to))?;
        Some(format!("{}\r\n", refusal.1))
    });
    (sink, count)
}

#[test]
fn the_mail_servers_answer_at_rcpt_is_ours_over_smtp_and_lmtp() {
    const REFUSALS: &[(&str, &str)] = &[
        ("nobody@", "550 5.1.1 no such mailbox here"),
        ("full@", "452 4.2.2 over quota"),
        ("bare@", "553 not with me"),
    ];
    for (protocol, scheme) in [(Protocol::Smtp, "smtp"), (Protocol::Lmtp, "lmtp")] {
        let (sink, asked) = counting_sink(protocol, REFUSALS);
        let gate = gate(&format!("{scheme}://{}", sink.address), |_| {});
        let (mut session, _) = Session::connect(gate.ready().outside_smtp.unwrap());
        session.command("EHLO mx.abc.example");
        session.command(&format!("MAIL FROM:<{BOB}>"));
        let refused = session.command("RCPT TO:<nobody@nec.example>");
        assert_eq!(refused.status(), "550 5.1.1", "{refused:?}");
        assert!(refused.text().contains("no such mailbox here"), "{refused:?}");
        assert_eq!(session.command("RCPT TO:<full@nec.example>").status(), "452 4.2.2");
        assert_eq!(session.command("RCPT TO:<bare@nec.example>").status(), "553 5.0.0");
        assert_eq!(session.command(&format!("RCPT TO:<{ALICE}>")).code, 250);
        assert_eq!(session.command("DATA").code, 354);
        session.content(MAIL);
        assert_eq!(session.reply().code, 250);
        let received = sink.await_received(1);
        assert_eq!(received[0].recipients, [format!("RCPT TO:<{ALICE}>")]);
        assert_eq!(asked.load(Ordering::SeqCst), 5, "four questions and one delivery");
        assert_eq!(sink.connections(), 1, "one connection for all of it");
    }
}

#[test]
fn answers_for_good_are_remembered_and_not_now_is_asked_again() {
    const REFUSALS: &[(&str, &str)] = &[
        ("nobody@", "550 5.1.1 no such mailbox"),
        ("picky@", "550 5.7.1 not from you"),
        ("full@", "452 4.2.2 over quota"),
    ];
    let (sink, asked) = counting_sink(Protocol::Smtp, REFUSALS);
    let gate = gate(&format!("smtp://{}", sink.address), |_| {});
    let mut total = 0;
    for (from, to, status, questions) in [
        (BOB, "nobody@nec.example", "550 5.1.1", 1),
        (BOB, "nobody@nec.example", "550 5.1.1", 0),
        // Nobody has that mailbox, whoever asks.
        ("carol@abc.example", "nobody@nec.example", "550 5.1.1", 0),
        (BOB, "picky@nec.example", "550 5.7.1", 1),
        (BOB, "picky@nec.example", "550 5.7.1", 0),
        // This one may depend on who asks.
        ("carol@abc.example", "picky@nec.example", "550 5.7.1", 1),
        (BOB, "full@nec.example", "452 4.2.2", 1),
        (BOB, "full@nec.example", "452 4.2.2", 1),
        (BOB, ALICE, "250 2.1.5", 1),
        (BOB, ALICE, "250 2.1.5", 0),
        ("", ALICE, "250 2.1.5", 1),
        ("carol@abc.example", ALICE, "250 2.1.5", 1),
    ] {
        assert_eq!(rcpt(&gate, from, to), status, "{from} {to}");
        total += questions;
        assert_eq!(asked.load(Ordering::SeqCst), total, "{from} {to}");
    }
}

#[test]
fn without_an_answer_the_recipient_is_deferred() {
    let nowhere = process::loopback(process::free_port());
    let away = gate(&format!("smtp://{nowhere}"), |_| {});
    assert_eq!(rcpt(&away, BOB, ALICE), "451 4.4.1");
    // One that closes instead of answering is asked over a new connection, and then given up.
    let sink = Sink::scripted(Protocol::Smtp, |stage| match stage {
        Stage::Rcpt(_) => Some(String::new()),
        _ => None,
    });
    let closing = gate(&format!("smtp://{}", sink.address), |_| {});
    assert_eq!(rcpt(&closing, BOB, ALICE), "451 4.4.1");
    // Who does not want to ask is not held up by it.
    let unasked = gate(&format!("smtp://{nowhere}"), |gate| {
        gate.set(&["inside", "check_recipients"], false);
    });
    assert_eq!(rcpt(&unasked, BOB, ALICE), "250 2.1.5");
}

/// Postfix that knows Alice only and hands her mail to the sink.
fn postfix(mailboxes: &Sink, more: &str) -> Postfix {
    let more = format!("virtual_mailbox_maps = inline:{{{ALICE}=here}}\n{more}\n");
    Postfix::start(&Settings {
        hostname: "mail.nec.example",
        domains: &["nec.example"],
        mailboxes: Some(mailboxes.address),
        next_hop: "error:nothing leaves here".to_owned(),
        more: &more,
        more_services: "",
    })
}

/// Sends as a client of another address of loopback does.
fn swaks(gate: &Gate, source: &str, to: &str) -> process::Ran {
    let mut command = Command::new("swaks");
    let outside = gate.ready().outside_smtp.unwrap().to_string();
    command.args(["--server", &outside, "--local-interface", source, "--helo", "mx.abc.example"]);
    command.args(["--from", BOB, "--to", to, "--silent", "2"]);
    process::run(&mut command, b"")
}

#[test]
fn postfix_hears_who_the_internet_client_is() {
    for (how, more) in [
        ("xclient", "smtpd_authorized_xclient_hosts = 127.0.0.1"),
        ("proxy", "smtpd_upstream_proxy_protocol = haproxy"),
    ] {
        let mailboxes = Sink::lmtp();
        let postfix = postfix(&mailboxes, more);
        let gate = gate(&format!("smtp://{}", postfix.smtp), |gate| {
            gate.set(&["inside", "client_address"], how);
        });
        let refused = swaks(&gate, "127.0.0.76", "nobody@nec.example");
        let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), refused.stderr);
        assert!(said.contains("550 5.1.1"), "{how}: {said}");
        process::await_that(&format!("{how}: the client in Postfix's log"), || {
            postfix.log().contains("RCPT from unknown[127.0.0.76]")
        });
        // One client after another, each with his own name on the mail.
        for (count, source) in ["127.0.0.77", "127.0.0.78"].into_iter().enumerate() {
            swaks(&gate, source, ALICE).expect_ok(how);
            let received = mailboxes.await_received(count + 1);
            let text = String::from_utf8_lossy(&received[count].content).into_owned();
            let hello = if how == "xclient" { "mx.abc.example" } else { "gate.nec.example" };
            let trace = format!("Received: from {hello} (unknown [{source}])");
            assert!(text.contains(&trace), "{how}: {text}");
        }
    }
}

#[test]
fn mail_waits_where_the_mail_server_does_not_let_us_introduce_the_client() {
    let mailboxes = Sink::lmtp();
    let postfix = postfix(&mailboxes, "");
    let gate = gate(&format!("smtp://{}", postfix.smtp), |gate| {
        gate.set(&["inside", "client_address"], "xclient");
    });
    assert_eq!(rcpt(&gate, BOB, ALICE), "451 4.4.1");
    process::await_that("the log says what to do", || gate.log().contains("client_address"));
    assert!(mailboxes.received().is_empty());
}

#[test]
fn nobody_introduces_others_to_us() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let mails = Arc::clone(&told);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| {
        if let Stage::Mail(line) = stage {
            mails.lock().unwrap().push(line.clone());
        }
        None
    });
    let gate = gate(&format!("smtp://{}", sink.address), |_| {});
    for address in [gate.ready().outside_smtp.unwrap(), gate.ready().inside_smtp.unwrap()] {
        let (mut session, _) = Session::connect(address);
        let hello = session.command("EHLO mx.abc.example");
        assert!(!hello.text().contains("XCLIENT") && !hello.text().contains("XFORWARD"));
        for command in ["XCLIENT ADDR=192.0.2.7", "XFORWARD ADDR=192.0.2.7"] {
            let refused = session.command(command);
            assert!((500..=550).contains(&refused.code), "{refused:?}");
        }
        let (mut session, _) = Session::connect(address);
        let refused = session.command("PROXY TCP4 192.0.2.7 198.51.100.1 4025 25");
        assert!(refused.code >= 500, "{refused:?}");
    }
    let reply = send_smtp(gate.ready().outside_smtp.unwrap(), BOB, &[ALICE], MAIL);
    assert_eq!(reply.code, 250, "{reply:?}");
    let text = String::from_utf8_lossy(&sink.await_received(1)[0].content).into_owned();
    assert!(text.contains("([127.0.0.1])") && !text.contains("192.0.2.7"), "{text}");
}
