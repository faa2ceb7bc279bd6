//! The real mail servers of the bed work: Postfix hands foreign mail on and keeps its own, Dovecot gives it to clients.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use sealgate_testkit::dovecot::Dovecot;
use sealgate_testkit::mail;
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::sink::{Protocol, Sink, Stage};

#[test]
fn postfix_keeps_its_own_mail_and_hands_on_the_rest_and_bounces_what_is_refused() {
    let dovecot = Dovecot::start(&["alice@nec.example", "bob@nec.example"]);
    let next_hop = Sink::scripted(Protocol::Lmtp, |stage| match stage {
        Stage::Dot(rcpt) if rcpt.contains("<bad@") => Some("550 5.7.7 broken\r\n".to_owned()),
        _ => None,
    });
    let postfix = Postfix::start(&Settings {
        hostname: "mail.nec.example",
        domains: &["nec.example"],
        mailboxes: Some(dovecot.lmtp),
        next_hop: format!("lmtp:inet:{}", next_hop.address),
        more: "",
        more_services: "",
    });
    let message =
        b"From: alice@nec.example\r\nTo: bob@nec.example\r\nSubject: x\r\n\r\nHello\r\n.\r\n";
    let from = "alice@nec.example";
    assert_eq!(send_smtp(postfix.smtp, from, &["bob@nec.example"], message).code, 250);
    let received = dovecot.await_mail("bob@nec.example", 1);
    assert_eq!(mail::body(&received[0]), b"Hello\r\n.\r\n");
    assert_eq!(dovecot.imap_mail("bob@nec.example"), received);
    assert_eq!(next_hop.connections(), 0, "own mail does not leave");

    let to = ["carol@abc.example", "bad@abc.example"];
    assert_eq!(send_smtp(postfix.smtp, from, &to, message).code, 250);
    let bounce = dovecot.await_mail("alice@nec.example", 1);
    assert!(mail::contains(&bounce[0], "5.7.7"), "{}", postfix.log());
    let handed_on = next_hop.await_received(1);
    assert!(handed_on[0].recipients[0].contains("<carol@abc.example>"), "{handed_on:?}");
}
