//! One search: a question to one connection, its entries back, or why there is no answer.
//!
//! An answer that is not whole (a limit was reached, the server refers to others, an entry cannot be read) is never taken
//! for "no such entry". Where entries came before it broke off they are given with the reason.

use std::sync::Arc;
use std::time::Duration;

use ldap3::{Ldap, LdapError, LdapResult, RequestId, Scope, SearchOptions, SearchStream};
use tokio::time::{Instant, timeout_at};

use super::entry::Entry;
use super::one_line;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) base: Arc<str>,
    pub(super) scope: Scope,
    pub(super) filter: String,
    pub(super) attributes: &'static [&'static str],
    pub(super) entries_max: usize,
    /// What the server is told; we keep our own deadline.
    pub(super) time_limit: Duration,
}

/// The answer of one server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    /// It knows of other servers that may have more entries (RFC 4511 §4.5.3).
    pub(super) refers: bool,
    /// Why not all entries of this server are there.
    pub(super) cut_off: Option<String>,
}

impl Found {
    /// Why there may be entries that are not here.
    pub(super) fn not_whole(&self) -> Option<String> {
        self.cut_off.clone().or_else(|| self.refers.then(elsewhere))
    }
}

/// Why one connection gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// An answer that stands, whoever is asked.
    Answered(String),
    /// The connection is gone; a new one may do better.
    Lost(String),
    /// This server does not answer now; another one may.
    Stuck(String),
}

impl Fault {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Answered(why) | Self::Lost(why) | Self::Stuck(why) => why,
        }
    }

    /// What the library says of a connection.
    pub(super) fn of_connection(error: LdapError) -> Self {
        Self::Lost(match error {
            LdapError::Io { source } => one_line(&source.to_string()),
            LdapError::EndOfStream | LdapError::OpSend { .. } | LdapError::ResultRecv { .. } => {
                "the connection ended".to_owned()
            }
            LdapError::LdapResult { result } => reason(&result),
            other => one_line(&other.to_string()),
        })
    }

    /// What a result code other than success means (RFC 4511 appendix A).
    pub(super) fn of_result(result: &LdapResult) -> Self {
        match result.rc {
            BUSY | UNAVAILABLE => Self::Stuck(reason(result)),
            _ => Self::Answered(reason(result)),
        }
    }

    pub(super) fn late() -> Self {
        Self::Stuck("no answer in time".to_owned())
    }
}

/// Asks, and reads the whole answer.
pub(super) async fn entries(
    mut ldap: Ldap,
    until: Instant,
    question: Question,
) -> Result<Found, Fault> {
    ldap.with_search_options(
        SearchOptions::new()
            .sizelimit(question.entries_max.try_into().unwrap_or(i32::MAX))
            .timelimit(whole_secs(question.time_limit)),
    );
    let Question { base, scope, filter, attributes, .. } = &question;
    let started = timeout_at(until, ldap.streaming_search(base, *scope, filter, *attributes)).await;
    let mut stream = started.map_err(|_| Fault::late())?.map_err(Fault::of_connection)?;
    let read = timeout_at(until, Answer::read(&mut stream, question.entries_max)).await;
    let id = stream.ldap_handle().last_id();
    // Without adapters this only gives back the request's number and never waits.
    let result = stream.finish().await;
    match read.map_err(|_| Fault::late()).flatten() {
        Ok(answer) if answer.is_broken_off => {
            abandon(ldap, id, until);
            Ok(answer.into_found())
        }
        Ok(answer) => answer.judge(&result, &question),
        Err(fault) => {
            abandon(ldap, id, until);
            Err(fault)
        }
    }
}

/// The server is told to stop, behind our back: where it hangs, so would we.
fn abandon(mut ldap: Ldap, id: RequestId, until: Instant) {
    tokio::spawn(async move { timeout_at(until + ABANDON_TIME, ldap.abandon(id)).await });
}

/// What came before the result.
#[derive(Debug, Default)]
struct Answer {
    entries: Vec<Entry>,
    references: usize,
    /// Why an entry is missing.
    cut_off: Option<String>,
    /// No more was read, and there is no result.
    is_broken_off: bool,
}

impl Answer {
    async fn read(
        stream: &mut SearchStream<'_, &'static str, &'static [&'static str]>,
        entries_max: usize,
    ) -> Result<Self, Fault> {
        let mut answer = Self::default();
        let mut seen = 0_usize;
        while let Some(item) = stream.next().await.map_err(Fault::of_connection)? {
            if item.is_ref() {
                answer.references += 1;
            } else if !item.is_intermediate() {
                if seen == entries_max {
                    answer.cut_off = Some(too_many(entries_max));
                    answer.is_broken_off = true;
                    break;
                }
                seen += 1;
                match Entry::read(item.0) {
                    Some(entry) => answer.entries.push(entry),
                    None => answer.cut_off = Some(UNREADABLE.to_owned()),
                }
            }
        }
        Ok(answer)
    }

    fn judge(mut self, result: &LdapResult, question: &Question) -> Result<Found, Fault> {
        match result.rc {
            SUCCESS => {}
            SIZE_LIMIT_EXCEEDED => self.cut_off = Some(too_many(question.entries_max)),
            TIME_LIMIT_EXCEEDED | ADMIN_LIMIT_EXCEEDED => self.cut_off = Some(reason(result)),
            NO_SUCH_OBJECT => {
                return Err(Fault::Answered(format!(
                    "`{}` is not there ({}): correct `base`, or let us read it",
                    question.base,
                    reason(result)
                )));
            }
            _ => return Err(Fault::of_result(result)),
        }
        Ok(self.into_found())
    }

    fn into_found(self) -> Found {
        Found { entries: self.entries, refers: self.references > 0, cut_off: self.cut_off }
    }
}

/// A result in words.
pub(super) fn reason(result: &LdapResult) -> String {
    let LdapResult { rc, text, refs, .. } = result;
    let name = RESULT_NAMES.iter().find_map(|(code, name)| (code == rc).then_some(*name));
    let mut words = name.map_or_else(|| format!("result {rc}"), str::to_owned);
    if !text.is_empty() {
        words.push_str(": ");
        words.push_str(text);
    }
    if let Some(url) = refs.first() {
        words.push_str(" to ");
        words.push_str(url);
    }
    one_line(&words)
}

/// Why what is missing here may be elsewhere.
pub(super) fn elsewhere() -> String {
    "refers to other servers: name in `base` what this server holds, or, of Active Directory, ask the global catalogue \
     (ldaps://HOST:3269)"
        .to_owned()
}

fn too_many(entries_max: usize) -> String {
    format!(
        "more than {entries_max} entries match, or than the server gives out: make `filter` narrower, or raise \
         `entries_max`"
    )
}

/// At least one: 0 is "no limit" (RFC 4511 §4.5.1.5).
fn whole_secs(time: Duration) -> i32 {
    i32::try_from(time.as_secs().max(1)).unwrap_or(i32::MAX)
}

/// What [`super::guard`] puts in place of an entry is one too.
const UNREADABLE: &str = "an entry that is no LDAP, larger than 8 MiB or nested too deep";

/// How long a server may take to hear that we no longer wait.
const ABANDON_TIME: Duration = Duration::from_secs(1);

// RFC 4511 §4.1.9.
pub(super) const SUCCESS: u32 = 0;
const TIME_LIMIT_EXCEEDED: u32 = 3;
const SIZE_LIMIT_EXCEEDED: u32 = 4;
const ADMIN_LIMIT_EXCEEDED: u32 = 11;
pub(super) const NO_SUCH_ATTRIBUTE: u32 = 16;
pub(super) const ATTRIBUTE_OR_VALUE_EXISTS: u32 = 20;
const NO_SUCH_OBJECT: u32 = 32;
const BUSY: u32 = 51;
const UNAVAILABLE: u32 = 52;

/// Those that an operator may meet here.
const RESULT_NAMES: [(u32, &str); 24] = [
    (1, "operationsError"),
    (2, "protocolError"),
    (TIME_LIMIT_EXCEEDED, "timeLimitExceeded"),
    (SIZE_LIMIT_EXCEEDED, "sizeLimitExceeded"),
    (7, "authMethodNotSupported"),
    (8, "strongerAuthRequired"),
    (10, "referral"),
    (ADMIN_LIMIT_EXCEEDED, "adminLimitExceeded"),
    (13, "confidentialityRequired"),
    (NO_SUCH_ATTRIBUTE, "noSuchAttribute"),
    (17, "undefinedAttributeType"),
    (18, "inappropriateMatching"),
    (19, "constraintViolation"),
    (ATTRIBUTE_OR_VALUE_EXISTS, "attributeOrValueExists"),
    (21, "invalidAttributeSyntax"),
    (NO_SUCH_OBJECT, "noSuchObject"),
    (34, "invalidDNSyntax"),
    (48, "inappropriateAuthentication"),
    (49, "invalidCredentials"),
    (50, "insufficientAccessRights"),
    (BUSY, "busy"),
    (UNAVAILABLE, "unavailable"),
    (53, "unwillingToPerform"),
    (65, "objectClassViolation"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn result(rc: u32) -> LdapResult {
        let text = String::new();
        LdapResult { rc, matched: String::new(), text, refs: Vec::new(), ctrls: Vec::new() }
    }

    fn question() -> Question {
        Question {
            base: "dc=example".into(),
            scope: Scope::Subtree,
            filter: "(mail=a@b.example)".to_owned(),
            attributes: &[],
            entries_max: 10,
            time_limit: Duration::from_millis(300),
        }
    }

    #[test]
    fn only_success_without_referrals_is_a_whole_answer() {
        let judge = |rc, references| {
            let entries = vec![Entry::default()];
            Answer { entries, references, ..Answer::default() }.judge(&result(rc), &question())
        };
        assert_eq!(judge(SUCCESS, 0).unwrap().not_whole(), None);
        assert!(judge(SUCCESS, 3).unwrap().not_whole().unwrap().contains("other servers"));
        for rc in 1..=100 {
            if [TIME_LIMIT_EXCEEDED, SIZE_LIMIT_EXCEEDED, ADMIN_LIMIT_EXCEEDED].contains(&rc) {
                let found = judge(rc, 0).unwrap();
                assert!(found.not_whole().is_some() && found.entries.len() == 1, "{rc}");
                continue;
            }
            let fault = judge(rc, 0).unwrap_err();
            let is_stuck = matches!(fault, Fault::Stuck(_));
            assert_eq!(is_stuck, [BUSY, UNAVAILABLE].contains(&rc), "{rc}: {fault:?}");
        }
    }

    #[test]
    fn results_are_told_with_the_servers_words_and_referrals() {
        let mut told = result(10);
        told.refs = vec!["ldap://other.example/dc=example".to_owned()];
        assert_eq!(reason(&told), "referral to ldap://other.example/dc=example");
        let mut told = result(49);
        told.text = "80090308:\nLdapErr".to_owned();
        assert_eq!(reason(&told), "invalidCredentials: 80090308: LdapErr");
        assert_eq!(reason(&result(4711)), "result 4711");
    }

    #[test]
    fn the_server_is_never_told_that_time_is_unlimited() {
        assert_eq!(whole_secs(Duration::from_millis(300)), 1);
        assert_eq!(whole_secs(Duration::from_secs(5)), 5);
    }
}
