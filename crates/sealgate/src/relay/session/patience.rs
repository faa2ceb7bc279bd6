//! How long a session waits for its client (REQUIREMENTS K9): for the next command, for the end of one that has begun, and for
//! content, which must not come too slowly on average. A client that was waited for long enough is told 421, and so is
//! one that has nothing under way when the relay drains. After its last reply it is heard for a while, so that it hears that.

use std::io;
use std::time::Duration;

use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::Direction;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Next, Session};
use crate::config::Limits;

/// Content that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) since: Instant,
    /// Without another octet it comes too slowly from then on.
    until: Instant,
    /// What has put that off so far.
    counted_bytes: u64,
}

impl Receiving {
    /// From now on; for so long it may be as slow as it likes.
    pub(super) fn new(grace_secs: u64) -> Self {
        let since = Instant::now();
        Self { since, until: since + Duration::from_secs(grace_secs), counted_bytes: 0 }
    }

    /// How long the next octet is waited for, of which so many have come. What comes faster than it must earns time, but no
    /// more than silence has: else who sent a large message but for its end could hold its memory for hours.
    fn deadline(&mut self, received_bytes: u64, rate: u64, limits: &Limits) -> Instant {
        let more = received_bytes.saturating_sub(self.counted_bytes);
        self.counted_bytes = received_bytes;
        let earned = Duration::from_nanos(more.saturating_mul(NANOS_PER_SEC) / rate.max(1));
        let (now, idle_secs_max) = (Instant::now(), limits.idle_secs_max);
        let ahead_max = Duration::from_secs(idle_secs_max.max(limits.data_grace_secs));
        self.until = (self.until + earned).min(now + ahead_max);
        self.until.min(now + Duration::from_secs(idle_secs_max))
    }
}

impl Session {
    /// Writes what is to be said and waits for what the client says.
    pub(super) async fn more_input(&mut self) -> io::Result<Next> {
        if self.server.is_receiving() {
            self.account_for_content();
            self.say().await?;
            return self.more_content().await;
        }
        self.receiving = None;
        // RSET between two chunks drops what was received: nothing of it stays on the account.
        self.account_for_content();
        self.say().await?;
        // Within a transaction a drain lets the client finish.
        failpoint!("session.replied");
        let between = self.server.envelope().is_none();
        if between && *self.draining.borrow() {
            self.server.close(&Reply::from(&Refusal::ShuttingDown));
            return Ok(Next::Go);
        }
        let deadline = self.command_since() + self.idle_max();
        tokio::select! {
            read = timeout_at(deadline, self.stream.read(&mut self.input)) => {
                self.go_on(read, "idle for too long")
            }
            _ = self.draining.changed(), if between => Ok(Next::Go),
        }
    }

    /// From when on a command is waited for: one that has begun gets no more time by each octet of it.
    fn command_since(&mut self) -> Instant {
        let now = Instant::now();
        let has_begun = !self.input.is_empty() || self.server.is_within_long_line();
        let lines = self.server.lines();
        let since = match self.unfinished {
            Some((before, since)) if before == lines => since,
            _ => now,
        };
        self.unfinished = has_begun.then_some((lines, since));
        if has_begun { since } else { now }
    }

    /// Reads content, no slower than the minimum rate averaged.
    async fn more_content(&mut self) -> io::Result<Next> {
        failpoint!("session.content");
        let rate = self.bytes_per_sec_min();
        let limits = &self.settings.config.limits;
        // A chunk that nobody was asked about begins here.
        let receiving =
            self.receiving.get_or_insert_with(|| Receiving::new(limits.data_grace_secs));
        let deadline = receiving.deadline(self.server.received_bytes(), rate, limits);
        let read = timeout_at(deadline, self.stream.read(&mut self.input)).await;
        self.go_on(read, "content comes too slowly")
    }

    /// How fast content must come on average. Once memory for mail from the Internet is scarce, large messages must come in
    /// reasonable time: else slow ones of a few networks keep everybody else's out for hours.
    fn bytes_per_sec_min(&self) -> u64 {
        let least = self.settings.config.limits.data_bytes_per_sec_min;
        if !self.memory.is_scarce(&self.budget()) {
            return least;
        }
        let held_bytes = u64::try_from(self.server.held_bytes()).unwrap_or(u64::MAX);
        least.max(held_bytes / SCARCE_SECS_MAX)
    }

    /// What a read came to; a client that was waited for long enough is told why the session ends.
    fn go_on(&mut self, read: Result<io::Result<usize>, Elapsed>, late: &str) -> io::Result<Next> {
        match read {
            Ok(Ok(0)) => Ok(Next::End),
            Ok(Ok(_)) => Ok(Next::Go),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                if let Some(unfinished) = self.server.close(&Reply::new(421, (4, 4, 2), late)) {
                    self.unfinished(unfinished);
                }
                Ok(Next::Go)
            }
        }
    }

    /// Ends the connection so that the last reply arrives: closing with unread input would reset it.
    pub(super) async fn linger(&mut self) {
        failpoint!("session.linger");
        // The message is gone, and what comes is not kept.
        self.memory.release();
        if self.place.is_none()
            || self.stream.shutdown().await.is_err()
            || self.input.is_empty() && self.server.has_quit()
        {
            return;
        }
        if self.is_turned_away {
            let hearing = self.hear_out(TURNED_AWAY_BYTES_MAX, TURNED_AWAY_SECS_MAX);
            let _ = timeout(Duration::from_secs(TURNED_AWAY_SECS_MAX), hearing).await;
            return;
        }
        let silence_secs_max = match self.entrance.direction() {
            Direction::Inbound => SILENCE_OUTSIDE_SECS_MAX,
            Direction::Outbound => SILENCE_INSIDE_SECS_MAX,
        };
        let bytes_max = self.settings.config.limits.message_bytes_max;
        self.hear_out(bytes_max, silence_secs_max).await;
    }

    /// Reads what the client still sends and keeps none of it. Who meets a reset while he sends a message reads no reply, and
    /// tries in vain for days; so he may send a whole one, no slower than any other.
    async fn hear_out(&mut self, bytes_max: usize, silence_secs_max: u64) {
        let limits = &self.settings.config.limits;
        let silence_max = Duration::from_secs(silence_secs_max);
        let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let mut receiving = Receiving::new(silence_secs_max);
        let mut heard_bytes = 0;
        let mut rest = vec![0_u8; 4096];
        while heard_bytes < bytes_max {
            let rate = limits.data_bytes_per_sec_min;
            let pace = receiving.deadline(heard_bytes, rate, limits);
            let deadline = pace.min(Instant::now() + silence_max);
            match timeout_at(deadline, AsyncReadExt::read(&mut self.stream, &mut rest)).await {
                Ok(Ok(0) | Err(_)) | Err(_) => return,
                Ok(Ok(octets)) => heard_bytes += u64::try_from(octets).unwrap_or(u64::MAX),
            }
        }
    }

    fn idle_max(&self) -> Duration {
        Duration::from_secs(self.settings.config.limits.idle_secs_max)
    }
}

const NANOS_PER_SEC: u64 = 1_000_000_000;
/// A whole message, where memory is scarce.
const SCARCE_SECS_MAX: u64 = 900;
/// Silence after the last reply. A mail server of ours may take its time.
const SILENCE_INSIDE_SECS_MAX: u64 = 30;
const SILENCE_OUTSIDE_SECS_MAX: u64 = 5;
/// How long in all, and how much, somebody is heard who had no session.
const TURNED_AWAY_SECS_MAX: u64 = 2;
const TURNED_AWAY_BYTES_MAX: usize = 1 << 20;
