//! Whether a key that is elsewhere is the other half of a certificate's public key, by using both: what it signs the
//! certificate verifies, and what is encrypted to the certificate it decrypts.

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sealgate_core::keys::{Certificate, Digest, KeyKind, KeyTransport, SecretKey, SignatureScheme};

use super::{KeyPurpose, NewSecretKey};

/// Tries the handle against the key's certificate; the error says what it cannot do.
pub(crate) fn prove(handle: &dyn SecretKey, key: &NewSecretKey) -> Result<(), String> {
    let certificate = &key.certificate;
    if key.purpose.serves(KeyPurpose::Sign) {
        let proof = SigningProof::new(certificate).ok_or("a kind of key that cannot sign")?;
        let signature = handle.sign(proof.scheme, KNOWN_TEXT).map_err(|error| error.to_string())?;
        if !proof.is_met_by(certificate, &signature) {
            return Err("it signs with another key".to_owned());
        }
    }
    if key.purpose.serves(KeyPurpose::Encrypt) {
        let proof = DecryptingProof::new(certificate).ok_or("its public key does not encrypt")?;
        let plain = handle.unwrap(&proof.transport()).map_err(|error| error.to_string())?;
        if !proof.is_met_by(&plain) {
            return Err("it decrypts with another key".to_owned());
        }
    }
    Ok(())
}

/// How a signature is to be made over [`KNOWN_TEXT`], and what verifies it.
pub(crate) struct SigningProof {
    pub(crate) scheme: SignatureScheme,
    algorithm: &'static dyn VerificationAlgorithm,
}

impl SigningProof {
    /// `None` for kinds of keys that do not sign.
    pub(crate) fn new(certificate: &Certificate) -> Option<Self> {
        let (scheme, algorithm): (_, &'static dyn VerificationAlgorithm) = match certificate
            .key_kind()
        {
            KeyKind::Rsa { .. } if certificate.is_pss_only() => {
                (SignatureScheme::RsaPss(Digest::Sha256), &signature::RSA_PSS_2048_8192_SHA256)
            }
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
        };
        Some(Self { scheme, algorithm })
    }

    /// Whether the certificate's key made this.
    pub(crate) fn is_met_by(&self, certificate: &Certificate, signature: &[u8]) -> bool {
        let public = UnparsedPublicKey::new(self.algorithm, certificate.public_key_bytes());
        public.verify(KNOWN_TEXT, signature).is_ok()
    }
}

/// What is given to be decrypted, and what must come of it.
pub(crate) struct DecryptingProof {
    is_rsa: bool,
    given: Vec<u8>,
    expected: Vec<u8>,
}

impl DecryptingProof {
    /// `None` for kinds of keys that do not decrypt.
    pub(crate) fn new(certificate: &Certificate) -> Option<Self> {
        match certificate.key_kind() {
            KeyKind::Rsa { .. } => Self::encrypted(certificate),
            KeyKind::P256 => Self::agreed(&agreement::ECDH_P256, certificate),
            KeyKind::P384 => Self::agreed(&agreement::ECDH_P384, certificate),
            KeyKind::P521 => Self::agreed(&agreement::ECDH_P521, certificate),
            KeyKind::X25519 => Self::agreed(&agreement::X25519, certificate),
            _ => None,
        }
    }

    /// What is given.
    pub(crate) fn transport(&self) -> KeyTransport<'_> {
        if self.is_rsa {
            KeyTransport::RsaPkcs1 { encrypted_key: &self.given }
        } else {
            KeyTransport::Ecdh { ephemeral: &self.given }
        }
    }

    /// Whether this came of it.
    pub(crate) fn is_met_by(&self, plain: &[u8]) -> bool {
        plain == self.expected
    }

    /// With PKCS #1 v1.5 padding: there is no store and no token that has less.
    fn encrypted(certificate: &Certificate) -> Option<Self> {
        let key = PublicEncryptingKey::from_der(certificate.public_key_info_der()).ok()?;
        let key = Pkcs1PublicEncryptingKey::new(key).ok()?;
        let mut given = vec![0; key.ciphertext_size()];
        let length = key.encrypt(KNOWN_TEXT, &mut given).ok()?.len();
        given.truncate(length);
        Some(Self { is_rsa: true, given, expected: KNOWN_TEXT.to_vec() })
    }

    fn agreed(algorithm: &'static agreement::Algorithm, certificate: &Certificate) -> Option<Self> {
        let ours = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).ok()?;
        let given = ours.compute_public_key().ok()?.as_ref().to_vec();
        let theirs = agreement::UnparsedPublicKey::new(algorithm, certificate.public_key_bytes());
        let expected = agree_ephemeral(ours, theirs, (), |z| Ok(z.to_vec())).ok()?;
        Some(Self { is_rsa: false, given, expected })
    }
}

/// What is signed and encrypted.
pub(crate) const KNOWN_TEXT: &[u8] = b"sealgate looks whether this key is the right one";
