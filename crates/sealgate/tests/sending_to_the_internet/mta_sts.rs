//! MTA-STS (RFC 8461): policies in force, in testing mode, and such as are none.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealgate_testkit::exchanger::{Exchanger, PolicyHost, own_address};
use sealgate_testkit::nsd::{Nsd, Zone};
use sealgate_testkit::pki::Pki;

use crate::{Internet, assert_not_sent, certified, plain, with_tls};

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
fn a_policy_is_fetched_from_any_address_of_its_host() {
    let (pki, other) = (Pki::new("Internet"), Pki::new("Other"));
    let good = with_tls(&certified(&pki, "good.sts.example"));
    let names = "subjectAltName=DNS:mta-sts.tls.example,DNS:mta-sts.families.example,DNS:mta-sts.slow.example\n";
    let issue = |pki: &Pki| pki.issue_for_tls("policy", "/CN=policy", "serverAuth", names);
    let enforce = TESTING.replace("testing", "enforce");
    let [policy, alien] = [&pki, &other].map(|pki| {
        let (chain, key) = issue(pki);
        PolicyHost::start(&chain, &key, &enforce)
    });
    let (chain, key) = issue(&pki);
    let slow = PolicyHost::start_slow(&chain, &key, &enforce, Duration::from_secs(6));
    let zone_with = |last: Ipv4Addr, name: &str, hosts: &str| {
        let records = format!(
            "@ MX 10 good.sts.example.\n_mta-sts TXT \"v=STSv1; id=1;\"\n{hosts}\
             mta-sts AAAA ::ffff:{last}\n"
        );
        Zone::unsigned(&format!("{name}.example"), &records)
    };
    let zone = |name: &str, hosts: &str| zone_with(policy.address, name, hosts);
    let nobody: String = (0..4).map(|_| format!("mta-sts A {}\n", own_address())).collect();
    let zones = [
        Zone::unsigned("sts.example", &format!("good A {}\n", good.address)),
        // The first one is there and proves nothing.
        zone("tls", &format!("mta-sts A {}\n", alien.address)),
        // As many as are tried, of the other family.
        zone("families", &nobody),
        // It has its share of the time, and there is nobody else.
        zone_with(own_address(), "slow", &format!("mta-sts A {}\n", slow.address)),
    ];
    let internet = Internet::new(&pki, &zones, |_| {});
    for domain in ["tls", "families", "slow"] {
        let reply = internet.send(&format!("bob@{domain}.example"));
        assert_eq!(reply.code, 250, "{domain}: {reply:?}\n{}", internet.gate.log());
        assert_eq!(internet.passage(&reply)["tls"]["verified"], "mta-sts", "{domain}");
    }
}

#[test]
fn in_testing_mode_a_policy_is_judged_and_mail_delivered() {
    let (pki, other) = (Pki::new("Internet"), Pki::new("Other"));
    // It has an extension that nobody knows and everybody must.
    let extension = "1.3.6.1.4.1.99999=critical,DER:05:00\n";
    let odd = pki.issue_for_tls("odd", "/CN=odd.test.example", "serverAuth", extension);
    let servers = [
        ("good", with_tls(&certified(&pki, "good.test.example"))),
        ("misnamed", with_tls(&certified(&pki, "else.test.example"))),
        ("alien", with_tls(&certified(&other, "alien.test.example"))),
        ("stripped", plain()),
        ("odd", with_tls(&odd)),
        ("unlisted", with_tls(&certified(&pki, "unlisted.test.example"))),
    ];
    let names: Vec<String> =
        servers.iter().map(|(name, _)| format!("DNS:mta-sts.{name}.example")).collect();
    let names = format!("subjectAltName={}\n", names.join(","));
    let (chain, key) = pki.issue_for_tls("policy", "/CN=policy", "serverAuth", &names);
    let listed = ["good", "misnamed", "alien", "stripped", "odd"]
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
            "alien" | "odd" => "certificate-not-trusted",
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
            // Nothing was demanded, and nothing left away that goes without a policy.
            assert_eq!(passage["tls"].is_null(), *name == "stripped", "{name}: {passage}");
            assert!(matches!(passage["tls"]["verified"].as_str(), None | Some("none")), "{name}");
        }
        if expected != "pass" {
            // The odd one's is the alien one's as well.
            let count = if *name == "odd" { 2 } else { 1 };
            let line =
                format!("sealgate_tls_failures_total{{type=\"sts-testing-{expected}\"}} {count}");
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

/// Domains with an exchanger `mx` and a policy host of their own each.
fn sts_zone(domain: &str, exchanger: &Exchanger, host: &PolicyHost) -> Zone {
    let records = format!(
        "@ MX 10 mx\nmx A {}\n_mta-sts TXT \"v=STSv1; id=1;\"\nmta-sts A {}\n",
        exchanger.address, host.address
    );
    Zone::unsigned(domain, &records)
}

fn enforced(mx: &str, max_age_secs: u64) -> String {
    format!("version: STSv1\r\nmode: enforce\r\nmx: {mx}\r\nmax_age: {max_age_secs}\r\n")
}

#[test]
fn a_policy_is_renewed_though_its_record_is_suppressed() {
    const MAX_AGE_SECS: u64 = 24;
    let pki = Pki::new("Internet");
    let [(renewed, new_host), (kept, away_host)] =
        ["renewed.example", "kept.example"].map(|name| {
            let (chain, key) = certified(&pki, &format!("mta-sts.{name}"));
            let mx = format!("mx.{name}");
            let server = with_tls(&certified(&pki, &mx));
            (server, PolicyHost::start(&chain, &key, &enforced(&mx, MAX_AGE_SECS)))
        });
    let zones = [
        sts_zone("renewed.example", &renewed, &new_host),
        sts_zone("kept.example", &kept, &away_host),
    ];
    let dns = Nsd::start_with_ttl(&zones, 1);
    let mut internet = Internet::asking(dns.address, dns, &pki, |_| {});
    let verified = |internet: &Internet, name: &str| {
        let reply = internet.send(&format!("bob@{name}"));
        assert_eq!(reply.code, 250, "{name}: {reply:?}\n{}", internet.gate.log());
        assert_eq!(internet.passage(&reply)["tls"]["verified"], "mta-sts", "{name}");
    };
    verified(&internet, "renewed.example");
    verified(&internet, "kept.example");
    let learned = Instant::now();
    internet.dns.take_out("_mta-sts");
    new_host.publish(&enforced("another.example", 86_400));
    away_host.set_away(true);
    sleep(Duration::from_secs(MAX_AGE_SECS / 2 + 1).saturating_sub(learned.elapsed()));
    // The old one is in force until the new one is there, and no mail waits for that.
    verified(&internet, "renewed.example");
    verified(&internet, "kept.example");
    let told = || {
        let log = internet.gate.log();
        log.lines().filter(|line| line.contains("not to be had") && line.contains("kept")).count()
    };
    sealgate_testkit::process::await_that("the warning", || told() == 1);
    verified(&internet, "kept.example");
    assert_eq!(told(), 1, "it is not asked for again at once");
    sleep(Duration::from_secs(MAX_AGE_SECS).saturating_sub(learned.elapsed()));
    assert_not_sent(&internet.send("bob@renewed.example"), "451 4.7.5", &[]);
    // One that could not be renewed is over with its time.
    let reply = internet.send("bob@kept.example");
    assert_eq!(internet.passage(&reply)["tls"]["verified"], "none", "{reply:?}");
}

/// Who suppresses the record and takes STARTTLS out of the way gets nothing in plain, however often the relay is started.
#[test]
fn a_policy_survives_restarts_and_crashes() {
    let pki = Pki::new("Internet");
    let (chain, key) = certified(&pki, "mta-sts.one.example");
    let host = PolicyHost::start(&chain, &key, &enforced("mx.one.example", 86_400));
    let stripped = plain();
    let dns = Nsd::start_with_ttl(&[sts_zone("one.example", &stripped, &host)], 1);
    let mut internet = Internet::asking(dns.address, dns, &pki, |_| {});
    assert_not_sent(&internet.send("bob@one.example"), "451 4.7.4", &[&stripped]);
    internet.dns.take_out("_mta-sts");
    host.set_away(true);
    assert!(internet.gate.stop().success());
    internet.gate.start();
    assert_not_sent(&internet.send("bob@one.example"), "451 4.7.4", &[&stripped]);
    internet.gate.signal("KILL");
    internet.gate.stop();
    internet.gate.start();
    assert_not_sent(&internet.send("bob@one.example"), "451 4.7.4", &[&stripped]);
}
