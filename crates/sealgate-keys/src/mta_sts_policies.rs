//! The MTA-STS policies that were learned (RFC 8461), which a restart must not forget: who can suppress a domain's TXT record
//! would have mail in plain after each.
//!
//! In and out: policies as text, of every copy of sealgate on the same database. No policy is judged here. There are
//! [`ROWS_MAX`] at most; what has expired is neither given out nor kept.

use crate::database::{Database, Row, Statement};
use crate::error::StoreError;
use crate::learning::unix_now;

/// One domain's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Lower case.
    pub domain: String,
    /// The `id` of the domain's record when it was fetched (§3.1).
    pub record_id: String,
    /// Its text (§3.2).
    pub policy: Vec<u8>,
    /// When it was fetched, in seconds of Unix time.
    pub fetched_at: i64,
    /// Until when it holds.
    pub expires_at: i64,
}

/// The policies in a database.
#[derive(Clone, Copy, Debug)]
pub struct StoredPolicies<'s> {
    database: &'s Database,
}

impl<'s> StoredPolicies<'s> {
    pub(crate) fn new(database: &'s Database) -> Self {
        Self { database }
    }

    /// Those written at this time or later that hold now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn written_since(&self, time: i64) -> Result<Vec<StoredPolicy>, StoreError> {
        let statement = Statement::new(SINCE).bind(time).bind(unix_now()).bind(ROWS_MAX);
        let rows = self.database.fetch_all(statement).await?;
        let policies: Result<Vec<_>, _> = rows.iter().map(read).collect();
        policies.map_err(|error| self.database.error(&error))
    }

    /// Puts one in the place of the domain's last, where that was not fetched later; says whether there was room.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn put(&self, one: &StoredPolicy) -> Result<bool, StoreError> {
        let statement = Statement::new(PUT)
            .bind(&one.domain)
            .bind(&one.record_id)
            .bind(&one.policy)
            .bind(one.fetched_at)
            .bind(one.expires_at)
            .bind(unix_now())
            .bind(ROWS_MAX)
            .bind(CLOCKS_APART_SECS);
        if self.database.execute(statement).await? > 0 {
            return Ok(true);
        }
        let newer = Statement::new("SELECT domain FROM mta_sts_policies WHERE domain = $1");
        Ok(self.database.fetch_optional(newer.bind(&one.domain)).await?.is_some())
    }

    /// Deletes those that have expired; says how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        self.database.execute(Statement::new(SWEEP).bind(unix_now())).await
    }
}

fn read(row: &Row) -> Result<StoredPolicy, sqlx::Error> {
    Ok(StoredPolicy {
        domain: row.get("domain")?,
        record_id: row.get("record_id")?,
        policy: row.get("policy")?,
        fetched_at: row.get("fetched_at")?,
        expires_at: row.get("expires_at")?,
    })
}

/// Domains whose policies are kept.
pub const ROWS_MAX: i64 = 10_000;
const SINCE: &str = "SELECT domain, record_id, policy, fetched_at, expires_at FROM mta_sts_policies \
                     WHERE written_at >= $1 AND expires_at > $2 LIMIT $3";
/// By how much the clocks of two copies of sealgate may differ.
pub const CLOCKS_APART_SECS: i64 = 600;
/// A full table takes no new domain: else whoever has many domains could have others' policies forgotten. What a copy writes late
/// takes no newer one's place, but one of a wrong clock, which nothing would be newer than.
const PUT: &str = "INSERT INTO mta_sts_policies \
                   (domain, record_id, policy, fetched_at, expires_at, written_at) \
                   SELECT $1, $2, $3, $4, $5, $6 \
                   WHERE (SELECT COUNT(*) FROM mta_sts_policies) < $7 \
                   OR EXISTS (SELECT 1 FROM mta_sts_policies WHERE domain = $1) \
                   ON CONFLICT (domain) DO UPDATE SET record_id = excluded.record_id, \
                   policy = excluded.policy, fetched_at = excluded.fetched_at, \
                   expires_at = excluded.expires_at, written_at = excluded.written_at \
                   WHERE mta_sts_policies.fetched_at <= excluded.fetched_at \
                   OR mta_sts_policies.fetched_at > excluded.written_at + $8";
const SWEEP: &str = "DELETE FROM mta_sts_policies WHERE expires_at <= $1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DatabaseUrl;

    fn policy(domain: &str, expires_in_secs: i64) -> StoredPolicy {
        let now = unix_now();
        StoredPolicy {
            domain: domain.to_owned(),
            record_id: "1".to_owned(),
            // Whatever a domain wrote.
            policy: b"version: STSv1\nmx: \0\xff\n".to_vec(),
            fetched_at: now,
            expires_at: now + expires_in_secs,
        }
    }

    async fn database(directory: &tempfile::TempDir) -> Database {
        let url = DatabaseUrl::Sqlite(directory.path().join("sealgate.db"));
        Database::create(&url).await.unwrap()
    }

    #[tokio::test]
    async fn the_last_one_of_a_domain_is_kept_until_it_expires() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory).await;
        let policies = StoredPolicies::new(&database);
        let (old, over) = (policy("abc.example", 3600), policy("over.example", -1));
        assert!(policies.put(&old).await.unwrap() && policies.put(&over).await.unwrap());
        assert_eq!(policies.written_since(0).await.unwrap(), std::slice::from_ref(&old));
        let new = StoredPolicy { record_id: "2".to_owned(), ..old };
        assert!(policies.put(&new).await.unwrap());
        assert_eq!(policies.written_since(0).await.unwrap(), [new]);
        assert_eq!(policies.written_since(unix_now() + 60).await.unwrap(), []);
        assert_eq!((policies.sweep().await.unwrap(), policies.sweep().await.unwrap()), (1, 0));
    }

    #[tokio::test]
    async fn one_that_was_fetched_earlier_takes_no_newer_ones_place() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory).await;
        let policies = StoredPolicies::new(&database);
        let fetched = |record_id: &str, ago_secs: i64| StoredPolicy {
            record_id: record_id.to_owned(),
            fetched_at: unix_now() - ago_secs,
            ..policy("abc.example", 3600)
        };
        let put = async |one: &StoredPolicy| {
            assert!(policies.put(one).await.unwrap(), "there is room");
            policies.written_since(0).await.unwrap().remove(0).record_id
        };
        assert_eq!(put(&fetched("1", 100)).await, "1");
        assert_eq!(put(&fetched("0", 200)).await, "1");
        assert_eq!(put(&fetched("2", 50)).await, "2");
        // A copy's clock may go before ours; one that is wrong does not keep its policy here.
        assert_eq!(put(&fetched("3", -500)).await, "3");
        assert_eq!(put(&fetched("2", 50)).await, "3");
        assert_eq!(put(&fetched("9", -10_000)).await, "9");
        assert_eq!(put(&fetched("2", 50)).await, "2");
    }

    #[tokio::test]
    async fn a_database_of_the_version_before_has_room_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let before = database(&directory).await;
        for statement in
            ["DROP TABLE mta_sts_policies", "DELETE FROM _sqlx_migrations WHERE version = 6"]
        {
            before.execute(Statement::new(statement)).await.unwrap();
        }
        before.close().await;
        let url = DatabaseUrl::Sqlite(directory.path().join("sealgate.db"));
        let after = Database::open(&url).await.unwrap();
        assert!(StoredPolicies::new(&after).put(&policy("abc.example", 60)).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_table_takes_no_other_domain_and_forgets_none() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory).await;
        let policies = StoredPolicies::new(&database);
        let first = policy("abc.example", 3600);
        assert!(policies.put(&first).await.unwrap());
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) \
                    INSERT INTO mta_sts_policies SELECT i || '.example', '1', x'00', 0, $2, 0 FROM n";
        let fill = Statement::new(fill).bind(ROWS_MAX - 1).bind(unix_now() + 60);
        database.execute(fill).await.unwrap();
        assert!(!policies.put(&policy("other.example", 3600)).await.unwrap());
        let again = StoredPolicy { record_id: "2".to_owned(), ..first };
        assert!(policies.put(&again).await.unwrap());
        assert_eq!(policies.written_since(1).await.unwrap(), [again]);
    }
}
