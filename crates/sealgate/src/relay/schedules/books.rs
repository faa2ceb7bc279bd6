//! The books: what each client was told against what each server holds, and the judgement over them.
//!
//! Nothing is guessed here as over real sockets: of every reply it is known whether the relay had read it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::pipe::Mark;
use crate::relay::listener::Entrance;

/// One message in a client's queue.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) entrance: Entrance,
    pub(super) sender_is_null: bool,
    /// NOTIFY, where it is given.
    pub(super) notify: Option<&'static str>,
    pub(super) recipients: Vec<Recipient>,
    pub(super) content: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) attempts: Vec<Try>,
}

/// What the relay does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// It seals it.
    Sealed,
    /// It opens it.
    Opened,
}

/// One recipient of a message.
#[derive(Debug)]
pub(super) struct Recipient {
    pub(super) address: String,
    /// Who has to take it.
    pub(super) server: SocketAddr,
    /// Nobody has said 2xx or 5xx of it yet.
    pub(super) open: bool,
    copies: Vec<Copy>,
    /// The sender was notified that it failed.
    notices: Vec<Mark>,
    /// The sender was notified that nobody will confirm.
    confirmations: usize,
}

/// A 5xx of a server.
#[derive(Debug)]
struct Refusal {
    server: SocketAddr,
    about: About,
    at: Instant,
    /// Who may have caused a bounce with it.
    mark: Option<Mark>,
}

/// Whom a server's reply is about.
#[derive(Clone, Debug)]
pub(super) enum About {
    /// The client that was introduced.
    Connection,
    /// Everybody whom this attempt, or whichever, has here.
    Everybody(Option<(usize, usize)>),
    /// The answer to RCPT.
    Recipient(Option<(usize, usize)>, String),
    /// Those who were admitted.
    Admitted(Option<(usize, usize)>, Vec<String>),
    /// Nobody's mail.
    Nothing,
}

/// One attempt to hand a message over.
#[derive(Debug)]
pub(super) struct Try {
    began: Instant,
    /// When the client had sent its dot.
    dot: Option<Instant>,
    /// When the client broke off.
    gone: Option<Instant>,
    /// The first dot that a server got because of it.
    first_dot: Option<Instant>,
    /// By recipient.
    told: Vec<Option<u16>>,
}

/// What a server keeps.
#[derive(Debug)]
struct Copy {
    attempt: usize,
    /// The server was told the attempt; else it is a guess.
    is_named: bool,
    at: Instant,
    /// The server's 250, where it said so.
    said: Option<Mark>,
}

/// What happened in all, for the summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn add(&mut self, what: &'static str, count: usize) {
        *self.0.entry(what).or_default() += u64::try_from(count).unwrap();
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// The books of one schedule.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) mails: Vec<Mail>,
    refusals: Vec<Refusal>,
    /// Of the configuration: what the mail server says of a recipient before a message is believed of the next ones.
    pub(super) asks_for_recipients: bool,
    /// Of the configuration.
    pub(super) reply_pause: Duration,
    /// What was sealed and who has it, to be opened in the end.
    pub(super) sealed: Vec<(usize, String, Vec<u8>)>,
    pub(super) problems: Vec<String>,
    pub(super) counts: Counts,
}

impl Recipient {
    pub(super) fn new(address: String, server: SocketAddr) -> Self {
        let (copies, notices) = (Vec::new(), Vec::new());
        Self { address, server, open: true, copies, notices, confirmations: 0 }
    }

    /// Whether the relay has read a 250 for this recipient.
    fn is_held(&self) -> bool {
        self.copies.iter().any(Copy::is_heard)
    }

    fn is_notified(&self) -> bool {
        self.notices.iter().any(Mark::is_heard)
    }
}

impl Copy {
    fn is_heard(&self) -> bool {
        self.said.as_ref().is_some_and(Mark::is_heard)
    }
}

impl Mail {
    /// One reply for all recipients.
    fn is_joint(&self) -> bool {
        self.entrance != Entrance::InsideLmtp
    }

    pub(super) fn is_open(&self) -> bool {
        self.recipients.iter().any(|recipient| recipient.open)
    }
}

impl Books {
    /// A new attempt; its number and the recipients it is for.
    pub(super) fn begin(&mut self, message: usize) -> (usize, Vec<usize>) {
        let mail = &mut self.mails[message];
        let told = vec![None; mail.recipients.len()];
        let began = Instant::now();
        mail.attempts.push(Try { began, dot: None, gone: None, first_dot: None, told });
        let open = mail.recipients.iter().enumerate().filter(|(_, recipient)| recipient.open);
        (mail.attempts.len() - 1, open.map(|(index, _)| index).collect())
    }

    /// Whose a copy is that does not say so: of the last attempt that came as far as its dot, else of the last.
    pub(super) fn likely_attempt(&self, message: usize) -> Option<usize> {
        let attempts = &self.mails.get(message)?.attempts;
        let with_dot = attempts.iter().rposition(|attempt| attempt.dot.is_some());
        with_dot.or(attempts.len().checked_sub(1))
    }

    /// The client has sent its dot.
    pub(super) fn dot(&mut self, (message, attempt): (usize, usize)) {
        self.mails[message].attempts[attempt].dot = Some(Instant::now());
    }

    /// The client broke off.
    pub(super) fn gone(&mut self, (message, attempt): (usize, usize)) {
        self.mails[message].attempts[attempt].gone.get_or_insert_with(Instant::now);
        self.counts.add("clients gone", 1);
    }

    /// A server got a dot; whether that was allowed. `prompt`: it takes what is sent as soon as it is sent.
    pub(super) fn arrived(&mut self, (message, attempt): (usize, usize), prompt: bool) {
        let mail = &mut self.mails[message];
        // Between two replies the relay does not listen.
        let replies = u32::try_from(mail.recipients.len()).unwrap();
        let deaf = if mail.is_joint() { Duration::ZERO } else { self.reply_pause * replies };
        let attempt_of = &mut mail.attempts[attempt];
        let now = Instant::now();
        let word = format!("m{message}.{attempt}");
        match (attempt_of.dot, attempt_of.gone) {
            (None, _) => self.problems.push(format!("{word}: delivered before the client's dot")),
            (Some(dot), _) if prompt && now > dot + DELIVERY_MAX => {
                self.problems.push(format!("{word}: a dot {:?} after the client's", now - dot));
            }
            (_, Some(gone)) if prompt && now > gone + deaf && attempt_of.first_dot.is_none() => {
                self.problems.push(format!("{word}: the first dot after the client was gone"));
            }
            _ => {}
        }
        attempt_of.first_dot.get_or_insert(now);
    }

    /// A server listens no longer to a message whose dot it has not read.
    pub(super) fn may_have_dot(&mut self, (message, attempt): (usize, usize)) {
        self.mails[message].attempts[attempt].first_dot.get_or_insert_with(Instant::now);
    }

    /// A server keeps a copy; its number, for [`Self::said`].
    pub(super) fn stored(
        &mut self,
        (message, attempt): (usize, usize),
        is_named: bool,
        address: &str,
        content: &[u8],
    ) -> Option<(usize, usize, usize)> {
        let mail = &mut self.mails[message];
        let is_right = match mail.kind {
            Kind::Plain => content.ends_with(&mail.content),
            Kind::Sealed => !holds(content, SECRET),
            Kind::Opened => holds(content, secret(message).as_bytes()),
        };
        if mail.kind == Kind::Sealed {
            self.sealed.push((message, address.to_owned(), content.to_vec()));
        }
        if !is_right {
            self.problems.push(format!("m{message}.{attempt}: stored with another content"));
        }
        let found = mail.recipients.iter().position(|recipient| recipient.address == address);
        let Some(index) = found else {
            self.problems.push(format!("m{message}.{attempt}: delivered to {address}"));
            return None;
        };
        self.counts.add("copies", 1);
        let copies = &mut mail.recipients[index].copies;
        copies.push(Copy { attempt, is_named, at: Instant::now(), said: None });
        Some((message, index, copies.len() - 1))
    }

    /// The server said 250 for this copy.
    pub(super) fn said(
        &mut self,
        (message, recipient, copy): (usize, usize, usize),
        mark: Option<Mark>,
    ) {
        self.mails[message].recipients[recipient].copies[copy].said = mark;
    }

    /// The mail server took a notification.
    pub(super) fn notified(
        &mut self,
        (message, attempt): (usize, usize),
        address: &str,
        mark: Option<&Mark>,
    ) {
        self.counts.add("notifications", 1);
        let mail = &mut self.mails[message];
        let found = mail.recipients.iter().position(|recipient| recipient.address == address);
        // Whoever sent it from the Internet hears of it from his own server, and LMTP has a reply for each.
        let is_wanted = mail.entrance == Entrance::InsideSmtp && !mail.sender_is_null;
        let knows_better = found.is_none_or(|index| mail.is_known_to_have(index, attempt));
        if !is_wanted || knows_better {
            let word = format!("m{message}.{attempt}: the sender is notified of {address}");
            self.problems.push(word);
        }
        if let Some(index) = found {
            mail.recipients[index].notices.extend(mark.cloned());
        }
    }

    /// The mail server took a notification that no confirmation will come of a recipient.
    pub(super) fn relayed(&mut self, message: usize, address: &str) {
        self.counts.add("confirmations", 1);
        let mail = &mut self.mails[message];
        let is_asked = mail.notify == Some(SUCCESS) && mail.entrance != Entrance::OutsideSmtp;
        let mut recipients = mail.recipients.iter_mut();
        let found = recipients.find(|recipient| recipient.address == address);
        // Each copy that the relay heard of may bring one, where its server was told nothing of the attempt.
        let is_right = found.is_some_and(|recipient| {
            recipient.confirmations += 1;
            let silent = recipient.copies.iter().filter(|copy| copy.is_heard() && !copy.is_named);
            silent.count() >= recipient.confirmations
        });
        if !is_asked || !is_right {
            self.problems.push(format!("m{message}: {address} is said to have been relayed to"));
        }
    }

    /// A server said 5xx.
    pub(super) fn refused(&mut self, server: SocketAddr, about: About, mark: Option<Mark>) {
        self.refusals.push(Refusal { server, about, at: Instant::now(), mark });
    }

    /// What a client was told of a recipient; judged at this moment, because whatever entitles the relay to say so must
    /// have happened by now.
    pub(super) fn told(
        &mut self,
        (message, attempt): (usize, usize),
        (index, jointly): (usize, bool),
        (code, text): (u16, &str),
    ) {
        let mail = &self.mails[message];
        let recipient = &mail.recipients[index];
        let word = format!("m{message}.{attempt} {} told {code} {text}", recipient.address);
        let is_due = |index| self.is_refused((message, attempt), index);
        let wrong = match code / 100 {
            2 if recipient.is_held() => None,
            2 if mail.is_joint() && recipient.is_notified() => None,
            2 if mail.is_joint()
                && (mail.sender_is_null || mail.notify == Some(NEVER))
                && is_due(index) =>
            {
                None
            }
            2 => Some(format!("LOST: {word}")),
            5 if mail.is_known_to_have(index, attempt)
                && !(mail.is_joint()
                    && text.contains("all others have it")
                    && !text.contains(&format!("<{}>", recipient.address))) =>
            {
                Some(format!("CONTRADICTED: {word}"))
            }
            5 if !is_due(index) && (!jointly || !(0..mail.recipients.len()).any(is_due)) => {
                Some(format!("BOUNCED WITHOUT CAUSE: {word}"))
            }
            3..=5 => None,
            _ => Some(format!("NO REPLY: {word}")),
        };
        self.problems.extend(wrong);
        let what = match code / 100 {
            2 => "told 2xx",
            4 => "told 4xx",
            _ => "told 5xx",
        };
        self.counts.add(what, 1);
        let mail = &mut self.mails[message];
        mail.attempts[attempt].told[index] = Some(code);
        mail.recipients[index].open &= code / 100 == 4;
    }

    /// Whether the relay has read a 5xx that this attempt may have got for this recipient.
    fn is_refused(&self, (message, attempt): (usize, usize), index: usize) -> bool {
        let mail = &self.mails[message];
        let (recipient, began) = (&mail.recipients[index], mail.attempts[attempt].began);
        let asks = self.asks_for_recipients && mail.entrance == Entrance::OutsideSmtp;
        let is_about = |refusal: &Refusal| {
            let (attempts, is_him, asked) = match &refusal.about {
                About::Connection => (None, true, true),
                About::Everybody(attempt) => (*attempt, true, true),
                About::Recipient(attempt, to) => (*attempt, *to == recipient.address, true),
                About::Admitted(attempt, to) => (*attempt, to.contains(&recipient.address), false),
                About::Nothing => return false,
            };
            let is_its_own = match attempts {
                Some(one) => one == (message, attempt),
                None => refusal.at >= began,
            };
            is_him && (is_its_own || asks && asked)
        };
        let of = |one: &&Refusal| one.server == recipient.server && is_about(one);
        let mut refusals = self.refusals.iter().filter(of);
        refusals.any(|refusal| refusal.mark.as_ref().is_none_or(Mark::is_heard))
    }

    /// Copies too many, each of which needs a reason.
    pub(super) fn judge(&mut self) {
        let mut problems = Vec::new();
        for (message, mail) in self.mails.iter().enumerate() {
            self.counts.add("messages", 1);
            self.counts.add("recipients", mail.recipients.len());
            self.counts.add("attempts", mail.attempts.len());
            for (index, recipient) in mail.recipients.iter().enumerate() {
                self.counts.add("left open", usize::from(recipient.open));
                // One that a slow server took late may be of an earlier attempt.
                let mut copies: Vec<&Copy> = recipient.copies.iter().collect();
                copies.sort_by_key(|copy| copy.attempt);
                for pair in copies.windows(2) {
                    let [one, next] = pair else { continue };
                    match mail.window(index, one, (next.attempt, next.is_named)) {
                        Ok(window) => self.counts.add(window, 1),
                        Err(why) => problems.push(format!(
                            "TWICE: m{message} {} from attempts {} and {}: {why}",
                            recipient.address, one.attempt, next.attempt
                        )),
                    }
                }
            }
        }
        self.problems.extend(problems);
    }
}

impl Mail {
    /// Whether the relay, at this attempt, knows that the recipient has the message: it heard so then, or earlier, where nothing
    /// kept it from remembering.
    fn is_known_to_have(&self, index: usize, attempt: usize) -> bool {
        let heard = self.recipients[index].copies.iter().filter(|copy| copy.is_heard());
        let mut earlier = heard.filter(|copy| copy.attempt <= attempt);
        earlier.any(|copy| match copy.attempt == attempt {
            true => true,
            // A server that names no attempt may have been slow with an earlier one's.
            false => copy.is_named && self.window(index, copy, (attempt, true)).is_err(),
        })
    }

    /// The row of docs/RELIABILITY.md that allows another copy after this one, in this attempt.
    fn window(
        &self,
        index: usize,
        copy: &Copy,
        (next, next_is_named): (usize, bool),
    ) -> Result<&'static str, String> {
        if copy.attempt == next {
            // A guess may be wrong where an attempt before is not over, whose client has gone.
            let may_last =
                |one: &Try| one.dot.is_some() && one.gone.is_some() && one.told[index].is_none();
            let is_sure = copy.is_named && next_is_named;
            return match !is_sure && self.attempts[..copy.attempt].iter().any(may_last) {
                true => Ok(CLIENT_GONE),
                false => Err("twice in one attempt".to_owned()),
            };
        }
        let attempt = &self.attempts[copy.attempt];
        if !copy.is_heard() {
            return Ok("twice: 9, 11 answer lost downstream");
        }
        match (attempt.told[index], attempt.gone) {
            (Some(code), _) => Err(format!("told {code} although the relay knew better")),
            (None, None) => Err("not told, and nobody was gone".to_owned()),
            // The relay saw the client leave while it waited for this copy's answer, and wrote down who has it.
            (None, Some(gone))
                if self.entrance != Entrance::OutsideSmtp
                    && gone < copy.at
                    && self.asks_after(next, gone + TRANSACTION_MAX) =>
            {
                Err("the done-record is missing".to_owned())
            }
            (None, Some(_)) => Ok(CLIENT_GONE),
        }
    }

    /// Whether an attempt asks for the done-record, which it does at its dot, after this time. Its copies may be taken much
    /// later, by a server that reads slowly.
    fn asks_after(&self, attempt: usize, time: Instant) -> bool {
        self.attempts[attempt].dot.is_some_and(|dot| dot > time)
    }
}

/// What a sealed message says, each its own.
pub(super) fn secret(message: usize) -> String {
    format!("{} of m{message}\r\n", String::from_utf8_lossy(SECRET))
}

/// Whether this stands in a content.
pub(super) fn holds(content: &[u8], words: &[u8]) -> bool {
    content.windows(words.len()).any(|window| window == words)
}

/// NOTIFY: no notification at all.
pub(super) const NEVER: &str = "NEVER";
/// NOTIFY: also where a server confirms nothing.
pub(super) const SUCCESS: &str = "SUCCESS,FAILURE";
const CLIENT_GONE: &str = "twice: 14 client gone before the reply";
/// What no line shows of a message that is sealed.
const SECRET: &[u8] = b"the rook flies at noon";
/// From the upstream's dot to the downstream's dot (ARCHITECTURE).
const DELIVERY_MAX: Duration = Duration::from_secs(240);
/// A transaction is over then, whatever happens.
const TRANSACTION_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 25);

    /// A message for two at one server, before its first attempt.
    fn books(entrance: Entrance) -> Books {
        let mut books = Books::default();
        let recipients = ["x@abc.example", "y@abc.example"];
        books.mails.push(Mail {
            entrance,
            sender_is_null: false,
            notify: None,
            recipients: recipients.map(|to| Recipient::new(to.to_owned(), TO)).into(),
            content: Vec::new(),
            kind: Kind::Plain,
            attempts: Vec::new(),
        });
        books
    }

    /// What is said against the judgement that x was told 550 in attempt 1 of 2.
    fn objection(entrance: Entrance, jointly: bool, about: About) -> Option<String> {
        let mut books = books(entrance);
        books.begin(0);
        books.begin(0);
        books.refused(TO, about, None);
        books.told((0, 1), (0, jointly), (550, "5.7.1 no"));
        books.problems.pop()
    }

    #[test]
    fn a_bounce_needs_a_refusal_of_its_own_attempt_and_recipient() {
        let [x, y] = ["x@abc.example", "y@abc.example"].map(str::to_owned);
        let (this, other) = (Some((0, 1)), Some((0, 0)));
        let cases = [
            (About::Nothing, false, false),
            (About::Connection, true, true),
            (About::Everybody(this), true, true),
            (About::Everybody(None), true, true),
            (About::Everybody(other), false, false),
            (About::Recipient(this, x.clone()), true, true),
            (About::Recipient(this, y.clone()), false, true),
            (About::Recipient(other, x.clone()), false, false),
            (About::Admitted(this, vec![x.clone()]), true, true),
            (About::Admitted(this, vec![y]), false, true),
            (About::Admitted(other, vec![x]), false, false),
        ];
        for (about, alone, jointly) in cases {
            let bounced = |entrance, jointly| {
                objection(entrance, jointly, about.clone())
                    .inspect(|why| assert!(why.starts_with("BOUNCED WITHOUT CAUSE"), "{why}"))
                    .is_none()
            };
            assert_eq!(bounced(Entrance::InsideLmtp, false), alone, "{about:?}");
            assert_eq!(bounced(Entrance::InsideSmtp, true), jointly, "{about:?}");
        }
    }

    #[test]
    fn what_the_mail_server_said_before_a_message_is_believed_only_where_it_is_asked() {
        let x = || "x@abc.example".to_owned();
        for (asks, about, is_due) in [
            (true, About::Recipient(Some((0, 0)), x()), true),
            (false, About::Recipient(Some((0, 0)), x()), false),
            (true, About::Admitted(Some((0, 0)), vec![x()]), false),
        ] {
            let mut books = books(Entrance::OutsideSmtp);
            books.asks_for_recipients = asks;
            books.begin(0);
            books.begin(0);
            books.refused(TO, about, None);
            books.told((0, 1), (0, false), (550, "5.7.1 no"));
            assert_eq!(books.problems.is_empty(), is_due);
        }
    }

    /// A mark that was read.
    fn heard() -> Option<Mark> {
        let (one, _other) = super::super::pipe::pair((1, 1));
        Some(one.mark())
    }

    #[test]
    fn who_has_a_message_is_neither_refused_nor_are_others_told_so_later() {
        // The client was told, or left before the relay could know who has it.
        for (leaves, count) in [(false, 1), (true, 0)] {
            for notified in [false, true] {
                let mut books = books(Entrance::InsideSmtp);
                books.begin(0);
                books.dot((0, 0));
                let copy = books.stored((0, 0), true, "x@abc.example", b"").unwrap();
                books.said(copy, heard());
                match leaves {
                    true => books.gone((0, 0)),
                    false => books.told((0, 0), (0, true), (451, "4.3.0 not all")),
                }
                books.begin(0);
                books.refused(TO, About::Everybody(Some((0, 1))), None);
                match notified {
                    true => books.notified((0, 1), "x@abc.example", None),
                    false => books.told((0, 1), (0, true), (550, "5.7.1 no")),
                }
                assert_eq!(books.problems.len(), count, "{:?}", books.problems);
            }
        }
    }

    #[test]
    fn nobody_is_notified_who_has_a_server_or_replies_of_his_own() {
        for (entrance, count) in
            [(Entrance::InsideSmtp, 0), (Entrance::InsideLmtp, 1), (Entrance::OutsideSmtp, 1)]
        {
            let mut books = books(entrance);
            books.begin(0);
            books.notified((0, 0), "x@abc.example", None);
            assert_eq!(books.problems.len(), count, "{:?}", books.problems);
        }
    }

    #[test]
    fn another_message_s_secret_is_another_content() {
        let mut books = books(Entrance::OutsideSmtp);
        books.mails[0].kind = Kind::Opened;
        books.begin(0);
        books.stored((0, 0), true, "x@abc.example", secret(0).as_bytes());
        assert!(books.problems.is_empty());
        books.stored((0, 0), true, "x@abc.example", secret(1).as_bytes());
        assert_eq!(books.problems.len(), 1);
    }
}
