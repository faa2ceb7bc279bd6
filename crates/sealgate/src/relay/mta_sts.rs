//! MTA-STS (RFC 8461): which mail exchangers a domain vouches for, learned over HTTPS and remembered.
//!
//! In: a domain. Out: the [`Policy`] in force, if any. The record in DNS says only whether there is something new; what was
//! learned holds until its time is over, whatever DNS and the policy host say meanwhile (§5.1), and is renewed at half
//! of it even where there is no record any more: who can suppress that must not wait the policy out (§10.2). Mail goes by
//! this process's own memory; [`Record`] keeps it in the key database too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::{RData, RecordType};
use sealgate_keys::mta_sts_policies::{CLOCKS_APART_SECS, StoredPolicy};
use tokio::sync::Semaphore;

use super::names::Names;
use super::tls::client::{Assurance, Clients};
use super::wall_clock::now_secs;

mod fetch;
pub(super) mod policy;
pub(super) mod record;

pub(crate) use policy::{Mode, Policy};
pub(crate) use record::Record;

/// What was learned, and how more is.
#[derive(Debug)]
pub(crate) struct Policies {
    known: Mutex<HashMap<String, Known>>,
    names: Arc<Names>,
    clients: Arc<Clients>,
    /// Policies that are renewed at once while mail goes by the old ones.
    renewals: Arc<Semaphore>,
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
    /// When the policy was fetched, in seconds of Unix time.
    fetched_at: i64,
    /// Whether the key database has it.
    is_stored: bool,
}

/// What to do before mail goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// What is known holds, or there is nothing to ask for.
    Go,
    /// The policy in force is renewed beside the mail.
    Renew,
    /// The domain says that there is a policy that is not known.
    Fetch,
}

impl Policies {
    /// None is known yet.
    pub(crate) fn new(names: Arc<Names>, clients: Arc<Clients>) -> Self {
        let renewals = Arc::new(Semaphore::new(RENEWALS_MAX));
        Self { known: Mutex::default(), names, clients, renewals }
    }

    /// The policy in force for mail to a domain.
    pub(crate) async fn of(self: &Arc<Self>, domain: &str) -> Option<Arc<Policy>> {
        let id = record_id(domain, &self.names).await;
        let now = Instant::now();
        let known = self.lock().get(domain).cloned();
        let step = Known::step(known.as_ref(), id.as_deref(), now);
        let known = known.filter(|known| known.until > now);
        let cached = known.as_ref().and_then(|known| known.policy.clone());
        match (step, id, known) {
            (Step::Fetch, Some(id), known) => self.fetch(domain, id, known).await.or(cached),
            (Step::Renew, _, Some(known)) => {
                self.renew(domain, known);
                cached
            }
            _ => cached,
        }
    }

    /// Fetches the policy while mail goes by the one that is known.
    fn renew(self: &Arc<Self>, domain: &str, known: Known) {
        // With so many under way the next mail to the domain sees to it.
        let Ok(turn) = Arc::clone(&self.renewals).try_acquire_owned() else { return };
        self.put_off(domain);
        let (policies, domain) = (Arc::clone(self), domain.to_owned());
        tokio::spawn(async move {
            policies.fetch(&domain, known.id.clone(), Some(known)).await;
            drop(turn);
        });
    }

    /// Fetches the policy that a record with this `id` tells of; what is known stays where there is none to be had.
    async fn fetch(&self, domain: &str, id: String, known: Option<Known>) -> Option<Arc<Policy>> {
        let host = format!("mta-sts.{domain}");
        let fetched = match fetch::fetch(&host, &self.names, &self.clients).await {
            Ok(text) => Policy::parse(&text).ok_or_else(|| "no valid policy".to_owned()),
            Err(why) => Err(why),
        };
        let now = Instant::now();
        match fetched {
            Ok(policy) => {
                let (until, policy) = (now + policy.max_age, Arc::new(policy));
                let known = Known {
                    id,
                    policy: Some(Arc::clone(&policy)),
                    until,
                    retry: now,
                    fetched_at: now_secs(),
                    is_stored: false,
                };
                self.keep(domain, known);
                Some(policy)
            }
            Err(why) => {
                let left_secs =
                    known.as_ref().map(|known| known.until.duration_since(now).as_secs());
                tracing::warn!(host, why, left_secs, "MTA-STS policy not to be had");
                metrics::counter!("sealgate_mta_sts_fetch_failures_total").increment(1);
                self.put_off(domain);
                None
            }
        }
    }

    /// Asks the domain for no policy for a while.
    fn put_off(&self, domain: &str) {
        let now = Instant::now();
        let retry = now + RETRY_AFTER;
        if let Some(known) = self.lock().get_mut(domain) {
            known.retry = retry;
            return;
        }
        self.keep(domain, Known::nothing(now, retry));
    }

    /// Those that the key database does not have yet.
    fn unstored(&self) -> Vec<StoredPolicy> {
        let all = self.lock();
        let unstored = all.iter().filter(|(_, known)| !known.is_stored);
        unstored.filter_map(|(domain, known)| known.to_store(domain)).collect()
    }

    /// The key database has it, or is not to have it.
    fn note_stored(&self, stored: &StoredPolicy) {
        if let Some(known) = self.lock().get_mut(&stored.domain)
            && known.fetched_at == stored.fetched_at
        {
            known.is_stored = true;
        }
    }

    /// Takes over what the key database has, where that is newer than what is known.
    fn learn(&self, stored: StoredPolicy) {
        let text = String::from_utf8_lossy(&stored.policy);
        let Some(policy) = Policy::parse(&text) else { return };
        let (now, wall_secs) = (Instant::now(), now_secs());
        let left_secs = u64::try_from(stored.expires_at.saturating_sub(wall_secs)).unwrap_or(0);
        // A clock that was put back makes no policy last longer.
        let left = Duration::from_secs(left_secs).min(policy.max_age);
        let known = self.lock().get(&stored.domain).cloned();
        if let Some(known) = &known
            && known.policy.is_some()
            && known.until > now
        {
            // One from the future is of a copy whose clock is wrong: it must not outlast ours.
            let is_newer = stored.fetched_at > known.fetched_at;
            if !is_newer || stored.fetched_at > wall_secs.saturating_add(CLOCKS_APART_SECS) {
                return;
            }
        }
        let known = Known {
            id: stored.record_id,
            policy: Some(Arc::new(policy)),
            until: now + left,
            retry: known.map_or(now, |known| known.retry),
            fetched_at: stored.fetched_at,
            is_stored: true,
        };
        self.keep(&stored.domain, known);
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
    /// No policy was to be had.
    fn nothing(now: Instant, retry: Instant) -> Self {
        let id = String::new();
        Self { id, policy: None, until: now, retry, fetched_at: 0, is_stored: true }
    }

    fn to_store(&self, domain: &str) -> Option<StoredPolicy> {
        let policy = self.policy.as_ref()?;
        let max_age_secs = i64::try_from(policy.max_age.as_secs()).unwrap_or(i64::MAX);
        Some(StoredPolicy {
            domain: domain.to_owned(),
            record_id: self.id.clone(),
            policy: policy.to_string().into_bytes(),
            fetched_at: self.fetched_at,
            expires_at: self.fetched_at.saturating_add(max_age_secs),
        })
    }

    /// What the domain's record, or that there is none, asks for.
    fn step(known: Option<&Self>, id: Option<&str>, now: Instant) -> Step {
        if known.is_some_and(|known| known.retry > now) {
            return Step::Go;
        }
        let in_force = known.filter(|known| known.until > now);
        let policy = in_force.and_then(|known| Some((known, known.policy.as_ref()?)));
        match (policy, id) {
            (None, None) => Step::Go,
            (None, Some(_)) => Step::Fetch,
            (Some((known, _)), Some(id)) if known.id != id => Step::Fetch,
            // Renewed early, so that a host which is away for a while leaves no gap (RFC 8461 §3.3).
            (Some((known, policy)), id) => {
                let is_old = known.until <= now + policy.max_age / 2;
                // That a domain had no policy need not be heard again from one that publishes none.
                let is_wanted = id.is_some() || policy.mode != Mode::None;
                if is_old && is_wanted { Step::Renew } else { Step::Go }
            }
        }
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
/// Renewals under way at once.
const RENEWALS_MAX: usize = 16;
/// Domains that are remembered.
const DOMAINS_MAX: usize = 10_000;
/// Records beside the one meant.
const RECORDS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version: STSv1\nmode: enforce\nmx: mx1.abc.example\nmax_age: 604800\n";

    #[test]
    fn a_policy_is_renewed_at_half_its_time_with_or_without_a_record() {
        let now = Instant::now();
        let known = |text: &str| {
            let policy = Policy::parse(text).unwrap();
            let (id, until) = ("1".to_owned(), now + policy.max_age);
            Known { id, policy: Some(Arc::new(policy)), until, ..Known::nothing(now, now) }
        };
        let week = Duration::from_secs(604_800);
        let (enforce, none) = (known(GOOD), known(&GOOD.replace("enforce", "none")));
        let testing = known(&GOOD.replace("enforce", "testing"));
        let day = Duration::from_secs(86_400);
        for (known, id, after, expected) in [
            (None, None, day, Step::Go),
            (None, Some("1"), day, Step::Fetch),
            (Some(&enforce), Some("1"), day, Step::Go),
            (Some(&enforce), Some("2"), day, Step::Fetch),
            (Some(&enforce), None, day, Step::Go),
            (Some(&enforce), Some("1"), week / 2, Step::Renew),
            (Some(&enforce), None, week / 2, Step::Renew),
            (Some(&testing), None, week / 2, Step::Renew),
            (Some(&none), None, week / 2, Step::Go),
            (Some(&none), Some("1"), week / 2, Step::Renew),
            // Its time is over.
            (Some(&enforce), None, week, Step::Go),
            (Some(&enforce), Some("1"), week, Step::Fetch),
        ] {
            let step = Known::step(known, id, now + after);
            assert_eq!(step, expected, "{known:?} {id:?} {after:?}");
        }
        let tried = Known { retry: now + week, ..enforce };
        assert_eq!(Known::step(Some(&tried), None, now + week / 2), Step::Go);
        assert_eq!(Known::step(Some(&tried), Some("2"), now + week / 2), Step::Go);
    }
}
