//! New connections: the targets of a hop in their order, their addresses, TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::smtp::client::{Client, Event, Failure, Options, Tls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::deliver::{Downstream, passed_on};
use super::introduction::Introduction;
use super::link::{Asked, Link};
use super::route::Hop;
use super::stream::Stream;

impl Downstream {
    /// Tries the targets and their addresses in turn.
    pub(super) async fn connect(&self, hop: &Hop) -> Result<Link, Refusal> {
        let mut permanent = None;
        let mut temporary = None;
        for target in &hop.targets {
            failpoint!("connect.look_up");
            let Ok(addresses) = self.router.addresses(target).await else {
                temporary.get_or_insert(Refusal::NextHopUnreachable);
                continue;
            };
            failpoint!("connect.looked_up");
            for address in addresses {
                match self.open(hop, &target.host, address).await {
                    Ok(link) => return Ok(link),
                    Err(refusal) if Reply::from(&refusal).is_permanent() => {
                        permanent.get_or_insert(refusal);
                    }
                    Err(refusal) => {
                        temporary.get_or_insert(refusal);
                    }
                }
            }
        }
        failpoint!("connect.failed");
        metrics::counter!("sealgate_next_hop_failures_total").increment(1);
        // For good only where every host said so: a primary that is away comes back (RFC 5321 §5.1).
        Err(temporary.or(permanent).unwrap_or(Refusal::NextHopUnreachable))
    }

    /// Opens one connection; where opportunistic TLS fails, once more without.
    async fn open(&self, hop: &Hop, host: &str, address: SocketAddr) -> Result<Link, Refusal> {
        for tls in [Tls::IfOffered, Tls::Off] {
            let opening = self.open_with(hop, host, address, tls);
            match tokio::time::timeout(OPENING_MAX, opening).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(OpenError::Tls(error))) => {
                    tracing::warn!(%address, %error, "TLS failed downstream, going on without");
                }
                Ok(Err(OpenError::Refused(reply))) => return Err(passed_on(hop, &reply)),
                Ok(Err(OpenError::Io)) | Err(_) => return Err(Refusal::NextHopUnreachable),
            }
        }
        Err(Refusal::NextHopUnreachable)
    }

    async fn open_with(
        &self,
        hop: &Hop,
        host: &str,
        address: SocketAddr,
        tls: Tls,
    ) -> Result<Link, OpenError> {
        failpoint!("connect.open");
        let mut stream = TcpStream::connect(address).await.map_err(|_| OpenError::Io)?;
        failpoint!("connect.opened");
        super::listener::prepare(&stream).map_err(|_| OpenError::Io)?;
        if let Some(header) = hop.introduction.as_ref().and_then(Introduction::header) {
            stream.write_all(&header).await.map_err(|_| OpenError::Io)?;
        }
        let mut identity = hop.introduction.as_ref().and_then(Introduction::identity);
        let hostname = self.hostname.clone();
        let options = Options { protocol: hop.protocol(), hostname, tls };
        let mut link = Link {
            stream: Stream::Plain(stream),
            client: Client::new(options),
            input: BytesMut::new(),
            interrupted: false,
            asked: Asked::default(),
        };
        metrics::counter!("sealgate_downstream_connections_total").increment(1);
        loop {
            match link.next().await.map_err(|_| OpenError::Io)? {
                Event::Idle => match identity.take() {
                    Some(identity) => link.client.introduce(identity),
                    None => {
                        failpoint!("connect.greeted");
                        return Ok(link);
                    }
                },
                Event::StartTls => link = self.start_tls(link, host).await?,
                Event::Failed(Failure::Refused(reply) | Failure::Closing(reply)) => {
                    return Err(OpenError::Refused(reply));
                }
                Event::Failed(failure @ Failure::XclientNotOffered) => {
                    tracing::error!(%address, %failure, "[inside] client_address: authorise us there");
                    return Err(OpenError::Io);
                }
                Event::Failed(_) => return Err(OpenError::Io),
                Event::Admitted(_) | Event::Answer { .. } | Event::Checked(_) => {}
                Event::NeedInput | Event::Refused(_) => {}
            }
        }
    }

    async fn start_tls(&self, mut link: Link, host: &str) -> Result<Link, OpenError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| OpenError::Tls(io::Error::other(error)))?;
        failpoint!("connect.starttls");
        let plain = link.stream.take_plain().ok_or(OpenError::Io)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, plain)
            .await
            .map_err(OpenError::Tls)?;
        failpoint!("connect.tls_started");
        let mut client = link.client;
        client.tls_started();
        let stream = Stream::Tls(Box::new(tls.into()));
        Ok(Link { stream, client, input: BytesMut::new(), ..link })
    }
}

enum OpenError {
    Io,
    Refused(Reply),
    Tls(io::Error),
}

/// From the connection attempt to the answer to EHLO, TLS included.
const OPENING_MAX: Duration = Duration::from_secs(30);
