//! What the sender is told besides the reply: who was refused for good after others accepted (REQUIREMENTS O9).
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
use sealgate_testkit::mail;
use sealgate_testkit::session::Session;
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
