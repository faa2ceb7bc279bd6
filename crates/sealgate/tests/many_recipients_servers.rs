//! Real mail servers in front of sealgate, over LMTP and SMTP: each recipient of a message with several outcomes is served
//! once, tried again or reported, exactly as it should be, and a relay that is killed costs nobody a message.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sealgate_testkit::exim::Exim;
use sealgate_testkit::gate::Gate;
use sealgate_testkit::opensmtpd::OpenSmtpd;
use sealgate_testkit::postfix::{self, Postfix};
use sealgate_testkit::process::{self, PATIENCE, holds_within};
use sealgate_testkit::session::{Session, send_smtp};
use sealgate_testkit::sink::{Protocol, Sink, Stage};

const ALICE: &str = "alice@nec.example";
/// Nobody is named in it, so that everybody gets a copy, and a delivery, of his own.
const MAIL: &[u8] =
    b"From: alice@nec.example\r\nTo: undisclosed-recipients:;\r\nSubject: plan\r\n\r\nwords\r\n";
const FOUR: [&str; 4] = ["a@a.example", "b@b.example", "c@c.example", "d@d.example"];

/// What stands in front of sealgate.
#[derive(Debug)]
enum MailServer {
    Exim(Exim),
    OpenSmtpd(OpenSmtpd),
    Postfix(Postfix),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Exim,
    OpenSmtpd,
    Postfix,
}

impl MailServer {
    fn start(kind: Kind, home: &Sink, protocol: Protocol, gate: SocketAddr) -> Self {
        let domain = "nec.example";
        match kind {
            Kind::Exim => Self::Exim(Exim::start(domain, home.address, protocol, gate)),
            Kind::OpenSmtpd => {
                Self::OpenSmtpd(OpenSmtpd::start(domain, home.address, protocol, gate))
            }
            Kind::Postfix => Self::Postfix(Postfix::start(&postfix::Settings {
                hostname: "mail.nec.example",
                domains: &[domain],
                mailboxes: Some(home.address),
                next_hop: match protocol {
                    Protocol::Lmtp => format!("lmtp:inet:{gate}"),
                    Protocol::Smtp => format!("smtp:[{}]:{}", gate.ip(), gate.port()),
                },
                more: "",
                more_services: "",
            })),
        }
    }

    fn smtp(&self) -> SocketAddr {
        match self {
            Self::Exim(server) => server.smtp,
            Self::OpenSmtpd(server) => server.smtp,
            Self::Postfix(server) => server.smtp,
        }
    }

    /// Has what waits tried again now; Exim looks every second by itself.
    fn flush(&self) {
        match self {
            Self::Exim(_) => {}
            Self::OpenSmtpd(server) => server.flush(),
            Self::Postfix(server) => server.flush(),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Exim(server) => server.log(),
            Self::OpenSmtpd(server) => server.log(),
            Self::Postfix(server) => server.log(),
        }
    }
}

/// A mail server, a relay without cryptography, and the sinks on both sides.
struct Bed {
    // Dropped from the top: what sends ends before what receives.
    server: MailServer,
    gate: Gate,
    home: Sink,
    outside: Sink,
}

impl Bed {
    fn start(kind: Kind, protocol: Protocol, outside: Sink) -> Self {
        let home = Sink::lmtp();
        let listener = process::loopback(process::free_port());
        let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
        gate.set(&["policy", "sign"], "never");
        gate.set(&["policy", "encrypt"], "never");
        let key = if protocol == Protocol::Lmtp { "lmtp" } else { "smtp" };
        // The same port after a restart.
        gate.set(&["inside", key], listener.to_string());
        gate.set(&["inside", "mail_server"], format!("lmtp://{}", home.address));
        let scheme = outside.protocol().scheme();
        gate.set(&["outside", "next_hop"], format!("{scheme}://{}", outside.address));
        if matches!(kind, Kind::OpenSmtpd) {
            // It takes replies that arrive together for "too much data", and sends again what was accepted.
            gate.set(&["inside", "reply_pause_ms"], 50);
        }
        gate.start();
        let server = MailServer::start(kind, &home, protocol, listener);
        Self { server, gate, home, outside }
    }

    fn send(&self, content: &[u8]) {
        assert_eq!(send_smtp(self.server.smtp(), ALICE, &FOUR, content).code, 250);
    }

    /// How often each of the four has got the message.
    fn counts(&self) -> [usize; 4] {
        let received = self.outside.received();
        let lines: Vec<&String> = received.iter().flat_map(|mail| &mail.recipients).collect();
        FOUR.map(|to| lines.iter().filter(|line| line.contains(&format!("<{to}>"))).count())
    }

    /// The texts of what came home to Alice.
    fn reports(&self) -> Vec<String> {
        let received = self.home.received();
        received.iter().map(|mail| String::from_utf8_lossy(&mail.content).into_owned()).collect()
    }

    fn logs(&self) -> String {
        format!("{}\n{}", self.server.log(), self.gate.log())
    }

    /// Waits until it holds, with the mail server trying again; else panics with the logs.
    fn await_with_retries(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let mut tries = 0;
        let came = holds_within(PATIENCE, || {
            tries += 1;
            if tries % 100 == 0 {
                self.server.flush();
            }
            holds(self)
        });
        let (counts, reports) = (self.counts(), self.reports());
        assert!(came, "{what}: {counts:?} {reports:?}\n{}", self.logs());
    }
}

/// Accepted, put off once, refused for good, accepted.
fn four_outcomes(kind: Kind, protocol: Protocol) {
    let busy = AtomicUsize::new(0);
    let outside = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        Stage::Dot(to) if to.contains("<b@") && busy.fetch_add(1, Ordering::SeqCst) == 0 => {
            Some("450 4.2.1 busy\r\n".to_owned())
        }
        Stage::Dot(to) if to.contains("<c@") => Some("550 5.1.1 gone\r\n".to_owned()),
        _ => None,
    });
    let bed = Bed::start(kind, protocol, outside);
    bed.send(MAIL);
    bed.await_with_retries("all served and Alice told", |bed| {
        bed.counts() == [1, 1, 0, 1] && !bed.reports().is_empty()
    });
    // Whatever would come too often comes with another round of the queue.
    bed.server.flush();
    assert!(
        !holds_within(Duration::from_secs(3), || {
            bed.counts() != [1, 1, 0, 1] || bed.reports().len() != 1
        }),
        "{:?} {:?}\n{}",
        bed.counts(),
        bed.reports(),
        bed.logs()
    );
    let report = &bed.reports()[0];
    assert!(report.contains("c@c.example") && report.contains("gone"), "{report}");
    for other in ["a@a.example", "b@b.example", "d@d.example"] {
        assert!(!report.contains(other), "{other}: {report}");
    }
}

/// A server outside that knows nothing of DSN: it is sealgate who tells, once, those who asked for success.
fn relayed(kind: Kind, protocol: Protocol) {
    let bed = Bed::start(kind, protocol, Sink::without_dsn(Protocol::Smtp));
    let (mut client, _) = Session::connect(bed.server.smtp());
    client.command("EHLO client.example");
    assert_eq!(client.command(&format!("MAIL FROM:<{ALICE}>")).code, 250);
    for (to, notify) in FOUR.iter().zip([" NOTIFY=SUCCESS", "", " NOTIFY=NEVER", ""]) {
        let reply = client.command(&format!("RCPT TO:<{to}>{notify}"));
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    client.command("DATA");
    client.content(MAIL);
    assert_eq!(client.reply().code, 250);
    bed.await_with_retries("all served and Alice told", |bed| {
        bed.counts() == [1; 4] && !bed.reports().is_empty()
    });
    assert!(
        !holds_within(Duration::from_secs(2), || bed.reports().len() != 1),
        "{:?}\n{}",
        bed.reports(),
        bed.logs()
    );
    let report = &bed.reports()[0];
    assert!(
        report.contains("Final-Recipient: rfc822;a@a.example\r\nAction: relayed\r\n"),
        "{report}"
    );
    assert!(FOUR[1..].iter().all(|other| !report.contains(other)), "{report}");
}

/// The relay dies after two of four replies: the other two are tried again, and they alone.
fn killed_after_two_replies(kind: Kind) {
    let dots = Arc::new(AtomicUsize::new(0));
    let alive = Arc::new(AtomicBool::new(false));
    let (asked, restarted) = (Arc::clone(&dots), Arc::clone(&alive));
    // In the order of RCPT, which is the mail server's choice.
    let outside = Sink::scripted(Protocol::Lmtp, move |stage| {
        let dot = matches!(stage, Stage::Dot(_));
        if !dot || asked.fetch_add(1, Ordering::SeqCst) < 2 || restarted.load(Ordering::SeqCst) {
            return None;
        }
        holds_within(PATIENCE, || restarted.load(Ordering::SeqCst));
        Some(String::new())
    });
    let mut bed = Bed::start(kind, Protocol::Lmtp, outside);
    let content = format!("From: {ALICE}\r\nTo: {}\r\n\r\nwords\r\n", FOUR.join(", "));
    bed.send(content.as_bytes());
    bed.await_with_retries("two answers", |_| dots.load(Ordering::SeqCst) > 2);
    // What the sink has said is on its way up, through two processes of this machine.
    thread::sleep(Duration::from_millis(500));
    bed.gate.signal("KILL");
    bed.gate.stop();
    alive.store(true, Ordering::SeqCst);
    bed.gate.start();
    bed.await_with_retries("all served", |bed| bed.counts().iter().all(|count| *count > 0));
    bed.server.flush();
    assert!(
        !holds_within(Duration::from_secs(3), || bed.counts() != [1, 1, 1, 1]),
        "{:?}\n{}",
        bed.counts(),
        bed.logs()
    );
    assert!(bed.reports().is_empty(), "{:?}", bed.reports());
}

#[test]
fn postfix_over_lmtp() {
    four_outcomes(Kind::Postfix, Protocol::Lmtp);
}

#[test]
fn postfix_over_smtp() {
    four_outcomes(Kind::Postfix, Protocol::Smtp);
}

#[test]
fn postfix_and_a_killed_relay() {
    killed_after_two_replies(Kind::Postfix);
}

#[test]
fn exim_over_lmtp() {
    four_outcomes(Kind::Exim, Protocol::Lmtp);
}

#[test]
fn exim_over_smtp() {
    four_outcomes(Kind::Exim, Protocol::Smtp);
}

#[test]
fn exim_and_a_killed_relay() {
    killed_after_two_replies(Kind::Exim);
}

#[test]
fn opensmtpd_over_lmtp() {
    four_outcomes(Kind::OpenSmtpd, Protocol::Lmtp);
}

#[test]
fn opensmtpd_over_smtp() {
    four_outcomes(Kind::OpenSmtpd, Protocol::Smtp);
}

#[test]
fn opensmtpd_and_a_killed_relay() {
    killed_after_two_replies(Kind::OpenSmtpd);
}

#[test]
fn postfix_hears_over_lmtp_of_a_server_that_confirms_nothing() {
    relayed(Kind::Postfix, Protocol::Lmtp);
}

#[test]
fn postfix_hears_over_smtp_of_a_server_that_confirms_nothing() {
    relayed(Kind::Postfix, Protocol::Smtp);
}
