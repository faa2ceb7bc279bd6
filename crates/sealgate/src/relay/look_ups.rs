//! How many DNS look-ups the authentication of one message may cost (REQUIREMENTS K13): who sends it chooses the names.
//!
//! Each method has a share of its own, so that nobody spends on one what another needs: signatures without number must not
//! keep the author's DMARC policy from being asked for. `mail_auth` asks a cache before each look-up; this one answers
//! once the share is used up, and never before.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use mail_auth::{DnsError, DnssecStatus, Error, Parameters, RecordSet, ResolverCache, Txt};

/// One method's look-ups for one message.
#[derive(Debug)]
pub(super) struct LookUps {
    left: AtomicUsize,
    is_over: AtomicBool,
}

impl LookUps {
    /// The share of a method.
    pub(super) fn at_most(share: usize) -> Self {
        Self { left: AtomicUsize::new(share), is_over: AtomicBool::new(false) }
    }

    /// Whether more were wanted: what came of the method then is not to be believed.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Parameters of a method, with this in the place of a cache.
    pub(super) fn bound<P>(&self, params: P) -> Parameters<'_, P, Self, Self, Self, Self, Self> {
        Parameters {
            params,
            cache_txt: Some(self),
            cache_mx: Some(self),
            cache_ptr: Some(self),
            cache_ipv4: Some(self),
            cache_ipv6: Some(self),
        }
    }

    /// Whether one more is allowed, which is counted then.
    fn allow(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        let counted = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
        if counted.is_err() {
            self.is_over.store(true, Ordering::Release);
        }
        counted.is_ok()
    }
}

impl ResolverCache<Box<str>, Txt> for LookUps {
    fn get<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let over = || Txt::Error(Error::Dns(DnsError::Resolver("too many look-ups".to_owned())));
        (!self.allow()).then(over)
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

impl<K, T> ResolverCache<K, RecordSet<T>> for LookUps {
    fn get<Q>(&self, _: &Q) -> Option<RecordSet<T>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let nothing =
            || RecordSet { rrset: Arc::new([]), dnssec_status: DnssecStatus::Indeterminate };
        (!self.allow()).then(nothing)
    }

    fn remove<Q>(&self, _: &Q) -> Option<RecordSet<T>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: K, _: RecordSet<T>, _: Instant) {}
}

/// REQUIREMENTS K13.
const LOOK_UPS_MAX: usize = 64;
/// SPF: a record with ten terms (RFC 7208 §4.6.4), one of which names ten exchangers, needs 21. Two such terms are one too
/// many here, though not there.
pub(super) const OF_SPF: usize = 22;
/// DKIM: a key for each signature, and third parties' for some.
pub(super) const OF_DKIM: usize = 12;
/// ARC: a key for each set, and one for the last message signature.
pub(super) const OF_ARC: usize = 12;
/// DMARC: eight names for the author (RFC 9989 §4.10), one to see whether his domain exists, and nine for whom he is aligned with.
pub(super) const OF_DMARC: usize = 18;
const _: () = assert!(OF_SPF + OF_DKIM + OF_ARC + OF_DMARC <= LOOK_UPS_MAX);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_last_of_a_share_is_asked_for_and_the_next_is_not() {
        let look_ups = LookUps::at_most(3);
        let text = || ResolverCache::<Box<str>, Txt>::get::<str>(&look_ups, "x.example");
        let address = || -> Option<RecordSet<Ipv4Addr>> {
            ResolverCache::<Box<str>, _>::get::<str>(&look_ups, "x.example")
        };
        assert!(text().is_none() && address().is_none() && text().is_none());
        assert!(!look_ups.is_over());
        assert!(matches!(text(), Some(Txt::Error(Error::Dns(DnsError::Resolver(_))))));
        assert!(look_ups.is_over());
        assert!(address().unwrap().rrset.is_empty());
    }
}
