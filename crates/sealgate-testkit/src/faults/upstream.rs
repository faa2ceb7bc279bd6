//! Mail servers and Internet clients that hand mail to the relay as queues do: what was deferred or broke off is tried
//! again, what was refused for good is bounced, each recipient on its own.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use super::channel::Channel;
use super::downstream::BLAMED_ON_NAMES;
use super::ledger::{Attempt, Connection, Door, Hit, Mail, Side};
use super::world::World;
use crate::mail;

/// The queue with its workers.
#[derive(Debug)]
pub(super) struct Upstream {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    doors: Doors,
    due: Mutex<Vec<(Instant, usize)>>,
    /// Whether new mail comes in.
    busy: AtomicBool,
    ended: AtomicBool,
}

/// Where the relay's listeners are to be reached.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    pub(super) lmtp: SocketAddr,
    pub(super) smtp: SocketAddr,
    pub(super) outside: SocketAddr,
    pub(super) tls: Arc<ClientConfig>,
}

impl Upstream {
    /// Starts handing in mail.
    pub(super) fn start(world: &Arc<World>, doors: Doors) -> Self {
        let shared = Arc::new(Shared {
            world: Arc::clone(world),
            doors,
            due: Mutex::default(),
            busy: AtomicBool::new(true),
            ended: AtomicBool::new(false),
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work())
        };
        let workers = (0..WORKERS).map(start).collect();
        Self { shared, workers }
    }

    /// No new mail from now on; what is open is tried again at once.
    pub(super) fn stop_submitting(&self) {
        self.shared.busy.store(false, Ordering::SeqCst);
        for (when, _) in self.shared.due.lock().unwrap().iter_mut() {
            *when = Instant::now();
        }
    }

    /// Ends the workers.
    pub(super) fn end(self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.join().unwrap();
        }
    }
}

impl Shared {
    fn work(&self) {
        while !self.ended.load(Ordering::SeqCst) {
            let Some(message) = self.next() else {
                sleep(Duration::from_millis(5));
                continue;
            };
            let (attempt, mail) = self.world.ledger.begin(message);
            self.hand_over(attempt, &mail);
            if self.world.ledger.end(attempt) {
                let pause = Duration::from_millis(30 + self.world.chance.below(250));
                self.due.lock().unwrap().push((Instant::now() + pause, message));
            }
        }
    }

    /// A message that is due, or a new one.
    fn next(&self) -> Option<usize> {
        let mut due = self.due.lock().unwrap();
        let now = Instant::now();
        if let Some(at) = due.iter().position(|(when, _)| *when <= now) {
            return Some(due.swap_remove(at).1);
        }
        let wanted = self.busy.load(Ordering::SeqCst) && due.len() < WAITING_MAX;
        drop(due);
        wanted.then(|| self.world.ledger.submit(|number| self.world.compose(number)))
    }

    /// One attempt. Where it ends without a reply for somebody, the connection broke.
    fn hand_over(&self, attempt: Attempt, mail: &Mail) -> Option<()> {
        let chance = &self.world.chance;
        let misdeed = Misdeed::choose(chance);
        let (address, hello) = match mail.door {
            Door::InsideLmtp => (self.doors.lmtp, "LHLO"),
            Door::InsideSmtp => (self.doors.smtp, "EHLO"),
            Door::OutsideSmtp => (self.doors.outside, "EHLO"),
        };
        let stream = TcpStream::connect(address).ok()?;
        let connection = Connection::of_client(Side::Upstream, &stream).ok()?;
        let mut channel = Channel::new(stream, PATIENCE)?;
        let greeted =
            channel.reply()? == 220 && channel.command(&format!("{hello} client.example"))? == 250;
        if !greeted {
            return None;
        }
        if chance.one_in(5) && channel.command("STARTTLS")? == 220 {
            channel = channel.start_client(&self.doors.tls, GATE)?;
            channel.command(&format!("{hello} client.example"))?;
        }
        if misdeed == Misdeed::Nonsense {
            self.strike(attempt, misdeed);
            channel.command("XYZZY \u{1}")?;
        }
        self.world.ledger.carries(connection, Some(attempt));
        let accepted = self.envelope(&mut channel, attempt, mail)?;
        if accepted.is_empty() {
            return channel.send(b"QUIT\r\n");
        }
        if misdeed == Misdeed::LeaveBeforeData {
            self.strike(attempt, misdeed);
            return None;
        }
        match channel.command("DATA")? {
            354 => {}
            code => return self.tell_all(&channel, attempt, &accepted, code),
        }
        self.content(&mut channel, attempt, mail, misdeed)?;
        self.replies(&mut channel, attempt, mail.door, &accepted)?;
        channel.send(b"QUIT\r\n")
    }

    /// MAIL and RCPT; those who were accepted.
    fn envelope<'m>(
        &self,
        channel: &mut Channel,
        attempt: Attempt,
        mail: &'m Mail,
    ) -> Option<Vec<&'m str>> {
        let recipients: Vec<&str> = mail.recipients.iter().map(String::as_str).collect();
        let line = format!("MAIL FROM:<{}> ENVID={}", mail.from, attempt.envelope_id());
        let code = channel.command(&line)?;
        if code != 250 {
            self.tell_all(channel, attempt, &recipients, code);
            return Some(Vec::new());
        }
        let mut accepted = Vec::new();
        for recipient in recipients {
            match channel.command(&format!("RCPT TO:<{recipient}>"))? {
                250 => accepted.push(recipient),
                code => self.tell_all(channel, attempt, &[recipient], code)?,
            }
        }
        Some(accepted)
    }

    fn content(
        &self,
        channel: &mut Channel,
        attempt: Attempt,
        mail: &Mail,
        misdeed: Misdeed,
    ) -> Option<()> {
        let octets = mail::stuffed(&mail.content);
        let half = octets.len() / 2;
        if misdeed != Misdeed::None && misdeed != Misdeed::Nonsense {
            self.strike(attempt, misdeed);
        }
        match misdeed {
            Misdeed::LeaveInContent => {
                channel.send(&octets[..half])?;
                return None;
            }
            Misdeed::Slow => {
                let end = half + SLOW_OCTETS.min(octets.len() - half);
                channel.send(&octets[..half])?;
                for octet in &octets[half..end] {
                    channel.send(&[*octet])?;
                    sleep(Duration::from_millis(10));
                }
                channel.send(&octets[end..])?;
            }
            _ => channel.send(&octets)?,
        }
        self.world.ledger.dot(attempt);
        match misdeed {
            Misdeed::LeaveAtDot => None,
            Misdeed::LeaveAfterDot => {
                sleep(Duration::from_millis(20 + self.world.chance.below(200)));
                None
            }
            _ => Some(()),
        }
    }

    fn replies(
        &self,
        channel: &mut Channel,
        attempt: Attempt,
        door: Door,
        accepted: &[&str],
    ) -> Option<()> {
        if door != Door::InsideLmtp {
            let code = channel.reply()?;
            return self.tell_all(channel, attempt, accepted, code);
        }
        for recipient in accepted {
            let code = channel.reply()?;
            self.tell(channel, attempt, recipient, code);
        }
        Some(())
    }

    /// One reply for all. A code that no server should give (3yz, or another 2yz than 250) counts as none.
    fn tell_all(
        &self,
        channel: &Channel,
        attempt: Attempt,
        recipients: &[&str],
        code: u16,
    ) -> Option<()> {
        if code != 250 && code / 100 < 4 {
            return None;
        }
        for recipient in recipients {
            self.tell(channel, attempt, recipient, code);
        }
        Some(())
    }

    /// Every domain here exists and wants mail: nobody may be refused because it does not.
    fn tell(&self, channel: &Channel, attempt: Attempt, recipient: &str, code: u16) {
        let said = channel.said();
        if code / 100 == 5 && BLAMED_ON_NAMES.iter().any(|status| said.starts_with(status)) {
            self.world.ledger.misrouted(&format!("<{recipient}> was told {code} {said}"));
        }
        self.world.ledger.told(attempt, recipient, code, said);
    }

    fn strike(&self, attempt: Attempt, misdeed: Misdeed) {
        let kind = format!("client {misdeed:?}");
        self.world.ledger.struck(Side::Upstream, &kind, Hit::One(attempt));
    }
}

/// What a client does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misdeed {
    None,
    LeaveAfterDot,
    LeaveAtDot,
    LeaveBeforeData,
    LeaveInContent,
    Nonsense,
    Slow,
}

impl Misdeed {
    fn choose(chance: &super::chance::Chance) -> Self {
        if !chance.strikes(7) {
            return Self::None;
        }
        chance.pick(&[
            Self::LeaveAfterDot,
            Self::LeaveAtDot,
            Self::LeaveBeforeData,
            Self::LeaveInContent,
            Self::Nonsense,
            Self::Slow,
        ])
    }
}

/// The name in the relay's certificate.
pub(super) const GATE: &str = "gate.nec.example";
/// Connections at a time.
const WORKERS: usize = 8;
/// Messages that wait for another attempt, before new ones are made.
const WAITING_MAX: usize = 40;
/// A relay that was stopped for longer counts as broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// At one octet in ten milliseconds.
const SLOW_OCTETS: usize = 60;
