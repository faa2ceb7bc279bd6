//! S/MIME clear signing (RFC 8551 §3.5.3): an entity becomes multipart/signed around the same bytes.

use bytes::Bytes;

use crate::cms::{self, Signing};
use crate::keys::{Certificate, Digest, KeyError, OwnKey, SignatureScheme, Timestamp};
use crate::mime::write::{self, Boundary};

/// What a signature was made with, for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The multipart/signed entity: Content-Type field, empty line, body.
    pub entity: Vec<Bytes>,
    /// `sha-256`, ...
    pub digest: &'static str,
    /// `rsa-pkcs1`, ...
    pub signature: &'static str,
}

/// Signs an entity, which must be canonical and 7-bit safe already (`mime::canonical_for_signing`).
/// `encryption_certificate` is the originator's own, sent along for replies (RFC 8551 §2.5.3).
///
/// # Errors
/// What the secret key's handle answers, and [`KeyError::Failed`] for a key of a kind that cannot sign.
pub fn sign(
    entity: &[Bytes],
    key: &OwnKey,
    encryption_certificate: Option<&Certificate>,
    signed_at: Timestamp,
) -> Result<Signed, KeyError> {
    let scheme = cms::default_scheme(&key.certificate).ok_or(KeyError::Failed)?;
    let signing = Signing { key, scheme, encryption_certificate, signed_at };
    let content: Vec<&[u8]> = entity.iter().map(Bytes::as_ref).collect();
    let signature = cms::sign_detached(&signing, &content)?;
    let digest = digest_of(scheme);
    let boundary = Boundary::new(cms::random_bytes()?, entity);
    Ok(Signed {
        entity: write::multipart_signed(&[], entity, &signature, digest, &boundary),
        digest,
        signature: cms::signature_name(scheme, key.certificate.key_kind()),
    })
}

/// The micalg value of RFC 8551 §3.5.3.2. Ed25519 takes SHA-512 (RFC 8419 §3.1).
fn digest_of(scheme: SignatureScheme) -> &'static str {
    match scheme {
        SignatureScheme::Ecdsa(digest)
        | SignatureScheme::RsaPkcs1(digest)
        | SignatureScheme::RsaPss(digest) => match digest {
            Digest::Sha1 => "sha-1",
            Digest::Sha256 => "sha-256",
            Digest::Sha384 => "sha-384",
            Digest::Sha512 => "sha-512",
        },
        SignatureScheme::Ed25519 => "sha-512",
    }
}
