//! What verified mail teaches (REQUIREMENTS D26, F18), kept without a write a message.
//!
//! Certificates become candidates; capabilities are taken over where the mail was signed later than what is known. A
//! signing time in the future counts as now, so that nobody can fix his capabilities for good. What was learned from an
//! address lately is remembered, so that the usual message, which teaches nothing new, costs a look into memory.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealgate_core::keys::{Capabilities, Fingerprint};
use sealgate_core::verify::Harvest;

use crate::database::Database;
use crate::error::StoreError;
use crate::public_key_store::embedded::{self, NewPublicKey};

/// What was learned lately.
pub(crate) struct Learning {
    lately: moka::sync::Cache<String, Lesson>,
}

#[derive(Clone)]
struct Lesson {
    certificates: Vec<Fingerprint>,
    capabilities: Option<Capabilities>,
    /// The latest signing time seen, which need not be written yet.
    signed_at: i64,
}

impl Learning {
    pub(crate) fn new() -> Self {
        let lately = moka::sync::Cache::builder()
            .max_capacity(ADDRESSES_MAX)
            .time_to_live(REMEMBERED)
            .build();
        Self { lately }
    }

    /// Says whether answers to look-ups change by it. Candidates are kept only where the embedded store is one that is asked:
    /// in another one nobody would ever accept or use them.
    pub(crate) async fn learn(
        &self,
        database: &Database,
        harvest: &Harvest,
        keeps_candidates: bool,
    ) -> Result<bool, StoreError> {
        let owner = harvest.address.lookup_key();
        let now = unix_now();
        let signed_at = harvest.signed_at.map_or(0, |time| time.0.min(now));
        let mut lesson = Lesson {
            certificates: harvest
                .certificates
                .iter()
                .filter(|_| keeps_candidates)
                .map(|c| c.fingerprint())
                .collect(),
            capabilities: harvest.capabilities,
            signed_at,
        };
        let known = self.lately.get(&owner);
        if let Some(known) = &known {
            let older = signed_at <= known.signed_at;
            if older || lesson.capabilities.is_none() {
                lesson.capabilities = known.capabilities;
                lesson.signed_at = known.signed_at;
            }
            let nothing_new = lesson.certificates.iter().all(|c| known.certificates.contains(c))
                && lesson.capabilities == known.capabilities;
            if nothing_new {
                lesson.certificates.clone_from(&known.certificates);
                if lesson.signed_at > known.signed_at {
                    self.lately.insert(owner, lesson);
                }
                return Ok(false);
            }
        }
        for certificate in &harvest.certificates {
            if keeps_candidates && certificate.may_encrypt() {
                let intermediates = &harvest.intermediates;
                let key = NewPublicKey { owner: &owner, certificate, intermediates };
                embedded::learn_candidate(database, &key, now).await?;
            }
        }
        let mut changes = false;
        if let Some(capabilities) = lesson.capabilities {
            let (address, at) = (&harvest.address, lesson.signed_at);
            changes = embedded::learn_capabilities(database, address, capabilities, at).await?;
        }
        self.lately.insert(owner, lesson);
        Ok(changes)
    }
}

impl fmt::Debug for Learning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Learning({} addresses)", self.lately.entry_count())
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

const ADDRESSES_MAX: u64 = 10_000;
/// After this an unchanged lesson is written again with its newest signing time.
const REMEMBERED: Duration = Duration::from_secs(3600);
