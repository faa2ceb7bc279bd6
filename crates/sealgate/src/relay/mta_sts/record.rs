//! The learned policies in the key database: written soon after they are learned, read at the start and now and then, so that
//! a restart forgets none and every copy of sealgate knows what one of them has learned.
//!
//! No mail waits for any of it. While the database is away memory goes on, and what was learned meanwhile is written later.

use std::time::Duration;

use sealgate_keys::StoreError;
use sealgate_keys::mta_sts_policies::StoredPolicies;
use sealgate_keys::stores::Stores;
use tokio::time::{Instant, timeout};

use super::{CLOCKS_APART_SECS, Policies, now_secs};

/// When what is exchanged with the database.
#[derive(Debug)]
pub(crate) struct Record {
    /// Everything written since then is still to be read.
    unread_since: i64,
    read_next: Instant,
    write_next: Instant,
}

impl Record {
    /// Nothing is read yet.
    pub(crate) fn new() -> Self {
        Self { unread_since: 0, read_next: Instant::now(), write_next: Instant::now() }
    }

    /// Reads and writes what it is time for; to be called every few seconds.
    pub(crate) async fn exchange(&mut self, policies: &Policies, stores: &Stores) {
        let now = Instant::now();
        if now >= self.read_next {
            self.read_next = now + READ_EVERY;
            if !alarm(bounded(self.read(policies, &stores.mta_sts_policies())).await) {
                // A database that is away is not asked for anything else.
                self.write_next = self.read_next;
            }
        }
        if now >= self.write_next && !write(policies, stores).await {
            self.write_next = now + READ_EVERY;
        }
    }

    async fn read(
        &mut self,
        policies: &Policies,
        stored: &StoredPolicies<'_>,
    ) -> Result<(), StoreError> {
        let asked_at = now_secs();
        for one in stored.written_since(self.unread_since).await? {
            policies.learn(one);
        }
        // Times of writing are by the clocks of all copies.
        self.unread_since = asked_at.saturating_sub(CLOCKS_APART_SECS);
        Ok(())
    }
}

/// Writes what the database does not have; whether it has everything now.
pub(crate) async fn write(policies: &Policies, stores: &Stores) -> bool {
    let unstored = policies.unstored();
    if unstored.is_empty() {
        return true;
    }
    let stored = stores.mta_sts_policies();
    let writing = async {
        for one in unstored {
            if one.policy.len() > POLICY_BYTES_MAX {
                tracing::warn!(domain = one.domain, "MTA-STS policy too long to be kept");
            } else if !stored.put(&one).await? {
                tracing::warn!(domain = one.domain, "too many MTA-STS policies to keep this one");
            }
            policies.note_stored(&one);
        }
        Ok(())
    };
    alarm(bounded(writing).await)
}

/// Deletes what has expired, now and then.
pub(crate) async fn sweep(stores: &Stores) {
    alarm(bounded(async { stores.mta_sts_policies().sweep().await.map(drop) }).await);
}

async fn bounded(work: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
    let late = |_| {
        let (database, why) = ("the key database".to_owned(), "no answer in time".to_owned());
        StoreError::Database { database, why }
    };
    timeout(PATIENCE, work).await.map_err(late)?
}

/// Whether it went well; says so where it did not.
fn alarm(outcome: Result<(), StoreError>) -> bool {
    if let Err(error) = &outcome {
        metrics::counter!("sealgate_mta_sts_record_failures_total").increment(1);
        tracing::warn!(%error, "MTA-STS policies are not in the key database: a restart may forget some");
    }
    outcome.is_ok()
}

/// How often what other copies learned is read, and how long a database that was away is not asked.
const READ_EVERY: Duration = Duration::from_secs(60);
/// How long the database may take; a start and a drain may wait for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of one domain's policy: a long list of exchangers, and far from what a policy host may say.
const POLICY_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use sealgate_core::address::Domain;
    use sealgate_keys::administration::establish;
    use sealgate_keys::database::DatabaseUrl;
    use sealgate_keys::mta_sts_policies::StoredPolicy;
    use sealgate_keys::secret_source::SecretSource;
    use sealgate_keys::stores::StoresConfig;
    use sqlx::Connection as _;

    use super::super::{Clients, Known, Mode, Names, Policy};
    use super::*;
    use crate::config::{Dns, Resolvers};

    const DAY_SECS: i64 = 86_400;

    fn no_policies() -> Policies {
        let servers = vec!["127.0.0.1:9".parse().unwrap()];
        let dns = Dns { resolvers: Resolvers::Servers(servers), dnssec: false, trust_anchor: None };
        let names = Arc::new(Names::new(&dns).unwrap());
        Policies::new(names, Arc::new(Clients::new(None).unwrap()))
    }

    async fn stores(directory: &Path) -> Stores {
        let (key, database) = (directory.join("master.key"), directory.join("sealgate.db"));
        let database = DatabaseUrl::Sqlite(database);
        let domain = Domain::parse("nec.example").unwrap();
        establish(&key, &database, &domain).await.unwrap();
        let master_key = SecretSource::File(key);
        let config = StoresConfig { database, master_key, ..StoresConfig::default() };
        Stores::open(&config).await.unwrap()
    }

    fn text(mode: &str) -> String {
        format!("version: STSv1\nmode: {mode}\nmx: mx.abc.example\nmax_age: {DAY_SECS}\n")
    }

    /// As if fetched so many seconds ago.
    fn fetched(policies: &Policies, domain: &str, text: &str, age_secs: i64) {
        let policy = Policy::parse(text).unwrap();
        let now = std::time::Instant::now();
        let known = Known {
            id: "1".to_owned(),
            until: now + policy.max_age,
            policy: Some(Arc::new(policy)),
            fetched_at: now_secs() - age_secs,
            is_stored: false,
            ..Known::nothing(now, now)
        };
        policies.keep(domain, known);
    }

    fn stored(mode: &str, fetched_at: i64) -> StoredPolicy {
        StoredPolicy {
            domain: "abc.example".to_owned(),
            record_id: "2".to_owned(),
            policy: text(mode).into_bytes(),
            fetched_at,
            expires_at: fetched_at + DAY_SECS,
        }
    }

    fn mode(policies: &Policies, domain: &str) -> Option<Mode> {
        let all = policies.lock();
        Some(all.get(domain)?.policy.as_ref()?.mode)
    }

    #[tokio::test]
    async fn what_one_learns_another_knows() {
        let directory = tempfile::tempdir().unwrap();
        let stores = stores(directory.path()).await;
        let (one, other) = (no_policies(), no_policies());
        let (mut of_one, mut of_other) = (Record::new(), Record::new());
        fetched(&one, "abc.example", &text("enforce"), 0);
        // What no database is to be filled with stays in memory.
        let long = "mx: a.example\n".repeat(250).replace('a', &"a".repeat(60));
        fetched(&one, "long.example", &format!("{}{long}", text("enforce")), 0);
        of_one.exchange(&one, &stores).await;
        of_other.exchange(&other, &stores).await;
        assert_eq!(mode(&other, "abc.example"), Some(Mode::Enforce));
        assert_eq!(mode(&other, "long.example"), None);
        assert!(one.unstored().is_empty() && other.unstored().is_empty());
        // It is not read again at once, and then only what is new.
        fetched(&other, "abc.example", &text("testing"), -1);
        of_other.exchange(&other, &stores).await;
        of_one.exchange(&one, &stores).await;
        assert_eq!(mode(&one, "abc.example"), Some(Mode::Enforce));
        of_one.read_next = Instant::now();
        of_one.exchange(&one, &stores).await;
        assert_eq!(mode(&one, "abc.example"), Some(Mode::Testing));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let stores = stores(directory.path()).await;
        let url = format!("sqlite:{}", directory.path().join("sealgate.db").display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let rename = "ALTER TABLE mta_sts_policies RENAME TO gone";
        sqlx::query(rename).execute(&mut connection).await.unwrap();
        let policies = no_policies();
        fetched(&policies, "abc.example", &text("enforce"), 0);
        let mut record = Record::new();
        record.exchange(&policies, &stores).await;
        assert_eq!(policies.unstored().len(), 1);
        assert_eq!(mode(&policies, "abc.example"), Some(Mode::Enforce));
        let rename = "ALTER TABLE gone RENAME TO mta_sts_policies";
        sqlx::query(rename).execute(&mut connection).await.unwrap();
        record.exchange(&policies, &stores).await;
        assert_eq!(policies.unstored().len(), 1, "it was away a moment ago");
        record.write_next = Instant::now();
        record.exchange(&policies, &stores).await;
        assert!(policies.unstored().is_empty());
        assert_eq!(stores.mta_sts_policies().written_since(0).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_newer_policy_counts_and_none_longer_than_it_says() {
        let policies = no_policies();
        let now = now_secs();
        for (fetched_at, expected) in [
            (now - 200, Mode::Enforce),
            (now - 50, Mode::None),
            // By a clock that is wrong.
            (now + 10_000, Mode::Enforce),
        ] {
            fetched(&policies, "abc.example", &text("enforce"), 100);
            policies.learn(stored("none", fetched_at));
            assert_eq!(mode(&policies, "abc.example"), Some(expected), "{}", fetched_at - now);
        }
        let nothing_known = no_policies();
        nothing_known.learn(stored("enforce", now + 10_000));
        let left = nothing_known.lock().get("abc.example").unwrap().until;
        let most = std::time::Instant::now() + Duration::from_secs(DAY_SECS.unsigned_abs());
        assert!(left <= most);
        assert_eq!(mode(&nothing_known, "abc.example"), Some(Mode::Enforce));
        let unreadable = StoredPolicy { policy: b"\xff".to_vec(), ..stored("none", now) };
        nothing_known.learn(unreadable);
        assert_eq!(mode(&nothing_known, "abc.example"), Some(Mode::Enforce));
    }
}
