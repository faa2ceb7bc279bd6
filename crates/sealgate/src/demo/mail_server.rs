//! A stand-in mail server: takes mail over SMTP, keeps what is for its own domain, and hands on the rest.
//!
//! It also stands for the Internet: without a domain of its own it hands everything on, and can change a bit on the way.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sealgate_core::address::{Address, Domain};
use sealgate_core::envelope::{Envelope, MailParameters, Recipient};
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::smtp::Protocol;
use sealgate_core::smtp::client::{self, Client, Tls, Transaction};
use sealgate_core::smtp::server::{self, Limits, Server};

/// A running server; it ends with the process.
pub(super) struct MailServer {
    address: SocketAddr,
    state: Arc<State>,
    /// Whether the last letter of each message's last long line is changed before it is handed on.
    pub(super) falsifies: Arc<AtomicBool>,
}

struct State {
    domain: Domain,
    /// Where the rest goes.
    proxy: Mutex<Option<(Protocol, SocketAddr)>>,
    seen: Mutex<Vec<Bytes>>,
    label: Mutex<Option<&'static str>>,
    falsifies: Arc<AtomicBool>,
}

impl MailServer {
    /// Listens on a free port.
    pub(super) fn start(domain: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let falsifies = Arc::new(AtomicBool::new(false));
        let domain = Domain::parse(domain).map_err(io::Error::other)?;
        let state = Arc::new(State {
            domain,
            proxy: Mutex::new(None),
            seen: Mutex::new(Vec::new()),
            label: Mutex::new(None),
            falsifies: Arc::clone(&falsifies),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || {
                    let address = stream.peer_addr();
                    if let Err(error) = state.session(stream) {
                        eprintln!("{}: session with {address:?}: {error}", state.domain);
                    }
                });
            }
        });
        Ok(Self { address, state, falsifies })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where mail for others goes.
    pub(super) fn send_through(&self, door: (Protocol, SocketAddr)) {
        *lock(&self.state.proxy) = Some(door);
    }

    /// The newest message that was kept or passed through.
    pub(super) fn last(&self) -> Option<Bytes> {
        lock(&self.state.seen).last().cloned()
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.state.seen).len()
    }

    /// From now on every message is printed.
    pub(super) fn print_arrivals(&self, label: &'static str) {
        *lock(&self.state.label) = Some(label);
    }
}

impl State {
    fn session(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut server = Server::new(server::Options {
            protocol: Protocol::Smtp,
            hostname: self.domain.clone(),
            postmaster_domain: self.domain.clone(),
            starttls: server::StartTls::Absent,
            smtputf8: true,
            requiretls: false,
            dsn: false,
            limits: Limits::default(),
        });
        let mut input = BytesMut::new();
        loop {
            let event = server.advance(&mut input);
            match event {
                server::Event::Mail { .. } | server::Event::Recipient(_) | server::Event::Data => {
                    server.accept()
                }
                server::Event::Message(message) => {
                    let reply = self.take(&message.0, &message.1);
                    server.answer(&reply);
                }
                server::Event::NeedInput => {
                    stream.write_all(&server.output().split())?;
                    if read(&mut stream, &mut input)? == 0 {
                        return Ok(());
                    }
                }
                server::Event::Close => return stream.write_all(&server.output().split()),
                _ => {}
            }
        }
    }

    /// Keeps what is for this domain, hands on the rest, and answers what the next one answered.
    fn take(&self, envelope: &Envelope, message: &Bytes) -> Reply {
        let (own, others): (Vec<Address>, Vec<Address>) = envelope
            .recipients
            .iter()
            .map(|recipient| recipient.address.clone())
            .partition(|address| *address.domain() == self.domain);
        let is_transit = own.is_empty() && self.domain.as_str() == "internet.example";
        if !own.is_empty() || is_transit {
            lock(&self.seen).push(message.clone());
            if let Some(label) = *lock(&self.label) {
                println!("\n--- {label} ---\n{}", String::from_utf8_lossy(message));
            }
        }
        let door = *lock(&self.proxy);
        match door {
            _ if others.is_empty() => Reply::new(250, (2, 0, 0), "kept"),
            None => Reply::from(&Refusal::NextHopUnreachable),
            Some((protocol, address)) => {
                let message = if self.falsifies.load(Ordering::SeqCst) {
                    falsified(message)
                } else {
                    message.clone()
                };
                hand_over(address, protocol, envelope.reverse_path.as_ref(), &others, &message)
                    .unwrap_or_else(|_| Reply::from(&Refusal::NextHopUnreachable))
            }
        }
    }
}

/// Gives a message to a server in one transaction; the answer is the first that is not positive, else the last.
///
/// # Errors
/// What the socket says, and an end before the answer.
pub(super) fn hand_over(
    to: SocketAddr,
    protocol: Protocol,
    from: Option<&Address>,
    recipients: &[Address],
    message: &Bytes,
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let hostname = "stand-in.example".to_owned();
    let mut client = Client::new(client::Options { protocol, hostname, tls: Tls::Off });
    let recipients: Vec<Recipient> = recipients.iter().cloned().map(Recipient::new).collect();
    let mut answers: Vec<Reply> = Vec::new();
    let mut input = BytesMut::new();
    loop {
        match client.advance(&mut input) {
            client::Event::Idle if answers.is_empty() => {
                let started = client.start(&Transaction {
                    reverse_path: from,
                    parameters: &MailParameters::default(),
                    recipients: recipients.iter().collect(),
                    size_bytes: u64::try_from(message.len()).unwrap_or(u64::MAX),
                    eight_bit: false,
                    utf8_header: false,
                });
                started.map_err(|_| io::Error::other("the server lacks an extension"))?;
            }
            client::Event::Admitted(replies) => {
                answers.extend(replies.into_iter().filter(|reply| !reply.is_positive()));
                client.send_content(std::slice::from_ref(message));
                client.release();
            }
            client::Event::Refused(replies) => answers.extend(replies),
            client::Event::Answer { reply, .. } => answers.push(reply),
            client::Event::Idle => break,
            client::Event::Failed(failure) => return Err(io::Error::other(failure)),
            client::Event::StartTls | client::Event::Checked(_) => {
                return Err(io::Error::other("nothing of that was asked for"));
            }
            client::Event::NeedInput => {
                for chunk in client.output().drain(..) {
                    stream.write_all(&chunk)?;
                }
                if read(&mut stream, &mut input)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
    let bad = answers.iter().position(|reply| !reply.is_positive());
    let index = bad.unwrap_or(answers.len().saturating_sub(1));
    answers.into_iter().nth(index).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// One letter of the body changed, in the middle of the encrypted content.
fn falsified(message: &Bytes) -> Bytes {
    let mut bytes = message.to_vec();
    let middle = bytes.len() / 4 * 3;
    let letter = bytes.iter_mut().skip(middle).find(|byte| byte.is_ascii_lowercase());
    if let Some(letter) = letter {
        *letter = if *letter == b'q' { b'r' } else { b'q' };
    }
    Bytes::from(bytes)
}

fn read(stream: &mut TcpStream, input: &mut BytesMut) -> io::Result<usize> {
    let mut buffer = [0_u8; 16 << 10];
    let count = stream.read(&mut buffer)?;
    input.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(count)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longer than any step of the demonstration takes.
const PATIENCE: Duration = Duration::from_secs(60);
