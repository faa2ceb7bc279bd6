//! Proves that a token's secret key is the other half of a certificate's public key, by using both.

use cryptoki::object::ObjectHandle;
use sealgate_core::keys::{Certificate, KeyKind};

use super::connection::Here;
use super::fault::Fault;
use super::objects::Uses;
use super::operation::{Prepared, Request, sign, unwrap};
use crate::secret_key_store::KeyPurpose;
use crate::secret_key_store::proof::{DecryptingProof, KNOWN_TEXT, SigningProof, prove_by};

/// One use of the key that shows whose it is.
type Trial = fn(&Here<'_>, ObjectHandle, &Certificate) -> Result<bool, Fault>;

/// Whether it is, by a signature or else by a decryption or key agreement: by what the key may do, and where the token does
/// not tell that, by what the certificate allows. One way proves both, because it is one pair of keys.
///
/// # Errors
/// [`Fault::Incapable`] and [`Fault::Refused`] where the token does neither, which proves nothing.
pub(super) fn is_proven(
    here: &Here<'_>,
    object: ObjectHandle,
    may: Uses,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let decrypts = if matches!(certificate.key_kind(), KeyKind::Rsa { .. }) {
        may.decrypt
    } else {
        may.derive
    };
    let signs_first = match (may.sign, decrypts) {
        (Some(false), _) => false,
        (_, Some(false)) => true,
        _ => certificate.may_sign(),
    };
    let (first, second): (Trial, Trial) =
        if signs_first { (by_signature, by_decryption) } else { (by_decryption, by_signature) };
    match first(here, object, certificate) {
        Err(refusal @ (Fault::Incapable(_) | Fault::Refused(_))) => {
            second(here, object, certificate).map_err(|fault| match fault {
                Fault::Incapable(_) | Fault::Refused(_) => refusal,
                other => other,
            })
        }
        other => other,
    }
}

/// Everything that the key is for, each way that mail needs.
///
/// # Errors
/// [`Fault::Refused`] that says what it does not do.
pub(super) fn is_fit(
    here: &Here<'_>,
    object: ObjectHandle,
    purpose: KeyPurpose,
    certificate: &Certificate,
) -> Result<(), Fault> {
    let kind = certificate.key_kind();
    prove_by(
        purpose,
        certificate,
        |scheme| {
            let prepared = Prepared::new(kind, scheme, KNOWN_TEXT).ok_or_else(unprovable)?;
            Ok(sign(here, object, kind, &prepared)?)
        },
        |transport| Ok(unwrap(here, object, kind, &Request::new(transport))?),
        |what, why| match why {
            None => Fault::Refused(what.to_owned()),
            Some(Fault::Incapable(why) | Fault::Refused(why)) => {
                Fault::Refused(format!("{what}: {why}"))
            }
            Some(other) => other,
        },
    )
}

fn by_signature(
    here: &Here<'_>,
    object: ObjectHandle,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let kind = certificate.key_kind();
    let proof = SigningProof::new(certificate).ok_or_else(unprovable)?;
    let prepared = Prepared::new(kind, proof.scheme, KNOWN_TEXT).ok_or_else(unprovable)?;
    let signature = sign(here, object, kind, &prepared)?;
    Ok(proof.is_met_by(certificate, &signature))
}

fn by_decryption(
    here: &Here<'_>,
    object: ObjectHandle,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let proof = DecryptingProof::new(certificate).ok_or_else(unprovable)?;
    let request = Request::new(&proof.transport());
    let plain = unwrap(here, object, certificate.key_kind(), &request)?;
    Ok(plain.is_some_and(|plain| proof.is_met_by(&plain)))
}

fn unprovable() -> Fault {
    Fault::Incapable("a kind of key that does not do this".to_owned())
}
