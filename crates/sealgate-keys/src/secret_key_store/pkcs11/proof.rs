//! Proves that a token's secret key is the other half of a certificate's public key, by using both.

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::UnparsedPublicKey;
use cryptoki::object::ObjectHandle;
use sealgate_core::keys::{Certificate, KeyKind};

use super::connection::Here;
use super::fault::Fault;
use super::operation::{Prepared, Request, sign, unwrap};
use crate::secret_key_store::proof::scheme_for;

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
    let Some((scheme, algorithm)) = scheme_for(kind) else { return Ok(false) };
    let Some(prepared) = Prepared::new(kind, scheme, MESSAGE) else { return Ok(false) };
    let signature = sign(here, object, kind, &prepared)?;
    let public_key = UnparsedPublicKey::new(algorithm, certificate.public_key_bytes());
    Ok(public_key.verify(MESSAGE, &signature).is_ok())
}

fn by_decryption(
    here: &Here<'_>,
    object: ObjectHandle,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let kind = certificate.key_kind();
    let made = match kind {
        KeyKind::Rsa { .. } => encrypted(certificate),
        KeyKind::P256 => agreed(&agreement::ECDH_P256, certificate),
        KeyKind::P384 => agreed(&agreement::ECDH_P384, certificate),
        KeyKind::P521 => agreed(&agreement::ECDH_P521, certificate),
        KeyKind::X25519 => agreed(&agreement::X25519, certificate),
        _ => None,
    };
    let Some((request, expected)) = made else { return Ok(false) };
    let plain = unwrap(here, object, kind, &request)?;
    Ok(plain.is_some_and(|plain| *plain == expected))
}

fn encrypted(certificate: &Certificate) -> Option<(Request, Vec<u8>)> {
    let key = PublicEncryptingKey::from_der(certificate.public_key_info_der()).ok()?;
    let key = Pkcs1PublicEncryptingKey::new(key).ok()?;
    let mut encrypted_key = vec![0; key.ciphertext_size()];
    let length = key.encrypt(MESSAGE, &mut encrypted_key).ok()?.len();
    encrypted_key.truncate(length);
    Some((Request::RsaPkcs1 { encrypted_key }, MESSAGE.to_vec()))
}

fn agreed(
    algorithm: &'static agreement::Algorithm,
    certificate: &Certificate,
) -> Option<(Request, Vec<u8>)> {
    let ours = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).ok()?;
    let ephemeral = ours.compute_public_key().ok()?.as_ref().to_vec();
    let theirs = agreement::UnparsedPublicKey::new(algorithm, certificate.public_key_bytes());
    let expected = agree_ephemeral(ours, theirs, (), |z| Ok(z.to_vec())).ok()?;
    Some((Request::Ecdh { ephemeral }, expected))
}

const MESSAGE: &[u8] = b"sealgate: does this key belong to";
