//! TCP to the servers of stores: to one of the addresses of a name, in time.
//!
//! In: the addresses of a server, and when it must have answered. Out: a connection to the first that took it, each tried
//! for an even share of the time that is left, so that one that is silent (a firewall that drops, a host that is off)
//! leaves some to the next.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::time::timeout;

/// Connects, on a task.
///
/// # Errors
/// Of the last address that was tried.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> io::Result<tokio::net::TcpStream> {
    let mut last = no_address();
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let connecting = tokio::net::TcpStream::connect(address);
        match timeout(share(deadline, left)?, connecting).await.unwrap_or_else(|_| Err(late())) {
            Ok(stream) => {
                prepare(SockRef::from(&stream))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The same on a thread that may wait.
///
/// # Errors
/// As [`connect`].
pub(crate) fn connect_blocking(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> io::Result<TcpStream> {
    let mut last = no_address();
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        match TcpStream::connect_timeout(address, share(deadline, left)?) {
            Ok(stream) => {
                prepare(SockRef::from(&stream))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What the next of so many addresses gets of the time.
fn share(deadline: Instant, left: usize) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    let share = remaining.checked_div(left).unwrap_or(remaining);
    if share.is_zero() { Err(late()) } else { Ok(share) }
}

/// Small packets go at once, and a connection that a firewall would forget is spoken on, and ends where it was forgotten.
fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no address for this name")
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no connection in time")
}

/// Silence before the system probes, far below the minutes after which firewalls forget.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// An address that takes nothing and refuses nothing, as long as this is held: nobody accepts there, and its queue is full.
    fn silent() -> (SocketAddr, Socket, Vec<TcpStream>) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200));
        let queued = std::iter::from_fn(|| connect().ok()).collect();
        (address, socket, queued)
    }

    fn listening() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_leaves_time_to_the_next() {
        let ((silent, _socket, _queued), (good, _listener)) = (silent(), listening());
        for addresses in [vec![silent, silent, good], vec![silent, good, silent], vec![good]] {
            let began = Instant::now();
            let deadline = began + Duration::from_secs(6);
            let blocking = connect_blocking(&addresses, deadline).unwrap();
            assert_eq!(blocking.peer_addr().unwrap(), good);
            let socket = SockRef::from(&blocking);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());

            let deadline = Instant::now() + Duration::from_secs(6);
            let stream = connect(&addresses, deadline).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good);
            assert!(SockRef::from(&stream).keepalive().unwrap());
        }
    }

    #[tokio::test]
    async fn where_no_address_answers_that_is_said_in_time() {
        let (silent, _socket, _queued) = silent();
        let time = Duration::from_millis(600);
        for addresses in [vec![], vec![silent], vec![silent, silent]] {
            let began = Instant::now();
            assert!(connect_blocking(&addresses, began + time).is_err());
            assert!(connect(&addresses, Instant::now() + time).await.is_err());
            assert!(began.elapsed() < time * 3, "{:?}", began.elapsed());
        }
    }
}
