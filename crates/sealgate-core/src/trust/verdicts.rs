//! Verdicts that were reached, each for as long as it holds.
//!
//! Bounded by two generations: when the younger is full it becomes the elder, and what the elder
//! held and nobody asked for since is forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::keys::{Fingerprint, Timestamp};
use crate::trust::clock::Span;
use crate::trust::{Purpose, Trust};

/// A bounded memory of verdicts.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    generations: Mutex<Generations>,
}

/// What a verdict depends on besides the store and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) target: Fingerprint,
    pub(super) purpose: Purpose,
    pub(super) helped_by: HelpedBy,
}

/// What a path could be built with besides the store's own certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum HelpedBy {
    /// Certificates of a message: SHA-256 over their fingerprints in order.
    Message([u8; 32]),
    /// Nothing.
    Nothing,
    /// The administrator, who imported the certificate: no path is asked for. SHA-256 as above of
    /// what came with it.
    Pin([u8; 32]),
}

impl Verdicts {
    /// A verdict that still holds at this time.
    pub(super) fn recall(&self, question: &Question, at: Timestamp) -> Option<Trust> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((span, trust)) = generations.younger.get(question) {
            return span.contains(at).then_some(*trust);
        }
        let (span, trust) = generations.elder.remove(question)?;
        generations.insert(*question, span, trust);
        span.contains(at).then_some(trust)
    }

    pub(super) fn remember(&self, question: Question, span: Span, trust: Trust) {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(question, span, trust);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.generations.lock().unwrap();
        generations.younger.len() + generations.elder.len()
    }
}

#[derive(Debug, Default)]
struct Generations {
    younger: HashMap<Question, (Span, Trust)>,
    elder: HashMap<Question, (Span, Trust)>,
}

impl Generations {
    fn insert(&mut self, question: Question, span: Span, trust: Trust) {
        if self.younger.len() >= GENERATION_MAX {
            self.elder = std::mem::take(&mut self.younger);
        }
        self.younger.insert(question, (span, trust));
    }
}

/// Verdicts in each of the two generations.
const GENERATION_MAX: usize = 5_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::clock::Clock;

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_asked_for() {
        let verdicts = Verdicts::default();
        let question = |number: u32| {
            let mut target = [0; 32];
            target[..4].copy_from_slice(&number.to_be_bytes());
            Question {
                target: Fingerprint(target),
                purpose: Purpose::Sign,
                helped_by: HelpedBy::Nothing,
            }
        };
        let span = Clock::new(Timestamp(0)).span();
        for number in 0..30_000 {
            verdicts.remember(question(number), span, Trust::Trusted);
            assert_eq!(verdicts.recall(&question(0), Timestamp(0)), Some(Trust::Trusted));
        }
        assert!(verdicts.len() <= 2 * GENERATION_MAX);
        assert_eq!(verdicts.recall(&question(1), Timestamp(0)), None);
    }
}
