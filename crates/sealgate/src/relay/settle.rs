//! What the outcomes of one transaction come to: the one reply for a client that hears one, and what puts right that some have
//! the message and some do not (REQUIREMENTS O9, O10).
//!
//! * Somebody is refused for now: 451, and those who have it go into the done-record, so that the next attempt skips them.
//! * Going out, somebody is refused for good: 250, and a notification (RFC 3464) to the sender through the mail server
//!   before that. Where it cannot be handed over for now, 451 and the done-record; where it is too large, it is handed over with
//!   the message's header section only (RFC 3461 §4.3); where the mail server refuses it for good, the recipient's
//!   refusal, which names him.
//! * Coming in, somebody is refused for good after others accepted: his refusal, which names him. The sender's server then
//!   tells the sender; a notification of ours to a sender whom nobody has verified would be backscatter.

use std::sync::atomic::AtomicBool;

use sealgate_core::address::Address;
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::{Direction, Report};
use sealgate_core::smtp::Protocol;
use tokio::time::Instant;

use super::fanout::Remotes;
use super::notify::Handed;
use super::transaction::Transaction;

/// What became of each recipient; `None` for one whose copy was held back.
pub(crate) type Outcomes = Vec<Option<Result<Reply, Refusal>>>;

/// A transaction at its end.
#[derive(Debug)]
pub(crate) struct Settled {
    /// For the log.
    pub(crate) report: Report,
    /// The reply that stands for all.
    pub(crate) result: Result<Reply, Refusal>,
    /// Some have it and some do not.
    pub(crate) partial: bool,
    /// What put that right.
    pub(crate) repair: Option<Repair>,
    /// Each recipient's answer, where they differ; else empty.
    pub(crate) recipients: Vec<Answered>,
}

/// What one recipient's copy came to, for the log: who has the message, and who has not. The words of an answer are left out: a mail
/// server may have written them about content that was opened (D25).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Answered {
    /// The recipient.
    pub(crate) to: String,
    /// As a client heard it who has a reply for each; none where the copy was held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u16>,
    /// RFC 3463 status.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) enhanced: String,
    /// The server that the copy was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
}

/// What puts right that some have a message and some do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Repair {
    /// The next attempt skips those who have it.
    DoneRecord,
    /// The sender is told.
    Notification,
    /// The reply was each recipient's own, or names those who do not have it.
    Reply,
    /// The sender wants no notification, or is nobody.
    Unwanted,
}

/// What the outcomes come to by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// Everybody has it.
    Accepted(Reply),
    /// Nobody has it.
    Refused(Refusal),
    /// Some have it; the others may get it later. The first such refusal.
    Deferred(Refusal),
    /// Some have it; the others never get it. The first such refusal.
    Split(Reply, Refusal),
}

impl Tally {
    /// Of all outcomes.
    pub(crate) fn of(outcomes: &[Option<Result<Reply, Refusal>>]) -> Self {
        let refusals = || outcomes.iter().flatten().filter_map(|outcome| outcome.as_ref().err());
        let temporary = refusals().find(|refusal| !Reply::from(*refusal).is_permanent());
        let permanent = refusals().find(|refusal| Reply::from(*refusal).is_permanent());
        let accepted = outcomes.iter().flatten().find_map(|outcome| outcome.as_ref().ok());
        let held_back = outcomes.iter().any(Option::is_none);
        match (accepted, temporary, permanent) {
            (Some(_), Some(refusal), _) => Self::Deferred(refusal.clone()),
            (Some(_), None, _) if held_back => Self::Deferred(Refusal::NextHopTimeout),
            (Some(reply), None, Some(refusal)) => Self::Split(reply.clone(), refusal.clone()),
            (Some(reply), None, None) => Self::Accepted(reply.clone()),
            (None, Some(refusal), _) | (None, None, Some(refusal)) => {
                Self::Refused(refusal.clone())
            }
            (None, None, None) => Self::Refused(Refusal::Internal),
        }
    }

    /// The reply without any repair.
    pub(crate) fn into_result(self) -> (Result<Reply, Refusal>, bool) {
        match self {
            Self::Accepted(reply) => (Ok(reply), false),
            Self::Refused(refusal) => (Err(refusal), false),
            Self::Deferred(refusal) | Self::Split(_, refusal) => (Err(refusal), true),
        }
    }
}

impl Transaction {
    /// Finds the reply, and puts right what can be.
    pub(super) async fn settle(
        &self,
        report: Report,
        outcomes: &Outcomes,
        remotes: &Remotes,
        deadline: Instant,
        released: &AtomicBool,
    ) -> Settled {
        let tally = Tally::of(outcomes);
        let recipients = self.answered(outcomes, remotes);
        let done =
            |result, partial, repair| Settled { report, result, partial, repair, recipients };
        if self.upstream == Protocol::Lmtp {
            let (result, partial) = tally.into_result();
            return done(result, partial, partial.then_some(Repair::Reply));
        }
        match tally {
            Tally::Accepted(reply) => done(Ok(reply), false, None),
            Tally::Refused(refusal) if outcomes.contains(&None) => {
                done(Err(self.naming(outcomes, &refusal)), false, None)
            }
            Tally::Refused(refusal) => done(Err(refusal), false, None),
            Tally::Deferred(refusal) => {
                let repair = self.remember_for_retry(outcomes).await;
                done(Err(self.naming(outcomes, &refusal)), true, repair)
            }
            Tally::Split(_, refusal) if self.direction == Direction::Inbound => {
                done(Err(self.naming(outcomes, &refusal)), true, Some(Repair::Reply))
            }
            Tally::Split(reply, refusal) => {
                match self.notify(outcomes, remotes, deadline, released).await {
                    Handed::Over => {
                        self.note_refused(outcomes);
                        if self.remembers_always() {
                            self.remember(outcomes).await;
                        }
                        done(Ok(reply), true, Some(Repair::Notification))
                    }
                    Handed::Unwanted => done(Ok(reply), true, Some(Repair::Unwanted)),
                    Handed::Refused | Handed::TooLarge => {
                        done(Err(self.naming(outcomes, &refusal)), true, Some(Repair::Reply))
                    }
                    Handed::NotOver => {
                        let repair = self.remember_for_retry(outcomes).await;
                        let text = "some recipients were refused, and the notification could not be \
                                handed to the mail server, try again later";
                        let refusal = Refusal::NextHop(Reply::new(451, (4, 4, 1), text));
                        done(Err(refusal), true, repair)
                    }
                }
            }
        }
    }

    /// The end of a transaction that panicked (invariant 11): whatever was said so far, nobody else hears of it for good, so
    /// that nobody is given up whom nobody tried. Those who have the message are skipped by the next attempt.
    pub(super) async fn interrupted(&self, outcomes: &Outcomes) -> Settled {
        metrics::counter!("sealgate_panics_total").increment(1);
        let report = Report::new(self.direction, &self.id);
        let recipients = self.answered(outcomes, &Remotes::default());
        let done =
            |result, partial, repair| Settled { report, result, partial, repair, recipients };
        if self.upstream == Protocol::Lmtp {
            // Each of them heard, or hears, his own answer.
            let (result, partial) = Tally::of(outcomes).into_result();
            return done(result, partial, partial.then_some(Repair::Reply));
        }
        let partial = outcomes.iter().any(|outcome| matches!(outcome, Some(Ok(_))));
        let repair = if partial { self.remember_for_retry(outcomes).await } else { None };
        done(Err(Refusal::Internal), partial, repair)
    }

    /// Who has it and who has not, where one reply does not say it.
    fn answered(&self, outcomes: &Outcomes, remotes: &Remotes) -> Vec<Answered> {
        if outcomes.len() < 2 {
            return Vec::new();
        }
        let replies: Vec<Option<Reply>> =
            outcomes.iter().map(|outcome| said(outcome.as_ref())).collect();
        let status =
            |reply: &Option<Reply>| reply.as_ref().map(|reply| (reply.code, reply.enhanced));
        let Some(first) = replies.first().map(status) else { return Vec::new() };
        if replies.iter().all(|reply| status(reply) == first) {
            return Vec::new();
        }
        let recipients = self.envelope.recipients.iter().zip(&replies).enumerate();
        recipients
            .map(|(index, (recipient, reply))| Answered {
                to: recipient.address.to_string(),
                code: reply.as_ref().map(|reply| reply.code),
                enhanced: reply.as_ref().map(Reply::enhanced_text).unwrap_or_default(),
                host: remotes.get(&index).cloned(),
            })
            .collect()
    }

    async fn remember_for_retry(&self, outcomes: &Outcomes) -> Option<Repair> {
        let written = self.remember(outcomes).await;
        if written {
            // No copy of sealgate believes any more that there is no record.
            tokio::time::sleep(sealgate_keys::done_record::HINT_VALID).await;
        }
        written.then_some(Repair::DoneRecord)
    }

    /// The refusal with the names of those whom it is about.
    fn naming(&self, outcomes: &Outcomes, refusal: &Refusal) -> Refusal {
        let reply = Reply::from(refusal);
        let served = outcomes.iter().any(|outcome| matches!(outcome, Some(Ok(_))));
        let about = |outcome: &Option<Result<Reply, Refusal>>| match outcome {
            Some(outcome) => outcome.is_err(),
            None => served,
        };
        let recipients = self.envelope.recipients.iter().zip(outcomes);
        let names: Vec<String> = recipients
            .filter(|(_, outcome)| about(outcome))
            .take(NAMES_MAX)
            .map(|(recipient, _)| format!("<{}>", printable(&recipient.address)))
            .collect();
        if names.is_empty() {
            return refusal.clone();
        }
        let (names, said) = (names.join(", "), reply.text());
        let said: String = said.chars().take(TEXT_CHARS_MAX).collect();
        let text = match served {
            true => format!("not delivered to {names}, all others have it: {said}"),
            false => format!("delivered to nobody because of {names}: {said}"),
        };
        Refusal::NextHop(Reply { lines: vec![text], ..reply })
    }
}

fn said(outcome: Option<&Result<Reply, Refusal>>) -> Option<Reply> {
    outcome.map(|outcome| outcome.as_ref().map_or_else(Reply::from, Reply::clone))
}

/// An address in a reply: printable ASCII only, so that it cannot end the line.
fn printable(address: &Address) -> String {
    let safe = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    address.to_string().chars().map(safe).collect()
}

/// Recipients that a reply names: it has to fit a line (RFC 5321 §4.5.3.1.5).
const NAMES_MAX: usize = 3;
/// Of the refusal's own text.
const TEXT_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_verdict_out_of_many_outcomes() {
        let ok = || Some(Ok(Reply::new(250, (2, 0, 0), "queued")));
        let bad = |code: u16| {
            let class = u8::try_from(code / 100).unwrap();
            Some(Err(Refusal::NextHop(Reply::new(code, (class, 1, 1), "no"))))
        };
        let verdict = |outcomes: &[Option<Result<Reply, Refusal>>]| match Tally::of(outcomes) {
            Tally::Accepted(reply) => ("accepted", reply.code),
            Tally::Refused(refusal) => ("refused", Reply::from(&refusal).code),
            Tally::Deferred(refusal) => ("deferred", Reply::from(&refusal).code),
            Tally::Split(_, refusal) => ("split", Reply::from(&refusal).code),
        };
        assert_eq!(verdict(&[ok(), ok()]), ("accepted", 250));
        assert_eq!(verdict(&[bad(550), bad(550)]), ("refused", 550));
        assert_eq!(verdict(&[bad(550), None]), ("refused", 550));
        assert_eq!(verdict(&[bad(550), bad(451)]), ("refused", 451));
        assert_eq!(verdict(&[ok(), bad(550)]), ("split", 550));
        assert_eq!(verdict(&[ok(), bad(550), bad(450)]), ("deferred", 450));
        assert_eq!(verdict(&[ok(), None]), ("deferred", 451));
        assert_eq!(verdict(&[None]), ("refused", 451));
    }
}
