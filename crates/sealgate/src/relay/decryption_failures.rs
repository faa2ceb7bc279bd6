//! How often mail from one network failed behind one of our keys within an hour, and what is put off because of that
//! (REQUIREMENTS J5): who needs a million answers about a captured ciphertext (RFC 3218 §2.1) gets a few.
//!
//! In: the answers of the key stores for a message and the client's address. Out: the same answers, or none, so that no key is
//! used for it. Mail without an encryption asks for no decryption and is never put off.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use sealgate_core::keys::{Fingerprint, LookupError};
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::step::{KeyQuery, Keys};

use super::budget::network_of;

/// The failures of the last hour.
#[derive(Debug)]
pub(crate) struct DecryptionFailures {
    counts: Cache<(Fingerprint, IpAddr), Arc<AtomicUsize>>,
}

/// A message that one of our keys may open.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The certificates of those keys.
    certificates: BTreeSet<Fingerprint>,
    network: IpAddr,
    /// No key is used on it.
    pub(crate) is_put_off: bool,
}

impl DecryptionFailures {
    /// None yet.
    pub(crate) fn new() -> Self {
        let counts = Cache::builder().max_capacity(COUNTS_MAX).time_to_live(HOUR).build();
        Self { counts }
    }

    /// Takes all our keys away from a message, before any is used, where one of them has failed too often for this client's
    /// network. All: which of them it was tells nothing then.
    pub(crate) fn attempt(&self, keys: &mut Keys, client: IpAddr, failures_max: usize) -> Attempt {
        let network = wide_network_of(client);
        let answers = keys.own.iter().filter(|(query, _)| is_decryption(query));
        let own = answers.flat_map(|(_, answer)| answer.iter().flatten());
        let certificates: BTreeSet<_> = own.map(|key| key.certificate.fingerprint()).collect();
        let is_put_off = certificates.iter().any(|certificate| {
            let count = self.counts.get(&(*certificate, network));
            count.is_some_and(|count| count.load(Ordering::Relaxed) >= failures_max)
        });
        if is_put_off {
            for (_, answer) in keys.own.iter_mut().filter(|(query, _)| is_decryption(query)) {
                *answer = Err(LookupError("too many failures of this network".to_owned()));
            }
        }
        Attempt { certificates, network, is_put_off }
    }

    /// Counts a failure, for each key that it may have been meant for.
    pub(crate) fn count(&self, attempt: &Attempt, failures_max: usize) {
        metrics::counter!("sealgate_decryption_failures_total").increment(1);
        for certificate in &attempt.certificates {
            let count = self.counts.get_with((*certificate, attempt.network), Arc::default);
            if count.fetch_add(1, Ordering::Relaxed).saturating_add(1) == failures_max {
                tracing::warn!(
                    %certificate,
                    network = %attempt.network,
                    failures = failures_max,
                    "too much mail from one network cannot be opened: encrypted mail from there for this key is put \
                     off for up to an hour"
                );
            }
        }
    }
}

fn is_decryption(query: &KeyQuery) -> bool {
    matches!(query, KeyQuery::Decryption(_))
}

/// What is said of what is put off. No key was used, so it tells nothing of the content.
pub(crate) fn put_off() -> Refusal {
    metrics::counter!("sealgate_decryptions_put_off_total").increment(1);
    let text = "too much mail from your network could not be opened, try again later";
    Refusal::NextHop(Reply::new(451, (4, 7, 1), text))
}

/// J5: a /24 of IPv4, a /64 of IPv6.
fn wide_network_of(client: IpAddr) -> IpAddr {
    match network_of(client) {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !0xff)),
        network @ IpAddr::V6(_) => network,
    }
}

/// Keys and networks that are remembered: about a megabyte.
const COUNTS_MAX: u64 = 10_000;
/// From the first failure on.
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_a_networks_and_a_keys() {
        let failures = DecryptionFailures::new();
        let attempt = |certificate, client: &str| Attempt {
            certificates: BTreeSet::from([Fingerprint([certificate; 32])]),
            network: wide_network_of(client.parse().unwrap()),
            is_put_off: false,
        };
        for client in ["192.0.2.1", "::ffff:192.0.2.255", "2001:db8::1", "2001:db8::ffff:1"] {
            failures.count(&attempt(1, client), 2);
        }
        let count = |certificate, client: &str| {
            let network = wide_network_of(client.parse().unwrap());
            let count = failures.counts.get(&(Fingerprint([certificate; 32]), network));
            count.map_or(0, |count| count.load(Ordering::Relaxed))
        };
        assert_eq!([count(1, "192.0.2.77"), count(1, "2001:db8::7")], [2, 2]);
        assert_eq!([count(1, "192.0.3.1"), count(1, "2001:db8:0:1::1")], [0, 0]);
        assert_eq!(count(2, "192.0.2.1"), 0);
    }
}
