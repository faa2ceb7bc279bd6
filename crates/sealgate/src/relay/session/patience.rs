//! How long a session waits for its client (REQUIREMENTS K9): for the next command, for the end of one that has begun, and for
//! content, which must not come too slowly on average. A client that was waited for long enough is told 421, and so is
//! one that has nothing under way when the relay drains.

use std::io;
use std::time::Duration;

use sealgate_core::refusal::{Refusal, Reply};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::{Next, Session};

impl Session {
    /// Writes what is to be said and waits for what the client says.
    pub(super) async fn more_input(&mut self) -> io::Result<Next> {
        if self.server.is_receiving() {
            // A chunk that nobody was asked about begins here.
            let since = *self.receiving_since.get_or_insert_with(Instant::now);
            self.account_for_content();
            self.say().await?;
            return self.more_content(since).await;
        }
        self.receiving_since = None;
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
    async fn more_content(&mut self, since: Instant) -> io::Result<Next> {
        failpoint!("session.content");
        let rate = self.settings.config.limits.data_bytes_per_sec_min.max(1);
        let allowed = Duration::from_secs(self.server.received_bytes() / rate);
        let grace = Duration::from_secs(self.settings.config.limits.data_grace_secs);
        // What came fast earns no right to be silent without end.
        let deadline = (since + grace + allowed).min(Instant::now() + self.idle_max());
        let read = timeout_at(deadline, self.stream.read(&mut self.input)).await;
        self.go_on(read, "content comes too slowly")
    }

    /// What a read came to; a client that was waited for long enough is told why the session ends.
    fn go_on(&mut self, read: Result<io::Result<usize>, Elapsed>, late: &str) -> io::Result<Next> {
        match read {
            Ok(Ok(0)) => Ok(Next::End),
            Ok(Ok(_)) => Ok(Next::Go),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.server.close(&Reply::new(421, (4, 4, 2), late));
                Ok(Next::Go)
            }
        }
    }

    fn idle_max(&self) -> Duration {
        Duration::from_secs(self.settings.config.limits.idle_secs_max)
    }
}
