//! A mail server's side that hands mail over and keeps what was not taken: one SMTP or LMTP client with a queue.
//!
//! In: mails as they are made. Out: every attempt with its outcome, a recipient each. Like a mail server's queue it tries a
//! recipient again after a 4xx reply or a broken connection, and never after 2xx or 5xx; a connection serves several mails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::session::{Reply, Session};
use crate::sink::Protocol;

/// A mail and for whom it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Of MAIL.
    pub from: String,
    /// Of RCPT, one command each.
    pub to: Vec<String>,
    /// Header and body.
    pub content: Vec<u8>,
}

/// One recipient of one mail, tried once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Of RCPT.
    pub recipient: String,
    /// When its transaction began.
    pub began: Instant,
    /// When it was answered.
    pub ended: Instant,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply that decides about this recipient.
    Answered(Reply),
    /// The connection was refused or broke before the content was out: nobody can have the mail.
    Broken,
    /// It broke after the final dot: somebody may have it.
    ReplyLost,
}

impl Attempt {
    /// Whether the mail is no longer this side's.
    pub fn is_accepted(&self) -> bool {
        matches!(&self.outcome, Outcome::Answered(reply) if reply.code / 100 == 2)
    }

    /// Whether the recipient is never tried again.
    fn is_final(&self) -> bool {
        matches!(&self.outcome, Outcome::Answered(reply) if matches!(reply.code / 100, 2 | 5))
    }
}

/// How fast a client works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one new mail to the next.
    pub interval: Duration,
    /// From a failed attempt to the next for the same mail.
    pub retry: Duration,
    /// Mails that wait for their next attempt; with so many no new one is made.
    pub waiting_max: usize,
}

/// A client that runs until it is told to finish.
#[derive(Debug)]
pub struct Upstream {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    is_finishing: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Upstream {
    /// Sends what `next` makes until that gives `None` or [`Upstream::finish`] is called.
    pub fn start(
        address: SocketAddr,
        protocol: Protocol,
        pace: Pace,
        next: impl FnMut() -> Option<Mail> + Send + 'static,
    ) -> Self {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let is_finishing = Arc::new(AtomicBool::new(false));
        let mut queue = Queue {
            client: Client { address, protocol, session: None, mails: 0 },
            pace,
            waiting: Vec::new(),
            attempts: Arc::clone(&attempts),
            is_finishing: Arc::clone(&is_finishing),
        };
        let thread = thread::spawn(move || queue.run(next));
        Self { attempts, is_finishing, thread }
    }

    /// Every attempt so far, in order.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }

    /// How many attempts so far are like this.
    pub fn count(&self, is_like: impl Fn(&Attempt) -> bool) -> usize {
        self.attempts.lock().unwrap().iter().filter(|attempt| is_like(attempt)).count()
    }

    /// Whether the client has given up on itself, which [`Upstream::finish`] explains.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Makes nothing new, waits until the queue is empty and gives every attempt; panics where the queue does not empty.
    pub fn finish(self) -> Vec<Attempt> {
        self.is_finishing.store(true, Ordering::SeqCst);
        self.thread.join().expect("the client panicked");
        Arc::try_unwrap(self.attempts).unwrap().into_inner().unwrap()
    }
}

struct Queue {
    client: Client,
    pace: Pace,
    waiting: Vec<Waiting>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    is_finishing: Arc<AtomicBool>,
}

/// A mail with the recipients that it has still to go to.
struct Waiting {
    mail: Mail,
    due: Instant,
}

impl Queue {
    fn run(&mut self, mut next: impl FnMut() -> Option<Mail>) {
        let mut new_due = Instant::now();
        let mut end = None;
        loop {
            let now = Instant::now();
            if let Some(at) = self.waiting.iter().position(|waiting| waiting.due <= now) {
                let waiting = self.waiting.remove(at);
                self.try_once(waiting.mail);
            } else if self.is_finishing.load(Ordering::SeqCst) {
                let end = *end.get_or_insert(now + crate::process::PATIENCE);
                let count = self.waiting.len();
                if count == 0 {
                    return;
                }
                assert!(now < end, "{count} mails are not taken: {:?}", self.last_attempt());
                thread::sleep(TICK);
            } else if new_due <= now && self.waiting.len() < self.pace.waiting_max {
                new_due = now + self.pace.interval;
                match next() {
                    Some(mail) => self.try_once(mail),
                    None => self.is_finishing.store(true, Ordering::SeqCst),
                }
            } else {
                thread::sleep(TICK);
            }
        }
    }

    fn try_once(&mut self, mut mail: Mail) {
        let attempts = self.client.deliver(&mail);
        let is_done =
            |to: &String| attempts.iter().any(|one| one.recipient == *to && one.is_final());
        mail.to.retain(|to| !is_done(to));
        self.attempts.lock().unwrap().extend(attempts);
        if !mail.to.is_empty() {
            self.waiting.push(Waiting { mail, due: Instant::now() + self.pace.retry });
        }
    }

    fn last_attempt(&self) -> Option<Attempt> {
        self.attempts.lock().unwrap().last().cloned()
    }
}

struct Client {
    address: SocketAddr,
    protocol: Protocol,
    session: Option<Session>,
    /// Mails that the session has had.
    mails: usize,
}

impl Client {
    /// One transaction. The connection is left ready for the next, or given up.
    fn deliver(&mut self, mail: &Mail) -> Vec<Attempt> {
        let began = Instant::now();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; mail.to.len()];
        let is_usable = self.transact(mail, &mut outcomes).is_some();
        self.mails += 1;
        if !is_usable {
            self.session = None;
        } else if self.mails >= MAILS_PER_CONNECTION
            && let Some(mut session) = self.session.take()
        {
            session.send_unless_closed(b"QUIT\r\n");
        }
        let ended = Instant::now();
        let outcomes = mail.to.iter().zip(outcomes);
        let attempt = |(recipient, outcome): (&String, Option<Outcome>)| Attempt {
            recipient: recipient.clone(),
            began,
            ended,
            outcome: outcome.unwrap_or(Outcome::Broken),
        };
        outcomes.map(attempt).collect()
    }

    /// Fills in the outcomes; `None` where the connection is of no more use.
    fn transact(&mut self, mail: &Mail, outcomes: &mut [Option<Outcome>]) -> Option<()> {
        if self.session.is_none() {
            self.session = Some(Session::open(self.address)?);
            self.mails = 0;
            let hello = if self.protocol == Protocol::Lmtp { "LHLO" } else { "EHLO" };
            let session = self.session.as_mut()?;
            for reply in [session.reply_or_end()?, ask(session, &format!("{hello} mail.example"))?]
            {
                if reply.code / 100 != 2 {
                    outcomes.fill(Some(Outcome::Answered(reply)));
                    return None;
                }
            }
        }
        let session = self.session.as_mut()?;
        let reply = ask(session, &format!("MAIL FROM:<{}>", mail.from))?;
        if reply.code / 100 != 2 {
            outcomes.fill(Some(Outcome::Answered(reply)));
            return ask(session, "RSET").map(|_| ());
        }
        for (to, outcome) in mail.to.iter().zip(&mut *outcomes) {
            let reply = ask(session, &format!("RCPT TO:<{to}>"))?;
            *outcome = (reply.code / 100 != 2).then_some(Outcome::Answered(reply));
        }
        let mut admitted: Vec<_> = outcomes.iter_mut().filter(|one| one.is_none()).collect();
        if admitted.is_empty() {
            return ask(session, "RSET").map(|_| ());
        }
        let reply = ask(session, "DATA")?;
        if reply.code != 354 {
            admitted.iter_mut().for_each(|one| **one = Some(Outcome::Answered(reply.clone())));
            return ask(session, "RSET").map(|_| ());
        }
        // From here on what breaks may have been delivered.
        admitted.iter_mut().for_each(|one| **one = Some(Outcome::ReplyLost));
        session.send_unless_closed(&crate::mail::stuffed(&mail.content));
        let replies = if self.protocol == Protocol::Lmtp { 1 } else { admitted.len() };
        for answered in admitted.chunks_mut(replies) {
            let reply = session.reply_or_end()?;
            answered.iter_mut().for_each(|one| **one = Some(Outcome::Answered(reply.clone())));
        }
        Some(())
    }
}

/// A command and its reply; `None` where the connection is closed.
fn ask(session: &mut Session, line: &str) -> Option<Reply> {
    session.send_unless_closed(format!("{line}\r\n").as_bytes());
    session.reply_or_end()
}

/// How often the queue is looked at.
const TICK: Duration = Duration::from_millis(5);

/// A connection is not used for ever, as with real mail servers.
const MAILS_PER_CONNECTION: usize = 5;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::sink::{Sink, Stage};

    const PACE: Pace = Pace {
        interval: Duration::from_millis(1),
        retry: Duration::from_millis(5),
        waiting_max: 3,
    };

    fn mails(count: usize) -> impl FnMut() -> Option<Mail> + Send {
        let mut numbers = 0..count;
        move || {
            let number = numbers.next()?;
            Some(Mail {
                from: "a@x.example".to_owned(),
                to: vec![format!("{number}@y.example"), format!("other{number}@y.example")],
                content: b"A: 1\r\n\r\nx\r\n".to_vec(),
            })
        }
    }

    /// A server that at its first three dots answers 451, closes, or answers 250.
    fn server(protocol: Protocol) -> Sink {
        let dots = Mutex::new(0);
        Sink::scripted(protocol, move |stage| {
            let Stage::Dot(_) = stage else { return None };
            let mut dots = dots.lock().unwrap();
            *dots += 1;
            match *dots {
                1 => Some("451 4.7.5 later\r\n".to_owned()),
                2 => Some(String::new()),
                _ => None,
            }
        })
    }

    #[test]
    fn keeps_what_was_not_taken_and_sends_it_again() {
        for protocol in [Protocol::Smtp, Protocol::Lmtp] {
            let sink = server(protocol);
            let upstream = Upstream::start(sink.address, protocol, PACE, mails(20));
            let attempts = upstream.finish_after(20);
            let mut taken: HashMap<String, usize> = HashMap::new();
            for recipient in sink.received().into_iter().flat_map(|one| one.recipients) {
                *taken.entry(recipient).or_default() += 1;
            }
            assert_eq!(taken.len(), 40, "{protocol:?}");
            assert!(taken.values().all(|count| *count == 1), "{protocol:?}: {taken:?}");
            let lost = attempts.iter().filter(|one| one.outcome == Outcome::ReplyLost).count();
            let later = attempts.iter().filter(|one| {
                matches!(&one.outcome, Outcome::Answered(reply) if reply.status() == "451 4.7.5")
            });
            // One reply for both recipients, or one each.
            let each = if protocol == Protocol::Smtp { (2, 2) } else { (1, 1) };
            assert_eq!((later.count(), lost), each, "{protocol:?}: {attempts:?}");
            assert_eq!(attempts.iter().filter(|one| one.is_accepted()).count(), 40);
        }
    }

    #[test]
    fn a_server_that_is_not_there_and_one_that_refuses_for_good() {
        let address = crate::process::loopback(crate::process::free_port());
        let away = Upstream::start(address, Protocol::Smtp, PACE, mails(1));
        crate::process::await_that("broken attempts", || away.count(|_| true) >= 4);
        assert!(away.attempts().iter().all(|one| one.outcome == Outcome::Broken));
        let sink = Sink::scripted(Protocol::Smtp, |stage| match stage {
            Stage::Rcpt(_) => Some("550 5.1.1 no\r\n".to_owned()),
            _ => None,
        });
        let attempts =
            Upstream::start(sink.address, Protocol::Smtp, PACE, mails(2)).finish_after(2);
        assert_eq!(attempts.len(), 4, "never again: {attempts:?}");
    }

    impl Upstream {
        /// The mails of [`mails`] are all there before the end is asked for.
        fn finish_after(self, count: usize) -> Vec<Attempt> {
            let is_final = |attempt: &Attempt| attempt.is_final();
            crate::process::await_that("all mails", || self.count(is_final) >= 2 * count);
            self.finish()
        }
    }
}
