//! What MTA-STS says in writing: the policy's text (RFC 8461 §3.2) and the record that names it (§3.1).
//!
//! In: text that anybody may have written. Out: a [`Policy`] and the record's `id`, or nothing.

use std::fmt;
use std::time::Duration;

/// A domain's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What a failure means.
    pub(crate) mode: Mode,
    /// Patterns of names of mail exchangers, lower case.
    mx: Vec<String>,
    /// How long it holds.
    pub(super) max_age: Duration,
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

/// The policy's text, without what was not understood.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Enforce => "enforce",
            Mode::None => "none",
            Mode::Testing => "testing",
        };
        writeln!(f, "version: {VERSION}\nmode: {mode}\nmax_age: {}", self.max_age.as_secs())?;
        self.mx.iter().try_for_each(|pattern| writeln!(f, "mx: {pattern}"))
    }
}

/// Whether a TXT record is MTA-STS's, of this version.
pub(crate) fn is_record(text: &str) -> bool {
    text.strip_prefix("v=STSv1").is_some_and(|rest| rest.trim_start().starts_with(';'))
}

/// RFC 8461 §3.1: `v=STSv1; id=...;`.
pub(crate) fn id_of(record: &str) -> Option<&str> {
    let mut fields = record.split(';').map(str::trim);
    let id = fields.find_map(|field| field.strip_prefix("id="))?.trim();
    let is_id = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    is_id.then_some(id)
}

const VERSION: &str = "STSv1";
/// RFC 8461 §3.2.
const MAX_AGE_SECS: u64 = 31_557_600;
/// Patterns of one policy.
const PATTERNS_MAX: usize = 256;

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
        let testing = Policy::parse(&GOOD.replace("enforce", "testing")).unwrap();
        for policy in [policy, none, testing] {
            assert_eq!(Policy::parse(&policy.to_string()), Some(policy));
        }
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
