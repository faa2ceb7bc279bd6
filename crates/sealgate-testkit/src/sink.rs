//! A small SMTP or LMTP server that keeps what it gets and answers what the test tells it to.
//!
//! One thread a connection; offers PIPELINING, 8BITMIME, SMTPUTF8, DSN and ENHANCEDSTATUSCODES.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::process;

/// A server that is listening.
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Sink {
    /// An SMTP server that takes everything.
    pub fn smtp() -> Self {
        Self::scripted(Protocol::Smtp, |_| None)
    }

    /// An LMTP server that takes everything.
    pub fn lmtp() -> Self {
        Self::scripted(Protocol::Lmtp, |_| None)
    }

    /// A server that knows nothing of DSN (RFC 3461) and takes everything.
    pub fn without_dsn(protocol: Protocol) -> Self {
        Self::scripted(protocol, |stage| {
            matches!(stage, Stage::Hello).then(|| HELLO_WITHOUT_DSN.to_owned())
        })
    }

    /// A server that asks the script at every stage; `None` is the usual positive reply, a text is sent in its
    /// stead (with its line ends), and an empty text closes the connection.
    pub fn scripted(
        protocol: Protocol,
        script: impl Fn(&Stage) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            protocol,
            script: Box::new(script),
            connections: AtomicUsize::new(0),
            received: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                state.connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve(&state, stream));
            }
        });
        Self { address, state }
    }

    /// Everything received and accepted so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// Waits until so many messages are there.
    pub fn await_received(&self, count: usize) -> Vec<Received> {
        process::await_that(&format!("{count} messages at the sink"), || {
            self.state.received.lock().unwrap().len() >= count
        });
        self.received()
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.state.protocol
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

/// Which protocol a sink speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 2033: one reply a recipient after the final dot.
    Lmtp,
    /// RFC 5321.
    Smtp,
}

impl Protocol {
    /// Its name in an address, `lmtp`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Lmtp => "lmtp",
            Self::Smtp => "smtp",
        }
    }
}

/// Where in a session a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The greeting.
    Connect,
    /// EHLO, HELO or LHLO.
    Hello,
    /// MAIL, the line.
    Mail(String),
    /// RCPT, the line.
    Rcpt(String),
    /// DATA.
    Data,
    /// RSET.
    Reset,
    /// The final dot; over LMTP once a recipient, whose RCPT line it is. Over SMTP all accepted RCPT lines, joined.
    Dot(String),
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The MAIL line.
    pub mail: String,
    /// The RCPT lines that were accepted.
    pub recipients: Vec<String>,
    /// The content, dots removed.
    pub content: Vec<u8>,
}

type Script = Box<dyn Fn(&Stage) -> Option<String> + Send + Sync>;

struct State {
    protocol: Protocol,
    script: Script,
    connections: AtomicUsize,
    received: Mutex<Vec<Received>>,
}

impl State {
    /// What to answer at a stage, with its line end.
    fn text(&self, stage: &Stage, usual: &str) -> String {
        (self.script)(stage).unwrap_or_else(|| format!("{usual}\r\n"))
    }

    /// Answers a stage; whether the answer was positive, or `None` where the connection is to be closed.
    fn answer(&self, stream: &mut TcpStream, stage: &Stage, usual: &str) -> Option<bool> {
        let text = self.text(stage, usual);
        if text.is_empty() {
            return None;
        }
        stream.write_all(text.as_bytes()).ok()?;
        Some(text.starts_with(['2', '3']))
    }
}

fn serve(state: &State, mut stream: TcpStream) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    state.answer(&mut stream, &Stage::Connect, "220 sink.example ESMTP")?;
    let mut current = Received::default();
    loop {
        let line = read_line(&mut reader)?;
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = text.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "HELO" | "LHLO" => {
                current = Received::default();
                state.answer(&mut stream, &Stage::Hello, HELLO)?;
            }
            "MAIL" => {
                current = Received { mail: text.clone(), ..Received::default() };
                state.answer(&mut stream, &Stage::Mail(text), "250 2.1.0 ok")?;
            }
            "RCPT" => {
                if state.answer(&mut stream, &Stage::Rcpt(text.clone()), "250 2.1.5 ok")? {
                    current.recipients.push(text);
                }
            }
            "DATA" => {
                if current.recipients.is_empty() {
                    stream.write_all(b"554 5.5.1 no valid recipients\r\n").ok()?;
                } else if state.answer(&mut stream, &Stage::Data, "354 go on")? {
                    current.content = read_content(&mut reader)?;
                    take(state, &mut stream, std::mem::take(&mut current))?;
                }
            }
            "RSET" => {
                if state.answer(&mut stream, &Stage::Reset, "250 2.0.0 ok")? {
                    current = Received::default();
                }
            }
            "NOOP" => stream.write_all(b"250 2.0.0 ok\r\n").ok()?,
            "QUIT" => {
                let _ = stream.write_all(b"221 2.0.0 bye\r\n");
                return None;
            }
            _ => stream.write_all(b"502 5.5.2 not here\r\n").ok()?,
        }
    }
}

/// Answers the final dot and keeps what was accepted.
fn take(state: &State, stream: &mut TcpStream, message: Received) -> Option<()> {
    let mut accepted = Received { recipients: Vec::new(), ..message.clone() };
    match state.protocol {
        Protocol::Smtp => {
            let text = state.text(&Stage::Dot(message.recipients.join(" ")), "250 2.0.0 taken");
            // Kept before the reply is out, so that whoever reads the reply finds it.
            if text.starts_with('2') {
                state.received.lock().unwrap().push(message);
            }
            return if text.is_empty() { None } else { stream.write_all(text.as_bytes()).ok() };
        }
        Protocol::Lmtp => {
            for recipient in message.recipients {
                let stage = Stage::Dot(recipient.clone());
                match state.answer(stream, &stage, "250 2.0.0 taken") {
                    Some(true) => accepted.recipients.push(recipient),
                    Some(false) => {}
                    // Who was answered before has it.
                    None => {
                        state.received.lock().unwrap().push(accepted);
                        return None;
                    }
                }
            }
        }
    }
    if !accepted.recipients.is_empty() {
        state.received.lock().unwrap().push(accepted);
    }
    Some(())
}

fn read_line(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    (reader.read_until(b'\n', &mut line).ok()? > 0).then_some(line)
}

fn read_content(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line == b".\r\n" {
            return Some(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

const HELLO: &str = "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 \
                     ENHANCEDSTATUSCODES";

/// What a server without DSN says to EHLO.
pub const HELLO_WITHOUT_DSN: &str = "250-sink.example\r\n250 SIZE\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{send_lmtp, send_smtp};

    #[test]
    fn takes_a_message_and_gives_it_back() {
        let sink = Sink::smtp();
        let reply = send_smtp(sink.address, "a@x.example", &["b@y.example"], b"A: 1\r\n\r\n.x\r\n");
        assert_eq!(reply.code, 250);
        let received = sink.await_received(1);
        assert_eq!(received[0].content, b"A: 1\r\n\r\n.x\r\n");
        assert_eq!(received[0].recipients, ["RCPT TO:<b@y.example>"]);
    }

    #[test]
    fn answers_as_scripted_for_each_recipient() {
        let sink = Sink::scripted(Protocol::Lmtp, |stage| match stage {
            Stage::Dot(rcpt) if rcpt.contains("bad@") => Some("550 5.1.1 no\r\n".to_owned()),
            _ => None,
        });
        let replies = send_lmtp(sink.address, "", &["bad@y.example", "b@y.example"], b"\r\nx\r\n");
        assert_eq!(replies.iter().map(|reply| reply.code).collect::<Vec<_>>(), [550, 250]);
        assert_eq!(sink.await_received(1)[0].recipients, ["RCPT TO:<b@y.example>"]);
    }
}
