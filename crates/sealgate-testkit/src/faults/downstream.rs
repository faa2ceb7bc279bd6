//! Sinks, inside and outside: they keep every copy with the attempt that it came from, and do what servers do wrong.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::Duration;

use rustls::ServerConfig;

use super::channel::Channel;
use super::ledger::{Attempt, Connection, Hit, Side};
use super::world::World;
use crate::mail;
use crate::sink::Protocol;

/// A sink that is listening.
#[derive(Clone, Debug)]
pub(super) struct Downstream {
    pub(super) protocol: Protocol,
    /// Plain text may come here.
    pub(super) inside: bool,
    /// The domain whose exchanger it is; without, anybody's.
    domain: Option<&'static str>,
    /// It has TLSA records: whatever comes in the clear came wrongly.
    dane: bool,
    world: Arc<World>,
    tls: Arc<ServerConfig>,
}

/// What a server does wrong at a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misdeed {
    AnswerThenClose,
    Close,
    Closing421,
    Garbage,
    Permanent,
    Silence,
    Temporary,
}

impl Downstream {
    /// The mail server inside, which speaks this.
    pub(super) fn inside(world: &Arc<World>, tls: &Arc<ServerConfig>, protocol: Protocol) -> Self {
        let (world, tls) = (Arc::clone(world), Arc::clone(tls));
        Self { protocol, inside: true, domain: None, dane: false, world, tls }
    }

    /// A mail server outside, for everybody.
    pub(super) fn outside(world: &Arc<World>, tls: &Arc<ServerConfig>) -> Self {
        Self { inside: false, ..Self::inside(world, tls, Protocol::Smtp) }
    }

    /// An exchanger of this domain, with TLSA records or not.
    pub(super) fn of(self, domain: &'static str, dane: bool) -> Self {
        Self { domain: Some(domain), dane, ..self }
    }

    /// Starts it; where it listens.
    pub(super) fn start(self) -> SocketAddr {
        let sink = self;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = sink.clone();
                thread::spawn(move || sink.serve(stream));
            }
        });
        address
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let connection = Connection::of_server(Side::Downstream, &stream).ok()?;
        let mut channel = Channel::new(stream, PATIENCE)?;
        let offers_tls = self.dane || self.world.chance.one_in(3);
        let mut envelope = Envelope::default();
        self.answer(&mut channel, (None, None), "connection", "220 sink.example ESMTP")?;
        loop {
            let line = channel.line()?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = text.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" | "LHLO" => {
                    envelope = Envelope::default();
                    let hello = if offers_tls { HELLO_TLS } else { HELLO };
                    self.answer(&mut channel, (None, None), "hello", hello)?;
                }
                // Without extensions there is no ENVID, and nobody could tell the copies apart.
                "HELO" => channel.send(b"502 5.5.1 EHLO only\r\n")?,
                "STARTTLS" => {
                    channel.send(b"220 2.0.0 go on\r\n")?;
                    channel = channel.start_server(&self.tls)?;
                }
                "MAIL" => {
                    envelope = Envelope { attempt: Attempt::find(&text, "ENVID="), to: Vec::new() };
                    self.world.ledger.carries(connection, envelope.attempt);
                    self.answer(&mut channel, (envelope.attempt, None), "mail", "250 2.1.0 ok")?;
                }
                "RCPT" => {
                    let address = text.split(['<', '>']).nth(1)?;
                    let whom = (envelope.attempt, Some(address));
                    if self.answer(&mut channel, whom, "rcpt", "250 2.1.5 ok")? {
                        self.check(&channel, address);
                        envelope.to.push(address.to_owned());
                    }
                }
                "DATA" if envelope.to.is_empty() => channel.send(b"554 5.5.1 nobody\r\n")?,
                "DATA" => {
                    if self.answer(&mut channel, (envelope.attempt, None), "data", "354 go on")? {
                        self.take(&mut channel, &envelope)?;
                    }
                    envelope = Envelope::default();
                }
                "QUIT" => return channel.send(b"221 2.0.0 bye\r\n"),
                _ => channel.send(b"250 2.0.0 ok\r\n")?,
            }
        }
    }

    /// Mail for others must not come here, and where TLSA records are, none in the clear.
    fn check(&self, channel: &Channel, address: &str) {
        let Some(domain) = self.domain else { return };
        if !address.ends_with(&format!("@{domain}")) {
            self.world.ledger.misrouted(&format!("<{address}> came to {domain}"));
        }
        if self.dane && !channel.is_within_tls() {
            self.world.ledger.misrouted(&format!("<{address}> came in the clear"));
        }
    }

    /// Answers a command, wrongly at times; whether the answer was positive.
    fn answer(
        &self,
        channel: &mut Channel,
        (attempt, recipient): (Option<Attempt>, Option<&str>),
        at: &str,
        usual: &str,
    ) -> Option<bool> {
        if !self.world.chance.strikes(MISDEED_ONE_IN) {
            channel.send(format!("{usual}\r\n").as_bytes())?;
            return Some(true);
        }
        let misdeed = self.world.chance.pick(&[
            Misdeed::Close,
            Misdeed::Closing421,
            Misdeed::Garbage,
            Misdeed::Permanent,
            Misdeed::Silence,
            Misdeed::Temporary,
        ]);
        let kind = format!("sink {misdeed:?} at {at}");
        let hit = match attempt {
            // Whoever the connection was opened for hears it.
            None if misdeed == Misdeed::Permanent => Hit::Anybody,
            _ => attempt.into(),
        };
        let about: Vec<String> = recipient.map(str::to_owned).into_iter().collect();
        self.world.ledger.struck_for(Side::Downstream, &kind, hit, &about);
        if self.inside && misdeed == Misdeed::Permanent && at != "data" {
            self.world.ledger.turned_away(recipient);
        }
        match misdeed {
            Misdeed::Close | Misdeed::AnswerThenClose => None,
            Misdeed::Closing421 => {
                channel.send(b"421 4.3.2 closing\r\n")?;
                None
            }
            Misdeed::Garbage => {
                channel.send(b"\x00what? 250\r\n")?;
                Some(false)
            }
            Misdeed::Permanent => channel.send(b"554 5.7.0 never\r\n").map(|()| false),
            Misdeed::Silence => {
                sleep(SILENCE);
                None
            }
            Misdeed::Temporary => {
                channel.send(b"451-4.3.0 not\r\n451 4.3.0 now\r\n").map(|()| false)
            }
        }
    }

    /// Content and dot.
    fn take(&self, channel: &mut Channel, envelope: &Envelope) -> Option<()> {
        let mut content = Vec::new();
        loop {
            let line = channel.line()?;
            if line == b".\r\n" {
                break;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        if !self.inside && mail::contains(&content, CANARY) {
            self.world.ledger.leaked("the outside sink");
        }
        if self.world.chance.one_in(8) {
            sleep(Duration::from_millis(150));
        }
        let groups: Vec<&[String]> = match self.protocol {
            Protocol::Lmtp => envelope.to.chunks(1).collect(),
            Protocol::Smtp => vec![&envelope.to],
        };
        for group in groups {
            self.take_for(channel, envelope.attempt, group, &content)?;
        }
        Some(())
    }

    /// Keeps a copy and says so, or does not, or only one of the two.
    fn take_for(
        &self,
        channel: &mut Channel,
        attempt: Option<Attempt>,
        to: &[String],
        content: &[u8],
    ) -> Option<()> {
        let misdeed = self.world.chance.strikes(MISDEED_ONE_IN).then(|| self.at_dot(attempt));
        if let Some((misdeed, kept)) = misdeed {
            let kind =
                format!("sink {misdeed:?} at dot, {}", if kept { "kept" } else { "not kept" });
            self.world.ledger.struck_for(Side::Downstream, &kind, attempt.into(), to);
        }
        if misdeed.is_none_or(|(_, kept)| kept) {
            let answered = misdeed.is_none_or(|(misdeed, _)| misdeed == Misdeed::AnswerThenClose);
            self.keep(attempt, to, content, answered);
        }
        match misdeed.map(|(misdeed, _)| misdeed) {
            None => channel.send(b"250 2.0.0 taken\r\n"),
            Some(Misdeed::AnswerThenClose) => {
                channel.send(b"250 2.0.0 taken\r\n")?;
                None
            }
            Some(Misdeed::Close) => None,
            Some(Misdeed::Closing421) => {
                channel.send(b"421 4.3.2 closing\r\n")?;
                None
            }
            Some(Misdeed::Garbage) => channel.send(b"\x00what? 250\r\n"),
            Some(Misdeed::Permanent) => channel.send(b"554 5.7.0 never\r\n"),
            Some(Misdeed::Silence) => {
                sleep(SILENCE);
                None
            }
            Some(Misdeed::Temporary) => channel.send(b"451 4.3.0 not now\r\n"),
        }
    }

    /// What goes wrong at the dot, and whether the copy is kept all the same.
    fn at_dot(&self, attempt: Option<Attempt>) -> (Misdeed, bool) {
        let notified = NOTIFIES || !attempt.is_some_and(|attempt| attempt.jointly);
        let misdeed = self.world.chance.pick(&[
            Misdeed::AnswerThenClose,
            Misdeed::Close,
            Misdeed::Closing421,
            Misdeed::Garbage,
            if notified { Misdeed::Permanent } else { Misdeed::Temporary },
            Misdeed::Silence,
            Misdeed::Temporary,
        ]);
        let kept = match misdeed {
            Misdeed::AnswerThenClose => true,
            Misdeed::Permanent | Misdeed::Temporary | Misdeed::Closing421 => false,
            Misdeed::Close | Misdeed::Garbage | Misdeed::Silence => self.world.chance.one_in(2),
        };
        (misdeed, kept)
    }

    fn keep(&self, attempt: Option<Attempt>, to: &[String], content: &[u8], answered: bool) {
        if let Some(attempt) = attempt {
            to.iter().for_each(|to| self.world.ledger.kept(attempt, to, content, answered));
            return;
        }
        // A notification of the relay's own (RFC 3464 §2.2.1, §2.3.2).
        let text = String::from_utf8_lossy(content);
        let Some(about) = Attempt::find(&text, "Original-Envelope-Id:") else { return };
        if let Some(status) = BLAMED_ON_NAMES.iter().find(|status| text.contains(**status)) {
            self.world.ledger.misrouted(&format!("a notification of {status}"));
        }
        for line in text.lines().filter(|line| line.starts_with("Final-Recipient:")) {
            if let Some((_, address)) = line.split_once(';') {
                self.world.ledger.notified(about, address.trim());
            }
        }
    }
}

#[derive(Debug, Default)]
struct Envelope {
    attempt: Option<Attempt>,
    to: Vec<String>,
}

/// Stands in every plain message that goes out.
pub(super) const CANARY: &str = "canary-of-plain-text";
/// Whether the relay notifies of those who were refused for good at the dot after others had been accepted (O9).
const NOTIFIES: bool = true;
/// What is said for good of a domain that does not exist, wants no mail or is our own: of those here none is.
pub(super) const BLAMED_ON_NAMES: [&str; 3] = ["5.1.2", "5.1.10", "5.4.6"];
/// How often a server does something wrong.
const MISDEED_ONE_IN: u64 = 24;
/// How long a server is silent before it closes.
const SILENCE: Duration = Duration::from_millis(1500);
/// Idle connections of the relay live this long.
const PATIENCE: Duration = Duration::from_secs(60);

const HELLO: &str = "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 \
                     ENHANCEDSTATUSCODES";
const HELLO_TLS: &str = "250-sink.example\r\n250-STARTTLS\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                         250-DSN\r\n250 ENHANCEDSTATUSCODES";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchanger;
    use crate::pki::Pki;

    #[test]
    fn what_goes_astray_is_noticed() {
        let world = Arc::new(World::new(1));
        let pki = Pki::new("Sinks");
        let (certificate, key) = pki.issue_for_tls("sink", "/CN=sink", "serverAuth", "");
        let outside = Downstream::outside(&world, &exchanger::tls(&certificate, &key));
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let channel = Channel::new(stream, PATIENCE).unwrap();
        let astray = || world.ledger.judge().misrouted.len();
        outside.check(&channel, "bob@other.example");
        let ours = outside.clone().of("abc.example", false);
        ours.check(&channel, "bob@abc.example");
        assert_eq!(astray(), 0);
        ours.check(&channel, "bob@other.example");
        assert_eq!(astray(), 1);
        outside.clone().of("abc.example", true).check(&channel, "bob@abc.example");
        assert_eq!(astray(), 2, "in the clear, in spite of TLSA records");
        for (status, count) in [("5.7.1", 2), (BLAMED_ON_NAMES[0], 3)] {
            let text = format!("Original-Envelope-Id: m1.2.a\r\nStatus: {status}\r\n");
            outside.keep(None, &[], text.as_bytes(), true);
            assert_eq!(astray(), count, "{status}");
        }
    }
}
