//! How often: token buckets, one for each key and client, and one for each connection.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Fills up steadily, holds so many, and each use takes some out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    at: Instant,
    /// Whether the last use was refused.
    refused: bool,
}

/// Whether there was a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There was.
    Yes,
    /// There was none, for the first time since there last was one.
    NoMore,
    /// There still is none.
    StillNone,
}

impl Bucket {
    /// A full one.
    pub(crate) fn full(tokens: f64, now: Instant) -> Self {
        Self { tokens, at: now, refused: false }
    }

    fn fill(&mut self, capacity: f64, per_second: f64, now: Instant) {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        self.tokens = (self.tokens + more).min(capacity);
        self.at = now;
    }

    /// Takes tokens out, on credit too, and says how long to wait until the debt is paid.
    pub(crate) fn borrow(&mut self, tokens: f64, per_second: f64, now: Instant) -> Duration {
        self.fill(per_second, per_second, now);
        self.tokens -= tokens;
        Duration::try_from_secs_f64((-self.tokens / per_second).max(0.0)).unwrap_or_default()
    }
}

/// Uses of keys by clients.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    buckets: Mutex<HashMap<(String, String), Bucket>>,
}

impl Rates {
    /// Takes one use of a key by a client.
    pub(crate) fn take(&self, client: &str, key: &str, per_minute: u32, now: Instant) -> Taken {
        let capacity = f64::from(per_minute);
        let per_second = capacity / 60.0;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (client.to_owned(), key.to_owned());
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&place) {
            // A full bucket is as good as none.
            buckets.retain(|_, bucket| {
                bucket.fill(capacity, per_second, now);
                bucket.tokens < capacity
            });
            if buckets.len() >= BUCKETS_MAX {
                return Taken::NoMore;
            }
        }
        let bucket = buckets.entry(place).or_insert_with(|| Bucket::full(capacity, now));
        bucket.fill(capacity, per_second, now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            bucket.refused = false;
            return Taken::Yes;
        }
        if std::mem::replace(&mut bucket.refused, true) { Taken::StillNone } else { Taken::NoMore }
    }
}

/// Keys in use by clients at the same time.
const BUCKETS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_minute_and_then_again_with_time() {
        let rates = Rates::default();
        let start = Instant::now();
        let take = |key: &str, seconds: u64| {
            rates.take("gate1", key, 6, start + Duration::from_secs(seconds))
        };
        for _ in 0..6 {
            assert_eq!(take("a", 0), Taken::Yes);
        }
        assert_eq!([take("a", 0), take("a", 1)], [Taken::NoMore, Taken::StillNone]);
        assert_eq!(take("b", 1), Taken::Yes);
        assert_eq!(rates.take("gate2", "a", 6, start), Taken::Yes);
        assert_eq!([take("a", 11), take("a", 12)], [Taken::Yes, Taken::NoMore]);
    }

    #[test]
    fn who_borrows_waits() {
        let now = Instant::now();
        let mut bucket = Bucket::full(10.0, now);
        assert_eq!(bucket.borrow(10.0, 10.0, now), Duration::ZERO);
        assert_eq!(bucket.borrow(5.0, 10.0, now), Duration::from_millis(500));
        assert_eq!(bucket.borrow(1.0, 10.0, now + Duration::from_secs(60)), Duration::ZERO);
    }
}
