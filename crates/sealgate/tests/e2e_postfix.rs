//! The real thing: Postfix of one organisation, two sealgates with a wire between them that can falsify, and the
//! Dovecot of another organisation, from which plain clients fetch.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::path::Path;

use sealgate_testkit::cms::{self, Target};
use sealgate_testkit::dovecot::Dovecot;
use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::mail;
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::process::{self, run};
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::wire::Wire;

const ALICE: &str = "alice@nec.example";
const BODY: &[u8] =
    b"Dear Carol,\r\n\r\nthe quarterly turnover is confidential.\r\n..\r\n.dotted line\r\n\
                      From here on nothing else matters.\r\n\r\nRegards, Alice\r\n";
const WORDS: [&str; 5] = ["Dear", "quarterly", "turnover", "confidential", "Regards"];

/// A plain client's mail arrives whole at plain clients, and nobody on the way reads it.
#[test]
fn mail_leaves_sealed_and_arrives_opened() {
    let bed = Bed::start();
    let carol = Route::ALL[0].address();
    bed.swaks(&carol, "the-real-thing");
    let received = bed.outer.await_mail(&carol, 1);
    assert_eq!(bed.outer.imap_mail(&carol), received, "POP3 and IMAP clients see the same");
    let entity = mail::signed_part(&received[0]);
    assert_eq!(mail::decoded_content(entity), BODY);
    assert_eq!(mail::header(&received[0], "Subject").as_deref(), Some("the-real-thing"));
    let results = mail::header(&received[0], "Authentication-Results").unwrap_or_default();
    assert!(results.contains("smime=pass"), "{results:?}");

    let messages = bed.wire.messages();
    assert_eq!(messages.len(), 1, "one copy on the wire");
    let recorded = bed.wire.recorded();
    let decoded = mail::decoded_body(&messages[0]);
    for word in WORDS {
        assert!(!mail::contains(&recorded, word), "{word} is on the wire");
        assert!(!mail::contains(&decoded, word), "{word} is in the CMS on the wire");
    }
}

/// Mail between two people of the first organisation never reaches sealgate.
#[test]
fn inside_mail_stays_inside() {
    let bed = Bed::start();
    let before = bed.first.log();
    let message = mail::message(ALICE, "bob@nec.example", "inside", &plain_entity());
    assert_eq!(send_smtp(bed.postfix.smtp, ALICE, &["bob@nec.example"], &message).code, 250);
    let received = bed.inner.await_mail("bob@nec.example", 1);
    assert_eq!(mail::body(&received[0]), BODY);
    assert_eq!(bed.first.log(), before, "sealgate saw something");
    assert!(bed.wire.recorded().is_empty());
}

/// Every order and cipher delivers, and one flipped bit anywhere is refused and bounced with 5.7.7.
#[test]
fn falsified_mail_is_refused_and_bounced() {
    let bed = Bed::start();
    let mut rows = Vec::new();
    for route in Route::ALL {
        let to = route.address();
        let mut cells = vec![bed.deliver_intact(&route, &to)];
        for target in [Target::EncryptedContent, Target::EncryptedKey, Target::Signature] {
            if target == Target::Signature && !route.has_outer_signature() {
                cells.push("no outer signature".to_owned());
                continue;
            }
            bed.wire.alter(move |message| cms::falsified(message, target));
            cells.push(bed.expect_refusal(&to, &format!("{}-{target:?}", route.name())));
            bed.wire.leave();
        }
        let mailbox = bed.outer.pop3_mail(&to).len();
        assert_eq!(mailbox, 1, "{}: only the intact copy arrives", route.name());
        rows.push((route.name(), cells));
    }
    println!("{:28} {:22} encrypted content  encrypted key  outer signature", "", "intact");
    for (name, cells) in &rows {
        println!("{name:28} {}", cells.join("  "));
    }
    for (name, cells) in &rows {
        // A signature around the encryption alone says nothing about who wrote what is inside.
        let outside_only = name == "encrypt-then-sign-gcm";
        let verdict = if outside_only { "none" } else { "pass" };
        assert_eq!(cells[0], format!("delivered smime={verdict}"), "{name}");
        for cell in &cells[1..] {
            assert!(["550 5.7.7", "no outer signature"].contains(&cell.as_str()), "{name}: {cell}");
        }
    }
}

/// One letter changed in a clear-signed mail is a falsification too.
#[test]
fn a_changed_letter_in_clear_signed_mail_is_refused() {
    let bed = Bed::start();
    let to = "clear@abc.example";
    let message = mail::message(ALICE, to, "clear-intact", &plain_entity());
    assert_eq!(send_smtp(bed.postfix.smtp, ALICE, &[to], &message).code, 250);
    let received = bed.outer.await_mail(to, 1);
    assert_eq!(mail::decoded_content(mail::signed_part(&received[0])), BODY);
    assert!(mail::contains(&bed.wire.messages()[0], "turnover"), "signed only, not encrypted");
    bed.wire.alter(|message| {
        let at = mail::find(message, b"turnover").unwrap();
        let mut out = message.to_vec();
        out[at] = b'T';
        out
    });
    assert_eq!(bed.expect_refusal(to, "clear-changed"), "550 5.7.7");
    assert_eq!(bed.outer.pop3_mail(to).len(), 1);
}

/// One recipient for every order and content encryption: the first sealgate's rules tell them apart.
#[derive(Clone, Copy, Debug)]
struct Route {
    order: &'static str,
    content: &'static str,
}

impl Route {
    const ALL: [Self; 6] = [
        Self { order: "sign-then-encrypt", content: "aes-256-gcm" },
        Self { order: "sign-then-encrypt", content: "aes-256-cbc" },
        Self { order: "triple", content: "aes-256-gcm" },
        Self { order: "triple", content: "aes-256-cbc" },
        Self { order: "encrypt-then-sign", content: "aes-256-gcm" },
        Self { order: "encrypt-then-sign", content: "aes-256-cbc" },
    ];

    fn name(self) -> String {
        format!("{}-{}", self.order, &self.content[8..])
    }

    fn address(self) -> String {
        format!("{}@abc.example", self.name())
    }

    fn has_outer_signature(self) -> bool {
        self.order != "sign-then-encrypt"
    }
}

struct Bed {
    // Dropped from the top: what sends ends before what receives.
    postfix: Postfix,
    first: Gate,
    wire: Wire,
    second: Gate,
    inner: Dovecot,
    outer: Dovecot,
}

impl Bed {
    fn start() -> Self {
        let binary = env!("CARGO_BIN_EXE_sealgate");
        let outside: Vec<String> = Route::ALL.map(Route::address).into();
        let mut addresses: Vec<&str> = outside.iter().map(String::as_str).collect();
        addresses.push("clear@abc.example");
        let inner = Dovecot::start(&[ALICE, "bob@nec.example"]);
        let outer = Dovecot::start(&addresses);
        let wire = Wire::new();
        let mut first = Gate::init(binary, &["nec.example"]);
        let mut second = Gate::init(binary, &["abc.example"]);
        first.generate_key(ALICE, "rsa2048");
        for address in &addresses {
            second.generate_key(address, "rsa2048");
        }
        first.trust(&second, &addresses);
        second.trust(&first, &[ALICE]);
        first.configure(|config| {
            set(config, &["outside", "next_hop"], format!("smtp://{}", wire.address));
            set(config, &["inside", "mail_server"], format!("lmtp://{}", inner.lmtp));
            set(config, &["rule"], rules());
        });
        second.configure(|config| {
            set(config, &["inside", "mail_server"], format!("lmtp://{}", outer.lmtp));
            set(config, &["outside", "next_hop"], format!("smtp://{}", wire.address));
        });
        wire.lead_to(second.start().outside_smtp.expect("outside-smtp"));
        let lmtp = first.start().inside_lmtp.expect("inside-lmtp");
        let postfix = Postfix::start(&Settings {
            hostname: "mail.nec.example",
            domains: &["nec.example"],
            mailboxes: Some(inner.lmtp),
            next_hop: format!("lmtp:inet:{lmtp}"),
            more: "",
            more_services: "",
        });
        Self { postfix, first, wire, second, inner, outer }
    }

    /// Sends with a plain mail client.
    fn swaks(&self, to: &str, subject: &str) {
        let message = mail::message(ALICE, to, subject, &plain_entity());
        let dir = tempfile_dir();
        let path = dir.path().join("message");
        // swaks ends the last line itself.
        std::fs::write(&path, message.strip_suffix(b"\r\n").unwrap()).unwrap();
        let mut command = std::process::Command::new("swaks");
        command.args(["--server", &self.postfix.smtp.to_string(), "--silent", "2"]);
        command.args(["--from", ALICE, "--to", to, "--data", &data_argument(&path)]);
        run(&mut command, b"").expect_ok("swaks");
    }

    /// Sends an unaltered mail and says how it arrived.
    fn deliver_intact(&self, route: &Route, to: &str) -> String {
        let message =
            mail::message(ALICE, to, &format!("{}-intact", route.name()), &plain_entity());
        assert_eq!(send_smtp(self.postfix.smtp, ALICE, &[to], &message).code, 250);
        let mut received = Vec::new();
        let bounced = format!("{}-intact", route.name());
        process::await_that(&format!("{bounced} arrives or is bounced"), || {
            received = self.outer.pop3_mail(to);
            !received.is_empty() || self.bounce(&bounced).is_some()
        });
        let Some(received) = received.first() else {
            return format!("bounced {}", self.bounce(&bounced).unwrap());
        };
        assert_eq!(mail::decoded_content(mail::signed_part(received)), BODY, "{}", route.name());
        let results = mail::header(received, "Authentication-Results").unwrap_or_default();
        let verdict = results.split_whitespace().find(|word| word.starts_with("smime="));
        format!("delivered {}", verdict.unwrap_or("without a verdict"))
    }

    /// Sends a mail that the wire falsifies and gives the status in the bounce that Alice gets.
    fn expect_refusal(&self, to: &str, subject: &str) -> String {
        let message = mail::message(ALICE, to, subject, &plain_entity());
        assert_eq!(send_smtp(self.postfix.smtp, ALICE, &[to], &message).code, 250);
        let mut bounce = None;
        let came = process::holds_within(process::PATIENCE, || {
            bounce = self.bounce(subject);
            bounce.is_some()
        });
        assert!(
            came,
            "no bounce for {subject}\n{}\n{}\n{}",
            self.postfix.log(),
            self.first.log(),
            self.second.log()
        );
        bounce.unwrap()
    }

    /// Reply code and status of the bounce in Alice's mailbox for the mail with this subject.
    fn bounce(&self, subject: &str) -> Option<String> {
        let bounces = self.inner.pop3_mail(ALICE);
        let subject = format!("Subject: {subject}\r\n");
        let bounce = bounces.iter().find(|bounce| mail::contains(bounce, &subject))?;
        let text = String::from_utf8_lossy(bounce).into_owned();
        let field = |name: &str| {
            text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let status = field("Status:").unwrap_or_default();
        let diagnostic = field("Diagnostic-Code: smtp;").unwrap_or_default();
        let code = diagnostic.split(' ').next().unwrap_or_default();
        Some(format!("{code} {status}"))
    }
}

fn plain_entity() -> Vec<u8> {
    [b"Content-Type: text/plain; charset=us-ascii\r\n\r\n", BODY].concat()
}

/// One rule a route, and one for clear-signed mail.
fn rules() -> toml::Value {
    let mut rules = Vec::new();
    for route in Route::ALL {
        let mut rule = toml::Table::new();
        set(&mut rule, &["to"], vec![route.address()]);
        set(&mut rule, &["order"], route.order);
        set(&mut rule, &["content"], route.content);
        rules.push(toml::Value::Table(rule));
    }
    let mut rule = toml::Table::new();
    set(&mut rule, &["to"], vec!["clear@abc.example"]);
    set(&mut rule, &["encrypt"], "never");
    rules.push(toml::Value::Table(rule));
    toml::Value::Array(rules)
}

fn tempfile_dir() -> tempfile::TempDir {
    process::open_temp_dir("client")
}

/// swaks reads the message from a file named after an @.
fn data_argument(path: &Path) -> String {
    format!("@{}", path.display())
}
