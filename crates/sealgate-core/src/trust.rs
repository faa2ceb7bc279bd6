//! Whom we believe: path building and validation to the anchors (RFC 5280), revocation from supplied CRLs, usage,
//! minimum sizes. No network: what is needed is given.

use std::sync::Arc;

use crate::keys::{Certificate, Timestamp};

/// Anchors, intermediates and CRLs, with a bounded cache of verdicts.
#[derive(Debug, Default)]
pub struct TrustStore {}

impl TrustStore {
    /// Takes what the administrator trusts. `crls` are DER CertificateLists.
    pub fn new(
        anchors: Vec<Arc<Certificate>>,
        intermediates: Vec<Arc<Certificate>>,
        crls: Vec<Vec<u8>>,
    ) -> Self {
        let _ = (anchors, intermediates, crls);
        todo!()
    }

    /// Judges a certificate at a time; `others` (from the message, bounded) may help to build the path.
    pub fn judge(
        &self,
        target: &Certificate,
        others: &[Arc<Certificate>],
        purpose: Purpose,
        at: Timestamp,
    ) -> Trust {
        let _ = (target, others, purpose, at);
        todo!()
    }

    /// The same without a path: validity, usage, size, revocation by a CRL that its issuer signed where one is held. For
    /// certificates that the administrator imported himself.
    pub fn judge_pinned(&self, target: &Certificate, purpose: Purpose, at: Timestamp) -> Trust {
        let _ = (target, purpose, at);
        todo!()
    }
}

/// What a certificate is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Encrypting to it.
    Encrypt,
    /// Verifying mail that it signed.
    Sign,
}

/// What is to be thought of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trust {
    /// Past its end or before its start of validity (or something on its only path is).
    Expired,
    /// A limit of REQUIREMENTS K6 was reached.
    OverLimit,
    /// Revoked; `key_compromise` when the CRL entry's reason is keyCompromise or cACompromise.
    Revoked {
        /// Whether the key must be taken as stolen.
        key_compromise: bool,
    },
    /// CRLs are held for the issuer but none is current: REQUIREMENTS D7, temperror.
    RevocationUnknown,
    /// A path to an anchor holds.
    Trusted,
    /// No path to an anchor.
    Untrusted,
    /// Key sizes or digests below the minimum (D10, K5).
    Weak,
    /// Key usage or extended key usage forbids the purpose.
    WrongUsage,
}
