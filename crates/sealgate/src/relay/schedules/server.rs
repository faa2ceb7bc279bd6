//! A mail server that takes mail from the relay, SMTP or LMTP, as badly as chance has it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Buf;
use tokio::time::{sleep, timeout};

use super::books::About;
use super::line::{Line, Over};
use super::pipe::Mark;
use super::world::{books, complain, delay, draw, is_calm, note};

/// What one server is like.
#[derive(Clone, Debug)]
pub(super) struct ServerPlan {
    pub(super) address: SocketAddr,
    pub(super) lmtp: bool,
    /// It takes PROXY headers.
    pub(super) proxy: bool,
    /// Keywords after EHLO or LHLO; without any an SMTP server knows HELO only.
    pub(super) keywords: Vec<&'static str>,
    /// What may be on its way to it and back.
    pub(super) room: (usize, usize),
    /// How long it waits before it greets.
    pub(super) greets_after: Duration,
    /// How it reads.
    pub(super) slow: Option<(usize, Duration)>,
    /// So many steps out of a thousand go wrong.
    pub(super) per_mille: u64,
}

impl ServerPlan {
    /// Steps out of a thousand that go wrong now.
    pub(super) fn trouble(&self) -> u64 {
        if is_calm() { 0 } else { self.per_mille }
    }

    /// It would confirm deliveries, and tells whose attempt a copy is of.
    pub(super) fn offers_dsn(&self) -> bool {
        self.keywords.contains(&"DSN")
    }

    /// It takes what is sent as soon as it is sent.
    fn is_prompt(&self) -> bool {
        self.slow.is_none() && self.room.0 > CONTENT_BYTES_MAX
    }
}

/// How a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Good,
    Later,
    Never,
    Closing,
    Garbage,
    Silence,
    HangUp,
    Half,
}

/// Serves one connection.
pub(super) async fn serve(line: Line, plan: ServerPlan, number: usize) {
    let transaction = Transaction::default();
    let introduced = plan.proxy;
    let mut session =
        Session { line, plan, number, transaction, patience: PATIENCE, introduced, garbled: false };
    let _ = session.run().await;
    session.line.hang_up(draw(|chance| chance.per_mille(300)));
    session.note("is closed");
}

struct Session {
    line: Line,
    plan: ServerPlan,
    number: usize,
    transaction: Transaction,
    patience: Duration,
    /// The Internet's client was named to it.
    introduced: bool,
    /// It has said what is no SMTP: nothing that follows is believed.
    garbled: bool,
}

#[derive(Default)]
struct Transaction {
    begun: bool,
    is_from_nobody: bool,
    attempt: Option<(usize, usize)>,
    recipients: Vec<String>,
}

impl Transaction {
    /// What is said of its content.
    fn about(&self) -> About {
        About::Admitted(self.attempt, self.recipients.clone())
    }
}

impl Session {
    fn note(&self, what: &str) {
        note(|| format!("#{} {} {what}", self.number, self.plan.address));
    }

    /// Whom a reply before any mail is about. Who does not talk to the relay itself has refused nobody's mail.
    fn about_client(&self) -> About {
        match self.introduced {
            true => About::Connection,
            false => About::Nothing,
        }
    }

    async fn run(&mut self) -> Result<(), Over> {
        if self.plan.proxy {
            while self.line.input.len() < 16 {
                self.line.more().await?;
            }
            let length =
                16 + usize::from(u16::from_be_bytes([self.line.input[14], self.line.input[15]]));
            while self.line.input.len() < length {
                self.line.more().await?;
            }
            self.line.input.advance(length);
        }
        if !self.plan.greets_after.is_zero() {
            sleep(self.plan.greets_after).await;
        }
        self.answer("220 sink ready", self.about_client()).await?;
        loop {
            let trouble = self.plan.trouble();
            if draw(|chance| chance.per_mille(trouble / 2)) {
                self.patience = Duration::from_millis(draw(|chance| chance.below(40_000)));
            }
            let Ok(line) = timeout(self.patience, self.line.line()).await else {
                if draw(|chance| chance.per_mille(500)) {
                    self.say("421 4.4.2 idle for too long").await?;
                }
                return Err(Over);
            };
            let line = line?;
            self.note(&format!("<- {line}"));
            self.command(&line).await?;
        }
    }

    async fn command(&mut self, line: &str) -> Result<(), Over> {
        let verb: String = line.chars().take(4).collect::<String>().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" if self.plan.keywords.is_empty() => self.say("502 5.5.1 what").await,
            "EHLO" | "LHLO" => {
                let mut text = String::from("250-sink");
                for keyword in &self.plan.keywords {
                    text.push_str("\r\n250-");
                    text.push_str(keyword);
                }
                text.push_str("\r\n250 HELP");
                self.answer(&text, self.about_client()).await.map(drop)
            }
            "HELO" => self.answer("250 sink", self.about_client()).await.map(drop),
            "XCLI" => {
                self.transaction = Transaction::default();
                self.introduced = true;
                self.answer("220 sink ready again", self.about_client()).await.map(drop)
            }
            "MAIL" => {
                let attempt = find_attempt(line, "ENVID=");
                if self.answer("250 2.1.0 ok", About::Everybody(attempt)).await? {
                    let is_from_nobody = line.contains("FROM:<>");
                    self.transaction = Transaction {
                        begun: true,
                        is_from_nobody,
                        attempt,
                        recipients: Vec::new(),
                    };
                }
                Ok(())
            }
            "RCPT" if !self.transaction.begun => self.say("503 5.5.1 MAIL first").await,
            "RCPT" => {
                let address = line.split(['<', '>']).nth(1).unwrap_or_default();
                let about = About::Recipient(self.transaction.attempt, address.to_owned());
                if self.answer("250 2.1.5 ok", about).await? {
                    self.transaction.recipients.push(address.to_owned());
                }
                Ok(())
            }
            "DATA" if self.transaction.recipients.is_empty() => {
                self.say("503 5.5.1 RCPT first").await
            }
            "DATA" => {
                if self.answer("354 go on", self.transaction.about()).await? {
                    self.content().await?;
                }
                Ok(())
            }
            "RSET" => {
                self.transaction = Transaction::default();
                self.answer("250 2.0.0 ok", About::Nothing).await.map(drop)
            }
            "QUIT" => {
                self.say("221 2.0.0 bye").await?;
                Err(Over)
            }
            _ => {
                complain(format!("the relay says {line:?}"));
                self.say("500 5.5.1 what").await
            }
        }
    }

    fn fate(&self) -> Fate {
        let trouble = self.plan.trouble();
        draw(|chance| {
            if !chance.per_mille(trouble) {
                return Fate::Good;
            }
            let bad = [
                Fate::Later,
                Fate::Later,
                Fate::Later,
                Fate::Never,
                Fate::Never,
                Fate::Closing,
                Fate::Garbage,
                Fate::Silence,
                Fate::HangUp,
                Fate::Half,
            ];
            *chance.pick(&bad)
        })
    }

    async fn say(&mut self, text: &str) -> Result<(), Over> {
        self.note(&format!("-> {text}"));
        self.line.write(format!("{text}\r\n").as_bytes()).await
    }

    /// A 5xx that may be passed on.
    async fn refuse(&mut self, text: &str, about: About) -> Result<(), Over> {
        self.say(text).await?;
        books(|books| books.refused(self.plan.address, about, self.line.mark()));
        Ok(())
    }

    /// Says this, or what chance has instead; whether it was this.
    async fn answer(&mut self, good: &str, about: About) -> Result<bool, Over> {
        let fate = self.fate();
        sleep(delay(self.plan.trouble())).await;
        self.end_as(fate, good, about).await
    }

    async fn end_as(&mut self, fate: Fate, good: &str, about: About) -> Result<bool, Over> {
        match fate {
            Fate::Good => {
                self.say(good).await?;
                return Ok(true);
            }
            Fate::Later => {
                let text = ["451 4.3.0 later", "450 4.2.1 later", "452 4.3.1 full"];
                self.say(draw(|chance| *chance.pick(&text))).await?;
            }
            Fate::Never => {
                let text = ["550 5.7.1 no", "554 5.6.0 never", "550 5.1.1 nobody"];
                self.refuse(draw(|chance| *chance.pick(&text)), about).await?;
            }
            Fate::Closing => {
                self.say("421 4.3.2 closing").await?;
                return Err(Over);
            }
            Fate::Garbage => {
                self.garbled = true;
                let text = ["", "2", "hello", "\u{1}\u{2}\u{3}", "999 x", "25O ok", "250ok"];
                self.say(draw(|chance| *chance.pick(&text))).await?;
            }
            Fate::Silence => {
                self.note("is silent");
                return Err(self.line.fall_silent().await);
            }
            Fate::HangUp => return Err(Over),
            Fate::Half => {
                let half = draw(|chance| chance.index(good.len()));
                self.note(&format!("-> {:?}", &good[..half]));
                self.line.write(&good.as_bytes()[..half]).await?;
                return Err(Over);
            }
        }
        Ok(false)
    }

    /// Reads the content up to its dot.
    async fn content(&mut self) -> Result<(), Over> {
        let sender = self.transaction.attempt;
        // Who reads slowly has not seen a dot that went out long ago.
        if let Some(attempt) = sender.filter(|_| !self.plan.is_prompt()) {
            books(|books| books.may_have_dot(attempt));
        }
        let trouble = self.plan.trouble();
        let stop_at = draw(|chance| chance.per_mille(trouble / 2).then(|| chance.index(4000)));
        let mut raw: Vec<u8> = b"\r\n".to_vec();
        let end = loop {
            let from = raw.len().saturating_sub(4);
            raw.extend_from_slice(&self.line.input);
            self.line.input.clear();
            let found = raw[from..].windows(5).position(|window| window == b"\r\n.\r\n");
            if let Some(at) = found {
                break from + at;
            }
            if stop_at.is_some_and(|at| raw.len() > at) {
                // The dot may be on its way already.
                if let Some(attempt) = sender.or_else(|| attempt_in(&raw)) {
                    books(|books| books.may_have_dot(attempt));
                }
                if draw(|chance| chance.per_mille(500)) {
                    self.refuse("552 5.3.4 too much", self.transaction.about()).await?;
                    return Err(self.line.fall_silent().await);
                }
                return Err(Over);
            }
            self.line.more().await?;
        };
        self.line.input.extend_from_slice(&raw[end + 5..]);
        raw.truncate(end + 2);
        let content = without_dots(&raw[2..]);
        let transaction = std::mem::take(&mut self.transaction);
        self.dot(transaction, &content).await
    }

    /// Decides what becomes of it, and says so.
    async fn dot(&mut self, transaction: Transaction, content: &[u8]) -> Result<(), Over> {
        if transaction.is_from_nobody && is_notification(content) {
            return self.notification(content).await;
        }
        let is_named = transaction.attempt.is_some();
        let Some(attempt) = transaction.attempt.or_else(|| attempt_in(content)) else {
            complain("a message of nobody".to_owned());
            return Err(Over);
        };
        books(|books| books.arrived(attempt, self.plan.is_prompt()));
        self.note(&format!("has all of m{}.{}", attempt.0, attempt.1));
        let groups: Vec<Vec<String>> = match self.plan.lmtp {
            true => transaction.recipients.into_iter().map(|one| vec![one]).collect(),
            false => vec![transaction.recipients],
        };
        for group in groups {
            let trouble = self.plan.trouble();
            let kept = draw(|chance| !chance.per_mille(trouble));
            let mut copies = Vec::new();
            let mut fate = self.fate();
            if kept {
                for address in &group {
                    self.note(&format!("keeps it for {address}"));
                    let copy = books(|books| books.stored(attempt, is_named, address, content));
                    copies.extend(copy);
                }
                // Whoever keeps a message does not refuse it.
                if matches!(fate, Fate::Later | Fate::Never | Fate::Closing) {
                    fate = Fate::Good;
                }
            } else if matches!(fate, Fate::Good | Fate::Half) {
                fate = Fate::Later;
            }
            sleep(delay(trouble)).await;
            let named = is_named.then_some(attempt);
            self.end_as(fate, "250 2.0.0 kept", About::Admitted(named, group)).await?;
            if kept && fate == Fate::Good && !self.garbled {
                let mark = self.line.mark();
                copies.iter().for_each(|copy| books(|books| books.said(*copy, mark.clone())));
            }
        }
        Ok(())
    }

    async fn notification(&mut self, content: &[u8]) -> Result<(), Over> {
        let text = String::from_utf8_lossy(content).into_owned();
        let Some(attempt) = find_attempt(&text, "Original-Envelope-Id: ") else {
            complain(format!("a notification of nothing: {text}"));
            return Err(Over);
        };
        let fate = self.fate();
        sleep(delay(self.plan.trouble())).await;
        if self.end_as(fate, "250 2.0.0 notified", About::Nothing).await? {
            let mark: Option<Mark> = self.line.mark();
            let is_relayed = text.contains("\r\nAction: relayed\r\n");
            for line in text.lines() {
                let address = line.strip_prefix("Final-Recipient: rfc822;").map(str::trim);
                match address {
                    Some(address) if is_relayed => {
                        books(|books| books.relayed(attempt.0, address));
                    }
                    Some(address) => {
                        books(|books| books.notified(attempt, address, mark.as_ref()));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }
}

/// `m3.1`, after this mark.
fn find_attempt(text: &str, mark: &str) -> Option<(usize, usize)> {
    let (_, after) = text.split_once(mark)?;
    let word =
        after.strip_prefix('m')?.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?;
    let (message, attempt) = word.split_once('.')?;
    Some((message.parse().ok()?, attempt.parse().ok()?))
}

fn is_notification(content: &[u8]) -> bool {
    String::from_utf8_lossy(content).contains("report-type=delivery-status")
}

/// A server that knows no ENVID, or was greeted by HELO.
fn attempt_in(content: &[u8]) -> Option<(usize, usize)> {
    let text = String::from_utf8_lossy(content).into_owned();
    let (_, after) = text.split_once("X-Schedule: m")?;
    let message: usize = after.split("\r\n").next()?.parse().ok()?;
    Some((message, books(|books| books.likely_attempt(message))?))
}

/// RFC 5321 §4.5.2.
fn without_dots(raw: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(raw.len());
    for line in raw.split_inclusive(|octet| *octet == b'\n') {
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}

/// Longer than a relay keeps a connection.
const PATIENCE: Duration = Duration::from_secs(300);
/// No message of a schedule is as large, with all that is added.
pub(super) const CONTENT_BYTES_MAX: usize = 200 << 10;
