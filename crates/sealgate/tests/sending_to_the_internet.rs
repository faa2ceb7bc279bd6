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

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use sealgate_testkit::exchanger::{Exchanger, Offer, PolicyHost, own_address};
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
    _dns: Nsd,
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
        Self { gate, _dns: dns }
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
    Exchanger::start(&Offer { tls: Some(files.clone()), requiretls: false })
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
    let zones = [
        Zone::signed(
            "abc.example",
            &format!(
                "@ MX 20 b\n@ MX 10 a\na A {}\nb A {}\nc A {nobody}\n\
                 away MX 10 c\naway MX 20 b\nnone MX 10 c\nold A {}\n\
                 both MX 10 d\nd AAAA 100::1\nd A {}\nlost MX 5 nowhere\nlost MX 10 a\n\
                 six MX 10 e\ne A {nobody}\ne AAAA ::ffff:{0}\nseven MX 10 f\nf AAAA ::ffff:{0}\n",
                first.address, second.address, second.address, first.address
            ),
        ),
        Zone::signed("null.example", "@ MX 0 .\n"),
        Zone::broken("broken.example"),
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
        ("bob@null.example", "556 5.1.10", 5, 2),
        ("bob@nosuch.abc.example", "550 5.1.2", 5, 2),
        ("bob@broken.example", "451 4.4.3", 5, 2),
        ("bob@cname.example", "451 4.4.1", 5, 2),
    ] {
        let reply = internet.send(to);
        assert_eq!(reply.status(), code, "{to}: {reply:?}\n{}", internet.gate.log());
        assert_eq!((first.taken().len(), second.taken().len()), (firsts, seconds), "{to}");
    }
}

/// A zone whose names `NAME` have an exchanger `mx-NAME` with a TLSA record.
fn dane_zone(names: &[(&str, &Exchanger, String)]) -> Zone {
    let of = |(name, exchanger, record): &(&str, &Exchanger, String)| {
        let host = format!("mx-{name}");
        let address = exchanger.address;
        format!("{name} MX 10 {host}\n{host} A {address}\n_25._tcp.{host} TLSA {record}\n")
    };
    Zone::signed("dane.example", &names.iter().map(of).collect::<String>())
}

#[test]
fn who_matches_his_tlsa_records_gets_mail() {
    let pki = Pki::new("Internet");
    let other = Pki::new("Other");
    // Nobody verifies the certificate but by its TLSA record: another authority's, and another name.
    let alien = certified(&other, "elsewhere.example");
    let [ee, full] = [(); 2].map(|()| with_tls(&alien));
    // The authority, with the name of the domain: what an exchanger that serves many may have (RFC 7672 §3.2.2).
    let ta = with_tls(&certified(&pki, "ta.dane.example"));
    let key = association(&alien.0, 1, 1);
    let zeros = "0".repeat(64);
    let more = format!(
        "3 1 1 {key}\nalias MX 10 mx-alias\nmx-alias CNAME mx-ee\n\
         elsewhere MX 10 mx-elsewhere\nmx-elsewhere A {0}\n\
         _25._tcp.mx-elsewhere CNAME _dane\n_dane TLSA 3 1 1 {key}\n\
         two MX 10 mx-two\nmx-two A {0}\n\
         _25._tcp.mx-two TLSA 3 1 1 {zeros}\n_25._tcp.mx-two TLSA 3 1 1 {key}",
        ee.address
    );
    let zone = dane_zone(&[
        // Beside it aliases of host and records, and the record of the key before the last beside the right one.
        ("ee", &ee, more),
        ("full", &full, format!("3 0 2 {}", association(&alien.0, 0, 2))),
        ("ta", &ta, format!("2 0 1 {}", association(&pki.root, 0, 1))),
    ]);
    let internet = Internet::new(&pki, &[zone], |_| {});
    for name in ["ee", "ta", "full", "alias", "elsewhere", "two"] {
        let reply = internet.send(&format!("bob@{name}.dane.example"));
        assert_eq!(reply.code, 250, "{name}: {reply:?}\n{}", internet.gate.log());
        let passage = internet.passage(&reply);
        assert_eq!(passage["tls"]["verified"], "dane", "{name}");
        assert_eq!(passage["dnssec"], true);
        assert_eq!(passage["tls"]["version"], "TLSv1_3");
    }
    // The server is asked for by the name that the records were found at.
    let asked_for: Vec<String> = ee.taken().into_iter().map(|one| one.asked_for.unwrap()).collect();
    let hosts = ["mx-ee", "mx-ee", "mx-elsewhere", "mx-two"];
    assert_eq!(asked_for, hosts.map(|host| format!("{host}.dane.example")));
    let metrics = internet.metrics();
    assert!(metrics.contains("sealgate_tls_sessions_total{verified=\"dane\"} 6"), "{metrics}");
}

#[test]
fn who_does_not_match_his_tlsa_records_gets_none() {
    let pki = Pki::new("Internet");
    let other = Pki::new("Other");
    let good = certified(&pki, "mx.dane.example");
    let alien = certified(&other, "elsewhere.example");
    let [key, anchor, misnamed] = [&good, &good, &alien].map(with_tls);
    let stripped = plain();
    let of_alien = format!("3 1 1 {}", association(&alien.0, 1, 1));
    let of_other = format!("2 1 1 {}", association(&other.root, 1, 1));
    let zone = dane_zone(&[
        ("key", &key, of_alien.clone()),
        ("anchor", &anchor, of_other.clone()),
        ("misnamed", &misnamed, of_other),
        ("stripped", &stripped, of_alien),
    ]);
    let internet = Internet::new(&pki, &[zone], |_| {});
    for (name, status, exchanger) in [
        ("key", "451 4.7.5", &key),
        ("anchor", "451 4.7.5", &anchor),
        ("misnamed", "451 4.7.5", &misnamed),
        ("stripped", "451 4.7.4", &stripped),
    ] {
        let reply = internet.send(&format!("bob@{name}.dane.example"));
        assert_not_sent(&reply, status, &[exchanger]);
    }
    // Counted by the words of RFC 8460 §4.3.
    let metrics = internet.metrics();
    for (kind, count) in [
        ("starttls-not-supported", 1),
        ("certificate-not-trusted", 2),
        ("certificate-host-mismatch", 1),
    ] {
        let line = format!("sealgate_tls_failures_total{{type=\"{kind}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[test]
fn unusable_records_and_the_senders_wish_lower_what_dane_demands() {
    let pki = Pki::new("Internet");
    let alien = certified(&pki, "elsewhere.example");
    let digest = association(&alien.0, 1, 1);
    let (unusable, stripped, wrong) = (with_tls(&alien), plain(), with_tls(&alien));
    let zone = format!(
        "unusable MX 10 a\na A {}\n_25._tcp.a TLSA 1 1 1 {digest}\n\
         stripped MX 10 b\nb A {}\n_25._tcp.b TLSA 1 1 1 {digest}\n\
         wrong MX 10 c\nc A {}\n_25._tcp.c TLSA 3 1 1 {}\n",
        unusable.address,
        stripped.address,
        wrong.address,
        "0".repeat(64)
    );
    let internet = Internet::new(&pki, &[Zone::signed("dane.example", &zone)], |_| {});
    // Records that cannot be used demand TLS and no more (RFC 7672 §2.2).
    let reply = internet.send("bob@unusable.dane.example");
    assert_eq!(reply.code, 250, "{reply:?}");
    assert!(unusable.taken()[0].tls);
    assert_eq!(internet.passage(&reply)["tls"]["verified"], "none");
    assert_not_sent(&internet.send("bob@stripped.dane.example"), "451 4.7.4", &[&stripped]);
    // The sender who would rather have it delivered gets that (RFC 8689 §5).
    assert_not_sent(&internet.send("bob@wrong.dane.example"), "451 4.7.5", &[&wrong]);
    let reply = internet.send_with("bob@wrong.dane.example", "TLS-Required: No\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    assert!(wrong.taken()[0].content.contains("TLS-Required: No\r\n"));
    let twice = "TLS-Required: No\r\nTLS-Required: No\r\n";
    assert_eq!(internet.send_with("bob@wrong.dane.example", twice).code, 550);
}

#[test]
fn signed_zones_of_every_make_are_believed() {
    let pki = Pki::new("Internet");
    let alien = certified(&pki, "elsewhere.example");
    let server = with_tls(&alien);
    let digest = association(&alien.0, 1, 1);
    let records = format!(
        "@ MX 10 mx\nmx A {0}\n_25._tcp.mx TLSA 3 1 1 {digest}\n* MX 10 mx\n\
         here A {0}\n_25._tcp.here TLSA 3 1 1 {digest}\n",
        server.address
    );
    let abroad = "far MX 10 mx.three.example.\nmixed MX 10 mixed-host\n\
                  mixed-host CNAME mx.three.example.\nsame CNAME one.example.\n\
                  other CNAME two.example.\n";
    let zones = [
        Zone::signed("one.example", &format!("{records}{abroad}")),
        Zone::hashed("two.example", &records),
        Zone::signed("a.two.example", &records),
        Zone::unsigned("three.example", &format!("{records}back MX 10 mx.one.example.\n")),
        Zone::unsigned("a.one.example", &records),
        Zone::signed("four.example", &format!("* A {}\n", server.address)),
        Zone::hashed("five.example", &format!("* A {}\n", server.address)),
    ];
    let internet = Internet::new(&pki, &zones, |_| {});
    for (domain, verified) in [
        ("one.example", "dane"),
        ("two.example", "dane"),
        ("a.two.example", "dane"),
        // Out of a wildcard, and without MX records.
        ("some.one.example", "dane"),
        ("some.two.example", "dane"),
        ("here.one.example", "dane"),
        ("here.two.example", "dane"),
        // Neither MX nor TLSA records: wildcards without what is asked for.
        ("some.four.example", "none"),
        ("some.five.example", "none"),
        ("three.example", "none"),
        ("a.one.example", "none"),
        ("some.three.example", "none"),
        // Exchangers and aliases in other zones.
        ("same.one.example", "dane"),
        ("other.one.example", "dane"),
        ("far.one.example", "none"),
        ("mixed.one.example", "none"),
        ("back.three.example", "none"),
        ("here.three.example", "none"),
    ] {
        let reply = internet.send(&format!("bob@{domain}"));
        assert_eq!(reply.code, 250, "{domain}: {reply:?}\n{}", internet.gate.log());
        assert_eq!(internet.passage(&reply)["tls"]["verified"], verified, "{domain}");
    }
    for domain in ["nosuch.example", "mx.nosuch.example"] {
        let reply = internet.send(&format!("bob@{domain}"));
        assert_eq!(reply.status(), "550 5.1.2", "{domain}: {reply:?}");
    }
}

#[test]
fn what_ought_to_be_signed_and_is_not_is_not_acted_upon() {
    let pki = Pki::new("Internet");
    let alien = certified(&pki, "elsewhere.example");
    let servers: Vec<Exchanger> = (0..4).map(|_| with_tls(&alien)).collect();
    let at = |index: usize| servers[index].address;
    let digest = association(&alien.0, 1, 1);
    let tlsa = format!("_25._tcp.mx TLSA 3 1 1 {digest}\n");
    let zones = [
        // Who can forge answers sends the mail to himself.
        Zone::falsified(
            "mxforged.example",
            &format!("@ MX 10 mx\nmx A {}\n", at(0)),
            "10 mx.",
            "11 mx.",
        ),
        Zone::falsified(
            "tlsaforged.example",
            &format!("@ MX 10 mx\nmx A {}\n{tlsa}", at(1)),
            &digest,
            &"0".repeat(64),
        ),
        // An island without a bridge: its TLSA records are nobody's word, and wrong on purpose.
        Zone::unsigned(
            "insecure.example",
            &format!("@ MX 10 mx\nmx A {}\n_25._tcp.mx TLSA 3 1 1 {}\n", at(2), "0".repeat(64)),
        ),
        Zone::falsified(
            "aforged.example",
            &format!("@ MX 10 mx\nmx A {}\n", at(3)),
            &at(3).to_string(),
            &at(0).to_string(),
        ),
    ];
    let internet = Internet::new(&pki, &zones, |_| {});
    for name in ["mxforged", "tlsaforged", "aforged"] {
        let reply = internet.send(&format!("bob@{name}.example"));
        assert_eq!(reply.status(), "451 4.7.5", "{name}: {reply:?}");
        assert!(servers.iter().all(|server| server.taken().is_empty()), "{name}");
    }
    let reply = internet.send("bob@insecure.example");
    assert_eq!(reply.code, 250, "{reply:?}");
    let passage = internet.passage(&reply);
    assert_eq!(passage["dnssec"], false);
    assert_eq!(passage["tls"]["verified"], "none");
}

const TESTING: &str =
    "version: STSv1\r\nmode: testing\r\nmx: good.sts.example\r\nmax_age: 86400\r\n";

#[test]
fn an_mta_sts_policy_decides_whom_mail_goes_to() {
    let pki = Pki::new("Internet");
    let enforce =
        TESTING.replace("testing", "enforce").replace("mx: ", "mx: *.strict.example\r\nmx: ");
    let good = with_tls(&certified(&pki, "good.sts.example"));
    let wrong = with_tls(&certified(&pki, "else.sts.example"));
    let stripped = plain();
    let domains = ["one", "two", "three", "four", "test", "away", "bad"];
    let host_names: Vec<String> =
        domains.iter().map(|name| format!("DNS:mta-sts.{name}.example")).collect();
    let (chain, key) = {
        let names = format!("subjectAltName={}\n", host_names.join(","));
        pki.issue_for_tls("policy", "/CN=policy", "serverAuth", &names)
    };
    let policy = PolicyHost::start(&chain, &key, &enforce);
    let testing = PolicyHost::start(&chain, &key, TESTING);
    let redirect = PolicyHost::start(&chain, &key, "");
    redirect
        .answer_with("HTTP/1.1 302 Found\r\nLocation: https://else/\r\nContent-Length: 0\r\n\r\n");
    let unsigned = |name: &str, mx: &str, host: &PolicyHost| {
        let records =
            format!("@ MX 10 {mx}.\n_mta-sts TXT \"v=STSv1; id=1;\"\nmta-sts A {}\n", host.address);
        Zone::unsigned(&format!("{name}.example"), &records)
    };
    let exchangers = format!("good A {}\nunlisted A {}\n", good.address, good.address);
    let strict = format!("wrong A {}\nstripped A {}\n", wrong.address, stripped.address);
    let zones = [
        Zone::unsigned("sts.example", &exchangers),
        Zone::unsigned("strict.example", &strict),
        unsigned("one", "good.sts.example", &policy),
        unsigned("two", "wrong.strict.example", &policy),
        unsigned("three", "stripped.strict.example", &policy),
        unsigned("four", "unlisted.sts.example", &policy),
        unsigned("test", "unlisted.sts.example", &testing),
        unsigned("bad", "unlisted.sts.example", &redirect),
    ];
    let internet = Internet::new(&pki, &zones, |_| {});
    let reply = internet.send("bob@one.example");
    assert_eq!(reply.code, 250, "{reply:?}\n{}", internet.gate.log());
    assert_eq!(internet.passage(&reply)["tls"]["verified"], "mta-sts");
    assert_eq!(good.taken().len(), 1);
    let both = [&wrong, &stripped];
    assert_not_sent(&internet.send("bob@two.example"), "451 4.7.5", &both);
    assert_not_sent(&internet.send("bob@three.example"), "451 4.7.4", &both);
    assert_not_sent(&internet.send("bob@four.example"), "451 4.7.5", &both);
    // What was learned holds while the host is away.
    policy.set_away(true);
    assert_eq!(internet.send("bob@one.example").code, 250);
    assert_not_sent(&internet.send("bob@two.example"), "451 4.7.5", &both);
    assert_eq!(good.taken().len(), 2);
    // Testing only tells; a redirect is no policy.
    for domain in ["test", "bad"] {
        let reply = internet.send(&format!("bob@{domain}.example"));
        assert_eq!(reply.code, 250, "{domain}: {reply:?}");
        assert_eq!(internet.passage(&reply)["tls"]["verified"], "none");
    }
    assert_eq!(good.taken().len(), 4);
    // The sender who would rather have it delivered gets that (RFC 8689 §5).
    let reply = internet.send_with("bob@two.example", "TLS-Required: No\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(wrong.taken().len(), 1);
}

#[test]
fn in_testing_mode_a_policy_is_judged_and_mail_delivered() {
    let (pki, other) = (Pki::new("Internet"), Pki::new("Other"));
    let servers = [
        ("good", with_tls(&certified(&pki, "good.test.example"))),
        ("misnamed", with_tls(&certified(&pki, "else.test.example"))),
        ("alien", with_tls(&certified(&other, "alien.test.example"))),
        ("stripped", plain()),
        ("unlisted", with_tls(&certified(&pki, "unlisted.test.example"))),
    ];
    let names: Vec<String> =
        servers.iter().map(|(name, _)| format!("DNS:mta-sts.{name}.example")).collect();
    let names = format!("subjectAltName={}\n", names.join(","));
    let (chain, key) = pki.issue_for_tls("policy", "/CN=policy", "serverAuth", &names);
    let listed = ["good", "misnamed", "alien", "stripped"]
        .map(|name| format!("mx: {name}.test.example\r\n"));
    let policy = TESTING.replace("mx: good.sts.example\r\n", &listed.concat());
    let policy = PolicyHost::start(&chain, &key, &policy);
    let of = |(name, _): &(&str, Exchanger)| {
        let records = format!(
            "@ MX 10 {name}.test.example.\n_mta-sts TXT \"v=STSv1; id=1;\"\nmta-sts A {}\n",
            policy.address
        );
        Zone::unsigned(&format!("{name}.example"), &records)
    };
    let hosts = servers.iter().map(|(name, server)| format!("{name} A {}\n", server.address));
    let mut zones = vec![Zone::unsigned("test.example", &hosts.collect::<String>())];
    zones.extend(servers.iter().map(of));
    let internet = Internet::new(&pki, &zones, |_| {});
    for (name, server) in &servers {
        let expected = match *name {
            "good" => "pass",
            "misnamed" => "certificate-host-mismatch",
            "alien" => "certificate-not-trusted",
            "stripped" => "starttls-not-supported",
            _ => "sts-mx-mismatch",
        };
        // The second goes over the same connection, and is told of too.
        for count in [1, 2] {
            let reply = internet.send(&format!("bob@{name}.example"));
            assert_eq!(reply.code, 250, "{name}: {reply:?}\n{}", internet.gate.log());
            assert_eq!(server.taken().len(), count, "{name}");
            let passage = internet.passage(&reply);
            assert_eq!(passage["mta_sts_testing"], expected, "{name}");
            // Nothing was demanded.
            assert!(matches!(passage["tls"]["verified"].as_str(), None | Some("none")), "{name}");
        }
        if expected != "pass" {
            let line = format!("sealgate_tls_failures_total{{type=\"sts-testing-{expected}\"}} 1");
            assert!(internet.metrics().contains(&line), "{line}: {}", internet.metrics());
        }
    }
    assert!(internet.gate.log().contains("MTA-STS, testing"), "{}", internet.gate.log());
}

#[test]
fn only_a_proper_policy_from_a_proven_host_is_taken() {
    let pki = Pki::new("Internet");
    let other = Pki::new("Other");
    let server = plain();
    let enforce = TESTING.replace("testing", "enforce");
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n";
    let chunks: Vec<String> = enforce
        .split_inclusive('\n')
        .map(|line| format!("{:x}\r\n{line}\r\n", line.len()))
        .collect();
    let whole =
        |head: &str, body: &str| format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let html = ok.replace("text/plain", "text/html");
    let cases = [
        ("good", true, whole(ok, &enforce)),
        (
            "chunked",
            true,
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.concat()),
        ),
        ("endless", false, whole(ok, &format!("{enforce}{}", "x: y\r\n".repeat(20_000)))),
        ("html", false, whole(&html, &enforce)),
        ("gone", false, whole("HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n", &enforce)),
        ("alien", false, whole(ok, &enforce)),
        ("misnamed", false, whole(ok, &enforce)),
    ];
    let hosts: Vec<PolicyHost> = cases
        .iter()
        .map(|(name, _, response)| {
            let authority = if *name == "alien" { &other } else { &pki };
            let of = if *name == "misnamed" { "good" } else { name };
            let (chain, key) = certified(authority, &format!("mta-sts.{of}.example"));
            let host = PolicyHost::start(&chain, &key, "");
            host.answer_with(response);
            host
        })
        .collect();
    let zone = |(name, host): (&str, &PolicyHost)| {
        let (mx, at) = (server.address, host.address);
        let records =
            format!("@ MX 10 mx\nmx A {mx}\n_mta-sts TXT \"v=STSv1; id=1;\"\nmta-sts A {at}\n");
        Zone::unsigned(&format!("{name}.example"), &records)
    };
    let zones: Vec<Zone> = cases.iter().map(|case| case.0).zip(&hosts).map(zone).collect();
    let internet = Internet::new(&pki, &zones, |_| {});
    for (name, taken, _) in &cases {
        // The exchanger is none of the policy's: where that is taken, nothing goes there.
        let reply = internet.send(&format!("bob@{name}.example"));
        let code = if *taken { 451 } else { 250 };
        assert_eq!(reply.code, code, "{name}: {reply:?}\n{}", internet.gate.log());
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
        Exchanger::start(&Offer { tls, requiretls: true })
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
