//! Mail to domains of an Internet of the tests' own: a signed DNS with its own root, mail exchangers on port 25 of loopback
//! addresses, policy hosts on port 443, and the real program before them.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "sending_to_the_internet/dane.rs"]
mod dane;
#[path = "sending_to_the_internet/mta_sts.rs"]
mod mta_sts;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sealgate_testkit::exchanger::{Exchanger, Offer, own_address};
use sealgate_testkit::gate::Gate;
use sealgate_testkit::nsd::{Nsd, Zone};
use sealgate_testkit::pki::Pki;
use sealgate_testkit::process;
use sealgate_testkit::session::{Reply, send_smtp};
use sealgate_testkit::tls_session::TlsSession;
use sealgate_testkit::unbound::Unbound;

/// An Internet, and a gate that sends to it.
struct Internet {
    gate: Gate,
    dns: Nsd,
}

impl Internet {
    fn new(pki: &Pki, zones: &[Zone], edit: impl FnOnce(&Gate)) -> Self {
        let dns = Nsd::start(zones);
        Self::asking(dns.address, dns, pki, edit)
    }

    /// With another resolver between the gate and the DNS.
    fn asking(resolver: SocketAddr, dns: Nsd, pki: &Pki, edit: impl FnOnce(&Gate)) -> Self {
        let mut gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
        gate.set(&["hostname"], "gate.nec.example");
        gate.set(&["policy", "sign"], "never");
        gate.set(&["policy", "encrypt"], "never");
        gate.set(&["dns", "resolvers"], vec![resolver.to_string()]);
        gate.set(&["dns", "trust_anchor"], text(&dns.trust_anchor()));
        gate.set(&["outside", "next_hop"], "mx");
        gate.set(&["outside", "ca"], text(&pki.root));
        edit(&gate);
        gate.start();
        Self { gate, dns }
    }

    fn send(&self, to: &str) -> Reply {
        self.send_with(to, "")
    }

    fn send_with(&self, to: &str, header: &str) -> Reply {
        let mail =
            format!("From: alice@nec.example\r\nTo: {to}\r\n{header}Subject: x\r\n\r\nx\r\n");
        let inside = self.gate.ready().inside_smtp.unwrap();
        send_smtp(inside, "alice@nec.example", &[to], mail.as_bytes())
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.gate.ready().observe.unwrap()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// What the log says of how the message with this reply went.
    fn passage(&self, reply: &Reply) -> serde_json::Value {
        let text = reply.text();
        let of_reply = |line: &serde_json::Value| {
            let id = line["id"].as_str().unwrap_or("none");
            line["event"] == "transaction" && text.contains(&format!("(id {id})"))
        };
        let find = || self.gate.log_lines().into_iter().find(of_reply);
        process::await_that("the line in the log", || find().is_some());
        find().unwrap()["passages"][0].clone()
    }
}

/// The extended status and what was taken where nothing should have been.
fn assert_not_sent(reply: &Reply, status: &str, exchangers: &[&Exchanger]) {
    assert_eq!(reply.status(), status, "{reply:?}");
    for exchanger in exchangers {
        assert_eq!(exchanger.taken(), [], "{exchanger:?}");
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Chain and key for a server of this name; the chain holds the authority too.
fn certified(pki: &Pki, name: &str) -> (PathBuf, PathBuf) {
    let names = format!("subjectAltName=DNS:{name}\n");
    let (certificate, key) = pki.issue_for_tls(name, &format!("/CN={name}"), "serverAuth", &names);
    let chain = pki.path(&format!("{name}.chain"));
    let texts = [&certificate, &pki.root].map(|path| fs::read_to_string(path).unwrap());
    fs::write(&chain, texts.concat()).unwrap();
    (chain, key)
}

fn with_tls(files: &(PathBuf, PathBuf)) -> Exchanger {
    Exchanger::start(&Offer { tls: Some(files.clone()), ..Offer::default() })
}

fn plain() -> Exchanger {
    Exchanger::start(&Offer::default())
}

/// TLSA data of the first certificate of a file, as `openssl` makes it; matching type 1 or 2.
fn association(certificate: &Path, selector: u8, matching: u8) -> String {
    let digest = if matching == 2 { "sha512sum" } else { "sha256sum" };
    let der = match selector {
        0 => "openssl x509 -in \"$0\" -outform DER",
        _ => "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform DER",
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{der} | {digest}")).arg(certificate);
    let out = process::run(&mut command, b"").expect_ok("openssl");
    String::from_utf8(out).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn exchangers_are_tried_in_order_and_an_absent_one_is_passed_over() {
    let pki = Pki::new("Internet");
    let (first, second) = (plain(), plain());
    let (nobody, other) = (own_address(), own_address());
    let more: String = (0..10).map(|number| format!("more MX {number} n{number}\n")).collect();
    let zones = [
        Zone::signed(
            "abc.example",
            &format!(
                "@ MX 20 b\n@ MX 10 a\na A {}\nb A {}\nc A {nobody}\n\
                 away MX 10 c\naway MX 20 b\nnone MX 10 c\nold A {}\n\
                 both MX 10 d\nd AAAA 100::1\nd A {}\nlost MX 5 nowhere\nlost MX 10 a\n\
                 gone MX 5 nowhere\ngone MX 10 text\ntext TXT x\nhere MX 0 localhost.\n\
                 half MX 5 nowhere\nhalf MX 10 c\ntorn MX 5 nowhere\ntorn MX 10 mx.broken.example.\n\
                 many MX 1 n1\nmany MX 2 n2\nmany MX 3 n3\nmany MX 4 n4\nmany MX 5 n5\n\
                 many MX 6 n6\nmany MX 7 b\nmore MX 99 a\n{more}\
                 six MX 10 e\ne A {nobody}\ne AAAA ::ffff:{0}\nseven MX 10 f\nf AAAA ::ffff:{0}\n",
                first.address, second.address, second.address, first.address
            ),
        ),
        Zone::signed("null.example", "@ MX 0 .\n"),
        Zone::broken("broken.example"),
        Zone::unsigned("unsigned.example", "gone MX 5 nowhere\n"),
        Zone::signed("cname.example", &format!("@ MX 10 x\nx CNAME y\ny A {other}\n")),
    ];
    let internet = Internet::new(&pki, &zones, |_| {});
    for (to, code, firsts, seconds) in [
        ("bob@abc.example", "250 2.0.0", 1, 0),
        ("bob@away.abc.example", "250 2.0.0", 1, 1),
        ("bob@old.abc.example", "250 2.0.0", 1, 2),
        ("bob@both.abc.example", "250 2.0.0", 2, 2),
        ("bob@lost.abc.example", "250 2.0.0", 3, 2),
        ("bob@six.abc.example", "250 2.0.0", 4, 2),
        ("bob@seven.abc.example", "250 2.0.0", 5, 2),
        ("bob@none.abc.example", "451 4.4.1", 5, 2),
        // For good only where none of them is there, and that is certain.
        ("bob@gone.abc.example", "550 5.4.4", 5, 2),
        ("bob@gone.unsigned.example", "550 5.4.4", 5, 2),
        ("bob@here.abc.example", "550 5.4.4", 5, 2),
        ("bob@half.abc.example", "451 4.4.1", 5, 2),
        ("bob@torn.abc.example", "451 4.4.1", 5, 2),
        // Hosts that are not there take no other one's turn; and who is not looked up may be there.
        ("bob@many.abc.example", "250 2.0.0", 5, 3),
        ("bob@more.abc.example", "451 4.4.1", 5, 3),
        ("bob@localhost", "550 5.1.2", 5, 3),
        ("bob@null.example", "556 5.1.10", 5, 3),
        ("bob@nosuch.abc.example", "550 5.1.2", 5, 3),
        ("bob@broken.example", "451 4.4.3", 5, 3),
        ("bob@cname.example", "451 4.4.1", 5, 3),
    ] {
        let reply = internet.send(to);
        assert_eq!(reply.status(), code, "{to}: {reply:?}\n{}", internet.gate.log());
        assert_eq!((first.taken().len(), second.taken().len()), (firsts, seconds), "{to}");
    }
}

#[test]
fn where_one_exchanger_does_not_take_a_message_the_next_may() {
    let pki = Pki::new("Internet");
    let who_says = |answer_to_mail| {
        Exchanger::start(&Offer { answer_to_mail: Some(answer_to_mail), ..Offer::default() })
    };
    let (busy, closing) = (who_says("451 4.3.2 not now"), who_says("421 4.3.2 going down"));
    let no = who_says("550 5.7.1 never");
    let tiny = Exchanger::start(&Offer { size_max: Some(10), ..Offer::default() });
    let (good, nobody) = (plain(), own_address());
    let mut records = format!("nobody A {nobody}\n");
    for (name, exchanger) in
        [("busy", &busy), ("closing", &closing), ("no", &no), ("tiny", &tiny), ("good", &good)]
    {
        let address = exchanger.address;
        records.push_str(&format!(
            "{name} A {address}\n{name}-good MX 10 {name}\n{name}-good MX 20 good\n\
             {name}-tiny MX 10 {name}\n{name}-tiny MX 20 tiny\n\
             {name}-nobody MX 10 {name}\n{name}-nobody MX 20 nobody\n\
             {name}-both A {address}\n{name}-both AAAA ::ffff:{}\n",
            good.address
        ));
    }
    let internet = Internet::new(&pki, &[Zone::signed("abc.example", &records)], |_| {});
    for (name, status, taken) in [
        ("busy-good", "250 2.0.0", 1),
        ("closing-good", "250 2.0.0", 2),
        ("tiny-good", "250 2.0.0", 3),
        // Over the connection that was kept, and anew.
        ("tiny-good", "250 2.0.0", 4),
        // Who says never means it.
        ("no-good", "550 5.7.1", 4),
        // The last answer that there was; for good only where everybody said so.
        ("busy-nobody", "451 4.3.2", 4),
        ("busy-tiny", "451 4.3.2", 4),
        ("tiny-nobody", "451 4.4.1", 4),
        ("tiny-tiny", "552 5.3.4", 4),
        // The next address of the same host.
        ("busy-both", "250 2.0.0", 5),
        ("closing-both", "250 2.0.0", 6),
        ("tiny-both", "250 2.0.0", 7),
        ("no-both", "550 5.7.1", 7),
    ] {
        let reply = internet.send(&format!("bob@{name}.abc.example"));
        assert_eq!(reply.status(), status, "{name}: {reply:?}\n{}", internet.gate.log());
        assert_eq!(good.taken().len(), taken, "{name}");
    }
}

#[test]
fn an_exchanger_that_greets_and_falls_silent_keeps_no_mail_from_the_next() {
    let pki = Pki::new("Internet");
    let silent = Exchanger::start(&Offer { answer_to_mail: Some(""), ..Offer::default() });
    let good = plain();
    let records = format!(
        "silent A {}\ngood A {}\nboth MX 10 silent\nboth MX 20 good\nalone MX 10 silent\n\
         two A {0}\ntwo AAAA ::ffff:{1}\n",
        silent.address, good.address
    );
    let internet = Internet::new(&pki, &[Zone::signed("abc.example", &records)], |gate| {
        gate.set(&["limits", "delivery_secs_max"], 8);
    });
    let reply = internet.send("bob@both.abc.example");
    assert_eq!(reply.status(), "250 2.0.0", "{reply:?}\n{}", internet.gate.log());
    assert_eq!(good.taken().len(), 1);
    assert_eq!(internet.send("bob@two.abc.example").status(), "250 2.0.0", "its other address");
    // Without another one there is all the time that there is.
    assert_eq!(internet.send("bob@alone.abc.example").status(), "451 4.4.7");
}

/// Of a name with two addresses one may be out of reach, and a server that answers is at work.
#[test]
fn an_exchanger_that_looks_for_a_mailbox_for_long_is_waited_for() {
    let pki = Pki::new("Internet");
    let offer = Offer { rcpt_pause: Duration::from_secs(4), ..Offer::default() };
    let slow = Exchanger::start(&offer);
    let records = format!("two A {}\ntwo AAAA ::ffff:{}\n", slow.address, own_address());
    let internet = Internet::new(&pki, &[Zone::signed("abc.example", &records)], |gate| {
        gate.set(&["limits", "delivery_secs_max"], 6);
    });
    // Over a new connection, and over the one that was kept.
    for taken in 1..=2 {
        let reply = internet.send("bob@two.abc.example");
        assert_eq!(reply.status(), "250 2.0.0", "{reply:?}\n{}", internet.gate.log());
        assert_eq!(slow.taken().len(), taken);
    }
}

#[test]
fn aliases_are_followed_by_their_own_proof_and_everything_ends_somewhere() {
    let pki = Pki::new("Internet");
    let good = plain();
    let mut records =
        format!("@ MX 10 mx\nmx A {0}\nplain A {0}\nalias CNAME plain\n", good.address);
    // The ninth is one too many (REQUIREMENTS K13).
    for number in 1..=9 {
        let target = number - 1;
        records.push_str(&format!("c{number} CNAME c{target}\n"));
    }
    records.push_str("c0 MX 10 mx\n");
    // Twelve thousand octets over TCP, and twenty-four.
    for (name, count) in [("long", 600), ("longer", 1200)] {
        records.push_str(&format!("{name} MX 10 mx\n"));
        (0..count).for_each(|host| records.push_str(&format!("{name} MX 20 m{host}\n")));
    }
    let abroad = "alias CNAME plain.abc.example.\n";
    let zones = [
        Zone::signed("abc.example", &records),
        Zone::hashed("def.example", &records),
        Zone::signed("ghi.example", abroad),
    ];
    let internet = Internet::new(&pki, &zones, |_| {});
    for (to, code) in [
        // There is no MX record where the alias leads to, and that is proven for the target.
        ("bob@alias.abc.example", 250),
        ("bob@alias.def.example", 250),
        ("bob@alias.ghi.example", 250),
        ("bob@c8.abc.example", 250),
        ("bob@c9.abc.example", 451),
        ("bob@c8.def.example", 250),
        ("bob@c9.def.example", 451),
        ("bob@long.abc.example", 250),
        ("bob@longer.abc.example", 451),
    ] {
        let reply = internet.send(to);
        assert_eq!(reply.code, code, "{to}: {reply:?}\n{}", internet.gate.log());
    }
}

#[test]
fn policy_demands_tls_for_a_destination() {
    let pki = Pki::new("Internet");
    let other = Pki::new("Other");
    let stripped = plain();
    let encrypted = with_tls(&certified(&other, "mx.any.example"));
    let verified = with_tls(&certified(&pki, "verified.example"));
    let any = format!(
        "stripped MX 10 a\na A {}\nencrypted MX 10 b\nb A {}\n",
        stripped.address, encrypted.address
    );
    let own = format!("@ MX 10 mx\nmx A {}\n", verified.address);
    let zones = [Zone::unsigned("any.example", &any), Zone::unsigned("verified.example", &own)];
    let internet = Internet::new(&pki, &zones, |gate| {
        gate.set(&["policy", "tls"], "require");
        gate.configure(|config| {
            let rule = |to: &str, tls: &str| {
                let mut rule = toml::Table::new();
                rule.insert("to".to_owned(), vec![to].into());
                rule.insert("tls".to_owned(), tls.into());
                toml::Value::from(rule)
            };
            let rules = vec![
                rule("sure@encrypted.any.example", "verify"),
                rule("*@verified.example", "verify"),
                rule("any@stripped.any.example", "opportunistic"),
            ];
            config.insert("rule".to_owned(), rules.into());
        });
    });
    assert_not_sent(&internet.send("bob@stripped.any.example"), "451 4.7.4", &[&stripped]);
    assert_not_sent(&internet.send("sure@encrypted.any.example"), "451 4.7.5", &[&encrypted]);
    let reply = internet.send("bob@encrypted.any.example");
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(internet.passage(&reply)["tls"]["verified"], "none");
    let reply = internet.send("any@stripped.any.example");
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(internet.passage(&reply)["tls"], serde_json::Value::Null);
    // The name of the exchanger is out of an unsigned answer; that of the domain is the recipient's.
    let reply = internet.send("bob@verified.example");
    assert_eq!(reply.code, 250, "{reply:?}\n{}", internet.gate.log());
    assert_eq!(internet.passage(&reply)["tls"]["verified"], "certificate");
}

/// A message that requires TLS all the way (RFC 8689).
fn send_requiring_tls(internet: &Internet, authority: &Path, to: &str) -> Reply {
    let inside = internet.gate.ready().inside_smtp.unwrap();
    let mut client = TlsSession::connect(inside, "gate.nec.example", authority);
    let hello = client.command("EHLO client.example");
    assert!(hello.lines.iter().any(|line| line == "REQUIRETLS"), "{hello:?}");
    let reply = client.command("MAIL FROM:<alice@nec.example> REQUIRETLS");
    assert_eq!(reply.code, 250, "{reply:?}");
    let reply = client.command(&format!("RCPT TO:<{to}>"));
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(client.command("DATA").code, 354);
    client.send(&format!(
        "From: alice@nec.example\r\nTo: {to}\r\nTLS-Required: No\r\n\r\nx\r\n.\r\n"
    ));
    client.reply()
}

#[test]
fn mail_that_requires_tls_goes_verified_ways_only() {
    let pki = Pki::new("Internet");
    let willing = |name: &str| {
        let tls = Some(certified(&pki, name));
        Exchanger::start(&Offer { tls, requiretls: true, ..Offer::default() })
    };
    // By its TLSA record, by the recipient's domain, and by the name out of a signed answer.
    let (dane, domain, signed) =
        (willing("else.example"), willing("domain.example"), willing("mx.signed.example"));
    // The name out of an unsigned answer proves nothing; this one does not know what is asked; that one has no TLS.
    let (unproven, unable) =
        (willing("mx.unproven.example"), with_tls(&certified(&pki, "unable.example")));
    let stripped = plain();
    let digest = association(&pki.path("else.example.chain"), 1, 1);
    let mx = |exchanger: &Exchanger| format!("@ MX 10 mx\nmx A {}\n", exchanger.address);
    let zones = [
        Zone::signed("dane.example", &format!("{}_25._tcp.mx TLSA 3 1 1 {digest}\n", mx(&dane))),
        Zone::unsigned("domain.example", &mx(&domain)),
        Zone::signed("signed.example", &mx(&signed)),
        Zone::unsigned("unproven.example", &mx(&unproven)),
        Zone::unsigned("unable.example", &mx(&unable)),
        Zone::unsigned("stripped.example", &mx(&stripped)),
    ];
    let own = certified(&pki, "gate.nec.example");
    let internet = Internet::new(&pki, &zones, |gate| {
        let table = [("certificate", text(&own.0)), ("key", text(&own.1))];
        let table = table.map(|(key, value)| (key.to_owned(), value.into()));
        gate.set(&["tls"], toml::Table::from_iter(table));
    });
    for (name, exchanger) in [("dane", &dane), ("domain", &domain), ("signed", &signed)] {
        let reply = send_requiring_tls(&internet, &pki.root, &format!("bob@{name}.example"));
        assert_eq!(reply.code, 250, "{name}: {reply:?}\n{}", internet.gate.log());
        let taken = exchanger.taken();
        assert!(taken[0].tls, "{name}");
        assert!(taken[0].mail.ends_with(" REQUIRETLS"), "{taken:?}");
    }
    for (name, exchanger) in [("unproven", &unproven), ("unable", &unable), ("stripped", &stripped)]
    {
        let reply = send_requiring_tls(&internet, &pki.root, &format!("bob@{name}.example"));
        assert_not_sent(&reply, "550 5.7.30", &[exchanger]);
        let reply = internet.send(&format!("bob@{name}.example"));
        assert_eq!(reply.code, 250, "{name}: without the demand it goes: {reply:?}");
    }
}

#[test]
fn resolvers_that_do_not_pass_on_signatures_are_told_of() {
    let pki = Pki::new("Internet");
    let internet = Internet::new(&pki, &[], |_| {});
    let ran = internet.gate.run(&["check"], b"");
    assert!(!String::from_utf8_lossy(&ran.stdout).contains("DNSSEC"), "{ran:?}");
    // Another root's key: the same as a resolver that strips signatures.
    let other = Nsd::start(&[]);
    internet.gate.set(&["dns", "trust_anchor"], text(&other.trust_anchor()));
    let ran = internet.gate.run(&["check"], b"");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("DNSSEC"), "{ran:?}");
    internet.gate.set(&["dns", "trust_anchor"], "nothing.key");
    let ran = internet.gate.run(&["check"], b"");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("nothing.key"), "{ran:?}");
}

#[test]
fn a_recursive_resolver_between_changes_nothing() {
    let pki = Pki::new("Internet");
    let alien = certified(&pki, "elsewhere.example");
    let server = with_tls(&alien);
    let digest = association(&alien.0, 1, 1);
    let records = format!(
        "@ MX 10 mx\nmx A {}\n_25._tcp.mx TLSA 3 1 1 {digest}\n* MX 10 mx\nsame CNAME @\n\
         mixed MX 10 mixed-host\nmixed-host CNAME mx.three.example.\n",
        server.address
    );
    for is_validating in [true, false] {
        let dns = Nsd::start(&[
            Zone::signed("one.example", &records),
            Zone::hashed("two.example", &records),
            Zone::unsigned("three.example", &records),
            Zone::unsigned("far.four.example", &records),
            Zone::falsified("forged.example", &records, "10 mx.", "11 mx."),
        ]);
        let resolver = Unbound::start(&dns, is_validating);
        let internet = Internet::asking(resolver.address, dns, &pki, |_| {});
        for (domain, verified) in [
            ("one.example", "dane"),
            ("two.example", "dane"),
            ("some.one.example", "dane"),
            ("some.two.example", "dane"),
            ("same.one.example", "dane"),
            ("mixed.one.example", "none"),
            ("three.example", "none"),
            ("far.four.example", "none"),
        ] {
            let reply = internet.send(&format!("bob@{domain}"));
            assert_eq!(reply.code, 250, "{domain}: {reply:?}\n{}", internet.gate.log());
            assert_eq!(internet.passage(&reply)["tls"]["verified"], verified, "{domain}");
        }
        let taken = server.taken().len();
        let reply = internet.send("bob@forged.example");
        let status = if is_validating { "451 4.4.3" } else { "451 4.7.5" };
        assert_eq!(reply.status(), status, "{reply:?}");
        assert_eq!(internet.send("bob@nosuch.example").status(), "550 5.1.2");
        assert_eq!(server.taken().len(), taken);
    }
}

#[test]
fn a_fixed_next_hop_proves_its_name_where_policy_demands_it() {
    let pki = Pki::new("Internet");
    let (good, wrong) = (
        with_tls(&certified(&pki, "relay.out.example")),
        with_tls(&certified(&pki, "else.example")),
    );
    let zone = format!("relay A {}\nwrong A {}\n", good.address, wrong.address);
    let mut internet = Internet::new(&pki, &[Zone::unsigned("out.example", &zone)], |gate| {
        gate.set(&["policy", "tls"], "verify");
        gate.set(&["outside", "next_hop"], "smtp://relay.out.example");
    });
    let reply = internet.send("bob@abc.example");
    assert_eq!(reply.code, 250, "{reply:?}\n{}", internet.gate.log());
    assert_eq!(internet.passage(&reply)["tls"]["verified"], "certificate");
    internet.gate.stop();
    internet.gate.set(&["outside", "next_hop"], "smtp://wrong.out.example");
    internet.gate.start();
    assert_not_sent(&internet.send("bob@abc.example"), "451 4.7.5", &[&wrong]);
}

#[test]
fn without_validation_nothing_is_proven_by_dns() {
    let pki = Pki::new("Internet");
    let alien = certified(&pki, "elsewhere.example");
    let server = with_tls(&alien);
    let records =
        format!("@ MX 10 mx\nmx A {}\n_25._tcp.mx TLSA 3 1 1 {}\n", server.address, "0".repeat(64));
    let zones = [
        Zone::signed("one.example", &records),
        Zone::falsified("forged.example", &records, "10 mx.", "11 mx."),
    ];
    let internet = Internet::new(&pki, &zones, |gate| {
        gate.configure(|config| {
            let dns = config["dns"].as_table_mut().unwrap();
            dns.remove("trust_anchor");
            dns.insert("dnssec".to_owned(), "off".into());
        });
    });
    for domain in ["one.example", "forged.example"] {
        let reply = internet.send(&format!("bob@{domain}"));
        assert_eq!(reply.code, 250, "{domain}: {reply:?}");
        assert_eq!(internet.passage(&reply)["dnssec"], false);
    }
}
