//! The two entrances, TLS and the unix socket, and who is at the other end.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealgate_keys::tls_names;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::KeyServer;
use super::audit::directory_of;
use super::entitlement::Peer;
use super::session::Session;
use crate::relay::listener::prepare;

/// Makes the socket, mode 0660. One that a dead server left is replaced.
///
/// # Errors
/// A server listens there already, something else is in the way, or what the system says.
pub(super) fn open_socket(path: &Path) -> io::Result<UnixListener> {
    let said = |why: &dyn std::fmt::Display| of_socket(path, why);
    if path.symlink_metadata().is_ok() {
        look(path)?;
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(said(&"another server listens there")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(|error| said(&error))?;
            }
            Err(error) => return Err(said(&error)),
        }
    }
    let listener = UnixListener::bind(path).map_err(|error| said(&error))?;
    let mode = std::fs::Permissions::from_mode(SOCKET_MODE);
    std::fs::set_permissions(path, mode).map_err(|error| said(&error))?;
    Ok(listener)
}

/// Whether the socket could be made, or is there.
///
/// # Errors
/// What is in the way.
pub(super) fn look(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => Ok(()),
        Ok(_) => Err(of_socket(path, &"exists and is no socket: correct [key_server] socket")),
        Err(_) => directory_of(path).map_err(|error| of_socket(path, &error)),
    }
}

fn of_socket(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// Takes connections over TLS until the server drains.
pub(super) async fn serve_tls(server: Arc<KeyServer>, listener: TcpListener) {
    let mut draining = server.draining.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => admit_tls(&server, stream, address),
                Err(error) => pause(&error).await,
            },
            _ = draining.changed() => return,
        }
    }
}

/// Takes connections over the unix socket until the server drains.
pub(super) async fn serve_socket(server: Arc<KeyServer>, listener: UnixListener) {
    let mut draining = server.draining.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit_socket(&server, stream),
                Err(error) => pause(&error).await,
            },
            _ = draining.changed() => return,
        }
    }
}

fn admit_tls(server: &Arc<KeyServer>, stream: TcpStream, address: SocketAddr) {
    let from = network_of(address.ip());
    // Strangers have places of their own: those who are known are not kept out by them.
    let place = server.strangers.admit(&from, HANDSHAKES_PER_PEER_MAX, HANDSHAKES_MAX);
    let Some(place) = place else {
        tracing::warn!(peer = from, "too many connections that have not shown a certificate");
        return;
    };
    let settings = server.settings();
    let (Some(tls), Some(authorities)) = (settings.tls.clone(), settings.authorities.clone())
    else {
        tracing::warn!(
            peer = from,
            "closed: a reload took [key_server] listen away, restart to close the port"
        );
        return;
    };
    let Ok(stream) = stream.into_std() else { return };
    let served = Arc::clone(server);
    server.lanes.serve(async move {
        let server = served;
        let handshake = async {
            let stream = TcpStream::from_std(stream)?;
            prepare(&stream)?;
            TlsAcceptor::from(tls).accept(stream).await
        };
        let stream = match tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::info!(peer = %address, %error, "TLS refused");
                return;
            }
            Err(_) => return,
        };
        drop(place);
        let Some(_place) = server.places.admit(&from, CONNECTIONS_PER_PEER_MAX, CONNECTIONS_MAX)
        else {
            tracing::warn!(peer = from, "too many connections");
            return;
        };
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let names = certificate.map(|der| tls_names::of_certificate(der)).unwrap_or_default();
        let peer = Peer::Tls { address, names, authorities };
        Session { server, peer, stream }.run().await;
    });
}

/// Whom an address counts for: of IPv6 the network that one customer has.
fn network_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        IpAddr::V4(address) => address.to_string(),
    }
}

fn admit_socket(server: &Arc<KeyServer>, stream: UnixStream) {
    let credentials = match stream.peer_cred() {
        Ok(credentials) => credentials,
        Err(error) => {
            tracing::warn!(%error, "who is at the other end of the socket cannot be told");
            return;
        }
    };
    let peer = Peer::Unix { uid: credentials.uid(), pid: credentials.pid() };
    let from = peer.names();
    let place = server.local_places.admit(&from, CONNECTIONS_PER_PEER_MAX, CONNECTIONS_MAX);
    let Some(place) = place else {
        tracing::warn!(peer = from, "too many connections");
        return;
    };
    let Ok(stream) = stream.into_std() else { return };
    let served = Arc::clone(server);
    server.lanes.serve(async move {
        let (server, _place) = (served, place);
        let Ok(stream) = UnixStream::from_std(stream) else { return };
        Session { server, peer, stream }.run().await;
    });
}

/// Out of descriptors, most likely: sessions that end will free some.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// The owner and the group: the relays' users are in that.
const SOCKET_MODE: u32 = 0o660;
/// Connections in all, of each entrance.
const CONNECTIONS_MAX: usize = 256;
/// Connections of one network address or user, before it is known which client it is.
const CONNECTIONS_PER_PEER_MAX: usize = 128;
/// Connections that have not shown a certificate yet, in all and of one network address.
const HANDSHAKES_MAX: usize = 384;
const HANDSHAKES_PER_PEER_MAX: usize = 64;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_count_as_one() {
        for (address, network) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network, "{address}");
        }
    }
}
