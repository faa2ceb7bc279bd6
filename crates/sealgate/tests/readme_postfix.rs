//! The README's lines for Postfix and sealgate, as they stand there but for the ports: mail goes out and comes in.
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
use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::mail;
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::process;
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::sink::{Protocol, Sink, Stage};

const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";
const ENTITY: &[u8] = b"Content-Type: text/plain\r\n\r\nThe quick brown fox.\r\n";

#[test]
fn the_readme_puts_sealgate_before_postfix() {
    let binary = env!("CARGO_BIN_EXE_sealgate");
    let [inside, outside, mail_server] = [(); 3].map(|()| process::loopback(process::free_port()));
    let with_ports = |name: &str| {
        block(name)
            .replace("0.0.0.0:25", &outside.to_string())
            .replace("127.0.0.1:2526", &mail_server.to_string())
            .replace("127.0.0.1:2024", &inside.to_string())
    };
    let mailboxes = Dovecot::start(&[ALICE]);
    let sink = Sink::smtp();
    let mut ours = Gate::init(binary, &["nec.example"]);
    let mut theirs = Gate::init(binary, &["abc.example"]);
    ours.generate_key(ALICE, "p256");
    theirs.generate_key(BOB, "p256");
    ours.trust(&theirs, &[BOB]);
    theirs.trust(&ours, &[ALICE]);
    theirs.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
    theirs.set(&["outside", "next_hop"], format!("smtp://{outside}"));
    let ready = theirs.start();
    let readme: toml::Table = with_ports("sealgate-toml").parse().unwrap();
    ours.configure(|config| {
        for (name, table) in readme {
            config.insert(name, table);
        }
        // No Internet here: the other organisation stands for it.
        let peer = format!("smtp://{}", ready.outside_smtp.unwrap());
        set(config, &["outside", "next_hop"], peer);
    });
    ours.start();
    let postfix = Postfix::start(&Settings {
        hostname: "mail.nec.example",
        domains: &["nec.example"],
        mailboxes: Some(mailboxes.lmtp),
        next_hop: "error:the README's line must win".to_owned(),
        more: &with_ports("postfix-main"),
        more_services: &with_ports("postfix-master"),
    });

    let out = mail::message(ALICE, BOB, "out", ENTITY);
    assert_eq!(send_smtp(postfix.smtp, ALICE, &[BOB], &out).code, 250);
    let arrived = &sink.await_received(1)[0].content;
    assert_passed(arrived);

    let back = mail::message(BOB, ALICE, "in", ENTITY);
    let reply = send_smtp(ready.inside_smtp.unwrap(), BOB, &[ALICE], &back);
    assert_eq!(reply.code, 250, "{}", reply.text());
    assert_passed(&mailboxes.await_mail(ALICE, 1)[0]);

    let relayed = send_smtp(mail_server, BOB, &["someone@elsewhere.example"], &back);
    assert_eq!(relayed.code / 100, 5, "the inner listener relays nothing: {}", relayed.text());
}

/// What came in was answered with 250: its sender must hear of it, and not read in plain what was encrypted.
#[test]
fn a_mailbox_that_refuses_opened_mail_sends_back_its_header_section_alone() {
    let binary = env!("CARGO_BIN_EXE_sealgate");
    let mail_server = process::loopback(process::free_port());
    let full = Sink::scripted(Protocol::Lmtp, |stage| {
        matches!(stage, Stage::Rcpt(_)).then(|| "552 5.2.2 mailbox full\r\n".to_owned())
    });
    let sink = Sink::smtp();
    let mut ours = Gate::init(binary, &["nec.example"]);
    let mut theirs = Gate::init(binary, &["abc.example"]);
    ours.generate_key(ALICE, "p256");
    theirs.generate_key(BOB, "p256");
    // Of Bob we know the authority and no certificate: the notification leaves plain.
    ours.trust(&theirs, &[]);
    theirs.trust(&ours, &[ALICE]);
    theirs.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
    let outside = process::loopback(process::free_port());
    theirs.set(&["outside", "next_hop"], format!("smtp://{outside}"));
    let ready = theirs.start();
    let readme: toml::Table = block("sealgate-toml").parse().unwrap();
    ours.configure(|config| {
        config.insert("rule".to_owned(), readme["rule"].clone());
        set(config, &["inside", "mail_server"], format!("smtp://{mail_server}"));
        set(config, &["outside", "smtp"], outside.to_string());
        set(config, &["outside", "next_hop"], format!("smtp://{}", ready.outside_smtp.unwrap()));
    });
    let inside = ours.start().inside_lmtp.unwrap();
    // As Exim without `dsn_advertise_hosts`, it hears of no RET=HDRS.
    let more = format!(
        "default_transport = lmtp:inet:{inside}\nsmtpd_discard_ehlo_keywords = silent-discard, dsn\n"
    );
    let services = block("postfix-master").replace("127.0.0.1:2526", &mail_server.to_string());
    let _postfix = Postfix::start(&Settings {
        hostname: "mail.nec.example",
        domains: &["nec.example"],
        mailboxes: Some(full.address),
        next_hop: "error:the lines above must win".to_owned(),
        more: &more,
        more_services: &services,
    });
    let mail = mail::message(BOB, ALICE, "a plan", ENTITY);
    let reply = send_smtp(ready.inside_smtp.unwrap(), BOB, &[ALICE], &mail);
    assert_eq!(reply.code, 250, "{}", reply.text());
    let returned = &sink.await_received(1)[0].content;
    let text = String::from_utf8_lossy(returned);
    assert!(text.contains("5.2.2") && text.contains("Subject: a plan"), "{text}");
    assert!(text.contains("text/rfc822-headers") && !text.contains("message/rfc822"), "{text}");
    assert!(!text.contains("quick brown fox"), "{text}");
}

fn assert_passed(message: &[u8]) {
    let results = mail::header(message, "Authentication-Results").unwrap_or_default();
    assert!(results.contains("smime=pass"), "{}", String::from_utf8_lossy(message));
    assert!(mail::contains(message, "The quick brown fox."));
}

/// The fenced block behind `<!-- test: NAME -->`.
fn block(name: &str) -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"));
    let readme = readme.unwrap();
    let behind = readme.split(&format!("<!-- test: {name} -->\n```")).nth(1);
    let behind = behind.unwrap_or_else(|| panic!("README.md has no block {name}"));
    let (_language, behind) = behind.split_once('\n').unwrap();
    behind.split("```").next().unwrap().to_owned()
}
