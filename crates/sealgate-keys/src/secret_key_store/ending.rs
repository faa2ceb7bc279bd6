//! Which certificates of our own keys end next (REQUIREMENTS G15). They are counted where they are: of 100 000 the first few come
//! out. The newest of an owner and purpose counts, unless it was revoked; older ones are kept for reading old mail.

use std::collections::HashMap;

use sealgate_core::keys::Timestamp;

use super::{RemoteStore, SecretKeyEntry};
use crate::database::{Database, Statement};
use crate::error::StoreError;

/// What is to be found out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// What ends before this ends soon.
    pub(crate) soon: Timestamp,
    /// No more are named.
    pub(crate) named_max: usize,
}

/// Certificates of our own keys, by their ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndingKeys {
    /// Those in use.
    pub count: u64,
    /// How many of them end soon.
    pub ending: u64,
    /// Those that end first, whether soon or not.
    pub first: Vec<EndingKey>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndingKey {
    /// Its end.
    pub not_after: Timestamp,
    /// Address in lower case, or `@domain`.
    pub owner: String,
    /// `sign`, `encrypt` or `both`.
    pub purpose: String,
}

/// In the database, which has their ends beside the certificates.
pub(crate) async fn embedded(
    database: &Database,
    question: Question,
) -> Result<EndingKeys, StoreError> {
    let named_max = i64::try_from(question.named_max).unwrap_or(i64::MAX);
    let select = Statement::new(SELECT).bind(question.soon.0).bind(named_max);
    let rows = database.fetch_all(select).await?;
    let read = || {
        let mut keys = EndingKeys { count: 0, ending: 0, first: Vec::new() };
        for row in &rows {
            // The same in every row.
            keys.count = u64::try_from(row.get::<i64>("total")?).unwrap_or_default();
            keys.ending = u64::try_from(row.get::<i64>("ending")?).unwrap_or_default();
            keys.first.push(EndingKey {
                not_after: Timestamp(row.get("not_after")?),
                owner: row.get("owner")?,
                purpose: row.get("purpose")?,
            });
        }
        Ok(keys)
    };
    read().map_err(|error| database.error(&error))
}

/// At a store outside this process, key by key.
pub(crate) fn remote(
    store: &dyn RemoteStore,
    question: Question,
) -> Result<EndingKeys, StoreError> {
    let mut newest: HashMap<(String, String), (Timestamp, Timestamp)> = HashMap::new();
    store.visit(&mut |key: SecretKeyEntry| {
        if !key.is_active {
            return;
        }
        let dates = (key.certificate.not_before(), key.certificate.not_after());
        let kept = newest.entry((key.owner, key.purpose)).or_insert(dates);
        if kept.0 < dates.0 {
            *kept = dates;
        }
    })?;
    let count = newest.len();
    let mut first: Vec<_> = newest
        .into_iter()
        .map(|((owner, purpose), (_, not_after))| EndingKey { not_after, owner, purpose })
        .collect();
    let ending = first.iter().filter(|key| key.not_after < question.soon).count();
    first.sort_unstable_by(|a, b| {
        (a.not_after, &a.owner, &a.purpose).cmp(&(b.not_after, &b.owner, &b.purpose))
    });
    first.truncate(question.named_max);
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Ok(EndingKeys { count: number(count), ending: number(ending), first })
}

const SELECT: &str = "\
    WITH newest AS (\
        SELECT owner, purpose, not_after, ROW_NUMBER() OVER (\
            PARTITION BY owner, purpose ORDER BY not_before DESC, id) AS place \
        FROM secret_keys WHERE state = 'active') \
    SELECT owner, purpose, not_after, COUNT(*) OVER () AS total, \
        SUM(CASE WHEN not_after < $1 THEN 1 ELSE 0 END) OVER () AS ending \
    FROM newest WHERE place = 1 ORDER BY not_after, owner, purpose LIMIT $2";
