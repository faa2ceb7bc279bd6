//! What must hold for every content: what is signed verifies, what is encrypted opens, what is
//! changed does neither.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::sync::Arc;

use proptest::prelude::*;
use sealgate_core::cms::{
    ContentCipher, ContentKind, EnvelopedData, KeyWrap, OpenFault, SignatureFault, SignedData,
    Signing, content_kind, default_scheme, encrypt, key_wrap_for, sign_detached,
};
use sealgate_core::keys::{
    Capabilities, Certificate, Digest, KeyError, KeyTransport, SecretKey, SignatureScheme,
    Timestamp,
};
use sealgate_core::mime::write::pkcs7_mime;
use zeroize::Zeroizing;

#[path = "support/cms_people.rs"]
mod people;

use people::{Person, recipients, rfc9216, signers};

const SIGNED_AT: Timestamp = Timestamp(1_700_000_000);

fn sign(person: &Person, scheme: SignatureScheme, content: &[u8]) -> Vec<u8> {
    let key = person.own();
    let signing = Signing { key: &key, scheme, encryption_certificate: None, signed_at: SIGNED_AT };
    sign_detached(&signing, &[content]).unwrap()
}

fn ways(person: &Person) -> Vec<KeyWrap> {
    let oaep = Capabilities { rsa_oaep: true, ..Capabilities::default() };
    let kind = person.certificate.key_kind();
    let mut ways =
        vec![key_wrap_for(kind, None).unwrap(), key_wrap_for(kind, Some(&oaep)).unwrap()];
    ways.dedup();
    ways
}

const WRITTEN: [ContentCipher; 4] = [
    ContentCipher::Aes128Cbc,
    ContentCipher::Aes256Cbc,
    ContentCipher::Aes128Gcm,
    ContentCipher::Aes256Gcm,
];

#[test]
fn every_scheme_signs_and_verifies() {
    for person in signers() {
        let mut schemes = vec![default_scheme(&person.certificate).unwrap()];
        if person.name == "alice.sign" {
            for digest in [Digest::Sha256, Digest::Sha384, Digest::Sha512] {
                schemes
                    .extend([SignatureScheme::RsaPkcs1(digest), SignatureScheme::RsaPss(digest)]);
            }
        }
        if person.name == "p521" {
            schemes.push(SignatureScheme::Ecdsa(Digest::Sha256));
        }
        for scheme in schemes {
            let content = b"Content-Type: text/plain\r\n\r\nHello\r\n";
            let cms = sign(&person, scheme, content);
            assert_eq!(content_kind(&cms), Ok(ContentKind::SignedData));
            let parsed = SignedData::parse(&cms).unwrap();
            assert!(parsed.content.is_none() && parsed.content_is_data);
            let signer = &parsed.signers[0];
            let found = signer.certificate(parsed.certificates.iter(), SIGNED_AT).unwrap();
            assert_eq!(found.fingerprint(), person.certificate.fingerprint());
            assert_eq!(signer.verify(content, found), Ok(()), "{} {scheme:?}", person.name);
            assert_eq!(signer.verify(b"Hello", found), Err(SignatureFault::Falsified));
            assert_eq!(signer.signing_time(), Some(SIGNED_AT));
            assert!(!signer.is_weak_digest());
            let capabilities = signer.capabilities().unwrap();
            assert!(capabilities.aes_256_gcm && capabilities.aes_256_cbc && capabilities.rsa_oaep);
            let name = signer.signature_name(found);
            let expected = match scheme {
                SignatureScheme::RsaPkcs1(_) => "rsa-pkcs1",
                SignatureScheme::RsaPss(_) => "rsa-pss",
                SignatureScheme::Ed25519 => "ed25519",
                _ => match person.name {
                    "p256" => "ecdsa-p256",
                    "p384" => "ecdsa-p384",
                    _ => "ecdsa-p521",
                },
            };
            assert_eq!(name, expected);
        }
    }
}

#[test]
fn the_encryption_certificate_goes_along_and_is_named() {
    let (alice, other) = (rfc9216("alice.sign"), rfc9216("alice.encrypt"));
    let mut key = alice.own();
    key.chain = vec![Arc::new(
        Certificate::from_der(&people::from_pem(include_bytes!(
            "data/rfc9216/certs/rsa-ca-root.crt"
        )))
        .unwrap(),
    )];
    let scheme = default_scheme(&alice.certificate).unwrap();
    let preferred = Some(&*other.certificate);
    let signing =
        Signing { key: &key, scheme, encryption_certificate: preferred, signed_at: SIGNED_AT };
    let parsed = SignedData::parse(&sign_detached(&signing, &[b"x"]).unwrap()).unwrap();
    // The root stays at home.
    assert_eq!(parsed.certificates.len(), 2);
    let named = parsed.signers[0].encryption_certificate(parsed.certificates.iter()).unwrap();
    assert_eq!(named.fingerprint(), other.certificate.fingerprint());
    assert_eq!(parsed.signers[0].verify(b"x", &alice.certificate), Ok(()));
    assert_eq!(
        parsed.signers[0].verify(b"x", &other.certificate),
        Err(SignatureFault::Falsified),
        "signingCertificateV2 names another"
    );
}

#[test]
fn every_way_encrypts_and_opens() {
    let people = recipients();
    for cipher in WRITTEN {
        for person in &people {
            for way in ways(person) {
                for content in [&b""[..], b"a", &[7; 15], &[7; 16], &[7; 100_000]] {
                    let sealed =
                        encrypt(&[content], cipher, &[(&person.certificate, way)]).unwrap();
                    let parsed = EnvelopedData::parse(&sealed).unwrap();
                    assert_eq!(parsed.is_authenticated(), cipher.is_authenticated());
                    assert_eq!(parsed.cipher(), Some(cipher));
                    let recipient = parsed.recipient_for(&person.certificate).unwrap();
                    let opened = parsed.open(recipient, &person.certificate, &*person.key).unwrap();
                    assert_eq!(*opened, content, "{} {way:?} {cipher:?}", person.name);
                }
            }
        }
    }
}

#[test]
fn all_recipients_open_one_message() {
    let people = recipients();
    let named: Vec<(&Certificate, KeyWrap)> =
        people.iter().map(|person| (&*person.certificate, ways(person)[0])).collect();
    let sealed = encrypt(&[b"one ", b"", b"two"], ContentCipher::Aes256Gcm, &named).unwrap();
    let parsed = EnvelopedData::parse(&sealed).unwrap();
    assert_eq!(parsed.recipient_count(), people.len());
    let mut names: Vec<&str> = (0..people.len()).map(|index| parsed.key_name(index)).collect();
    names.sort_unstable();
    assert_eq!(names, ["ecdh-p256", "ecdh-p384", "ecdh-p521", "ecdh-x25519", "rsa-pkcs1"]);
    for person in &people {
        let recipient = parsed.recipient_for(&person.certificate).unwrap();
        let opened = parsed.open(recipient, &person.certificate, &*person.key).unwrap();
        assert_eq!(*opened, b"one two");
    }
    let stranger = rfc9216("alice.encrypt");
    assert_eq!(parsed.recipient_for(&stranger.certificate), None);
    assert_eq!(
        parsed.open(0, &stranger.certificate, &*stranger.key).unwrap_err(),
        OpenFault::Failed
    );
}

/// A large message is not held twice to become text: there is room from the start.
#[test]
fn what_is_sealed_becomes_text_in_its_own_buffer() {
    let fields = "X-Long: ".to_owned() + &"x".repeat(200) + "\r\n";
    for octets in [0, 1, 57, 1000, 14_592, 1_000_000] {
        let named = [(&*PEOPLE.1.certificate, KeyWrap::Ecdh)];
        let content = vec![b'x'; octets];
        for cipher in WRITTEN {
            let der = encrypt(&[&content], cipher, &named).unwrap();
            let room = der.capacity();
            let text = pkcs7_mime(fields.as_bytes(), "authEnveloped-data", der);
            assert!(text.len() <= room, "{octets} octets, {cipher:?}: {} in {room}", text.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_content_verifies_and_opens(content in prop::collection::vec(any::<u8>(), 0..4096)) {
        let signer = &PEOPLE.0;
        let scheme = default_scheme(&signer.certificate).unwrap();
        let parsed = SignedData::parse(&sign(signer, scheme, &content)).unwrap();
        prop_assert_eq!(parsed.signers[0].verify(&content, &signer.certificate), Ok(()));
        let recipient = &PEOPLE.1;
        for cipher in WRITTEN {
            let named = [(&*recipient.certificate, KeyWrap::Ecdh)];
            let parsed = EnvelopedData::parse(&encrypt(&[&content], cipher, &named).unwrap()).unwrap();
            let opened = parsed.open(0, &recipient.certificate, &*recipient.key).unwrap();
            prop_assert_eq!(&*opened, &content);
        }
    }
}

static PEOPLE: std::sync::LazyLock<(Person, Person)> = std::sync::LazyLock::new(|| {
    (
        people::fresh("signer", &rcgen::PKCS_ECDSA_P256_SHA256),
        people::fresh("recipient", &rcgen::PKCS_ECDSA_P256_SHA256),
    )
});

#[test]
fn one_flipped_bit_anywhere_never_gives_other_plaintext() {
    let content = b"Content-Type: text/plain\r\n\r\nThe plan is the plan.\r\n";
    for person in [&PEOPLE.1, &rfc9216("bob.encrypt")] {
        let named = [(&*person.certificate, ways(person)[0])];
        let sealed = encrypt(&[content], ContentCipher::Aes256Gcm, &named).unwrap();
        let mut opened = 0;
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1 << (at % 8);
            let Ok(parsed) = EnvelopedData::parse(&changed) else { continue };
            let Some(recipient) = parsed.recipient_for(&person.certificate) else { continue };
            if let Ok(plain) = parsed.open(recipient, &person.certificate, &*person.key) {
                // Some octets are not authenticated (versions, the originator's parameters): but
                // the content is what it was.
                assert_eq!(*plain, content, "octet {at}");
                opened += 1;
            }
        }
        assert!(opened < 32, "{opened} changes went unnoticed");
    }
}

#[test]
fn one_flipped_bit_in_a_signature_never_verifies_other_content() {
    let content = b"Content-Type: text/plain\r\n\r\nPay 100.\r\n";
    let signer = &PEOPLE.0;
    let scheme = default_scheme(&signer.certificate).unwrap();
    let cms = sign(signer, scheme, content);
    for at in 0..cms.len() {
        let mut changed = cms.clone();
        changed[at] ^= 1 << (at % 8);
        let Ok(parsed) = SignedData::parse(&changed) else { continue };
        for signer_info in &parsed.signers {
            assert!(signer_info.verify(b"Pay 900.", &signer.certificate).is_err());
        }
    }
}

/// A key that answers as told.
#[derive(Debug)]
struct Told(Result<Vec<u8>, KeyError>);

impl SecretKey for Told {
    fn sign(&self, _: SignatureScheme, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::Failed)
    }

    fn unwrap(&self, _: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.0.clone().map(Zeroizing::new)
    }
}

#[test]
fn every_wrong_key_fails_alike() {
    let bob = rfc9216("bob.encrypt");
    let named = [(&*bob.certificate, KeyWrap::RsaPkcs1)];
    let content = [9; 4096];
    for cipher in WRITTEN {
        let parsed = EnvelopedData::parse(&encrypt(&[&content], cipher, &named).unwrap()).unwrap();
        let answers =
            [Ok(vec![]), Ok(vec![1; 16]), Ok(vec![1; 32]), Ok(vec![1; 300]), Err(KeyError::Failed)];
        for answer in answers {
            match parsed.open(0, &bob.certificate, &Told(answer.clone())) {
                Err(fault) => assert_eq!(fault, OpenFault::Failed, "{answer:?}"),
                // A wrong key passes CBC's padding once in about 255 times: then it is noise.
                Ok(noise) => assert!(!cipher.is_authenticated() && noise[..32] != content[..32]),
            }
        }
        let away = Told(Err(KeyError::Unavailable("no answer".to_owned())));
        assert_eq!(
            parsed.open(0, &bob.certificate, &away).unwrap_err(),
            OpenFault::Unavailable("no answer".to_owned())
        );
    }
}

#[test]
fn content_keys_and_nonces_are_fresh() {
    let recipient = &PEOPLE.1;
    let named = [(&*recipient.certificate, KeyWrap::Ecdh)];
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        let sealed = encrypt(&[&[0; 64]], ContentCipher::Aes256Gcm, &named).unwrap();
        // With a key and nonce used twice the encrypted zeros would be the same.
        let tail = sealed[sealed.len() - 18 - 64..sealed.len() - 18].to_vec();
        assert!(seen.insert(tail));
    }
}

#[test]
fn limits_hold_at_the_limit_and_one_more() {
    let recipient = &PEOPLE.1;
    let named = vec![(&*recipient.certificate, KeyWrap::Ecdh); 501];
    assert!(encrypt(&[b"x"], ContentCipher::Aes256Gcm, &named).is_err());
    let sealed = encrypt(&[b"x"], ContentCipher::Aes256Gcm, &named[..500]).unwrap();
    assert_eq!(EnvelopedData::parse(&sealed).unwrap().recipient_count(), 500);
    assert!(encrypt(&[b"x"], ContentCipher::Aes256Gcm, &[]).is_err());
    assert!(encrypt(&[b"x"], ContentCipher::TripleDesCbc, &named[..1]).is_err());
}

#[test]
#[ignore = "benchmark, run by hand"]
fn timing() {
    let alice = rfc9216("alice.sign");
    let bob = rfc9216("bob.encrypt");
    let named = [(&*bob.certificate, KeyWrap::RsaPkcs1)];
    for size in [10_000, 1_000_000] {
        let content = vec![b'a'; size];
        let rounds: u32 = 200;
        let time = |what: &str, work: &mut dyn FnMut()| {
            let start = std::time::Instant::now();
            (0..rounds).for_each(|_| work());
            println!(
                "{what} {size}: {:.3} ms",
                start.elapsed().as_secs_f64() * 1e3 / f64::from(rounds)
            );
        };
        for cipher in [ContentCipher::Aes256Gcm, ContentCipher::Aes256Cbc] {
            let sealed = encrypt(&[&content], cipher, &named).unwrap();
            time(&format!("encrypt {}", cipher.name()), &mut || {
                encrypt(&[&content], cipher, &named).unwrap();
            });
            time(&format!("parse {}", cipher.name()), &mut || {
                EnvelopedData::parse(&sealed).unwrap();
            });
            time(&format!("parse and open {}", cipher.name()), &mut || {
                let parsed = EnvelopedData::parse(&sealed).unwrap();
                parsed.open(0, &bob.certificate, &*bob.key).unwrap();
            });
        }
        let scheme = SignatureScheme::RsaPkcs1(Digest::Sha256);
        let cms = sign(&alice, scheme, &content);
        time("sign", &mut || {
            sign(&alice, scheme, &content);
        });
        time("parse and verify", &mut || {
            let parsed = SignedData::parse(&cms).unwrap();
            parsed.signers[0].verify(&content, &alice.certificate).unwrap();
        });
    }
}
