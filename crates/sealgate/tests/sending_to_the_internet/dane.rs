//! DANE (RFC 7672): who matches his TLSA records gets mail, and nobody else where they are signed.

use sealgate_testkit::exchanger::Exchanger;
use sealgate_testkit::nsd::Zone;
use sealgate_testkit::pki::Pki;

use crate::{Internet, assert_not_sent, association, certified, plain, with_tls};

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
    let beside = with_tls(&certified(&pki, "beside.dane.example"));
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
        // One that can be used beside one that cannot.
        (
            "beside",
            &beside,
            format!(
                "2 0 0 {NO_CERTIFICATE}\n_25._tcp.mx-beside TLSA 2 1 1 {}",
                association(&pki.root, 1, 1)
            ),
        ),
    ]);
    let internet = Internet::new(&pki, &[zone], |_| {});
    for name in ["ee", "ta", "full", "alias", "elsewhere", "two", "beside"] {
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
    assert!(metrics.contains("sealgate_tls_sessions_total{verified=\"dane\"} 7"), "{metrics}");
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
    let malformed = with_tls(&alien);
    let zone = format!(
        "unusable MX 10 a\na A {}\n_25._tcp.a TLSA 1 1 1 {digest}\n\
         stripped MX 10 b\nb A {}\n_25._tcp.b TLSA 1 1 1 {digest}\n\
         wrong MX 10 c\nc A {}\n_25._tcp.c TLSA 3 1 1 {}\n\
         malformed MX 10 d\nd A {}\n_25._tcp.d TLSA 2 0 0 {NO_CERTIFICATE}\n",
        unusable.address,
        stripped.address,
        wrong.address,
        "0".repeat(64),
        malformed.address
    );
    let internet = Internet::new(&pki, &[Zone::signed("dane.example", &zone)], |_| {});
    // Records that cannot be used demand TLS and no more (RFC 7672 §2.2).
    for (name, exchanger) in [("unusable", &unusable), ("malformed", &malformed)] {
        let reply = internet.send(&format!("bob@{name}.dane.example"));
        assert_eq!(reply.code, 250, "{name}: {reply:?}");
        assert!(exchanger.taken()[0].tls, "{name}");
        assert_eq!(internet.passage(&reply)["tls"]["verified"], "none", "{name}");
    }
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
        // What is between them and the zone above is there for their sake only, so that opt-out leaves that out too.
        Zone::unsigned("far.six.example", &records),
        Zone::unsigned("farther.away.seven.example", &records),
        // Here it is there for another's sake.
        Zone::unsigned("far.eight.example", &records),
        Zone::signed("near.eight.example", &records),
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
        ("far.six.example", "none"),
        ("some.far.six.example", "none"),
        ("farther.away.seven.example", "none"),
        ("far.eight.example", "none"),
        ("near.eight.example", "dane"),
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

/// An ASN.1 sequence that is no certificate.
const NO_CERTIFICATE: &str = "3003020101";
