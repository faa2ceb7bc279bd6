//! Checking one signature value with aws-lc-rs.
//!
//! In: scheme, certificate, the octets that are covered, the signature value. Sizes and exponent of
//! an RSA key are looked at before any arithmetic, so that a 16k-bit key costs nothing
//! (REQUIREMENTS K5).

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPssSaltLength, UnparsedPublicKey,
};

use super::algorithm::Signature;
use super::element::{INTEGER, Reader, SEQUENCE};
use super::signed_data::SignatureFault;
use crate::keys::{Certificate, Digest, KeyKind, RSA_BITS_MAX};

/// Checks a signature value.
pub(super) fn verify_signature(
    scheme: Signature,
    certificate: &Certificate,
    message: &[u8],
    value: &[u8],
) -> Result<(), SignatureFault> {
    let key = certificate.public_key_bytes();
    let holds = match (scheme, certificate.key_kind()) {
        (_, KeyKind::Unsupported) => return Err(SignatureFault::Unsupported),
        // RFC 4055 §1.2, §3.3: such a key MUST NOT be used otherwise. No proof of falsification,
        // because OpenSSL 3.0 calls its PSS signatures rsaEncryption with such keys.
        (_, KeyKind::Rsa { .. }) if !is_allowed(scheme, certificate) => {
            return Err(SignatureFault::Unsupported);
        }
        (Signature::RsaPkcs1(digest), KeyKind::Rsa { bits }) => {
            rsa_components(key, bits)?.verify(&pkcs1(digest, bits)?, message, value).is_ok()
        }
        (Signature::RsaPss { digest, salt_bytes }, KeyKind::Rsa { bits }) => {
            rsa_components(key, bits)?
                .verify(&pss(digest, bits, salt_bytes)?, message, value)
                .is_ok()
        }
        (Signature::Ecdsa(digest), KeyKind::P256 | KeyKind::P384 | KeyKind::P521) => {
            let algorithm = ecdsa(digest, certificate.key_kind())?;
            UnparsedPublicKey::new(algorithm, key).verify(message, value).is_ok()
        }
        (Signature::Ed25519, KeyKind::Ed25519) => {
            UnparsedPublicKey::new(&signature::ED25519, key).verify(message, value).is_ok()
        }
        // The certificate's key cannot have made such a signature.
        _ => false,
    };
    if holds { Ok(()) } else { Err(SignatureFault::Falsified) }
}

/// Whether a key for RSASSA-PSS alone is used for that, with its digest and no shorter salt.
fn is_allowed(scheme: Signature, certificate: &Certificate) -> bool {
    match (scheme, certificate.pss_restriction()) {
        _ if !certificate.is_pss_only() => true,
        (
            Signature::RsaPss { digest, salt_bytes },
            Some(Signature::RsaPss { digest: named, salt_bytes: least }),
        ) => digest == named && salt_bytes >= least,
        (Signature::RsaPss { .. }, None) => true,
        _ => false,
    }
}

/// Modulus and exponent of an RSAPublicKey within the limits.
fn rsa_components(key: &[u8], bits: u32) -> Result<PublicKeyComponents<&[u8]>, SignatureFault> {
    let unsupported = SignatureFault::Unsupported;
    let mut members = Reader::only(key, SEQUENCE).map_err(|_| unsupported)?.reader();
    let modulus = members.expect(INTEGER).map_err(|_| unsupported)?.body;
    let exponent = members.expect(INTEGER).map_err(|_| unsupported)?.body;
    members.finish().map_err(|_| unsupported)?;
    let is_odd = |digits: &[u8]| digits.last().is_some_and(|last| last & 1 == 1);
    let n = unsigned(modulus).filter(|digits| is_odd(digits)).ok_or(unsupported)?;
    let e = unsigned(exponent).filter(|digits| is_odd(digits)).ok_or(unsupported)?;
    let sizes_fit = (MODULUS_BITS_MIN..=RSA_BITS_MAX).contains(&bits)
        && bit_length(e) <= EXPONENT_BITS_MAX
        && e != [1];
    if sizes_fit { Ok(PublicKeyComponents { n, e }) } else { Err(unsupported) }
}

/// The digits of a positive INTEGER.
fn unsigned(body: &[u8]) -> Option<&[u8]> {
    match body {
        [0, digits @ ..] => Some(digits),
        [first, ..] if *first < 0x80 => Some(body),
        _ => None,
    }
}

/// Significant bits of a big-endian number.
fn bit_length(digits: &[u8]) -> usize {
    let mut digits = digits.iter().skip_while(|&&digit| digit == 0);
    digits.next().map_or(0, |first| {
        let below = digits.count().saturating_mul(8);
        below.saturating_add(usize::try_from(first.ilog2()).unwrap_or_default()).saturating_add(1)
    })
}

fn pkcs1(digest: Digest, bits: u32) -> Result<RsaParameters, SignatureFault> {
    match digest {
        Digest::Sha1 => Ok(signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
        Digest::Sha256 => Ok(signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
        Digest::Sha384 if bits >= 2048 => Ok(signature::RSA_PKCS1_2048_8192_SHA384),
        Digest::Sha384 => Err(SignatureFault::Unsupported),
        Digest::Sha512 => Ok(signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
    }
}

fn pss(digest: Digest, bits: u32, salt_bytes: u16) -> Result<RsaParameters, SignatureFault> {
    let parameters = match digest {
        _ if bits < 2048 => return Err(SignatureFault::Unsupported),
        Digest::Sha1 => return Err(SignatureFault::Unsupported),
        Digest::Sha256 => signature::RSA_PSS_2048_8192_SHA256,
        Digest::Sha384 => signature::RSA_PSS_2048_8192_SHA384,
        Digest::Sha512 => signature::RSA_PSS_2048_8192_SHA512,
    };
    Ok(parameters.with_pss_salt_length(RsaPssSaltLength::Custom(salt_bytes)))
}

fn ecdsa(
    digest: Digest,
    kind: KeyKind,
) -> Result<&'static EcdsaVerificationAlgorithm, SignatureFault> {
    match (kind, digest) {
        (KeyKind::P256, Digest::Sha1) => Ok(&signature::ECDSA_P256_SHA1_ASN1),
        (KeyKind::P256, Digest::Sha256) => Ok(&signature::ECDSA_P256_SHA256_ASN1),
        (KeyKind::P256, Digest::Sha384) => Ok(&signature::ECDSA_P256_SHA384_ASN1),
        (KeyKind::P256, Digest::Sha512) => Ok(&signature::ECDSA_P256_SHA512_ASN1),
        (KeyKind::P384, Digest::Sha256) => Ok(&signature::ECDSA_P384_SHA256_ASN1),
        (KeyKind::P384, Digest::Sha384) => Ok(&signature::ECDSA_P384_SHA384_ASN1),
        (KeyKind::P384, Digest::Sha512) => Ok(&signature::ECDSA_P384_SHA512_ASN1),
        (KeyKind::P521, Digest::Sha1) => Ok(&signature::ECDSA_P521_SHA1_ASN1),
        (KeyKind::P521, Digest::Sha256) => Ok(&signature::ECDSA_P521_SHA256_ASN1),
        (KeyKind::P521, Digest::Sha384) => Ok(&signature::ECDSA_P521_SHA384_ASN1),
        (KeyKind::P521, Digest::Sha512) => Ok(&signature::ECDSA_P521_SHA512_ASN1),
        _ => Err(SignatureFault::Unsupported),
    }
}

/// RSA keys that are verified with (REQUIREMENTS K5); those under 2048 are for `crate::trust` to
/// call weak.
const MODULUS_BITS_MIN: u32 = 1024;
/// Longer public exponents are within REQUIREMENTS K5 (64 bits), but aws-lc takes none: what is signed with one is not
/// judged, and not falsified.
const EXPONENT_BITS_MAX: usize = 33;
