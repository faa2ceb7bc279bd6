//! Mail encryption: which certificate of a recipient is encrypted to, and the encryption itself.
//!
//! Candidates of the public key store go in; what is expired, revoked, weak, for another address or another usage is not
//! used (REQUIREMENTS B7, G1, G2, G4), even if that leaves none.

use std::sync::Arc;

use crate::address::Address;
use crate::cms::{self, KeyWrap};
use crate::keys::{Capabilities, Certificate, KeyKind, PublicKey, Timestamp};
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
    /// One may be usable, but its revocation (G7) or, by a doubtful clock (O15), its validity cannot be judged now: never
    /// treated as absent.
    Undecided,
}

/// The certificate to encrypt to for a recipient. Where the clock is in doubt, what is only outside its validity is undecided.
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
    let mut undecided = false;
    let mut usable: Vec<Chosen> = Vec::new();
    for candidate in candidates.iter().take(CANDIDATES_MAX) {
        match judge(candidate, recipient, trust, now) {
            Trust::Trusted => usable.extend(chosen(candidate)),
            Trust::RevocationUnknown => undecided = true,
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

/// A certificate of our own for copies that the originator can open (B11).
pub fn own_certificate(certificate: &Arc<Certificate>, now: Timestamp) -> Option<Chosen> {
    if !certificate.is_valid_at(now) || !certificate.may_encrypt() {
        return None;
    }
    let capabilities = certificate.capabilities();
    let wrap = cms::key_wrap_for(certificate.key_kind(), capabilities.as_ref())?;
    Some(Chosen { certificate: Arc::clone(certificate), wrap, reads_gcm: true })
}

fn judge(candidate: &PublicKey, recipient: &Address, trust: &TrustStore, now: Timestamp) -> Trust {
    let certificate = &candidate.certificate;
    if !certificate.may_encrypt() || !certificate.is_for_mail() {
        return Trust::WrongUsage;
    }
    if candidate.pinned {
        // The administrator bound it to this address himself.
        return trust.judge_pinned(certificate, Purpose::Encrypt, now);
    }
    if !certificate.names(recipient) {
        return Trust::Untrusted;
    }
    trust.judge(certificate, &candidate.intermediates, Purpose::Encrypt, now)
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

/// Certificates looked at for one address; a directory may hold many.
const CANDIDATES_MAX: usize = 32;
