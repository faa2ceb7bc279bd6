//! A client that sends one message in a session of its own, and can keep a pace: what Postfix's tools cannot do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sealgate_testkit::mail;
use sealgate_testkit::session::{Reply, Session};

use super::load::SESSIONS;
use super::subject::SENDER;

/// A message and those it is for.
pub(super) struct Mailing {
    to: SocketAddr,
    /// What comes before DATA, each a line.
    commands: Vec<String>,
    /// With its final dot.
    content: Vec<u8>,
}

impl Mailing {
    pub(super) fn new(to: SocketAddr, recipients: &[String], message: &[u8]) -> Self {
        let mut commands = vec!["EHLO source.example".to_owned(), format!("MAIL FROM:<{SENDER}>")];
        commands.extend(recipients.iter().map(|address| format!("RCPT TO:<{address}>")));
        Self { to, commands, content: mail::stuffed(message) }
    }

    /// Sends it so many times, some at a time and as fast as it is taken.
    pub(super) fn send(&self, count: usize) -> Result<(), String> {
        self.at_times(count, Duration::ZERO).map(drop)
    }

    /// Sends it so many times a second, whatever the answers do, and says how long each took, sorted. What is late because
    /// all sessions are in use is counted from the time that it was due.
    pub(super) fn send_at_pace(
        &self,
        count: usize,
        messages_per_sec: f64,
    ) -> Result<Vec<Duration>, String> {
        self.at_times(count, Duration::from_secs_f64(1.0 / messages_per_sec))
    }

    fn at_times(&self, count: usize, interval: Duration) -> Result<Vec<Duration>, String> {
        let next = AtomicUsize::new(0);
        let started = Instant::now();
        let worker = || {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(times);
                }
                let number = u32::try_from(number).map_err(|_| "too many messages")?;
                let due = started + interval * number;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                self.send_one()?;
                times.push(due.elapsed());
            }
        };
        let taken = thread::scope(|scope| {
            let threads: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(worker)).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|times| times.unwrap_or_else(|_| Err("a session failed".to_owned())))
                .collect()
        });
        let taken: Result<Vec<Vec<Duration>>, String> = taken;
        let mut times: Vec<Duration> = taken?.into_iter().flatten().collect();
        times.sort();
        Ok(times)
    }

    fn send_one(&self) -> Result<(), String> {
        let (mut session, greeting) = Session::connect(self.to);
        expect(&greeting, 220)?;
        for command in &self.commands {
            expect(&session.command(command), 250)?;
        }
        expect(&session.command("DATA"), 354)?;
        session.send(&self.content);
        expect(&session.reply(), 250)?;
        session.send_unless_closed(b"QUIT\r\n");
        Ok(())
    }
}

fn expect(reply: &Reply, code: u16) -> Result<(), String> {
    if reply.code == code { Ok(()) } else { Err(format!("{code} expected: {reply:?}")) }
}

/// The time that so many of a thousand were below.
pub(super) fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    let at = sorted.len() * per_mille / 1000;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_those_sorted() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 500), Duration::from_millis(101));
        assert_eq!(percentile(&times, 990), Duration::from_millis(199));
        assert_eq!(percentile(&[], 990), Duration::ZERO);
    }
}
