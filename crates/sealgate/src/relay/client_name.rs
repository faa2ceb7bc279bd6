//! What an Internet client's address is called, as mail servers ask about it: the name that its reverse record gives, if that
//! name leads back to the address (RFC 1912 §2.1; Postfix calls the others "unknown").
//!
//! In: the address. Out: a [`ClientName`] for XCLIENT, after one look-up, and one more for each of [`NAMES_MAX`] names at most, and no later
//! than [`PATIENCE`].

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use sealgate_core::smtp::client::ClientName;
use tokio::time::timeout;

use super::names;

/// The name of a client; asked of the resolvers that authentication asks too.
pub(super) async fn of(client: IpAddr, resolver: &TokioResolver) -> ClientName {
    // Schedules in virtual time have no sockets.
    #[cfg(test)]
    if super::schedules::are_running() {
        return ClientName::Unavailable;
    }
    match timeout(PATIENCE, confirmed(client.to_canonical(), resolver)).await {
        Ok(Ok(Some(name))) => ClientName::Confirmed(name),
        Ok(Ok(None)) => ClientName::Unavailable,
        Ok(Err(error)) if names::not_found(&error).is_certain() => ClientName::Unavailable,
        Ok(Err(_)) | Err(_) => ClientName::TemporarilyUnavailable,
    }
}

/// The first name that leads back.
async fn confirmed(client: IpAddr, resolver: &TokioResolver) -> Result<Option<String>, NetError> {
    let found = resolver.lookup(Name::from(client), RecordType::PTR).await?;
    let names = found.answers().iter().filter_map(|record| match &record.data {
        RData::PTR(name) if is_host(&names::text(&name.0)) => Some(&name.0),
        _ => None,
    });
    let mut trouble = None;
    for name in names.take(NAMES_MAX) {
        match leads_to(client, name, resolver).await {
            Ok(true) => return Ok(Some(names::text(name))),
            Ok(false) => {}
            Err(error) => trouble = Some(error),
        }
    }
    trouble.map_or(Ok(None), Err)
}

async fn leads_to(client: IpAddr, name: &Name, resolver: &TokioResolver) -> Result<bool, NetError> {
    let mut name = name.clone();
    name.set_fqdn(true);
    let kind = if client.is_ipv4() { RecordType::A } else { RecordType::AAAA };
    let found = resolver.lookup(name, kind).await;
    let found = match found {
        Err(error) if names::not_found(&error).is_certain() => return Ok(false),
        found => found?,
    };
    Ok(found.answers().iter().any(|record| match &record.data {
        RData::A(address) => IpAddr::V4(address.0) == client,
        RData::AAAA(address) => IpAddr::V6(address.0) == client,
        _ => false,
    }))
}

/// Whether a name is one that a host may have (RFC 1123 §2.1): Postfix refuses XCLIENT with others.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let inside = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        (1..=LABEL_OCTETS_MAX).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= NAME_OCTETS_MAX
        && name.split('.').all(is_label)
        && !last.bytes().all(|octet| octet.is_ascii_digit())
}

/// Names of one address that are tried.
const NAMES_MAX: usize = 3;
/// The client waits meanwhile for the answer to its first MAIL.
const PATIENCE: Duration = Duration::from_secs(5);
/// RFC 1035 §2.3.4.
const LABEL_OCTETS_MAX: usize = 63;
const NAME_OCTETS_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use sealgate_testkit::nsd::{Nsd, Zone};

    use super::super::route::Router;
    use super::*;
    use crate::config::{Dns, Resolvers};

    #[test]
    fn only_names_of_hosts_are_told() {
        for good in ["mx.abc.example", "localhost", "a-b.c_d.example", "1.example"] {
            assert!(is_host(good), "{good}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in ["", ".", "a..b", "a b.example", "-a.example", "192.0.2.1", "[x]", &long] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_counts_that_leads_back_to_the_address() {
        let reverse = "7 PTR mx.abc.example.\n8 PTR mx.abc.example.\n9 PTR nowhere.abc.example.\n\
                       10 PTR other.abc.example.\n10 PTR mx.abc.example.\n11 PTR a\\032b.example.\n";
        let forward = "mx A 192.0.2.7\nmx A 192.0.2.10\nmx AAAA 2001:db8::7\nother A 192.0.2.7\n";
        let six = format!("7.{} PTR mx.abc.example.\n", "0.".repeat(23).trim_end_matches('.'));
        let dns = Nsd::start(&[
            Zone::unsigned("2.0.192.in-addr.arpa", reverse),
            Zone::unsigned("8.b.d.0.1.0.0.2.ip6.arpa", &six),
            Zone::unsigned("abc.example", forward),
        ]);
        let router = |servers| {
            let resolvers = Resolvers::Servers(servers);
            let dns = Dns { resolvers, dnssec: false, trust_anchor: None };
            Router::new(&dns, None, "gate.nec.example").unwrap()
        };
        let (known, silent) = (router(vec![dns.address]), router(Vec::new()));
        let confirmed = || ClientName::Confirmed("mx.abc.example".to_owned());
        for (client, expected) in [
            ("192.0.2.7", confirmed()),
            ("::ffff:192.0.2.7", confirmed()),
            ("2001:db8::7", confirmed()),
            ("192.0.2.10", confirmed()),
            ("192.0.2.8", ClientName::Unavailable),
            ("192.0.2.9", ClientName::Unavailable),
            ("192.0.2.11", ClientName::Unavailable),
            ("192.0.2.12", ClientName::Unavailable),
        ] {
            let found = of(client.parse().unwrap(), &known.resolver()).await;
            assert_eq!(found, expected, "{client}");
        }
        let found = of("192.0.2.7".parse().unwrap(), &silent.resolver()).await;
        assert_eq!(found, ClientName::TemporarilyUnavailable);
    }
}
