//! Proves that a token's secret key is the other half of a certificate's public key, by using both.

use cryptoki::object::ObjectHandle;
use sealgate_core::keys::Certificate;

use super::connection::Here;
use super::fault::Fault;
use super::operation::{Prepared, Request, sign, unwrap};
use crate::secret_key_store::proof::{DecryptingProof, KNOWN_TEXT, SigningProof};

/// Whether it is, by a signature where the certificate allows that, else by a decryption or key agreement. A token that
/// refuses the operation proves nothing.
pub(super) fn is_proven(
    here: &Here<'_>,
    object: ObjectHandle,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let result = if certificate.may_sign() {
        by_signature(here, object, certificate)
    } else {
        by_decryption(here, object, certificate)
    };
    match result {
        Err(Fault::Refused(why)) => {
            tracing::warn!(subject = certificate.subject(), why, "the token refuses the key's use");
            Ok(false)
        }
        other => other,
    }
}

fn by_signature(
    here: &Here<'_>,
    object: ObjectHandle,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let kind = certificate.key_kind();
    let Some(proof) = SigningProof::new(certificate) else { return Ok(false) };
    let Some(prepared) = Prepared::new(kind, proof.scheme, KNOWN_TEXT) else { return Ok(false) };
    let signature = sign(here, object, kind, &prepared)?;
    Ok(proof.is_met_by(certificate, &signature))
}

fn by_decryption(
    here: &Here<'_>,
    object: ObjectHandle,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let Some(proof) = DecryptingProof::new(certificate) else { return Ok(false) };
    let request = Request::new(&proof.transport());
    let plain = unwrap(here, object, certificate.key_kind(), &request)?;
    Ok(plain.is_some_and(|plain| proof.is_met_by(&plain)))
}
