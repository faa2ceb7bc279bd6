//! Password-based encryption as it is met in key files: PBES2 (RFC 8018 §6.2) with PBKDF2, and the older schemes of
//! PKCS#12 (RFC 7292 appendix C) with 3DES and RC2, for reading only.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use der::Sequence;
use der::asn1::{ObjectIdentifier, OctetStringRef};
use rc2::Rc2;
use rc2::cipher::{BlockDecrypt, generic_array::GenericArray};
use std::num::NonZeroU32;
use x509_cert::spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use super::{ImportError, not_usable, pkcs12_kdf};

/// What one file may still cost (REQUIREMENTS K7).
pub(super) struct Budget {
    iterations_left: u32,
}

impl Budget {
    /// So many iterations for everything in the file.
    pub(super) fn of(iterations: u32) -> Self {
        Self { iterations_left: iterations }
    }

    /// Takes iterations out, or says that they are too many.
    pub(super) fn take(&mut self, iterations: u32) -> Result<NonZeroU32, ImportError> {
        let too_many = || {
            not_usable(format!(
                "a password derivation of {iterations} iterations: at most {ITERATIONS_MAX} are done"
            ))
        };
        if iterations > ITERATIONS_MAX {
            return Err(too_many());
        }
        self.iterations_left = self.iterations_left.checked_sub(iterations).ok_or_else(too_many)?;
        NonZeroU32::new(iterations)
            .ok_or_else(|| not_usable("a password derivation of no iterations"))
    }
}

/// Decrypts; a wrong password shows as wrong padding.
pub(super) fn decrypt(
    algorithm: &AlgorithmIdentifierRef<'_>,
    encrypted: &[u8],
    password: &str,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let parameters = algorithm.parameters.ok_or_else(malformed)?;
    if algorithm.oid == PBES2 {
        let parameters: Pbes2Parameters<'_> = parameters.decode_as().map_err(|_| malformed())?;
        return decrypt_pbes2(&parameters, encrypted, password, budget);
    }
    let (cipher, key_bytes) = match algorithm.oid {
        PBE_3DES => (OldCipher::TripleDes, 24),
        PBE_RC2_128 => (OldCipher::Rc2, 16),
        PBE_RC2_40 => (OldCipher::Rc2, 5),
        oid => return Err(not_usable(format!("encrypted with {oid}, which is not supported"))),
    };
    let parameters: Pbe1Parameters<'_> = parameters.decode_as().map_err(|_| malformed())?;
    let iterations = budget.take(parameters.iterations)?;
    let derive = |purpose, length| {
        let digest = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
        let salt = parameters.salt.as_bytes();
        pkcs12_kdf::derive(digest, purpose, password, salt, iterations, length)
    };
    let key = derive(pkcs12_kdf::Purpose::Key, key_bytes);
    let iv = derive(pkcs12_kdf::Purpose::Iv, OLD_BLOCK_BYTES);
    match cipher {
        OldCipher::TripleDes => decrypt_cbc(TRIPLE_DES, &key, &iv, encrypted),
        OldCipher::Rc2 => decrypt_rc2(&key, &iv, encrypted),
    }
}

fn decrypt_pbes2(
    parameters: &Pbes2Parameters<'_>,
    encrypted: &[u8],
    password: &str,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let derivation = &parameters.derivation;
    if derivation.oid != PBKDF2 {
        let oid = derivation.oid;
        return Err(not_usable(format!("a password derivation ({oid}) other than PBKDF2")));
    }
    let derivation: Pbkdf2Parameters<'_> =
        derivation.parameters.ok_or_else(malformed)?.decode_as().map_err(|_| malformed())?;
    let (cipher, key_bytes) = match parameters.encryption.oid {
        AES_128_CBC => (&AES_128, 16),
        AES_192_CBC => (&AES_192, 24),
        AES_256_CBC => (&AES_256, 32),
        DES_EDE3_CBC => (TRIPLE_DES, 24),
        oid => return Err(not_usable(format!("encrypted with {oid}, which is not supported"))),
    };
    let prf = match derivation.prf.map_or(HMAC_SHA1, |prf| prf.oid) {
        HMAC_SHA1 => pbkdf2::PBKDF2_HMAC_SHA1,
        HMAC_SHA256 => pbkdf2::PBKDF2_HMAC_SHA256,
        HMAC_SHA384 => pbkdf2::PBKDF2_HMAC_SHA384,
        HMAC_SHA512 => pbkdf2::PBKDF2_HMAC_SHA512,
        oid => return Err(not_usable(format!("a password derivation with {oid}"))),
    };
    let iv: &OctetStringRef = parameters
        .encryption
        .parameters
        .ok_or_else(malformed)?
        .decode_as()
        .map_err(|_| malformed())?;
    let iterations = budget.take(derivation.iterations)?;
    let mut key = Zeroizing::new(vec![0_u8; key_bytes]);
    pbkdf2::derive(prf, iterations, derivation.salt.as_bytes(), password.as_bytes(), &mut key);
    decrypt_cbc(cipher, &key, iv.as_bytes(), encrypted)
}

fn decrypt_cbc(
    cipher: &'static Algorithm,
    key: &[u8],
    iv: &[u8],
    encrypted: &[u8],
) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let context = match iv.len() {
        16 => FixedLength::<16>::try_from(iv).map(DecryptionContext::Iv128).ok(),
        8 => FixedLength::<8>::try_from(iv).map(DecryptionContext::Iv64).ok(),
        _ => None,
    };
    let context = context.ok_or_else(malformed)?;
    let key = UnboundCipherKey::new(cipher, key).map_err(|_| malformed())?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| malformed())?;
    let mut buffer = Zeroizing::new(encrypted.to_vec());
    let plain_bytes =
        key.decrypt(&mut buffer, context).map_err(|_| ImportError::WrongPassword)?.len();
    buffer.truncate(plain_bytes);
    Ok(buffer)
}

/// RC2 (RFC 2268) in CBC mode; its effective length is that of the key.
fn decrypt_rc2(key: &[u8], iv: &[u8], encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let cipher = Rc2::new_with_eff_key_len(key, key.len().saturating_mul(8));
    let mut plain = Zeroizing::new(Vec::with_capacity(encrypted.len()));
    let mut previous = iv;
    for chunk in encrypted.chunks(OLD_BLOCK_BYTES) {
        let mut block =
            GenericArray::from(<[u8; OLD_BLOCK_BYTES]>::try_from(chunk).map_err(|_| malformed())?);
        cipher.decrypt_block(&mut block);
        plain.extend(block.iter().zip(previous).map(|(byte, before)| byte ^ before));
        previous = chunk;
    }
    let padding = usize::from(*plain.last().ok_or_else(malformed)?);
    let kept =
        plain.len().checked_sub(padding).filter(|_| (1..=OLD_BLOCK_BYTES).contains(&padding));
    let kept = kept.ok_or(ImportError::WrongPassword)?;
    let padded = plain.get(kept..).unwrap_or_default();
    if padded.iter().any(|byte| usize::from(*byte) != padding) {
        return Err(ImportError::WrongPassword);
    }
    plain.truncate(kept);
    Ok(plain)
}

fn malformed() -> ImportError {
    not_usable("damaged: the parameters of its encryption do not parse")
}

#[derive(Clone, Copy)]
enum OldCipher {
    Rc2,
    TripleDes,
}

/// PBES2-params, RFC 8018 §A.4.
#[derive(Sequence)]
struct Pbes2Parameters<'a> {
    derivation: AlgorithmIdentifierRef<'a>,
    encryption: AlgorithmIdentifierRef<'a>,
}

/// PBKDF2-params, RFC 8018 §A.2, with a salt that is specified.
#[derive(Sequence)]
struct Pbkdf2Parameters<'a> {
    salt: &'a OctetStringRef,
    iterations: u32,
    key_length: Option<u16>,
    prf: Option<AlgorithmIdentifierRef<'a>>,
}

/// pkcs-12PbeParams, RFC 7292 appendix C.
#[derive(Sequence)]
struct Pbe1Parameters<'a> {
    salt: &'a OctetStringRef,
    iterations: u32,
}

/// REQUIREMENTS K7, one derivation.
const ITERATIONS_MAX: u32 = 10_000_000;
/// A file may need several: for its MAC, its certificates and each key.
pub(super) const ITERATIONS_PER_FILE_MAX: u32 = 4 * ITERATIONS_MAX;
#[expect(deprecated, reason = "key files of older software are encrypted with it")]
const TRIPLE_DES: &Algorithm = &aws_lc_rs::cipher::DES_EDE3_FOR_LEGACY_USE_ONLY;
/// 3DES and RC2.
const OLD_BLOCK_BYTES: usize = 8;
/// RFC 8018 §C: PBES2, PBKDF2, its pseudorandom functions and ciphers.
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const HMAC_SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.7");
const HMAC_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.9");
const HMAC_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.10");
const HMAC_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.11");
const DES_EDE3_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.3.7");
const AES_128_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2");
const AES_192_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
/// RFC 7292 appendix C: with SHA-1 and three-key 3DES, 128-bit RC2, 40-bit RC2.
const PBE_3DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3");
const PBE_RC2_128: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.5");
const PBE_RC2_40: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.6");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_are_bounded_at_the_limit() {
        let whole = || Budget::of(ITERATIONS_PER_FILE_MAX);
        assert!(whole().take(ITERATIONS_MAX).is_ok());
        assert!(whole().take(ITERATIONS_MAX + 1).is_err());
        assert!(whole().take(0).is_err());
        let mut budget = whole();
        for _ in 0..4 {
            assert!(budget.take(ITERATIONS_MAX).is_ok());
        }
        assert!(budget.take(1).is_err());
    }
}
