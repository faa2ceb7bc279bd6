//! So many at once, the others wait, but not for ever.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The permits that are left.
#[derive(Debug)]
pub(super) struct Permits {
    left: Mutex<usize>,
    given_back: Condvar,
}

/// One permit, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Permits,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { left: Mutex::new(count), given_back: Condvar::new() }
    }

    /// Takes one; `None` where none is given back in time.
    pub(super) fn take(&self, patience: Duration) -> Option<Permit<'_>> {
        let end = Instant::now() + patience;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        while *left == 0 {
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return None;
            }
            let waited = self.given_back.wait_timeout(left, remaining);
            left = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *left = left.saturating_sub(1);
        Some(Permit { of: self })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut left = self.of.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_add(1);
        self.of.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_none_left_waits_until_one_is_given_back() {
        let permits = Permits::new(1);
        let one = permits.take(Duration::ZERO).unwrap();
        assert!(permits.take(Duration::from_millis(10)).is_none());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| permits.take(Duration::from_secs(30)).is_some());
            drop(one);
            assert!(other.join().unwrap());
        });
        assert!(permits.take(Duration::ZERO).is_some());
    }
}
