//! Whom we believe: path building and validation to the anchors (RFC 5280), revocation from
//! supplied CRLs, usage, minimum sizes.
//!
//! In: certificates that the administrator configured, CRLs as bytes, a certificate to judge,
//! certificates that came with it, a purpose and a time. Out: [`Trust`]. Follows RFC 5280 §6 and
//! RFC 8550 §4, within the limits of REQUIREMENTS D10 and K4 to K6. No network, no clock, no files:
//! what is needed is given. Verdicts are remembered for as long as they hold.
//!
//! It does not match addresses ([`Certificate::names`]), does not look at a message's signature,
//! and does not fetch CRLs, OCSP answers or certificates. Where no CRL of an issuer is held, its
//! certificates are not checked for revocation.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use certval::CertificationPathSettings;

use crate::keys::{Certificate, Fingerprint, Timestamp};

use anchor::Anchor;
use clock::Clock;
use link::Link;
use path::{Path, Searched, Sources};
use revocation::{Crls, Status};
use signature::{Checks, KeyFitness, Strength, TooManyChecks};
use standing::{Authorities, may_sign_for};
use validate::{Validator, Validity};
use verdicts::{HelpedBy, Question, Verdicts};

mod anchor;
mod clock;
mod issued;
mod link;
mod list_signature;
mod path;
mod revocation;
mod scope;
mod signature;
mod standing;
mod validate;
mod verdicts;

pub use issued::is_issued_by;
pub use list_signature::ListSignature;

/// Anchors, intermediates and CRLs, with a bounded cache of verdicts.
#[derive(Debug, Default)]
pub struct TrustStore {
    anchors: Vec<Anchor>,
    intermediates: Vec<Arc<Link>>,
    crls: Crls,
    unreadable_crls: Vec<usize>,
    verdicts: Verdicts,
}

impl TrustStore {
    /// Takes what the administrator trusts. `crls` are DER CertificateLists.
    ///
    /// An anchor's own validity and signature are not asked, version 1 is taken; its constraints
    /// hold. An anchor that is a person's certificate is trusted itself and issues nothing.
    pub fn new(
        anchors: Vec<Arc<Certificate>>,
        intermediates: Vec<Arc<Certificate>>,
        crls: Vec<Vec<u8>>,
    ) -> Self {
        let (crls, unreadable_crls) = Crls::new(crls);
        Self {
            anchors: anchors.iter().filter_map(|c| Link::parse(c)).map(Anchor::new).collect(),
            intermediates: intermediates
                .iter()
                .filter_map(|c| Link::parse(c))
                .map(Arc::new)
                .collect(),
            crls,
            unreadable_crls,
            verdicts: Verdicts::default(),
        }
    }

    /// Which of the CRLs given (counted from 0) are none, so that the administrator can be told:
    /// they check nothing.
    pub fn unreadable_crls(&self) -> &[usize] {
        &self.unreadable_crls
    }

    /// As [`Self::judge_within`], with a budget of its own.
    pub fn judge(
        &self,
        target: &Certificate,
        others: &[Arc<Certificate>],
        purpose: Purpose,
        at: Timestamp,
    ) -> Trust {
        self.judge_within(target, others, purpose, at, &Budget::default())
    }

    /// Judges a certificate at a time; `others` (from the message, bounded) may help to build the
    /// path.
    ///
    /// They are hints: what they are changes which paths are looked at, never what a path must be.
    /// A certificate that is itself an anchor is judged as [`Self::judge_pinned`] does.
    pub fn judge_within(
        &self,
        target: &Certificate,
        others: &[Arc<Certificate>],
        purpose: Purpose,
        at: Timestamp,
        budget: &Budget,
    ) -> Trust {
        let fingerprint = target.fingerprint();
        let unaided = Question { target: fingerprint, purpose, helped_by: HelpedBy::Nothing };
        let mut trust = self.verdicts.recall(&unaided, at);
        if trust.is_none() {
            let mut clock = Clock::new(at);
            let found = if self.is_anchor(fingerprint) {
                // Only lists that the administrator supplied are checked for it, as for what he pinned.
                self.judge_without_path(target, &[], purpose, &mut clock)
            } else {
                let is_whole = budget.is_whole();
                let found = self.judge_with_path(target, &[], purpose, &mut clock, budget);
                if !is_whole && budget.is_exhausted() {
                    // Not the answer to this question, but to all of the message's together.
                    return found;
                }
                found
            };
            self.verdicts.remember(unaided, clock.span(), found);
            trust = Some(found);
        }
        match trust {
            Some(trust) if trust == Trust::Trusted || others.is_empty() => trust,
            _ => self.judge_aided(target, others, purpose, at, budget),
        }
    }

    /// The same without a path: validity, usage, size, revocation by a CRL that its issuer signed
    /// where one is held. For certificates that the administrator imported himself; `chain`
    /// (bounded) came with it.
    ///
    /// Where a CRL is held under the issuer's name and the issuer's certificate is not among
    /// anchors, intermediates and chain, the CRL cannot be checked: [`Trust::RevocationUnknown`].
    pub fn judge_pinned(
        &self,
        target: &Certificate,
        chain: &[Arc<Certificate>],
        purpose: Purpose,
        at: Timestamp,
    ) -> Trust {
        let chain: Vec<&Certificate> =
            chain.iter().take(OFFERED_MAX).map(|certificate| &**certificate).collect();
        let helped_by = HelpedBy::Pin(digest_of(&chain));
        let question = Question { target: target.fingerprint(), purpose, helped_by };
        if let Some(trust) = self.verdicts.recall(&question, at) {
            return trust;
        }
        let mut clock = Clock::new(at);
        let trust = self.judge_without_path(target, &chain, purpose, &mut clock);
        self.verdicts.remember(question, clock.span(), trust);
        trust
    }

    /// Whether a certificate of our own, or one of the authorities above it on a path to an anchor, is revoked. Whether it is
    /// trusted otherwise is its readers' affair. `chain`: its issuers upwards.
    pub fn is_revoked(
        &self,
        target: &Certificate,
        chain: &[Arc<Certificate>],
        purpose: Purpose,
        at: Timestamp,
    ) -> bool {
        let is_revocation = |trust| matches!(trust, Trust::Revoked { .. });
        is_revocation(self.judge_pinned(target, chain, purpose, at))
            || is_revocation(self.judge(target, chain, purpose, at))
    }

    fn judge_aided(
        &self,
        target: &Certificate,
        others: &[Arc<Certificate>],
        purpose: Purpose,
        at: Timestamp,
        budget: &Budget,
    ) -> Trust {
        let target_fingerprint = target.fingerprint();
        if self.is_anchor(target_fingerprint) {
            return self.judge(target, &[], purpose, at);
        }
        let all = others.len();
        let others = looked_at(others);
        let is_cut = others.len() < all;
        let question = Question {
            target: target_fingerprint,
            purpose,
            helped_by: HelpedBy::Message(digest_of(&others)),
        };
        if !is_cut && let Some(trust) = self.verdicts.recall(&question, at) {
            return trust;
        }
        let mut clock = Clock::new(at);
        let is_whole = budget.is_whole();
        let trust = self.judge_with_path(target, &others, purpose, &mut clock, budget);
        if !is_whole && budget.is_exhausted() {
            return trust;
        }
        if is_cut {
            return if trust == Trust::Untrusted { Trust::OverLimit } else { trust };
        }
        self.verdicts.remember(question, clock.span(), trust);
        trust
    }

    fn is_anchor(&self, fingerprint: Fingerprint) -> bool {
        self.anchors.iter().any(|anchor| anchor.link().fingerprint() == fingerprint)
    }

    fn judge_with_path(
        &self,
        target: &Certificate,
        others: &[&Certificate],
        purpose: Purpose,
        clock: &mut Clock,
        budget: &Budget,
    ) -> Trust {
        let Some(link) = Link::parse(target) else { return Trust::Untrusted };
        if link.fitness() == KeyFitness::RsaOverLimit {
            return Trust::OverLimit;
        }
        let offered: Vec<Link> = others.iter().filter_map(|c| Link::parse(c)).collect();
        let found = self.judge_paths(&link, &offered, clock, budget, |_| {});
        conclude(found, &link, purpose)
    }

    /// The best that the paths to the anchors say, apart from purpose and the target's own key.
    fn judge_paths(
        &self,
        target: &Link,
        offered: &[Link],
        clock: &mut Clock,
        budget: &Budget,
        adjust: impl Fn(&mut CertificationPathSettings),
    ) -> Trust {
        let checks = &budget.0;
        let validator = Validator::new(Arc::clone(checks));
        let sources =
            Sources { anchors: &self.anchors, intermediates: &self.intermediates, offered };
        let authorities = Authorities {
            crls: &self.crls,
            intermediates: &self.intermediates,
            validator: &validator,
            checks,
        };
        let mut best = Trust::Untrusted;
        let searched = path::search(target, sources, checks, |path| {
            let found = match validator.validate(path, &adjust) {
                Validity::Broken => Trust::Untrusted,
                Validity::Holds => judge_valid_path(path, authorities, clock),
                Validity::OverLimit => Trust::OverLimit,
            };
            best = better(best, found);
            if found == Trust::Trusted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let is_cut = searched == Searched::InPart || checks.are_exhausted();
        if is_cut { better(best, Trust::OverLimit) } else { best }
    }

    fn judge_without_path(
        &self,
        target: &Certificate,
        chain: &[&Certificate],
        purpose: Purpose,
        clock: &mut Clock,
    ) -> Trust {
        let Some(link) = Link::parse(target) else { return Trust::Untrusted };
        if link.fitness() == KeyFitness::RsaOverLimit {
            return Trust::OverLimit;
        }
        let status = match self.status_of_pinned(&link, chain, clock) {
            Ok(status) => status,
            Err(TooManyChecks) => return Trust::OverLimit,
        };
        let (first, last) = link.validity();
        let is_current = clock.is_within(first, last);
        conclude(weigh(status, is_current, Strength::Strong), &link, purpose)
    }

    /// What CRLs say of a certificate for which no path is asked. Whoever signed it answers for it, held or come with it.
    /// What others that are held of that name revoke counts too: after a change of keys the new key's CRL may say more. What
    /// they alone call good is good where it is on a path, because a namesake vouches for nothing.
    fn status_of_pinned(
        &self,
        link: &Link,
        chain: &[&Certificate],
        clock: &mut Clock,
    ) -> Result<Status, TooManyChecks> {
        if !self.crls.are_held_for(link) {
            return Ok(Status::NotChecked);
        }
        let budget = Budget::default();
        let checks = &budget.0;
        let chain: Vec<Link> = chain.iter().filter_map(|c| Link::parse(c)).collect();
        let anchors = self.anchors.iter().map(Anchor::link);
        let held = anchors.chain(self.intermediates.iter().map(|link| &**link));
        let mut signers: Vec<&Link> = Vec::new();
        for other in held.clone().chain(&chain) {
            if other.subject_fold() == link.issuer_fold()
                && checks.verify(link.signed(), other.key())?.is_some()
            {
                signers.push(other);
            }
        }
        if signers.is_empty() {
            return Ok(Status::Unknown);
        }
        let by_signers = self.crls.status(link, &signers, clock, checks)?;
        if matches!(by_signers, Status::Revoked { .. }) {
            return Ok(by_signers);
        }
        signers.extend(held.filter(|other| may_sign_for(other, link)));
        match self.crls.status(link, &signers, clock, checks)? {
            Status::Good if by_signers != Status::Good => {
                let on_paths = self.judge_paths(link, &chain, clock, &budget, |_| {});
                Ok(if on_paths == Trust::Trusted { Status::Good } else { by_signers })
            }
            revoked @ Status::Revoked { .. } => Ok(revoked),
            _ => Ok(by_signers),
        }
    }
}

/// The signatures that may be checked for all certificates of one message together (REQUIREMENTS K6).
/// Each is checked, and counted, once. Over the limit nothing more is found: [`Trust::OverLimit`].
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Checks>);

impl Budget {
    /// Whether nothing was checked yet.
    fn is_whole(&self) -> bool {
        self.0.are_none()
    }

    fn is_exhausted(&self) -> bool {
        self.0.are_exhausted()
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
    /// A limit of REQUIREMENTS K5 (size of an RSA key) or K6 was reached.
    OverLimit,
    /// Revoked; `key_compromise` when the CRL entry's reason is keyCompromise or cACompromise.
    Revoked {
        /// Whether the key must be taken as stolen.
        key_compromise: bool,
    },
    /// CRLs are held for the issuer but none is current and usable: REQUIREMENTS D7, temperror.
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

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::OverLimit => "over-limit",
            Self::Revoked { .. } => "revoked",
            Self::RevocationUnknown => "revocation-unknown",
            Self::Trusted => "trusted",
            Self::Untrusted => "untrusted",
            Self::Weak => "weak",
            Self::WrongUsage => "wrong-usage",
        })
    }
}

/// What is left to ask of a path that holds apart from time and revocation.
fn judge_valid_path(path: &Path<'_>, authorities: Authorities<'_>, clock: &mut Clock) -> Trust {
    let Ok(status) = authorities.status_of(path, clock) else { return Trust::OverLimit };
    let mut is_current = true;
    for link in &path.links {
        let (first, last) = link.validity();
        is_current &= clock.is_within(first, last);
    }
    weigh(status, is_current, path.strength)
}

/// A path that holds, in the light of revocation, time and strength. A revocation outweighs
/// everything; what has expired is expired for good, whatever its CRLs.
fn weigh(status: Status, is_current: bool, strength: Strength) -> Trust {
    match status {
        Status::Revoked { key_compromise } => Trust::Revoked { key_compromise },
        _ if !is_current => Trust::Expired,
        _ if strength == Strength::Weak => Trust::Weak,
        Status::Unknown => Trust::RevocationUnknown,
        Status::Good | Status::NotChecked => Trust::Trusted,
    }
}

/// Adds what the certificate itself says: usage, and the size of its key.
fn conclude(found: Trust, link: &Link, purpose: Purpose) -> Trust {
    match found {
        Trust::Revoked { .. } | Trust::Untrusted | Trust::OverLimit => found,
        _ if link.fitness() == KeyFitness::Unsupported => Trust::Untrusted,
        _ if !link.permits(purpose) => Trust::WrongUsage,
        Trust::RevocationUnknown | Trust::Trusted if link.fitness() == KeyFitness::RsaWeak => {
            Trust::Weak
        }
        _ => found,
    }
}

/// Which of two paths' outcomes counts: a path that holds; else a revocation; else a search that
/// was cut short, which might have found better; else the one that is nearest to holding.
fn better(one: Trust, other: Trust) -> Trust {
    let rank = |trust: Trust| match trust {
        Trust::Trusted => 7,
        Trust::Revoked { key_compromise: true } => 6,
        Trust::Revoked { key_compromise: false } => 5,
        Trust::OverLimit => 4,
        Trust::RevocationUnknown => 3,
        Trust::Expired => 2,
        Trust::Weak | Trust::WrongUsage => 1,
        Trust::Untrusted => 0,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// SHA-256 over fingerprints in order: the order decides what a bounded search finds first.
fn digest_of(certificates: &[&Certificate]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for certificate in certificates {
        context.update(&certificate.fingerprint().0);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// The first certificates of a message, as many as are looked at. Each is read anew for each question.
fn looked_at(offered: &[Arc<Certificate>]) -> Vec<&Certificate> {
    let mut bytes = 0_usize;
    let within = |certificate: &&Certificate| {
        bytes = bytes.saturating_add(certificate.der().len());
        bytes <= OFFERED_BYTES_MAX
    };
    offered.iter().take(OFFERED_MAX).map(|certificate| &**certificate).take_while(within).collect()
}

/// Certificates of a message that are looked at (REQUIREMENTS K4).
const OFFERED_MAX: usize = 64;
/// Their octets: usual ones have one or two KiB.
const OFFERED_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod pkits;
#[cfg(test)]
mod tests;
