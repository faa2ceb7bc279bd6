//! What keys of a token are used for, and whether it is theirs that was used.

use std::time::Duration;

use aws_lc_rs::agreement::{self, EphemeralPrivateKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA512_MGF1SHA512, OaepAlgorithm,
    OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use sealgate_core::keys::{Certificate, Digest, KeyError, KeyTransport, SignatureScheme};
use sealgate_keys::secret_key_store::RemoteKey;
use sealgate_testkit::process;

pub(crate) fn only(keys: Vec<RemoteKey>) -> RemoteKey {
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.into_iter().next().unwrap()
}

pub(crate) fn signs(key: &RemoteKey) {
    assert!(signs_this(key, MESSAGE), "{:?}", key.certificate);
}

/// With RSA or P-256.
pub(crate) fn signs_this(key: &RemoteKey, message: &[u8]) -> bool {
    let public = key.certificate.public_key_bytes();
    let (scheme, algorithm): (_, &'static dyn VerificationAlgorithm) = if public.len() == 65 {
        (ECDSA_SHA256, &ECDSA_P256_SHA256_ASN1)
    } else {
        (RSA_SHA256, &RSA_PKCS1_2048_8192_SHA256)
    };
    let signature = key.secret.sign(scheme, message);
    signature.is_ok_and(|signature| {
        UnparsedPublicKey::new(algorithm, public).verify(message, &signature).is_ok()
    })
}

/// Issue 3: mail flows again within this time after a store's return.
pub(crate) const RETURN_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn works_within(key: &RemoteKey, patience: Duration) -> bool {
    process::holds_within(patience, || signs_this(key, MESSAGE))
}

pub(crate) fn encrypted_pkcs1(certificate: &Certificate) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(certificate.public_key_info_der()).unwrap();
    let key = Pkcs1PublicEncryptingKey::new(key).unwrap();
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(CONTENT_KEY, &mut out).unwrap();
    out
}

fn encrypted_oaep(certificate: &Certificate, algorithm: &'static OaepAlgorithm) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(certificate.public_key_info_der()).unwrap();
    let key = OaepPublicEncryptingKey::new(key).unwrap();
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(algorithm, CONTENT_KEY, &mut out, None).unwrap();
    out
}

/// What a key is given to decrypt.
pub(crate) enum Given {
    Ecdh(Vec<u8>),
    Oaep(Digest, Vec<u8>),
    Pkcs1(Vec<u8>),
}

impl Given {
    pub(crate) fn request(&self) -> KeyTransport<'_> {
        match self {
            Self::Ecdh(ephemeral) => KeyTransport::Ecdh { ephemeral },
            Self::Oaep(digest, encrypted_key) => {
                KeyTransport::RsaOaep { digest: *digest, encrypted_key }
            }
            Self::Pkcs1(encrypted_key) => KeyTransport::RsaPkcs1 { encrypted_key },
        }
    }
}

/// All that a certificate of RSA or P-256 can be given.
pub(crate) fn given_to(certificate: &Certificate) -> Vec<Given> {
    if certificate.public_key_bytes().len() == 65 {
        let theirs = EphemeralPrivateKey::generate(&agreement::ECDH_P256, &SystemRandom::new());
        return vec![Given::Ecdh(theirs.unwrap().compute_public_key().unwrap().as_ref().to_vec())];
    }
    vec![
        Given::Pkcs1(encrypted_pkcs1(certificate)),
        Given::Oaep(Digest::Sha1, encrypted_oaep(certificate, &OAEP_SHA1_MGF1SHA1)),
        Given::Oaep(Digest::Sha256, encrypted_oaep(certificate, &OAEP_SHA256_MGF1SHA256)),
    ]
}

/// One signs, the other decrypts, each as its certificate says.
pub(crate) fn each_does_its_own(keys: &[RemoteKey]) {
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        if key.certificate.may_sign() {
            signs(key);
        } else if key.certificate.public_key_bytes().len() == 65 {
            agrees(key);
        } else {
            decrypts_rsa(key);
        }
    }
    assert_eq!(keys.iter().filter(|key| key.certificate.may_sign()).count(), 1);
}

/// On the same secret as its correspondent.
fn agrees(key: &RemoteKey) {
    let algorithm = &agreement::ECDH_P256;
    let theirs = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).unwrap();
    let ephemeral = theirs.compute_public_key().unwrap();
    let request = KeyTransport::Ecdh { ephemeral: ephemeral.as_ref() };
    let agreed = key.secret.unwrap(&request).unwrap();
    let public = agreement::UnparsedPublicKey::new(algorithm, key.certificate.public_key_bytes());
    let expected = agreement::agree_ephemeral(theirs, public, (), |z| Ok(z.to_vec())).unwrap();
    assert_eq!(agreed.as_slice(), expected);
}

/// All paddings, and none of them where the ciphertext is another's.
pub(crate) fn decrypts_rsa(key: &RemoteKey) {
    let encrypted_key = encrypted_pkcs1(&key.certificate);
    let request = KeyTransport::RsaPkcs1 { encrypted_key: &encrypted_key };
    assert_eq!(key.secret.unwrap(&request).unwrap().as_slice(), CONTENT_KEY);
    for (digest, algorithm) in [
        (Digest::Sha1, &OAEP_SHA1_MGF1SHA1),
        (Digest::Sha256, &OAEP_SHA256_MGF1SHA256),
        (Digest::Sha512, &OAEP_SHA512_MGF1SHA512),
    ] {
        let wrong = encrypted_pkcs1(&key.certificate);
        let encrypted_key = encrypted_oaep(&key.certificate, algorithm);
        for _ in 0..2 {
            let request = KeyTransport::RsaOaep { digest, encrypted_key: &encrypted_key };
            assert_eq!(key.secret.unwrap(&request).unwrap().as_slice(), CONTENT_KEY, "{digest:?}");
            let request = KeyTransport::RsaOaep { digest, encrypted_key: &wrong };
            assert_eq!(key.secret.unwrap(&request), Err(KeyError::Failed), "{digest:?}");
        }
        // One in some four hundred looks as PKCS #1 v1.5 pads, by chance, and gives anything but the key.
        let as_pkcs1 = (0..3).map(|_| {
            let encrypted_key = encrypted_oaep(&key.certificate, algorithm);
            key.secret.unwrap(&KeyTransport::RsaPkcs1 { encrypted_key: &encrypted_key })
        });
        let as_pkcs1: Vec<_> = as_pkcs1.collect();
        assert!(as_pkcs1.contains(&Err(KeyError::Failed)), "{digest:?} as PKCS #1");
        let is_known = as_pkcs1.iter().flatten().any(|one| one.as_slice() == CONTENT_KEY);
        assert!(!is_known, "{digest:?} as PKCS #1");
    }
    for length in [0, 1, 255, 257] {
        let request = KeyTransport::RsaPkcs1 { encrypted_key: &vec![1; length] };
        assert_eq!(key.secret.unwrap(&request), Err(KeyError::Failed), "{length} octets");
    }
}

pub(crate) const RSA_SHA256: SignatureScheme = SignatureScheme::RsaPkcs1(Digest::Sha256);
pub(crate) const RSA_SHA512: SignatureScheme = SignatureScheme::RsaPkcs1(Digest::Sha512);
pub(crate) const PSS_SHA256: SignatureScheme = SignatureScheme::RsaPss(Digest::Sha256);
pub(crate) const ECDSA_SHA256: SignatureScheme = SignatureScheme::Ecdsa(Digest::Sha256);
pub(crate) const ECDSA_SHA384: SignatureScheme = SignatureScheme::Ecdsa(Digest::Sha384);
pub(crate) const MESSAGE: &[u8] = b"Content-Type: text/plain\r\n\r\nto be signed\r\n";
pub(crate) const CONTENT_KEY: &[u8] = &[0x2a; 32];
