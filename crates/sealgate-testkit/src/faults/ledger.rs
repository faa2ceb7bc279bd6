//! The books: what every mail server was told, what every sink holds, which faults struck; and the judgement over them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::summary::Summary;

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

#[derive(Debug, Default)]
struct Books {
    mails: Vec<Entry>,
    copies: HashMap<(usize, String), Vec<Kept>>,
    notified: HashSet<(usize, String)>,
    strikes: Vec<Strike>,
    /// When the relay could not use its done-record.
    forgot: Vec<Instant>,
    faults: BTreeMap<String, u64>,
    leaked: Vec<String>,
    misrouted: Vec<String>,
    replies: BTreeMap<String, u64>,
}

/// A copy that a sink holds.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Of which attempt.
    number: usize,
    /// Whether the sink said so.
    answered: bool,
}

#[derive(Debug)]
struct Entry {
    mail: Mail,
    /// What stays to be delivered, as indices of recipients.
    open: Vec<usize>,
    attempts: Vec<Try>,
}

#[derive(Debug)]
struct Try {
    began: Instant,
    ended: Option<Instant>,
    told: HashMap<String, u16>,
}

#[derive(Debug)]
struct Strike {
    when: Instant,
    side: Side,
    kind: String,
    /// Whom it hit, where that is known.
    attempt: Option<Attempt>,
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
        entry.attempts.push(Try { began: Instant::now(), ended: None, told: HashMap::new() });
        let recipients = entry.open.iter().map(|index| entry.mail.recipients[*index].clone());
        let mail = Mail { recipients: recipients.collect(), ..entry.mail.clone() };
        (Attempt { message, number, jointly: mail.door != Door::InsideLmtp }, mail)
    }

    /// A recipient's reply, as soon as it was read.
    pub(super) fn told(&self, attempt: Attempt, recipient: &str, code: u16, said: &str) {
        let mut books = self.books.lock().unwrap();
        // A garbled code stays with the status of the right one.
        let status = said.split(' ').next().unwrap_or_default();
        if CODES.contains(&code) && status.starts_with(&format!("{}.", code / 100)) {
            *books.replies.entry(format!("{code} {status}")).or_default() += 1;
        }
        let entry = &mut books.mails[attempt.message];
        entry.attempts[attempt.number].told.insert(recipient.to_owned(), code);
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

    /// A sink keeps a copy for this recipient.
    pub(super) fn stored(&self, attempt: Attempt, recipient: &str, answered: bool) {
        let mut books = self.books.lock().unwrap();
        let key = (attempt.message, recipient.to_owned());
        books.copies.entry(key).or_default().push(Kept { number: attempt.number, answered });
    }

    /// The sender was notified that this recipient does not get the message.
    pub(super) fn notified(&self, attempt: Attempt, recipient: &str) {
        self.books.lock().unwrap().notified.insert((attempt.message, recipient.to_owned()));
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
    pub(super) fn struck(&self, side: Side, kind: &str, attempt: Option<Attempt>) {
        let mut books = self.books.lock().unwrap();
        *books.faults.entry(format!("{side:?}: {kind}").to_lowercase()).or_default() += 1;
        let kind = kind.to_owned();
        books.strikes.push(Strike { when: Instant::now(), side, kind, attempt });
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

impl Books {
    fn judge_recipient(
        &self,
        message: usize,
        entry: &Entry,
        recipient: &str,
        summary: &mut Summary,
    ) {
        let told = |number: usize| entry.attempts[number].told.get(recipient).copied();
        let key = (message, recipient.to_owned());
        let copies = self.copies.get(&key).map(Vec::as_slice).unwrap_or_default();
        let codes: Vec<u16> = (0..entry.attempts.len()).filter_map(told).collect();
        let accepted = codes.iter().any(|code| code / 100 == 2);
        summary.delivered += usize::from(accepted);
        summary.bounced += usize::from(!accepted && codes.iter().any(|code| code / 100 == 5));
        if accepted && copies.is_empty() {
            if self.notified.contains(&key) {
                summary.notified += 1;
            } else {
                summary
                    .lost
                    .push(format!("m{message} {:?} {recipient} {codes:?}", entry.mail.door));
            }
        }
        for Kept { number, .. } in copies {
            let contradicted = told(*number).is_some_and(|code| code / 100 == 5);
            // Neither a name server nor a key store takes mail or answers for it.
            let excuses = [Side::Relay, Side::Downstream, Side::Upstream];
            let struck = self.struck_in(message, *number, entry);
            if contradicted && !excuses.iter().any(|side| struck.contains(side)) {
                summary.contradicted.push(format!("m{message} {recipient}: stored and refused"));
            }
        }
        // Of several copies one is right; every other was stored in an attempt that was not told so.
        let uncertain =
            copies.iter().filter(|copy| told(copy.number).is_none_or(|code| code / 100 != 2));
        let extra = copies.len().saturating_sub(1);
        let mut explained = 0;
        for copy in uncertain.take(extra) {
            explained += 1;
            let Kept { number, .. } = copy;
            match self.window(message, copies, *copy, entry, told(*number)) {
                Some(window) => *summary.duplicated.entry(window).or_default() += 1,
                None => {
                    let word = format!("m{message}.{number} {:?} {recipient}", entry.mail.door);
                    let told = told(*number);
                    summary
                        .unexplained
                        .push(format!("{word} told {told:?} of {copies:?} {codes:?}"));
                }
            }
        }
        for _ in explained..extra {
            summary.unexplained.push(format!("m{message} {recipient}: {copies:?} {codes:?}"));
        }
    }

    /// The row of REQUIREMENTS §5 that allows a copy of an attempt that was not told 250.
    fn window(
        &self,
        message: usize,
        copies: &[Kept],
        copy: Kept,
        entry: &Entry,
        told: Option<u16>,
    ) -> Option<&'static str> {
        let Kept { number, answered } = copy;
        let jointly = entry.mail.door != Door::InsideLmtp;
        let sides = self.struck_in(message, number, entry);
        let next = copies.iter().map(|copy| copy.number).filter(|other| *other > number).min();
        let forgotten = || {
            let attempts = [Some(number), next].into_iter().flatten();
            attempts.filter_map(|number| entry.attempts.get(number)).any(|it| self.forgot_in(it))
        };
        match told {
            // Nobody told this client anything.
            None if sides.contains(&Side::Upstream) => Some("14 upstream gone before the reply"),
            None if sides.contains(&Side::Relay) => Some("9-10 relay failed after the dot"),
            Some(_) if jointly && answered && forgotten() => Some("12 a part was deferred"),
            _ if self.unheard_in(message, copy, entry) => Some("9, 11 answer lost downstream"),
            Some(_) if self.failed_in(message, number, entry) => {
                Some("6 relay failed after the dot, told 451")
            }
            Some(_) if self.garbled_in(message, number, entry) => {
                Some("14 reply garbled on its way up")
            }
            _ => None,
        }
    }

    /// What struck this attempt, or something unknown while it lasted.
    fn struck_in(&self, message: usize, number: usize, entry: &Entry) -> HashSet<Side> {
        self.strikes_in(message, number, entry).map(|strike| strike.side).collect()
    }

    /// Whether something struck this attempt, of which the relay forgets what it has heard.
    fn failed_in(&self, message: usize, number: usize, entry: &Entry) -> bool {
        let fails = |strike: &Strike| !HINDRANCES.iter().any(|word| strike.kind.starts_with(word));
        let mut strikes = self.strikes_in(message, number, entry);
        strikes.any(|strike| strike.side == Side::Relay && fails(strike))
    }

    /// Whether the client may have read another reply than the relay gave.
    fn garbled_in(&self, message: usize, number: usize, entry: &Entry) -> bool {
        let mut strikes = self.strikes_in(message, number, entry);
        strikes.any(|strike| strike.side == Side::Upstream && strike.kind == "line Garbled")
    }

    /// Whether something struck this attempt, of which the relay does not hear what a sink says; a sink that refuses another
    /// recipient loses no answer that it gave.
    fn unheard_in(&self, message: usize, copy: Kept, entry: &Entry) -> bool {
        let loses = |strike: &Strike| LOSSES.iter().any(|word| strike.kind.starts_with(word));
        let mut strikes = self.strikes_in(message, copy.number, entry);
        strikes.any(|strike| strike.side == Side::Downstream && (!copy.answered || loses(strike)))
    }

    fn strikes_in<'b>(
        &'b self,
        message: usize,
        number: usize,
        entry: &Entry,
    ) -> impl Iterator<Item = &'b Strike> {
        let attempt = &entry.attempts[number];
        let (began, ended) = (attempt.began, attempt.ended.unwrap_or_else(Instant::now));
        self.strikes.iter().filter(move |strike| match strike.attempt {
            Some(hit) => hit.message == message && hit.number == number,
            None => began <= strike.when && strike.when <= ended + NOTICED_WITHIN,
        })
    }

    /// Whether this attempt fell into a time in which the relay could not use its done-record because of a fault: it may then
    /// have written or found none. A done-record that fails by itself explains nothing.
    fn forgot_in(&self, attempt: &Try) -> bool {
        let ended = attempt.ended.unwrap_or_else(Instant::now) + NOTICED_WITHIN;
        let meanwhile =
            |forgot: &&Instant| attempt.began <= **forgot + FORGETS && **forgot <= ended;
        self.forgot.iter().filter(meanwhile).any(|forgot| {
            self.strikes.iter().any(|strike| {
                matches!(strike.side, Side::Stores | Side::Relay)
                    && strike.when <= *forgot + NOTICED_WITHIN
                    && *forgot <= strike.when + AWAY_MAX
            })
        })
    }
}

/// Those that servers give to MAIL, RCPT and DATA (RFC 5321 §4.2.2) and that count in the summary.
const CODES: [u16; 10] = [250, 421, 450, 451, 452, 550, 552, 553, 554, 556];
/// What the relay did to itself is read off its log a little later.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);
/// How long the relay does not ask for a done-record again that was away, and a little.
const FORGETS: Duration = Duration::from_millis(2500);
/// How long a store stays away, or the relay stopped, or without descriptors, and until that is noticed.
const AWAY_MAX: Duration = Duration::from_secs(10);
/// What does not make the relay forget what it has heard. Where it finds no descriptor for its database, it says so.
const HINDRANCES: [&str; 4] = ["point Delay", "reloaded", "clock", "no descriptors"];
/// What may lose an answer that a sink gave. After garbage the relay does not listen to what the sink says of others (LMTP).
const LOSSES: [&str; 3] = ["line", "sink AnswerThenClose", "sink Garbage"];

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(door: Door, recipients: &[&str]) -> Mail {
        let recipients = recipients.iter().map(|name| (*name).to_owned()).collect();
        Mail { door, from: "a@nec.example".to_owned(), recipients, content: Vec::new() }
    }

    #[test]
    fn told_and_not_held_is_lost_unless_the_sender_was_notified() {
        let ledger = Ledger::default();
        for _ in 0..2 {
            let message = ledger.submit(|_| mail(Door::InsideLmtp, &["x@abc.example"]));
            let (attempt, _) = ledger.begin(message);
            ledger.told(attempt, "x@abc.example", 250, "2.0.0 ok");
            assert!(!ledger.end(attempt));
        }
        assert_eq!(ledger.judge().lost.len(), 2);
        let attempt = Attempt { message: 0, number: 0, jointly: false };
        ledger.notified(attempt, "x@abc.example");
        ledger.stored(Attempt { message: 1, ..attempt }, "x@abc.example", true);
        assert!(ledger.judge().lost.is_empty());
    }

    #[test]
    fn a_second_copy_needs_a_fault_in_a_window() {
        for struck in [false, true] {
            let ledger = Ledger::default();
            let message = ledger.submit(|_| mail(Door::InsideLmtp, &["x@abc.example"]));
            let (first, _) = ledger.begin(message);
            ledger.stored(first, "x@abc.example", true);
            if struck {
                ledger.struck(Side::Relay, "killed", None);
            }
            assert!(ledger.end(first));
            let (second, _) = ledger.begin(message);
            ledger.stored(second, "x@abc.example", true);
            ledger.told(second, "x@abc.example", 250, "2.0.0 ok");
            ledger.end(second);
            let summary = ledger.judge();
            assert!(summary.lost.is_empty());
            assert_eq!(summary.unexplained.is_empty(), struck);
            assert_eq!(summary.duplicated.values().sum::<usize>(), usize::from(struck));
        }
    }

    #[test]
    fn one_reply_for_several_explains_a_second_copy_only_where_a_fault_took_the_done_record() {
        const NOTHING: &[fn(&Ledger)] = &[];
        let database: fn(&Ledger) = |ledger| ledger.struck(Side::Stores, "database killed", None);
        let delayed: fn(&Ledger) = |ledger| ledger.struck(Side::Relay, "point Delay", None);
        let refused: fn(&Ledger) =
            |ledger| ledger.struck(Side::Downstream, "sink Temporary at dot, not kept", None);
        let cut: fn(&Ledger) = |ledger| ledger.struck(Side::Downstream, "line Cut", None);
        let killed: fn(&Ledger) = |ledger| ledger.struck(Side::Relay, "point Panic", None);
        let cases = [
            (NOTHING, None),
            (&[Ledger::forgot], None),
            (&[database], None),
            (&[delayed], None),
            (&[refused], None),
            (&[cut], Some("9, 11 answer lost downstream")),
            (&[killed], Some("6 relay failed after the dot, told 451")),
            (&[database, Ledger::forgot], Some("12 a part was deferred")),
        ];
        // The record is written in the first attempt and asked for in the second.
        for (befell, window) in cases {
            for in_the_second in [false, true] {
                let ledger = Ledger::default();
                let to = ["x@abc.example", "y@xyz.example"];
                let message = ledger.submit(|_| mail(Door::InsideSmtp, &to));
                for number in 0..2 {
                    let (attempt, _) = ledger.begin(message);
                    ledger.stored(attempt, to[0], true);
                    if in_the_second == (number == 1) {
                        befell.iter().for_each(|befall| befall(&ledger));
                    }
                    let (code, said) = [(451, "4.3.0 not all"), (250, "2.0.0 ok")][number];
                    to.iter().for_each(|to| ledger.told(attempt, to, code, said));
                    ledger.end(attempt);
                }
                ledger.stored(Attempt { message, number: 1, jointly: true }, to[1], true);
                let summary = ledger.judge();
                assert_eq!(summary.duplicated.keys().next().copied(), window, "{in_the_second}");
                assert_eq!(summary.unexplained.len(), usize::from(window.is_none()));
            }
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
