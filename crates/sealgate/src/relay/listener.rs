//! The three entrances, and who may come in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::Direction;
use sealgate_core::smtp::Protocol;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::Relay;
use super::budget::Connection;
use super::session::Session;
use super::stream::Stream;

/// Where a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// LMTP from the mail server.
    InsideLmtp,
    /// SMTP from the mail server.
    InsideSmtp,
    /// SMTP from the Internet.
    OutsideSmtp,
}

impl Entrance {
    /// All three.
    pub(crate) const ALL: [Self; 3] = [Self::InsideLmtp, Self::InsideSmtp, Self::OutsideSmtp];

    /// Which way its messages go.
    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::InsideLmtp | Self::InsideSmtp => Direction::Outbound,
            Self::OutsideSmtp => Direction::Inbound,
        }
    }

    /// The protocol spoken there.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::InsideLmtp => Protocol::Lmtp,
            Self::InsideSmtp | Self::OutsideSmtp => Protocol::Smtp,
        }
    }

    /// As in the `ready` line, the log and the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InsideLmtp => "inside-lmtp",
            Self::InsideSmtp => "inside-smtp",
            Self::OutsideSmtp => "outside-smtp",
        }
    }
}

/// Opens a listening socket.
///
/// # Errors
/// What the system says.
pub(crate) fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes connections until the relay drains.
pub(crate) async fn serve(relay: Arc<Relay>, entrance: Entrance, listener: TcpListener) {
    let mut draining = relay.draining.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&relay, entrance, stream, peer),
                Err(error) => {
                    // Out of descriptors, most likely: sessions that end will free some.
                    tracing::warn!(%error, entrance = entrance.name(), "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = draining.changed() => return,
        }
    }
}

fn admit(relay: &Arc<Relay>, entrance: Entrance, stream: TcpStream, peer: SocketAddr) {
    failpoint!(blocking "listener.accepted");
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "a connection broke before it was served");
        return;
    }
    metrics::counter!("sealgate_connections_total", "entrance" => entrance.name()).increment(1);
    let local = stream.local_addr().unwrap_or(peer);
    let session = session(relay, entrance, (Stream::Plain(stream), local, peer));
    tokio::spawn(session.run());
}

/// A connection that is no session's.
#[derive(Debug)]
pub(crate) struct TurnedAway {
    /// The one thing that is said.
    pub(super) reply: Reply,
    /// While the client is heard nevertheless, so that it hears that; none where others are heard who are too many.
    pub(super) place: Option<Connection>,
}

/// A session on a connection between these two addresses, ours first.
pub(super) fn session(
    relay: &Arc<Relay>,
    entrance: Entrance,
    connection: (Stream, SocketAddr, SocketAddr),
) -> Session {
    let peer = connection.2;
    let admission = admission(relay, entrance, peer);
    let admission =
        admission.map_err(|reply| TurnedAway { reply, place: relay.connections.refuse(peer.ip()) });
    failpoint!(blocking "listener.admitted");
    Session::new(Arc::clone(relay), relay.settings(), entrance, connection, admission)
}

/// Who may hand us plain mail is configured; from the Internet anybody may come, but not too often at once (K9).
fn admission(
    relay: &Arc<Relay>,
    entrance: Entrance,
    peer: SocketAddr,
) -> Result<Connection, Reply> {
    let settings = relay.settings();
    if *relay.draining.borrow() {
        return Err(Reply::from(&Refusal::ShuttingDown));
    }
    let inside = entrance.direction() == Direction::Outbound;
    let allowed = &settings.config.inside.allow;
    if inside && !allowed.iter().any(|network| network.contains(peer.ip())) {
        return Err(Reply::new(554, (5, 7, 1), "you may not hand over mail here"));
    }
    let limits = &settings.config.limits;
    // The mail server is one address with many connections.
    let per_address_max =
        if inside { limits.connections_max } else { limits.connections_per_address_max };
    relay
        .connections
        .of(entrance.direction())
        .admit(peer.ip(), per_address_max, limits.connections_max)
        .ok_or_else(|| Reply::new(421, (4, 7, 0), "too many connections, try again later"))
}

/// No delay for small replies, and half-open peers are noticed (REQUIREMENTS §5 row 16).
///
/// # Errors
/// What the system says.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Silence before the system probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
