//! Connections to servers that will not have them, or whose TLS does not work.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;

use super::*;
use crate::config::{Dns, Resolvers};
use crate::relay::hops::Hops;
use crate::relay::route::{Guard, Router, fixed};
use crate::relay::transport::Demand;

/// So many connections to each hop, and no DNS.
pub(crate) fn downstream(connections_max: usize) -> Downstream {
    let resolvers = Resolvers::Servers(Vec::new());
    let dns = Dns { resolvers, dnssec: false, trust_anchor: None };
    let router = Router::new(&dns, None, "gate.nec.example").unwrap();
    Downstream::new(router, "gate.nec.example".to_owned(), Hops::new(connections_max))
}

/// The hop to a server on this host.
pub(crate) fn hop(address: SocketAddr, demand: Demand) -> Hop {
    fixed(&format!("smtp://{address}").parse().unwrap(), demand)
}

/// A server that answers each line by a function, with the line ends; where that says nothing, or it hears no text, it closes.
pub(crate) fn answering(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut say =
                    |text: &str| !text.is_empty() && stream.write_all(text.as_bytes()).is_ok();
                if say("220 mx.abc.example\r\n") {
                    lines.map_while(Result::ok).all(|line| say(&answer(&line)));
                }
            });
        }
    });
    address
}

/// A server that offers an extension and speaks no TLS: after STARTTLS it says this and closes. And what it heard.
fn without_tls(offer: &'static str, says: &'static str) -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&heard);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut say = |text: &str| stream.write_all(text.as_bytes()).is_ok();
            say("220 mx.abc.example\r\n");
            for line in lines.map_while(Result::ok) {
                told.lock().unwrap().push_str(&format!("{line}\n"));
                if line == "STARTTLS" {
                    say(says);
                    break;
                }
                say(&format!("250-mx.abc.example\r\n250 {offer}\r\n"));
            }
        }
    });
    (address, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_demands_tls_waits_where_it_is_broken_and_gets_his_mail_back_where_there_is_none() {
    let demand = Demand { requiretls: true, ..Demand::default() };
    for (offer, says, status) in [
        ("STARTTLS", "220 go on\r\nno TLS at all\r\n", "451 4.7.5"),
        ("STARTTLS", "220 go on\r\n", "451 4.7.5"),
        ("STARTTLS", "454 4.7.0 not now\r\n", "451 4.7.5"),
        ("8BITMIME", "", "550 5.7.30"),
    ] {
        let (address, heard) = without_tls(offer, says);
        let refusal = downstream(1).connect(&hop(address, demand)).await.unwrap_err();
        assert!(refusal.to_string().starts_with(status), "{offer} {says:?}: {refusal}");
        let heard = heard.lock().unwrap();
        assert_eq!(heard.matches("EHLO").count(), 1, "a second attempt, in plain: {heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_tls_hangs_is_tried_without_unless_tls_is_demanded() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            held.push(stream.try_clone().unwrap());
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                stream.write_all(b"220 mx.abc.example\r\n").unwrap();
                for line in lines.map_while(Result::ok) {
                    let reply: &[u8] = match line.as_str() {
                        "STARTTLS" => b"220 go on\r\n",
                        _ => b"250-mx.abc.example\r\n250 STARTTLS\r\n",
                    };
                    stream.write_all(reply).unwrap();
                }
            });
        }
    });
    let demand = Demand { tls: LinkTls::Require, ..Demand::default() };
    let (wanted, demanded) = (hop(address, Demand::default()), hop(address, demand));
    let downstream = downstream(2);
    let (link, refusal) = tokio::join!(downstream.connect(&wanted), downstream.connect(&demanded));
    assert!(link.unwrap().passage.tls.is_none());
    let refusal = refusal.unwrap_err().to_string();
    assert!(refusal.starts_with("451 4.7.5"), "{refusal}");
}

/// A server that greets with one of these and answers to whatever else with the other.
fn unwilling(greeting: &'static str, answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes());
            if say(greeting).is_ok() {
                lines.map_while(Result::ok).all(|_| say(answer).is_ok());
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_waits_for_a_server_that_will_not_talk_to_us_but_not_for_one_that_takes_none() {
    let introduced = || Introduction::Proxy {
        client: "192.0.2.7:4025".parse().unwrap(),
        server: "192.0.2.1:25".parse().unwrap(),
    };
    for (greeting, answer, is_introduced, status) in [
        ("554 5.7.1 your address is on a list", "", false, "451 4.7.1"),
        ("554 no SMTP service here", "", false, "451 4.0.0"),
        ("220 mx.abc.example", "550 5.7.1 what a name", false, "451 4.7.1"),
        ("421 4.3.2 too many", "", false, "451 4.3.2"),
        ("521 5.3.2 no mail here", "", false, "554 5.3.2"),
        ("554 5.7.1 your address is on a list", "", true, "554 5.7.1"),
    ] {
        let mut hop = hop(unwilling(greeting, answer), Demand::default());
        hop.introduction = is_introduced.then(introduced);
        let refusal = downstream(1).connect(&hop).await.unwrap_err().to_string();
        assert!(refusal.starts_with(status), "{greeting} {answer}: {refusal}");
    }
}

fn target(guard: Guard) -> Target {
    Target { host: "mx.b.example".to_owned(), port: 25, absolute: true, guard }
}

fn chosen(guard: &Guard, tlsa: Tlsa) -> Result<(Assurance, &'static str), Refusal> {
    let reach = Reach { tlsa, ..Reach::default() };
    assurance(&target(guard.clone()), &reach)
}

fn names(texts: &[&str]) -> Vec<ServerName<'static>> {
    texts.iter().map(|text| ServerName::try_from((*text).to_owned()).unwrap()).collect()
}

#[test]
fn dane_comes_before_mta_sts_and_that_before_policy() {
    let guard = Guard {
        tls: LinkTls::Verify,
        domain: Some("b.example".to_owned()),
        sts: Sts::Unlisted,
        ..Guard::default()
    };
    let records = Tlsa::Records(Vec::new());
    assert_eq!(chosen(&guard, records).unwrap().1, "dane");
    let refusal = chosen(&guard, Tlsa::Absent).unwrap_err();
    assert!(refusal.to_string().starts_with("451 4.7.5"), "{refusal}");
    let listed = Guard { sts: Sts::Listed, ..guard };
    let expected = (Assurance::Named(names(&["mx.b.example"])), "mta-sts");
    assert_eq!(chosen(&listed, Tlsa::Absent).unwrap(), expected);
}

#[test]
fn a_name_out_of_plain_dns_proves_nothing() {
    let plain =
        Guard { tls: LinkTls::Verify, domain: Some("b.example".to_owned()), ..Guard::default() };
    let (assurance, _) = chosen(&plain, Tlsa::Absent).unwrap();
    assert_eq!(assurance, Assurance::Named(names(&["b.example"])));
    let reach = Reach::default();
    let numeric = Target { host: "192.0.2.1".to_owned(), ..target(plain.clone()) };
    let (expected, _) = super::assurance(&numeric, &reach).unwrap();
    assert_eq!(expected, Assurance::Named(names(&["b.example"])), "an address out of plain DNS");
    let literal = Guard { domain: None, ..plain };
    let literal = Target { guard: literal, ..numeric };
    let (expected, _) = super::assurance(&literal, &reach).unwrap();
    assert_eq!(expected, Assurance::Named(names(&["192.0.2.1"])), "the recipient's own");
    let signed = Guard { dnssec: true, ..plain };
    let (assurance, _) = chosen(&signed, Tlsa::Absent).unwrap();
    assert_eq!(assurance, Assurance::Named(names(&["mx.b.example", "b.example"])));
}

#[test]
fn unusable_records_demand_encryption_and_no_more() {
    let none = Guard::default();
    assert_eq!(chosen(&none, Tlsa::Absent).unwrap().0, Assurance::Opportunistic);
    assert_eq!(chosen(&none, Tlsa::Unusable).unwrap().0, Assurance::Encrypted);
    let require = Guard { tls: LinkTls::Require, ..none };
    assert_eq!(chosen(&require, Tlsa::Absent).unwrap().0, Assurance::Encrypted);
}

/// A gateway without IPv6 has the whole time for the IPv4 address of a host with both.
#[test]
fn addresses_without_a_route_are_none_while_there_are_others() {
    let [four, other, six]: [SocketAddr; 3] =
        ["192.0.2.1:25", "192.0.2.2:25", "[2001:db8::1]:25"].map(|text| text.parse().unwrap());
    let all = vec![four, six, other];
    assert_eq!(in_reach(all.clone(), SocketAddr::is_ipv4), [four, other]);
    assert_eq!(in_reach(all.clone(), |_| true), all);
    assert_eq!(in_reach(all.clone(), |_| false), all, "what then comes of them is said");
    assert_eq!(in_reach(vec![six], SocketAddr::is_ipv4), [six]);
    assert!(has_route(&"127.0.0.1:25".parse().unwrap()));
    // Link-local, of no link.
    assert!(!has_route(&"[fe80::1]:25".parse().unwrap()));
}
