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

impl Answer {
    fn is_empty(&self) -> bool {
        match self {
            Self::Own(keys) => keys.is_empty(),
            Self::Public(keys) => keys.is_empty(),
        }
    }
}

/// Answers by generation and query.
pub(crate) struct Cache {
    answers: moka::sync::Cache<(u64, KeyQuery), Answer>,
}

impl Cache {
    pub(crate) fn new(entries_max: u64, ttl: Duration, negative_ttl: Duration) -> Self {
        let expiry = ByContent { ttl, negative_ttl };
        let answers =
            moka::sync::Cache::builder().max_capacity(entries_max).expire_after(expiry).build();
        Self { answers }
    }

    pub(crate) fn find(&self, generation: u64, query: &KeyQuery) -> Option<Answer> {
        self.answers.get(&(generation, query.clone()))
    }

    pub(crate) fn keep(&self, generation: u64, query: &KeyQuery, answer: Answer) {
        self.answers.insert((generation, query.clone()), answer);
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

struct ByContent {
    ttl: Duration,
    negative_ttl: Duration,
}

impl Expiry<(u64, KeyQuery), Answer> for ByContent {
    fn expire_after_create(
        &self,
        _query: &(u64, KeyQuery),
        answer: &Answer,
        _now: Instant,
    ) -> Option<Duration> {
        Some(if answer.is_empty() { self.negative_ttl } else { self.ttl })
    }
}
