//! Which RSA signatures verify, and how much they are worth.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RsaEncoding};

use super::*;

const MESSAGE: &[u8] = b"what is signed";

struct Signer {
    pair: KeyPair,
    key: SubjectPublicKeyInfoOwned,
}

impl Signer {
    fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        Self { key: SubjectPublicKeyInfoOwned::from_der(der.as_ref()).unwrap(), pair }
    }

    fn sign(&self, encoding: &'static dyn RsaEncoding) -> BitString {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), MESSAGE, &mut signature).unwrap();
        BitString::from_bytes(&signature).unwrap()
    }
}

fn pkcs1(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters: Some(der::Any::null()) }
}

/// RSASSA-PSS with SHA-256, and where asked another digest for MGF1 (RFC 4055 §3.1, §6).
fn pss(mask_digest: u8, salt_length: u8) -> AlgorithmIdentifierOwned {
    let digest =
        |last| [&[0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, last][..], &[5, 0]].concat();
    let rsa = |last| [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last];
    let parts = [
        [&[0x30, 0x41, 6, 9][..], &rsa(10), &[0x30, 0x34]].concat(),
        [&[0xa0, 15][..], &digest(1)].concat(),
        [&[0xa1, 28, 0x30, 26, 6, 9][..], &rsa(8), &digest(mask_digest)].concat(),
        vec![0xa2, 3, 2, 1, salt_length],
    ];
    AlgorithmIdentifierOwned::from_der(&parts.concat()).unwrap()
}

#[test]
fn rsa_signatures_verify_under_the_algorithm_that_made_them_only() {
    let signer = Signer::new();
    let other = Signer::new();
    let sha_256 = signer.sign(&aws::RSA_PKCS1_SHA256);
    let sha_512 = signer.sign(&aws::RSA_PKCS1_SHA512);
    let of_pss = signer.sign(&aws::RSA_PSS_SHA256);
    let strong = Some(Strength::Strong);
    for (algorithm, signature, key, expected) in [
        (pkcs1(rfc5912::SHA_256_WITH_RSA_ENCRYPTION), &sha_256, &signer.key, strong),
        (pkcs1(rfc5912::SHA_512_WITH_RSA_ENCRYPTION), &sha_512, &signer.key, strong),
        (pss(1, 32), &of_pss, &signer.key, strong),
        (pkcs1(rfc5912::SHA_256_WITH_RSA_ENCRYPTION), &sha_256, &other.key, None),
        (pkcs1(rfc5912::SHA_256_WITH_RSA_ENCRYPTION), &sha_512, &signer.key, None),
        (pkcs1(rfc5912::SHA_256_WITH_RSA_ENCRYPTION), &of_pss, &signer.key, None),
        (pkcs1(rfc5912::SHA_1_WITH_RSA_ENCRYPTION), &sha_256, &signer.key, None),
        (pss(1, 32), &sha_256, &signer.key, None),
        // Another digest in MGF1: not taken. Another length of salt than was signed with.
        (pss(3, 32), &of_pss, &signer.key, None),
        (pss(1, 20), &of_pss, &signer.key, None),
        // Ed25519's identifier with an RSA key.
        (pkcs1(rfc8410::ID_ED_25519), &sha_256, &signer.key, None),
    ] {
        let signed = Signed { message: MESSAGE, algorithm: &algorithm, signature };
        let checks = Checks::default();
        assert_eq!(checks.verify(signed, key), Ok(expected), "{algorithm:?}");
        let falsified = Signed { message: b"What is signed", ..signed };
        assert_eq!(checks.verify(falsified, key), Ok(None), "falsified: {algorithm:?}");
    }
}

#[test]
fn a_key_marked_for_pss_verifies_nothing_else() {
    let signer = Signer::new();
    let mut key = signer.key.clone();
    key.algorithm = AlgorithmIdentifierOwned { oid: rfc5912::ID_RSASSA_PSS, parameters: None };
    let checks = Checks::default();
    let verify = |algorithm: &AlgorithmIdentifierOwned, signature: &BitString| {
        checks.verify(Signed { message: MESSAGE, algorithm, signature }, &key).unwrap()
    };
    let usual = pkcs1(rfc5912::SHA_256_WITH_RSA_ENCRYPTION);
    assert_eq!(verify(&usual, &signer.sign(&aws::RSA_PKCS1_SHA256)), None);
    assert_eq!(verify(&pss(1, 32), &signer.sign(&aws::RSA_PSS_SHA256)), Some(Strength::Strong));
}

#[test]
fn the_same_check_is_made_once_and_others_are_counted() {
    let signer = Signer::new();
    let algorithm = pkcs1(rfc5912::SHA_256_WITH_RSA_ENCRYPTION);
    let signature = signer.sign(&aws::RSA_PKCS1_SHA256);
    let checks = Checks::default();
    let verify = |message: &[u8]| {
        checks.verify(Signed { message, algorithm: &algorithm, signature: &signature }, &signer.key)
    };
    for number in 0..CHECKS_MAX - 1 {
        assert_eq!(verify(&number.to_be_bytes()), Ok(None));
    }
    for _ in 0..2 * CHECKS_MAX {
        assert_eq!(verify(MESSAGE), Ok(Some(Strength::Strong)));
    }
    assert!(!checks.are_exhausted());
    assert_eq!(verify(b"one more"), Err(TooManyChecks));
    assert!(checks.are_exhausted());
    assert_eq!(verify(MESSAGE), Ok(Some(Strength::Strong)));
}
