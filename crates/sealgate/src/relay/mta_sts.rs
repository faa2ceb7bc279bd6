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

/// A domain's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What a failure means.
    pub(crate) mode: Mode,
    /// Patterns of names of mail exchangers, lower case.
    mx: Vec<String>,
    max_age: Duration,
}

/// What a failure means (RFC 8461 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No delivery.
    Enforce,
    /// There is no policy any more.
    None,
    /// Delivery, and a report.
    Testing,
}

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

impl Policy {
    /// Reads a policy (RFC 8461 §3.2); `None` where it is not valid.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once(':')?;
            let (key, value) = (key.trim(), value.trim());
            match key {
                "mx" if mx.len() < PATTERNS_MAX => {
                    mx.push(value.trim_end_matches('.').to_ascii_lowercase());
                }
                // Of what is given twice the first counts.
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                _ => {}
            }
        }
        let mode = match mode? {
            "enforce" => Mode::Enforce,
            "none" => Mode::None,
            "testing" => Mode::Testing,
            _ => return None,
        };
        let max_age: u64 = max_age.filter(|digits| digits.len() <= 10)?.parse().ok()?;
        let valid = version == Some(VERSION) && (mode == Mode::None || !mx.is_empty());
        let max_age = Duration::from_secs(max_age.min(MAX_AGE_SECS));
        valid.then_some(Self { mode, mx, max_age })
    }

    /// Whether a mail exchanger is one of the domain's (RFC 8461 §4.1): a wildcard stands for one label.
    pub(crate) fn lists(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => *pattern == host,
        })
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
    let mut records = texts.filter(|text| is_record(text));
    match (records.next(), records.next()) {
        (Some(record), None) => id_of(&record).map(str::to_owned),
        _ => None,
    }
}

fn is_record(text: &str) -> bool {
    text.strip_prefix("v=STSv1").is_some_and(|rest| rest.trim_start().starts_with(';'))
}

/// RFC 8461 §3.1: `v=STSv1; id=...;`.
fn id_of(record: &str) -> Option<&str> {
    let mut fields = record.split(';').map(str::trim);
    let id = fields.find_map(|field| field.strip_prefix("id="))?.trim();
    let is_id = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    is_id.then_some(id)
}

const VERSION: &str = "STSv1";
/// RFC 8461 §3.2.
const MAX_AGE_SECS: u64 = 31_557_600;
/// RFC 8461 §3.3 suggests five minutes between attempts.
const RETRY_AFTER: Duration = Duration::from_secs(300);
/// Domains that are remembered.
const DOMAINS_MAX: usize = 10_000;
/// Patterns of one policy.
const PATTERNS_MAX: usize = 256;
/// Records beside the one meant.
const RECORDS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx1.abc.example\r\n\
                        mx: *.mail.abc.example\r\nmax_age: 604800\r\n";

    #[test]
    fn a_policy_is_read() {
        let policy = Policy::parse(GOOD).unwrap();
        assert_eq!(policy.mode, Mode::Enforce);
        assert_eq!(policy.max_age, Duration::from_secs(604_800));
        for (host, listed) in [
            ("MX1.abc.example.", true),
            ("mx2.abc.example", false),
            ("a.mail.abc.example", true),
            ("mail.abc.example", false),
            ("a.b.mail.abc.example", false),
        ] {
            assert_eq!(policy.lists(host), listed, "{host}");
        }
        let none = Policy::parse("version: STSv1\nmode: none\nmax_age: 86400\n").unwrap();
        assert_eq!(none.mode, Mode::None);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for (cut, put) in [
            ("version: STSv1", "version: STSv2"),
            ("mode: enforce", "mode: maybe"),
            ("max_age: 604800", "max_age: -1"),
            ("max_age: 604800", "max_age: 99999999999"),
            ("max_age: 604800", ""),
            ("mx: mx1.abc.example", "<html>"),
        ] {
            assert_eq!(Policy::parse(&GOOD.replace(cut, put)), None, "{put}");
        }
        assert_eq!(Policy::parse("version: STSv1\nmode: enforce\nmax_age: 1\n"), None);
    }

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

    #[test]
    fn the_record_has_an_id() {
        for (record, id) in [
            ("v=STSv1; id=20160831085700Z;", Some("20160831085700Z")),
            ("v=STSv1;id=1", Some("1")),
            ("v=STSv1; id=a-b;", None),
            ("v=STSv1;", None),
        ] {
            assert!(is_record(record));
            assert_eq!(id_of(record), id, "{record}");
        }
        assert!(!is_record("v=STSv10; id=1;"));
        assert!(!is_record("v=spf1 -all"));
    }
}
