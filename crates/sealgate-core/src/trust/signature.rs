//! Verifies the signatures on certificates and CRLs with aws-lc-rs, and counts them.
//!
//! In: the signed bytes, the AlgorithmIdentifier, the signature and the issuer's
//! SubjectPublicKeyInfo. Out: [`Strength`], or nothing when the signature does not verify or is of
//! a kind that is not taken. RSA PKCS#1 v1.5 and PSS (RFC 4055), ECDSA on P-256, P-384 and P-521
//! (RFC 5758), Ed25519 (RFC 8410). SHA-1, and RSA keys from 1024 to 2047 bits, verify as weak; DSA,
//! MD5 and curves given by parameters do not verify at all (REQUIREMENTS D10, K5).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::signature as aws;
use aws_lc_rs::signature::{
    RsaParameters, RsaPssSaltLength, UnparsedPublicKey, VerificationAlgorithm,
};
use certval::{Error, PathValidationStatus, PkiEnvironment, VerifySignatureMessage};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5912, rfc8410};
use der::asn1::{AnyRef, BitString, UintRef};
use der::{Decode, Encode, Sequence};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// The signature checks of one message: made once each, and bounded.
#[derive(Debug, Default)]
pub(super) struct Checks {
    made: Mutex<Made>,
}

/// How much a signature that verifies is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strength {
    /// What REQUIREMENTS D10 and K5 ask for.
    Strong,
    /// SHA-1, or an RSA key below 2048 bits.
    Weak,
}

/// More signatures than one message may have checked (REQUIREMENTS K6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyChecks;

/// Something signed, as its bytes were received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) message: &'a [u8],
    pub(super) algorithm: &'a AlgorithmIdentifierOwned,
    pub(super) signature: &'a BitString,
}

impl Checks {
    /// Verifies a signature; `None` when it does not hold.
    pub(super) fn verify(
        &self,
        signed: Signed<'_>,
        key: &SubjectPublicKeyInfoOwned,
    ) -> Result<Option<Strength>, TooManyChecks> {
        let Some(name) = name_of(signed, key) else { return Ok(None) };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.outcomes.get(&name) {
            return Ok(*known);
        }
        if made.outcomes.len() >= CHECKS_MAX {
            made.exhausted = true;
            return Err(TooManyChecks);
        }
        let outcome = verify(signed, key);
        made.outcomes.insert(name, outcome);
        Ok(outcome)
    }

    /// Whether none was made yet.
    pub(super) fn are_none(&self) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).outcomes.is_empty()
    }

    /// Whether a check was refused because there had been too many.
    pub(super) fn are_exhausted(&self) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).exhausted
    }
}

#[derive(Debug, Default)]
struct Made {
    outcomes: HashMap<[u8; 32], Option<Strength>>,
    exhausted: bool,
}

impl VerifySignatureMessage for Checks {
    fn verify_signature_message(
        &self,
        _environment: &PkiEnvironment,
        message: &[u8],
        signature: &BitString,
        algorithm: &AlgorithmIdentifierOwned,
        key: &SubjectPublicKeyInfoOwned,
    ) -> certval::Result<()> {
        match self.verify(Signed { message, algorithm, signature }, key) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                Err(Error::PathValidation(PathValidationStatus::SignatureVerificationFailure))
            }
            Err(TooManyChecks) => {
                Err(Error::PathValidation(PathValidationStatus::ProcessingLimitExceeded))
            }
        }
    }
}

/// What a public key is, as far as it decides about its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyFitness {
    /// Ed25519: signs.
    Ed25519,
    /// A named curve of NIST: signs and agrees on keys.
    Nist,
    /// RSA that is too large, or whose exponent is out of bounds (REQUIREMENTS K5).
    RsaOverLimit,
    /// RSA of a size that is taken.
    Rsa,
    /// RSA below 2048 bits.
    RsaWeak,
    /// Anything else.
    Unsupported,
    /// X25519: agrees on keys.
    X25519,
}

/// Looks at a public key without any arithmetic.
pub(super) fn fitness_of(key: &SubjectPublicKeyInfoOwned) -> KeyFitness {
    match key.algorithm.oid {
        rfc5912::RSA_ENCRYPTION | rfc5912::ID_RSASSA_PSS => rsa_fitness(key),
        rfc5912::ID_EC_PUBLIC_KEY => match curve_of(key) {
            Some(rfc5912::SECP_256_R_1 | rfc5912::SECP_384_R_1 | rfc5912::SECP_521_R_1) => {
                KeyFitness::Nist
            }
            _ => KeyFitness::Unsupported,
        },
        rfc8410::ID_ED_25519 => KeyFitness::Ed25519,
        rfc8410::ID_X_25519 => KeyFitness::X25519,
        _ => KeyFitness::Unsupported,
    }
}

fn rsa_fitness(key: &SubjectPublicKeyInfoOwned) -> KeyFitness {
    let Some(content) = key.subject_public_key.as_bytes() else { return KeyFitness::Unsupported };
    let Ok(rsa) = RsaPublicKey::from_der(content) else { return KeyFitness::Unsupported };
    let exponent = rsa.public_exponent.as_bytes();
    let is_odd = exponent.last().is_some_and(|byte| byte % 2 == 1);
    let modulus = rsa.modulus.as_bytes();
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
    let bits = modulus.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0));
    if bits > RSA_BITS_MAX || exponent.len() > RSA_EXPONENT_BYTES_MAX {
        KeyFitness::RsaOverLimit
    } else if !is_odd || exponent == [1] {
        KeyFitness::Unsupported
    } else if bits < RSA_BITS_MIN {
        KeyFitness::RsaWeak
    } else {
        KeyFitness::Rsa
    }
}

/// RSAPublicKey (RFC 8017 A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn curve_of(key: &SubjectPublicKeyInfoOwned) -> Option<ObjectIdentifier> {
    let parameters = AnyRef::from(key.algorithm.parameters.as_ref()?);
    ObjectIdentifier::try_from(parameters).ok()
}

fn verify(signed: Signed<'_>, key: &SubjectPublicKeyInfoOwned) -> Option<Strength> {
    let signature = signed.signature.as_bytes()?;
    let public_key = key.subject_public_key.as_bytes()?;
    if signed.algorithm.oid == rfc5912::ID_RSASSA_PSS {
        let is_for_rsa =
            matches!(key.algorithm.oid, rfc5912::RSA_ENCRYPTION | rfc5912::ID_RSASSA_PSS);
        let parameters = pss_parameters(signed.algorithm)?;
        if !is_for_rsa || rsa_fitness(key) != KeyFitness::Rsa {
            return None;
        }
        parameters.verify_sig(public_key, signed.message, signature).ok()?;
        return Some(Strength::Strong);
    }
    let (algorithm, strength) = match key.algorithm.oid {
        rfc5912::RSA_ENCRYPTION | rfc5912::ID_RSASSA_PSS => rsa_algorithm(signed.algorithm, key)?,
        rfc5912::ID_EC_PUBLIC_KEY => ecdsa_algorithm(signed.algorithm.oid, curve_of(key)?)?,
        rfc8410::ID_ED_25519 if signed.algorithm.oid == rfc8410::ID_ED_25519 => {
            let algorithm: &'static dyn VerificationAlgorithm = &aws::ED25519;
            (algorithm, Strength::Strong)
        }
        _ => return None,
    };
    UnparsedPublicKey::new(algorithm, public_key).verify(signed.message, signature).ok()?;
    Some(strength)
}

type Algorithm = (&'static dyn VerificationAlgorithm, Strength);

fn rsa_algorithm(
    algorithm: &AlgorithmIdentifierOwned,
    key: &SubjectPublicKeyInfoOwned,
) -> Option<Algorithm> {
    let is_weak = match rsa_fitness(key) {
        KeyFitness::Rsa => false,
        KeyFitness::RsaWeak => true,
        _ => return None,
    };
    // A key marked for PSS verifies nothing else (RFC 4055 §1.2).
    if key.algorithm.oid == rfc5912::ID_RSASSA_PSS {
        return None;
    }
    let weak = Strength::Weak;
    Some(match (algorithm.oid, is_weak) {
        (rfc5912::SHA_1_WITH_RSA_ENCRYPTION, false) => {
            (&aws::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, weak)
        }
        (rfc5912::SHA_1_WITH_RSA_ENCRYPTION, true) => {
            (&aws::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, weak)
        }
        (rfc5912::SHA_256_WITH_RSA_ENCRYPTION, true) => {
            (&aws::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, weak)
        }
        (rfc5912::SHA_512_WITH_RSA_ENCRYPTION, true) => {
            (&aws::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, weak)
        }
        (rfc5912::SHA_256_WITH_RSA_ENCRYPTION, false) => {
            (&aws::RSA_PKCS1_2048_8192_SHA256, Strength::Strong)
        }
        (rfc5912::SHA_384_WITH_RSA_ENCRYPTION, false) => {
            (&aws::RSA_PKCS1_2048_8192_SHA384, Strength::Strong)
        }
        (rfc5912::SHA_512_WITH_RSA_ENCRYPTION, false) => {
            (&aws::RSA_PKCS1_2048_8192_SHA512, Strength::Strong)
        }
        _ => return None,
    })
}

/// RSASSA-PSS-params (RFC 4055 §3.1), taken where MGF1 uses the same digest. Not every salt is as long as the digest, which RFC 4056
/// §3 recommends: OpenSSL's longest possible is.
fn pss_parameters(algorithm: &AlgorithmIdentifierOwned) -> Option<RsaParameters> {
    let parameters = algorithm.parameters.as_ref()?.to_der().ok()?;
    let parameters = PssParameters::from_der(&parameters).ok()?;
    let digest = parameters.hash?.oid;
    let mask = parameters.mask?;
    let mask_digest = mask.parameters.as_ref()?.to_der().ok()?;
    let mask_digest = AlgorithmIdentifierOwned::from_der(&mask_digest).ok()?;
    if mask.oid != rfc5912::ID_MGF_1 || mask_digest.oid != digest {
        return None;
    }
    if parameters.trailer_field.is_some_and(|field| field != 1) {
        return None;
    }
    let of_digest = match digest {
        rfc5912::ID_SHA_256 => aws::RSA_PSS_2048_8192_SHA256,
        rfc5912::ID_SHA_384 => aws::RSA_PSS_2048_8192_SHA384,
        rfc5912::ID_SHA_512 => aws::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    };
    let salt_bytes = parameters.salt_length.unwrap_or(PSS_SALT_BYTES);
    Some(of_digest.with_pss_salt_length(RsaPssSaltLength::Custom(salt_bytes)))
}

/// Where the parameters say nothing (RFC 4055 §3.1).
const PSS_SALT_BYTES: u16 = 20;

#[derive(Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    salt_length: Option<u16>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    trailer_field: Option<u8>,
}

fn ecdsa_algorithm(algorithm: ObjectIdentifier, curve: ObjectIdentifier) -> Option<Algorithm> {
    let strong = Strength::Strong;
    Some(match (curve, algorithm) {
        (rfc5912::SECP_256_R_1, ECDSA_WITH_SHA_1) => (&aws::ECDSA_P256_SHA1_ASN1, Strength::Weak),
        (rfc5912::SECP_256_R_1, rfc5912::ECDSA_WITH_SHA_256) => {
            (&aws::ECDSA_P256_SHA256_ASN1, strong)
        }
        (rfc5912::SECP_256_R_1, rfc5912::ECDSA_WITH_SHA_384) => {
            (&aws::ECDSA_P256_SHA384_ASN1, strong)
        }
        (rfc5912::SECP_256_R_1, rfc5912::ECDSA_WITH_SHA_512) => {
            (&aws::ECDSA_P256_SHA512_ASN1, strong)
        }
        (rfc5912::SECP_384_R_1, rfc5912::ECDSA_WITH_SHA_256) => {
            (&aws::ECDSA_P384_SHA256_ASN1, strong)
        }
        (rfc5912::SECP_384_R_1, rfc5912::ECDSA_WITH_SHA_384) => {
            (&aws::ECDSA_P384_SHA384_ASN1, strong)
        }
        (rfc5912::SECP_384_R_1, rfc5912::ECDSA_WITH_SHA_512) => {
            (&aws::ECDSA_P384_SHA512_ASN1, strong)
        }
        (rfc5912::SECP_521_R_1, ECDSA_WITH_SHA_1) => (&aws::ECDSA_P521_SHA1_ASN1, Strength::Weak),
        (rfc5912::SECP_521_R_1, rfc5912::ECDSA_WITH_SHA_256) => {
            (&aws::ECDSA_P521_SHA256_ASN1, strong)
        }
        (rfc5912::SECP_521_R_1, rfc5912::ECDSA_WITH_SHA_384) => {
            (&aws::ECDSA_P521_SHA384_ASN1, strong)
        }
        (rfc5912::SECP_521_R_1, rfc5912::ECDSA_WITH_SHA_512) => {
            (&aws::ECDSA_P521_SHA512_ASN1, strong)
        }
        _ => return None,
    })
}

/// One name for a check: a digest over everything it depends on, each part with its length.
fn name_of(signed: Signed<'_>, key: &SubjectPublicKeyInfoOwned) -> Option<[u8; 32]> {
    let algorithm = signed.algorithm.to_der().ok()?;
    let key = key.to_der().ok()?;
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in [signed.message, &algorithm, signed.signature.raw_bytes(), &key] {
        context.update(&u64::try_from(part.len()).ok()?.to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().ok()
}

/// ecdsa-with-SHA1 (RFC 3279 §2.2.3), missing in the table of names.
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// REQUIREMENTS K6.
const CHECKS_MAX: usize = 200;
/// REQUIREMENTS K5.
const RSA_BITS_MAX: usize = 8192;
/// REQUIREMENTS D10, K5.
const RSA_BITS_MIN: usize = 2048;
/// REQUIREMENTS K5: 64 bits.
const RSA_EXPONENT_BYTES_MAX: usize = 8;

#[cfg(test)]
mod tests;
