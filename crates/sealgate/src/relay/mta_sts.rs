//! MTA-STS (RFC 8461): which mail exchangers a domain vouches for, learned over HTTPS and remembered.
//!
//! In: a domain. Out: the [`Policy`] in force, if any. The record in DNS says only whether there is something new; what was
//! learned holds until its time is over, whatever DNS and the policy host say meanwhile (§5.1). The memory is this
//! process's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::{RData, RecordType};

use super::names::Names;
use super::tls::client::{Assurance, Clients};

mod fetch;
pub(super) mod policy;

pub(crate) use policy::{Mode, Policy};

/// What was learned.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    /// The record's `id` when it was fetched.
    id: String,
    policy: Option<Arc<Policy>>,
    /// Until when the policy holds.
    until: Instant,
    /// Not asked for again before, after a failure.
    retry: Instant,
}

impl Policies {
    /// The policy in force for mail to a domain.
    pub(crate) async fn of(
        &self,
        domain: &str,
        names: &Names,
        clients: &Clients,
    ) -> Option<Arc<Policy>> {
        let id = record_id(domain, names).await;
        let now = Instant::now();
        let known = self.lock().get(domain).cloned();
        let valid = known.as_ref().filter(|known| known.until > now);
        let cached = valid.and_then(|known| known.policy.clone());
        let Some(id) = id else { return cached };
        if known.as_ref().is_some_and(|known| known.is_fresh(&id, now) || known.retry > now) {
            return cached;
        }
        let host = format!("mta-sts.{domain}");
        let fetched = match fetch::fetch(&host, names, clients).await {
            Ok(text) => Policy::parse(&text).ok_or_else(|| "no valid policy".to_owned()),
            Err(why) => Err(why),
        };
        match fetched {
            Ok(policy) => {
                let (until, policy) = (now + policy.max_age, Arc::new(policy));
                self.keep(
                    domain,
                    Known { id, policy: Some(Arc::clone(&policy)), until, retry: now },
                );
                Some(policy)
            }
            Err(why) => {
                tracing::warn!(host, why, "MTA-STS policy not to be had");
                metrics::counter!("sealgate_mta_sts_fetch_failures_total").increment(1);
                let retry = now + RETRY_AFTER;
                let known = match known.filter(|known| known.until > now) {
                    Some(known) => Known { retry, ..known },
                    None => Known { id: String::new(), policy: None, until: now, retry },
                };
                self.keep(domain, known);
                cached
            }
        }
    }

    fn keep(&self, domain: &str, known: Known) {
        let mut all = self.lock();
        if all.len() >= DOMAINS_MAX && !all.contains_key(domain) {
            let now = Instant::now();
            all.retain(|_, known| known.until > now || known.retry > now);
            if all.len() >= DOMAINS_MAX {
                return;
            }
        }
        all.insert(domain.to_owned(), known);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether it need not be asked for: renewed early, so that a host which is away for a while leaves no gap (RFC 8461 §3.3).
    fn is_fresh(&self, id: &str, now: Instant) -> bool {
        let half = self.policy.as_ref().map(|policy| policy.max_age / 2);
        self.id == id && half.is_some_and(|half| self.until > now + half)
    }
}

/// The `id` of the domain's record, where there is exactly one.
async fn record_id(domain: &str, names: &Names) -> Option<String> {
    let found = names.look_up(&format!("_mta-sts.{domain}"), RecordType::TXT).await.ok()?;
    let text = |data: &RData| match data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    };
    let texts = found.data.iter().take(RECORDS_MAX).filter_map(text);
    let mut records = texts.filter(|text| policy::is_record(text));
    match (records.next(), records.next()) {
        (Some(record), None) => policy::id_of(&record).map(str::to_owned),
        _ => None,
    }
}

/// RFC 8461 §3.3 suggests five minutes between attempts.
const RETRY_AFTER: Duration = Duration::from_secs(300);
/// Domains that are remembered.
const DOMAINS_MAX: usize = 10_000;
/// Records beside the one meant.
const RECORDS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version: STSv1\nmode: enforce\nmx: mx1.abc.example\nmax_age: 604800\n";

    #[test]
    fn a_policy_is_renewed_at_half_its_time() {
        let policy = Policy::parse(GOOD).unwrap();
        let (now, max_age) = (Instant::now(), policy.max_age);
        let until = now + max_age;
        let known = Known { id: "1".to_owned(), policy: Some(Arc::new(policy)), until, retry: now };
        assert!(known.is_fresh("1", now));
        assert!(!known.is_fresh("2", now));
        assert!(!known.is_fresh("1", now + max_age / 2));
    }
}
