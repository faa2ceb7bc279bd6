//! A client of key management servers: requests in, answers out, each within a deadline.
//!
//! Calls block; whoever calls does so on a thread for that. Connections are kept and come back by themselves: a request
//! that may be repeated is sent again over a new connection when a kept one turns out to be dead. A server that cannot
//! be reached is left alone for [`AWAY`], so that nobody waits for it with every message.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use zeroize::Zeroizing;

use super::message::{RequestMessage, ResponseMessage, Version};
use super::request::Request;
use super::response::{Failure, Response};
use super::socket::Socket;
use super::ttlv::{HEADER_BYTES, message_bytes};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KmipServer {
    /// TLS.
    Tls {
        /// Name or address, an IPv6 address without brackets.
        host: String,
        /// TCP port, [`super::PORT`] as a rule.
        port: u16,
    },
    /// A unix socket of `sealgate key-server` on this host.
    Unix(std::path::PathBuf),
}

impl fmt::Display for KmipServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why there is no answer to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server has answered, and refuses.
    Refused(Failure),
    /// No server can be reached, or what it says is no KMIP.
    Unavailable(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(failure) => failure.fmt(f),
            Self::Unavailable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for CallError {}

/// The client.
#[derive(Debug)]
pub struct Client {
    servers: Vec<Server>,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
}

#[derive(Debug)]
struct Server {
    address: KmipServer,
    kept: Mutex<Vec<Connection>>,
    away: Mutex<Option<(Instant, String)>>,
}

impl Client {
    /// A client that connects with the first request. `tls` is needed for servers that are reached over TLS.
    pub fn new(
        servers: impl IntoIterator<Item = KmipServer>,
        tls: Option<Arc<ClientConfig>>,
        timeout: Duration,
    ) -> Self {
        let server = |address| Server { address, kept: Mutex::default(), away: Mutex::default() };
        Self { servers: servers.into_iter().map(server).collect(), tls, timeout }
    }

    /// Asks the first server that can be reached.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn call(&self, request: Request) -> Result<Response, CallError> {
        let deadline = Instant::now() + self.timeout;
        let repeatable = is_repeatable(&request);
        self.on_a_server(|server| {
            if repeatable && let Some(mut kept) = server.take() {
                let answer = kept.exchange(&request, deadline);
                // Closed while nobody used it, say: a new connection will tell.
                if let Ok(answer) = answer {
                    server.keep(kept);
                    return Ok(answer);
                }
            }
            let mut connection = self.connect(server, deadline)?;
            let answer = connection.exchange(&request, deadline)?;
            server.keep(connection);
            Ok(answer)
        })?
        .map_err(CallError::Refused)
    }

    /// One connection of its own, for requests that belong together.
    ///
    /// # Errors
    /// [`CallError::Unavailable`]
    pub fn session(&self) -> Result<Session, CallError> {
        let deadline = Instant::now() + self.timeout;
        let connection = self.on_a_server(|server| self.connect(server, deadline))?;
        Ok(Session { connection, timeout: self.timeout })
    }

    /// The servers, for messages.
    pub fn names(&self) -> String {
        self.servers.iter().map(|s| s.address.to_string()).collect::<Vec<_>>().join(", ")
    }

    fn on_a_server<T>(
        &self,
        mut work: impl FnMut(&Server) -> io::Result<T>,
    ) -> Result<T, CallError> {
        let mut reasons = Vec::new();
        for server in &self.servers {
            if let Some(reason) = server.is_away() {
                reasons.push(reason);
                continue;
            }
            match work(server) {
                Ok(result) => return Ok(result),
                Err(error) => reasons.push(server.went_away(&error)),
            }
        }
        Err(CallError::Unavailable(reasons.join("; ")))
    }

    fn connect(&self, server: &Server, deadline: Instant) -> io::Result<Connection> {
        let stream = match &server.address {
            KmipServer::Unix(path) => Stream::Plain(Socket::unix(path, deadline)?),
            KmipServer::Tls { host, port } => {
                let config = self.tls.as_ref().ok_or_else(|| other("no TLS files are given"))?;
                let name = ServerName::try_from(host.clone()).map_err(other)?;
                let addresses = (host.as_str(), *port).to_socket_addrs()?;
                let socket = Socket::tcp(addresses, deadline)?;
                let tls = ClientConnection::new(Arc::clone(config), name).map_err(other)?;
                Stream::Tls(Box::new(StreamOwned::new(tls, socket)))
            }
        };
        Connection::open(stream, deadline)
    }
}

impl Server {
    fn take(&self) -> Option<Connection> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(connection);
        }
    }

    fn is_away(&self) -> Option<String> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, reason) = away.as_ref()?;
        (Instant::now() < *until).then(|| reason.clone())
    }

    fn went_away(&self, error: &io::Error) -> String {
        let reason = format!("{}: {error}", self.address);
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        *away = Some((Instant::now() + AWAY, reason.clone()));
        // Those that were kept are as dead as this one.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        reason
    }
}

/// A connection of one's own.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    timeout: Duration,
}

impl Session {
    /// Asks over this connection.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn call(&mut self, request: &Request) -> Result<Response, CallError> {
        let deadline = Instant::now() + self.timeout;
        let answer = self.connection.exchange(request, deadline);
        let answer = answer.map_err(|error| CallError::Unavailable(error.to_string()))?;
        answer.map_err(CallError::Refused)
    }
}

struct Connection {
    stream: Stream,
    version: Version,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?})", self.version)
    }
}

impl Connection {
    /// Agrees on a version (KMIP 1.4 §4.26).
    fn open(stream: Stream, deadline: Instant) -> io::Result<Self> {
        // Whoever speaks one of ours speaks the oldest of them.
        let [.., oldest] = Version::SPOKEN;
        let mut connection = Self { stream, version: oldest };
        match connection.exchange(&Request::DiscoverVersions, deadline)? {
            Ok(Response::Versions(theirs)) => {
                let best = Version::SPOKEN.into_iter().find(|ours| theirs.contains(ours));
                let none = || other("the server speaks none of KMIP 1.2, 1.3 and 1.4");
                connection.version = best.ok_or_else(none)?;
                Ok(connection)
            }
            Ok(answer) => Err(other(format!("an odd answer to Discover Versions: {answer:?}"))),
            Err(failure) => Err(other(format!("Discover Versions: {failure}"))),
        }
    }

    /// One request, one answer. After an error the connection is of no use.
    fn exchange(
        &mut self,
        request: &Request,
        deadline: Instant,
    ) -> io::Result<Result<Response, Failure>> {
        self.stream.socket().until(deadline);
        let message = RequestMessage::one(self.version, request.clone()).encode();
        self.stream.write_all(&message)?;
        self.stream.flush()?;
        let mut items = ResponseMessage::decode(&self.answer()?).map_err(other)?.items;
        let item = items.pop().filter(|_| items.is_empty());
        let item = item.ok_or_else(|| other("not one answer to one request"))?;
        let asked = request.operation();
        match (item.operation, item.result) {
            (Some(operation), Ok(response)) if operation == asked => Ok(Ok(response)),
            (_, Ok(_)) => Err(other("the answer to another request")),
            (_, Err(failure)) => Ok(Err(failure)),
        }
    }
}

impl Connection {
    /// One message, with one read as a rule. Nothing may follow it, because nothing else was asked.
    fn answer(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut first = Zeroizing::new([0; READ_BYTES]);
        let mut filled = 0_usize;
        while filled < HEADER_BYTES {
            match self.stream.read(first.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let header = first.first_chunk().ok_or_else(|| other("no header"))?;
        let length = message_bytes(header).map_err(other)?;
        let begun = first.get(..filled).unwrap_or_default();
        let mut answer = Zeroizing::new(vec![0; length]);
        let (start, rest) = answer
            .split_at_mut_checked(filled)
            .ok_or_else(|| other("more than one answer to one request"))?;
        start.copy_from_slice(begun);
        self.stream.read_exact(rest)?;
        Ok(answer)
    }
}

enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// Whether it does no harm to ask twice.
fn is_repeatable(request: &Request) -> bool {
    match request {
        Request::Decrypt(_)
        | Request::DiscoverVersions
        | Request::Get { .. }
        | Request::GetAttributes { .. }
        | Request::Locate { .. }
        | Request::Query(_)
        | Request::Sign(_) => true,
        Request::Activate { .. }
        | Request::Destroy { .. }
        | Request::Register { .. }
        | Request::Revoke { .. }
        | Request::Unsupported(_) => false,
    }
}

fn other(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(why)
}

/// How long a server that could not be reached is left alone.
pub const AWAY: Duration = Duration::from_secs(1);
/// Connections kept to one server: as many as crypto threads may use at once.
const KEPT_MAX: usize = 16;
/// A signature or a content-encryption key comes in less.
const READ_BYTES: usize = 1024;
