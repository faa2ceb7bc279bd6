//! Mail signature checking: whether a message is whole, and whose it is.
//!
//! A signature and the bytes it covers go in, what is to be thought of it comes out: the mathematics first, then the
//! signer's certificate. What follows from it is `inbound`'s affair.

use std::sync::Arc;

use crate::address::Address;
use crate::keys::{Capabilities, Certificate, PublicKey, Timestamp};
use crate::report::{Layer, Reason, SignatureStatus, Verdict};
use crate::trust::{Budget, TrustStore};

pub mod smime;

/// What a signature is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The one mailbox of From; `None` where there is none or more than one: then nothing passes.
    pub author: Option<&'a Address>,
    /// What the public key store holds for the author.
    pub known: &'a [PublicKey],
    /// Whom we believe.
    pub trust: &'a TrustStore,
    /// What judging all signatures of the message may cost.
    pub budget: &'a Budget,
    /// The time of verification; the signer's own word for it never counts (RFC 8550 §6).
    pub now: Timestamp,
    /// The clock has jumped, so that `now` alone condemns nothing (REQUIREMENTS O15).
    pub clock_is_doubtful: bool,
}

/// What one signed layer is worth.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the mathematics say, of all signers together.
    pub status: SignatureStatus,
    /// What it would mean if this layer's content were the message.
    pub verdict: Verdict,
    /// Why the verdict is not a plain pass.
    pub reason: Option<Reason>,
    /// Whether the certificate names the author.
    pub names_author: bool,
    /// Whether it is the author's own, and not his domain's (RFC 3183).
    pub is_authors_own: bool,
    /// By a certificate that the administrator imported for the author's whole domain: a gateway's, which signs whatever leaves.
    pub is_gateways: bool,
    /// Whether the signer's key was revoked as stolen (REQUIREMENTS D8).
    pub key_compromised: bool,
    /// For the report.
    pub layer: Layer,
    /// What a pass teaches; `None` for all others.
    pub harvest: Option<Harvest>,
}

impl Checked {
    /// Whether it is valid, and not the author's (REQUIREMENTS D20).
    pub fn is_anothers(&self) -> bool {
        self.status == SignatureStatus::Valid && !self.names_author
    }
}

/// What verified mail teaches about its signer (REQUIREMENTS D26, F18): candidates for the public key store.
#[derive(Clone, Debug)]
pub struct Harvest {
    /// The From address that the signature is bound to.
    pub address: Address,
    /// The signer's certificates that can be encrypted to.
    pub certificates: Vec<Arc<Certificate>>,
    /// Certificates of authorities that came along.
    pub intermediates: Vec<Arc<Certificate>>,
    /// What the signer's software reads.
    pub capabilities: Option<Capabilities>,
    /// When it was signed, by the signer's own word; older never overwrites newer.
    pub signed_at: Option<Timestamp>,
}
