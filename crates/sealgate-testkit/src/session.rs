//! A scripted SMTP or LMTP client: tests decide about every byte that it sends.
//!
//! Blocking, on `std::net`. Does no dot-stuffing and no line-end repair unless asked to ([`Session::content`]).

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// One connection.
#[derive(Debug)]
pub struct Session {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Session {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> (Self, Reply) {
        let mut session = Self::connect_silently(address);
        let greeting = session.reply();
        (session, greeting)
    }

    /// Connects without reading anything.
    pub fn connect_silently(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    /// Connects where somebody listens, without reading anything.
    pub fn open(address: SocketAddr) -> Option<Self> {
        TcpStream::connect(address).ok().map(Self::over)
    }

    /// Over a connection that was made elsewhere, without reading anything.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(REPLY_PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Sends these bytes, no more.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what it can; a peer that has closed meanwhile is no failure.
    pub fn send_unless_closed(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next reply; panics when the peer closes instead.
    pub fn reply(&mut self) -> Reply {
        self.reply_or_end().expect("the peer closed the connection instead of replying")
    }

    /// The next reply, or `None` when the peer has closed the connection.
    pub fn reply_or_end(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}; so far {lines:?}"),
            }
            let line = line.trim_end().to_owned();
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code: u16 = code.unwrap_or_else(|| panic!("no SMTP reply: {line:?}"));
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if !more {
                return Some(Reply { code, lines });
            }
        }
    }

    /// Sends one command line and reads its reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends a message's content, dot-stuffed and with its final dot; the replies are the caller's to read.
    pub fn content(&mut self, content: &[u8]) {
        self.send(&crate::mail::stuffed(content));
    }

    /// The connection, for another protocol to go on with.
    pub(crate) fn into_stream(self) -> TcpStream {
        assert!(self.reader.buffer().is_empty(), "the server spoke before it was asked");
        self.stream
    }

    /// Closes the sending half.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// Sends one message over SMTP; the reply is the first that refuses, or the one after the final dot.
pub fn send_smtp(address: SocketAddr, from: &str, to: &[&str], content: &[u8]) -> Reply {
    let (mut session, greeting) = Session::connect(address);
    assert_eq!(greeting.code, 220, "{greeting:?}");
    let hello = session.command("EHLO client.example");
    assert_eq!(hello.code, 250, "{hello:?}");
    for line in std::iter::once(format!("MAIL FROM:<{from}>"))
        .chain(to.iter().map(|to| format!("RCPT TO:<{to}>")))
    {
        let reply = session.command(&line);
        if reply.code != 250 {
            return reply;
        }
    }
    let reply = session.command("DATA");
    if reply.code != 354 {
        return reply;
    }
    session.content(content);
    let reply = session.reply();
    session.send_unless_closed(b"QUIT\r\n");
    reply
}

/// Sends one message over LMTP; one reply a recipient, that to RCPT where it refuses.
pub fn send_lmtp(address: SocketAddr, from: &str, to: &[&str], content: &[u8]) -> Vec<Reply> {
    let (mut session, _) = Session::connect(address);
    let hello = session.command("LHLO client.example");
    assert_eq!(hello.code, 250, "{hello:?}");
    let mail = session.command(&format!("MAIL FROM:<{from}>"));
    assert_eq!(mail.code, 250, "{mail:?}");
    let mut replies: Vec<Reply> =
        to.iter().map(|to| session.command(&format!("RCPT TO:<{to}>"))).collect();
    if replies.iter().all(|reply| reply.code != 250) {
        return replies;
    }
    let data = session.command("DATA");
    assert_eq!(data.code, 354, "{data:?}");
    session.content(content);
    for reply in replies.iter_mut().filter(|reply| reply.code == 250) {
        *reply = session.reply();
    }
    session.send_unless_closed(b"QUIT\r\n");
    replies
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The lines without codes.
    pub lines: Vec<String>,
}

impl Reply {
    /// The lines joined.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// Code and enhanced status as they stand, `550 5.7.7`.
    pub fn status(&self) -> String {
        let enhanced = self.lines.first().and_then(|line| line.split(' ').next()).unwrap_or("");
        format!("{} {enhanced}", self.code)
    }
}

/// How long a reply may take.
const REPLY_PATIENCE: Duration = Duration::from_secs(60);
