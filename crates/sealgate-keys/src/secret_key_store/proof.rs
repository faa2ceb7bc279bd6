//! Whether a key that is elsewhere is the other half of a certificate's public key, by using both: what it signs the
//! certificate verifies, and what is encrypted to the certificate it decrypts.

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPublicEncryptingKey,
    Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sealgate_core::keys::{Certificate, Digest, KeyKind, KeyTransport, SecretKey, SignatureScheme};
use zeroize::Zeroizing;

use super::{KeyPurpose, NewSecretKey};

/// Tries a handle against the key's certificate; the error says what it cannot do.
pub(crate) fn prove(handle: &dyn SecretKey, key: &NewSecretKey) -> Result<(), String> {
    prove_by(
        key.purpose,
        &key.certificate,
        |scheme| handle.sign(scheme, KNOWN_TEXT).map_err(|error| error.to_string()),
        |transport| handle.unwrap(transport).map(Some).map_err(|error| error.to_string()),
        in_words,
    )
}

/// What a key does not do, and why where that is known.
pub(crate) fn in_words(what: &str, why: Option<String>) -> String {
    why.map_or_else(|| what.to_owned(), |why| format!("{what}: {why}"))
}

/// Tries everything that a key is for, each way that mail needs. `sign` signs [`KNOWN_TEXT`]; `unwrap` gives `None` where the
/// key is there and has no result; `fault` makes an error of what it does not do, and why where that is known.
pub(crate) fn prove_by<E>(
    purpose: KeyPurpose,
    certificate: &Certificate,
    sign: impl Fn(SignatureScheme) -> Result<Vec<u8>, E>,
    unwrap: impl Fn(&KeyTransport<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, E>,
    fault: impl Fn(&str, Option<E>) -> E,
) -> Result<(), E> {
    if purpose.serves(KeyPurpose::Sign) {
        let proof = SigningProof::new(certificate);
        let proof = proof.ok_or_else(|| fault("a kind of key that cannot sign", None))?;
        let signature = sign(proof.scheme).map_err(|why| fault("no signature", Some(why)))?;
        if !proof.is_met_by(certificate, &signature) {
            return Err(fault("it signs with another key", None));
        }
    }
    if !purpose.serves(KeyPurpose::Encrypt) {
        return Ok(());
    }
    let proofs = DecryptingProof::all(certificate);
    // What decrypts nowhere loses nothing where it signs.
    if proofs.is_empty() && !purpose.serves(KeyPurpose::Sign) {
        return Err(fault("its public key does not encrypt", None));
    }
    for proof in proofs {
        let none = format!("no {}", proof.name());
        match unwrap(&proof.transport()) {
            Ok(Some(plain)) if proof.is_met_by(&plain) => {}
            Ok(Some(_)) => return Err(fault("it decrypts with another key", None)),
            Ok(None) => return Err(fault(&none, None)),
            Err(why) => return Err(fault(&none, Some(why))),
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
    way: Way,
    given: Vec<u8>,
    expected: Vec<u8>,
}

/// How mail's keys come to a recipient.
#[derive(Clone, Copy)]
enum Way {
    Ecdh,
    Oaep(Digest),
    Pkcs1,
}

impl DecryptingProof {
    /// The one that every store can do; `None` for kinds of keys that do not decrypt.
    pub(crate) fn new(certificate: &Certificate) -> Option<Self> {
        match certificate.key_kind() {
            // With PKCS #1 v1.5 padding: there is no store and no token that has less.
            KeyKind::Rsa { .. } => Self::encrypted(certificate),
            KeyKind::P256 => Self::agreed(&agreement::ECDH_P256, certificate),
            KeyKind::P384 => Self::agreed(&agreement::ECDH_P384, certificate),
            KeyKind::P521 => Self::agreed(&agreement::ECDH_P521, certificate),
            KeyKind::X25519 => Self::agreed(&agreement::X25519, certificate),
            _ => None,
        }
    }

    /// One for each way in which mail to this certificate may come; none for kinds of keys that do not decrypt.
    pub(crate) fn all(certificate: &Certificate) -> Vec<Self> {
        let first = Self::new(certificate);
        // Kinds other than RSA give none.
        let sha1 = Self::padded(Digest::Sha1, &OAEP_SHA1_MGF1SHA1, certificate);
        [first, sha1, Self::oaep_sha256(certificate)].into_iter().flatten().collect()
    }

    /// The one by which a key came to us in a mail; `None` where there is none of that way.
    pub(crate) fn like(transport: &KeyTransport<'_>, certificate: &Certificate) -> Option<Self> {
        let is_like = |proof: &Self| match (proof.transport(), transport) {
            (KeyTransport::Ecdh { .. }, KeyTransport::Ecdh { .. })
            | (KeyTransport::RsaPkcs1 { .. }, KeyTransport::RsaPkcs1 { .. }) => true,
            (
                KeyTransport::RsaOaep { digest, .. },
                KeyTransport::RsaOaep { digest: theirs, .. },
            ) => digest == *theirs,
            _ => false,
        };
        Self::all(certificate).into_iter().find(is_like)
    }

    /// RSAES-OAEP with SHA-256, which our own mail uses; `None` for other kinds of keys.
    pub(crate) fn oaep_sha256(certificate: &Certificate) -> Option<Self> {
        Self::padded(Digest::Sha256, &OAEP_SHA256_MGF1SHA256, certificate)
    }

    /// What it proves, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self.way {
            Way::Ecdh => "key agreement (ECDH)",
            Way::Oaep(Digest::Sha1) => "decryption of RSAES-OAEP with SHA-1",
            Way::Oaep(_) => "decryption of RSAES-OAEP with SHA-256",
            Way::Pkcs1 => "decryption of RSAES-PKCS1-v1_5",
        }
    }

    /// What is given.
    pub(crate) fn transport(&self) -> KeyTransport<'_> {
        let encrypted_key = &self.given;
        match self.way {
            Way::Ecdh => KeyTransport::Ecdh { ephemeral: &self.given },
            Way::Oaep(digest) => KeyTransport::RsaOaep { digest, encrypted_key },
            Way::Pkcs1 => KeyTransport::RsaPkcs1 { encrypted_key },
        }
    }

    /// Whether this came of it.
    pub(crate) fn is_met_by(&self, plain: &[u8]) -> bool {
        plain == self.expected
    }

    fn encrypted(certificate: &Certificate) -> Option<Self> {
        let key = PublicEncryptingKey::from_der(certificate.public_key_info_der()).ok()?;
        let key = Pkcs1PublicEncryptingKey::new(key).ok()?;
        let mut given = vec![0; key.ciphertext_size()];
        let length = key.encrypt(KNOWN_TEXT, &mut given).ok()?.len();
        given.truncate(length);
        Some(Self { way: Way::Pkcs1, given, expected: KNOWN_TEXT.to_vec() })
    }

    fn padded(
        digest: Digest,
        scheme: &'static OaepAlgorithm,
        certificate: &Certificate,
    ) -> Option<Self> {
        let key = PublicEncryptingKey::from_der(certificate.public_key_info_der()).ok()?;
        let key = OaepPublicEncryptingKey::new(key).ok()?;
        let mut given = vec![0; key.ciphertext_size()];
        let length = key.encrypt(scheme, KNOWN_TEXT, &mut given, None).ok()?.len();
        given.truncate(length);
        Some(Self { way: Way::Oaep(digest), given, expected: KNOWN_TEXT.to_vec() })
    }

    fn agreed(algorithm: &'static agreement::Algorithm, certificate: &Certificate) -> Option<Self> {
        let ours = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).ok()?;
        let given = ours.compute_public_key().ok()?.as_ref().to_vec();
        let theirs = agreement::UnparsedPublicKey::new(algorithm, certificate.public_key_bytes());
        let expected = agree_ephemeral(ours, theirs, (), |z| Ok(z.to_vec())).ok()?;
        Some(Self { way: Way::Ecdh, given, expected })
    }
}

/// What is signed and encrypted.
pub(crate) const KNOWN_TEXT: &[u8] = b"sealgate looks whether this key is the right one";
