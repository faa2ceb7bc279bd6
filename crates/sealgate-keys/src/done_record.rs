//! The done-record: who has a message already, so that a second attempt skips them (REQUIREMENTS O10).
//!
//! In: sender, received content and recipients. Out: who was served by an earlier transaction, of whatever copy of sealgate on
//! the same database. A row holds hashes and a time; no address can be read in it. It is kept for [`KEPT_SECS`].
//!
//! There are few rows, mostly none. Which ones is remembered for [`HINT_VALID`], so that the usual message costs no query.
//! Whoever adds a row lets that time pass before the client hears of it: by then no copy believes that it is not there.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{self, Context, SHA256};
use sealgate_core::address::Address;

use crate::database::{Database, Statement};
use crate::error::StoreError;
use crate::learning::unix_now;

/// A message of a sender, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKey([u8; 32]);

impl MessageKey {
    /// SHA-256 over the sender (empty for the null reverse-path) and the SHA-256 of the content as received.
    pub fn new(sender: Option<&Address>, content: &[u8]) -> Self {
        let sender = sender.map(Address::lookup_key).unwrap_or_default();
        let mut context = Context::new(&SHA256);
        context.update(PURPOSE);
        // The digest has a fixed length, so that nothing of it can pass for a part of the sender.
        context.update(digest::digest(&SHA256, content).as_ref());
        context.update(sender.as_bytes());
        Self(bytes(&context.finish()))
    }

    /// What stands for one recipient of this message: 32 hexadecimal digits.
    fn recipient(&self, address: &Address) -> String {
        let mut context = Context::new(&SHA256);
        context.update(&self.0);
        // Two mailboxes may differ in case alone (RFC 5321 §2.4): the one must not pass for the other.
        context.update(address.to_string().as_bytes());
        let digest = context.finish();
        let mut text = String::with_capacity(RECIPIENT_CHARS);
        for byte in digest.as_ref().iter().take(RECIPIENT_CHARS / 2) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Who has a message already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served(String);

impl Served {
    /// Whether this recipient of the message does.
    pub fn contains(&self, message: &MessageKey, recipient: &Address) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let wanted = message.recipient(recipient);
        self.0.as_bytes().chunks(RECIPIENT_CHARS).any(|one| one == wanted.as_bytes())
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The done-records of a database.
#[derive(Clone, Copy, Debug)]
pub struct DoneRecords<'s> {
    database: &'s Database,
    hint: &'s Hint,
}

/// What was seen of the table last, and when.
#[derive(Debug, Default)]
pub(crate) struct Hint(Mutex<Option<(Instant, Seen)>>);

/// What is in the table.
#[derive(Clone, Debug)]
enum Seen {
    /// These messages and no others.
    All(Arc<HashSet<Vec<u8>>>),
    /// More than are kept in memory.
    Many,
}

impl<'s> DoneRecords<'s> {
    pub(crate) fn new(database: &'s Database, hint: &'s Hint) -> Self {
        Self { database, hint }
    }

    /// Whether there is any record: no query where that is known since [`HINT_VALID`] or less.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn any(&self) -> Result<bool, StoreError> {
        Ok(match self.seen().await? {
            Seen::All(messages) => !messages.is_empty(),
            Seen::Many => true,
        })
    }

    /// Whether there may be a record of this message; as cheap as [`Self::any`].
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn may_know(&self, message: &MessageKey) -> Result<bool, StoreError> {
        Ok(match self.seen().await? {
            Seen::All(messages) => messages.contains(message.0.as_slice()),
            Seen::Many => true,
        })
    }

    async fn seen(&self) -> Result<Seen, StoreError> {
        let known = self.hint.lock().clone();
        if let Some((at, seen)) = known
            && at.elapsed() < HINT_VALID
        {
            return Ok(seen);
        }
        // From before the query on: what another copy adds meanwhile counts as unseen.
        let asked = Instant::now();
        let rows = self.database.fetch_all(Statement::new(ALL).bind(REMEMBERED_MAX + 1)).await?;
        let messages = rows.iter().map(|row| row.get::<Vec<u8>>("message"));
        let messages: Result<HashSet<Vec<u8>>, _> = messages.collect();
        let messages = messages.map_err(|error| self.database.error(&error))?;
        let many = i64::try_from(messages.len()).is_ok_and(|count| count > REMEMBERED_MAX);
        let seen = if many { Seen::Many } else { Seen::All(Arc::new(messages)) };
        *self.hint.lock() = Some((asked, seen.clone()));
        Ok(seen)
    }

    /// Who has this message already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find(&self, message: &MessageKey) -> Result<Served, StoreError> {
        // However old by this clock, which may have jumped: what is too old the sweep takes out.
        let statement = Statement::new(FIND).bind(message.0.as_slice());
        let Some(row) = self.database.fetch_optional(statement).await? else {
            return Ok(Served::default());
        };
        row.get("recipients").map(Served).map_err(|error| self.database.error(&error))
    }

    /// Adds recipients who have this message now. In one statement: all of them or none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add(
        &self,
        message: &MessageKey,
        recipients: impl IntoIterator<Item = &Address>,
    ) -> Result<(), StoreError> {
        let recipients: String =
            recipients.into_iter().map(|address| message.recipient(address)).collect();
        if recipients.is_empty() {
            return Ok(());
        }
        let statement =
            Statement::new(ADD).bind(message.0.as_slice()).bind(&recipients).bind(unix_now());
        self.database.execute(statement).await?;
        *self.hint.lock() = None;
        Ok(())
    }

    /// Deletes what is older than [`KEPT_SECS`]; says how many messages that were.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let oldest = unix_now().saturating_sub(KEPT_SECS);
        self.database.execute(Statement::new(SWEEP).bind(oldest)).await
    }
}

impl Hint {
    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Seen)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(digest: &digest::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes
}

/// How long it is believed that the table holds no more than was seen.
pub const HINT_VALID: Duration = Duration::from_millis(500);
/// Longer than a mail server keeps a message that it cannot deliver: 5 days at most of them (RFC 5321 §4.5.4.1).
pub const KEPT_SECS: i64 = 6 * 24 * 3600;
/// Tells these hashes from others over the same input.
const PURPOSE: &[u8] = b"sealgate done-record 1\0";
/// 128 bits, within one message.
const RECIPIENT_CHARS: usize = 32;
/// Messages with records that are kept in memory.
const REMEMBERED_MAX: i64 = 256;
const ALL: &str = "SELECT message FROM done_records LIMIT $1";
const FIND: &str = "SELECT recipients FROM done_records WHERE message = $1";
const ADD: &str = "INSERT INTO done_records (message, recipients, written_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (message) DO UPDATE SET \
                   recipients = done_records.recipients || excluded.recipients, \
                   written_at = excluded.written_at";
const SWEEP: &str = "DELETE FROM done_records WHERE written_at < $1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DatabaseUrl;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    async fn database(directory: &tempfile::TempDir) -> Database {
        let url = DatabaseUrl::Sqlite(directory.path().join("sealgate.db"));
        Database::create(&url).await.unwrap()
    }

    #[test]
    fn the_key_depends_on_sender_and_every_octet() {
        let alice = address("alice@nec.example");
        let key = MessageKey::new(Some(&alice), b"x");
        assert_eq!(key, MessageKey::new(Some(&address("ALICE@nec.example")), b"x"));
        assert_ne!(key, MessageKey::new(Some(&alice), b"y"));
        assert_ne!(key, MessageKey::new(None, b"x"));
        assert_ne!(key, MessageKey::new(Some(&address("bob@nec.example")), b"x"));
    }

    #[tokio::test]
    async fn those_served_are_found_and_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let (database, hint) = (database(&directory).await, Hint::default());
        let records = DoneRecords::new(&database, &hint);
        assert!(!records.any().await.unwrap());
        let [a, b, c] = ["a@x.example", "b@x.example", "c@x.example"].map(address);
        let (key, other) = (MessageKey::new(Some(&a), b"1"), MessageKey::new(Some(&a), b"2"));
        records.add(&key, []).await.unwrap();
        assert!(!records.any().await.unwrap(), "nobody served, nothing written");
        records.add(&key, [&a]).await.unwrap();
        records.add(&key, [&b]).await.unwrap();
        assert!(records.any().await.unwrap());
        let served = records.find(&key).await.unwrap();
        assert!(served.contains(&key, &a) && served.contains(&key, &b));
        assert!(!served.contains(&key, &c));
        assert!(
            !served.contains(&key, &address("A@x.example")),
            "another mailbox, for all we know"
        );
        assert!(records.find(&other).await.unwrap().is_empty());
        assert!(records.may_know(&key).await.unwrap() && !records.may_know(&other).await.unwrap());
        // More than are remembered: every message is asked for.
        for number in 0..=REMEMBERED_MAX {
            let key = MessageKey::new(None, &number.to_be_bytes());
            records.add(&key, [&a]).await.unwrap();
        }
        assert!(records.may_know(&other).await.unwrap());
        assert!(records.find(&other).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn no_address_stands_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (database, hint) = (database(&directory).await, Hint::default());
        let records = DoneRecords::new(&database, &hint);
        let (from, to) = (address("canary-from@x.example"), address("canary-to@x.example"));
        let key = MessageKey::new(Some(&from), b"canary-content");
        records.add(&key, [&to]).await.unwrap();
        database.close().await;
        let file = std::fs::read(directory.path().join("sealgate.db")).unwrap();
        assert!(file.windows(12).any(|window| window == b"done_records"));
        assert!(!file.windows(6).any(|window| window == b"canary"));
    }

    #[tokio::test]
    async fn old_records_do_not_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (database, hint) = (database(&directory).await, Hint::default());
        let records = DoneRecords::new(&database, &hint);
        let a = address("a@x.example");
        for (content, age) in [(b"old", KEPT_SECS + 60), (b"new", 5 * 24 * 3600)] {
            let key = MessageKey::new(None, content);
            records.add(&key, [&a]).await.unwrap();
            let then = unix_now() - age;
            let sql = "UPDATE done_records SET written_at = $1 WHERE message = $2";
            let statement = Statement::new(sql).bind(then).bind(key.0.as_slice());
            assert_eq!(database.execute(statement).await.unwrap(), 1);
        }
        let found = |content: &'static [u8]| {
            let key = MessageKey::new(None, content);
            async move { records.find(&key).await.unwrap().is_empty() }
        };
        assert!(!found(b"old").await, "the clock may have jumped");
        assert_eq!(records.sweep().await.unwrap(), 1);
        assert!(found(b"old").await && !found(b"new").await);
    }

    #[tokio::test]
    async fn another_copy_sees_a_record_when_the_client_may_hear_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = database(&directory).await;
        let url = DatabaseUrl::Sqlite(directory.path().join("sealgate.db"));
        let second = Database::open(&url).await.unwrap();
        let (here, there) = (Hint::default(), Hint::default());
        let elsewhere = DoneRecords::new(&second, &there);
        assert!(!elsewhere.any().await.unwrap());
        let key = MessageKey::new(None, b"x");
        DoneRecords::new(&first, &here).add(&key, [&address("a@x.example")]).await.unwrap();
        tokio::time::sleep(HINT_VALID).await;
        assert!(elsewhere.any().await.unwrap());
    }
}
