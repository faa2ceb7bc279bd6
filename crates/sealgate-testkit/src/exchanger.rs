//! Mail exchangers of the Internet: SMTP with STARTTLS on port 25 of a loopback address of its own, and hosts of MTA-STS
//! policies on port 443.
//!
//! The port is fixed, for MX records have none; every server has an address out of 127/8 that nobody else uses. Binding the
//! ports takes root.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What an exchanger offers.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// PEM files of chain and key: STARTTLS is offered.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// REQUIRETLS is offered, within TLS.
    pub requiretls: bool,
    /// The largest message that is taken (SIZE).
    pub size_max: Option<usize>,
    /// The answer to MAIL, after which the connection ends; empty: none, and silence.
    pub answer_to_mail: Option<&'static str>,
    /// How long it looks for each mailbox.
    pub rcpt_pause: Duration,
}

/// A mail exchanger.
pub struct Exchanger {
    /// Where it is, on port 25.
    pub address: Ipv4Addr,
    taken: Arc<Mutex<Vec<Taken>>>,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The MAIL line.
    pub mail: String,
    /// The RCPT lines.
    pub recipients: Vec<String>,
    /// The content, dots as sent.
    pub content: String,
    /// It came within TLS.
    pub tls: bool,
    /// The name that the client asked for.
    pub asked_for: Option<String>,
}

/// A web server with one text.
pub struct PolicyHost {
    /// Where it is, on port 443.
    pub address: Ipv4Addr,
    answer: Arc<Mutex<String>>,
    away: Arc<AtomicBool>,
}

impl fmt::Debug for Exchanger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchanger").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for PolicyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyHost").field("address", &self.address).finish_non_exhaustive()
    }
}

/// An address of 127/8 that nobody else uses.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 128, low, NEXT.fetch_add(1, Ordering::SeqCst))
}

impl Exchanger {
    /// Starts one.
    pub fn start(offer: &Offer) -> Self {
        let address = own_address();
        let listener = listen(address, 25);
        let config = offer.tls.as_ref().map(|(chain, key)| tls(chain, key));
        let (taken, offer) = (Arc::new(Mutex::new(Vec::new())), offer.clone());
        let shared = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, taken) = (config.clone(), Arc::clone(&shared));
                let offer = offer.clone();
                thread::spawn(move || {
                    let wire = BufReader::new(Wire::Plain(stream));
                    Conversation { wire, config, offer, taken }.run()
                });
            }
        });
        Self { address, taken }
    }

    /// Everything taken so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

impl PolicyHost {
    /// Starts one that answers every request with the policy.
    pub fn start(chain: &Path, key: &Path, policy: &str) -> Self {
        Self::start_slow(chain, key, policy, Duration::ZERO)
    }

    /// The same with a pause before each TLS handshake.
    pub fn start_slow(chain: &Path, key: &Path, policy: &str, pause: Duration) -> Self {
        let address = own_address();
        let listener = listen(address, 443);
        let config = tls(chain, key);
        let answer = Arc::new(Mutex::new(String::new()));
        let away = Arc::new(AtomicBool::new(false));
        let host = Self { address, answer: Arc::clone(&answer), away: Arc::clone(&away) };
        host.publish(policy);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !away.load(Ordering::SeqCst) {
                    let (config, answer) = (Arc::clone(&config), answer.lock().unwrap().clone());
                    thread::spawn(move || {
                        thread::sleep(pause);
                        serve(config, stream, &answer)
                    });
                }
            }
        });
        host
    }

    /// Another policy from now on.
    pub fn publish(&self, policy: &str) {
        self.answer_with(&format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{policy}",
            policy.len()
        ));
    }

    /// Another response from now on, as it stands.
    pub fn answer_with(&self, response: &str) {
        *self.answer.lock().unwrap() = response.to_owned();
    }

    /// From now on every connection is closed at once, or answered again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

fn listen(address: Ipv4Addr, port: u16) -> TcpListener {
    TcpListener::bind(SocketAddr::new(address.into(), port))
        .unwrap_or_else(|error| panic!("{address}:{port}: {error} (this needs root)"))
}

/// What a server needs for TLS, from PEM files.
pub(crate) fn tls(chain: &Path, key: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(key).unwrap();
    // Whatever the certificate is: rustls itself would look at it.
    let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certified));
    Arc::new(config)
}

fn serve(config: Arc<ServerConfig>, stream: TcpStream, answer: &str) -> Option<()> {
    let mut tls = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    let mut reader = BufReader::new(&mut tls);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
    }
    tls.write_all(answer.as_bytes()).ok()?;
    tls.conn.send_close_notify();
    tls.flush().ok()
}

enum Wire {
    Gone,
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gone => Ok(0),
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

struct Conversation {
    wire: BufReader<Wire>,
    config: Option<Arc<ServerConfig>>,
    offer: Offer,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Conversation {
    fn run(mut self) -> Option<()> {
        self.say("220 mx.example ESMTP")?;
        let mut current = Taken::default();
        loop {
            let line = self.line()?;
            match line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "EHLO" | "HELO" => self.hello()?,
                "STARTTLS" if self.config.is_some() && !self.is_tls() => {
                    self.say("220 go on")?;
                    self.start_tls()?;
                }
                "MAIL" if self.offer.answer_to_mail == Some("") => while self.line().is_some() {},
                "MAIL" if self.offer.answer_to_mail.is_some() => {
                    return self.say(self.offer.answer_to_mail?);
                }
                "MAIL" => {
                    current = Taken { mail: line, ..Taken::default() };
                    self.say("250 ok")?;
                }
                "RCPT" => {
                    current.recipients.push(line);
                    thread::sleep(self.offer.rcpt_pause);
                    self.say("250 ok")?;
                }
                "DATA" => {
                    self.say("354 go on")?;
                    current.content = self.content()?;
                    current.tls = self.is_tls();
                    current.asked_for = self.asked_for();
                    self.taken.lock().unwrap().push(std::mem::take(&mut current));
                    self.say("250 2.0.0 taken")?;
                }
                "RSET" | "NOOP" => self.say("250 ok")?,
                "QUIT" => return self.say("221 bye"),
                _ => self.say("502 5.5.2 not here")?,
            }
        }
    }

    fn hello(&mut self) -> Option<()> {
        let mut lines = "250-mx.example\r\n250-8BITMIME\r\n".to_owned();
        if self.config.is_some() && !self.is_tls() {
            lines.push_str("250-STARTTLS\r\n");
        }
        if self.offer.requiretls && self.is_tls() {
            lines.push_str("250-REQUIRETLS\r\n");
        }
        if let Some(size_max) = self.offer.size_max {
            lines.push_str(&format!("250-SIZE {size_max}\r\n"));
        }
        self.say(&format!("{lines}250 ENHANCEDSTATUSCODES"))
    }

    fn start_tls(&mut self) -> Option<()> {
        let Wire::Plain(stream) = std::mem::replace(self.wire.get_mut(), Wire::Gone) else {
            return None;
        };
        let connection = ServerConnection::new(self.config.clone()?).ok()?;
        let mut tls = StreamOwned::new(connection, stream);
        tls.conn.complete_io(&mut tls.sock).ok()?;
        self.wire = BufReader::new(Wire::Tls(Box::new(tls)));
        Some(())
    }

    fn is_tls(&self) -> bool {
        matches!(self.wire.get_ref(), Wire::Tls(_))
    }

    fn asked_for(&self) -> Option<String> {
        let Wire::Tls(tls) = self.wire.get_ref() else { return None };
        tls.conn.server_name().map(str::to_owned)
    }

    fn say(&mut self, text: &str) -> Option<()> {
        let text = format!("{text}\r\n");
        match self.wire.get_mut() {
            Wire::Gone => None,
            Wire::Plain(stream) => stream.write_all(text.as_bytes()).ok(),
            Wire::Tls(stream) => stream.write_all(text.as_bytes()).ok(),
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        (self.wire.read_until(b'\n', &mut line).ok()? > 0)
            .then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn content(&mut self) -> Option<String> {
        let mut content = String::new();
        loop {
            match self.line()? {
                line if line == "." => return Some(content),
                line => content.push_str(&format!("{line}\r\n")),
            }
        }
    }
}
