//! Where a copy goes: a fixed server, or the mail exchangers of each recipient's domain (RFC 5321 §5.1).
//!
//! In: a recipient's domain. Out: a [`Hop`], whose targets are tried in order, or the refusal. A fixed server named by
//! its address needs no look-up at all.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use sealgate_core::address::Domain;
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::smtp::Protocol;

use super::introduction::Introduction;
use crate::config::{Dns, NextHop, Resolvers, Server};

/// Where to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hop {
    /// SMTP or LMTP.
    pub(crate) lmtp: bool,
    /// Who that is, for replies and logs.
    pub(crate) name: String,
    /// Hosts in the order to try them.
    pub(crate) targets: Vec<Target>,
    /// Whom the connection is opened for, where the server is told.
    pub(crate) introduction: Option<Introduction>,
}

impl Hop {
    /// The protocol.
    pub(crate) fn protocol(&self) -> Protocol {
        if self.lmtp { Protocol::Lmtp } else { Protocol::Smtp }
    }
}

/// A host to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// Name or address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Whether the name is a whole one, to which no search domain is added: what DNS named is.
    pub(crate) absolute: bool,
}

/// Finds hops and addresses.
#[derive(Debug)]
pub(crate) struct Router {
    resolver: TokioResolver,
    hostname: String,
}

impl Router {
    /// # Errors
    /// What is wrong with the resolver's configuration.
    pub(crate) fn new(dns: &Dns, hostname: &str) -> Result<Self, String> {
        let provider = TokioRuntimeProvider::default();
        let builder = match &dns.resolvers {
            Resolvers::System => TokioResolver::builder_tokio().unwrap_or_else(|error| {
                tracing::warn!(%error, "no usable /etc/resolv.conf: names cannot be looked up");
                let config = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
                TokioResolver::builder_with_config(config, provider)
            }),
            Resolvers::Servers(servers) => {
                let servers = servers.iter().map(name_server).collect();
                let config = ResolverConfig::from_parts(None, Vec::new(), servers);
                TokioResolver::builder_with_config(config, provider)
            }
        };
        let resolver = builder.build().map_err(|error| format!("[dns]: {error}"))?;
        Ok(Self { resolver, hostname: hostname.to_ascii_lowercase() })
    }

    /// What names are looked up with.
    pub(crate) fn resolver(&self) -> &TokioResolver {
        &self.resolver
    }

    /// The hop for mail to a domain.
    ///
    /// # Errors
    /// The refusal where there is none.
    pub(crate) async fn hop(&self, next_hop: &NextHop, domain: &Domain) -> Result<Hop, Refusal> {
        match next_hop {
            NextHop::Fixed(server) => Ok(fixed(server)),
            NextHop::Mx => self.exchangers(domain).await,
        }
    }

    /// A target's addresses, in the order to try them.
    ///
    /// # Errors
    /// Where the name cannot be looked up.
    pub(crate) async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, NetError> {
        if let Ok(address) = target.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, target.port)]);
        }
        // What DNS named is a whole name; what the administrator wrote may be a short one.
        let name = if target.absolute { format!("{}.", target.host) } else { target.host.clone() };
        let found = self.resolver.lookup_ip(name).await?;
        let mut addresses: Vec<IpAddr> = found.iter().take(ADDRESSES_MAX).collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, target.port)).collect())
    }

    async fn exchangers(&self, domain: &Domain) -> Result<Hop, Refusal> {
        let name = domain.as_str();
        if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = literal.strip_prefix("ipv6:").unwrap_or(literal);
            let address: IpAddr = address.parse().map_err(|_| no_such_domain(name))?;
            return Ok(hop(name, vec![address.to_string()]));
        }
        let answer = match self.resolver.mx_lookup(format!("{name}.")).await {
            Ok(answer) => answer,
            Err(error) if error.is_nx_domain() => return Err(no_such_domain(name)),
            // No MX at all: the domain's own address (RFC 5321 §5.1).
            Err(error) if error.is_no_records_found() => return self.implicit(name).await,
            Err(_) => return Err(look_up_failed(name)),
        };
        let mut exchangers: Vec<(u16, String)> = Vec::new();
        for record in answer.answers() {
            if let RData::MX(mx) = &record.data {
                exchangers.push((mx.preference, mx.exchange.to_ascii().to_ascii_lowercase()));
            }
        }
        if exchangers.is_empty() {
            return self.implicit(name).await;
        }
        exchangers.sort();
        self.hop_of(name, &exchangers)
    }

    /// The hosts before ourselves (RFC 5321 §5.1), without the null MX (RFC 7505 §3).
    fn hop_of(&self, name: &str, exchangers: &[(u16, String)]) -> Result<Hop, Refusal> {
        if exchangers.iter().all(|(_, host)| host == ".") {
            let text = format!("<{name}> accepts no mail (null MX)");
            return Err(Refusal::NextHop(Reply::new(556, (5, 1, 10), text)));
        }
        let is_own = |host: &str| host.trim_end_matches('.') == self.hostname;
        let own =
            exchangers.iter().find(|(_, host)| is_own(host)).map(|(preference, _)| *preference);
        let hosts: Vec<String> = exchangers
            .iter()
            .filter(|(preference, host)| host != "." && own.is_none_or(|own| *preference < own))
            .take(EXCHANGERS_MAX)
            .map(|(_, host)| host.trim_end_matches('.').to_owned())
            .collect();
        if hosts.is_empty() {
            let text = format!("mail for <{name}> loops back to this host");
            return Err(Refusal::NextHop(Reply::new(554, (5, 4, 6), text)));
        }
        Ok(hop(name, hosts))
    }

    async fn implicit(&self, name: &str) -> Result<Hop, Refusal> {
        match self.resolver.lookup_ip(format!("{name}.")).await {
            Ok(found) if found.iter().next().is_some() => Ok(hop(name, vec![name.to_owned()])),
            Ok(_) => Err(no_such_domain(name)),
            Err(error) if error.is_no_records_found() => Err(no_such_domain(name)),
            Err(_) => Err(look_up_failed(name)),
        }
    }
}

/// The hop to a fixed server.
pub(crate) fn fixed(server: &Server) -> Hop {
    let target = Target { host: server.host.clone(), port: server.port, absolute: false };
    Hop { lmtp: server.lmtp, name: server.to_string(), targets: vec![target], introduction: None }
}

fn hop(name: &str, hosts: Vec<String>) -> Hop {
    let target = |host| Target { host, port: SMTP_PORT, absolute: true };
    let targets = hosts.into_iter().map(target).collect();
    Hop { lmtp: false, name: name.to_owned(), targets, introduction: None }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
    server
}

fn no_such_domain(name: &str) -> Refusal {
    let text = format!("there is no mail server for <{name}>");
    Refusal::NextHop(Reply::new(550, (5, 1, 2), text))
}

fn look_up_failed(name: &str) -> Refusal {
    let text = format!("mail server look-up for <{name}> failed, try again later");
    Refusal::NextHop(Reply::new(451, (4, 4, 3), text))
}

/// RFC 5321 §4.5.4.2.
const SMTP_PORT: u16 = 25;
/// Mail exchangers that are tried; look-ups for one message stay under REQUIREMENTS K13.
const EXCHANGERS_MAX: usize = 5;
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        let dns = Dns { resolvers: Resolvers::Servers(vec!["127.0.0.1:9".parse().unwrap()]) };
        Router::new(&dns, "gate.nec.example").unwrap()
    }

    fn hosts(exchangers: &[(u16, &str)]) -> Result<Vec<String>, String> {
        let exchangers: Vec<(u16, String)> =
            exchangers.iter().map(|(preference, host)| (*preference, (*host).to_owned())).collect();
        let hop =
            router().hop_of("abc.example", &exchangers).map_err(|refusal| refusal.to_string())?;
        Ok(hop.targets.into_iter().map(|target| target.host).collect())
    }

    #[tokio::test]
    async fn exchangers_stop_before_ourselves() {
        let three = [(5, "a."), (10, "gate.nec.example."), (10, "b."), (20, "c.")];
        assert_eq!(hosts(&three), Ok(vec!["a".to_owned()]));
        let refusal = hosts(&three[1..]).unwrap_err();
        assert!(refusal.starts_with("554 5.4.6 "), "{refusal}");
        assert_eq!(hosts(&[(1, "a."), (2, "b.")]), Ok(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[tokio::test]
    async fn a_null_mx_is_refused_for_good() {
        let refusal = hosts(&[(0, ".")]).unwrap_err();
        assert!(refusal.starts_with("556 5.1.10 "), "{refusal}");
    }

    #[tokio::test]
    async fn literals_and_fixed_servers_need_no_look_up() {
        let router = router();
        for (text, host) in [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1")] {
            let hop = router.hop(&NextHop::Mx, &Domain::parse(text).unwrap()).await.unwrap();
            assert_eq!(hop.targets[0].host, host);
            let addresses = router.addresses(&hop.targets[0]).await.unwrap();
            assert_eq!(addresses, [SocketAddr::new(host.parse().unwrap(), 25)]);
        }
        let server: Server = "lmtp://127.0.0.1:24".parse().unwrap();
        let hop = router
            .hop(&NextHop::Fixed(server), &Domain::parse("abc.example").unwrap())
            .await
            .unwrap();
        assert!(hop.lmtp);
        assert_eq!(
            hop.targets,
            [Target { host: "127.0.0.1".to_owned(), port: 24, absolute: false }]
        );
    }
}
