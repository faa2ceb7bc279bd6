//! Making a detached signature (RFC 5652 §5, RFC 8551 §2.5).
//!
//! In: a key with its chain, a scheme, a time, the canonical content. Out: a DER ContentInfo with
//! SignedData without eContent, the body of `application/pkcs7-signature`. The content is hashed
//! once and not copied.

use std::time::Duration;

use der::asn1::{GeneralizedTime, UtcTime};
use der::{DateTime, Encode};

use super::algorithm::{
    ALGORITHM_PROTECTION, CONTENT_TYPE, DATA, ENCRYPTION_KEY_PREFERENCE, MESSAGE_DIGEST,
    SIGNED_DATA, SIGNING_CERTIFICATE_V2, SIGNING_TIME, SMIME_CAPABILITIES, Signature, digest_bytes,
    hash_pieces, write_digest, write_oid, write_signature,
};
use super::capabilities::own_capabilities;
use super::content_info::push_head;
use super::element::{
    CONSTRUCTED_0, CONSTRUCTED_1, INTEGER, OCTET_STRING, SEQUENCE, SET, set_of, tlv,
};
use super::recipient::write_issuer_and_serial;
use crate::keys::{Certificate, Digest, KeyError, KeyKind, OwnKey, SignatureScheme, Timestamp};

/// How to sign.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'a> {
    /// The key, its certificate and the chain that goes along.
    pub key: &'a OwnKey,
    /// What to sign with.
    pub scheme: SignatureScheme,
    /// The signer's certificate for encryption, where it is another: it goes along and is named as
    /// preferred (RFC 8551 §2.5.3).
    pub encryption_certificate: Option<&'a Certificate>,
    /// The time of signing.
    pub signed_at: Timestamp,
}

/// Signs content, given in pieces: a DER ContentInfo with SignedData without the content.
///
/// # Errors
/// What the key says; [`KeyError::Failed`] also when the scheme is not for it or the time cannot be
/// written.
pub fn sign_detached(signing: &Signing<'_>, content: &[&[u8]]) -> Result<Vec<u8>, KeyError> {
    let digest = digest_of_scheme(signing.scheme);
    let certificate = &signing.key.certificate;
    let digest_algorithm = write_digest(digest);
    let signature_algorithm = write_signature(signing.scheme);
    let attributes = attributes(signing, digest, content, &signature_algorithm)?;
    let signature = signing.key.secret.sign(signing.scheme, &set_of(SET, attributes.clone()))?;
    let signer = tlv(
        SEQUENCE,
        &[
            // Version 1: the signer is named by issuer and serial number (RFC 5652 §5.3).
            &[INTEGER, 1, 1],
            &write_issuer_and_serial(SEQUENCE, certificate),
            &digest_algorithm,
            &set_of(CONSTRUCTED_0, attributes),
            &signature_algorithm,
            &tlv(OCTET_STRING, &[&signature]),
        ],
    );
    let signed_data = tlv(
        SEQUENCE,
        &[
            &[INTEGER, 1, 1],
            &tlv(SET, &[&digest_algorithm]),
            &tlv(SEQUENCE, &[&write_oid(DATA)]),
            &certificates(signing),
            &tlv(SET, &[&signer]),
        ],
    );
    let mut out = Vec::with_capacity(signed_data.len() + 32);
    push_head(&mut out, SIGNED_DATA, signed_data.len());
    out.extend_from_slice(&signed_data);
    Ok(out)
}

/// The report's word for how a key of this kind signs under a scheme.
pub fn signature_name(scheme: SignatureScheme, kind: KeyKind) -> &'static str {
    match (scheme, kind) {
        (SignatureScheme::RsaPkcs1(_), _) => "rsa-pkcs1",
        (SignatureScheme::RsaPss(_), _) => "rsa-pss",
        (SignatureScheme::Ed25519, _) => "ed25519",
        (SignatureScheme::Ecdsa(_), KeyKind::P384) => "ecdsa-p384",
        (SignatureScheme::Ecdsa(_), KeyKind::P521) => "ecdsa-p521",
        (SignatureScheme::Ecdsa(_), _) => "ecdsa-p256",
    }
}

/// What a certificate's key signs with by default; none if it does not sign.
pub fn default_scheme(certificate: &Certificate) -> Option<SignatureScheme> {
    match certificate.key_kind() {
        KeyKind::Rsa { .. } if certificate.is_pss_only() => pss_scheme(certificate),
        KeyKind::Rsa { .. } => Some(SignatureScheme::RsaPkcs1(Digest::Sha256)),
        KeyKind::P256 => Some(SignatureScheme::Ecdsa(Digest::Sha256)),
        KeyKind::P384 => Some(SignatureScheme::Ecdsa(Digest::Sha384)),
        KeyKind::P521 => Some(SignatureScheme::Ecdsa(Digest::Sha512)),
        KeyKind::Ed25519 => Some(SignatureScheme::Ed25519),
        _ => None,
    }
}

/// What a key for RSASSA-PSS alone signs with: the digest that it names, and SHA-256 where it names
/// none (RFC 4055 §1.2, §3.3). Our salts are as long as the digest.
fn pss_scheme(certificate: &Certificate) -> Option<SignatureScheme> {
    match certificate.pss_restriction() {
        None => Some(SignatureScheme::RsaPss(Digest::Sha256)),
        Some(Signature::RsaPss { digest, salt_bytes }) if digest != Digest::Sha1 => {
            (usize::from(salt_bytes) <= digest_bytes(digest))
                .then_some(SignatureScheme::RsaPss(digest))
        }
        Some(_) => None,
    }
}

/// The signed attributes, each once (REQUIREMENTS B13).
fn attributes(
    signing: &Signing<'_>,
    digest: Digest,
    content: &[&[u8]],
    signature_algorithm: &[u8],
) -> Result<Vec<Vec<u8>>, KeyError> {
    let certificate = &signing.key.certificate;
    let attribute = |oid, value: &[u8]| tlv(SEQUENCE, &[&write_oid(oid), &tlv(SET, &[value])]);
    let content_digest = hash_pieces(digest, content);
    // RFC 5035 §3: SHA-256 is the default and then left out.
    let certificate_id = tlv(
        SEQUENCE,
        &[&tlv(OCTET_STRING, &[&certificate.fingerprint().0]), &issuer_serial(certificate)],
    );
    // RFC 6211 §2: signatureAlgorithm is [1] IMPLICIT, so the SEQUENCE's tag is replaced.
    let mut implicit_algorithm = signature_algorithm.to_vec();
    if let Some(tag) = implicit_algorithm.first_mut() {
        *tag = CONSTRUCTED_1;
    }
    let protection = tlv(SEQUENCE, &[&write_digest(digest), &implicit_algorithm]);
    let mut attributes = vec![
        attribute(CONTENT_TYPE, &write_oid(DATA)),
        attribute(MESSAGE_DIGEST, &tlv(OCTET_STRING, &[content_digest.as_ref()])),
        attribute(SIGNING_TIME, &write_time(signing.signed_at)?),
        attribute(SMIME_CAPABILITIES, &own_capabilities()),
        attribute(SIGNING_CERTIFICATE_V2, &tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&certificate_id])])),
        attribute(ALGORITHM_PROTECTION, &protection),
    ];
    if let Some(preferred) = signing.encryption_certificate {
        let value = write_issuer_and_serial(CONSTRUCTED_0, preferred);
        attributes.push(attribute(ENCRYPTION_KEY_PREFERENCE, &value));
    }
    Ok(attributes)
}

/// IssuerSerial (RFC 5035 §5): GeneralNames with one directoryName, and the serial number.
fn issuer_serial(certificate: &Certificate) -> Vec<u8> {
    let name = tlv(super::element::CONSTRUCTED_4, &[certificate.issuer_der()]);
    let serial = tlv(INTEGER, &[certificate.serial_bytes()]);
    tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&name]), &serial])
}

/// The signer's certificate, the chain above it without the root, the encryption certificate
/// (REQUIREMENTS B14).
fn certificates(signing: &Signing<'_>) -> Vec<u8> {
    let key = signing.key;
    let chain = key.chain.iter().filter(|issuer| !issuer.is_self_issued());
    let all = std::iter::once(&*key.certificate)
        .chain(chain.map(|issuer| &**issuer))
        .chain(signing.encryption_certificate);
    let mut members: Vec<Vec<u8>> = all.map(|certificate| certificate.der().to_vec()).collect();
    members.sort();
    members.dedup();
    set_of(CONSTRUCTED_0, members)
}

/// UTCTime through 2049, GeneralizedTime after (RFC 5652 §11.3).
fn write_time(at: Timestamp) -> Result<Vec<u8>, KeyError> {
    let seconds = u64::try_from(at.0).map_err(|_| KeyError::Failed)?;
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds));
    let date = date.map_err(|_| KeyError::Failed)?;
    let encoded = match UtcTime::from_date_time(date) {
        Ok(time) => time.to_der(),
        Err(_) => GeneralizedTime::from_date_time(date).to_der(),
    };
    encoded.map_err(|_| KeyError::Failed)
}

/// The digest that goes with a scheme; SHA-512 with Ed25519 (RFC 8419 §3.1).
fn digest_of_scheme(scheme: SignatureScheme) -> Digest {
    match scheme {
        SignatureScheme::RsaPkcs1(digest)
        | SignatureScheme::RsaPss(digest)
        | SignatureScheme::Ecdsa(digest) => digest,
        SignatureScheme::Ed25519 => Digest::Sha512,
    }
}
