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

/// One attempt to hand a message over.
#[derive(Debug)]
pub(super) struct Try {
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
    /// 5xx of servers, and who may have caused a bounce with it.
    refusals: Vec<(SocketAddr, Option<Mark>)>,
    /// Of the configuration.
    pub(super) reply_pause: Duration,
    pub(super) problems: Vec<String>,
    pub(super) counts: Counts,
}

impl Recipient {
    pub(super) fn new(address: String, server: SocketAddr) -> Self {
        let (copies, notices) = (Vec::new(), Vec::new());
        Self { address, server, open: true, copies, notices, confirmations: 0 }
    }

    /// Whether the relay has read a 250 for this recipient.
    fn is_held(&self, attempt: Option<usize>) -> bool {
        let of = |copy: &&Copy| attempt.is_none_or(|attempt| copy.attempt == attempt);
        self.copies.iter().filter(of).any(Copy::is_heard)
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
        mail.attempts.push(Try { dot: None, gone: None, first_dot: None, told });
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
        let secret_is_there = content.windows(SECRET.len()).any(|window| window == SECRET);
        let is_right = match mail.kind {
            Kind::Plain => content.ends_with(&mail.content),
            Kind::Sealed => !secret_is_there,
            Kind::Opened => secret_is_there,
        };
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
    pub(super) fn notified(&mut self, message: usize, address: &str, mark: Option<&Mark>) {
        self.counts.add("notifications", 1);
        let recipients = self.mails[message].recipients.iter_mut();
        for recipient in recipients.filter(|recipient| recipient.address == address) {
            recipient.notices.extend(mark.cloned());
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
    pub(super) fn refused(&mut self, server: SocketAddr, mark: Option<Mark>) {
        self.refusals.push((server, mark));
    }

    /// What a client was told of a recipient; judged at this moment, because whatever entitles the relay to say so must
    /// have happened by now.
    pub(super) fn told(
        &mut self,
        (message, attempt): (usize, usize),
        index: usize,
        (code, text): (u16, &str),
    ) {
        let mail = &self.mails[message];
        let recipient = &mail.recipients[index];
        let word = format!("m{message}.{attempt} {} told {code} {text}", recipient.address);
        let wrong = match code / 100 {
            2 if recipient.is_held(None) => None,
            2 if mail.is_joint() && recipient.is_notified() => None,
            2 if mail.is_joint()
                && (mail.sender_is_null || mail.notify == Some(NEVER))
                && self.is_refused(recipient) =>
            {
                None
            }
            2 => Some(format!("LOST: {word}")),
            5 if recipient.is_held(Some(attempt))
                && !(mail.is_joint()
                    && text.contains("all others have it")
                    && !text.contains(&format!("<{}>", recipient.address))) =>
            {
                Some(format!("CONTRADICTED: {word}"))
            }
            5 if !mail.recipients.iter().any(|recipient| self.is_refused(recipient)) => {
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

    fn is_refused(&self, recipient: &Recipient) -> bool {
        let of = |(server, _): &&(SocketAddr, Option<Mark>)| *server == recipient.server;
        let mut refusals = self.refusals.iter().filter(of);
        refusals.any(|(_, mark)| mark.as_ref().is_none_or(Mark::is_heard))
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
                    match mail.window(index, one, next) {
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
    /// The row of docs/RELIABILITY.md that allows another copy after this one.
    fn window(&self, index: usize, copy: &Copy, next: &Copy) -> Result<&'static str, String> {
        if copy.attempt == next.attempt {
            // A guess may be wrong where an attempt before is not over, whose client has gone.
            let may_last =
                |one: &Try| one.dot.is_some() && one.gone.is_some() && one.told[index].is_none();
            let is_sure = copy.is_named && next.is_named;
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
                    && self.asks_after(next.attempt, gone + TRANSACTION_MAX) =>
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

/// NOTIFY: no notification at all.
pub(super) const NEVER: &str = "NEVER";
/// NOTIFY: also where a server confirms nothing.
pub(super) const SUCCESS: &str = "SUCCESS,FAILURE";
const CLIENT_GONE: &str = "twice: 14 client gone before the reply";
/// What no line shows of a message that is sealed.
pub(super) const SECRET: &[u8] = b"the rook flies at noon";
/// From the upstream's dot to the downstream's dot (ARCHITECTURE).
const DELIVERY_MAX: Duration = Duration::from_secs(240);
/// A transaction is over then, whatever happens.
const TRANSACTION_MAX: Duration = Duration::from_secs(600);
