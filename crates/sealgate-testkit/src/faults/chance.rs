//! Choices that a seed decides. Threads race for them, so that a seed gives the same mixture and not the same course.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where all choices of a run come from.
#[derive(Debug)]
pub(super) struct Chance {
    state: Mutex<u64>,
    calm: AtomicBool,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: Mutex::new(seed), calm: AtomicBool::new(false) }
    }

    /// No faults from now on.
    pub(super) fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    /// Whether a fault is to happen that happens once in so many times.
    pub(super) fn strikes(&self, one_in: u64) -> bool {
        !self.calm.load(Ordering::SeqCst) && self.below(one_in) == 0
    }

    /// Once in so many times, calm or not.
    pub(super) fn one_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Any number below this one (SplitMix64).
    pub(super) fn below(&self, bound: u64) -> u64 {
        let mut state = self.state.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// Any of these.
    pub(super) fn pick<T: Clone>(&self, among: &[T]) -> T {
        let bound = u64::try_from(among.len()).unwrap();
        among[usize::try_from(self.below(bound)).unwrap()].clone()
    }
}
