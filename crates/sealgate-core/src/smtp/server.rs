//! The receiving side: a session as a state machine (RFC 5321 §4, RFC 2033).
//!
//! In: what was read, in the caller's buffer, cut anywhere; and the caller's answers. Out: [`Event`]s, and replies in
//! [`Server::output`]. The caller writes the output before it waits for more input. Every [`Event`]
//! that is a question stops the machine until it is answered; pipelined input waits in the buffer.
//!
//! A session holds no policy: whom to admit and what to reply to a message is the caller's answer.

use bytes::{Buf, Bytes, BytesMut};

use super::Protocol;
use super::command::{Command, ForwardPath, Greeting};
use super::reply;
use crate::address::Address;
use crate::envelope::{Envelope, MailParameters, Recipient};
use crate::refusal::{Refusal, Reply};

mod content;
mod hello;
mod options;

use content::Body;
pub use content::Discarded;
pub use options::{Limits, Options, StartTls};

/// What the caller must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Write the output and close.
    Close,
    /// May this message's content come? Answer with [`Server::accept`] or [`Server::refuse`].
    Data,
    /// Content that began and became no message, by the machine's or the client's own doing.
    Discarded(Box<Discarded>),
    /// A whole message. Answer with [`Server::answer`], LMTP once for each recipient.
    Message(Box<(Envelope, Bytes)>),
    /// May this sender begin? Answer with [`Server::accept`] or [`Server::refuse`].
    Mail {
        /// `None` is the null reverse-path.
        reverse_path: Option<Address>,
        /// Its parameters.
        parameters: MailParameters,
    },
    /// The last question is not answered yet.
    NeedAnswer,
    /// Write the output, and read more.
    NeedInput,
    /// May this recipient be added? Answer with [`Server::accept`] or [`Server::refuse`].
    Recipient(Recipient),
    /// Write the output, do the TLS handshake, and call [`Server::tls_started`]. The input was discarded.
    StartTls,
}

/// A session.
#[derive(Debug)]
pub struct Server {
    options: Options,
    output: BytesMut,
    phase: Phase,
    question: Option<Question>,
    hello: Option<(Greeting, String)>,
    tls: bool,
    envelope: Option<Envelope>,
    /// RCPT commands that were refused since MAIL.
    recipients_refused: bool,
    /// Those refused for good, where they count as errors, since a message was taken or they were counted.
    refusals: u32,
    body: Option<Body>,
    commands: u32,
    errors: u32,
    /// Command lines read to their ends.
    lines: u64,
    /// Said in every refusal.
    id: String,
    quit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Chunk { left: u64, last: bool },
    Closed,
    Command,
    Data,
    LongLine,
}

#[derive(Debug)]
enum Question {
    Data(Start),
    Mail(Option<Address>, MailParameters),
    /// So many replies are owed.
    Message(usize),
    Recipient(Recipient),
    Tls,
}

/// How content begins.
#[derive(Clone, Copy, Debug)]
enum Start {
    Chunk { left: u64, last: bool },
    Data,
}

impl Event {
    fn discarded(discarded: Discarded) -> Self {
        Self::Discarded(Box::new(discarded))
    }
}

impl Server {
    /// A session on a new connection; the greeting is in the output.
    pub fn new(options: Options) -> Self {
        let mut server = Self {
            output: BytesMut::with_capacity(OUTPUT_BYTES),
            phase: Phase::Command,
            question: None,
            hello: None,
            tls: false,
            envelope: None,
            recipients_refused: false,
            refusals: 0,
            body: None,
            commands: 0,
            errors: 0,
            lines: 0,
            id: String::new(),
            quit: false,
            options,
        };
        let protocol = match server.options.protocol {
            Protocol::Lmtp => "LMTP",
            Protocol::Smtp => "ESMTP",
        };
        let greeting = format!("{} {protocol} sealgate", server.options.hostname);
        server.reply_plain(220, vec![greeting]);
        server
    }

    /// A connection that is turned away with the first reply (RFC 5321 §3.1).
    pub fn refusing(options: Options, reply: &Reply) -> Self {
        let mut server = Self::new(options);
        server.output.clear();
        server.close(reply);
        server
    }

    /// Until the transaction ends every refusal ends in this id, by which its log line is found.
    pub fn set_id(&mut self, id: &str) {
        id.clone_into(&mut self.id);
    }

    /// Octets to write.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// The name that the client gave, and how.
    pub fn hello(&self) -> Option<(Greeting, &str)> {
        self.hello.as_ref().map(|(greeting, name)| (*greeting, name.as_str()))
    }

    /// The transaction so far.
    pub fn envelope(&self) -> Option<&Envelope> {
        self.envelope.as_ref()
    }

    /// Whether the client said goodbye, so that nothing of it can be lost by closing.
    pub fn has_quit(&self) -> bool {
        self.quit
    }

    /// Whether content is being received.
    pub fn is_receiving(&self) -> bool {
        self.body.is_some()
    }

    /// Whether a command line is too long and has not ended; none of it is in the input.
    pub fn is_within_long_line(&self) -> bool {
        self.phase == Phase::LongLine
    }

    /// Command lines read to their ends, so that one that does not end can be told from the next.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Octets of content in memory, for a budget over all sessions.
    pub fn held_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.content.held())
    }

    /// Octets of content received in this transaction, whether kept or not, for a minimum rate.
    pub fn received_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.content.received())
    }

    /// How many replies to the message are still owed.
    pub fn replies_owed(&self) -> usize {
        if let Some(Question::Message(owed)) = self.question { owed } else { 0 }
    }

    /// Whether more was announced at MAIL (RFC 1870) than is taken; such a sender is not accepted.
    pub fn is_too_large(&self, size_bytes: Option<u64>) -> bool {
        size_bytes.is_some_and(|size| size > self.options.limits.message_bytes_max)
    }

    /// Ends the session: `reply` (421, 521, 554) is the last thing said, also of content that was under way.
    pub fn close(&mut self, reply: &Reply) -> Option<Discarded> {
        if self.phase == Phase::Closed {
            return None;
        }
        self.forget_id();
        self.reply(reply);
        self.phase = Phase::Closed;
        self.question = None;
        let discarded = self.discard(Some(reply.clone()));
        self.reset();
        discarded
    }

    /// Uses up input until there is something to do. Call again after having done it.
    pub fn advance(&mut self, input: &mut BytesMut) -> Event {
        loop {
            let event = match self.phase {
                Phase::Closed => {
                    input.clear();
                    Some(Event::Close)
                }
                _ if self.question.is_some() => Some(Event::NeedAnswer),
                Phase::Chunk { left, last } => self.chunk(left, last, input),
                Phase::Command => self.command_line(input),
                Phase::Data => self.data(input),
                Phase::LongLine => self.skip_long_line(input),
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Says yes to [`Event::Mail`], [`Event::Recipient`] or [`Event::Data`].
    pub fn accept(&mut self) {
        match self.question.take() {
            Some(Question::Data(start)) => self.start_content(start),
            Some(Question::Mail(_, parameters)) if self.is_too_large(parameters.size_bytes) => {
                self.reply(&Reply::from(&Refusal::TooLarge));
            }
            Some(Question::Mail(reverse_path, parameters)) => {
                self.envelope = Some(Envelope { reverse_path, recipients: Vec::new(), parameters });
                self.say(250, (2, 1, 0), "sender ok");
            }
            Some(Question::Recipient(recipient)) => {
                if let Some(envelope) = &mut self.envelope {
                    envelope.recipients.push(recipient);
                }
                self.commands = self.commands.saturating_sub(1);
                self.say(250, (2, 1, 5), "recipient ok");
            }
            other => self.question = other,
        }
    }

    /// Says no to [`Event::Mail`], [`Event::Recipient`] or [`Event::Data`].
    pub fn refuse(&mut self, reply: &Reply) {
        match self.question.take() {
            Some(Question::Data(Start::Chunk { left, last })) => {
                self.drain_chunk(left, last, reply.clone());
            }
            Some(Question::Data(Start::Data)) => {
                self.reply(reply);
                self.reset();
            }
            Some(Question::Mail(..)) => self.reply(reply),
            Some(Question::Recipient(_)) => {
                self.recipients_refused = true;
                if self.options.limits.refusals_are_errors && reply.is_permanent() {
                    self.refusals = self.refusals.saturating_add(1);
                }
                self.reply(reply);
            }
            other => self.question = other,
        }
    }

    /// Replies to [`Event::Message`]: LMTP for the next recipient in the order of RCPT, SMTP for all.
    pub fn answer(&mut self, reply: &Reply) {
        let Some(Question::Message(owed)) = self.question else { return };
        self.reply(reply);
        self.question = match owed.saturating_sub(1) {
            0 => None,
            left => Some(Question::Message(left)),
        };
        if reply.is_positive() {
            self.commands = 0;
            self.refusals = 0;
        }
    }

    fn command_line(&mut self, input: &mut BytesMut) -> Option<Event> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            if input.len() > COMMAND_BYTES_MAX {
                input.clear();
                self.phase = Phase::LongLine;
            }
            return Some(Event::NeedInput);
        };
        self.begin_line();
        let event = match input.get(..end).unwrap_or_default() {
            line if line.len() >= COMMAND_BYTES_MAX => self.line_too_long(),
            [line @ .., b'\r'] => self.command(line),
            _ => {
                let reply = Reply::new(500, (5, 5, 2), "syntax error: a line must end in CRLF");
                self.error(&reply)
            }
        };
        input.advance(end.saturating_add(1));
        if event == Some(Event::StartTls) {
            // RFC 3207 §4.2, CVE-2011-0411: what was sent before the handshake is not protected by it.
            input.clear();
        }
        event
    }

    fn skip_long_line(&mut self, input: &mut BytesMut) -> Option<Event> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            input.clear();
            return Some(Event::NeedInput);
        };
        input.advance(end.saturating_add(1));
        self.begin_line();
        self.phase = Phase::Command;
        self.line_too_long()
    }

    fn begin_line(&mut self) {
        self.lines = self.lines.wrapping_add(1);
        self.forget_id();
    }

    /// What is said between two transactions belongs to neither.
    fn forget_id(&mut self) {
        if self.envelope.is_none() {
            self.id.clear();
        }
    }

    fn line_too_long(&mut self) -> Option<Event> {
        self.error(&Reply::new(500, (5, 5, 2), "line too long"))
    }

    fn command(&mut self, line: &[u8]) -> Option<Event> {
        self.commands = self.commands.saturating_add(1);
        if self.commands > self.options.limits.commands_max {
            return self.hang_up(&Reply::new(421, (4, 7, 0), "too many commands"));
        }
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(reply) => return self.error(&reply),
        };
        let long = matches!(command, Command::Mail { .. } | Command::Rcpt { .. });
        if line.len().saturating_add(2) > PLAIN_COMMAND_BYTES_MAX && !long {
            return self.line_too_long();
        }
        match command {
            Command::Bdat { size_bytes, last } => return self.bdat(size_bytes, last),
            Command::Data => return self.data_command(),
            Command::Expn => return self.error(&Reply::new(502, (5, 5, 1), "not offered")),
            Command::Hello(greeting, name) => return self.hello_command(greeting, name),
            Command::Help => self.say(214, (2, 0, 0), "see RFC 5321"),
            Command::Http => {
                return self.hang_up(&Reply::new(421, (4, 7, 0), "this is not HTTP"));
            }
            Command::Mail { reverse_path, parameters } => {
                return self.mail(reverse_path, parameters);
            }
            Command::Noop => self.say(250, (2, 0, 0), "ok"),
            Command::Quit => {
                self.quit = true;
                let discarded = self.close(&Reply::new(221, (2, 0, 0), "bye"))?;
                return Some(Event::discarded(Discarded { refusal: None, ..discarded }));
            }
            Command::Rcpt { forward_path, notify, orcpt } => {
                return self.rcpt(forward_path, notify, orcpt);
            }
            Command::Rset => {
                let discarded = self.discard(None);
                self.reset();
                self.say(250, (2, 0, 0), "ok");
                return discarded.map(Event::discarded);
            }
            Command::StartTls => return self.starttls(),
            Command::Vrfy => self.say(252, (2, 1, 5), "send some mail, I'll try my best"),
        }
        None
    }

    fn mail(&mut self, from: Option<Address>, parameters: MailParameters) -> Option<Event> {
        if self.hello.is_none() {
            return self.out_of_sequence("say hello first");
        }
        if self.options.starttls == StartTls::Required && !self.tls {
            return self.error(&Reply::new(530, (5, 7, 0), "issue STARTTLS first"));
        }
        if self.envelope.is_some() {
            return self.out_of_sequence("a sender was given already");
        }
        let offered = &self.options;
        let dsn = parameters.ret.is_some() || parameters.envid.is_some();
        let requiretls = parameters.requiretls && !(offered.requiretls && self.tls);
        if (dsn && !offered.dsn) || (parameters.smtputf8 && !offered.smtputf8) || requiretls {
            return self.error(&Reply::new(555, (5, 5, 4), "parameter not offered"));
        }
        if self.has_guessed() {
            return self.hang_up(&Reply::new(421, (4, 7, 0), "too many unknown recipients"));
        }
        self.question = Some(Question::Mail(from.clone(), parameters.clone()));
        Some(Event::Mail { reverse_path: from, parameters })
    }

    fn rcpt(
        &mut self,
        forward_path: ForwardPath,
        notify: Option<String>,
        orcpt: Option<String>,
    ) -> Option<Event> {
        let Some(envelope) = &self.envelope else {
            return self.out_of_sequence("a sender is needed first");
        };
        if self.body.is_some() {
            return self.out_of_sequence("content has begun");
        }
        if (notify.is_some() || orcpt.is_some()) && !self.options.dsn {
            return self.error(&Reply::new(555, (5, 5, 4), "parameter not offered"));
        }
        if envelope.recipients.len() >= self.options.limits.recipients_max {
            // RFC 5321 §4.5.3.1.10: the client keeps the rest for another transaction.
            self.commands = self.commands.saturating_sub(1);
            self.say(452, (4, 5, 3), "too many recipients");
            return None;
        }
        if self.is_guessing() {
            self.say(452, (4, 5, 3), "too many unknown recipients, try again later for the rest");
            return None;
        }
        let address = match forward_path {
            ForwardPath::Mailbox(address) => address,
            ForwardPath::Postmaster => Address::postmaster(&self.options.postmaster_domain),
        };
        if address.needs_smtputf8() && !envelope.parameters.smtputf8 {
            let text = "an address with UTF-8 needs SMTPUTF8";
            return self.error(&Reply::new(553, (5, 6, 7), text));
        }
        let recipient = Recipient { address, notify, orcpt };
        self.question = Some(Question::Recipient(recipient.clone()));
        Some(Event::Recipient(recipient))
    }

    /// Whether this transaction names nobody more (K9). A mailing list with so many dead addresses still delivers to those who
    /// were admitted, and is told for good of those refused: its next attempt for the rest has fewer of them, and gets
    /// further. Who guesses addresses hears no more.
    fn is_guessing(&self) -> bool {
        self.errors.saturating_add(self.refusals) > self.options.limits.errors_max
    }

    /// Whether the session is over: transactions that named unknown recipients and brought no message that was taken are
    /// so many wrong commands. That is found at the next MAIL, when 421 can cost no message that is under way.
    fn has_guessed(&mut self) -> bool {
        let refusals = std::mem::take(&mut self.refusals);
        self.errors = self.errors.saturating_add(refusals);
        refusals > 0 && self.errors > self.options.limits.errors_max
    }

    /// What is missing before content may come.
    fn not_ready(&self) -> Option<Reply> {
        let envelope = self.envelope.as_ref();
        match (envelope, envelope.is_some_and(|envelope| envelope.recipients.is_empty())) {
            (None, _) => Some(Reply::new(503, (5, 5, 1), "a sender is needed first")),
            // RFC 2033 §4.2 demands 503 there.
            (Some(_), true)
                if self.recipients_refused && self.options.protocol == Protocol::Smtp =>
            {
                Some(Reply::new(554, (5, 5, 1), "no valid recipients"))
            }
            (Some(_), true) => Some(Reply::new(503, (5, 5, 1), "a recipient is needed first")),
            (Some(_), false) => None,
        }
    }

    fn data_command(&mut self) -> Option<Event> {
        if self.body.is_some() {
            return self.out_of_sequence("DATA cannot follow BDAT");
        }
        if let Some(reply) = self.not_ready() {
            return self.error(&reply);
        }
        self.question = Some(Question::Data(Start::Data));
        Some(Event::Data)
    }

    fn reset(&mut self) {
        self.envelope = None;
        self.body = None;
        self.recipients_refused = false;
    }

    fn out_of_sequence(&mut self, text: &str) -> Option<Event> {
        self.error(&Reply::new(503, (5, 5, 1), text))
    }

    /// A wrong command; too many end the session.
    fn error(&mut self, reply: &Reply) -> Option<Event> {
        self.errors = self.errors.saturating_add(1);
        if self.errors > self.options.limits.errors_max {
            return self.hang_up(&Reply::new(421, (4, 7, 0), "too many errors"));
        }
        self.reply(reply);
        None
    }

    fn hang_up(&mut self, reply: &Reply) -> Option<Event> {
        self.close(reply).map(Event::discarded)
    }

    fn say(&mut self, code: u16, enhanced: (u8, u16, u16), text: &str) {
        self.reply(&Reply::new(code, enhanced, text));
    }

    /// A reply without an enhanced status (RFC 2034 §3: greeting, hello, 3xx).
    fn reply_plain(&mut self, code: u16, lines: Vec<String>) {
        self.reply(&Reply { code, enhanced: None, lines });
    }

    fn reply(&mut self, reply: &Reply) {
        if reply.code < 400 || self.id.is_empty() {
            return reply::write(reply, &mut self.output);
        }
        let mut reply = reply.clone();
        if let Some(last) = reply.lines.last_mut() {
            *last = format!("{} (id {})", bounded(last), self.id);
        }
        reply::write(&reply, &mut self.output);
    }
}

/// A text that leaves room for an id.
fn bounded(text: &str) -> &str {
    text.char_indices().nth(TEXT_CHARS_MAX).map_or(text, |(end, _)| text.split_at(end).0)
}

/// Longest refusal before its id.
const TEXT_CHARS_MAX: usize = 400;
/// Commands without parameters: RFC 5321 §4.5.3.1.4.
const PLAIN_COMMAND_BYTES_MAX: usize = 512;
/// MAIL and RCPT with what SIZE, BODY, SMTPUTF8 and DSN add (RFC 1870 §3, RFC 6531 §3.4, RFC 3461 §5).
const COMMAND_BYTES_MAX: usize = 2048;
/// Replies to a usual pipelined group.
const OUTPUT_BYTES: usize = 512;

#[cfg(test)]
mod tests;
