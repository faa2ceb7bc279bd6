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

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use between_sinks::{
    ALICE, GONE, MAIL, OK, Script, counts, gate, log_of, refusing, refusing_at_dot,
    refusing_at_rcpt, smtp,
};
use sealgate_testkit::gate::Gate;
use sealgate_testkit::mail;
use sealgate_testkit::session::{Reply, Session, send_smtp};
use sealgate_testkit::sink::{Protocol, Sink, Stage};

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

/// A server that knows nothing of DSN.
fn without_dsn(protocol: Protocol) -> Sink {
    Sink::scripted(protocol, |stage| match stage {
        Stage::Hello => Some("250-sink.example\r\n250 SIZE\r\n".to_owned()),
        _ => None,
    })
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
        let (inside, outside) = (Sink::smtp(), without_dsn(Protocol::Smtp));
        let gate = gate(&inside, &outside, |_| {});
        let replies = send_asking(&gate, protocol, ALICE);
        assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
        assert_eq!(counts(&outside, ASKING.map(|(to, _)| to)), [1; 4]);
        let notices = inside.await_received(1);
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].mail.split(" SIZE").next(), Some("MAIL FROM:<>"));
        assert_eq!(notices[0].recipients, [format!("RCPT TO:<{ALICE}>")]);
        let text = String::from_utf8(notices[0].content.clone()).unwrap();
        for line in [
            "Original-Envelope-Id: Q1",
            "Original-Recipient: rfc822;told@a.example",
            "Final-Recipient: rfc822;told@a.example",
            "Action: relayed",
            "Status: 2.0.0",
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
    let (inside, confirming, silent) = (Sink::smtp(), Sink::smtp(), without_dsn(Protocol::Smtp));
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
    assert!(inside.received().is_empty());
}

/// A confirmation is worth less than the mail.
#[test]
fn mail_is_delivered_where_the_confirmation_cannot_be_handed_over() {
    let home = Script::default();
    home.set("alice@", "452 4.2.2 full");
    let (inside, outside) = (refusing_at_rcpt(&home), without_dsn(Protocol::Smtp));
    let gate = gate(&inside, &outside, |_| {});
    let reply = send_asking(&gate, Protocol::Smtp, ALICE).remove(0);
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(counts(&outside, ["told@a.example"]), [1]);
    assert!(gate.log().contains("did not get the confirmation"), "{}", gate.log());
}

/// A7: what the mail server does not honour is not promised to the Internet. It is known with the first message.
#[test]
fn dsn_is_offered_to_the_internet_as_long_as_the_mail_server_offers_it() {
    for (protocol, offers) in
        [(Protocol::Lmtp, false), (Protocol::Smtp, false), (Protocol::Smtp, true)]
    {
        let inside = if offers { Sink::smtp() } else { without_dsn(protocol) };
        let gate = gate(&inside, &Sink::smtp(), |gate| {
            let server = format!("{}://{}", protocol.scheme(), inside.address);
            gate.set(&["inside", "mail_server"], server);
        });
        let address = gate.ready().outside_smtp.unwrap();
        let is_offered = || {
            let (mut client, _) = Session::connect(address);
            client.command("EHLO client.example").lines.iter().any(|line| line == "DSN")
        };
        assert!(is_offered(), "nothing is known yet");
        assert_eq!(send_smtp(address, "bob@abc.example", &[ALICE], MAIL).code, 250);
        assert_eq!(is_offered(), offers, "{protocol:?}");
    }
}
