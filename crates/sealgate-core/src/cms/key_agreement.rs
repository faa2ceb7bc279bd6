//! ECDH key agreement: from the shared secret Z to the key that wraps (RFC 5753 §7, RFC 8418 §2).
//!
//! In: a keyEncryptionAlgorithm, ukm and Z. Out: the key-encryption key. Two derivations: ANSI
//! X9.63 and HKDF, both over ECC-CMS-SharedInfo. Static-static agreement and MQV are not supported.

use aws_lc_rs::digest::Context;
use aws_lc_rs::hkdf;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _};
use zeroize::Zeroizing;

use super::CmsError;
use super::algorithm::{
    AES_128_WRAP, AES_256_WRAP, Algorithm, ECDH_COFACTOR_SHA_1, ECDH_COFACTOR_SHA_256,
    ECDH_COFACTOR_SHA_384, ECDH_COFACTOR_SHA_512, ECDH_HKDF_SHA_256, ECDH_HKDF_SHA_384,
    ECDH_HKDF_SHA_512, ECDH_SHA_1, ECDH_SHA_256, ECDH_SHA_384, ECDH_SHA_512, primitive, write,
};
use super::element::{CONSTRUCTED_0, CONSTRUCTED_2, OCTET_STRING, Reader, SEQUENCE, tlv};
use crate::keys::Digest;

/// Which derivation and which wrapping.
#[derive(Clone, Debug)]
pub(super) struct Scheme {
    derivation: Derivation,
    wrap: Wrap,
    /// The KeyWrapAlgorithm as it stands in the message: it is part of SharedInfo.
    wrap_algorithm: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Derivation {
    Hkdf(Digest),
    X963(Digest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrap {
    Aes128,
    Aes256,
}

impl Scheme {
    /// X9.63 with SHA-256, AES-256 wrap: what we write for NIST curves.
    pub(super) fn x963() -> Self {
        let wrap_algorithm = write(AES_256_WRAP, &[]);
        Self { derivation: Derivation::X963(Digest::Sha256), wrap: Wrap::Aes256, wrap_algorithm }
    }

    /// HKDF with SHA-256, AES-256 wrap: what we write for X25519 (RFC 8418 §2.2).
    pub(super) fn hkdf() -> Self {
        let wrap_algorithm = write(AES_256_WRAP, &[]);
        Self { derivation: Derivation::Hkdf(Digest::Sha256), wrap: Wrap::Aes256, wrap_algorithm }
    }

    /// Reads keyEncryptionAlgorithm; its parameters are the KeyWrapAlgorithm (RFC 5753 §7.1.4).
    pub(super) fn read(der: &[u8]) -> Result<Self, CmsError> {
        let algorithm = Algorithm::read(&Reader::only(der, SEQUENCE)?)?;
        let derivation = DERIVATIONS
            .into_iter()
            .find(|(oid, _)| algorithm.is(*oid))
            .map(|(_, derivation)| derivation)
            .ok_or(CmsError::Unsupported)?;
        let parameters = algorithm.parameters.ok_or(CmsError::Malformed)?;
        if parameters.tag != SEQUENCE {
            return Err(CmsError::Malformed);
        }
        let inner = Algorithm::read(&parameters)?;
        let wrap = if inner.is(AES_256_WRAP) {
            Wrap::Aes256
        } else if inner.is(AES_128_WRAP) {
            Wrap::Aes128
        } else {
            return Err(CmsError::Unsupported);
        };
        Ok(Self { derivation, wrap, wrap_algorithm: parameters.whole.to_vec() })
    }

    /// keyEncryptionAlgorithm as DER.
    pub(super) fn write(&self) -> Vec<u8> {
        let oid = match self.derivation {
            Derivation::Hkdf(_) => ECDH_HKDF_SHA_256,
            Derivation::X963(_) => ECDH_SHA_256,
        };
        write(oid, &self.wrap_algorithm)
    }

    /// Wraps a content-encryption key.
    pub(super) fn wrap(&self, z: &[u8], key: &[u8]) -> Result<Vec<u8>, CmsError> {
        let mut out = vec![0; key.len() + WRAP_OVERHEAD_BYTES];
        let wrapped = self.key(z, None)?.wrap(key, &mut out);
        let length = wrapped.map(|bytes| bytes.len()).map_err(|_| CmsError::Unsupported)?;
        out.truncate(length);
        Ok(out)
    }

    /// Unwraps a content-encryption key; none for every reason.
    pub(super) fn unwrap(
        &self,
        z: &[u8],
        user_keying_material: Option<&[u8]>,
        wrapped: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        if wrapped.len() > WRAPPED_BYTES_MAX {
            return None;
        }
        let mut out = Zeroizing::new(vec![0; wrapped.len()]);
        let kek = self.key(z, user_keying_material).ok()?;
        let length = kek.unwrap(wrapped, &mut out).ok()?.len();
        out.truncate(length);
        Some(out)
    }

    fn key(&self, z: &[u8], user_keying_material: Option<&[u8]>) -> Result<AesKek, CmsError> {
        let length = if self.wrap == Wrap::Aes256 { 32 } else { 16 };
        let info = self.shared_info(length, user_keying_material);
        let key = match self.derivation {
            Derivation::X963(digest) => x963(digest, z, &info, length),
            Derivation::Hkdf(digest) => hkdf(digest, z, &info, length)?,
        };
        let cipher = if self.wrap == Wrap::Aes256 { &AES_256 } else { &AES_128 };
        AesKek::new(cipher, &key).map_err(|_| CmsError::Unsupported)
    }

    /// ECC-CMS-SharedInfo (RFC 5753 §7.2).
    fn shared_info(&self, key_bytes: u32, user_keying_material: Option<&[u8]>) -> Vec<u8> {
        let entity = user_keying_material
            .map(|ukm| tlv(CONSTRUCTED_0, &[&tlv(OCTET_STRING, &[ukm])]))
            .unwrap_or_default();
        let bits = (key_bytes * 8).to_be_bytes();
        let supplement = tlv(CONSTRUCTED_2, &[&tlv(OCTET_STRING, &[&bits])]);
        tlv(SEQUENCE, &[&self.wrap_algorithm, &entity, &supplement])
    }
}

/// The ANSI X9.63 derivation (SEC 1 §3.6.1).
fn x963(digest: Digest, z: &[u8], info: &[u8], length: u32) -> Zeroizing<Vec<u8>> {
    let length = usize::try_from(length).unwrap_or_default();
    let mut key = Zeroizing::new(Vec::with_capacity(128));
    let mut counter = 1_u32;
    while key.len() < length {
        let mut context = Context::new(primitive(digest));
        context.update(z);
        context.update(&counter.to_be_bytes());
        context.update(info);
        key.extend_from_slice(context.finish().as_ref());
        counter += 1;
    }
    key.truncate(length);
    key
}

/// HKDF without salt (RFC 8418 §2.2).
fn hkdf(
    digest: Digest,
    z: &[u8],
    info: &[u8],
    length: u32,
) -> Result<Zeroizing<Vec<u8>>, CmsError> {
    let length = usize::try_from(length).map_err(|_| CmsError::Unsupported)?;
    let algorithm = match digest {
        Digest::Sha1 => return Err(CmsError::Unsupported),
        Digest::Sha256 => hkdf::HKDF_SHA256,
        Digest::Sha384 => hkdf::HKDF_SHA384,
        Digest::Sha512 => hkdf::HKDF_SHA512,
    };
    let mut key = Zeroizing::new(vec![0; length]);
    let pseudo_random = hkdf::Salt::new(algorithm, &[]).extract(z);
    pseudo_random
        .expand(&[info], KeyBytes(length))
        .and_then(|okm| okm.fill(&mut key))
        .map_err(|_| CmsError::Unsupported)?;
    Ok(key)
}

/// How many octets HKDF is asked for.
struct KeyBytes(usize);

impl hkdf::KeyType for KeyBytes {
    fn len(&self) -> usize {
        self.0
    }
}

const DERIVATIONS: [(const_oid::ObjectIdentifier, Derivation); 11] = [
    (ECDH_SHA_1, Derivation::X963(Digest::Sha1)),
    (ECDH_SHA_256, Derivation::X963(Digest::Sha256)),
    (ECDH_SHA_384, Derivation::X963(Digest::Sha384)),
    (ECDH_SHA_512, Derivation::X963(Digest::Sha512)),
    // The cofactor of the NIST curves is 1, so these are the same.
    (ECDH_COFACTOR_SHA_1, Derivation::X963(Digest::Sha1)),
    (ECDH_COFACTOR_SHA_256, Derivation::X963(Digest::Sha256)),
    (ECDH_COFACTOR_SHA_384, Derivation::X963(Digest::Sha384)),
    (ECDH_COFACTOR_SHA_512, Derivation::X963(Digest::Sha512)),
    (ECDH_HKDF_SHA_256, Derivation::Hkdf(Digest::Sha256)),
    (ECDH_HKDF_SHA_384, Derivation::Hkdf(Digest::Sha384)),
    (ECDH_HKDF_SHA_512, Derivation::Hkdf(Digest::Sha512)),
];

/// What AES key wrap adds (RFC 3394 §2.2.1).
const WRAP_OVERHEAD_BYTES: usize = 8;
/// Wrapped keys that are looked at: a 256-bit key and its overhead, with room.
const WRAPPED_BYTES_MAX: usize = 128;
