//! Encrypting content to certificates: AuthEnvelopedData with GCM, EnvelopedData with CBC.
//!
//! In: the content in pieces, a cipher, certificates each with the way its key is wrapped. Out: a
//! DER ContentInfo, in a buffer with room for its text. A fresh content-encryption key and nonce for
//! each call. The content is copied once, into the output, and encrypted there.
//!
//! Which certificates may be encrypted to was decided before.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use zeroize::Zeroizing;

use super::CmsError;
use super::algorithm::{
    AUTH_ENVELOPED_DATA, ContentCipher, DATA, EC_PUBLIC_KEY, ENVELOPED_DATA, RSA_ENCRYPTION,
    X25519, write, write_oaep, write_oid,
};
use super::content_cipher::{AES_BLOCK_BYTES, NONCE_BYTES, encrypt_cbc, seal};
use super::content_info::push_head;
use super::element::{
    BIT_STRING, CONSTRUCTED_0, CONSTRUCTED_1, INTEGER, NULL, OCTET_STRING, PRIMITIVE_0, SEQUENCE,
    SET, element_size, push_header, set_of, tlv,
};
use super::key_agreement::Scheme;
use super::recipient::{RECIPIENTS_MAX, write_issuer_and_serial};
use crate::keys::{Capabilities, Certificate, Digest, KeyKind, RSA_BITS_MAX};

/// How a content-encryption key is given to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyWrap {
    /// Ephemeral-static ECDH (RFC 5753; X25519: RFC 8418) with AES-256 key wrap.
    Ecdh,
    /// RSAES-OAEP with SHA-256.
    RsaOaepSha256,
    /// RSAES-PKCS1-v1_5.
    RsaPkcs1,
}

impl KeyWrap {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ecdh => "ecdh",
            Self::RsaOaepSha256 => "rsa-oaep-sha256",
            Self::RsaPkcs1 => "rsa-pkcs1",
        }
    }
}

/// The way for a kind of key; OAEP only where it is known to be taken. None: such a key is not
/// encrypted to.
pub fn key_wrap_for(kind: KeyKind, capabilities: Option<&Capabilities>) -> Option<KeyWrap> {
    match kind {
        KeyKind::Rsa { .. } if capabilities.is_some_and(|known| known.rsa_oaep) => {
            Some(KeyWrap::RsaOaepSha256)
        }
        KeyKind::Rsa { .. } => Some(KeyWrap::RsaPkcs1),
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::X25519 => Some(KeyWrap::Ecdh),
        _ => None,
    }
}

/// Encrypts content, given in pieces, to certificates. The buffer of what it gives has room for the
/// same as base64 after a header, so that nothing need be copied to become text.
///
/// # Errors
/// [`CmsError::Unsupported`] for a cipher that is only read, a key that cannot be wrapped to, or no
/// recipient at all; [`CmsError::OverLimit`] for too many recipients.
pub fn encrypt(
    content: &[&[u8]],
    cipher: ContentCipher,
    recipients: &[(&Certificate, KeyWrap)],
) -> Result<Vec<u8>, CmsError> {
    if recipients.is_empty() {
        return Err(CmsError::Unsupported);
    }
    if recipients.len() > RECIPIENTS_MAX {
        return Err(CmsError::OverLimit);
    }
    let mut key = Zeroizing::new(vec![0; cipher.key_bytes()]);
    random(&mut key)?;
    let mut infos = Vec::with_capacity(recipients.len());
    for (certificate, way) in recipients {
        infos.push(recipient_info(certificate, *way, &key)?);
    }
    let infos = set_of(SET, infos);
    let is_plain = recipients.iter().all(|(_, way)| *way != KeyWrap::Ecdh);
    match cipher {
        ContentCipher::Aes128Gcm | ContentCipher::Aes256Gcm => {
            authenticated(content, cipher, &key, &infos)
        }
        ContentCipher::Aes128Cbc | ContentCipher::Aes256Cbc => {
            // RFC 5652 §6.1: version 0 if every recipient is of version 0, else 2.
            unauthenticated(content, cipher, &key, &infos, if is_plain { 0 } else { 2 })
        }
        ContentCipher::ChaCha20Poly1305 | ContentCipher::TripleDesCbc => Err(CmsError::Unsupported),
    }
}

/// AuthEnvelopedData (RFC 5083 §2.1) with AES-GCM (RFC 5084 §3.2).
fn authenticated(
    content: &[&[u8]],
    cipher: ContentCipher,
    key: &[u8],
    infos: &[u8],
) -> Result<Vec<u8>, CmsError> {
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    let parameters = tlv(SEQUENCE, &[&tlv(OCTET_STRING, &[&nonce]), &[INTEGER, 1, TAG_BYTES]]);
    let length = content.iter().map(|piece| piece.len()).sum();
    let head =
        Head { kind: AUTH_ENVELOPED_DATA, version: 0, infos, trailer: 2 + usize::from(TAG_BYTES) };
    let (mut out, start) = head.write(&write(cipher.oid(), &parameters), length);
    content.iter().for_each(|piece| out.extend_from_slice(piece));
    let tag = seal(cipher, key, nonce, out.get_mut(start..).unwrap_or_default())?;
    out.extend_from_slice(&tlv(OCTET_STRING, &[&tag]));
    Ok(out)
}

/// EnvelopedData (RFC 5652 §6.1) with AES-CBC (RFC 3565 §4.1).
fn unauthenticated(
    content: &[&[u8]],
    cipher: ContentCipher,
    key: &[u8],
    infos: &[u8],
    version: u8,
) -> Result<Vec<u8>, CmsError> {
    let mut iv = [0; AES_BLOCK_BYTES];
    random(&mut iv)?;
    let length: usize = content.iter().map(|piece| piece.len()).sum();
    let padding = AES_BLOCK_BYTES - length % AES_BLOCK_BYTES;
    let head = Head { kind: ENVELOPED_DATA, version, infos, trailer: 0 };
    let algorithm = write(cipher.oid(), &tlv(OCTET_STRING, &[&iv]));
    let (mut out, start) = head.write(&algorithm, length + padding);
    content.iter().for_each(|piece| out.extend_from_slice(piece));
    // RFC 5652 §6.3.
    let octet = u8::try_from(padding).map_err(|_| CmsError::Unsupported)?;
    out.resize(out.len() + padding, octet);
    encrypt_cbc(cipher, key, iv, out.get_mut(start..).unwrap_or_default())?;
    Ok(out)
}

/// What stands before the encrypted octets.
struct Head<'a> {
    kind: const_oid::ObjectIdentifier,
    version: u8,
    infos: &'a [u8],
    /// Octets that follow the encrypted ones inside the structure.
    trailer: usize,
}

impl Head<'_> {
    /// Writes it into a buffer with room for all, and says where the encrypted octets begin.
    fn write(&self, algorithm: &[u8], encrypted: usize) -> (Vec<u8>, usize) {
        let data = write_oid(DATA);
        let content_info = data.len() + algorithm.len() + element_size(encrypted);
        let version = [INTEGER, 1, self.version];
        let body = version.len() + self.infos.len() + element_size(content_info) + self.trailer;
        let size = element_size(body) + HEAD_BYTES;
        let mut out = Vec::with_capacity(size + size / 5 * 2 + HEADER_BYTES);
        push_head(&mut out, self.kind, element_size(body));
        push_header(&mut out, SEQUENCE, body);
        out.extend_from_slice(&version);
        out.extend_from_slice(self.infos);
        push_header(&mut out, SEQUENCE, content_info);
        out.extend_from_slice(&data);
        out.extend_from_slice(algorithm);
        push_header(&mut out, PRIMITIVE_0, encrypted);
        let start = out.len();
        (out, start)
    }
}

fn recipient_info(
    certificate: &Certificate,
    way: KeyWrap,
    key: &[u8],
) -> Result<Vec<u8>, CmsError> {
    match (way, certificate.key_kind()) {
        (KeyWrap::Ecdh, kind) => agreement_info(certificate, kind, key),
        (KeyWrap::RsaOaepSha256 | KeyWrap::RsaPkcs1, KeyKind::Rsa { bits })
            if (MODULUS_BITS_MIN..=RSA_BITS_MAX).contains(&bits) =>
        {
            transport_info(certificate, way, key)
        }
        _ => Err(CmsError::Unsupported),
    }
}

/// KeyTransRecipientInfo, version 0: named by issuer and serial number (RFC 5652 §6.2.1).
fn transport_info(
    certificate: &Certificate,
    way: KeyWrap,
    key: &[u8],
) -> Result<Vec<u8>, CmsError> {
    let public = PublicEncryptingKey::from_der(certificate.public_key_info_der())
        .map_err(|_| CmsError::Unsupported)?;
    let mut encrypted = vec![0; public.key_size_bytes()];
    let (algorithm, outcome) = match way {
        KeyWrap::RsaOaepSha256 => {
            let outcome = OaepPublicEncryptingKey::new(public).and_then(|oaep| {
                oaep.encrypt(&OAEP_SHA256_MGF1SHA256, key, &mut encrypted, None)
                    .map(|out| out.len())
            });
            (write_oaep(Digest::Sha256), outcome)
        }
        _ => {
            let outcome = Pkcs1PublicEncryptingKey::new(public)
                .and_then(|pkcs1| pkcs1.encrypt(key, &mut encrypted).map(|out| out.len()));
            (write(RSA_ENCRYPTION, &[NULL, 0]), outcome)
        }
    };
    encrypted.truncate(outcome.map_err(|_| CmsError::Unsupported)?);
    let name = write_issuer_and_serial(SEQUENCE, certificate);
    let encrypted = tlv(OCTET_STRING, &[&encrypted]);
    Ok(tlv(SEQUENCE, &[&[INTEGER, 1, 0], &name, &algorithm, &encrypted]))
}

/// KeyAgreeRecipientInfo with a fresh ephemeral key (RFC 5652 §6.2.2, RFC 5753 §3.1, RFC 8418 §3).
fn agreement_info(
    certificate: &Certificate,
    kind: KeyKind,
    key: &[u8],
) -> Result<Vec<u8>, CmsError> {
    let (curve, originator, scheme) = match kind {
        KeyKind::P256 => (&agreement::ECDH_P256, EC_PUBLIC_KEY, Scheme::x963()),
        KeyKind::P384 => (&agreement::ECDH_P384, EC_PUBLIC_KEY, Scheme::x963()),
        KeyKind::P521 => (&agreement::ECDH_P521, EC_PUBLIC_KEY, Scheme::x963()),
        KeyKind::X25519 => (&agreement::X25519, X25519, Scheme::hkdf()),
        _ => return Err(CmsError::Unsupported),
    };
    let ephemeral = PrivateKey::generate(curve).map_err(|_| CmsError::Unsupported)?;
    let public = ephemeral.compute_public_key().map_err(|_| CmsError::Unsupported)?;
    let peer = UnparsedPublicKey::new(curve, certificate.public_key_bytes());
    let wrapped = agree(&ephemeral, peer, CmsError::Unsupported, |z| scheme.wrap(z, key))?;
    let public = tlv(BIT_STRING, &[&[0], public.as_ref()]);
    let originator = tlv(CONSTRUCTED_1, &[&write(originator, &[]), &public]);
    let encrypted_key = tlv(
        SEQUENCE,
        &[&write_issuer_and_serial(SEQUENCE, certificate), &tlv(OCTET_STRING, &[&wrapped])],
    );
    Ok(tlv(
        CONSTRUCTED_1,
        &[
            &[INTEGER, 1, 3],
            &tlv(CONSTRUCTED_0, &[&originator]),
            &scheme.write(),
            &tlv(SEQUENCE, &[&encrypted_key]),
        ],
    ))
}

fn random(bytes: &mut [u8]) -> Result<(), CmsError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| CmsError::Unsupported)
}

/// We write whole tags.
const TAG_BYTES: u8 = 16;
/// Room for the outermost headers.
const HEAD_BYTES: usize = 64;
/// Room for the header fields of an application/pkcs7-mime. Its text is 78 octets for 57, less
/// than seven for five.
const HEADER_BYTES: usize = 512;
/// RSA keys that are encrypted to (REQUIREMENTS K5).
const MODULUS_BITS_MIN: u32 = 2048;
