//! SignedData (RFC 5652 §5): what was signed, by whom, and whether that is so.
//!
//! In: a ContentInfo, BER or DER, and for detached signatures the content apart. Out: certificates,
//! CRLs and signers, in the order in which they came; [`SignerInfo::verify`] then says for one
//! signer and one certificate whether the signature holds. Signed attributes are verified as
//! received and, failing that, in DER order; nothing signed is ever parsed and written anew.
//!
//! It does not choose whom to believe, and it ignores unsigned attributes.

use std::sync::Arc;

use bytes::Bytes;

use super::algorithm::{
    Algorithm, DATA, MD5, RSA_MD5, Signature, digest_of, hash, read_version, signature_of,
};
use super::capabilities::parse_capabilities;
use super::content_info::{ContentInfo, ContentKind, der_of};
use super::element::{
    CONSTRUCTED_0, CONSTRUCTED_1, Element, INTEGER, OCTET_STRING, OID, PRIMITIVE_2, Reader,
    SEQUENCE, SET,
};
use super::signature::verify_signature;
use super::signed_attributes::{SignedAttributes, holds_signed_only, is_attribute_set};
use super::{CmsError, known_certificates, recipient::KeyIdentifier};
use crate::keys::{Capabilities, Certificate, Digest, KeyKind, Timestamp};

/// A parsed SignedData.
#[derive(Clone, Debug)]
pub struct SignedData {
    /// The content, if it is inside (eContent).
    pub content: Option<Bytes>,
    /// Whether the content's type is id-data, the only one that mail has.
    pub content_is_data: bool,
    /// The certificates; those that do not parse are left out.
    pub certificates: Vec<Arc<Certificate>>,
    /// Which members of the certificates' set do not parse, counted from 1: whoever imports has to know.
    pub unreadable: Vec<usize>,
    /// CertificateLists as DER.
    pub crls: Vec<Vec<u8>>,
    /// Who signed.
    pub signers: Vec<SignerInfo>,
}

impl SignedData {
    /// Parses a ContentInfo that holds SignedData.
    ///
    /// # Errors
    /// [`CmsError`]: malformed, over a limit of REQUIREMENTS K4, or another type or version.
    pub fn parse(bytes: &[u8]) -> Result<Self, CmsError> {
        let der = der_of(bytes)?;
        let info = ContentInfo::read(&der)?;
        if info.kind != ContentKind::SignedData {
            return Err(CmsError::Unsupported);
        }
        let mut members = info.content.reader();
        read_version(&members.expect(INTEGER)?)?;
        for algorithm in members.expect(SET)?.reader() {
            Algorithm::read(&algorithm?)?;
        }
        let mut encapsulated = members.expect(SEQUENCE)?.reader();
        let content_type = encapsulated.expect(OID)?.body;
        let content = match encapsulated.optional(CONSTRUCTED_0)? {
            Some(explicit) => Some(read_content(&explicit, content_type)?),
            None => None,
        };
        encapsulated.finish()?;
        let (certificates, unreadable) = match members.optional(CONSTRUCTED_0)? {
            Some(set) => read_certificates(&set)?,
            None => Default::default(),
        };
        let crls = match members.optional(CONSTRUCTED_1)? {
            Some(set) => read_crls(&set)?,
            None => Vec::new(),
        };
        let mut signers = Vec::new();
        for signer in members.expect(SET)?.reader() {
            if signers.len() >= SIGNERS_MAX {
                return Err(CmsError::OverLimit);
            }
            signers.push(SignerInfo::read(&signer?, content_type)?);
        }
        members.finish()?;
        let content_is_data = content_type == DATA.as_bytes();
        Ok(Self { content, content_is_data, certificates, unreadable, crls, signers })
    }
}

/// One signature and who is said to have made it.
#[derive(Clone, Debug)]
pub struct SignerInfo {
    content_type: Vec<u8>,
    identifier: KeyIdentifier,
    /// AlgorithmIdentifiers as DER.
    digest_algorithm: Vec<u8>,
    signature_algorithm: Vec<u8>,
    attributes: Option<SignedAttributes>,
    /// Whether an attribute that must be signed stands among the unsigned ones.
    is_misplaced: bool,
    signature: Vec<u8>,
}

impl SignerInfo {
    fn read(element: &Element<'_>, content_type: &[u8]) -> Result<Self, CmsError> {
        if element.tag != SEQUENCE {
            return Err(CmsError::Malformed);
        }
        let mut members = element.reader();
        read_version(&members.expect(INTEGER)?)?;
        let identifier = KeyIdentifier::read(&members.element()?)?;
        let digest_algorithm = Algorithm::next(&mut members)?.whole.to_vec();
        let attributes =
            members.optional(CONSTRUCTED_0)?.map(|implicit| SignedAttributes::new(implicit.body));
        let signature_algorithm = Algorithm::next(&mut members)?.whole.to_vec();
        let signature = members.expect(OCTET_STRING)?.body.to_vec();
        let unsigned = members.optional(CONSTRUCTED_1)?;
        members.finish()?;
        Ok(Self {
            content_type: content_type.to_vec(),
            identifier,
            digest_algorithm,
            signature_algorithm,
            attributes,
            is_misplaced: unsigned.is_some_and(|unsigned| holds_signed_only(&unsigned)),
            signature,
        })
    }

    /// The signer's certificate among candidates, by issuer and serial number or by key identifier.
    ///
    /// Several can have that name, such as a certificate and its renewal for the same key: then the
    /// one that the signed attributes name, else the first that may sign and is valid `now`.
    pub fn certificate<'a>(
        &self,
        candidates: impl Iterator<Item = &'a Arc<Certificate>>,
        now: Timestamp,
    ) -> Option<&'a Arc<Certificate>> {
        let meaning = self.attributes.as_ref().and_then(|all| all.meaning().ok());
        candidates.filter(|candidate| self.identifier.names(candidate)).min_by_key(|candidate| {
            let is_named =
                meaning.is_none_or(|meaning| meaning.names_certificate(candidate).unwrap_or(false));
            (!is_named, !(candidate.may_sign() && candidate.is_valid_at(now)))
        })
    }

    /// The digest's name in reports.
    pub fn digest_name(&self) -> &'static str {
        match self.digest() {
            Some(Digest::Sha1) => "sha-1",
            Some(Digest::Sha256) => "sha-256",
            Some(Digest::Sha384) => "sha-384",
            Some(Digest::Sha512) => "sha-512",
            None if self.is_md5() => "md5",
            None => "unknown",
        }
    }

    /// The signature algorithm's name in reports.
    pub fn signature_name(&self, certificate: &Certificate) -> &'static str {
        match (self.scheme(), certificate.key_kind()) {
            (Ok(Signature::RsaPkcs1(_)), _) => "rsa-pkcs1",
            (Ok(Signature::RsaPss { .. }), _) => "rsa-pss",
            (Ok(Signature::Ecdsa(_)), KeyKind::P256) => "ecdsa-p256",
            (Ok(Signature::Ecdsa(_)), KeyKind::P384) => "ecdsa-p384",
            (Ok(Signature::Ecdsa(_)), KeyKind::P521) => "ecdsa-p521",
            (Ok(Signature::Ed25519), _) => "ed25519",
            _ => "unknown",
        }
    }

    /// Whether the digest, or the one inside the signature algorithm, is too weak to prove anything
    /// (SHA-1, and MD5, which is never verified).
    pub fn is_weak_digest(&self) -> bool {
        let inner = match self.scheme() {
            Ok(Signature::RsaPkcs1(digest) | Signature::Ecdsa(digest)) => Some(digest),
            Ok(Signature::RsaPss { digest, .. }) => Some(digest),
            _ => None,
        };
        self.is_md5() || self.digest() == Some(Digest::Sha1) || inner == Some(Digest::Sha1)
    }

    /// When it was signed, by the signer's own word.
    pub fn signing_time(&self) -> Option<Timestamp> {
        self.attributes.as_ref()?.meaning().ok()?.signing_time
    }

    /// What the signer's software reads. Believe it only after [`Self::verify`].
    pub fn capabilities(&self) -> Option<Capabilities> {
        let meaning = self.attributes.as_ref()?.meaning().ok()?;
        parse_capabilities(meaning.capabilities?).ok()
    }

    /// The certificate that the signer wants mail encrypted to (SMIMEEncryptionKeyPreference, RFC
    /// 8551 §2.5.3). Believe it only after [`Self::verify`].
    pub fn encryption_certificate<'a>(
        &self,
        mut candidates: impl Iterator<Item = &'a Arc<Certificate>>,
    ) -> Option<&'a Arc<Certificate>> {
        let preference = self.attributes.as_ref()?.meaning().ok()?.encryption_key?;
        let identifier = match preference.tag {
            CONSTRUCTED_0 => KeyIdentifier::issuer_and_serial(&preference).ok()?,
            // RecipientKeyIdentifier begins with the key identifier (RFC 5652 §6.2.2).
            CONSTRUCTED_1 => {
                let key = preference.reader().expect(OCTET_STRING).ok()?;
                KeyIdentifier::Key(key.body.to_vec())
            }
            PRIMITIVE_2 => KeyIdentifier::Key(preference.body.to_vec()),
            _ => return None,
        };
        candidates.find(|candidate| identifier.names(candidate))
    }

    /// Whether this signature over `content` was made with the certificate's key. For a detached
    /// signature `content` is the canonical octets that were signed, else [`SignedData::content`].
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub fn verify(&self, content: &[u8], certificate: &Certificate) -> Result<(), SignatureFault> {
        if self.is_misplaced {
            return Err(SignatureFault::Falsified);
        }
        if self.content_type != DATA.as_bytes() {
            // Mail is id-data (RFC 8551 §2.4.1); a time-stamp token, say, is no statement about
            // mail.
            return Err(SignatureFault::Unsupported);
        }
        let digest = self.digest().ok_or(SignatureFault::Unsupported)?;
        let scheme = self.scheme().map_err(|fault| match fault {
            CmsError::Malformed | CmsError::OverLimit => SignatureFault::Falsified,
            CmsError::Unsupported => SignatureFault::Unsupported,
        })?;
        let Some(attributes) = &self.attributes else {
            // REQUIREMENTS F10: somebody's signed attributes, given out as content.
            if is_attribute_set(content) {
                return Err(SignatureFault::Falsified);
            }
            if !is_consistent(scheme, digest) {
                return Err(SignatureFault::Falsified);
            }
            return verify_signature(scheme, certificate, content, &self.signature);
        };
        self.check_attributes(attributes, digest, content, certificate)?;
        if !is_consistent(scheme, digest) {
            return Err(SignatureFault::Falsified);
        }
        let received = attributes.as_received();
        match verify_signature(scheme, certificate, &received, &self.signature) {
            Err(SignatureFault::Falsified) => match attributes.sorted() {
                Some(sorted) => verify_signature(scheme, certificate, &sorted, &self.signature),
                None => Err(SignatureFault::Falsified),
            },
            outcome => outcome,
        }
    }

    /// REQUIREMENTS F9 and RFC 5652 §5.6, §11: contentType and messageDigest are there, once, and
    /// say what is so.
    fn check_attributes(
        &self,
        attributes: &SignedAttributes,
        digest: Digest,
        content: &[u8],
        certificate: &Certificate,
    ) -> Result<(), SignatureFault> {
        let falsified = |_: CmsError| SignatureFault::Falsified;
        let meaning = attributes.meaning().map_err(falsified)?;
        let expected = meaning.message_digest.ok_or(SignatureFault::Falsified)?;
        let digest_algorithm = self.algorithm(&self.digest_algorithm).map_err(falsified)?;
        let signature_algorithm = self.algorithm(&self.signature_algorithm).map_err(falsified)?;
        let holds = meaning.content_type == Some(self.content_type.as_slice())
            && meaning
                .names_algorithms(&digest_algorithm, &signature_algorithm)
                .map_err(falsified)?
            && meaning.names_certificate(certificate).map_err(falsified)?
            && hash(digest, content).as_ref() == expected;
        if holds { Ok(()) } else { Err(SignatureFault::Falsified) }
    }

    fn algorithm<'a>(&self, der: &'a [u8]) -> Result<Algorithm<'a>, CmsError> {
        Algorithm::read(&Reader::only(der, SEQUENCE)?)
    }

    fn is_md5(&self) -> bool {
        let is = |der, oid| self.algorithm(der).is_ok_and(|algorithm| algorithm.is(oid));
        is(&self.digest_algorithm, MD5) || is(&self.signature_algorithm, RSA_MD5)
    }

    fn digest(&self) -> Option<Digest> {
        digest_of(&self.algorithm(&self.digest_algorithm).ok()?)
    }

    fn scheme(&self) -> Result<Signature, CmsError> {
        signature_of(&self.algorithm(&self.signature_algorithm)?, self.digest())
    }
}

/// Why a signature proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureFault {
    /// It is wrong: the digest, the signature value, or an attribute against the rules.
    Falsified,
    /// An algorithm, key or key size that is not supported.
    Unsupported,
}

/// The digest inside the signature algorithm is SignerInfo's (RFC 5652 §5.4, RFC 4056 §3); Ed25519
/// has its own.
fn is_consistent(scheme: Signature, digest: Digest) -> bool {
    match scheme {
        Signature::Ed25519 => true,
        Signature::Ecdsa(inner) | Signature::RsaPkcs1(inner) => inner == digest,
        Signature::RsaPss { digest: inner, .. } => inner == digest,
    }
}

/// eContent: an OCTET STRING; in PKCS#7 of other types any element (RFC 5652 §5.2.1).
fn read_content(explicit: &Element<'_>, content_type: &[u8]) -> Result<Bytes, CmsError> {
    let mut reader = explicit.reader();
    let content = reader.element()?;
    reader.finish()?;
    if content.tag == OCTET_STRING {
        Ok(Bytes::copy_from_slice(content.body))
    } else if content_type == DATA.as_bytes() {
        Err(CmsError::Malformed)
    } else {
        Err(CmsError::Unsupported)
    }
}

/// The certificates, and the places of members that should be some.
fn read_certificates(set: &Element<'_>) -> Result<(Vec<Arc<Certificate>>, Vec<usize>), CmsError> {
    let mut certificates = Vec::new();
    let mut unreadable = Vec::new();
    for (index, choice) in set.reader().enumerate() {
        if index >= CERTIFICATES_MAX {
            return Err(CmsError::OverLimit);
        }
        // Attribute certificates and other formats, and what does not parse, are no certificates
        // for mail.
        let place = index.saturating_add(1);
        let Ok(choice) = choice else {
            unreadable.push(place);
            break;
        };
        if choice.tag != SEQUENCE {
            continue;
        }
        match known_certificates::parse(choice.whole) {
            Ok(certificate) => certificates.push(certificate),
            Err(_) => unreadable.push(place),
        }
    }
    Ok((certificates, unreadable))
}

fn read_crls(set: &Element<'_>) -> Result<Vec<Vec<u8>>, CmsError> {
    let mut crls = Vec::new();
    for choice in set.reader() {
        let Ok(choice) = choice else { break };
        if choice.tag != SEQUENCE {
            continue;
        }
        if crls.len() >= CRLS_MAX {
            return Err(CmsError::OverLimit);
        }
        crls.push(choice.whole.to_vec());
    }
    Ok(crls)
}

/// Certificates in a message at most (REQUIREMENTS K4).
pub const CERTIFICATES_MAX: usize = 64;
/// CRLs in a message at most (REQUIREMENTS K4).
pub const CRLS_MAX: usize = 4;
/// Signers at most (REQUIREMENTS K4).
pub(super) const SIGNERS_MAX: usize = 8;
