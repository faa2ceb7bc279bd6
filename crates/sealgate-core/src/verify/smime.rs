//! S/MIME signatures (RFC 8551 §3.5, RFC 5652 §5): each signer's mathematics, certificate and address.

use std::sync::Arc;

use crate::address::Address;
use crate::cms::{SignatureFault, SignedData, SignerInfo};
use crate::keys::{Certificate, KeyKind, PublicKey};
use crate::report::{Format, Layer, Reason, SignatureStatus, Signer, Verdict};
use crate::trust::{Purpose, Trust};
use crate::verify::{Checked, Harvest, Judge};

/// Checks every signer over the bytes received. A message without signers is not signed: `None`.
///
/// One falsified signature falsifies the whole; it passes when one signer passes and none fails (REQUIREMENTS D18).
pub fn check(signed: &SignedData, content: &[u8], judge: &Judge<'_>) -> Option<Checked> {
    let mut all: Vec<Checked> =
        signed.signers.iter().map(|signer| one(signed, signer, content, judge)).collect();
    let rank = |checked: &Checked| match (checked.status, checked.verdict) {
        (SignatureStatus::Falsified, _) => 0,
        _ if checked.key_compromised => 1,
        (_, Verdict::Fail) => 2,
        (_, Verdict::Pass) => 3,
        (SignatureStatus::Valid, _) => 4,
        (SignatureStatus::Unverifiable, _) => 5,
    };
    all.sort_by_key(rank);
    all.into_iter().next()
}

fn is_short(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::Rsa { bits } if bits < RSA_BITS_STRONG_MIN)
}

fn one(signed: &SignedData, signer: &SignerInfo, content: &[u8], judge: &Judge<'_>) -> Checked {
    let known = judge.known.iter().map(|key| &key.certificate);
    let candidates = signed.certificates.iter().chain(known);
    let Some(certificate) = signer.certificate(candidates, judge.now) else {
        return unverifiable(signer, None, Verdict::PermError, Reason::CertificateMissing);
    };
    // Before the mathematics, which does not take such keys.
    if matches!(certificate.key_kind(), KeyKind::Rsa { bits } if bits < RSA_BITS_COUNTED_MIN) {
        return unverifiable(signer, Some(certificate), Verdict::None, Reason::Weak);
    }
    match signer.verify(content, certificate) {
        Ok(()) => {}
        Err(SignatureFault::Falsified) => return falsified(signer, certificate, judge),
        // aws-lc has short keys for some digests only.
        Err(SignatureFault::Unsupported)
            if signer.is_weak_digest() || is_short(certificate.key_kind()) =>
        {
            return unverifiable(signer, Some(certificate), Verdict::Policy, Reason::Weak);
        }
        Err(SignatureFault::Unsupported) => {
            return unverifiable(signer, Some(certificate), Verdict::Neutral, Reason::Unsupported);
        }
    }
    let trust = trust_in(certificate, signed, judge);
    let pinned = pinned(certificate, judge);
    let names = judge.author.is_some_and(|author| certificate.names(author));
    let is_authors_own = judge.author.is_some() && (names || pinned.is_some());
    let for_domain =
        judge.author.filter(|_| trust == Trust::Trusted && !is_authors_own).and_then(|author| {
            certificate.addresses().iter().find(|address| signs_for_domain_of(address, author))
        });
    let names_author = is_authors_own || for_domain.is_some();
    let (verdict, reason) = match trust {
        Trust::Trusted if signer.is_weak_digest() => (Verdict::Policy, Some(Reason::Weak)),
        Trust::Trusted if names_author => (Verdict::Pass, None),
        Trust::Trusted => (Verdict::Policy, Some(Reason::SignerMismatch)),
        Trust::Expired if judge.clock_is_doubtful => {
            (Verdict::TempError, Some(Reason::ClockDoubtful))
        }
        Trust::Expired => (Verdict::Policy, Some(Reason::Expired)),
        Trust::Revoked { .. } => (Verdict::Fail, Some(Reason::Revoked)),
        Trust::RevocationUnknown => (Verdict::TempError, Some(Reason::RevocationUnknown)),
        Trust::OverLimit => (Verdict::PermError, Some(Reason::OverLimit)),
        Trust::Untrusted => (Verdict::Policy, Some(Reason::Untrusted)),
        Trust::Weak => (Verdict::Policy, Some(Reason::Weak)),
        Trust::WrongUsage => (Verdict::Policy, Some(Reason::WrongUsage)),
    };
    Checked {
        status: SignatureStatus::Valid,
        verdict,
        reason,
        names_author,
        is_authors_own,
        is_gateways: !names && pinned.is_some_and(|pinned| pinned.of_domain),
        key_compromised: trust == Trust::Revoked { key_compromise: true },
        layer: layer(
            signer,
            certificate,
            SignatureStatus::Valid,
            for_domain.or_else(|| matched(certificate, judge)),
        ),
        // A domain's signature teaches nothing about the author's own keys (REQUIREMENTS §3).
        harvest: if verdict == Verdict::Pass && is_authors_own {
            harvest(signed, signer, certificate, judge)
        } else {
            None
        },
    }
}

/// By a path to an anchor, else because the administrator imported this very certificate.
fn trust_in(certificate: &Arc<Certificate>, signed: &SignedData, judge: &Judge<'_>) -> Trust {
    let by_path = judge.judge(certificate, signed, Purpose::Sign);
    if by_path == Trust::Untrusted
        && let Some(pinned) = pinned(certificate, judge)
    {
        let intermediates = &pinned.intermediates;
        return judge.trust.judge_pinned(certificate, intermediates, Purpose::Sign, judge.now);
    }
    by_path
}

impl Judge<'_> {
    /// By a path that the certificates in the message may help to build.
    fn judge(&self, certificate: &Certificate, signed: &SignedData, purpose: Purpose) -> Trust {
        let (others, at) = (&signed.certificates, self.now);
        self.trust.judge_within(certificate, others, purpose, at, self.budget)
    }
}

fn pinned<'k>(certificate: &Certificate, judge: &Judge<'k>) -> Option<&'k PublicKey> {
    let fingerprint = certificate.fingerprint();
    judge.known.iter().find(|key| key.pinned && key.certificate.fingerprint() == fingerprint)
}

/// Whether an address is the one by which the author's domain, or one above it, signs for its
/// mailboxes (RFC 3183 §3.1.1).
///
/// The subject's common name is not looked at: what an authority checks is the address, and whoever
/// has a mailbox must not become his domain by the name that he asks for. A top-level domain is
/// nobody's to sign for.
fn signs_for_domain_of(address: &Address, author: &Address) -> bool {
    let domain = address.domain();
    let is_same_or_above = author
        .domain()
        .as_str()
        .strip_suffix(domain.as_str())
        .is_some_and(|below| below.is_empty() || below.ends_with('.'));
    address.local_part().eq_ignore_ascii_case(DOMAIN_SIGNING_AUTHORITY)
        && !domain.is_literal()
        && domain.as_str().contains('.')
        && is_same_or_above
}

fn falsified(signer: &SignerInfo, certificate: &Certificate, judge: &Judge<'_>) -> Checked {
    Checked {
        status: SignatureStatus::Falsified,
        verdict: Verdict::Fail,
        reason: Some(Reason::Falsified),
        names_author: false,
        is_authors_own: false,
        is_gateways: false,
        key_compromised: false,
        layer: layer(signer, certificate, SignatureStatus::Falsified, matched(certificate, judge)),
        harvest: None,
    }
}

fn unverifiable(
    signer: &SignerInfo,
    certificate: Option<&Arc<Certificate>>,
    verdict: Verdict,
    reason: Reason,
) -> Checked {
    let signature = certificate.map_or("unknown", |known| signer.signature_name(known));
    Checked {
        status: SignatureStatus::Unverifiable,
        verdict,
        reason: Some(reason),
        names_author: false,
        is_authors_own: false,
        is_gateways: false,
        key_compromised: false,
        layer: Layer::Signed {
            format: Format::Smime,
            status: SignatureStatus::Unverifiable,
            signer: certificate.map(|known| Signer::of(known, None)),
            digest: signer.digest_name().to_owned(),
            signature: signature.to_owned(),
        },
        harvest: None,
    }
}

fn layer(
    signer: &SignerInfo,
    certificate: &Certificate,
    status: SignatureStatus,
    matched: Option<&Address>,
) -> Layer {
    Layer::Signed {
        format: Format::Smime,
        status,
        signer: Some(Signer::of(certificate, matched)),
        digest: signer.digest_name().to_owned(),
        signature: signer.signature_name(certificate).to_owned(),
    }
}

/// The author's address, if the certificate has it.
fn matched<'a>(certificate: &Certificate, judge: &Judge<'a>) -> Option<&'a Address> {
    judge.author.filter(|author| certificate.names(author))
}

fn harvest(
    signed: &SignedData,
    signer: &SignerInfo,
    certificate: &Arc<Certificate>,
    judge: &Judge<'_>,
) -> Option<Harvest> {
    let address = judge.author?.clone();
    let mut certificates: Vec<Arc<Certificate>> = Vec::new();
    let mut judged = 0_usize;
    let preferred = signer.encryption_certificate(signed.certificates.iter());
    for candidate in preferred.into_iter().chain([certificate]).chain(&signed.certificates) {
        let is_new =
            certificates.iter().all(|other| other.fingerprint() != candidate.fingerprint());
        // Only what a path proves to be the author's own: a certificate that merely lies in the mail proves nothing.
        let usable = is_new
            && candidate.may_encrypt()
            && !candidate.is_authority()
            && candidate.names(&address);
        if !usable || judged == HARVESTED_MAX {
            continue;
        }
        judged = judged.saturating_add(1);
        if judge.judge(candidate, signed, Purpose::Encrypt) == Trust::Trusted {
            certificates.push(Arc::clone(candidate));
        }
    }
    Some(Harvest {
        address,
        certificates,
        intermediates: signed
            .certificates
            .iter()
            .filter(|one| one.is_authority())
            .cloned()
            .collect(),
        capabilities: signer.capabilities(),
        signed_at: signer.signing_time(),
    })
}

/// REQUIREMENTS D10: signatures of RSA keys below this are treated as no signature.
const RSA_BITS_COUNTED_MIN: u32 = 1024;
/// Below this a signature is weak (REQUIREMENTS D10).
const RSA_BITS_STRONG_MIN: u32 = 2048;
/// Certificates of one message that are judged for what may be encrypted to them.
const HARVESTED_MAX: usize = 8;
/// The local part of RFC 3183 §3.1.1.
const DOMAIN_SIGNING_AUTHORITY: &str = "domain-signing-authority";

#[cfg(test)]
mod tests;
