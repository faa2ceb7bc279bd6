//! Mail signature attaching: which of our keys signs for an originator, and the signature itself.
//!
//! An entity goes in, a multipart/signed entity comes out. What format it has is its submodule's affair.

use crate::address::Address;
use crate::cms;
use crate::keys::{OwnKey, Timestamp};
use crate::trust::{Purpose, TrustStore};

pub mod smime;

/// The key that signs for an originator: one that is his own before his domain's, valid now, not revoked, usable for
/// signing, the newest of several.
pub fn choose_key<'a>(
    keys: &'a [OwnKey],
    originator: &Address,
    trust: &TrustStore,
    now: Timestamp,
) -> Option<&'a OwnKey> {
    let usable = keys.iter().filter(|key| is_usable(key, originator, trust, now));
    usable.max_by_key(|key| {
        let certificate = &key.certificate;
        (key.address.is_some(), certificate.not_before(), certificate.fingerprint())
    })
}

/// Whether there would be a key at another time.
pub fn would_be_usable(keys: &[OwnKey], originator: &Address) -> bool {
    keys.iter().any(|key| is_for(key, originator))
}

/// REQUIREMENTS B7: what is expired or revoked is not used.
fn is_usable(key: &OwnKey, originator: &Address, trust: &TrustStore, now: Timestamp) -> bool {
    is_for(key, originator)
        && key.certificate.is_valid_at(now)
        && !trust.is_revoked(&key.certificate, &key.chain, Purpose::Sign, now)
}

/// REQUIREMENTS B7: what is not meant for signing is not used; 0.4: nor what is another's.
fn is_for(key: &OwnKey, originator: &Address) -> bool {
    let certificate = &key.certificate;
    key.address.as_ref().is_none_or(|address| address == originator)
        && certificate.may_sign()
        && certificate.is_for_mail()
        && cms::default_scheme(certificate).is_some()
}
