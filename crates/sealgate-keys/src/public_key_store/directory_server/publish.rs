//! Certificates into the entry of an address, and out of it again (Modify, RFC 4511 §4.6). Values that are not named
//! stay as they are, and doing it twice does nothing.

use std::collections::HashSet;
use std::sync::Arc;

use ldap3::{Ldap, LdapResult, Mod};
use sealgate_core::address::Address;
use sealgate_core::keys::Certificate;
use tokio::time::{Instant, timeout_at};

use super::entry::{Entry, USER_CERTIFICATE_BINARY};
use super::search::{self, ATTRIBUTE_OR_VALUE_EXISTS, Fault, NO_SUCH_ATTRIBUTE, Question, SUCCESS};
use crate::error::StoreError;

/// What is done with certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

/// How many entries match, where that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotOne(usize);

impl NotOne {
    pub(super) fn error(self, address: &Address) -> StoreError {
        StoreError::NotFound(match self.0 {
            0 => format!(
                "{address}: the directory has no entry for it: make one, or correct `filter` and `base`"
            ),
            many => format!(
                "{address}: {many} entries of the directory match: make `filter` or `base` narrower"
            ),
        })
    }
}

/// Finds the one entry and changes it; says how many certificates that concerned. One change for each certificate, so
/// that a server that has one of them already does not refuse the others.
pub(super) async fn apply(
    change: Change,
    mut ldap: Ldap,
    until: Instant,
    question: Question,
    certificates: Arc<[Arc<Certificate>]>,
) -> Result<Result<usize, NotOne>, Fault> {
    let found = search::entries(ldap.clone(), until, question).await?;
    if let Some(why) = found.cut_off {
        return Err(Fault::Answered(why));
    }
    let entries = found.entries;
    if entries.is_empty() && found.refers {
        return Err(Fault::Answered(search::elsewhere()));
    }
    let [entry] = entries.as_slice() else { return Ok(Err(NotOne(entries.len()))) };
    let mut changed = 0;
    for certificate in
        certificates.iter().filter(|certificate| change.is_needed(entry, certificate))
    {
        let modification = change.modification(certificate);
        let answer = timeout_at(until, ldap.modify(&entry.name, vec![modification])).await;
        let result = answer.map_err(|_| Fault::late())?.map_err(Fault::of_connection)?;
        changed += usize::from(change.judge(&result)?);
    }
    Ok(Ok(changed))
}

impl Change {
    fn is_needed(self, entry: &Entry, certificate: &Certificate) -> bool {
        let is_there = entry.certificates.iter().any(|value| value == certificate.der());
        is_there == (self == Self::Remove)
    }

    fn modification(self, certificate: &Certificate) -> Mod<Vec<u8>> {
        let attribute = USER_CERTIFICATE_BINARY.as_bytes().to_vec();
        let values = HashSet::from([certificate.der().to_vec()]);
        match self {
            Self::Add => Mod::Add(attribute, values),
            Self::Remove => Mod::Delete(attribute, values),
        }
    }

    /// Whether something changed; somebody else may have done the same between our search and our change.
    fn judge(self, result: &LdapResult) -> Result<bool, Fault> {
        match (self, result.rc) {
            (_, SUCCESS) => Ok(true),
            (Self::Add, ATTRIBUTE_OR_VALUE_EXISTS) | (Self::Remove, NO_SUCH_ATTRIBUTE) => Ok(false),
            _ => Err(Fault::of_result(result)),
        }
    }
}
