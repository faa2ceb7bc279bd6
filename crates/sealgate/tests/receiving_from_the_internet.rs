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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::DkimSigner;
use sealgate_testkit::dkimpy;
use sealgate_testkit::dns_line::{self, Trouble};
use sealgate_testkit::gate::Gate;
use sealgate_testkit::mail;
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::process;
use sealgate_testkit::session::{Session, send_smtp};
use sealgate_testkit::sink::{Protocol, Sink, Stage};
use sealgate_testkit::zone::{Zone, txt};

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
    let more = format!(
        "virtual_mailbox_maps = inline:{{{ALICE}=here}}\nsmtpd_peername_lookup = no\n{more}\n"
    );
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
fn postfix_hears_by_xclient_who_the_internet_client_is() {
    postfix_hears("xclient", "smtpd_authorized_xclient_hosts = 127.0.0.1", "mx.abc.example");
}

#[test]
fn postfix_hears_by_proxy_who_the_internet_client_is() {
    postfix_hears("proxy", "smtpd_upstream_proxy_protocol = haproxy", "gate.nec.example");
}

fn postfix_hears(how: &str, more: &str, hello: &str) {
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
        let trace = format!("Received: from {hello} (unknown [{source}])");
        assert!(text.contains(&trace), "{how}: {text}");
    }
    // This address has a name on every machine; this Postfix looks up none by itself.
    swaks(&gate, "127.0.0.1", ALICE).expect_ok(how);
    let received = mailboxes.await_received(3);
    let text = String::from_utf8_lossy(&received[2].content).into_owned();
    let trace = text.split_once(&format!("Received: from {hello} (")).expect(how).1;
    let (name, _) = trace.split_once(" [127.0.0.1])").expect(how);
    assert_eq!(name != "unknown", how == "xclient", "{how}: {text}");
}

/// A mail server that wants the PROXY header wants it on every connection, on that of a notification of ours too.
#[test]
fn a_notification_comes_from_us_where_the_mail_server_hears_by_proxy() {
    let mailboxes = Sink::lmtp();
    let postfix = postfix(&mailboxes, "smtpd_upstream_proxy_protocol = haproxy");
    let (outside, _) = counting_sink(Protocol::Smtp, &[("gone@", "550 5.1.1 no such mailbox")]);
    let gate = gate(&format!("smtp://{}", postfix.smtp), |gate| {
        gate.set(&["inside", "client_address"], "proxy");
        gate.set(&["policy", "sign"], "never");
        gate.set(&["outside", "next_hop"], format!("smtp://{}", outside.address));
    });
    let mail = String::from_utf8(MAIL.to_vec()).unwrap().replace(BOB, ALICE);
    let to = ["gone@abc.example", BOB];
    let reply = send_smtp(gate.ready().inside_smtp.unwrap(), ALICE, &to, mail.as_bytes());
    assert_eq!(reply.code, 250, "{reply:?}\n{}", postfix.log());
    let notice = mailboxes.await_received(1).remove(0);
    assert_eq!(notice.mail.split(' ').take(2).collect::<Vec<_>>(), ["MAIL", "FROM:<>"]);
    assert!(mail::contains(&notice.content, "Final-Recipient: rfc822;gone@abc.example"));
    assert_eq!(outside.received().len(), 1);
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

/// What the sender's domains say in DNS: the tests' clients are all at 127.0.0.1.
fn policies() -> Vec<String> {
    vec![
        txt("abc.example.", "v=spf1 ip4:127.0.0.1 -all"),
        txt("_dmarc.abc.example.", "v=DMARC1; p=reject"),
        txt("strict.example.", "v=spf1 ip4:192.0.2.1 -all"),
        txt("_dmarc.strict.example.", "v=DMARC1; p=reject"),
        txt("lax.example.", "v=spf1 ip4:192.0.2.1 ~all"),
        txt("_dmarc.lax.example.", "v=DMARC1; p=none"),
        txt("plain.example.", "no policy of any kind"),
    ]
}

fn asks(gate: &Gate, zone: &Zone) {
    gate.set(&["outside", "authenticate"], true);
    gate.set(&["dns", "resolvers"], vec![zone.address.to_string()]);
}

/// The results in Authentication-Results, one a method, `spf=pass` and its properties.
fn results(message: &[u8]) -> Vec<String> {
    let field = mail::header(message, "Authentication-Results").expect("results");
    let words = field.split_whitespace().collect::<Vec<_>>().join(" ");
    words.split("; ").skip(1).map(str::to_owned).collect()
}

fn mail_from(author: &str) -> Vec<u8> {
    String::from_utf8(MAIL.to_vec()).unwrap().replace(BOB, author).into_bytes()
}

#[test]
fn what_the_senders_domain_says_stands_beside_the_verdict() {
    let sink = Sink::smtp();
    let keys = process::open_temp_dir("keys");
    let key = keys.path().join("key.pem");
    let mut records = policies();
    records.push(dkimpy::make_key(&key, "rsa", "s1", "abc.example"));
    let zone = Zone::start(&records);
    let gate = gate(&format!("smtp://{}", sink.address), |gate| asks(gate, &zone));
    let signed = dkimpy::sign(MAIL, "s1", "abc.example", &key);
    let mut altered = signed.clone();
    let last = altered.len() - 3;
    altered[last] = b'y';
    let gone = dkimpy::sign(MAIL, "s2", "abc.example", &key);
    let large = [MAIL, "0123456789abcdef\r\n".repeat(10_000).as_bytes()].concat();
    let large = dkimpy::sign(&large, "s1", "abc.example", &key);
    let lax = "x@lax.example";
    let plain = "x@plain.example";
    let by_bob = "spf=pass smtp.mailfrom=bob@abc.example";
    let aligned = "dmarc=pass header.from=abc.example policy.dmarc=reject";
    for (count, (from, message, expected)) in [
        (BOB, signed.clone(), format!("{by_bob}; dkim=pass header.d=abc.example header.s=s1; {aligned}")),
        (BOB, altered, format!("{by_bob}; dkim=fail header.d=abc.example header.s=s1; {aligned}")),
        (BOB, gone, format!("{by_bob}; dkim=permerror header.d=abc.example header.s=s2; {aligned}")),
        (BOB, large, format!("{by_bob}; dkim=pass header.d=abc.example header.s=s1; {aligned}")),
        // A bounce: the host's name is asked about, and the signature makes up for it.
        ("", signed, format!("spf=none smtp.helo=client.example; dkim=pass header.d=abc.example header.s=s1; {aligned}")),
        // Somebody else's name in From.
        (BOB, mail_from("ceo@strict.example"), format!("{by_bob}; dkim=none; dmarc=fail header.from=strict.example policy.dmarc=reject")),
        (lax, mail_from(lax), format!("spf=softfail smtp.mailfrom={lax}; dkim=none; dmarc=fail header.from=lax.example policy.dmarc=none")),
        (plain, mail_from(plain), format!("spf=none smtp.mailfrom={plain}; dkim=none; dmarc=none header.from=plain.example")),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = send_smtp(gate.ready().outside_smtp.unwrap(), from, &[ALICE], &message);
        assert_eq!(reply.code, 250, "{reply:?}");
        let received = sink.await_received(count + 1);
        assert_eq!(results(&received[count].content).join("; "), format!("smime=none; {expected}"));
    }
}

#[test]
fn a_failed_dmarc_refuses_where_author_and_administrator_want_it() {
    let sink = Sink::smtp();
    let zone = Zone::start(&policies());
    let gate = gate(&format!("smtp://{}", sink.address), |gate| {
        asks(gate, &zone);
        gate.set(&["outside", "dmarc"], "refuse");
    });
    let send = |from: &str, author: &str| {
        send_smtp(gate.ready().outside_smtp.unwrap(), from, &[ALICE], &mail_from(author))
    };
    let refused = send(BOB, "ceo@strict.example");
    assert_eq!(refused.status(), "550 5.7.1");
    assert!(refused.text().contains("strict.example"), "{refused:?}");
    process::await_that("the reason in the log", || {
        let failed = |line: &serde_json::Value| line["authentication"][2]["result"] == "fail";
        gate.log_lines().iter().any(failed)
    });
    assert!(sink.received().is_empty());
    for author in [BOB, "x@lax.example", "x@plain.example"] {
        assert_eq!(send(BOB, author).code, 250, "{author}");
    }
}

/// Records of a domain whose SPF record takes so many look-ups before it comes to a term that holds for everybody.
fn taking(domain: &str, look_ups: usize, last: &str) -> Vec<String> {
    let mut records = vec![
        txt(
            &format!("{domain}.example."),
            &format!("v=spf1 mx:m1.{domain}.example mx:m2.{domain}.example {last} -all"),
        ),
        txt(&format!("_dmarc.{domain}.example."), "v=DMARC1; p=reject"),
    ];
    // The record itself and two names of exchangers are three.
    for number in 3..look_ups {
        let of = if number < 13 { "m1" } else { "m2" };
        records.push(format!(
            "{of}.{domain} IN MX 10 h{number}.{domain}\nh{number}.{domain} IN A 192.0.2.1"
        ));
    }
    records
}

#[test]
fn a_record_that_takes_too_many_look_ups_is_wrong_and_passes_nobody() {
    let sink = Sink::smtp();
    let heavy = [
        taking("heavy", 22, "ip4:127.0.0.1"),
        taking("over", 23, "ip4:127.0.0.1"),
        // The next would be asked for a name that does not exist.
        taking("next", 22, "exists:nowhere.example"),
    ];
    let zone = Zone::start(&heavy.concat());
    let gate = gate(&format!("smtp://{}", sink.address), |gate| {
        asks(gate, &zone);
        gate.set(&["outside", "dmarc"], "refuse");
    });
    let send = |author: &str| {
        send_smtp(gate.ready().outside_smtp.unwrap(), author, &[ALICE], &mail_from(author))
    };
    assert_eq!(send("x@heavy.example").code, 250);
    let found = results(&sink.await_received(1)[0].content);
    assert_eq!(found[1], "spf=pass smtp.mailfrom=x@heavy.example");
    for author in ["x@over.example", "x@next.example"] {
        let refused = send(author);
        assert_eq!(refused.status(), "550 5.7.1", "{author}: {refused:?}");
        let is_wrong = |line: &serde_json::Value| {
            line["from"] == author && line["authentication"][0]["result"] == "permerror"
        };
        process::await_that("the error in the log", || gate.log_lines().iter().any(is_wrong));
    }
    assert_eq!(sink.received().len(), 1);
}

/// Each signature of the forger's own domain names the author's as one that lets it sign (RFC 6541), and costs two
/// look-ups: none is left to see that the one in the author's name is false.
#[test]
fn a_forger_whose_signatures_use_up_the_look_ups_is_refused_all_the_same() {
    let new_key = || Ed25519Key::from_pkcs8_der(&Ed25519Key::generate_pkcs8().unwrap()).unwrap();
    let record = |domain: &str, key: &Ed25519Key| {
        let public = base64_simd::STANDARD.encode_to_string(key.public_key());
        txt(&format!("s1._domainkey.{domain}."), &format!("v=DKIM1; k=ed25519; p={public}"))
    };
    let signer = |domain: &str, key| {
        DkimSigner::from_key(key).domain(domain).selector("s1").headers(["From", "Subject"])
    };
    let evil = new_key();
    let mut records = policies();
    records.push(txt("_dmarc.bank.example.", "v=DMARC1; p=reject"));
    records.push(record("bank.example", &new_key()));
    records.push(record("evil.example", &evil));
    let mail = mail_from("ceo@bank.example");
    let own = signer("evil.example", evil).atps("bank.example").sign(&mail).unwrap().to_header();
    let forged = signer("bank.example", new_key()).sign(&mail).unwrap().to_header();

    let sink = Sink::smtp();
    let zone = Zone::start(&records);
    let gate = gate(&format!("smtp://{}", sink.address), |gate| {
        asks(gate, &zone);
        gate.set(&["outside", "dmarc"], "refuse");
    });
    // They are verified from the top. Nobody in the bank's zone lets evil.example sign, which is a permanent error.
    for (count, of_forged) in [(0, "fail"), (5, "fail"), (6, "temperror")] {
        let message = [own.repeat(count).as_bytes(), forged.as_bytes(), &mail].concat();
        let reply = send_smtp(gate.ready().outside_smtp.unwrap(), BOB, &[ALICE], &message);
        assert_eq!(reply.status(), "550 5.7.1", "{count}: {reply:?}");
        assert!(reply.text().contains("bank.example"), "{reply:?}");
        let expected = [vec!["pass"], vec!["permerror"; count], vec![of_forged, "fail"]].concat();
        let is_found = |line: &serde_json::Value| {
            let results = line["authentication"].as_array().into_iter().flatten();
            results.map(|one| &one["result"]).eq(&expected)
        };
        process::await_that(&format!("{expected:?} in the log"), || {
            gate.log_lines().iter().any(is_found)
        });
    }
    assert!(sink.received().is_empty());
}

/// What concerns nobody who could have sent in the author's name cannot make his policy uncertain.
#[test]
fn a_forger_whose_name_server_is_silent_is_refused_all_the_same() {
    let sink = Sink::smtp();
    let zone = Zone::start(&[policies(), vec![txt("evil.example.", "v=spf1 -all")]].concat());
    let of_evil = |answer: &[u8]| {
        let named = answer.windows(5).any(|octets| octets.eq_ignore_ascii_case(b"\x04evil"));
        named.then_some(Trouble::Lost)
    };
    let line = dns_line::lay(zone.address, of_evil);
    let gate = gate(&format!("smtp://{}", sink.address), |gate| {
        asks(gate, &zone);
        gate.set(&["dns", "resolvers"], vec![line.to_string()]);
        gate.set(&["outside", "dmarc"], "refuse");
        gate.set(&["limits", "authentication_secs_max"], 6);
    });
    let key = Ed25519Key::from_pkcs8_der(&Ed25519Key::generate_pkcs8().unwrap()).unwrap();
    let signer = DkimSigner::from_key(key).domain("evil.example").selector("s1").headers(["From"]);
    let signature = signer.sign(&mail_from("ceo@strict.example")).unwrap().to_header();
    for (what, from, author, signatures) in [
        ("SPF", "x@evil.example", "ceo@strict.example", String::new()),
        ("DKIM", BOB, "ceo@strict.example", signature),
        ("no one author", BOB, "ceo@strict.example <bob@abc.example>", String::new()),
    ] {
        let message = [signatures.as_bytes(), &mail_from(author)].concat();
        let reply = send_smtp(gate.ready().outside_smtp.unwrap(), from, &[ALICE], &message);
        assert_eq!(reply.status(), "550 5.7.1", "{what}: {reply:?}");
    }
    assert!(sink.received().is_empty());
}

#[test]
fn mail_does_not_wait_for_a_name_server_that_is_away_or_silent() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nowhere = process::loopback(process::free_port());
    for resolver in [nowhere, silent.local_addr().unwrap()] {
        let sink = Sink::smtp();
        let gate = gate(&format!("smtp://{}", sink.address), |gate| {
            gate.set(&["outside", "authenticate"], true);
            gate.set(&["outside", "dmarc"], "refuse");
            gate.set(&["limits", "authentication_secs_max"], 1);
            gate.set(&["dns", "resolvers"], vec![resolver.to_string()]);
        });
        let mail = mail_from("ceo@strict.example");
        let reply = send_smtp(gate.ready().outside_smtp.unwrap(), BOB, &[ALICE], &mail);
        assert_eq!(reply.code, 250, "{reply:?}");
        let found = results(&sink.await_received(1)[0].content);
        assert!(found[1].starts_with("spf=temperror"), "{found:?}");
        assert_eq!(found[2], "dkim=none");
        assert!(found[3].starts_with("dmarc=temperror"), "{found:?}");
    }
}

/// Makes a gate's own domain sign, and gives the record of its public key.
fn signs(gate: &Gate, algorithm: &str, domain: &str) -> String {
    gate.set(&["dkim", "selector"], "gate");
    gate.set(&["dkim", "key"], "dkim.pem");
    dkimpy::make_key(&gate.dir().join("dkim.pem"), algorithm, "gate", domain)
}

#[test]
fn what_leaves_is_signed_last_and_what_it_broke_is_taken_off() {
    let sink = Sink::smtp();
    let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    gate.generate_key(ALICE, "rsa2048");
    gate.set(&["policy", "encrypt"], "never");
    gate.set(&["outside", "next_hop"], format!("smtp://{}", sink.address));
    let zone = Zone::start(&[signs(&gate, "rsa", "nec.example")]);
    gate.start();
    let message = b"DKIM-Signature: v=1; a=rsa-sha256; d=nec.example; s=mailserver; h=from; bh=; b=old\r\n\
                    DKIM-Signature: v=1; a=rsa-sha256; d=list.example; s=x; h=from; bh=; b=foreign\r\n\
                    From: Alice\r\n <alice@nec.example>\r\nTo: bob@abc.example\r\nSubject:  two  words\r\n\
                    Date: Mon, 23 Nov 2026 09:00:00 +0000\r\n\r\n.dot\r\nlast \r\n\r\n\r\n";
    let reply = send_smtp(gate.ready().inside_smtp.unwrap(), ALICE, &[BOB], message);
    assert_eq!(reply.code, 250, "{reply:?}");
    let sealed = sink.await_received(1)[0].content.clone();
    let text = String::from_utf8_lossy(&sealed).into_owned();
    assert!(
        text.starts_with("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=nec.example;")
    );
    assert!(mail::contains(&sealed, "multipart/signed"), "{text}");
    assert!(!text.contains("b=old") && text.contains("b=foreign"), "{text}");
    assert_eq!(dkimpy::verify(&sealed, &zone), "pass", "{text}");
    let falsified = text.replacen("last", "lost", 1);
    assert_ne!(falsified, text);
    assert_eq!(dkimpy::verify(falsified.as_bytes(), &zone), "fail");
    let added = text.replacen("From: Alice", "Reply-To: evil@x.example\r\nFrom: Alice", 1);
    assert_eq!(dkimpy::verify(added.as_bytes(), &zone), "fail", "an added field");
    // A domain that is not ours is not signed for.
    send_smtp(
        gate.ready().inside_smtp.unwrap(),
        "x@sub.nec.example",
        &[BOB],
        &mail_from("x@sub.nec.example"),
    );
    assert!(!sink.await_received(2)[1].content.starts_with(b"DKIM-Signature"));
}

/// Two gates, one signing with Ed25519 and the other opening: what the one says in DNS the other finds to hold, seals, and dkimpy
/// finds whole.
#[test]
fn what_was_found_before_opening_is_sealed_with_what_came_out() {
    let binary = env!("CARGO_BIN_EXE_sealgate");
    let sink = Sink::smtp();
    let mut sender = Gate::init(binary, &["abc.example"]);
    let mut receiver = Gate::init(binary, &["nec.example"]);
    sender.generate_key(BOB, "rsa2048");
    receiver.generate_key(ALICE, "rsa2048");
    sender.trust(&receiver, &[ALICE]);
    receiver.trust(&sender, &[BOB]);
    let mut records = policies();
    records.push(signs(&sender, "ed25519", "abc.example"));
    records.push(signs(&receiver, "rsa", "nec.example"));
    let zone = Zone::start(&records);
    asks(&receiver, &zone);
    receiver.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
    let outside = receiver.start().outside_smtp.unwrap();
    sender.set(&["outside", "next_hop"], format!("smtp://{outside}"));
    sender.start();
    let reply = send_smtp(sender.ready().inside_smtp.unwrap(), BOB, &[ALICE], MAIL);
    assert_eq!(reply.code, 250, "{reply:?}");
    let opened = sink.await_received(1)[0].content.clone();
    let text = String::from_utf8_lossy(&opened).into_owned();
    let found = results(&opened);
    assert!(found[0].starts_with("smime=pass"), "{found:?}");
    for expected in ["spf=pass", "dkim=pass header.d=abc.example", "dmarc=pass"] {
        assert!(found.iter().any(|one| one.starts_with(expected)), "{expected}: {found:?}");
    }
    let sealed = mail::header(&opened, "ARC-Authentication-Results").expect("an ARC set");
    for expected in ["i=1", "smime=pass", "spf=pass", "dkim=pass", "dmarc=pass"] {
        assert!(sealed.contains(expected), "{sealed}");
    }
    assert_eq!(dkimpy::verify_arc(&opened, &zone), "pass", "{text}");
    let falsified = text.replacen("Subject: hello", "Subject: hallo", 1);
    assert_ne!(dkimpy::verify_arc(falsified.as_bytes(), &zone), "pass");
    // What is not changed is not sealed.
    let plain = send_smtp(outside, BOB, &[ALICE], MAIL);
    assert_eq!(plain.code, 250, "{plain:?}");
    assert_eq!(mail::header(&sink.await_received(2)[1].content, "ARC-Seal"), None);
}

#[test]
fn a_client_that_errs_or_talks_without_end_is_sent_away() {
    let sink = Sink::smtp();
    let gate = gate(&format!("smtp://{}", sink.address), |gate| {
        gate.set(&["limits", "errors_per_session_max"], 3);
        gate.set(&["limits", "commands_per_session_max"], 6);
    });
    let outside = gate.ready().outside_smtp.unwrap();
    for (command, at_limit, count) in [("WHAT", 500, 3), ("NOOP", 250, 6)] {
        let (mut session, _) = Session::connect(outside);
        for _ in 0..count {
            assert_eq!(session.command(command).code, at_limit);
        }
        assert_eq!(session.command(command).status(), "421 4.7.0", "{command}, one over");
        assert!(session.reply_or_end().is_none());
    }
}

#[test]
fn slow_content_is_cut_off_and_steady_content_is_not() {
    let sink = Sink::smtp();
    let gate = gate(&format!("smtp://{}", sink.address), |gate| {
        gate.set(&["limits", "data_grace_secs"], 1);
        gate.set(&["limits", "data_bytes_per_sec_min"], 1000);
    });
    let begin = || {
        let (mut session, _) = Session::connect(gate.ready().outside_smtp.unwrap());
        session.command("EHLO mx.abc.example");
        session.command(&format!("MAIL FROM:<{BOB}>"));
        session.command(&format!("RCPT TO:<{ALICE}>"));
        assert_eq!(session.command("DATA").code, 354);
        session.send(MAIL);
        session
    };
    let started = Instant::now();
    let (mut slow, mut steady) = (begin(), begin());
    let (dribble, stream) = (b"x\r\n", "0123456789abcdef\r\n".repeat(40));
    // Three seconds: the slow one sends a hundred octets of the three thousand.
    for _ in 0..30 {
        slow.send_unless_closed(dribble);
        steady.send(stream.as_bytes());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(slow.reply().status(), "421 4.4.2");
    assert!(started.elapsed() < Duration::from_secs(45), "as slow as the usual grace of a minute");
    assert!(slow.reply_or_end().is_none());
    steady.send(b".\r\n");
    assert_eq!(steady.reply().code, 250);
    assert_eq!(sink.await_received(1).len(), 1);
}

/// What a mailing list sealed is sealed once more by us; what somebody changed after it is sealed as broken.
#[test]
fn a_chain_of_arc_sets_is_continued_with_what_was_found_of_it() {
    let binary = env!("CARGO_BIN_EXE_sealgate");
    let sink = Sink::smtp();
    let sender = Gate::init(binary, &["abc.example"]);
    let mut receiver = Gate::init(binary, &["nec.example"]);
    sender.generate_key(BOB, "rsa2048");
    receiver.generate_key(ALICE, "rsa2048");
    sender.trust(&receiver, &[ALICE]);
    receiver.trust(&sender, &[BOB]);
    let list_key = sender.dir().join("list.pem");
    let zone = Zone::start(&[
        signs(&receiver, "rsa", "nec.example"),
        dkimpy::make_key(&list_key, "rsa", "list", "list.example"),
    ]);
    asks(&receiver, &zone);
    receiver.set(&["inside", "mail_server"], format!("smtp://{}", sink.address));
    let outside = receiver.start().outside_smtp.unwrap();
    let sealed = sender.must(&["seal", "--from", BOB, "--to", ALICE], MAIL);
    let listed = dkimpy::seal_arc(&sealed, "list", "list.example", &list_key);
    assert_eq!(dkimpy::verify_arc(&listed, &zone), "pass");
    let changed = String::from_utf8(listed.clone()).unwrap();
    let changed = changed.replacen("To: alice@nec.example", "To: Alice <alice@nec.example>", 1);
    for (count, (message, state)) in
        [(listed, "pass"), (changed.into_bytes(), "fail")].into_iter().enumerate()
    {
        let reply = send_smtp(outside, BOB, &[ALICE], &message);
        assert_eq!(reply.code, 250, "{reply:?}");
        let opened = sink.await_received(count + 1)[count].content.clone();
        let found = results(&opened);
        assert!(found[0].starts_with("smime=pass"), "{found:?}");
        assert!(found.contains(&format!("arc={state}")), "{found:?}");
        let seal = mail::header(&opened, "ARC-Seal").expect("an ARC set");
        assert!(seal.contains("i=2;") && seal.contains(&format!("cv={state}")), "{seal}");
        let verdict = dkimpy::verify_arc(&opened, &zone);
        assert_eq!(verdict == "pass", state == "pass", "{verdict}");
    }
}

#[test]
fn a_mail_server_is_not_worn_out_by_guesses() {
    let (sink, asked) = counting_sink(Protocol::Smtp, &[("guess", "550 5.1.1 no such mailbox")]);
    let gate = gate(&format!("smtp://{}", sink.address), |_| {});
    let (mut session, _) = Session::connect(gate.ready().outside_smtp.unwrap());
    session.command("EHLO mx.abc.example");
    session.command(&format!("MAIL FROM:<{BOB}>"));
    for number in 0..16 {
        let refused = session.command(&format!("RCPT TO:<guess{number}@nec.example>"));
        assert_eq!(refused.status(), "550 5.1.1");
    }
    assert_eq!(sink.connections(), 2, "eight refusals over one connection");
    session.command("RCPT TO:<guess16@nec.example>");
    assert_eq!((sink.connections(), asked.load(Ordering::SeqCst)), (3, 17));
    for number in 17..21 {
        let refused = session.command(&format!("RCPT TO:<guess{number}@nec.example>"));
        assert_eq!(refused.status(), "550 5.1.1");
    }
    let more = session.command("RCPT TO:<guess21@nec.example>");
    assert_eq!((more.status(), asked.load(Ordering::SeqCst)), ("452 4.5.3".to_owned(), 21));
    session.command("RSET");
    assert_eq!(session.command(&format!("MAIL FROM:<{BOB}>")).status(), "421 4.7.0");
}

/// A session with some of the recipients admitted, up to the reply to its content; and what the others were told.
fn deliver(
    gate: &Gate,
    mail: &str,
    to: &[&str],
) -> (Vec<String>, sealgate_testkit::session::Reply) {
    let (mut session, _) = Session::connect(gate.ready().outside_smtp.unwrap());
    session.command("EHLO mx.abc.example");
    session.command(&format!("MAIL FROM:<{BOB}>{mail}"));
    let told = to.iter().map(|to| session.command(&format!("RCPT TO:<{to}>")).status()).collect();
    assert_eq!(session.command("DATA").code, 354);
    session.content(MAIL);
    (told, session.reply())
}

/// There is one reply for all: who has gone between RCPT and delivery, or is refused at delivery only, takes nobody's mail along.
#[test]
fn a_mailbox_that_is_refused_at_delivery_costs_the_others_a_moment() {
    const GONE: &str = "gone@nec.example";
    for (answer, at_first, then) in [
        ("550 5.1.1 no such mailbox", "451 4.1.1", "550 5.1.1"),
        ("550 5.1.10 RecipientNotFound", "451 4.1.10", "550 5.1.10"),
        ("550 Unrouteable address", "451 4.0.0", "550 5.0.0"),
        ("550 5.2.1 mailbox disabled", "451 4.2.1", "550 5.2.1"),
    ] {
        let count = AtomicUsize::new(0);
        let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
            Stage::Rcpt(line)
                if line.contains(GONE) && count.fetch_add(1, Ordering::SeqCst) == 1 =>
            {
                Some(format!("{answer}\r\n"))
            }
            _ => None,
        });
        let gate = gate(&format!("smtp://{}", sink.address), |_| {});
        let outside = gate.ready().outside_smtp.unwrap();
        let reply = send_smtp(outside, BOB, &[GONE, ALICE], MAIL);
        assert_eq!(reply.status(), at_first, "{reply:?}");
        assert!(reply.text().contains(GONE) && !reply.text().contains(ALICE), "{reply:?}");
        let (told, reply) = deliver(&gate, "", &[GONE, ALICE]);
        assert_eq!(told, [then, "250 2.1.5"]);
        assert_eq!(reply.code, 250, "{reply:?}");
        assert_eq!(sink.received().len(), 1, "once");
    }
}

/// Nobody else's mail waits then.
#[test]
fn who_is_refused_at_delivery_alone_is_refused_at_once() {
    let count = AtomicUsize::new(0);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        // Two questions, then two deliveries.
        Stage::Rcpt(_) if count.fetch_add(1, Ordering::SeqCst) >= 2 => {
            Some("550 5.2.1 mailbox disabled\r\n".to_owned())
        }
        _ => None,
    });
    let gate = gate(&format!("smtp://{}", sink.address), |_| {});
    let reply = send_smtp(gate.ready().outside_smtp.unwrap(), BOB, &["x@nec.example", ALICE], MAIL);
    assert_eq!(reply.status(), "550 5.2.1", "{reply:?}");
    assert_eq!(rcpt(&gate, BOB, ALICE), "550 5.2.1", "asked anew");
}

/// A mail server with quota says no only where it hears of the size.
#[test]
fn a_mailbox_that_is_nearly_full_is_asked_with_the_size() {
    let too_large = AtomicBool::new(false);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        Stage::Hello => Some("250-x\r\n250-PIPELINING\r\n250 SIZE 100000\r\n".to_owned()),
        Stage::Mail(line) => {
            let size = line.split_once("SIZE=").and_then(|(_, size)| size.parse::<usize>().ok());
            too_large.store(size.is_some_and(|size| size > 5000), Ordering::SeqCst);
            None
        }
        Stage::Rcpt(line) => {
            count.fetch_add(1, Ordering::SeqCst);
            let is_full = line.contains("full@") && too_large.load(Ordering::SeqCst);
            is_full.then(|| "552 5.2.2 over quota\r\n".to_owned())
        }
        _ => None,
    });
    let gate = gate(&format!("smtp://{}", sink.address), |_| {});
    let (told, reply) = deliver(&gate, " SIZE=9000", &["full@nec.example", ALICE]);
    assert_eq!(told, ["552 5.2.2", "250 2.1.5"]);
    assert_eq!(reply.code, 250, "{reply:?}");
    let before = asked.load(Ordering::SeqCst);
    let rcpt = |size: usize| {
        let (mut session, _) = Session::connect(gate.ready().outside_smtp.unwrap());
        session.command("EHLO mx.abc.example");
        session.command(&format!("MAIL FROM:<{BOB}> SIZE={size}"));
        session.command("RCPT TO:<full@nec.example>").status()
    };
    // What holds for a size holds for those beyond it, and of others nobody knows.
    for (size, status, questions) in [
        (9001, "552 5.2.2", 0),
        (2000, "250 2.1.5", 1),
        (1000, "250 2.1.5", 1),
        (8000, "552 5.2.2", 2),
        (9000, "552 5.2.2", 2),
        (100_001, "552 5.2.2", 2),
    ] {
        assert_eq!(rcpt(size), status, "{size}");
        assert_eq!(asked.load(Ordering::SeqCst) - before, questions, "{size}");
    }
    // What is delivered may be smaller than what comes: it is looked at then.
    let (mut session, _) = Session::connect(gate.ready().outside_smtp.unwrap());
    session.command("EHLO mx.abc.example");
    session.command(&format!("MAIL FROM:<{BOB}> SIZE=100001"));
    assert_eq!(session.command(&format!("RCPT TO:<{ALICE}>")).status(), "250 2.1.5");
}

/// The reply is for the Internet; and what was heard neither waits for what does not matter, nor gets lost.
#[test]
fn what_the_mail_server_says_is_passed_on_without_its_address() {
    for (at, says, status) in [
        ("rcpt", "550 5.7.1 not you", "550 5.7.1"),
        ("rcpt", "421 4.7.28 you are rate limited", "451 4.7.28"),
        ("dot", "554 5.7.1 not this", "554 5.7.1"),
        ("connect", "554 5.7.1 not here", "451 4.7.1"),
    ] {
        let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
            Stage::Rcpt(_) if at == "rcpt" => Some(format!("{says}\r\n")),
            Stage::Dot(_) if at == "dot" => Some(format!("{says}\r\n")),
            Stage::Connect if at == "connect" => Some(format!("{says}\r\n")),
            // It is slow where nobody waits.
            Stage::Reset if at == "rcpt" => {
                std::thread::sleep(Duration::from_secs(70));
                None
            }
            _ => None,
        });
        let gate = gate(&format!("smtp://{}", sink.address), |_| {});
        let (mut session, _) = Session::connect(gate.ready().outside_smtp.unwrap());
        session.command("EHLO mx.abc.example");
        session.command(&format!("MAIL FROM:<{BOB}>"));
        let mut reply = session.command(&format!("RCPT TO:<{ALICE}>"));
        if at == "dot" {
            session.command("DATA");
            session.content(MAIL);
            reply = session.reply();
        }
        assert_eq!(reply.status(), status, "{reply:?}");
        let (_, words) = says.split_once(' ').unwrap();
        assert!(reply.text().contains(words.split_once(' ').unwrap().1), "{reply:?}");
        let port = sink.address.port().to_string();
        assert!(!reply.text().contains("smtp://") && !reply.text().contains(&port), "{reply:?}");
    }
}
