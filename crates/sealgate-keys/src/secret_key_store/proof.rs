//! Whether a key that was taken in by a store outside is usable there and is the right one: what it signs is what the
//! key itself signs for, and what it unwraps is what the key itself unwraps.

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sealgate_core::keys::{
    Certificate, Digest, KeyKind, KeyTransport, SecretKey, SignatureScheme, SoftwareKey,
};

use super::{KeyPurpose, NewSecretKey};

/// Tries the handle against the key; the error says what it cannot do.
pub(crate) fn prove(handle: &dyn SecretKey, key: &NewSecretKey) -> Result<(), String> {
    if key.purpose.serves(KeyPurpose::Sign) {
        prove_signing(handle, &key.certificate)?;
    }
    if key.purpose.serves(KeyPurpose::Encrypt) {
        prove_unwrapping(handle, key)?;
    }
    Ok(())
}

fn prove_signing(handle: &dyn SecretKey, certificate: &Certificate) -> Result<(), String> {
    let (scheme, algorithm) = if certificate.is_pss_only() {
        let algorithm: &'static dyn VerificationAlgorithm = &signature::RSA_PSS_2048_8192_SHA256;
        (SignatureScheme::RsaPss(Digest::Sha256), algorithm)
    } else {
        scheme_for(certificate.key_kind()).ok_or("a kind of key that cannot sign")?
    };
    let signature = handle.sign(scheme, KNOWN_TEXT).map_err(|error| error.to_string())?;
    let public = UnparsedPublicKey::new(algorithm, certificate.public_key_bytes());
    public.verify(KNOWN_TEXT, &signature).map_err(|_| "it signs with another key".to_owned())
}

/// What keys of a kind sign a proof with, and what verifies it; `None` for kinds that do not sign.
pub(crate) fn scheme_for(
    kind: KeyKind,
) -> Option<(SignatureScheme, &'static dyn VerificationAlgorithm)> {
    Some(match kind {
        KeyKind::Rsa { .. } => {
            (SignatureScheme::RsaPkcs1(Digest::Sha256), &signature::RSA_PKCS1_2048_8192_SHA256)
        }
        KeyKind::P256 => {
            (SignatureScheme::Ecdsa(Digest::Sha256), &signature::ECDSA_P256_SHA256_ASN1)
        }
        KeyKind::P384 => {
            (SignatureScheme::Ecdsa(Digest::Sha384), &signature::ECDSA_P384_SHA384_ASN1)
        }
        KeyKind::P521 => {
            (SignatureScheme::Ecdsa(Digest::Sha512), &signature::ECDSA_P521_SHA512_ASN1)
        }
        KeyKind::Ed25519 => (SignatureScheme::Ed25519, &signature::ED25519),
        _ => return None,
    })
}

fn prove_unwrapping(handle: &dyn SecretKey, key: &NewSecretKey) -> Result<(), String> {
    let own = SoftwareKey::from_pkcs8(&key.pkcs8).map_err(|error| error.to_string())?;
    let encrypted;
    let transport = match key.certificate.key_kind() {
        KeyKind::Rsa { .. } => {
            encrypted = encrypt(&key.certificate).ok_or("its public key does not encrypt")?;
            KeyTransport::RsaOaep { digest: Digest::Sha256, encrypted_key: &encrypted }
        }
        // Agreement with oneself is as good as with anybody.
        _ => KeyTransport::Ecdh { ephemeral: key.certificate.public_key_bytes() },
    };
    let expected = own.unwrap(&transport).map_err(|error| error.to_string())?;
    let unwrapped = handle.unwrap(&transport).map_err(|error| error.to_string())?;
    if unwrapped == expected { Ok(()) } else { Err("it decrypts with another key".to_owned()) }
}

fn encrypt(certificate: &Certificate) -> Option<Vec<u8>> {
    let public = PublicEncryptingKey::from_der(certificate.public_key_info_der()).ok()?;
    let public = OaepPublicEncryptingKey::new(public).ok()?;
    let mut out = vec![0; public.ciphertext_size()];
    let encrypted = public.encrypt(&OAEP_SHA256_MGF1SHA256, KNOWN_TEXT, &mut out, None).ok()?;
    Some(encrypted.to_vec())
}

const KNOWN_TEXT: &[u8] = b"sealgate looks whether this key is the right one";
