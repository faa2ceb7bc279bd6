//! The books: what every mail server was told, what every sink holds, which faults struck.
//! The judgement over them is [`super::judge`]'s.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Instant;

use super::summary::Summary;
use crate::mail;

/// Where a message goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    InsideLmtp,
    InsideSmtp,
    OutsideSmtp,
}

/// One message of a mail server's queue.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) door: Door,
    pub(super) from: String,
    pub(super) recipients: Vec<String>,
    pub(super) content: Vec<u8>,
    /// Who is to be refused for good, and with which status: then nobody else is, and he never gets a copy.
    pub(super) refused: Vec<(String, &'static str)>,
    /// Each of these stands in every copy of this message, and all of them in no other's.
    pub(super) marks: Vec<String>,
}

impl Mail {
    /// What is wrong with this content at this recipient's.
    fn objection(&self, recipient: &str, content: &[u8]) -> Option<String> {
        if !self.recipients.iter().any(|one| one == recipient) {
            return Some("is not for him".to_owned());
        }
        if self.refused.iter().any(|(whom, _)| whom == recipient) {
            return Some("is to be refused".to_owned());
        }
        let missing = self.marks.iter().find(|mark| !mail::contains(content, mark))?;
        Some(format!("came without {missing:?}"))
    }
}

/// One attempt to hand over a message: the message and the attempt's number, as they stand in ENVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) message: usize,
    pub(super) number: usize,
    /// One reply for all, and more than one copy perhaps.
    pub(super) jointly: bool,
}

impl Attempt {
    /// `m12.3.s`
    pub(super) fn envelope_id(self) -> String {
        format!("m{}.{}.{}", self.message, self.number, if self.jointly { 's' } else { 'a' })
    }

    /// Found after this mark, `ENVID=` say, in whatever text.
    pub(super) fn find(text: &str, mark: &str) -> Option<Self> {
        let at = text.rfind(mark)? + mark.len();
        let word = text[at..].trim_start().strip_prefix('m')?;
        let mut parts =
            word.split(|c: char| c != '.' && !c.is_ascii_alphanumeric()).next()?.split('.');
        let message = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        Some(Self { message, number, jointly: parts.next()? == "s" })
    }
}

/// Which part of the world a fault struck, and so which window of REQUIREMENTS §5 it may explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Side {
    /// The relay: killed, stopped, delayed or in panic.
    Relay,
    /// A sink or the line to it.
    Downstream,
    /// A client or the line from it.
    Upstream,
    /// A key store.
    Stores,
    /// DNS: the name server or the line to it.
    Names,
}

/// Whom a fault hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    /// Whoever was under way then.
    Anybody,
    /// Nothing was under way where it struck: it counts, and explains nothing.
    Nobody,
    /// This attempt.
    One(Attempt),
}

impl From<Option<Attempt>> for Hit {
    fn from(attempt: Option<Attempt>) -> Self {
        attempt.map_or(Self::Nobody, Self::One)
    }
}

/// A client's connection to its line, or a line's to a sink. One end alone may be that of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    side: Side,
    client: SocketAddr,
    server: SocketAddr,
}

impl Connection {
    /// As the end that connected knows it.
    pub(super) fn of_client(side: Side, stream: &TcpStream) -> io::Result<Self> {
        Ok(Self { side, client: stream.local_addr()?, server: stream.peer_addr()? })
    }

    /// As the end that listened knows it.
    pub(super) fn of_server(side: Side, stream: &TcpStream) -> io::Result<Self> {
        Ok(Self { side, client: stream.peer_addr()?, server: stream.local_addr()? })
    }

    /// Where it may break.
    pub(super) fn side(self) -> Side {
        self.side
    }
}

#[derive(Debug, Default)]
pub(super) struct Books {
    mails: Vec<Entry>,
    pub(super) copies: HashMap<(usize, String), Vec<Kept>>,
    /// The attempts whose notifications name a recipient.
    pub(super) notified: HashMap<(usize, String), Vec<usize>>,
    pub(super) strikes: Vec<Strike>,
    /// Whose transaction a connection carries.
    carried: HashMap<Connection, Attempt>,
    /// When the relay could not use its done-record.
    pub(super) forgot: Vec<Instant>,
    /// Whom the mail server inside refused for good before a dot, everybody perhaps: that is believed for a while.
    pub(super) turned_away: Vec<(Instant, Option<String>)>,
    faults: BTreeMap<String, u64>,
    leaked: Vec<String>,
    misrouted: Vec<String>,
    replies: BTreeMap<String, u64>,
}

/// A copy that a sink holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// Of which attempt.
    pub(super) number: usize,
    /// Whether the sink said so.
    pub(super) answered: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) mail: Mail,
    /// What stays to be delivered, as indices of recipients.
    open: Vec<usize>,
    pub(super) attempts: Vec<Try>,
}

#[derive(Debug)]
pub(super) struct Try {
    pub(super) began: Instant,
    pub(super) ended: Option<Instant>,
    /// Whether the client sent its final dot.
    pub(super) dot: bool,
    /// Whether its line ended before the dot had passed.
    pub(super) cut_short: bool,
    pub(super) told: HashMap<String, Told>,
}

/// What a client heard of a recipient.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) code: u16,
    pub(super) said: String,
}

#[derive(Debug)]
pub(super) struct Strike {
    pub(super) when: Instant,
    pub(super) side: Side,
    pub(super) kind: String,
    pub(super) hit: Hit,
    /// Which of an attempt's recipients; none: all.
    pub(super) recipients: Vec<String>,
}

impl Told {
    /// The class of the reply that the client heard.
    pub(super) fn heard(&self) -> u16 {
        self.code / 100
    }

    /// The class of the reply that the relay gave: a garbled code stays with the status of the right one.
    pub(super) fn meant(&self) -> u16 {
        let class = self.status().split_once('.').and_then(|(class, _)| class.parse().ok());
        class.unwrap_or_else(|| self.heard())
    }

    /// Whether the client heard another reply than the relay gave.
    pub(super) fn is_garbled(&self) -> bool {
        self.meant() != self.heard()
    }

    /// The enhanced status.
    pub(super) fn status(&self) -> &str {
        self.said.split(' ').next().unwrap_or_default()
    }
}

/// The books, shared.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    books: Mutex<Books>,
}

impl Ledger {
    /// A new message for the queue; its number. Its content is made of the number.
    pub(super) fn submit(&self, make: impl FnOnce(usize) -> Mail) -> usize {
        let mut books = self.books.lock().unwrap();
        let number = books.mails.len();
        let mail = make(number);
        let open = (0..mail.recipients.len()).collect();
        books.mails.push(Entry { mail, open, attempts: Vec::new() });
        number
    }

    /// Begins an attempt for the recipients that are still open.
    pub(super) fn begin(&self, message: usize) -> (Attempt, Mail) {
        let mut books = self.books.lock().unwrap();
        let entry = &mut books.mails[message];
        let number = entry.attempts.len();
        let (began, told) = (Instant::now(), HashMap::new());
        entry.attempts.push(Try { began, ended: None, dot: false, cut_short: false, told });
        let recipients = entry.open.iter().map(|index| entry.mail.recipients[*index].clone());
        let mail = Mail { recipients: recipients.collect(), ..entry.mail.clone() };
        (Attempt { message, number, jointly: mail.door != Door::InsideLmtp }, mail)
    }

    /// The client has sent its final dot.
    pub(super) fn dot(&self, attempt: Attempt) {
        let mut books = self.books.lock().unwrap();
        books.mails[attempt.message].attempts[attempt.number].dot = true;
    }

    /// A client's line ended, and the dot has not passed.
    pub(super) fn cut_short(&self, connection: Connection) {
        let mut books = self.books.lock().unwrap();
        if let Some(attempt) = books.carried.get(&connection).copied() {
            books.mails[attempt.message].attempts[attempt.number].cut_short = true;
        }
    }

    /// A recipient's reply, as soon as it was read.
    pub(super) fn told(&self, attempt: Attempt, recipient: &str, code: u16, said: &str) {
        let mut books = self.books.lock().unwrap();
        let told = Told { code, said: said.trim_end().to_owned() };
        if CODES.contains(&code) && !told.is_garbled() {
            *books.replies.entry(format!("{code} {}", told.status())).or_default() += 1;
        }
        let entry = &mut books.mails[attempt.message];
        entry.attempts[attempt.number].told.insert(recipient.to_owned(), told);
        if code / 100 == 2 || code / 100 == 5 {
            let recipients = &entry.mail.recipients;
            entry.open.retain(|index| recipients[*index] != recipient);
        }
    }

    /// The attempt is over; whether anything is still open.
    pub(super) fn end(&self, attempt: Attempt) -> bool {
        let mut books = self.books.lock().unwrap();
        let entry = &mut books.mails[attempt.message];
        entry.attempts[attempt.number].ended = Some(Instant::now());
        if entry.open.is_empty() {
            // A long run has many messages.
            entry.mail.content = Vec::new();
        }
        !entry.open.is_empty()
    }

    /// A sink keeps a copy for this recipient: it must be the attempt's message.
    pub(super) fn kept(&self, attempt: Attempt, recipient: &str, content: &[u8], answered: bool) {
        let mut books = self.books.lock().unwrap();
        let mail = books.mails.get(attempt.message).map(|entry| &entry.mail);
        let objection = match mail {
            Some(mail) => mail.objection(recipient, content),
            None => Some("is nobody's".to_owned()),
        };
        let Attempt { message, number, .. } = attempt;
        if let Some(objection) = objection {
            books.misrouted.push(format!("m{message}.{number} at <{recipient}> {objection}"));
        }
        drop(books);
        self.stored(attempt, recipient, answered);
    }

    /// A copy is held for this recipient.
    pub(super) fn stored(&self, attempt: Attempt, recipient: &str, answered: bool) {
        let mut books = self.books.lock().unwrap();
        let key = (attempt.message, recipient.to_owned());
        books.copies.entry(key).or_default().push(Kept { number: attempt.number, answered });
    }

    /// The sender was notified that this recipient does not get the message.
    pub(super) fn notified(&self, attempt: Attempt, recipient: &str) {
        let mut books = self.books.lock().unwrap();
        let Attempt { message, number, .. } = attempt;
        let door = books.mails.get(message).map(|entry| entry.mail.door);
        if door != Some(Door::InsideSmtp) {
            let word = format!("a notification of m{message}.{number}, {door:?}, <{recipient}>");
            books.misrouted.push(word);
        }
        books.notified.entry((message, recipient.to_owned())).or_default().push(number);
    }

    /// Plain text where none may be.
    pub(super) fn leaked(&self, where_: &str) {
        self.books.lock().unwrap().leaked.push(where_.to_owned());
    }

    /// Mail that came to a wrong server, or was bounced because of what DNS did.
    pub(super) fn misrouted(&self, what: &str) {
        self.books.lock().unwrap().misrouted.push(what.to_owned());
    }

    /// A fault was injected.
    pub(super) fn struck(&self, side: Side, kind: &str, hit: Hit) {
        self.struck_for(side, kind, hit, &[]);
    }

    /// A fault was injected that concerns these recipients only.
    pub(super) fn struck_for(&self, side: Side, kind: &str, hit: Hit, recipients: &[String]) {
        let mut books = self.books.lock().unwrap();
        *books.faults.entry(format!("{side:?}: {kind}").to_lowercase()).or_default() += 1;
        let (when, kind, recipients) = (Instant::now(), kind.to_owned(), recipients.to_vec());
        books.strikes.push(Strike { when, side, kind, hit, recipients });
    }

    /// From now on this connection carries this attempt's transaction, or nobody's.
    pub(super) fn carries(&self, connection: Connection, attempt: Option<Attempt>) {
        let carried = &mut self.books.lock().unwrap().carried;
        match attempt {
            Some(attempt) => carried.insert(connection, attempt),
            None => carried.remove(&connection),
        };
    }

    /// A fault was injected into a connection.
    pub(super) fn struck_connection(&self, connection: Connection, kind: &str) {
        let hit = self.books.lock().unwrap().carried.get(&connection).copied();
        if hit.is_none() && connection.side == Side::Downstream && kind == GARBLED {
            // Who has the connection opened takes the greeting for a refusal; nobody misses an answer.
            return self.struck(connection.side, GREETING_GARBLED, Hit::Anybody);
        }
        self.struck(connection.side, kind, hit.into());
    }

    /// The mail server inside refuses a recipient for good before a dot, or whoever is asked about.
    pub(super) fn turned_away(&self, recipient: Option<&str>) {
        let mut books = self.books.lock().unwrap();
        books.turned_away.push((Instant::now(), recipient.map(str::to_owned)));
    }

    /// The relay said that it could not use its done-record.
    pub(super) fn forgot(&self) {
        self.books.lock().unwrap().forgot.push(Instant::now());
    }

    /// Messages submitted, and those with open recipients.
    pub(super) fn progress(&self) -> (usize, usize) {
        let books = self.books.lock().unwrap();
        let open = books.mails.iter().filter(|entry| !entry.open.is_empty()).count();
        (books.mails.len(), open)
    }

    /// The faults so far, by kind.
    pub(super) fn faults(&self) -> BTreeMap<String, u64> {
        self.books.lock().unwrap().faults.clone()
    }

    /// Compares what was told with what is held.
    pub(super) fn judge(&self) -> Summary {
        let books = self.books.lock().unwrap();
        let mut summary = Summary {
            messages: books.mails.len(),
            faults: books.faults.clone(),
            leaked: books.leaked.clone(),
            misrouted: books.misrouted.clone(),
            replies: books.replies.clone(),
            ..Summary::default()
        };
        for (message, entry) in books.mails.iter().enumerate() {
            summary.attempts += entry.attempts.len();
            for (index, recipient) in entry.mail.recipients.iter().enumerate() {
                summary.recipients += 1;
                if entry.open.contains(&index) {
                    summary.open.push(format!("m{message} {recipient}"));
                }
                books.judge_recipient(message, entry, recipient, &mut summary);
            }
        }
        summary
    }
}

/// One bit of a reply's code.
pub(super) const GARBLED: &str = "line Garbled";
/// The same before anybody's transaction.
pub(super) const GREETING_GARBLED: &str = "greeting Garbled";
/// Those that servers give to MAIL, RCPT and DATA (RFC 5321 §4.2.2) and that count in the summary.
const CODES: [u16; 10] = [250, 421, 450, 451, 452, 550, 552, 553, 554, 556];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sink_keeps_must_be_the_message_and_the_recipient_s() {
        let ledger = Ledger::default();
        let astray = || ledger.judge().misrouted.len();
        let [x, y] = ["x@abc.example", "y@abc.example"].map(str::to_owned);
        let message = ledger.submit(|_| Mail {
            door: Door::InsideSmtp,
            from: "a@nec.example".to_owned(),
            recipients: vec![x.clone(), y.clone()],
            content: Vec::new(),
            refused: vec![(y.clone(), "5.7.3")],
            marks: vec!["Message-ID: <m0@nec.example>".to_owned(), "text".to_owned()],
        });
        let (attempt, _) = ledger.begin(message);
        let right = b"Message-ID: <m0@nec.example>\r\n\r\ntext\r\n";
        ledger.kept(attempt, &x, right, true);
        assert_eq!(astray(), 0);
        ledger.kept(attempt, &x, b"Message-ID: <m1@nec.example>\r\n\r\ntext\r\n", true);
        assert_eq!(astray(), 1, "another message");
        ledger.kept(attempt, &x, b"Message-ID: <m0@nec.example>\r\n\r\nnothing\r\n", true);
        assert_eq!(astray(), 2, "without its text");
        ledger.kept(attempt, &y, right, true);
        assert_eq!(astray(), 3, "to be refused");
        ledger.kept(attempt, "z@abc.example", right, true);
        assert_eq!(astray(), 4, "no recipient");
        ledger.kept(Attempt { message: 1, ..attempt }, &x, right, true);
        assert_eq!(astray(), 5, "no message");
    }

    #[test]
    fn only_who_hands_in_by_smtp_from_inside_is_notified() {
        for (door, count) in [(Door::InsideSmtp, 0), (Door::InsideLmtp, 1), (Door::OutsideSmtp, 1)]
        {
            let ledger = Ledger::default();
            let [to, from] = ["x@abc.example", "a@nec.example"].map(str::to_owned);
            let (recipients, refused, marks) = (vec![to.clone()], Vec::new(), Vec::new());
            let content = Vec::new();
            let message =
                ledger.submit(|_| Mail { door, from, recipients, content, refused, marks });
            let (attempt, _) = ledger.begin(message);
            ledger.notified(attempt, &to);
            assert_eq!(ledger.judge().misrouted.len(), count, "{door:?}");
        }
    }

    #[test]
    fn an_attempt_is_found_by_its_envelope_id() {
        let attempt = Attempt { message: 12, number: 3, jointly: true };
        let line = format!("MAIL FROM:<a@b> ENVID={} SIZE=7", attempt.envelope_id());
        assert_eq!(Attempt::find(&line, "ENVID="), Some(attempt));
        assert_eq!(
            Attempt::find("Original-Envelope-Id: m1.2.a\r\n", "Envelope-Id:").unwrap().message,
            1
        );
        assert_eq!(Attempt::find("MAIL FROM:<>", "ENVID="), None);
    }
}
