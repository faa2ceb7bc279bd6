//! What becomes of a message between a scripted client and a scripted next hop, with the real program between them.
//!
//! Policy is "no cryptography" here: these tests are about commit, refusal and loss.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealgate_testkit::gate::Gate;
use sealgate_testkit::process::await_that;
use sealgate_testkit::session::{Session, send_lmtp, send_smtp};
use sealgate_testkit::sink::{Protocol, Sink, Stage};

/// A relay without cryptography before a sink, both ways.
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

fn from_us(gate: &Gate, to: &[&str], content: &[u8]) -> sealgate_testkit::session::Reply {
    send_smtp(gate.ready().inside_smtp.unwrap(), "alice@nec.example", to, content)
}

fn transactions(gate: &Gate) -> Vec<serde_json::Value> {
    let lines = gate.log_lines();
    lines.into_iter().filter(|line| line["event"] == "transaction").collect()
}

const MAIL: &[u8] = b"From: alice@nec.example\r\nTo: bob@abc.example\r\nSubject: secret words\r\n\
                      MIME-Version: 1.0\r\n\r\n.dot\r\n..\r\n\r\nlast\r\n";
const BOB: &str = "bob@abc.example";

#[test]
fn a_message_passes_with_one_new_trace_field() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    let reply = from_us(&gate, &[BOB], MAIL);
    assert_eq!(reply.code, 250, "{reply:?}");
    assert!(reply.text().contains("taken"), "{reply:?}");
    let replies = send_lmtp(
        gate.ready().inside_lmtp.unwrap(),
        "alice@nec.example",
        &[BOB, "c@x.example"],
        MAIL,
    );
    assert_eq!(replies.iter().map(|reply| reply.code).collect::<Vec<_>>(), [250, 250]);
    let reply = send_smtp(gate.ready().outside_smtp.unwrap(), BOB, &["alice@nec.example"], MAIL);
    assert_eq!(reply.code, 250, "{reply:?}");
    // Whom the header does not name gets a copy of his own.
    let received = sink.await_received(4);
    for (message, protocol) in received.iter().zip(["ESMTP", "LMTP", "LMTP", "ESMTP"]) {
        let text = String::from_utf8(message.content.clone()).unwrap();
        assert_eq!(text.matches("Received:").count(), 1, "{text}");
        assert!(text.contains(&format!("by gate.nec.example (sealgate) with {protocol} id ")));
        assert!(!text.to_ascii_lowercase().contains(" for <"), "{text}");
        assert!(text.ends_with("\r\n\r\n.dot\r\n..\r\n\r\nlast\r\n"), "{text}");
    }
    assert!(sink.connections() <= 2, "connections are used again");
}

#[test]
fn the_log_shows_the_transaction_and_nothing_of_the_message() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    let reply = from_us(&gate, &[BOB], MAIL);
    // A line is written after its reply: another session's may come before it.
    await_that("one line in the log", || transactions(&gate).len() == 1);
    let refused = from_us(&gate, &["alice@nec.example"], MAIL);
    await_that("two lines in the log", || transactions(&gate).len() == 2);
    let lines = transactions(&gate);
    assert_eq!(lines[0]["direction"], "outbound");
    assert_eq!(lines[0]["reply"]["code"], 250);
    assert_eq!(lines[0]["to"][0], BOB);
    for (line, reply) in lines.iter().zip([&reply, &refused]) {
        let id = line["id"].as_str().unwrap();
        assert!(reply.text().contains(&format!("(id {id})")), "{reply:?} {id}");
    }
    let log = gate.log();
    assert!(!log.contains("secret") && !log.contains("last"), "{log}");
}

#[test]
fn what_the_next_hop_refuses_is_refused_with_its_class_and_status() {
    let answer = std::sync::Arc::new(Mutex::new((' ', "")));
    let script = std::sync::Arc::clone(&answer);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| {
        let (at, text) = *script.lock().unwrap();
        let here = match stage {
            Stage::Mail(_) => 'm',
            Stage::Rcpt(_) => 'r',
            Stage::Data => 'd',
            Stage::Dot(_) => '.',
            _ => return None,
        };
        (here == at).then(|| format!("{text}\r\n"))
    });
    let gate = gate(&sink, |_| {});
    for at in ['m', 'r', 'd', '.'] {
        for (text, code, status) in [
            ("450 4.2.1 mailbox busy", 450, "4.2.1"),
            ("452-4.3.1 two\r\n452 4.3.1 lines", 452, "4.3.1"),
            ("550 5.1.1 unknown", 550, "5.1.1"),
            ("554 no status", 554, "5.0.0"),
            ("501 5.5.4 syntax", 554, "5.5.4"),
        ] {
            *answer.lock().unwrap() = (at, text);
            let reply = from_us(&gate, &[BOB], MAIL);
            assert_eq!(reply.status(), format!("{code} {status}"), "{at} {text} {reply:?}");
            assert!(reply.text().contains(" said: "), "{reply:?}");
        }
    }
    assert!(sink.received().is_empty());
    *answer.lock().unwrap() = (' ', "");
    assert_eq!(from_us(&gate, &[BOB], MAIL).code, 250, "and the relay goes on");
}

#[test]
fn a_next_hop_that_breaks_off_never_yields_250() {
    for stage in ['c', 'm', 'r', 'd', '.'] {
        let sink = Sink::scripted(Protocol::Smtp, move |at| {
            let here = match at {
                Stage::Connect => 'c',
                Stage::Mail(_) => 'm',
                Stage::Rcpt(_) => 'r',
                Stage::Data => 'd',
                Stage::Dot(_) => '.',
                Stage::Hello | Stage::Reset => return None,
            };
            (here == stage).then(String::new)
        });
        let gate = gate(&sink, |_| {});
        let reply = from_us(&gate, &[BOB], MAIL);
        assert_eq!(reply.code / 100, 4, "{stage} {reply:?}");
    }
}

#[test]
fn a_dead_pooled_connection_is_replaced() {
    let mails = AtomicUsize::new(0);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        // Every second transaction meets a connection that closes under it.
        Stage::Mail(_) if mails.fetch_add(1, Ordering::SeqCst) % 2 == 1 => Some(String::new()),
        _ => None,
    });
    let gate = gate(&sink, |_| {});
    for count in 1..=5 {
        assert_eq!(from_us(&gate, &[BOB], MAIL).code, 250, "{count}");
    }
    assert_eq!(sink.received().len(), 5);
    assert_eq!(sink.connections(), 5);
}

#[test]
fn a_421_on_a_pooled_connection_is_no_refusal() {
    let mails = AtomicUsize::new(0);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        Stage::Mail(_) if mails.fetch_add(1, Ordering::SeqCst) == 1 => {
            Some("421 4.4.2 idle for too long\r\n".to_owned())
        }
        _ => None,
    });
    let gate = gate(&sink, |_| {});
    assert_eq!(from_us(&gate, &[BOB], MAIL).code, 250);
    let reply = from_us(&gate, &[BOB], MAIL);
    assert!(reply.code == 250 || reply.code == 451, "{reply:?}");
}

/// It still has the envelope, and calls the next one nested.
#[test]
fn who_refuses_rset_bounces_nobody_elses_mail() {
    let has_envelope = AtomicBool::new(false);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        Stage::Connect | Stage::Dot(_) => {
            has_envelope.store(false, Ordering::SeqCst);
            None
        }
        Stage::Mail(_) if has_envelope.swap(true, Ordering::SeqCst) => {
            Some("503 5.5.1 nested MAIL command\r\n".to_owned())
        }
        Stage::Rcpt(line) if line.contains("nobody@") => Some("550 5.1.1 no\r\n".to_owned()),
        Stage::Reset => Some("450 4.3.0 busy\r\n".to_owned()),
        _ => None,
    });
    let gate = gate(&sink, |_| {});
    assert_eq!(from_us(&gate, &["nobody@abc.example"], MAIL).status(), "550 5.1.1");
    let reply = from_us(&gate, &[BOB], MAIL);
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// Over a connection that greeted well 421, or the end without a word, is about this message.
#[test]
fn what_one_sender_is_told_shuts_the_next_hop_for_nobody_else() {
    const LIMITED: &str = "421 4.7.28 this sender is rate limited\r\n";
    for (at, says, status) in [
        ('m', LIMITED, "451 4.7.28"),
        ('r', LIMITED, "451 4.7.28"),
        ('d', LIMITED, "451 4.7.28"),
        ('m', "", "451 4.4.2"),
        ('r', "", "451 4.4.2"),
    ] {
        let is_limited = AtomicBool::new(false);
        let sink = Sink::scripted(Protocol::Smtp, move |stage| {
            let here = match stage {
                Stage::Mail(line) => {
                    is_limited.store(line.contains("mallory@"), Ordering::SeqCst);
                    'm'
                }
                Stage::Rcpt(_) => 'r',
                Stage::Data => 'd',
                _ => return None,
            };
            (here == at && is_limited.load(Ordering::SeqCst)).then(|| says.to_owned())
        });
        let gate = gate(&sink, |_| {});
        let inside = gate.ready().inside_smtp.unwrap();
        for _ in 0..4 {
            let reply = send_smtp(inside, "mallory@nec.example", &[BOB], MAIL);
            assert_eq!(reply.status(), status, "{at} {says}: {reply:?}");
            assert!(reply.text().contains("rate limited") || says.is_empty(), "{reply:?}");
        }
        let reply = from_us(&gate, &[BOB], MAIL);
        assert_eq!(reply.code, 250, "{at} {says}: {reply:?}");
    }
}

#[test]
fn a_refusal_that_was_heard_does_not_wait_for_the_answer_to_rset() {
    let sink = Sink::scripted(Protocol::Smtp, |stage| match stage {
        Stage::Rcpt(_) => Some("550 5.1.1 no\r\n".to_owned()),
        Stage::Reset => {
            sleep(Duration::from_secs(60));
            None
        }
        _ => None,
    });
    let gate = gate(&sink, |gate| gate.set(&["limits", "delivery_secs_max"], 2));
    let started = Instant::now();
    let reply = from_us(&gate, &[BOB], MAIL);
    assert_eq!(reply.status(), "550 5.1.1", "{reply:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// As one behind a firewall that has forgotten it.
#[test]
fn a_pooled_connection_that_went_silent_is_replaced_in_time() {
    let mails = AtomicUsize::new(0);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| {
        if matches!(stage, Stage::Mail(_)) && mails.fetch_add(1, Ordering::SeqCst) == 1 {
            sleep(Duration::from_secs(60));
        }
        None
    });
    let gate = gate(&sink, |gate| gate.set(&["limits", "delivery_secs_max"], 8));
    for count in 1..=2 {
        let reply = from_us(&gate, &[BOB], MAIL);
        assert_eq!(reply.code, 250, "{count}: {reply:?}");
        assert_eq!(sink.connections(), count);
    }
}

#[test]
fn lmtp_recipients_have_replies_of_their_own() {
    let sink = Sink::scripted(Protocol::Smtp, |stage| match stage {
        Stage::Rcpt(line) if line.contains("gone@") => Some("550 5.1.1 gone\r\n".to_owned()),
        Stage::Rcpt(line) if line.contains("busy@") => Some("450 4.2.1 busy\r\n".to_owned()),
        _ => None,
    });
    let gate = gate(&sink, |_| {});
    let to = ["a@abc.example", "gone@abc.example", "b@abc.example", "busy@abc.example"];
    let replies = send_lmtp(gate.ready().inside_lmtp.unwrap(), "alice@nec.example", &to, MAIL);
    assert_eq!(replies.iter().map(|reply| reply.code).collect::<Vec<_>>(), [250, 550, 250, 450]);
    assert_eq!(sink.received().len(), 2);
    // Over SMTP there is one reply: who is refused for good is in a notification.
    let reply = from_us(&gate, &to[..2], MAIL);
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(sink.received().len(), 4);
}

#[test]
fn a_mail_server_that_speaks_lmtp_answers_for_each() {
    let sink = Sink::scripted(Protocol::Lmtp, |stage| match stage {
        Stage::Dot(line) if line.contains("full@") => Some("452 4.2.2 full\r\n".to_owned()),
        _ => None,
    });
    let address = sink.address;
    let gate = gate(&sink, |gate| {
        gate.set(&["inside", "mail_server"], format!("lmtp://{address}"));
    });
    let outside = gate.ready().outside_smtp.unwrap();
    assert_eq!(send_smtp(outside, BOB, &["a@nec.example", "b@nec.example"], MAIL).code, 250);
    assert_eq!(send_smtp(outside, BOB, &["full@nec.example"], MAIL).code, 452);
    assert_eq!(sink.received().len(), 1);
}

#[test]
fn a_client_that_leaves_in_the_content_leaves_nothing_behind() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    let (mut client, _) = Session::connect(gate.ready().inside_smtp.unwrap());
    client.command("EHLO client.example");
    client.command("MAIL FROM:<alice@nec.example>");
    client.command("RCPT TO:<bob@abc.example>");
    client.command("DATA");
    client.send(b"Subject: half\r\n\r\nhalf\r\n");
    drop(client);
    assert_eq!(from_us(&gate, &[BOB], MAIL).code, 250);
    assert_eq!(sink.received().len(), 1);
}

#[test]
fn a_client_that_leaves_before_the_dot_downstream_aborts_the_delivery() {
    let sink = Sink::scripted(Protocol::Smtp, |stage| {
        if *stage == Stage::Data {
            sleep(Duration::from_millis(800));
        }
        None
    });
    let gate = gate(&sink, |_| {});
    let (mut client, _) = Session::connect(gate.ready().inside_smtp.unwrap());
    client
        .send(b"EHLO c\r\nMAIL FROM:<alice@nec.example>\r\nRCPT TO:<bob@abc.example>\r\nDATA\r\n");
    while client.reply().code != 354 {}
    client.content(MAIL);
    sleep(Duration::from_millis(300));
    drop(client);
    await_that("the abort in the log", || {
        transactions(&gate).iter().any(|line| line["aborted"] == true)
    });
    let line = &transactions(&gate)[0];
    assert_eq!(
        (&line["from"], &line["to"][0]),
        (&"alice@nec.example".into(), &BOB.into()),
        "{line}"
    );
    sleep(Duration::from_millis(800));
    assert!(sink.received().is_empty());
}

#[test]
fn a_client_that_leaves_after_the_dot_downstream_gets_its_mail_delivered() {
    let sink = Sink::scripted(Protocol::Smtp, |stage| {
        if matches!(stage, Stage::Dot(_)) {
            sleep(Duration::from_millis(600));
        }
        None
    });
    let gate = gate(&sink, |_| {});
    let (mut client, _) = Session::connect(gate.ready().inside_smtp.unwrap());
    client
        .send(b"EHLO c\r\nMAIL FROM:<alice@nec.example>\r\nRCPT TO:<bob@abc.example>\r\nDATA\r\n");
    while client.reply().code != 354 {}
    client.content(MAIL);
    sleep(Duration::from_millis(200));
    drop(client);
    sink.await_received(1);
    await_that("the lost reply in the log", || {
        transactions(&gate).iter().any(|line| line["reply_lost"] == true)
    });
}

#[test]
fn delivery_has_a_deadline() {
    let sink = Sink::scripted(Protocol::Smtp, |stage| {
        if *stage == Stage::Data {
            sleep(Duration::from_secs(5));
        }
        None
    });
    let gate = gate(&sink, |gate| gate.set(&["limits", "delivery_secs_max"], 1));
    let started = Instant::now();
    let reply = from_us(&gate, &[BOB], MAIL);
    assert_eq!(reply.status(), "451 4.4.7", "{reply:?}");
    assert!(started.elapsed() < Duration::from_secs(4));
    sleep(Duration::from_secs(5));
    assert!(sink.received().is_empty());
}

#[test]
fn loops_end() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    for (hops, code) in [(100, 250), (101, 554)] {
        let mail = [b"Received: from a by b; x\r\n".repeat(hops), MAIL.to_vec()].concat();
        let reply = from_us(&gate, &[BOB], &mail);
        assert_eq!(reply.code, code, "{reply:?}");
    }
    let own = b"Received: from a\r\n\tby gate.nec.example (sealgate) with ESMTP id x; x\r\n";
    for (times, code) in [(3, 250), (4, 554)] {
        let reply = from_us(&gate, &[BOB], &[own.repeat(times), MAIL.to_vec()].concat());
        assert_eq!(reply.code, code, "{reply:?}");
    }
    assert_eq!(sink.received().len(), 2);
}

#[test]
fn a_large_message_arrives_unchanged() {
    let sink = Sink::smtp();
    let gate = gate(&sink, |_| {});
    let line = format!(".{}\r\n", "x".repeat(75));
    let mail = [MAIL, line.repeat(60_000).as_bytes()].concat();
    assert_eq!(from_us(&gate, &[BOB], &mail).code, 250);
    let received = sink.await_received(1);
    assert!(received[0].content.ends_with(&mail[MAIL.len() - 10..]));
    assert!(received[0].content.len() > mail.len());
}
