//! One connection of a stand-in, plain or within TLS, line by line; whatever breaks is `None`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// A connection.
pub(super) struct Channel {
    reader: BufReader<Transport>,
    /// The last line of the last reply.
    said: String,
}

enum Transport {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Channel {
    /// Nobody is waited for longer than `patience`.
    pub(super) fn new(stream: TcpStream, patience: Duration) -> Option<Self> {
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        stream.set_write_timeout(Some(patience)).ok()?;
        Some(Self { reader: BufReader::new(Transport::Plain(stream)), said: String::new() })
    }

    /// The client's side of TLS from here on.
    pub(super) fn start_client(self, config: &Arc<ClientConfig>, name: &str) -> Option<Self> {
        let Transport::Plain(stream) = self.reader.into_inner() else { return None };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        let stream = Transport::Client(Box::new(StreamOwned::new(tls, stream)));
        Some(Self { reader: BufReader::new(stream), said: String::new() })
    }

    /// The server's side of TLS from here on.
    pub(super) fn start_server(self, config: &Arc<ServerConfig>) -> Option<Self> {
        let Transport::Plain(stream) = self.reader.into_inner() else { return None };
        let tls = ServerConnection::new(Arc::clone(config)).unwrap();
        let stream = Transport::Server(Box::new(StreamOwned::new(tls, stream)));
        Some(Self { reader: BufReader::new(stream), said: String::new() })
    }

    /// The next line with its end.
    pub(super) fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).ok()?;
        line.ends_with(b"\n").then_some(line)
    }

    /// Whether TLS has started.
    pub(super) fn is_within_tls(&self) -> bool {
        !matches!(self.reader.get_ref(), Transport::Plain(_))
    }

    /// What stood after the code of the last reply.
    pub(super) fn said(&self) -> &str {
        self.said.get(4..).unwrap_or_default()
    }

    /// The code of the next reply.
    pub(super) fn reply(&mut self) -> Option<u16> {
        loop {
            let line = self.line()?;
            let code = std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()?;
            if line.get(3) != Some(&b'-') {
                self.said = String::from_utf8_lossy(&line).into_owned();
                return (200..600).contains(&code).then_some(code);
            }
        }
    }

    /// Sends this.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Option<()> {
        let stream = self.reader.get_mut();
        stream.write_all(bytes).ok()?;
        stream.flush().ok()
    }

    /// Sends a command and gives its reply's code.
    pub(super) fn command(&mut self, line: &str) -> Option<u16> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Client(stream) => stream.read(buffer),
            Self::Server(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Client(stream) => stream.write(bytes),
            Self::Server(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Client(stream) => stream.flush(),
            Self::Server(stream) => stream.flush(),
        }
    }
}
