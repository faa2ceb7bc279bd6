//! The sending side: a connection as a state machine (RFC 5321 §4, RFC 2033), used for one transaction after another.
//!
//! In: what was read, in the caller's buffer, cut anywhere. Out: [`Event`]s, and octets in [`Client::output`], a queue of
//! slices so that a message is written from where it lies. After [`Event::Admitted`] the content goes out without its
//! final dot ([`Client::send_content`]); the dot follows with [`Client::release`], so that several
//! deliveries can be held until all are ready. To abort in between, close the connection: there is no other way.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};

use super::Protocol;
use super::data;
use super::reply::ReplyReader;
use crate::refusal::{Extension, Reply};

mod envelope;
mod transaction;
mod xclient;

pub use transaction::{Capabilities, Lack, Transaction};
pub use xclient::{ClientName, Identity, XclientAttributes};

/// How to speak.
#[derive(Clone, Debug)]
pub struct Options {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// Our name in the hello.
    pub hostname: String,
    /// STARTTLS.
    pub tls: Tls,
}

/// Whether to start TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Where it is offered.
    IfOffered,
    /// Never.
    Off,
    /// Always; without it nothing is sent.
    Required,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// MAIL, RCPT and DATA are answered, one reply for each recipient, at least one of them positive: the
    /// server waits for content.
    Admitted(Vec<Reply>),
    /// The final reply for one recipient. LMTP: each as it comes; SMTP: the same for all admitted ones.
    Answer {
        /// Index into [`Transaction::recipients`].
        recipient: usize,
        /// The reply.
        reply: Reply,
    },
    /// [`Client::check`]: one reply for each recipient. [`Event::Idle`] or [`Event::Failed`] follows, once RSET is answered.
    Checked(Vec<Reply>),
    /// The connection is of no use any more.
    Failed(Failure),
    /// Ready for a transaction: capabilities are known, or the last transaction is over.
    Idle,
    /// Write the output, and read more.
    NeedInput,
    /// Nobody was admitted: one reply for each recipient. [`Event::Idle`] or [`Event::Failed`] follows, as above.
    Refused(Vec<Reply>),
    /// Do the TLS handshake and call [`Client::tls_started`]. The input was discarded.
    StartTls,
}

/// Why a connection is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The server said that it closes (421), or [`Client::quit`] was answered.
    Closing(Reply),
    /// What came was no SMTP, or a reply to nothing.
    Garbage,
    /// The greeting or the hello was refused.
    Refused(Reply),
    /// TLS is required and not offered.
    TlsNotOffered,
    /// TLS is required, and offered, and was not started: with 454 for now only (RFC 3207 §4).
    TlsRefused(Reply),
    /// XCLIENT with an address is needed and not to be had.
    XclientNotOffered,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closing(reply) => write!(f, "closing: {reply}"),
            Self::Garbage => f.write_str("the answer is not SMTP"),
            Self::Refused(reply) => write!(f, "refused: {reply}"),
            Self::TlsNotOffered => f.write_str("TLS is required and not offered"),
            Self::TlsRefused(reply) => write!(f, "TLS is required and was refused: {reply}"),
            Self::XclientNotOffered => f.write_str("XCLIENT is needed and not offered"),
        }
    }
}

impl std::error::Error for Failure {}

/// A connection.
#[derive(Debug)]
pub struct Client {
    options: Options,
    output: VecDeque<Bytes>,
    reader: ReplyReader,
    /// Commands that wait until what was sent before them is answered.
    unsent: VecDeque<(Bytes, Expected)>,
    /// What the next replies answer.
    expected: VecDeque<Expected>,
    events: VecDeque<Event>,
    capabilities: Capabilities,
    tls: bool,
    tls_is_refused: bool,
    /// Replies of the transaction: one for each recipient, once known.
    replies: Vec<Option<Reply>>,
    sender_is_taken: bool,
    content_is_refused: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Data,
    Final(Option<usize>),
    Greeting,
    Hello,
    OldHello,
    Mail,
    Quit,
    Recipient(usize),
    /// The envelope is taken back; idle afterwards.
    Reset,
    StartTls,
    Xclient,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// MAIL, RCPT, DATA.
    Beginning,
    /// 354 has come.
    Content,
    /// Content is sent, the dot is held.
    Held,
    Dead,
    Idle,
    Opening,
    Quitting,
    /// The dot is out.
    Released,
}

impl Client {
    /// A new connection, whose server speaks first.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            output: VecDeque::new(),
            reader: ReplyReader::default(),
            unsent: VecDeque::new(),
            expected: VecDeque::from([Expected::Greeting]),
            events: VecDeque::new(),
            capabilities: Capabilities::default(),
            tls: false,
            tls_is_refused: false,
            replies: Vec::new(),
            sender_is_taken: false,
            content_is_refused: false,
            phase: Phase::Opening,
        }
    }

    /// Octets to write, in order.
    pub fn output(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.output
    }

    /// What the server offers, once idle.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether TLS is on.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether the server offered TLS and did not start it.
    pub fn is_tls_refused(&self) -> bool {
        self.tls_is_refused
    }

    /// Whether content is on its way: what the server says then is an interruption. While commands are, it is an
    /// answer to earlier ones (RFC 2920 §3.1).
    pub fn is_sending_content(&self) -> bool {
        matches!(self.phase, Phase::Content | Phase::Held | Phase::Released)
    }

    /// Whether a transaction may start.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.events.is_empty()
    }

    /// What the server lacks for a transaction.
    pub fn lacks(&self, transaction: &Transaction<'_>) -> Option<Lack> {
        let offered = &self.capabilities;
        let limit = offered.size.flatten().filter(|limit| *limit > 0);
        if transaction.needs_smtputf8() && !offered.smtputf8 {
            Some(Lack::Extension(Extension::SmtpUtf8))
        } else if transaction.eight_bit && !offered.eight_bit_mime {
            Some(Lack::Extension(Extension::EightBitMime))
        } else if transaction.parameters.requiretls && !(offered.requiretls && self.tls) {
            Some(Lack::Extension(Extension::RequireTls))
        } else if limit.is_some_and(|limit| transaction.size_bytes > limit) {
            Some(Lack::Size)
        } else {
            None
        }
    }

    /// Whether MAIL of the last transaction was answered by yes: what was refused then is not all that there is.
    pub fn is_sender_taken(&self) -> bool {
        self.sender_is_taken
    }

    /// Whether the last transaction was refused at DATA, by a server that had admitted somebody: that is about the message and
    /// not about who it is from and for.
    pub fn is_content_refused(&self) -> bool {
        self.content_is_refused
    }

    /// Starts a transaction; only when idle.
    ///
    /// # Errors
    /// A [`Lack`]; nothing was sent.
    pub fn start(&mut self, transaction: &Transaction<'_>) -> Result<(), Lack> {
        self.begin(transaction, b"DATA\r\n", Expected::Data)
    }

    /// Asks who would be admitted, and takes it back with RSET; only when idle. [`Event::Checked`] answers, or
    /// [`Event::Refused`] where nobody would be.
    ///
    /// # Errors
    /// A [`Lack`]; nothing was sent.
    pub fn check(&mut self, transaction: &Transaction<'_>) -> Result<(), Lack> {
        self.begin(transaction, b"RSET\r\n", Expected::Reset)
    }

    fn begin(
        &mut self,
        transaction: &Transaction<'_>,
        last: &'static [u8],
        expected: Expected,
    ) -> Result<(), Lack> {
        if let Some(lack) = self.lacks(transaction) {
            return Err(lack);
        }
        if !self.is_idle() || transaction.recipients.is_empty() {
            return Ok(());
        }
        self.phase = Phase::Beginning;
        self.sender_is_taken = false;
        self.content_is_refused = false;
        self.replies = vec![None; transaction.recipients.len()];
        self.unsent.push_back((self.mail_command(transaction), Expected::Mail));
        for (index, recipient) in transaction.recipients.iter().enumerate() {
            let command = self.rcpt_command(transaction, recipient);
            self.unsent.push_back((command, Expected::Recipient(index)));
        }
        self.unsent.push_back((Bytes::from_static(last), expected));
        self.send_commands();
        Ok(())
    }

    /// Sends a message, all but the final dot; only after [`Event::Admitted`].
    pub fn send_content(&mut self, segments: &[Bytes]) {
        if self.phase == Phase::Content {
            data::stuff(segments, &mut self.output);
            self.phase = Phase::Held;
        }
    }

    /// Sends the final dot; only after [`Client::send_content`]. From here on the message may be delivered.
    pub fn release(&mut self) {
        if self.phase != Phase::Held {
            return;
        }
        self.output.push_back(Bytes::from_static(b".\r\n"));
        self.phase = Phase::Released;
        match self.options.protocol {
            Protocol::Lmtp => {
                let admitted = self.admitted();
                self.expected
                    .extend(admitted.into_iter().map(|index| Expected::Final(Some(index))));
            }
            Protocol::Smtp => self.expected.push_back(Expected::Final(None)),
        }
    }

    /// Says goodbye; only when idle.
    pub fn quit(&mut self) {
        if self.is_idle() {
            self.command(b"QUIT\r\n", Expected::Quit);
            self.phase = Phase::Quitting;
        }
    }

    /// After the handshake: what was offered before counts no more (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.capabilities = Capabilities::default();
        self.say_hello();
    }

    /// Uses up input until something happened.
    pub fn advance(&mut self, input: &mut BytesMut) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                if event == Event::StartTls {
                    // As RFC 3207 §4.2 for the server: what came before the handshake is not protected by it.
                    input.clear();
                }
                return event;
            }
            if self.phase == Phase::Dead {
                input.clear();
                return Event::NeedInput;
            }
            match self.reader.next(input) {
                Ok(Some(reply)) => self.take_reply(reply),
                Ok(None) => return Event::NeedInput,
                Err(_) => self.fail(Failure::Garbage),
            }
        }
    }

    fn take_reply(&mut self, reply: Reply) {
        let Some(expected) = self.expected.pop_front() else { return self.take_unexpected(reply) };
        if reply.code == 421 {
            return self.take_closing(expected, reply);
        }
        // RFC 5321 §4.3.2: only DATA is answered by 3xx, and never by 2xx.
        let transaction = !matches!(self.phase, Phase::Opening | Phase::Quitting);
        let intermediate = (300..400).contains(&reply.code);
        let data = expected == Expected::Data;
        if transaction && (intermediate != data) && (intermediate || reply.is_positive()) {
            return self.fail(Failure::Garbage);
        }
        match expected {
            Expected::Greeting if reply.code == 220 => self.say_hello(),
            Expected::Hello if reply.is_positive() => self.take_capabilities(&reply),
            Expected::Hello
                if reply.is_permanent() && self.options.protocol == Protocol::Smtp && !self.tls =>
            {
                let command = format!("HELO {}\r\n", self.options.hostname);
                self.command(command.as_bytes(), Expected::OldHello);
            }
            Expected::OldHello if reply.is_positive() => self.hello_done(),
            Expected::Greeting | Expected::Hello | Expected::OldHello => {
                self.fail(Failure::Refused(reply));
            }
            Expected::StartTls if reply.code == 220 => self.events.push_back(Event::StartTls),
            Expected::StartTls if self.options.tls == Tls::Required => {
                self.fail(Failure::TlsRefused(reply));
            }
            Expected::StartTls => {
                self.tls_is_refused = true;
                self.idle();
            }
            Expected::Mail => self.take_mail_reply(&reply),
            Expected::Recipient(index) => self.take_recipient_reply(index, reply),
            Expected::Data => self.take_data_reply(&reply),
            Expected::Final(recipient) => self.take_final_reply(recipient, &reply),
            // RFC 5321 §4.1.1.5: RSET always succeeds. Who says otherwise may still hold the envelope, and would refuse the next.
            Expected::Reset if reply.is_positive() => self.idle(),
            Expected::Reset => self.fail(Failure::Garbage),
            Expected::Xclient if reply.code == 220 => self.say_hello(),
            Expected::Xclient => self.fail(Failure::Refused(reply)),
            Expected::Quit => self.fail(Failure::Closing(reply)),
        }
    }

    /// A reply to nothing: a refusal in the middle of the content holds, anything else is the end.
    fn take_unexpected(&mut self, reply: Reply) {
        let receiving = matches!(self.phase, Phase::Content | Phase::Held);
        if receiving && reply.code >= 400 {
            self.push_answers(None, &reply);
        }
        let closing = reply.code == 421 || (receiving && reply.code >= 400);
        self.fail(if closing { Failure::Closing(reply) } else { Failure::Garbage });
    }

    /// 421 may answer anything (RFC 5321 §3.8): it holds for whatever is still open, and the connection is over.
    fn take_closing(&mut self, expected: Expected, reply: Reply) {
        match expected {
            Expected::Mail | Expected::Recipient(_) | Expected::Data => {
                let settle = |earlier: Option<Reply>| match earlier {
                    Some(refusal) if !refusal.is_positive() => refusal,
                    Some(_) | None => reply.clone(),
                };
                let replies = self.replies.drain(..).map(settle).collect();
                self.events.push_back(Event::Refused(replies));
            }
            Expected::Final(recipient) => {
                self.push_answers(recipient, &reply);
                let unanswered: Vec<Expected> = self.expected.drain(..).collect();
                for expected in unanswered {
                    if let Expected::Final(recipient) = expected {
                        self.push_answers(recipient, &reply);
                    }
                }
            }
            Expected::Greeting | Expected::Hello | Expected::OldHello | Expected::Xclient => {
                return self.fail(Failure::Refused(reply));
            }
            Expected::Quit | Expected::Reset | Expected::StartTls => {}
        }
        self.fail(Failure::Closing(reply));
    }

    fn say_hello(&mut self) {
        let verb = match self.options.protocol {
            Protocol::Lmtp => "LHLO",
            Protocol::Smtp => "EHLO",
        };
        let command = format!("{verb} {}\r\n", self.options.hostname);
        self.command(command.as_bytes(), Expected::Hello);
    }

    fn take_capabilities(&mut self, reply: &Reply) {
        let mut offered = Capabilities::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "8BITMIME" => offered.eight_bit_mime = true,
                "DSN" => offered.dsn = true,
                "PIPELINING" => offered.pipelining = true,
                "REQUIRETLS" => offered.requiretls = true,
                "SIZE" => offered.size = Some(words.next().and_then(|limit| limit.parse().ok())),
                "SMTPUTF8" => offered.smtputf8 = true,
                "STARTTLS" => offered.starttls = true,
                "XCLIENT" => offered.xclient = XclientAttributes::parse(words),
                _ => {}
            }
        }
        self.capabilities = offered;
        self.hello_done();
    }

    fn hello_done(&mut self) {
        match self.options.tls {
            Tls::IfOffered | Tls::Required if !self.tls && self.capabilities.starttls => {
                self.command(b"STARTTLS\r\n", Expected::StartTls);
            }
            Tls::Required if !self.tls => self.fail(Failure::TlsNotOffered),
            Tls::IfOffered | Tls::Off | Tls::Required => self.idle(),
        }
    }

    fn take_mail_reply(&mut self, reply: &Reply) {
        self.sender_is_taken = reply.is_positive();
        if !self.sender_is_taken {
            // Said for all; what is said to each because of it does not matter.
            self.replies.iter_mut().for_each(|slot| *slot = Some(reply.clone()));
        }
        self.send_commands();
    }

    fn take_recipient_reply(&mut self, index: usize, mut reply: Reply) {
        // RFC 5321 §4.5.3.1.10: RFC 821 had 552 for more recipients than a server takes at once, who are to be tried again. A full
        // mailbox and a message that is too large (RFC 3463 §3.3, §3.4) are that at the next attempt as well.
        if reply.code == 552 && !matches!(reply.enhanced, Some((5, 2, _) | (5, 3, 4))) {
            reply.code = 452;
            reply.enhanced = reply.enhanced.map(|(_, subject, detail)| (4, subject, detail));
        }
        if let Some(slot) = self.replies.get_mut(index) {
            slot.get_or_insert(reply);
        }
        self.send_commands();
        // A check's last recipient: what is known does not wait for the answer to RSET.
        if self.expected.front() == Some(&Expected::Reset) && !self.replies.is_empty() {
            let replies = self.replies.drain(..).flatten().collect();
            self.events.push_back(Event::Checked(replies));
        }
    }

    fn take_data_reply(&mut self, reply: &Reply) {
        let admitted = self.admitted();
        let go_ahead = reply.code == 354;
        if go_ahead && !admitted.is_empty() {
            self.phase = Phase::Content;
            let replies = self.replies.iter().flatten().cloned().collect();
            self.events.push_back(Event::Admitted(replies));
            return;
        }
        self.content_is_refused = !admitted.is_empty();
        for index in admitted {
            if let Some(slot) = self.replies.get_mut(index) {
                *slot = Some(reply.clone());
            }
        }
        let replies = self.replies.drain(..).flatten().collect();
        self.events.push_back(Event::Refused(replies));
        if go_ahead {
            // RFC 2920 §3.1 would have a lone dot here. A server that admits nobody and still wants content may believe
            // otherwise about a recipient, and would deliver an empty message.
            self.fail(Failure::Garbage);
        } else {
            self.command(b"RSET\r\n", Expected::Reset);
        }
    }

    fn take_final_reply(&mut self, recipient: Option<usize>, reply: &Reply) {
        self.push_answers(recipient, reply);
        if self.expected.is_empty() {
            self.idle();
        }
    }

    fn push_answers(&mut self, recipient: Option<usize>, reply: &Reply) {
        let recipients = recipient.map_or_else(|| self.admitted(), |index| vec![index]);
        let answer = |recipient| Event::Answer { recipient, reply: reply.clone() };
        self.events.extend(recipients.into_iter().map(answer));
    }

    /// Recipients that were admitted, by index.
    fn admitted(&self) -> Vec<usize> {
        let admitted = |reply: &Option<Reply>| reply.as_ref().is_some_and(Reply::is_positive);
        let replies = self.replies.iter().enumerate();
        replies.filter(|(_, reply)| admitted(reply)).map(|(index, _)| index).collect()
    }

    /// Sends what may be sent now: all with pipelining, else one command, and none that has become pointless.
    fn send_commands(&mut self) {
        if !self.capabilities.pipelining && !self.expected.is_empty() {
            return;
        }
        if self.capabilities.pipelining && self.unsent.len() > 1 {
            let length = self.unsent.iter().map(|(command, _)| command.len()).sum();
            let mut group = BytesMut::with_capacity(length);
            for (command, expected) in self.unsent.drain(..) {
                group.extend_from_slice(&command);
                self.expected.push_back(expected);
            }
            self.output.push_back(group.freeze());
            return;
        }
        let undecided = self.replies.iter().any(Option::is_none);
        if !undecided && self.admitted().is_empty() && !self.unsent.is_empty() {
            self.unsent.clear();
            let replies = self.replies.drain(..).flatten().collect();
            self.events.push_back(Event::Refused(replies));
            self.command(b"RSET\r\n", Expected::Reset);
        } else if let Some((command, expected)) = self.unsent.pop_front() {
            self.output.push_back(command);
            self.expected.push_back(expected);
        }
    }

    fn command(&mut self, command: &[u8], expected: Expected) {
        self.output.push_back(Bytes::copy_from_slice(command));
        self.expected.push_back(expected);
    }

    fn idle(&mut self) {
        self.phase = Phase::Idle;
        self.replies.clear();
        self.events.push_back(Event::Idle);
    }

    fn fail(&mut self, failure: Failure) {
        self.phase = Phase::Dead;
        self.expected.clear();
        self.unsent.clear();
        self.events.push_back(Event::Failed(failure));
    }
}

#[cfg(test)]
mod tests;
