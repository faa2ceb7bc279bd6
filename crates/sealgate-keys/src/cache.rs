//! A bounded cache of answers: parsed keys, not bytes.
//!
//! An entry belongs to a generation. A change raises the generation, so what was looked up before it, even if it is
//! put in afterwards, is never found again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use sealgate_core::keys::{OwnKey, PublicKey};
use sealgate_core::step::KeyQuery;

/// An answer of the stores.
#[derive(Clone)]
pub(crate) enum Answer {
    /// To `Signing` and `Decryption`.
    Own(Arc<[OwnKey]>),
    /// To `Public`.
    Public(Arc<[PublicKey]>),
}

/// An answer that was kept.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) answer: Answer,
    /// Whether it had what mail could use when it was kept. What has not is kept as briefly as "no key": whoever mends
    /// it, in a directory say, tells nobody.
    pub(crate) usable: bool,
}

/// Answers by generation and query.
pub(crate) struct Cache {
    answers: moka::sync::Cache<(u64, KeyQuery), Kept>,
}

impl Cache {
    pub(crate) fn new(entries_max: u64, ttl: Duration, negative_ttl: Duration) -> Self {
        let expiry = ByUse { ttl, negative_ttl };
        let answers =
            moka::sync::Cache::builder().max_capacity(entries_max).expire_after(expiry).build();
        Self { answers }
    }

    pub(crate) fn find(&self, generation: u64, query: &KeyQuery) -> Option<Kept> {
        self.answers.get(&(generation, query.clone()))
    }

    pub(crate) fn keep(&self, generation: u64, query: &KeyQuery, kept: Kept) {
        self.answers.insert((generation, query.clone()), kept);
    }

    /// Frees what no generation will ask for again.
    pub(crate) fn clear(&self) {
        self.answers.invalidate_all();
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} entries)", self.answers.entry_count())
    }
}

struct ByUse {
    ttl: Duration,
    negative_ttl: Duration,
}

impl Expiry<(u64, KeyQuery), Kept> for ByUse {
    fn expire_after_create(
        &self,
        _query: &(u64, KeyQuery),
        kept: &Kept,
        _now: Instant,
    ) -> Option<Duration> {
        Some(if kept.usable { self.ttl } else { self.negative_ttl })
    }

    /// What takes another's place has a time of its own.
    fn expire_after_update(
        &self,
        query: &(u64, KeyQuery),
        kept: &Kept,
        now: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(query, kept, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_millis(900);
    const NEGATIVE_TTL: Duration = Duration::from_millis(300);

    fn query(text: &str) -> KeyQuery {
        KeyQuery::Public(text.parse().unwrap())
    }

    fn kept(usable: bool) -> Kept {
        Kept { answer: Answer::Public(Arc::new([])), usable }
    }

    #[test]
    fn what_is_of_use_is_kept_longer_than_what_is_not() {
        let cache = Cache::new(10, TTL, NEGATIVE_TTL);
        let (of_use, of_none) = (query("bob@abc.example"), query("eve@abc.example"));
        cache.keep(0, &of_use, kept(true));
        cache.keep(0, &of_none, kept(false));
        assert!(cache.find(0, &of_use).is_some() && cache.find(0, &of_none).is_some());
        std::thread::sleep(NEGATIVE_TTL + Duration::from_millis(50));
        assert!(cache.find(0, &of_none).is_none());
        assert!(cache.find(0, &of_use).is_some());
        std::thread::sleep(TTL);
        assert!(cache.find(0, &of_use).is_none());
    }

    #[test]
    fn what_takes_anothers_place_has_a_time_of_its_own() {
        let cache = Cache::new(10, TTL, NEGATIVE_TTL);
        let (better, worse) = (query("bob@abc.example"), query("eve@abc.example"));
        cache.keep(0, &better, kept(false));
        cache.keep(0, &better, kept(true));
        cache.keep(0, &worse, kept(true));
        cache.keep(0, &worse, kept(false));
        std::thread::sleep(NEGATIVE_TTL + Duration::from_millis(50));
        assert!(cache.find(0, &better).is_some());
        assert!(cache.find(0, &worse).is_none());
    }
}
