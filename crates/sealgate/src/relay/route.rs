//! Where a copy goes: a fixed server, or the mail exchangers of each recipient's domain (RFC 5321 §5.1).
//!
//! In: a recipient's domain, and what the message demands of the way. Out: a [`Hop`], whose targets are tried in order, or the
//! refusal; then for a target its addresses and what its domain publishes about it ([`Reach`]). A fixed server named by its
//! address needs no look-up at all.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::proto::rr::{RData, RecordType};
use sealgate_core::address::Domain;
use sealgate_core::policy::LinkTls;
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::smtp::Protocol;

use super::dane::Tlsa;
use super::introduction::Introduction;
use super::mta_sts::{Mode, Policies, Policy};
use super::names::{self, Found, Names, NotFound};
use super::tls::client::Clients;
use super::transport::Demand;
use crate::config::{Dns, NextHop, Server};

/// Where to deliver. Places at several are taken in their order, which is the same for every message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hop {
    /// SMTP or LMTP.
    pub(crate) lmtp: bool,
    /// Who that is, for logs.
    pub(crate) name: String,
    /// Hosts in the order to try them.
    pub(crate) targets: Vec<Target>,
    /// Whom the connection is opened for, where the server is told. Declared last, so that it decides the derived order
    /// last: hops that differ in it alone share their places.
    pub(crate) introduction: Option<Introduction>,
}

impl Hop {
    /// The protocol.
    pub(crate) fn protocol(&self) -> Protocol {
        if self.lmtp { Protocol::Lmtp } else { Protocol::Smtp }
    }

    /// Who it is in replies. Where a fixed server is, is its administrator's affair: a client from the Internet need not learn
    /// the inside from us.
    pub(crate) fn public_name(&self) -> &str {
        let is_fixed = self.targets.iter().any(|target| !target.absolute);
        if is_fixed { "next hop" } else { &self.name }
    }

    /// Whether a client of ours is introduced to the server.
    pub(crate) fn introduces_client(&self) -> bool {
        matches!(&self.introduction, Some(Introduction::Proxy { .. } | Introduction::Xclient(_)))
    }

    /// Whether both are the same server, whoever is introduced to it.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        self.lmtp == other.lmtp && self.name == other.name && self.targets == other.targets
    }

    /// Whether both lead to the same hosts, whatever is demanded of the connections.
    pub(crate) fn is_at_same_place(&self, other: &Self) -> bool {
        self.lmtp == other.lmtp
            && self.name == other.name
            && self.targets.iter().map(Target::place).eq(other.targets.iter().map(Target::place))
    }
}

/// A host to connect to. Two are the same only where they are to be treated the same: connections are kept for messages
/// with equal targets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    /// Name or address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Whether the name is a whole one, to which no search domain is added: what DNS named is.
    pub(crate) absolute: bool,
    /// What a connection to it must be.
    pub(crate) guard: Guard,
}

impl Target {
    fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

/// What a connection to a target must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Guard {
    /// The least that the message demands.
    pub(crate) tls: LinkTls,
    /// It must take REQUIRETLS.
    pub(crate) requiretls: bool,
    /// The name came by DNSSEC.
    pub(crate) dnssec: bool,
    /// TLSA records count.
    pub(crate) dane: bool,
    /// What the domain's MTA-STS policy says of it.
    pub(crate) sts: Sts,
    /// The domain of the recipients, where a certificate may be for that (RFC 7672 §3.2.2).
    pub(crate) domain: Option<String>,
}

/// What an MTA-STS policy in force says of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Sts {
    /// There is none.
    #[default]
    Absent,
    /// The host is one of the domain's: its certificate must be good for its name.
    Listed,
    /// In testing mode: what is missing is told and no reason to keep mail back (RFC 8461 §5).
    Tested {
        /// The host is one of the domain's.
        listed: bool,
    },
    /// It is none of them.
    Unlisted,
}

/// Where a target is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// In the order to try them.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What DNSSEC says of its certificate.
    pub(crate) tlsa: Tlsa,
    /// The name that the TLSA records were found at, which the server is asked for.
    pub(crate) tlsa_base: Option<String>,
}

/// Finds hops and addresses.
#[derive(Debug)]
pub(crate) struct Router {
    names: Arc<Names>,
    policies: Arc<Policies>,
    clients: Arc<Clients>,
    hostname: String,
    /// The order of exchangers of one preference: another in each process (RFC 5321 §5.1), and always the same in
    /// one, so that connections are used again.
    order: RandomState,
}

impl Router {
    /// Authorities of servers are those of a PEM file, or the system's.
    ///
    /// # Errors
    /// What is wrong with the resolver's configuration or the authorities.
    pub(crate) fn new(dns: &Dns, ca: Option<&Path>, hostname: &str) -> Result<Self, String> {
        let (names, clients) = (Arc::new(Names::new(dns)?), Arc::new(Clients::new(ca)?));
        Ok(Self {
            policies: Arc::new(Policies::new(Arc::clone(&names), Arc::clone(&clients))),
            names,
            clients,
            hostname: hostname.to_ascii_lowercase(),
            order: RandomState::new(),
        })
    }

    /// Says in the log where no answer can be validated.
    pub(crate) async fn probe(&self) {
        if !self.names.is_able_to_validate().await {
            tracing::error!("{}", names::NOT_ABLE);
        }
    }

    /// What TLS clients believe.
    pub(crate) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// What was learned of MTA-STS.
    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// What names are looked up with, for one task.
    pub(crate) fn resolver(&self) -> hickory_resolver::TokioResolver {
        self.names.plain()
    }

    /// Asks the resolvers that the system names now; says whether these are others.
    pub(crate) fn follow_resolvers(&self) -> bool {
        self.names.follow()
    }

    /// The hop for mail to a domain.
    ///
    /// # Errors
    /// The refusal where there is none.
    pub(crate) async fn hop(
        &self,
        next_hop: &NextHop,
        domain: &Domain,
        demand: Demand,
    ) -> Result<Hop, Refusal> {
        match next_hop {
            NextHop::Fixed(server) => Ok(fixed(server, demand)),
            NextHop::Mx => self.exchangers(domain, demand).await,
        }
    }

    /// A target's addresses, in the order to try them, and its TLSA records.
    ///
    /// # Errors
    /// The refusal where the name or its TLSA records cannot be looked up; for good where there is no such host.
    pub(crate) async fn reach(&self, target: &Target) -> Result<Reach, Refusal> {
        let port = target.port;
        if let Ok(address) = target.host.parse::<IpAddr>() {
            return Ok(Reach {
                addresses: vec![SocketAddr::new(address, port)],
                ..Reach::default()
            });
        }
        if !target.absolute {
            let found = self.names.addresses_of_ours(&target.host).await;
            let addresses = found.map_err(|_| Refusal::NextHopUnreachable)?;
            return Ok(Reach { addresses: in_order(&addresses, port), ..Reach::default() });
        }
        let (addresses, found) = match self.names.addresses(&target.host).await {
            Ok(found) => found,
            Err(NotFound::Bogus) => return Err(bogus(&target.host)),
            Err(why) if why.is_certain() => return Err(no_such_host(&target.host)),
            Err(_) => return Err(Refusal::NextHopUnreachable),
        };
        let mut reach = Reach { addresses: in_order(&addresses, port), ..Reach::default() };
        if target.guard.dane {
            for base in tlsa_bases(&target.host, &found) {
                reach.tlsa = self.tlsa(&base, port).await?;
                if reach.tlsa != Tlsa::Absent {
                    reach.tlsa_base = Some(base);
                    break;
                }
            }
        }
        Ok(reach)
    }

    /// TLSA records that came by DNSSEC.
    async fn tlsa(&self, base: &str, port: u16) -> Result<Tlsa, Refusal> {
        let name = format!("_{port}._tcp.{base}");
        let found = match self.names.look_up(&name, RecordType::TLSA).await {
            Ok(found) if found.secure => found,
            Ok(_) => return Ok(Tlsa::Absent),
            Err(why) if why.is_certain() => return Ok(Tlsa::Absent),
            // RFC 7672 §2.1.1: nobody knows whether there are any, so nothing is delivered there now.
            Err(_) => return Err(bogus(&name)),
        };
        let records = found.data.iter().filter_map(|data| match data {
            RData::TLSA(tlsa) => Some(tlsa),
            _ => None,
        });
        Ok(Tlsa::new(records))
    }

    async fn exchangers(&self, domain: &Domain, demand: Demand) -> Result<Hop, Refusal> {
        let name = domain.as_str();
        if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = literal.strip_prefix("ipv6:").unwrap_or(literal);
            let address: IpAddr = address.parse().map_err(|_| no_such_domain(name))?;
            let guard =
                Guard { tls: least(demand), requiretls: demand.requiretls, ..Guard::default() };
            return Ok(hop(name, vec![(address.to_string(), guard)]));
        }
        let (hosts, is_secure) = match self.names.look_up(name, RecordType::MX).await {
            Ok(found) => (self.hosts_of(name, &exchangers_in(&found))?, found.secure),
            Err(NotFound::NoSuchName) => return Err(no_such_domain(name)),
            // No MX at all: the domain's own address (RFC 5321 §5.1).
            Err(NotFound::NoData) => (vec![name.to_owned()], self.implicit(name).await?),
            Err(NotFound::Bogus) => return Err(bogus(name)),
            Err(NotFound::Failed) => return Err(look_up_failed(name)),
        };
        let policy = match demand.is_optional {
            true => None,
            false => self.policies.of(name).await,
        };
        let guard = |host: &str| guard(demand, name, host, is_secure, policy.as_deref());
        let hosts = hosts.into_iter().map(|host| {
            let guard = guard(&host);
            (host, guard)
        });
        Ok(hop(name, hosts.collect()))
    }

    /// The hosts before ourselves (RFC 5321 §5.1), without the null MX (RFC 7505 §3).
    fn hosts_of(&self, name: &str, exchangers: &[(u16, String)]) -> Result<Vec<String>, Refusal> {
        if exchangers.iter().all(|(_, host)| host == ".") {
            let text = format!("<{name}> accepts no mail (null MX)");
            return Err(Refusal::NextHop(Reply::new(556, (5, 1, 10), text)));
        }
        let own = exchangers.iter().find(|(_, host)| *host == self.hostname);
        let own = own.map(|(preference, _)| *preference);
        let mut before: Vec<&(u16, String)> = exchangers
            .iter()
            .filter(|(preference, host)| host != "." && own.is_none_or(|own| *preference < own))
            .collect();
        before.sort_by_cached_key(|(preference, host)| (*preference, self.order.hash_one(host)));
        if before.is_empty() {
            let text = format!("mail for <{name}> loops back to this host");
            return Err(Refusal::NextHop(Reply::new(554, (5, 4, 6), text)));
        }
        Ok(before.into_iter().take(EXCHANGERS_LISTED_MAX).map(|(_, host)| host.clone()).collect())
    }

    /// Whether the domain's own address came by DNSSEC.
    async fn implicit(&self, name: &str) -> Result<bool, Refusal> {
        match self.names.addresses(name).await {
            Ok((_, found)) => Ok(found.secure),
            Err(NotFound::Bogus) => Err(bogus(name)),
            Err(NotFound::Failed) => Err(look_up_failed(name)),
            Err(NotFound::NoData | NotFound::NoSuchName) => Err(no_such_domain(name)),
        }
    }
}

fn exchangers_in(found: &Found) -> Vec<(u16, String)> {
    let exchanger = |data: &RData| match data {
        RData::MX(mx) => Some((mx.preference, names::text(&mx.exchange))),
        _ => None,
    };
    found.data.iter().filter_map(exchanger).collect()
}

/// What a connection to one of a domain's exchangers must be.
fn guard(
    demand: Demand,
    name: &str,
    host: &str,
    is_secure: bool,
    policy: Option<&Policy>,
) -> Guard {
    let tls = least(demand);
    let sts = match policy {
        Some(policy) if policy.mode == Mode::Enforce && policy.lists(host) => Sts::Listed,
        Some(policy) if policy.mode == Mode::Enforce => Sts::Unlisted,
        Some(policy) if policy.mode == Mode::Testing => Sts::Tested { listed: policy.lists(host) },
        Some(_) | None => Sts::Absent,
    };
    let dane = is_secure && !demand.is_optional;
    Guard {
        tls,
        requiretls: demand.requiretls,
        dnssec: is_secure,
        dane,
        sts,
        domain: (dane || tls == LinkTls::Verify).then(|| name.to_owned()),
    }
}

/// REQUIRETLS wants verified servers, whatever policy says.
fn least(demand: Demand) -> LinkTls {
    if demand.requiretls { LinkTls::Verify } else { demand.tls }
}

/// Where to look for TLSA records (RFC 7672 §2.2.2): at the end of the aliases where all of it is signed, then at the name
/// itself where that much is.
fn tlsa_bases(host: &str, found: &Found) -> Vec<String> {
    match &found.alias {
        Some(alias) if found.secure => vec![alias.clone(), host.to_owned()],
        Some(_) if found.alias_secure => vec![host.to_owned()],
        None if found.secure => vec![host.to_owned()],
        Some(_) | None => Vec::new(),
    }
}

/// Both families in turn, IPv4 first, so that neither uses up the attempts of the other.
pub(super) fn in_order(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let mut v4 = addresses.iter().filter(|address| address.is_ipv4());
    let mut v6 = addresses.iter().filter(|address| address.is_ipv6());
    let mut order: Vec<&IpAddr> = Vec::new();
    while order.len() < ADDRESSES_MAX {
        let pair = [v4.next(), v6.next()];
        if pair == [None, None] {
            break;
        }
        order.extend(pair.into_iter().flatten());
    }
    order.truncate(ADDRESSES_MAX);
    order.into_iter().map(|address| SocketAddr::new(*address, port)).collect()
}

/// The hop to a fixed server. The administrator named it: the name is sure, but nothing is looked up about it.
pub(crate) fn fixed(server: &Server, demand: Demand) -> Hop {
    let guard = Guard { tls: least(demand), requiretls: demand.requiretls, ..Guard::default() };
    let host = server.host.clone();
    let target = Target { host, port: server.port, absolute: false, guard };
    Hop { lmtp: server.lmtp, name: server.to_string(), targets: vec![target], introduction: None }
}

fn hop(name: &str, hosts: Vec<(String, Guard)>) -> Hop {
    let target = |(host, guard)| Target { host, port: SMTP_PORT, absolute: true, guard };
    let targets = hosts.into_iter().map(target).collect();
    Hop { lmtp: false, name: name.to_owned(), targets, introduction: None }
}

fn no_such_domain(name: &str) -> Refusal {
    let text = format!("there is no mail server for <{name}>");
    Refusal::NextHop(Reply::new(550, (5, 1, 2), text))
}

/// RFC 5321 §5.1: where no exchanger has an address the sender is told. The code is that of RFC 3463 §3.5 for no route.
fn no_such_host(host: &str) -> Refusal {
    Refusal::NextHop(Reply::new(550, (5, 4, 4), format!("the mail server {host} does not exist")))
}

fn look_up_failed(name: &str) -> Refusal {
    let text = format!("mail server look-up for <{name}> failed, try again later");
    Refusal::NextHop(Reply::new(451, (4, 4, 3), text))
}

fn bogus(name: &str) -> Refusal {
    metrics::counter!(FAILURES, "type" => "dnssec-invalid").increment(1);
    let text = format!("the DNS answer for <{name}> is not correctly signed, try again later");
    Refusal::NextHop(Reply::new(451, (4, 7, 5), text))
}

/// Failures by the words of RFC 8460 §4.3.
pub(super) const FAILURES: &str = "sealgate_tls_failures_total";
/// RFC 5321 §4.5.4.2.
const SMTP_PORT: u16 = 25;
/// Mail exchangers that are tried, without those that do not exist.
pub(super) const EXCHANGERS_MAX: usize = 5;
/// Mail exchangers that are looked up; look-ups for one domain stay under REQUIREMENTS K13.
pub(super) const EXCHANGERS_LISTED_MAX: usize = 10;
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

#[cfg(test)]
mod tests;
