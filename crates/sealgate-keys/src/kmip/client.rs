//! A client of key management servers: requests in, answers out, each within a deadline.
//!
//! Calls block; whoever calls does so on a thread for that. Connections are kept and come back by themselves: a request
//! that may be repeated is sent again over a new connection when a kept one turns out to be dead, for which half of the
//! time is left: a firewall that forgot a connection says nothing. A server that cannot be reached is left alone for [`AWAY`], so that nobody waits for it with every message. Whoever asks goes through
//! [`Client::in_order`] and [`At::visit`]: identifiers and abilities are one server's own.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use zeroize::Zeroizing;

use super::message::{RequestMessage, ResponseMessage, Version};
use super::permits::{Permit, Permits};
use super::request::Request;
use super::response::{Failure, Response};
use super::socket::Socket;
use super::ttlv::{HEADER_BYTES, message_bytes};
use super::waiting::Waiting;

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
    /// No server can be reached, or what it says is no KMIP, or cannot be read in answer to this request.
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
    /// Those that were used last stand at the end.
    kept: Mutex<Vec<Kept>>,
    away: Mutex<Option<Away>>,
    /// How often it went away: what was learned of it before may be true no longer.
    times_away: AtomicU64,
    permits: Permits,
    /// Threads that resolve its name or wait for its backlog.
    waiting: Waiting,
}

/// A connection that nobody uses.
#[derive(Debug)]
struct Kept {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Away {
    until: Instant,
    why: String,
}

/// One server that is not left alone now, and how long it may take for one answer.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    client: &'a Client,
    server: &'a Server,
    index: usize,
    limit: Duration,
}

impl Client {
    /// A client that connects with the first request. `tls` is needed for servers that are reached over TLS; `timeout` is
    /// what one answer may take, the servers that have to be tried for it together; `connections` is how many visits
    /// one server has at the same time.
    pub fn new(
        servers: impl IntoIterator<Item = KmipServer>,
        tls: Option<Arc<ClientConfig>>,
        timeout: Duration,
        connections: usize,
    ) -> Self {
        let server = |address| Server {
            address,
            kept: Mutex::default(),
            away: Mutex::default(),
            times_away: AtomicU64::new(0),
            permits: Permits::new(connections),
            waiting: Waiting::default(),
        };
        Self { servers: servers.into_iter().map(server).collect(), tls, timeout }
    }

    /// The servers that are not left alone now, in the order of the configuration. Each gets an even share of the time, so
    /// that one that hangs leaves some to the next.
    pub fn in_order(&self) -> Vec<At<'_>> {
        let servers = self.servers.iter().enumerate();
        let there: Vec<_> = servers.filter(|(_, server)| server.is_away().is_none()).collect();
        let share = u32::try_from(there.len()).unwrap_or(u32::MAX).max(1);
        let limit = self.timeout.checked_div(share).unwrap_or(self.timeout);
        let at = |(index, server)| At { client: self, server, index, limit };
        there.into_iter().map(at).collect()
    }

    /// Every server, whether it was away or not, with the whole time for each: for those who look after them.
    pub fn each(&self) -> impl Iterator<Item = (&KmipServer, At<'_>)> {
        self.servers.iter().enumerate().map(|(index, server)| {
            (&server.address, At { client: self, server, index, limit: self.timeout })
        })
    }

    /// Why the others are left alone.
    pub fn why_away(&self) -> Vec<String> {
        self.servers.iter().filter_map(Server::is_away).collect()
    }

    /// The servers, for messages.
    pub fn names(&self) -> String {
        self.servers.iter().map(|s| s.address.to_string()).collect::<Vec<_>>().join(", ")
    }

    fn connect(&self, server: &Server, deadline: Instant) -> io::Result<Connection> {
        let stream = match &server.address {
            KmipServer::Unix(path) => Stream::Plain(Socket::unix(path, &server.waiting, deadline)?),
            KmipServer::Tls { host, port } => {
                let config = self.tls.as_ref().ok_or_else(|| other("no TLS files are given"))?;
                let name = ServerName::try_from(host.clone()).map_err(other)?;
                let addresses = server.resolve(host, *port, deadline)?;
                let socket = Socket::tcp(&addresses, deadline)?;
                let tls = ClientConnection::new(Arc::clone(config), name).map_err(other)?;
                Stream::Tls(Box::new(StreamOwned::new(tls, socket)))
            }
        };
        Connection::open(stream, deadline)
    }
}

impl<'a> At<'a> {
    /// A visit to this server, as soon as it is one's turn.
    ///
    /// # Errors
    /// [`CallError::Unavailable`] where it is not in time, or the server went away meanwhile.
    pub fn visit(self) -> Result<Visit<'a>, CallError> {
        let permits = &self.server.permits;
        if let Some(turn) = permits.take(Duration::ZERO) {
            return Ok(Visit { at: self, _turn: turn });
        }
        let turn = permits.take(self.limit).ok_or_else(|| {
            let text = "no connection became free in time";
            CallError::Unavailable(format!("{}: {text}", self.server.address))
        })?;
        // Given back by one who found the server away: who has waited need not find out again.
        match self.server.is_away() {
            Some(why) => Err(CallError::Unavailable(why)),
            None => Ok(Visit { at: self, _turn: turn }),
        }
    }

    /// Its place in the configuration, from 0.
    pub fn index(self) -> usize {
        self.index
    }
}

/// A visit to one server. So many are there at once; requests that belong together are one visit, so that those who came
/// first are through first, and not all of them late. Who is on a visit begins no other one there: it could wait for
/// itself.
#[derive(Debug)]
pub struct Visit<'a> {
    at: At<'a>,
    _turn: Permit<'a>,
}

impl Visit<'_> {
    /// Asks this server.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn call(&self, request: &Request) -> Result<Response, CallError> {
        let At { client, server, limit, .. } = self.at;
        // The wait for one's turn is not the server's: it has its whole share.
        let began = Instant::now();
        let deadline = began + limit;
        if is_repeatable(request)
            && let Some(Kept { mut connection, since }) = server.take(began)
        {
            // One that was used just now was not forgotten on the way: who is slow has his whole share.
            let is_fresh = began.saturating_duration_since(since) < FRESH;
            match connection.exchange(request, began + if is_fresh { limit } else { limit / 2 }) {
                Ok(answer) => {
                    server.keep(connection);
                    return answer.map_err(|why| server.no_answer(why));
                }
                // Closed while nobody used it, say, or forgotten on the way: a new connection will tell.
                Err(_) => server.forget(began),
            }
        }
        let answered = client.connect(server, deadline).and_then(|mut connection| {
            let answer = connection.exchange(request, deadline)?;
            server.keep(connection);
            Ok(answer)
        });
        let answer = answered.map_err(|error| self.went_away(&error))?;
        answer.map_err(|why| server.no_answer(why))
    }

    /// One connection of its own, for requests that only make sense together.
    ///
    /// # Errors
    /// [`CallError::Unavailable`]
    pub fn session(&self) -> Result<Session, CallError> {
        let At { client, server, limit, .. } = self.at;
        let connection = client.connect(server, Instant::now() + limit);
        let connection = connection.map_err(|error| self.went_away(&error))?;
        Ok(Session { connection, limit })
    }

    /// Its place in the configuration, from 0.
    pub fn index(&self) -> usize {
        self.at.index
    }

    /// How often it went away so far: what was learned of it before may be true no longer.
    pub fn times_away(&self) -> u64 {
        self.at.server.times_away.load(Ordering::Acquire)
    }

    fn went_away(&self, error: &io::Error) -> CallError {
        let At { client, server, .. } = self.at;
        // Who waits for a hung server loses his share each time, which another server could use.
        let hangs = error.kind() == io::ErrorKind::TimedOut && client.servers.len() > 1;
        CallError::Unavailable(server.went_away(error, if hangs { HUNG } else { AWAY }))
    }
}

impl Server {
    /// The one that was used last, unless that is too long ago.
    fn take(&self, now: Instant) -> Option<Kept> {
        let mut kept = self.kept();
        let is_of_use = |kept: &Kept| now.saturating_duration_since(kept.since) < IDLE_MAX;
        kept.retain(is_of_use);
        kept.pop()
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept();
        if kept.len() < KEPT_MAX {
            kept.push(Kept { connection, since: Instant::now() });
        }
    }

    /// One that was kept was dead at this time: so may those be that nobody used since, and each would take its time.
    fn forget(&self, at: Instant) {
        self.kept().retain(|kept| kept.since > at);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_away(&self) -> Option<String> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.as_ref().filter(|away| Instant::now() < away.until).map(|away| away.why.clone())
    }

    fn went_away(&self, error: &io::Error, pause: Duration) -> String {
        let why = format!("{}: {error}", self.address);
        self.times_away.fetch_add(1, Ordering::AcqRel);
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        *away = Some(Away { until: Instant::now() + pause, why: why.clone() });
        // Those that were kept are as dead as this one.
        self.kept().clear();
        why
    }

    /// Names it to whoever asked, and to nobody else.
    fn no_answer(&self, why: NoAnswer) -> CallError {
        match why {
            NoAnswer::Refused(failure) => CallError::Refused(failure),
            NoAnswer::Unreadable(why) => CallError::Unavailable(format!("{}: {why}", self.address)),
        }
    }

    fn resolve(&self, host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let host = host.to_owned();
        let look_up = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        self.waiting.until(deadline, look_up)
    }
}

/// A connection of one's own.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    limit: Duration,
}

impl Session {
    /// Asks over this connection.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn call(&mut self, request: &Request) -> Result<Response, CallError> {
        let answer = self.connection.exchange(request, Instant::now() + self.limit);
        let answer = answer.map_err(|error| CallError::Unavailable(error.to_string()))?;
        answer.map_err(|why| match why {
            NoAnswer::Refused(failure) => CallError::Refused(failure),
            NoAnswer::Unreadable(why) => CallError::Unavailable(why),
        })
    }
}

/// Why an exchange that went well gave no answer. The connection is as good as before, and so is the server for others.
#[derive(Debug)]
enum NoAnswer {
    Refused(Failure),
    Unreadable(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(failure) => failure.fmt(f),
            Self::Unreadable(why) => f.write_str(why),
        }
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
    ) -> io::Result<Result<Response, NoAnswer>> {
        self.stream.socket().until(deadline);
        let message = RequestMessage::one(self.version, request.clone()).encode();
        self.stream.write_all(&message)?;
        self.stream.flush()?;
        let answer = self.answer()?;
        let item = ResponseMessage::only_item(&answer).map_err(other)?;
        if item.is_success() && item.operation != Some(request.operation()) {
            return Err(other("the answer to another request"));
        }
        Ok(match item.read() {
            Ok(result) => result.map_err(NoAnswer::Refused),
            Err(error) => Err(NoAnswer::Unreadable(format!(
                "the answer to {request:?} cannot be read: {error}"
            ))),
        })
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
/// The same where it hung, and another can answer meanwhile.
const HUNG: Duration = Duration::from_secs(4);
/// Visits to one server at once, at most and unless the configuration says otherwise. With those that are kept their
/// connections stay far below the 64 that our own server grants one client, which an administrator's commands beside the
/// relay, and its former stores after a reload, take up too.
pub const CONNECTIONS_MAX: usize = 24;
/// As many as may connect at once: whoever finds no thread for it would take the server for away.
const _: () = assert!(CONNECTIONS_MAX < super::waiting::LEFT_MAX);
/// Connections kept to one server while nobody uses them.
const KEPT_MAX: usize = 16;
/// How long, below the minutes after which a firewall or a server ends what is not used.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a connection is as good as in use.
const FRESH: Duration = Duration::from_secs(10);
/// A signature or a content-encryption key comes in less.
const READ_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::kmip::enumeration::Operation;
    use crate::kmip::message::ResponseItem;

    const QUERY: Request = Request::DiscoverVersions;

    fn client(servers: &[&std::path::Path], timeout: Duration) -> Client {
        let servers = servers.iter().map(|path| KmipServer::Unix(path.to_path_buf()));
        Client::new(servers, None, timeout, CONNECTIONS_MAX)
    }

    /// A server that takes connections and never says a word.
    #[test]
    fn a_server_that_hangs_gets_a_share_of_the_time_and_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let [hung, gone] = ["hung", "gone"].map(|name| directory.path().join(name));
        let _listener = UnixListener::bind(&hung).unwrap();
        let timeout = Duration::from_secs(4);
        let both = client(&[&hung, &gone], timeout);
        let order = both.in_order();
        assert_eq!(order.iter().map(|at| at.index()).collect::<Vec<_>>(), [0, 1]);
        let began = Instant::now();
        let refused = order.first().unwrap().visit().unwrap().call(&QUERY).unwrap_err();
        assert!(refused.to_string().contains("no answer in time"), "{refused}");
        assert!(began.elapsed() >= timeout / 2 && began.elapsed() < timeout, "half the time");
        assert_eq!(both.in_order().iter().map(|at| at.index()).collect::<Vec<_>>(), [1]);
        assert_eq!(both.why_away().len(), 1);
        // The one that is left has all the time.
        assert_eq!(both.in_order().first().unwrap().limit, timeout);
    }

    /// A server on whose connections from now on nothing comes any more, except on those that are made now.
    #[derive(Default)]
    struct Forgetful {
        forgets_before: AtomicUsize,
        connections: AtomicUsize,
    }

    impl Forgetful {
        fn start(socket: &std::path::Path) -> Arc<Self> {
            let server = Arc::new(Self::default());
            let (listener, shared) = (UnixListener::bind(socket).unwrap(), Arc::clone(&server));
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                    let server = Arc::clone(&shared);
                    std::thread::spawn(move || server.serve(number, stream));
                }
            });
            server
        }

        fn serve(&self, number: usize, mut stream: UnixStream) {
            let mut header = [0; HEADER_BYTES];
            while stream.read_exact(&mut header).is_ok() {
                let mut rest = vec![0; message_bytes(&header).unwrap() - HEADER_BYTES];
                stream.read_exact(&mut rest).unwrap();
                if number < self.forgets_before.load(Ordering::SeqCst) {
                    continue;
                }
                let operation = Some(Operation::DiscoverVersions);
                let result = Ok(Response::Versions(Version::SPOKEN.to_vec()));
                let items = vec![ResponseItem { operation, batch_id: None, result }];
                let version = Version::SPOKEN[0];
                stream.write_all(&ResponseMessage { version, items }.encode(0)).unwrap();
            }
        }

        fn forget(&self) {
            self.forgets_before.store(self.connections.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    /// As behind a firewall that has forgotten connections: open on our side, and nothing comes.
    #[test]
    fn kept_connections_that_died_silently_are_replaced_within_one_call() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forgetful");
        let server = Forgetful::start(&path);
        let timeout = Duration::from_secs(4);
        let client = client(&[&path], timeout);
        let order = client.in_order();
        let visit = order.first().unwrap().visit().unwrap();
        let at = &client.servers[0];
        let several = [(); 3].map(|()| client.connect(at, Instant::now() + timeout).unwrap());
        several.into_iter().for_each(|one| at.keep(one));
        visit.call(&QUERY).unwrap();
        assert_eq!((server.connections.load(Ordering::SeqCst), at.kept().len()), (3, 3));

        server.forget();
        at.kept().iter_mut().for_each(|kept| kept.since -= FRESH);
        let began = Instant::now();
        visit.call(&QUERY).unwrap();
        assert!(began.elapsed() >= timeout / 2, "the old one was given its time");
        let began = Instant::now();
        visit.call(&QUERY).unwrap();
        assert!(began.elapsed() < timeout / 2, "none of the others is tried");
        assert_eq!((server.connections.load(Ordering::SeqCst), visit.times_away()), (4, 0));
    }

    #[test]
    fn a_connection_that_was_long_not_used_is_not_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");
        let _server = Forgetful::start(&path);
        let client = client(&[&path], Duration::from_secs(20));
        let at = &client.servers[0];
        let connect = || client.connect(at, Instant::now() + client.timeout).unwrap();
        [connect(), connect()].into_iter().for_each(|one| at.keep(one));
        let now = Instant::now();
        assert!(at.take(now).is_some() && at.kept().len() == 1);
        assert!(at.take(now + IDLE_MAX).is_none() && at.kept().is_empty());
    }

    /// Those who have waited for a hung server do not hang one after another.
    #[test]
    fn who_waited_while_a_server_went_away_does_not_ask_it() {
        let one = client(&[std::path::Path::new("/nowhere")], Duration::from_secs(60));
        let order = one.in_order();
        let at = order.first().unwrap();
        let refused = (0..20).find_map(|_| {
            let all: Vec<_> = (0..CONNECTIONS_MAX).map(|_| at.visit().unwrap()).collect();
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| at.visit().err());
                // Long enough for it to wait; where it is not, once more.
                std::thread::sleep(Duration::from_millis(50));
                at.server.went_away(&io::Error::other("it hung"), Duration::from_secs(60));
                drop(all);
                waiting.join().unwrap()
            })
        });
        let refused = refused.expect("the server is away");
        assert!(refused.to_string().contains("it hung"), "{refused}");
    }

    #[test]
    fn who_waits_for_a_free_connection_blames_no_server() {
        let directory = tempfile::tempdir().unwrap();
        let hung = directory.path().join("hung");
        let _listener = UnixListener::bind(&hung).unwrap();
        let one = client(&[&hung], Duration::from_millis(100));
        let order = one.in_order();
        let at = order.first().unwrap();
        let all: Vec<_> = (0..CONNECTIONS_MAX).map(|_| at.visit().unwrap()).collect();
        let refused = at.visit().unwrap_err();
        assert!(refused.to_string().contains("became free"), "{refused}");
        assert_eq!(one.in_order().len(), 1);
        drop(all);
        let visit = at.visit().unwrap();
        let refused = visit.call(&QUERY).unwrap_err();
        assert!(refused.to_string().contains("no answer in time"), "{refused}");
        assert_eq!((one.in_order().len(), visit.times_away()), (0, 1));
    }
}
