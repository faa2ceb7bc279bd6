//! So many at once, the others wait in the order in which they came, but not for ever.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The permits that are left, and who waits for one.
#[derive(Debug)]
pub(super) struct Permits {
    state: Mutex<State>,
}

/// Where somebody waits nothing is left.
#[derive(Debug)]
struct State {
    left: usize,
    waiting: VecDeque<Arc<Turn>>,
}

/// One who waits. A permit that is given back is handed to the first of them, and nobody else is woken.
#[derive(Debug, Default)]
struct Turn {
    /// Written and read under the lock.
    has_come: AtomicBool,
    woken: Condvar,
}

/// One permit, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Permits,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { state: Mutex::new(State { left: count, waiting: VecDeque::new() }) }
    }

    /// Takes one; `None` where it is not one's turn in time. Who comes while others wait does not overtake them.
    pub(super) fn take(&self, patience: Duration) -> Option<Permit<'_>> {
        let end = Instant::now() + patience;
        let mut state = self.state();
        if let Some(left) = state.left.checked_sub(1) {
            state.left = left;
            return Some(Permit { of: self });
        }
        let turn = Arc::new(Turn::default());
        state.waiting.push_back(Arc::clone(&turn));
        while !turn.has_come.load(Ordering::Relaxed) {
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                state.waiting.retain(|one| !Arc::ptr_eq(one, &turn));
                return None;
            }
            let waited = turn.woken.wait_timeout(state, remaining);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
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
        match state.waiting.pop_front() {
            Some(turn) => {
                turn.has_come.store(true, Ordering::Relaxed);
                turn.woken.notify_one();
            }
            None => state.left = state.left.saturating_add(1),
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

    /// Has so many wait in this order, each with his patience; returns when all of them do.
    fn queue<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        permits: &'scope Permits,
        order: &'scope Mutex<Vec<usize>>,
        patience: &[Duration],
    ) {
        for (number, patience) in patience.iter().copied().enumerate() {
            scope.spawn(move || {
                let permit = permits.take(patience);
                if permit.is_some() {
                    order.lock().unwrap().push(number);
                }
            });
            let end = Instant::now() + LONG;
            while permits.state().waiting.len() <= number {
                assert!(Instant::now() < end, "it does not wait");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn who_waits_is_not_overtaken_and_who_leaves_holds_up_nobody() {
        let permits = Permits::new(1);
        let order = Mutex::new(Vec::new());
        let first = permits.take(Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            // The first, one in the middle and the last of them leave.
            let soon = Duration::from_secs(3);
            queue(scope, &permits, &order, &[soon, LONG, LONG, soon, LONG, soon]);
            assert!(permits.take(Duration::ZERO).is_none(), "it overtakes");
            let end = Instant::now() + LONG;
            while permits.state().waiting.len() > 3 {
                assert!(Instant::now() < end, "they do not leave");
                std::thread::yield_now();
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), [1, 2, 4]);
        assert!(permits.take(Duration::ZERO).is_some());
    }

    #[test]
    fn two_that_come_back_at_once_serve_two_who_wait() {
        let permits = Permits::new(2);
        let order = Mutex::new(Vec::new());
        let both = [(); 2].map(|()| permits.take(Duration::ZERO).unwrap());
        let began = Instant::now();
        std::thread::scope(|scope| {
            queue(scope, &permits, &order, &[LONG; 2]);
            drop(both);
        });
        assert!(began.elapsed() < LONG);
        assert_eq!(order.lock().unwrap().len(), 2);
        assert_eq!(permits.state().left, 2);
    }

    const LONG: Duration = Duration::from_secs(30);
}
