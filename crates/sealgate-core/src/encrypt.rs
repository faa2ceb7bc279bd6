//! Mail encryption: which certificate of a recipient is encrypted to, and the encryption itself.
//!
//! Candidates of the public key store go in; what is expired, revoked, weak, for another address or another usage is not
//! used (REQUIREMENTS B7, G1, G2, G4), even if that leaves none.

use std::sync::Arc;

use crate::address::Address;
use crate::cms::{self, KeyWrap};
use crate::keys::{Capabilities, Certificate, KeyKind, OwnKey, PublicKey, RSA_BITS_MAX, Timestamp};
use crate::trust::{Purpose, Trust, TrustStore};

pub mod smime;

/// A certificate chosen for one recipient.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// How the content-encryption key is wrapped for it.
    pub wrap: KeyWrap,
    /// Whether the recipient is known to read AES-256-GCM.
    pub reads_gcm: bool,
}

impl Chosen {
    /// How the key is wrapped, in the report's words.
    pub fn wrap_name(&self) -> &'static str {
        match (self.wrap, self.certificate.key_kind()) {
            (KeyWrap::Ecdh, KeyKind::P256) => "ecdh-p256",
            (KeyWrap::Ecdh, KeyKind::P384) => "ecdh-p384",
            (KeyWrap::Ecdh, KeyKind::P521) => "ecdh-p521",
            (KeyWrap::Ecdh, KeyKind::X25519) => "ecdh-x25519",
            (wrap, _) => wrap.name(),
        }
    }
}

/// Why a recipient cannot be encrypted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// No certificate, or none that is usable.
    Unusable,
    /// One may be usable, but its revocation (G7) or, by a doubtful clock (O15), its validity cannot be judged now, or there
    /// are more than are looked at: never treated as absent.
    Undecided,
}

/// The certificate to encrypt to for a recipient: one of his own, and his domain's where none of these can be used. Where the clock is in
/// doubt, what is only outside its validity is undecided.
///
/// # Errors
/// [`NoKey`].
pub fn choose_certificate(
    candidates: &[PublicKey],
    recipient: &Address,
    trust: &TrustStore,
    now: Timestamp,
    clock_is_doubtful: bool,
) -> Result<Chosen, NoKey> {
    let choose = |of_domain| {
        let candidates = candidates.iter().filter(|candidate| candidate.of_domain == of_domain);
        choose_among(candidates, recipient, trust, now, clock_is_doubtful)
    };
    match choose(false) {
        Err(NoKey::Unusable) => choose(true),
        chosen_or_undecided => chosen_or_undecided,
    }
}

fn choose_among<'a>(
    candidates: impl Iterator<Item = &'a PublicKey>,
    recipient: &Address,
    trust: &TrustStore,
    now: Timestamp,
    clock_is_doubtful: bool,
) -> Result<Chosen, NoKey> {
    // Whether somebody is believed costs most, so it is asked of those only that could be used.
    let eligible: Vec<&PublicKey> = candidates
        .filter(|candidate| clock_is_doubtful || candidate.certificate.is_valid_at(now))
        .filter(|candidate| candidate.pinned || candidate.certificate.names(recipient))
        .filter(|candidate| !is_too_long(candidate.certificate.key_kind()))
        .collect();
    // What is not looked at may be the one.
    let mut undecided = eligible.len() > CANDIDATES_MAX;
    let mut usable: Vec<Chosen> = Vec::new();
    for candidate in eligible.into_iter().take(CANDIDATES_MAX) {
        match judge(candidate, trust, now) {
            Trust::Trusted => usable.extend(chosen(candidate)),
            // A search that was cut short might have found better.
            Trust::OverLimit | Trust::RevocationUnknown => undecided = true,
            Trust::Expired if clock_is_doubtful => undecided = true,
            _ => {}
        }
    }
    usable.sort_by_key(preference);
    match usable.pop() {
        Some(best) => Ok(best),
        None if undecided => Err(NoKey::Undecided),
        None => Err(NoKey::Unusable),
    }
}

/// Our own certificate for copies that the originator can open (B11), and for others to encrypt to (B14): the newest of
/// those that are a mailbox's and usable now.
pub fn choose_own(keys: &[OwnKey], trust: &TrustStore, now: Timestamp) -> Option<Chosen> {
    keys.iter()
        .filter(|key| key.address.is_some() && key.is_active)
        .filter(|key| !trust.is_revoked(&key.certificate, &key.chain, Purpose::Encrypt, now))
        .filter_map(|key| own_certificate(&key.certificate, now))
        .max_by_key(|chosen| chosen.certificate.not_before())
}

/// How to encrypt to a certificate of our own; `None` where it is not valid or not meant for that.
pub fn own_certificate(certificate: &Arc<Certificate>, now: Timestamp) -> Option<Chosen> {
    if !certificate.is_valid_at(now) || !certificate.may_encrypt() {
        return None;
    }
    let capabilities = certificate.capabilities();
    let wrap = cms::key_wrap_for(certificate.key_kind(), capabilities.as_ref())?;
    Some(Chosen { certificate: Arc::clone(certificate), wrap, reads_gcm: true })
}

fn judge(candidate: &PublicKey, trust: &TrustStore, now: Timestamp) -> Trust {
    let certificate = &candidate.certificate;
    if !certificate.may_encrypt() || !certificate.is_for_mail() {
        return Trust::WrongUsage;
    }
    let intermediates = &candidate.intermediates;
    if candidate.pinned {
        // The administrator bound it to this address himself.
        return trust.judge_pinned(certificate, intermediates, Purpose::Encrypt, now);
    }
    trust.judge(certificate, intermediates, Purpose::Encrypt, now)
}

/// REQUIREMENTS K5: for good, unlike a search for its path that was cut short.
fn is_too_long(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::Rsa { bits } if bits > RSA_BITS_MAX)
}

fn chosen(candidate: &PublicKey) -> Option<Chosen> {
    let capabilities = merged(candidate.certificate.capabilities(), candidate.capabilities);
    let wrap = cms::key_wrap_for(candidate.certificate.key_kind(), capabilities.as_ref())?;
    Some(Chosen {
        certificate: Arc::clone(&candidate.certificate),
        wrap,
        reads_gcm: capabilities.is_some_and(|known| known.aes_256_gcm),
    })
}

/// What the certificate says and what was learned from signed mail add up.
fn merged(
    of_certificate: Option<Capabilities>,
    learned: Option<Capabilities>,
) -> Option<Capabilities> {
    let (Some(a), Some(b)) = (of_certificate, learned) else { return of_certificate.or(learned) };
    Some(Capabilities {
        aes_128_gcm: a.aes_128_gcm || b.aes_128_gcm,
        aes_256_cbc: a.aes_256_cbc || b.aes_256_cbc,
        aes_256_gcm: a.aes_256_gcm || b.aes_256_gcm,
        rsa_oaep: a.rsa_oaep || b.rsa_oaep,
    })
}

/// REQUIREMENTS G12: the newest, then EC, then one known to read AEAD; the fingerprint makes it deterministic.
fn preference(chosen: &Chosen) -> (Timestamp, bool, bool, crate::keys::Fingerprint) {
    let certificate = &chosen.certificate;
    let elliptic = !matches!(certificate.key_kind(), KeyKind::Rsa { .. });
    (certificate.not_before(), elliptic, chosen.reads_gcm, certificate.fingerprint())
}

/// Certificates judged for one address; a directory may hold many.
const CANDIDATES_MAX: usize = 32;
