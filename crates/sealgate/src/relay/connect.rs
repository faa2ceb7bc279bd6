//! New connections: the targets of a hop in their order, their addresses, TLS and what it must show.
//!
//! Who the server is and whether TLS is a must is settled before connecting ([`Plan`]): by its TLSA records (RFC 7672), else
//! its domain's MTA-STS policy (RFC 8461 §2: DANE comes first), else what the message demands. Only where none of these
//! asks for TLS does mail go on without it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sealgate_core::policy::LinkTls;
use sealgate_core::refusal::{Extension, Refusal, Reply};
use sealgate_core::smtp::client::{Client, Event, Failure, Options, Tls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::dane::Tlsa;
use super::deliver::{Downstream, is_permanent, turned_away};
use super::hops::Attempt;
use super::introduction::Introduction;
use super::link::{Asked, Link};
use super::route::{EXCHANGERS_LISTED_MAX, EXCHANGERS_MAX, FAILURES, Hop, Reach, Sts, Target};
use super::stream::{Stream, small_input};
use super::tls::client::{Assurance, Clients, VALIDATION_FAILURE, failure_type};
use super::transport::{LinkReport, Passage};

/// How to connect to one target.
struct Plan<'a> {
    hop: &'a Hop,
    target: &'a Target,
    assurance: Assurance,
    /// How the server's name will have been proven.
    verified: &'static str,
    /// Whom to ask for.
    asked_for: &'a str,
    config: Arc<ClientConfig>,
    /// What it is a part of, where a client may be introduced.
    attempt: Option<&'a Attempt>,
}

/// How far a message has come among the hosts of a hop and their addresses, each of which is tried once (RFC 5321 §5.1).
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// Hosts that are done with.
    targets: usize,
    /// Those of them that do not exist, and take no other one's turn.
    missing: usize,
    /// Of the next one. Its addresses may be looked up again meanwhile, and come in another order.
    addresses: Vec<SocketAddr>,
    /// Those of them that greeted us.
    greetings: usize,
}

impl Tried {
    /// The host to try now.
    fn target<'h>(&self, hop: &'h Hop) -> Option<&'h Target> {
        self.target_after(hop, 0)
    }

    /// The host to try after so many more that exist.
    fn target_after<'h>(&self, hop: &'h Hop, more: usize) -> Option<&'h Target> {
        let next = self.targets.saturating_add(more);
        let turn = next.saturating_sub(self.missing);
        hop.targets.get(next).filter(|_| turn < EXCHANGERS_MAX)
    }

    /// Whether nothing is left to try.
    pub(super) fn is_over(&self, hop: &Hop) -> bool {
        self.target(hop).is_none()
    }

    /// Whether a host is left that was not tried at all.
    pub(super) fn has_other_host(&self, hop: &Hop) -> bool {
        let begun = usize::from(!self.addresses.is_empty());
        self.target_after(hop, begun).is_some()
    }

    /// Of the host's addresses, and whether it is the last one.
    fn next_address(&mut self, addresses: &[SocketAddr]) -> Option<(SocketAddr, bool)> {
        let mut rest = addresses.iter().filter(|address| !self.addresses.contains(address));
        let (address, is_last) = (*rest.next()?, rest.next().is_none());
        self.addresses.push(address);
        Some((address, is_last))
    }

    /// An address of the host greeted us, the last one or not.
    fn greeted(&mut self, is_last: bool) {
        self.greetings = self.greetings.saturating_add(1);
        if is_last || self.greetings >= GREETINGS_MAX {
            self.leave_target();
        }
    }

    fn leave_target(&mut self) {
        let (targets, missing) = (self.targets.saturating_add(1), self.missing);
        *self = Self { targets, missing, ..Self::default() };
    }

    /// The host does not exist, as far as it is known. What is said of that: where the domain may have named more hosts, they are
    /// not known not to exist.
    fn miss_target(&mut self, hop: &Hop, refusal: Refusal) -> Refusal {
        self.missing = self.missing.saturating_add(1);
        let are_all = hop.targets.len() < EXCHANGERS_LISTED_MAX;
        if are_all { refusal } else { Refusal::NextHopUnreachable }
    }
}

impl Downstream {
    /// Tries the targets and their addresses in turn, for nobody's mail and not for long.
    pub(super) async fn connect(&self, hop: &Hop) -> Result<Link, Refusal> {
        self.connect_within(hop, &mut Tried::default(), OPENING_MAX, None).await
    }

    /// The same for somebody who asks.
    pub(super) async fn connect_to_ask(
        &self,
        hop: &Hop,
        attempt: &Attempt,
    ) -> Result<Link, Refusal> {
        self.connect_within(hop, &mut Tried::default(), OPENING_MAX, Some(attempt)).await
    }

    /// The same without what was tried before, for a message: where there is no other host or address, a server may take as long
    /// as RFC 5321 gives it, within the caller's time.
    pub(super) async fn connect_after(
        &self,
        hop: &Hop,
        tried: &mut Tried,
        attempt: &Attempt,
    ) -> Result<Link, Refusal> {
        // Who probes keeps everybody else from the server.
        let last_max = if attempt.is_probe() { OPENING_MAX } else { GREETING_MAX };
        self.connect_within(hop, tried, last_max, Some(attempt)).await
    }

    async fn connect_within(
        &self,
        hop: &Hop,
        tried: &mut Tried,
        last_max: Duration,
        attempt: Option<&Attempt>,
    ) -> Result<Link, Refusal> {
        let mut permanent = None;
        let mut temporary = None;
        let mut keep = |refusal: Refusal| {
            if Reply::from(&refusal).is_permanent() {
                permanent.get_or_insert(refusal);
            } else {
                temporary.get_or_insert(refusal);
            }
        };
        while let Some(target) = tried.target(hop) {
            let reach = match self.router.reach(target).await {
                Ok(reach) => reach,
                Err(refusal) if is_permanent(&refusal) => {
                    keep(tried.miss_target(hop, refusal));
                    tried.leave_target();
                    continue;
                }
                Err(refusal) => {
                    keep(refusal);
                    tried.leave_target();
                    continue;
                }
            };
            let plan = match self.plan(hop, target, &reach) {
                Ok(plan) => Plan { attempt, ..plan },
                Err(refusal) => {
                    keep(refusal);
                    tried.leave_target();
                    continue;
                }
            };
            let addresses = in_reach(reach.addresses.clone(), has_route);
            let is_last_target = tried.target_after(hop, 1).is_none();
            while let Some((address, is_last)) = tried.next_address(&addresses) {
                let is_last_of_all = is_last && is_last_target;
                let patience = if is_last_of_all { last_max } else { OPENING_MAX };
                match self.open(&plan, address, patience).await {
                    Ok(link) => {
                        tried.greeted(is_last);
                        let is_only = hop.targets.len() == 1 && addresses.len() == 1;
                        return Ok(Link { is_only, ..link });
                    }
                    Err(refusal) => keep(refusal),
                }
            }
            tried.leave_target();
        }
        failpoint!("connect.failed");
        metrics::counter!("sealgate_next_hop_failures_total").increment(1);
        // For good only where every host said so: a primary that is away comes back (RFC 5321 §5.1).
        Err(temporary.or(permanent).unwrap_or(Refusal::NextHopUnreachable))
    }

    fn plan<'a>(
        &self,
        hop: &'a Hop,
        target: &'a Target,
        reach: &'a Reach,
    ) -> Result<Plan<'a>, Refusal> {
        let (assurance, verified) = assurance(target, reach)?;
        let config = self.router.clients().config(&assurance);
        let config = config.map_err(|error| {
            tracing::error!(error, "no TLS configuration");
            Refusal::Internal
        })?;
        let asked_for = reach.tlsa_base.as_ref().unwrap_or(&target.host);
        Ok(Plan { hop, target, assurance, verified, asked_for, config, attempt: None })
    }

    /// Opens one connection; where opportunistic TLS fails or does not end, again with less and at last without.
    async fn open(
        &self,
        plan: &Plan<'_>,
        address: SocketAddr,
        patience: Duration,
    ) -> Result<Link, Refusal> {
        let is_tested = matches!(plan.target.guard.sts, Sts::Tested { .. });
        let config = || Arc::clone(&plan.config);
        let attempts = match plan.assurance {
            // The policy is only tested: without it the handshake would do that it fails (RFC 8461 §5).
            Assurance::Opportunistic if is_tested => {
                let witnessing = self.router.clients().witnessing();
                vec![(Tls::IfOffered, witnessing), (Tls::IfOffered, config()), (Tls::Off, config())]
            }
            Assurance::Opportunistic => vec![(Tls::IfOffered, config()), (Tls::Off, config())],
            _ => vec![(Tls::Required, config())],
        };
        let mut failed = None;
        for (tls, config) in attempts {
            match self.open_with(plan, config, address, tls, patience).await {
                Ok(link) => return plan.accept(link, failed, self.router.clients()),
                Err(OpenError::Tls(error)) if tls == Tls::IfOffered => {
                    tracing::warn!(%address, %error, "TLS failed downstream, going on with less");
                    failed.get_or_insert(failure_type(&error));
                }
                Err(OpenError::Tls(error)) => {
                    return Err(plan.tls_refusal(
                        address,
                        failure_type(&error),
                        &error.to_string(),
                    ));
                }
                Err(OpenError::NotOffered) => {
                    let kind = "starttls-not-supported";
                    return Err(plan.tls_refusal(address, kind, "STARTTLS is not offered"));
                }
                Err(OpenError::TlsRefused(reply)) => {
                    let why = reply.to_string();
                    return Err(plan.tls_refusal(address, VALIDATION_FAILURE, &why));
                }
                Err(OpenError::Refused { reply, is_introduced }) => {
                    // In plain, where TLS failed, the client may be refused for that.
                    let is_clients = is_introduced && failed.is_none();
                    return Err(turned_away(plan.hop, &reply, is_clients));
                }
                Err(OpenError::Io) => return Err(Refusal::NextHopUnreachable),
            }
        }
        Err(Refusal::NextHopUnreachable)
    }

    async fn open_with(
        &self,
        plan: &Plan<'_>,
        config: Arc<ClientConfig>,
        address: SocketAddr,
        tls: Tls,
        patience: Duration,
    ) -> Result<Link, OpenError> {
        failpoint!("connect.open");
        let mut deadline = Instant::now() + patience;
        let connecting = tokio::time::timeout(CONNECT_MAX, dial(address));
        let mut stream = connecting.await.map_err(|_| OpenError::Io)?.map_err(|_| OpenError::Io)?;
        let mut identity = plan.hop.introduction.as_ref().and_then(Introduction::identity);
        if identity.is_none() {
            plan.introduced();
        }
        if let Some(header) = plan.hop.introduction.as_ref().and_then(Introduction::header) {
            stream.write_all(&header).await.map_err(|_| OpenError::Io)?;
        }
        let hostname = self.hostname.clone();
        let options = Options { protocol: plan.hop.protocol(), hostname, tls };
        let mut link = Link {
            stream,
            client: Client::new(options),
            input: small_input(),
            opened: Instant::now(),
            is_only: false,
            interrupted: false,
            asked: Asked::default(),
            fell_back: false,
            passage: plan.passage(address.ip()),
        };
        metrics::counter!("sealgate_downstream_connections_total").increment(1);
        loop {
            let event = timeout_at(deadline, link.next()).await.map_err(|_| OpenError::Io)?;
            match event.map_err(|_| OpenError::Io)? {
                Event::Idle => match identity.take() {
                    Some(identity) => {
                        link.client.introduce(identity);
                        // Else it was not, because the server takes no introduction of ours.
                        if link.client.capabilities().xclient.address {
                            plan.introduced();
                        }
                    }
                    None => {
                        failpoint!("connect.greeted");
                        return Ok(link);
                    }
                },
                Event::StartTls => {
                    let began = Instant::now();
                    link = start_tls(link, plan, &config).await?;
                    deadline += began.elapsed();
                }
                Event::Failed(failure) => {
                    let is_introduced = plan.hop.introduces_client()
                        && identity.is_none()
                        && !link.client.is_tls_refused();
                    if failure == Failure::XclientNotOffered {
                        tracing::error!(%address, %failure, "[inside] client_address: authorise us there");
                    }
                    return Err(OpenError::of(failure, is_introduced));
                }
                Event::Admitted(_) | Event::Answer { .. } | Event::Checked(_) => {}
                Event::NeedInput | Event::Refused(_) => {}
            }
        }
    }
}

impl Plan<'_> {
    /// Where a client is introduced at all, the server has heard of it, or is about to.
    fn introduced(&self) {
        if let Some(attempt) = self.attempt.filter(|_| self.hop.introduces_client()) {
            attempt.introduced();
        }
    }

    /// A connection that is up, perhaps after TLS failed: whether it will do, and what it is.
    fn accept(
        &self,
        mut link: Link,
        failed: Option<&'static str>,
        clients: &Clients,
    ) -> Result<Link, Refusal> {
        if self.target.guard.requiretls && !link.client.capabilities().requiretls {
            return Err(Refusal::NextHopLacks(Extension::RequireTls));
        }
        let refused = link.client.is_tls_refused().then_some(VALIDATION_FAILURE);
        if refused.is_some() {
            let address = link.passage.address;
            tracing::warn!(%address, "TLS was refused downstream, going on without");
        }
        let failed = failed.or(refused);
        link.fell_back = failed.is_some() && link.stream.tls_description().is_none();
        let offered = link.client.capabilities();
        (link.passage.dsn, link.passage.smtputf8) = (offered.dsn, offered.smtputf8);
        let tls = link.stream.tls_description();
        link.passage.tls = tls.as_deref().and_then(|text| text.split_once(' ')).map(|parts| {
            let (version, cipher) = (parts.0.to_owned(), parts.1.to_owned());
            LinkReport { version, cipher, verified: self.verified }
        });
        let verified = link.passage.tls.as_ref().map_or("plain", |tls| tls.verified);
        metrics::counter!("sealgate_tls_sessions_total", "verified" => verified).increment(1);
        link.passage.mta_sts_testing = self.tested(&link, failed, clients);
        Ok(link)
    }

    /// What a policy in testing mode says of a connection, told to those who read logs and metrics (RFC 8461 §5).
    fn tested(
        &self,
        link: &Link,
        failed: Option<&'static str>,
        clients: &Clients,
    ) -> Option<&'static str> {
        let host = &self.target.host;
        let found = match self.target.guard.sts {
            // DANE comes first (§2).
            _ if matches!(self.assurance, Assurance::Dane(..)) => return None,
            Sts::Absent | Sts::Listed | Sts::Unlisted => return None,
            Sts::Tested { listed: false } => Err("sts-mx-mismatch"),
            Sts::Tested { listed: true } => match (link.stream.peer_certificates(), failed) {
                (_, Some(failed)) => Err(failed),
                (Some(chain), None) => clients.verify(host, chain),
                (None, None) => Err("starttls-not-supported"),
            },
        };
        if let Err(kind) = found {
            let address = link.passage.address;
            tracing::warn!(host, %address, kind, "MTA-STS, testing: would not be delivered to");
            metrics::counter!(FAILURES, "type" => format!("sts-testing-{kind}")).increment(1);
        }
        Some(found.err().unwrap_or("pass"))
    }

    fn passage(&self, address: IpAddr) -> Passage {
        let dnssec = self.target.guard.dnssec;
        let host = self.target.host.clone();
        Passage {
            host,
            address,
            dnssec,
            tls: None,
            mta_sts_testing: None,
            dsn: false,
            smtputf8: false,
        }
    }

    /// A server that is not what it must be.
    fn tls_refusal(&self, address: SocketAddr, kind: &'static str, why: &str) -> Refusal {
        let host = &self.target.host;
        let wanted = self.verified;
        tracing::warn!(host, %address, wanted, kind, why, "TLS that was demanded is not to be had");
        metrics::counter!(FAILURES, "type" => kind).increment(1);
        // What the recipient's domain published may be right again soon; whoever demands more gets his mail back.
        let is_certain = kind == "starttls-not-supported" || kind.starts_with("certificate");
        if self.target.guard.requiretls && self.verified == CERTIFICATE && is_certain {
            return Refusal::NextHopLacks(Extension::RequireTls);
        }
        let (detail, text) = match (kind, self.verified) {
            ("starttls-not-supported", _) => (4, "does not offer the TLS that is required"),
            (_, "none") => (5, "offers TLS that does not work"),
            _ => (5, "does not prove who it is"),
        };
        let text = format!("{host} {text} ({kind}), try again later");
        Refusal::NextHop(Reply::new(451, (4, 7, detail), text))
    }
}

/// Without those that this host has no route to, where there are others: what cannot be tried takes no time from the rest.
fn in_reach(
    addresses: Vec<SocketAddr>,
    has_route: impl Fn(&SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let some: Vec<SocketAddr> = match addresses.as_slice() {
        [] | [_] => Vec::new(),
        several => several.iter().filter(|address| has_route(address)).copied().collect(),
    };
    if some.is_empty() { addresses } else { some }
}

/// Asks the system, which sends nothing for that.
fn has_route(address: &SocketAddr) -> bool {
    #[cfg(test)]
    if super::schedules::are_running() {
        return true;
    }
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address)).is_ok()
}

async fn dial(address: SocketAddr) -> io::Result<Stream> {
    #[cfg(test)]
    if super::schedules::are_running() {
        return super::schedules::dial(address).await.map(Stream::Memory);
    }
    let stream = TcpStream::connect(address).await?;
    super::listener::prepare(&stream)?;
    Ok(Stream::Plain(stream))
}

async fn start_tls(
    mut link: Link,
    plan: &Plan<'_>,
    config: &Arc<ClientConfig>,
) -> Result<Link, OpenError> {
    let name = ServerName::try_from(plan.asked_for.to_owned())
        .map_err(|error| OpenError::Tls(io::Error::other(error)))?;
    let plain = link.stream.take_plain().ok_or(OpenError::Io)?;
    failpoint!("connect.starttls");
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, plain);
    let tls = tokio::time::timeout(HANDSHAKE_MAX, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(OpenError::Tls)?;
    let mut client = link.client;
    client.tls_started();
    let stream = Stream::Tls(Box::new(tls.into()));
    Ok(Link { stream, client, input: small_input(), ..link })
}

/// What a connection to a target must show, and how the log calls that.
fn assurance(target: &Target, reach: &Reach) -> Result<(Assurance, &'static str), Refusal> {
    let guard = &target.guard;
    let named = |names: &[Option<&String>]| -> Vec<ServerName<'static>> {
        let names = names.iter().flatten();
        names.filter_map(|name| ServerName::try_from((*name).clone()).ok()).collect()
    };
    let (host, domain) = (Some(&target.host), guard.domain.as_ref());
    if let Tlsa::Records(records) = &reach.tlsa {
        let names = named(&[reach.tlsa_base.as_ref(), host, domain]);
        return Ok((Assurance::Dane(records.clone(), names), "dane"));
    }
    match guard.sts {
        Sts::Absent | Sts::Tested { .. } => {}
        Sts::Listed => return Ok((Assurance::Named(named(&[host])), "mta-sts")),
        Sts::Unlisted => {
            metrics::counter!(FAILURES, "type" => "sts-mx-mismatch").increment(1);
            let text = format!("{} is not in its domain's MTA-STS policy", target.host);
            return Err(Refusal::NextHop(Reply::new(451, (4, 7, 5), text)));
        }
    }
    if guard.tls == LinkTls::Verify {
        // A name out of plain DNS proves nothing: whoever can forge the answer has a certificate for the name in it.
        // Without a domain it is the address that the recipient's address has in brackets.
        let is_sure = !target.absolute || guard.dnssec || domain.is_none();
        let names = named(&[host.filter(|_| is_sure), domain]);
        return Ok((Assurance::Named(names), CERTIFICATE));
    }
    let encrypted = guard.tls == LinkTls::Require || reach.tlsa == Tlsa::Unusable;
    Ok((if encrypted { Assurance::Encrypted } else { Assurance::Opportunistic }, "none"))
}

enum OpenError {
    Io,
    NotOffered,
    /// The client had been introduced by then, or not.
    Refused {
        reply: Reply,
        is_introduced: bool,
    },
    Tls(io::Error),
    /// Offered, and not started.
    TlsRefused(Reply),
}

impl OpenError {
    fn of(failure: Failure, is_introduced: bool) -> Self {
        match failure {
            Failure::Refused(reply) | Failure::Closing(reply) => {
                Self::Refused { reply, is_introduced }
            }
            Failure::TlsNotOffered => Self::NotOffered,
            Failure::TlsRefused(reply) => Self::TlsRefused(reply),
            _ => Self::Io,
        }
    }
}

/// Proven by an authority that we know.
const CERTIFICATE: &str = "certificate";
/// From the connection attempt to the answer to EHLO, the TLS handshake apart, where there are others to try.
pub(super) const OPENING_MAX: Duration = Duration::from_secs(30);
/// The same at the last of them: greet pauses hold off senders of spam (RFC 5321 §4.5.3.2.1).
const GREETING_MAX: Duration = Duration::from_secs(300);
/// Addresses of one host that are asked to take a message: a host with many, that takes none for now, is not to be asked by all.
const GREETINGS_MAX: usize = 2;
/// A TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// To one address: a family or a host that swallows everything does not use up the time of the others.
const CONNECT_MAX: Duration = Duration::from_secs(8);

#[cfg(test)]
pub(super) mod tests;
