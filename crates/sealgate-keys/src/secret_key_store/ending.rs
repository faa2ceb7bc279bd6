//! Which certificates of our own keys end next (REQUIREMENTS G15). They are counted where they are: of 100 000 the first few come
//! out. A key counts that no newer one of its owner has taken the place of, in all that it is for; older ones are kept for reading
//! old mail, and so are those that were revoked.

use std::cmp::Reverse;
use std::collections::HashMap;

use sealgate_core::keys::Timestamp;

use super::{RemoteStore, SecretKeyEntry};
use crate::database::{Database, Statement};
use crate::error::StoreError;

/// What is to be found out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// What ends before this has ended.
    pub(crate) now: Timestamp,
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
    /// How many of them end soon or have ended.
    pub ending: u64,
    /// How many of them have ended.
    pub ended: u64,
    /// Those that end first, whether soon or not, and behind them those that have ended.
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
    let select = Statement::new(SELECT).bind(question.soon.0).bind(question.now.0).bind(named_max);
    let rows = database.fetch_all(select).await?;
    let read = || {
        let mut keys = EndingKeys { count: 0, ending: 0, ended: 0, first: Vec::new() };
        for row in &rows {
            // The same in every row.
            keys.count = u64::try_from(row.get::<i64>("total")?).unwrap_or_default();
            keys.ending = u64::try_from(row.get::<i64>("ending")?).unwrap_or_default();
            keys.ended = u64::try_from(row.get::<i64>("ended")?).unwrap_or_default();
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
    let mut owners: HashMap<String, Vec<(Timestamp, EndingKey)>> = HashMap::new();
    store.visit(&mut |key: SecretKeyEntry| {
        if key.is_active {
            let not_before = key.certificate.not_before();
            let (owner, purpose) = (key.owner, key.purpose);
            let not_after = key.certificate.not_after();
            let keys = owners.entry(owner.clone()).or_default();
            keys.push((not_before, EndingKey { not_after, owner, purpose }));
        }
    })?;
    let mut first: Vec<_> = owners.into_values().flat_map(in_use).collect();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let before = |end: Timestamp| first.iter().filter(|key| key.not_after < end).count();
    let (count, ending, ended) = (first.len(), before(question.soon), before(question.now));
    first.sort_by_cached_key(|key| {
        (key.not_after < question.now, key.not_after, key.owner.clone(), key.purpose.clone())
    });
    first.truncate(question.named_max);
    Ok(EndingKeys { count: number(count), ending: number(ending), ended: number(ended), first })
}

/// Of one owner's keys those that no newer one has taken the place of.
pub(crate) fn in_use(mut keys: Vec<(Timestamp, EndingKey)>) -> Vec<EndingKey> {
    keys.sort_by_key(|(not_before, _)| Reverse(*not_before));
    let (mut signs, mut encrypts) = (false, false);
    let keys = keys.into_iter().map(|(_, key)| key);
    keys.filter(|key| {
        let (is_for_signing, is_for_encryption) = (key.purpose != "encrypt", key.purpose != "sign");
        let counts = is_for_signing && !signs || is_for_encryption && !encrypts;
        signs |= is_for_signing;
        encrypts |= is_for_encryption;
        counts
    })
    .collect()
}

const SELECT: &str = "\
    WITH kept AS (\
        SELECT owner, purpose, not_after, \
            SUM(CASE WHEN purpose <> 'encrypt' THEN 1 ELSE 0 END) OVER newer AS signing, \
            SUM(CASE WHEN purpose <> 'sign' THEN 1 ELSE 0 END) OVER newer AS encrypting \
        FROM secret_keys WHERE state = 'active' \
        WINDOW newer AS (PARTITION BY owner ORDER BY not_before DESC, id \
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) \
    SELECT owner, purpose, not_after, COUNT(*) OVER () AS total, \
        SUM(CASE WHEN not_after < $1 THEN 1 ELSE 0 END) OVER () AS ending, \
        SUM(CASE WHEN not_after < $2 THEN 1 ELSE 0 END) OVER () AS ended \
    FROM kept WHERE (purpose <> 'encrypt' AND COALESCE(signing, 0) = 0) \
        OR (purpose <> 'sign' AND COALESCE(encrypting, 0) = 0) \
    ORDER BY CASE WHEN not_after < $2 THEN 1 ELSE 0 END, not_after, owner, purpose LIMIT $3";
