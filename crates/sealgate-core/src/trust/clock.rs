//! The moment of a judgement, which remembers for how long its answers hold.
//!
//! Every comparison with the time of verification goes through [`Clock`], so that a verdict comes
//! with the span within which each of these comparisons, and so the verdict, stays what it was.

use crate::keys::Timestamp;

/// A fixed moment, and the span around it in which everything asked so far has the same answer.
#[derive(Debug)]
pub(super) struct Clock {
    at: i64,
    span: Span,
}

/// From a second (inclusive) until another (exclusive), since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    from: i64,
    until: i64,
}

impl Clock {
    pub(super) fn new(at: Timestamp) -> Self {
        Self { at: at.0, span: Span { from: i64::MIN, until: i64::MAX } }
    }

    /// Whether a moment is now or past.
    pub(super) fn has_reached(&mut self, moment: i64) -> bool {
        let reached = self.at >= moment;
        if reached {
            self.span.from = self.span.from.max(moment);
        } else {
            self.span.until = self.span.until.min(moment);
        }
        reached
    }

    /// Whether now lies within two moments, both inclusive (RFC 5280 §4.1.2.5).
    pub(super) fn is_within(&mut self, first: i64, last: i64) -> bool {
        self.has_reached(first) && !self.has_reached(last.saturating_add(1))
    }

    /// For how long all answers given so far hold.
    pub(super) fn span(&self) -> Span {
        self.span
    }
}

impl Span {
    pub(super) fn contains(&self, at: Timestamp) -> bool {
        self.from <= at.0 && at.0 < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_is_where_every_answer_stays_the_same() {
        let mut clock = Clock::new(Timestamp(50));
        assert!(clock.has_reached(10));
        assert!(!clock.has_reached(90));
        assert!(clock.is_within(20, 79));
        assert_eq!(clock.span(), Span { from: 20, until: 80 });
        assert!(clock.span().contains(Timestamp(79)));
        assert!(!clock.span().contains(Timestamp(80)));
        assert!(!clock.span().contains(Timestamp(19)));
    }
}
