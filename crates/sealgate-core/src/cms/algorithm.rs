//! Object identifiers and AlgorithmIdentifiers (RFC 5652 §10.1, RFC 4055, RFC 5084, RFC 5753, RFC
//! 5758, RFC 8418, RFC 8419).
//!
//! In: the DER of an AlgorithmIdentifier. Out: what it means, with its parameters checked: missing
//! parameters where the algorithm needs them are an error and never a panic.

use const_oid::ObjectIdentifier;

use super::CmsError;
use super::element::{
    CONSTRUCTED_0, CONSTRUCTED_1, CONSTRUCTED_2, CONSTRUCTED_3, Element, INTEGER, NULL,
    OCTET_STRING, OID, Reader, SEQUENCE, tlv,
};
use crate::keys::{Digest, SignatureScheme};

/// What a message is encrypted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentCipher {
    /// AES-128 in CBC mode.
    Aes128Cbc,
    /// AES-128 in Galois/Counter mode.
    Aes128Gcm,
    /// AES-256 in CBC mode.
    Aes256Cbc,
    /// AES-256 in Galois/Counter mode.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8103): only for reading.
    ChaCha20Poly1305,
    /// Triple DES in CBC mode: only for reading old mail.
    TripleDesCbc,
}

impl ContentCipher {
    /// Its name in reports and policy.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Cbc => "aes-128-cbc",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes256Cbc => "aes-256-cbc",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::TripleDesCbc => "3des-cbc",
        }
    }

    /// Whether it authenticates what it encrypts.
    pub fn is_authenticated(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305)
    }

    /// Octets of its key.
    pub(super) fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Cbc | Self::Aes128Gcm => 16,
            Self::TripleDesCbc => 24,
            Self::Aes256Cbc | Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    pub(super) fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Aes128Cbc => AES_128_CBC,
            Self::Aes128Gcm => AES_128_GCM,
            Self::Aes256Cbc => AES_256_CBC,
            Self::Aes256Gcm => AES_256_GCM,
            Self::ChaCha20Poly1305 => CHACHA20_POLY1305,
            Self::TripleDesCbc => TRIPLE_DES_CBC,
        }
    }

    pub(super) fn from_oid(oid: &[u8]) -> Option<Self> {
        [
            Self::Aes128Cbc,
            Self::Aes128Gcm,
            Self::Aes256Cbc,
            Self::Aes256Gcm,
            Self::ChaCha20Poly1305,
            Self::TripleDesCbc,
        ]
        .into_iter()
        .find(|cipher| cipher.oid().as_bytes() == oid)
    }
}

/// An AlgorithmIdentifier, its parameters not yet looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Algorithm<'a> {
    pub(crate) oid: &'a [u8],
    pub(crate) parameters: Option<Element<'a>>,
    pub(crate) whole: &'a [u8],
}

impl<'a> Algorithm<'a> {
    /// The next element of a reader as an AlgorithmIdentifier.
    pub(crate) fn next(reader: &mut Reader<'a>) -> Result<Self, CmsError> {
        Self::read(&reader.expect(SEQUENCE)?)
    }

    /// The content of an element, whatever its tag (implicit tags keep the content).
    pub(crate) fn read(element: &Element<'a>) -> Result<Self, CmsError> {
        let mut members = element.reader();
        let oid = members.expect(OID)?.body;
        let parameters = if members.is_empty() { None } else { Some(members.element()?) };
        members.finish()?;
        if oid.is_empty() {
            return Err(CmsError::Malformed);
        }
        Ok(Self { oid, parameters, whole: element.whole })
    }

    pub(crate) fn is(&self, oid: ObjectIdentifier) -> bool {
        self.oid == oid.as_bytes()
    }

    /// Whether parameters are absent or NULL.
    pub(crate) fn has_no_parameters(&self) -> bool {
        self.parameters
            .is_none_or(|parameters| parameters.tag == NULL && parameters.body.is_empty())
    }
}

/// A digest algorithm (RFC 5754 §2: parameters absent or NULL).
pub(crate) fn digest_of(algorithm: &Algorithm<'_>) -> Option<Digest> {
    let known = [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512]
        .into_iter()
        .find(|digest| algorithm.is(digest_oid(*digest)))?;
    algorithm.has_no_parameters().then_some(known)
}

/// How a signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    Ecdsa(Digest),
    Ed25519,
    RsaPkcs1(Digest),
    RsaPss { digest: Digest, salt_bytes: u16 },
}

/// Reads a signature algorithm; `digest` is SignerInfo's, for identifiers that name none (RFC 8551
/// §2.2, rsaEncryption).
pub(crate) fn signature_of(
    algorithm: &Algorithm<'_>,
    digest: Option<Digest>,
) -> Result<Signature, CmsError> {
    if algorithm.is(RSA_ENCRYPTION) {
        return digest.map(Signature::RsaPkcs1).ok_or(CmsError::Unsupported);
    }
    if algorithm.is(RSASSA_PSS) {
        return pss_parameters(algorithm);
    }
    if algorithm.is(ED25519) {
        // RFC 8419 §3.1: parameters MUST be absent.
        return if algorithm.parameters.is_none() {
            Ok(Signature::Ed25519)
        } else {
            Err(CmsError::Malformed)
        };
    }
    for known in [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512] {
        if algorithm.is(rsa_signature_oid(known)) {
            return Ok(Signature::RsaPkcs1(known));
        }
        if algorithm.is(ecdsa_oid(known)) {
            return Ok(Signature::Ecdsa(known));
        }
    }
    // Some signers name only the key's type.
    if algorithm.is(EC_PUBLIC_KEY) {
        return digest.map(Signature::Ecdsa).ok_or(CmsError::Unsupported);
    }
    Err(CmsError::Unsupported)
}

/// RSASSA-PSS-params (RFC 4055 §3.1): both digests the same, trailer field 1.
fn pss_parameters(algorithm: &Algorithm<'_>) -> Result<Signature, CmsError> {
    let parameters = algorithm.parameters.ok_or(CmsError::Malformed)?;
    if parameters.tag != SEQUENCE {
        return Err(CmsError::Malformed);
    }
    let mut members = parameters.reader();
    let digest = digest_member(&mut members)?;
    mask_member(&mut members, digest)?;
    let salt_bytes = match members.optional(CONSTRUCTED_2)? {
        Some(explicit) => small_integer(Reader::only(explicit.body, INTEGER)?.body)?,
        None => 20,
    };
    if let Some(explicit) = members.optional(CONSTRUCTED_3)?
        && small_integer(Reader::only(explicit.body, INTEGER)?.body)? != 1
    {
        return Err(CmsError::Unsupported);
    }
    members.finish()?;
    Ok(Signature::RsaPss { digest, salt_bytes })
}

/// RSAES-OAEP-params (RFC 4055 §4.1): both digests the same, empty label.
pub(crate) fn oaep_digest(algorithm: &Algorithm<'_>) -> Result<Digest, CmsError> {
    let parameters = algorithm.parameters.ok_or(CmsError::Malformed)?;
    if parameters.tag != SEQUENCE {
        return Err(CmsError::Malformed);
    }
    let mut members = parameters.reader();
    let digest = digest_member(&mut members)?;
    mask_member(&mut members, digest)?;
    if let Some(explicit) = members.optional(CONSTRUCTED_2)? {
        let source = Algorithm::read(&Reader::only(explicit.body, SEQUENCE)?)?;
        let label = source.parameters.ok_or(CmsError::Malformed)?;
        if !source.is(P_SPECIFIED) || label.tag != OCTET_STRING || !label.body.is_empty() {
            return Err(CmsError::Unsupported);
        }
    }
    members.finish()?;
    Ok(digest)
}

fn digest_member(members: &mut Reader<'_>) -> Result<Digest, CmsError> {
    let Some(explicit) = members.optional(CONSTRUCTED_0)? else { return Ok(Digest::Sha1) };
    let algorithm = Algorithm::read(&Reader::only(explicit.body, SEQUENCE)?)?;
    digest_of(&algorithm).ok_or(CmsError::Unsupported)
}

fn mask_member(members: &mut Reader<'_>, digest: Digest) -> Result<(), CmsError> {
    let mask = match members.optional(CONSTRUCTED_1)? {
        Some(explicit) => {
            let mask = Algorithm::read(&Reader::only(explicit.body, SEQUENCE)?)?;
            let inner = mask.parameters.filter(|inner| inner.tag == SEQUENCE);
            let inner = inner.ok_or(CmsError::Malformed)?;
            if !mask.is(MGF1) {
                return Err(CmsError::Unsupported);
            }
            digest_of(&Algorithm::read(&inner)?).ok_or(CmsError::Unsupported)?
        }
        None => Digest::Sha1,
    };
    if mask == digest { Ok(()) } else { Err(CmsError::Unsupported) }
}

/// A non-negative INTEGER of at most 16 bits.
pub(crate) fn small_integer(body: &[u8]) -> Result<u16, CmsError> {
    match body {
        [low] if *low < 0x80 => Ok(u16::from(*low)),
        [high, low] if *high < 0x80 && (*high != 0 || *low >= 0x80) => {
            Ok(u16::from(*high) << 8 | u16::from(*low))
        }
        [] => Err(CmsError::Malformed),
        _ => Err(CmsError::Unsupported),
    }
}

/// CMSVersion (RFC 5652 §10.2.5): 0 to 5; which of them is not looked at, because other software is
/// not exact about it.
pub(crate) fn read_version(version: &Element<'_>) -> Result<(), CmsError> {
    if small_integer(version.body)? <= 5 { Ok(()) } else { Err(CmsError::Unsupported) }
}

/// An AlgorithmIdentifier with these parameters (DER, or empty for none).
pub(crate) fn write(oid: ObjectIdentifier, parameters: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[&write_oid(oid), parameters])
}

/// An OBJECT IDENTIFIER.
pub(crate) fn write_oid(oid: ObjectIdentifier) -> Vec<u8> {
    tlv(OID, &[oid.as_bytes()])
}

/// The identifier of a digest algorithm, parameters absent (RFC 5754 §2).
pub(crate) fn write_digest(digest: Digest) -> Vec<u8> {
    write(digest_oid(digest), &[])
}

/// The identifier of a signature scheme.
pub(crate) fn write_signature(scheme: SignatureScheme) -> Vec<u8> {
    match scheme {
        // RFC 5754 §3.2: rsaEncryption's family carries NULL.
        SignatureScheme::RsaPkcs1(digest) => write(rsa_signature_oid(digest), &[NULL, 0]),
        SignatureScheme::RsaPss(digest) => {
            let salt = u8::try_from(digest_bytes(digest)).unwrap_or_default();
            let parameters = hash_parameters(digest);
            let salt = tlv(CONSTRUCTED_2, &[&[INTEGER, 1, salt]]);
            write(RSASSA_PSS, &tlv(SEQUENCE, &[&parameters, &salt]))
        }
        SignatureScheme::Ecdsa(digest) => write(ecdsa_oid(digest), &[]),
        SignatureScheme::Ed25519 => write(ED25519, &[]),
    }
}

/// The identifier of RSAES-OAEP with one digest for both uses and no label.
pub(crate) fn write_oaep(digest: Digest) -> Vec<u8> {
    write(RSAES_OAEP, &tlv(SEQUENCE, &[&hash_parameters(digest)]))
}

/// hashAlgorithm and maskGenAlgorithm of RFC 4055 §2.2; NULL parameters, as other software writes
/// them.
fn hash_parameters(digest: Digest) -> Vec<u8> {
    let hash = write(digest_oid(digest), &[NULL, 0]);
    let mask = write(MGF1, &hash);
    [tlv(CONSTRUCTED_0, &[&hash]), tlv(CONSTRUCTED_1, &[&mask])].concat()
}

/// Octets of a digest.
pub(crate) fn digest_bytes(digest: Digest) -> usize {
    match digest {
        Digest::Sha1 => 20,
        Digest::Sha256 => 32,
        Digest::Sha384 => 48,
        Digest::Sha512 => 64,
    }
}

/// The digest of a message in pieces.
pub(crate) fn hash_pieces(digest: Digest, pieces: &[&[u8]]) -> aws_lc_rs::digest::Digest {
    let mut context = aws_lc_rs::digest::Context::new(primitive(digest));
    pieces.iter().for_each(|piece| context.update(piece));
    context.finish()
}

/// The digest of a message.
pub(crate) fn hash(digest: Digest, message: &[u8]) -> aws_lc_rs::digest::Digest {
    aws_lc_rs::digest::digest(primitive(digest), message)
}

/// The library's name of a digest.
pub(crate) fn primitive(digest: Digest) -> &'static aws_lc_rs::digest::Algorithm {
    match digest {
        Digest::Sha1 => &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        Digest::Sha256 => &aws_lc_rs::digest::SHA256,
        Digest::Sha384 => &aws_lc_rs::digest::SHA384,
        Digest::Sha512 => &aws_lc_rs::digest::SHA512,
    }
}

fn digest_oid(digest: Digest) -> ObjectIdentifier {
    match digest {
        Digest::Sha1 => SHA_1,
        Digest::Sha256 => SHA_256,
        Digest::Sha384 => SHA_384,
        Digest::Sha512 => SHA_512,
    }
}

fn rsa_signature_oid(digest: Digest) -> ObjectIdentifier {
    match digest {
        Digest::Sha1 => RSA_SHA_1,
        Digest::Sha256 => RSA_SHA_256,
        Digest::Sha384 => RSA_SHA_384,
        Digest::Sha512 => RSA_SHA_512,
    }
}

fn ecdsa_oid(digest: Digest) -> ObjectIdentifier {
    match digest {
        Digest::Sha1 => ECDSA_SHA_1,
        Digest::Sha256 => ECDSA_SHA_256,
        Digest::Sha384 => ECDSA_SHA_384,
        Digest::Sha512 => ECDSA_SHA_512,
    }
}

macro_rules! oids {
    ($($(#[$doc:meta])* $name:ident = $dotted:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: ObjectIdentifier = ObjectIdentifier::new_unwrap($dotted);)*
    };
}

// RFC 5652 §12.1, RFC 5083 §2.1, RFC 3274 §1.3: content types.
oids! {
    DATA = "1.2.840.113549.1.7.1";
    SIGNED_DATA = "1.2.840.113549.1.7.2";
    ENVELOPED_DATA = "1.2.840.113549.1.7.3";
    AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23";
    COMPRESSED_DATA = "1.2.840.113549.1.9.16.1.9";
}

// RFC 5652 §11, RFC 8551 §2.5, RFC 5035 §3, RFC 6211 §2: attributes.
oids! {
    CONTENT_TYPE = "1.2.840.113549.1.9.3";
    MESSAGE_DIGEST = "1.2.840.113549.1.9.4";
    SIGNING_TIME = "1.2.840.113549.1.9.5";
    SMIME_CAPABILITIES = "1.2.840.113549.1.9.15";
    ENCRYPTION_KEY_PREFERENCE = "1.2.840.113549.1.9.16.2.11";
    SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47";
    ALGORITHM_PROTECTION = "1.2.840.113549.1.9.52";
}

// RFC 8017 appendix C, RFC 3370, RFC 4055, RFC 5754, RFC 5758, RFC 8410: digests, signatures and public keys.
oids! {
    MD5 = "1.2.840.113549.2.5";
    SHA_1 = "1.3.14.3.2.26";
    SHA_256 = "2.16.840.1.101.3.4.2.1";
    SHA_384 = "2.16.840.1.101.3.4.2.2";
    SHA_512 = "2.16.840.1.101.3.4.2.3";
    RSA_ENCRYPTION = "1.2.840.113549.1.1.1";
    RSA_MD5 = "1.2.840.113549.1.1.4";
    RSA_SHA_1 = "1.2.840.113549.1.1.5";
    RSAES_OAEP = "1.2.840.113549.1.1.7";
    MGF1 = "1.2.840.113549.1.1.8";
    P_SPECIFIED = "1.2.840.113549.1.1.9";
    RSASSA_PSS = "1.2.840.113549.1.1.10";
    RSA_SHA_256 = "1.2.840.113549.1.1.11";
    RSA_SHA_384 = "1.2.840.113549.1.1.12";
    RSA_SHA_512 = "1.2.840.113549.1.1.13";
    EC_PUBLIC_KEY = "1.2.840.10045.2.1";
    ECDSA_SHA_1 = "1.2.840.10045.4.1";
    ECDSA_SHA_256 = "1.2.840.10045.4.3.2";
    ECDSA_SHA_384 = "1.2.840.10045.4.3.3";
    ECDSA_SHA_512 = "1.2.840.10045.4.3.4";
    P_256 = "1.2.840.10045.3.1.7";
    P_384 = "1.3.132.0.34";
    P_521 = "1.3.132.0.35";
    X25519 = "1.3.101.110";
    ED25519 = "1.3.101.112";
}

// RFC 3565, RFC 5084, RFC 8103, RFC 3370: ciphers and key wrapping.
oids! {
    AES_128_CBC = "2.16.840.1.101.3.4.1.2";
    AES_128_WRAP = "2.16.840.1.101.3.4.1.5";
    AES_128_GCM = "2.16.840.1.101.3.4.1.6";
    AES_256_CBC = "2.16.840.1.101.3.4.1.42";
    AES_256_WRAP = "2.16.840.1.101.3.4.1.45";
    AES_256_GCM = "2.16.840.1.101.3.4.1.46";
    CHACHA20_POLY1305 = "1.2.840.113549.1.9.16.3.18";
    TRIPLE_DES_CBC = "1.2.840.113549.3.7";
}

// RFC 5753 §7.1.4, RFC 8418 §2.2: key agreement.
oids! {
    ECDH_SHA_1 = "1.3.133.16.840.63.0.2";
    ECDH_COFACTOR_SHA_1 = "1.3.133.16.840.63.0.3";
    ECDH_SHA_256 = "1.3.132.1.11.1";
    ECDH_SHA_384 = "1.3.132.1.11.2";
    ECDH_SHA_512 = "1.3.132.1.11.3";
    ECDH_COFACTOR_SHA_256 = "1.3.132.1.14.1";
    ECDH_COFACTOR_SHA_384 = "1.3.132.1.14.2";
    ECDH_COFACTOR_SHA_512 = "1.3.132.1.14.3";
    ECDH_HKDF_SHA_256 = "1.2.840.113549.1.9.16.3.19";
    ECDH_HKDF_SHA_384 = "1.2.840.113549.1.9.16.3.20";
    ECDH_HKDF_SHA_512 = "1.2.840.113549.1.9.16.3.21";
}
