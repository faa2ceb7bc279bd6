//! Postfix, sealgate, a wire, sealgate and Dovecot, and people on both sides.

use std::path::Path;

use sealgate_testkit::dovecot::Dovecot;
use sealgate_testkit::gate::set;
use sealgate_testkit::mail;
use sealgate_testkit::postfix::{Postfix, Settings};
use sealgate_testkit::process::{self, run};
use sealgate_testkit::session::send_smtp;
use sealgate_testkit::wire::Wire;

use super::organisation::{Organisation, Stores};

pub(crate) const ALICE: &str = "alice@nec.example";
pub(crate) const BOB: &str = "bob@nec.example";
pub(crate) const CAROL: &str = "carol@abc.example";
/// Who gets mail that is signed only.
pub(crate) const CLEAR: &str = "clear@abc.example";
pub(crate) const BODY: &[u8] =
    b"Dear Carol,\r\n\r\nthe quarterly turnover is confidential.\r\n..\r\n.dotted line\r\n\
                      From here on nothing else matters.\r\n\r\nRegards, Alice\r\n";

/// One recipient for every order and content encryption: the first sealgate's rules tell them apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    order: &'static str,
    content: &'static str,
}

impl Route {
    pub(crate) const ALL: [Self; 6] = [
        Self { order: "sign-then-encrypt", content: "aes-256-gcm" },
        Self { order: "sign-then-encrypt", content: "aes-256-cbc" },
        Self { order: "triple", content: "aes-256-gcm" },
        Self { order: "triple", content: "aes-256-cbc" },
        Self { order: "encrypt-then-sign", content: "aes-256-gcm" },
        Self { order: "encrypt-then-sign", content: "aes-256-cbc" },
    ];

    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.order, &self.content[8..])
    }

    pub(crate) fn address(self) -> String {
        format!("{}@abc.example", self.name())
    }

    pub(crate) fn has_outer_signature(self) -> bool {
        self.order != "sign-then-encrypt"
    }
}

pub(crate) struct Bed {
    // Dropped from the top: what asks ends before what answers.
    pub(crate) postfix: Postfix,
    pub(crate) first: Organisation,
    pub(crate) wire: Wire,
    pub(crate) second: Organisation,
    pub(crate) inner: Dovecot,
    pub(crate) outer: Dovecot,
    pub(crate) stores: Stores,
}

impl Bed {
    pub(crate) fn start(mut stores: Stores) -> Self {
        let outside: Vec<String> = Route::ALL.map(Route::address).into();
        let mut addresses: Vec<&str> = outside.iter().map(String::as_str).collect();
        addresses.extend([CAROL, CLEAR]);
        let inner = Dovecot::start(&[ALICE, BOB]);
        let outer = Dovecot::start(&addresses);
        let wire = Wire::new();
        let mut first = stores.found("nec.example", &[ALICE]);
        let mut second = stores.found("abc.example", &addresses);
        stores.introduce(&first, &second, &addresses);
        stores.introduce(&second, &first, &[ALICE]);
        first.gate.configure(|config| {
            set(config, &["outside", "next_hop"], format!("smtp://{}", wire.address));
            set(config, &["inside", "mail_server"], format!("lmtp://{}", inner.lmtp));
            set(config, &["rule"], rules());
        });
        second.gate.configure(|config| {
            set(config, &["inside", "mail_server"], format!("lmtp://{}", outer.lmtp));
            set(config, &["outside", "next_hop"], format!("smtp://{}", wire.address));
        });
        wire.lead_to(second.gate.start().outside_smtp.expect("outside-smtp"));
        let lmtp = first.gate.start().inside_lmtp.expect("inside-lmtp");
        let postfix = Postfix::start(&Settings {
            hostname: "mail.nec.example",
            domains: &["nec.example"],
            mailboxes: Some(inner.lmtp),
            next_hop: format!("lmtp:inet:{lmtp}"),
            more: "",
            more_services: "",
        });
        Self { postfix, first, wire, second, inner, outer, stores }
    }

    /// Everything that was logged, for whom a test fails.
    pub(crate) fn logs(&self) -> String {
        [self.postfix.log(), self.first.log(), self.second.log()].join("\n")
    }

    /// Sends with a plain mail client.
    pub(crate) fn swaks(&self, to: &str, subject: &str) {
        let message = mail::message(ALICE, to, subject, &plain_entity());
        let dir = process::open_temp_dir("client");
        let path = dir.path().join("message");
        // swaks ends the last line itself.
        std::fs::write(&path, message.strip_suffix(b"\r\n").unwrap()).unwrap();
        let mut command = std::process::Command::new("swaks");
        command.args(["--server", &self.postfix.smtp.to_string(), "--silent", "2"]);
        command.args(["--from", ALICE, "--to", to, "--data", &data_argument(&path)]);
        run(&mut command, b"").expect_ok("swaks");
    }

    /// Sends an unaltered mail and says how it arrived.
    pub(crate) fn deliver_intact(&self, route: &Route, to: &str) -> String {
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
    pub(crate) fn expect_refusal(&self, to: &str, subject: &str) -> String {
        let message = mail::message(ALICE, to, subject, &plain_entity());
        assert_eq!(send_smtp(self.postfix.smtp, ALICE, &[to], &message).code, 250);
        let mut bounce = None;
        let came = process::holds_within(process::PATIENCE, || {
            bounce = self.bounce(subject);
            bounce.is_some()
        });
        assert!(came, "no bounce for {subject}\n{}", self.logs());
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

pub(crate) fn plain_entity() -> Vec<u8> {
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
    set(&mut rule, &["to"], vec![CLEAR]);
    set(&mut rule, &["encrypt"], "never");
    rules.push(toml::Value::Table(rule));
    toml::Value::Array(rules)
}

/// swaks reads the message from a file named after an @.
fn data_argument(path: &Path) -> String {
    format!("@{}", path.display())
}
