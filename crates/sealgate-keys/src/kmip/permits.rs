//! So many at once, the others wait in the order in which they came, but not for ever.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The permits that are left, and who waits for one.
#[derive(Debug)]
pub(super) struct Permits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    left: usize,
    /// Those who wait, by number; the first is the next.
    waiting: VecDeque<u64>,
    next_number: u64,
}

/// One permit, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Permits,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        let state = State { left: count, waiting: VecDeque::new(), next_number: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes one; `None` where it is not one's turn in time. Who comes while others wait does not overtake them.
    pub(super) fn take(&self, patience: Duration) -> Option<Permit<'_>> {
        let end = Instant::now() + patience;
        let mut state = self.state();
        if state.left > 0 && state.waiting.is_empty() {
            state.left = state.left.saturating_sub(1);
            return Some(Permit { of: self });
        }
        let number = state.next_number;
        state.next_number = number.wrapping_add(1);
        state.waiting.push_back(number);
        while state.left == 0 || state.waiting.front() != Some(&number) {
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                state.waiting.retain(|one| *one != number);
                // It may be the next one's turn now.
                self.changed.notify_all();
                return None;
            }
            let waited = self.changed.wait_timeout(state, remaining);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting.pop_front();
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            self.changed.notify_all();
        }
        Some(Permit { of: self })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.left = state.left.saturating_add(1);
        // All of them, because only one of them is the next.
        if !state.waiting.is_empty() {
            self.of.changed.notify_all();
        }
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

    /// Where one permit changes hands often, nobody is overtaken again and again.
    #[test]
    fn who_waits_is_not_overtaken() {
        let permits = Permits::new(1);
        let order = Mutex::new(Vec::new());
        let first = permits.take(Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            for number in 0..8_usize {
                let (permits, order) = (&permits, &order);
                scope.spawn(move || {
                    let _permit = permits.take(Duration::from_secs(30)).unwrap();
                    order.lock().unwrap().push(number);
                });
                let end = Instant::now() + Duration::from_secs(30);
                while permits.state().waiting.len() <= number {
                    assert!(Instant::now() < end, "it does not wait");
                    std::thread::yield_now();
                }
            }
            // One who would not wait at all, and one whose patience ends in the middle of the queue.
            assert!(permits.take(Duration::from_millis(1)).is_none());
            assert_eq!(permits.state().waiting.len(), 8);
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
        assert!(permits.take(Duration::ZERO).is_some());
    }
}
