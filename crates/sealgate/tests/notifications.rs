//! What the sender is told besides the reply: who was refused for good after others accepted, and whose server confirms no
//! delivery (REQUIREMENTS A7, O9).
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use between_sinks::{
    ALICE, GONE, MAIL, OK, Script, counts, gate, log_of, refusing, refusing_at_dot,
    refusing_at_rcpt, smtp,
};
use sealgate_testkit::gate::Gate;
use sealgate_testkit::mail;
use sealgate_testkit::process::{await_that, holds_within};
use sealgate_testkit::session::{Reply, Session, send_smtp};
use sealgate_testkit::sink::{HELLO_WITHOUT_DSN, Protocol, Received, Sink, Stage};

#[path = "support/between_sinks.rs"]
mod between_sinks;

#[test]
fn who_is_refused_for_good_after_others_accepted_is_in_a_notification() {
    for at_dot in [false, true] {
        let script = Script::default();
        script.set("gone@", "550-5.1.1 gone\r\n550 5.1.1 for good");
        let outside = refusing(at_dot, &script);
        let inside = Sink::smtp();
        let gate = gate(&inside, &outside, |_| {});
        let reply = smtp(&gate, &[GONE, OK]);
        assert_eq!(reply.code, 250, "{reply:?}");
        assert_eq!(counts(&outside, [OK, GONE]), [1, 0]);
        // Handed over before the 250.
        let notices = inside.received();
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].mail.split(" SIZE").next(), Some("MAIL FROM:<>"));
        assert_eq!(notices[0].recipients, [format!("RCPT TO:<{ALICE}>")]);
        let text = String::from_utf8(notices[0].content.clone()).unwrap();
        for line in [
            "Final-Recipient: rfc822;gone@b.example",
            "Action: failed",
            "Status: 5.1.1",
            "Reporting-MTA: dns; gate.nec.example",
            "Remote-MTA: dns; 127.0.0.1",
            "Subject: plan",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("ok@a.example") && !text.contains("words"), "{text}");
        let kind = mail::header(&notices[0].content, "Content-Type").unwrap();
        assert!(kind.starts_with("multipart/report; report-type=delivery-status;"), "{kind}");
        let parts = mail::parts(
            mail::body(&notices[0].content),
            &mail::parameter(&kind, "boundary").unwrap(),
        );
        let kinds = parts.iter().map(|part| mail::header(part, "Content-Type").unwrap());
        assert_eq!(
            kinds.collect::<Vec<_>>(),
            ["text/plain; charset=us-ascii", "message/delivery-status", "text/rfc822-headers"]
        );
        assert_eq!(log_of(&gate, &reply)["repair"], "notification");
    }
}

#[test]
fn nobody_is_notified_who_did_not_ask_for_it() {
    let script = Script::default();
    script.set("gone@", "550 5.1.1 gone");
    let (inside, outside) = (Sink::smtp(), refusing_at_dot(Protocol::Smtp, &script));
    let gate = gate(&inside, &outside, |_| {});
    for (from, notify) in [("<alice@nec.example>", " NOTIFY=NEVER"), ("<>", "")] {
        let (mut client, _) = Session::connect(gate.ready().inside_smtp.unwrap());
        client.command("EHLO client.example");
        assert_eq!(client.command(&format!("MAIL FROM:{from}")).code, 250);
        assert_eq!(client.command(&format!("RCPT TO:<{GONE}>{notify}")).code, 250);
        assert_eq!(client.command(&format!("RCPT TO:<{OK}>")).code, 250);
        client.command("DATA");
        client.content(MAIL);
        let reply = client.reply();
        assert_eq!(reply.code, 250, "{reply:?}");
        assert_eq!(log_of(&gate, &reply)["repair"], "unwanted");
    }
    assert!(inside.received().is_empty());
    assert_eq!(counts(&outside, [OK, GONE]), [2, 0]);
}

#[test]
fn a_notification_that_cannot_be_handed_over_is_tried_again_with_the_next_attempt() {
    let (script, home) = (Script::default(), Script::default());
    script.set("gone@", "550 5.1.1 gone");
    home.set("alice@", "452 4.2.2 full");
    let (inside, outside) = (refusing_at_rcpt(&home), refusing_at_dot(Protocol::Smtp, &script));
    let gate = gate(&inside, &outside, |_| {});
    let reply = smtp(&gate, &[OK, GONE]);
    assert_eq!(reply.code, 451, "{reply:?}");
    assert_eq!(log_of(&gate, &reply)["repair"], "done-record");
    home.clear();
    let reply = smtp(&gate, &[OK, GONE]);
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(counts(&outside, [OK, GONE]), [1, 0]);
    assert_eq!(inside.received().len(), 1);
}

#[test]
fn where_the_mail_server_refuses_the_notification_the_reply_tells() {
    let (script, home) = (Script::default(), Script::default());
    script.set("gone@", "550 5.1.1 gone");
    home.set("alice@", "550 5.1.1 nobody here");
    let (inside, outside) = (refusing_at_rcpt(&home), refusing_at_dot(Protocol::Smtp, &script));
    let gate = gate(&inside, &outside, |_| {});
    let reply = smtp(&gate, &[OK, GONE]);
    assert_eq!(reply.status(), "550 5.1.1", "{reply:?}");
    assert!(reply.text().contains("not delivered to <gone@b.example>, all others have it"));
    assert_eq!(counts(&outside, [OK, GONE]), [1, 0]);
}

#[test]
fn a_notification_that_is_too_large_returns_the_header_section_only() {
    let script = Script::default();
    script.set("gone@", "550 5.1.1 gone");
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&sizes);
    // A server's limit may be said at MAIL, or come out after the dot.
    for at_mail in [true, false] {
        let (asked, at_dot) = (Arc::clone(&asked), AtomicUsize::new(0));
        let inside = Sink::scripted(Protocol::Smtp, move |stage| match stage {
            Stage::Mail(line) => {
                let (_, size) = line.split_once("SIZE=").unwrap_or(("", "0"));
                let size: usize = size.split(' ').next().unwrap().parse().unwrap();
                asked.lock().unwrap().push(size);
                (at_mail && size > 3_000).then(|| "552 5.3.4 too large\r\n".to_owned())
            }
            Stage::Hello => Some("250-sink.example\r\n250-DSN\r\n250 SIZE\r\n".to_owned()),
            Stage::Dot(_) if !at_mail && at_dot.fetch_add(1, Ordering::SeqCst) == 0 => {
                Some("554 5.2.3 larger than the mailbox takes\r\n".to_owned())
            }
            _ => None,
        });
        let outside = refusing_at_dot(Protocol::Smtp, &script);
        let gate = gate(&inside, &outside, |_| {});
        let (mut client, _) = Session::connect(gate.ready().inside_smtp.unwrap());
        client.command("EHLO client.example");
        assert_eq!(client.command(&format!("MAIL FROM:<{ALICE}> RET=FULL")).code, 250);
        for to in [GONE, OK] {
            assert_eq!(client.command(&format!("RCPT TO:<{to}>")).code, 250);
        }
        client.command("DATA");
        client.content(&[MAIL, &b"more of it\r\n".repeat(300)].concat());
        let reply = client.reply();
        assert_eq!(reply.code, 250, "{reply:?}\n{}", gate.log());
        assert_eq!(log_of(&gate, &reply)["repair"], "notification");
        let notices = inside.received();
        assert_eq!(notices.len(), 1);
        assert!(mail::contains(&notices[0].content, "Subject: plan"));
        assert!(!mail::contains(&notices[0].content, "more of it"));
        assert_eq!(counts(&outside, [OK, GONE]), [1, 0]);
    }
    // Whole first: the sender asked for that.
    let sizes = sizes.lock().unwrap();
    assert!(sizes.len() == 4 && sizes[0] > 3_000 && sizes[1] < 3_000, "{sizes:?}");
}

/// As many messages as that and, for a while that is longer than a notification takes, no more.
fn only(sink: &Sink, count: usize) -> Vec<Received> {
    let received = sink.await_received(count);
    let more = || sink.received().len() > count;
    assert!(!holds_within(Duration::from_secs(1), more), "{:?}", sink.received());
    received
}

/// What recipients of one message ask for.
const ASKING: [(&str, &str); 4] = [
    ("told@a.example", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;told@a.example"),
    ("delayed@a.example", " NOTIFY=DELAY,FAILURE"),
    ("never@a.example", " NOTIFY=NEVER"),
    ("silent@a.example", ""),
];

/// A message that asks for confirmations, and all replies to its dot.
fn send_asking(gate: &Gate, protocol: Protocol, from: &str) -> Vec<Reply> {
    let ready = gate.ready();
    let (address, hello) = match protocol {
        Protocol::Smtp => (ready.inside_smtp.unwrap(), "EHLO client.example"),
        Protocol::Lmtp => (ready.inside_lmtp.unwrap(), "LHLO client.example"),
    };
    let (mut client, _) = Session::connect(address);
    let offered = client.command(hello);
    assert!(offered.lines.iter().any(|line| line == "DSN"), "{offered:?}");
    assert_eq!(client.command(&format!("MAIL FROM:<{from}> RET=FULL ENVID=Q1")).code, 250);
    for (to, notify) in ASKING {
        assert_eq!(client.command(&format!("RCPT TO:<{to}>{notify}")).code, 250);
    }
    client.command("DATA");
    client.content(MAIL);
    let replies = if protocol == Protocol::Lmtp { ASKING.len() } else { 1 };
    (0..replies).map(|_| client.reply()).collect()
}

/// RFC 3461 §5.2.2.
#[test]
fn who_asks_for_success_is_told_that_a_server_without_dsn_will_not_confirm_it() {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let (inside, outside) = (Sink::smtp(), Sink::without_dsn(Protocol::Smtp));
        let gate = gate(&inside, &outside, |_| {});
        let replies = send_asking(&gate, protocol, ALICE);
        assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
        assert_eq!(counts(&outside, ASKING.map(|(to, _)| to)), [1; 4]);
        let notices = only(&inside, 1);
        assert_eq!(notices[0].mail.split(" SIZE").next(), Some("MAIL FROM:<>"));
        assert_eq!(notices[0].recipients, [format!("RCPT TO:<{ALICE}>")]);
        let text = String::from_utf8(notices[0].content.clone()).unwrap();
        for line in [
            "Original-Envelope-Id: Q1",
            "Original-Recipient: rfc822;told@a.example",
            "Final-Recipient: rfc822;told@a.example",
            "Action: relayed",
            "Status: 2.0.0",
            "Diagnostic-Code: smtp; 250 2.0.0 taken",
            "Remote-MTA: dns; 127.0.0.1",
            "Subject: plan",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("words"), "the header section only, whatever RET says: {text}");
        for (other, _) in &ASKING[1..] {
            assert!(!text.contains(other), "{other}: {text}");
        }
    }
}

#[test]
fn where_the_next_hop_confirms_or_nobody_asks_there_is_no_such_notification() {
    let (inside, confirming, silent) =
        (Sink::smtp(), Sink::smtp(), Sink::without_dsn(Protocol::Smtp));
    let confirmed = gate(&inside, &confirming, |_| {});
    assert_eq!(send_asking(&confirmed, Protocol::Smtp, ALICE)[0].code, 250);
    // It is the next hop's affair.
    let asked: Vec<String> =
        confirming.received().into_iter().flat_map(|one| one.recipients).collect();
    assert!(asked.iter().any(|line| line.contains("NOTIFY=SUCCESS,FAILURE")), "{asked:?}");
    let gate = gate(&inside, &silent, |_| {});
    assert_eq!(send_asking(&gate, Protocol::Smtp, "")[0].code, 250);
    assert_eq!(smtp(&gate, &[OK]).code, 250);
    assert_eq!(counts(&silent, ["told@a.example", OK]), [1, 1]);
    only(&inside, 0);
}

/// A confirmation is worth less than the mail.
#[test]
fn no_mail_waits_for_a_confirmation_and_the_mail_server_is_not_left_alone_for_it() {
    // What happens at RCPT: refused, closed without a reply, or too late for a confirmation.
    for (answer, silence) in [("452 4.2.2 full", 0), ("", 0), ("250 2.1.5 ok", 13)] {
        let inside = Sink::scripted(Protocol::Smtp, move |stage| {
            if !matches!(stage, Stage::Rcpt(line) if line.contains("alice@")) {
                return None;
            }
            thread::sleep(Duration::from_secs(silence));
            Some(if answer.is_empty() { String::new() } else { format!("{answer}\r\n") })
        });
        let outside = Sink::without_dsn(Protocol::Smtp);
        let gate = gate(&inside, &outside, |gate| {
            gate.set(&["inside", "check_recipients"], false);
        });
        let begun = Instant::now();
        let (mut client, _) = Session::connect(gate.ready().inside_lmtp.unwrap());
        client.command("LHLO client.example");
        for _ in 0..4 {
            assert_eq!(client.command(&format!("MAIL FROM:<{ALICE}>")).code, 250);
            let reply = client.command("RCPT TO:<told@a.example> NOTIFY=SUCCESS");
            assert_eq!(reply.code, 250, "{reply:?}");
            client.command("DATA");
            client.content(MAIL);
            assert_eq!(client.reply().code, 250);
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        let given_up = || gate.log().matches("takes no notification").count();
        await_that("all are given up", || given_up() == 4);
        let address = gate.ready().outside_smtp.unwrap();
        let reply = send_smtp(address, "bob@abc.example", &["carol@nec.example"], MAIL);
        assert_eq!(reply.code, 250, "{answer}: {reply:?}\n{}", gate.log());
        assert_eq!(counts(&outside, ["told@a.example"]), [4]);
    }
}

/// Who is not ours may be whoever a forged mail names that a mailing list or a forwarding here passes on.
#[test]
fn strangers_whose_mail_passes_through_us_are_told_nothing() {
    let (inside, outside) = (Sink::smtp(), Sink::without_dsn(Protocol::Smtp));
    let gate = gate(&inside, &outside, |_| {});
    assert_eq!(send_asking(&gate, Protocol::Smtp, "stranger@c.example")[0].code, 250);
    // One of ours is.
    assert_eq!(send_asking(&gate, Protocol::Smtp, ALICE)[0].code, 250);
    assert_eq!(only(&inside, 1)[0].recipients, [format!("RCPT TO:<{ALICE}>")]);
}

/// A7: what the mail server does not honour is not promised to the Internet. It is known once it was asked about a recipient, or
/// took a message.
#[test]
fn dsn_and_smtputf8_are_offered_to_the_internet_as_long_as_the_mail_server_offers_them() {
    for (protocol, asks) in
        [(Protocol::Lmtp, true), (Protocol::Smtp, true), (Protocol::Smtp, false)]
    {
        let [offers, closes] = [false, false].map(|is| Arc::new(AtomicBool::new(is)));
        let (offering, closing) = (Arc::clone(&offers), Arc::clone(&closes));
        let inside = Sink::scripted(protocol, move |stage| match stage {
            Stage::Hello if !offering.load(Ordering::SeqCst) => Some(HELLO_WITHOUT_DSN.to_owned()),
            // As after a restart.
            Stage::Mail(_) if closing.swap(false, Ordering::SeqCst) => Some(String::new()),
            _ => None,
        });
        let other = Sink::without_dsn(Protocol::Smtp);
        let gate = gate(&inside, &Sink::smtp(), |gate| {
            gate.set(
                &["inside", "mail_server"],
                format!("{}://{}", protocol.scheme(), inside.address),
            );
            gate.set(&["inside", "check_recipients"], asks);
        });
        let address = gate.ready().outside_smtp.unwrap();
        let is_offered = || {
            let (mut client, _) = Session::connect(address);
            let lines = client.command("EHLO client.example").lines;
            let [dsn, smtputf8] =
                ["DSN", "SMTPUTF8"].map(|word| lines.iter().any(|line| line == word));
            assert_eq!(dsn, smtputf8, "the one is learned with the other");
            dsn
        };
        let mut number = 0;
        let mut ask = || {
            number += 1;
            let (mut client, _) = Session::connect(address);
            client.command("EHLO client.example");
            client.command("MAIL FROM:<bob@abc.example>");
            assert_eq!(client.command(&format!("RCPT TO:<to-{number}@nec.example>")).code, 250);
            if !asks {
                client.command("DATA");
                client.content(MAIL);
                assert_eq!(client.reply().code, 250);
            }
        };
        assert!(is_offered(), "nothing is known yet");
        ask();
        assert!(!is_offered(), "{protocol:?}");
        offers.store(true, Ordering::SeqCst);
        closes.store(true, Ordering::SeqCst);
        ask();
        assert!(is_offered(), "{protocol:?}: it has learned");
        offers.store(false, Ordering::SeqCst);
        closes.store(true, Ordering::SeqCst);
        ask();
        assert!(!is_offered(), "{protocol:?}: and forgotten");
        // Of another mail server nothing is known; the same one is known.
        let reloaded = |count: usize| {
            gate.signal("HUP");
            await_that("a reload", || {
                gate.log().matches("configuration reloaded").count() == count
            });
        };
        reloaded(1);
        assert!(!is_offered(), "{protocol:?}: the same one");
        gate.set(&["inside", "mail_server"], format!("smtp://{}", other.address));
        reloaded(2);
        assert!(is_offered(), "{protocol:?}: another one");
        ask();
        assert!(!is_offered(), "{protocol:?}: which is like the first");
    }
}
