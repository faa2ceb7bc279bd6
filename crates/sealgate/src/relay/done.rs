//! Who was served by an earlier transaction, and who is by this one: the relay's use of the done-record (REQUIREMENTS O10).
//!
//! The question is asked while the message is transformed. By default it costs no query for a message without a record;
//! with `done_record = "always"` it is one query and one write a message. A database that is away stops no
//! mail: duplicates are possible then, and the log and `sealgate_done_record_failures_total` say so.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sealgate_core::refusal::{Refusal, Reply};
use sealgate_keys::StoreError;
use sealgate_keys::done_record::MessageKey;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::settle::Outcomes;
use super::transaction::Transaction;
use super::{Relay, off_the_clock};
use crate::config::DoneRecord;

/// What a transaction knows of its message's done-record.
#[derive(Debug, Default)]
pub(super) struct Done {
    before: OnceCell<Before>,
    key: OnceLock<MessageKey>,
    /// Recipients, by index, of whom nothing needs to be written any more.
    written: Mutex<HashSet<usize>>,
    /// Recipients, by index, whom the sender was notified of.
    notified: Mutex<HashSet<usize>>,
}

/// When a database that is away is asked again.
#[derive(Debug, Default)]
pub(super) struct Absence(Mutex<Option<Instant>>);

/// What an earlier transaction did.
#[derive(Debug)]
pub(super) struct Before {
    /// For each recipient, whether he has the message already.
    pub(super) served: Vec<bool>,
    /// Whether the done-record answered.
    pub(super) remembers: bool,
}

impl Transaction {
    /// Who has the message already, asked once.
    pub(super) async fn before(&self) -> &Before {
        self.done.before.get_or_init(|| self.ask()).await
    }

    async fn ask(&self) -> Before {
        let recipients = &self.envelope.recipients;
        let nobody = |remembers| Before { served: vec![false; recipients.len()], remembers };
        if self.relay.absence.lasts() {
            return nobody(false);
        }
        let records = self.relay.stores.done_records();
        let always = self.remembers_always();
        let found = off_the_clock(timeout(PATIENCE, async {
            if !always && !records.any().await? {
                return Ok(None);
            }
            let key = self.message_key().await;
            if !always && !records.may_know(&key).await? {
                return Ok(None);
            }
            records.find(&key).await.map(|served| Some((key, served)))
        }));
        match found.await.map_err(|_| late()).flatten() {
            Ok(None) => nobody(true),
            Ok(Some((key, served))) => {
                let served = recipients.iter().map(|to| served.contains(&key, &to.address));
                let served: Vec<bool> = served.collect();
                let indices = served.iter().enumerate().filter(|(_, served)| **served);
                lock(&self.done.written).extend(indices.map(|(index, _)| index));
                Before { served, remembers: true }
            }
            Err(error) => {
                self.relay.absence.begin();
                alarm(&self.id, &error);
                nobody(false)
            }
        }
    }

    /// What the client hears of those.
    pub(super) fn served_before() -> Reply {
        Reply::new(250, (2, 0, 0), "delivered by an earlier transaction, not sent again")
    }

    /// Writes down who has the message now; whether all of them are on record.
    pub(crate) async fn remember(&self, outcomes: &[Option<Result<Reply, Refusal>>]) -> bool {
        let new: Vec<usize> = {
            let (written, notified) = (lock(&self.done.written), lock(&self.done.notified));
            let settled = |index: &usize, outcome: &Option<Result<Reply, Refusal>>| {
                matches!(outcome, Some(Ok(_))) || notified.contains(index)
            };
            let outcomes = outcomes.iter().enumerate();
            outcomes
                .filter(|(index, outcome)| settled(index, outcome) && !written.contains(index))
                .map(|(index, _)| index)
                .collect()
        };
        if new.is_empty() {
            return true;
        }
        // While the database is away nobody waits for it again and again.
        if self.relay.absence.lasts() {
            return false;
        }
        let key = self.message_key().await;
        let recipients = new.iter().filter_map(|index| self.envelope.recipients.get(*index));
        let addresses = recipients.map(|recipient| &recipient.address);
        let records = self.relay.stores.done_records();
        let added = off_the_clock(timeout(PATIENCE, records.add(&key, addresses))).await;
        match added.map_err(|_| late()).flatten() {
            Ok(()) => {
                lock(&self.done.written).extend(new);
                metrics::counter!("sealgate_done_records_total").increment(1);
                true
            }
            Err(error) => {
                self.relay.absence.begin();
                alarm(&self.id, &error);
                false
            }
        }
    }

    /// The sender has been told of those refused: another attempt would tell him again.
    pub(super) fn note_refused(&self, outcomes: &Outcomes) {
        let refused = outcomes.iter().enumerate().filter(|(_, one)| matches!(one, Some(Err(_))));
        lock(&self.done.notified).extend(refused.map(|(index, _)| index));
    }

    /// Whether everything is written down before it is said.
    pub(super) fn remembers_always(&self) -> bool {
        self.settings.config.done_record == DoneRecord::Always
    }

    async fn message_key(&self) -> MessageKey {
        if let Some(key) = self.done.key.get() {
            return *key;
        }
        let sender = self.envelope.reverse_path.clone();
        let message = self.message.clone();
        let compute = move || MessageKey::new(sender.as_ref(), &message);
        let key = if self.message.len() <= INLINE_BYTES_MAX {
            compute()
        } else {
            let inline = compute.clone();
            off_the_clock(tokio::task::spawn_blocking(compute)).await.unwrap_or_else(|_| inline())
        };
        *self.done.key.get_or_init(|| key)
    }
}

impl Absence {
    fn lasts(&self) -> bool {
        lock(&self.0).is_some_and(|until| Instant::now() < until)
    }

    fn begin(&self) {
        *lock(&self.0) = Some(Instant::now() + ASK_AGAIN);
    }
}

/// Deletes old records, now and then.
pub(super) async fn sweep(relay: &Relay) {
    match relay.stores.done_records().sweep().await {
        Ok(0) => {}
        Ok(messages) => tracing::info!(messages, "old done-records deleted"),
        Err(error) => tracing::warn!(%error, "old done-records could not be deleted"),
    }
}

fn alarm(id: &str, error: &StoreError) {
    metrics::counter!("sealgate_done_record_failures_total").increment(1);
    tracing::error!(id, %error, "the done-record is away: a second attempt may make duplicates");
}

fn late() -> StoreError {
    let (database, why) = ("the key database".to_owned(), "no answer in time".to_owned());
    StoreError::Database { database, why }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the database may take: the client waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a database that was away is not asked.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Messages up to this size are hashed on the thread that received them.
const INLINE_BYTES_MAX: usize = 64 << 10;
