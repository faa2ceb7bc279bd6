//! Crafted objects: attributes against the rules, tags too short, limits at the limit and one more.
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
use std::time::{Duration, Instant};

use sealgate_core::address::Address;
use sealgate_core::cms::{
    CmsError, ContentCipher, EnvelopedData, KeyWrap, OpenFault, SignatureFault, SignedData,
    Signing, default_scheme, encrypt, sign_detached,
};
use sealgate_core::encrypt::{NoKey, choose_certificate};
use sealgate_core::keys::{
    Certificate, Digest, KeyError, KeyKind, KeyTransport, OwnKey, PublicKey, SecretKey,
    SignatureScheme, SoftwareKey, Timestamp,
};
use sealgate_core::trust::TrustStore;
use zeroize::Zeroizing;

#[path = "support/cms_people.rs"]
mod people;
#[path = "support/tree.rs"]
mod tree;

use people::{Person, fresh, rfc9216};
use tree::Node;

const CONTENT: &[u8] = b"Content-Type: text/plain\r\n\r\nHello\r\n";
const SCHEME: SignatureScheme = SignatureScheme::Ecdsa(Digest::Sha256);

/// Paths from the ContentInfo.
const SIGNED_DATA: [usize; 2] = [1, 0];
const CERTIFICATES: [usize; 3] = [1, 0, 3];
const SIGNERS: [usize; 3] = [1, 0, 4];
const SIGNER: [usize; 4] = [1, 0, 4, 0];

fn signer() -> Person {
    fresh("signer", &rcgen::PKCS_ECDSA_P256_SHA256)
}

fn signed(person: &Person) -> Node {
    let key = person.own();
    let signing = Signing {
        key: &key,
        scheme: SCHEME,
        encryption_certificate: None,
        signed_at: Timestamp(1_700_000_000),
    };
    Node::parse(&sign_detached(&signing, &[CONTENT]).unwrap())
}

/// Changes the attributes, signs them as they then are, and verifies.
fn resigned(change: impl FnOnce(&mut Vec<Node>)) -> Result<(), SignatureFault> {
    let person = signer();
    let mut cms = signed(&person);
    let attributes = cms.at(&SIGNER).children()[3].children();
    change(attributes);
    let set = Node::Branch(0x31, attributes.clone()).write();
    *cms.at(&SIGNER).children()[5].bytes() = person.key.sign(SCHEME, &set).unwrap();
    verify(&cms.write(), &person)
}

fn verify(cms: &[u8], person: &Person) -> Result<(), SignatureFault> {
    SignedData::parse(cms).unwrap().signers[0].verify(CONTENT, &person.certificate)
}

/// Which attribute it is, by identifier.
fn attribute<'a>(attributes: &'a mut [Node], dotted: &str) -> &'a mut Node {
    attributes.iter_mut().find(|attribute| attribute.is(dotted)).unwrap()
}

const CONTENT_TYPE: &str = "1.2.840.113549.1.9.3";
const MESSAGE_DIGEST: &str = "1.2.840.113549.1.9.4";
const SIGNING_TIME: &str = "1.2.840.113549.1.9.5";
const ALGORITHM_PROTECTION: &str = "1.2.840.113549.1.9.52";

#[test]
fn attributes_against_the_rules_are_falsified() {
    let falsified = Err(SignatureFault::Falsified);
    assert_eq!(resigned(|_| ()), Ok(()), "nothing changed");
    for needed in [CONTENT_TYPE, MESSAGE_DIGEST] {
        let without = resigned(|all| all.retain(|one| !one.is(needed)));
        assert_eq!(without, falsified, "{needed} is missing");
    }
    for single in [CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME, ALGORITHM_PROTECTION] {
        let twice = resigned(|all| {
            let copy = attribute(all, single).clone();
            all.push(copy);
        });
        assert_eq!(twice, falsified, "{single} twice");
        let two_values = resigned(|all| {
            let values = attribute(all, single).at(&[1]).children();
            values.push(values[0].clone());
        });
        assert_eq!(two_values, falsified, "{single} with two values");
        let no_value = resigned(|all| attribute(all, single).at(&[1]).children().clear());
        assert_eq!(no_value, falsified, "{single} without a value");
    }
    let other_type = resigned(|all| {
        *attribute(all, CONTENT_TYPE).at(&[1, 0]) = Node::oid("1.2.840.113549.1.7.2");
    });
    assert_eq!(other_type, falsified);
    let other_digest = resigned(|all| attribute(all, MESSAGE_DIGEST).at(&[1, 0]).bytes()[0] ^= 1);
    assert_eq!(other_digest, falsified);
    let odd_time = resigned(|all| {
        *attribute(all, SIGNING_TIME).at(&[1, 0]) = Node::Leaf(0x17, b"2311142213Z".to_vec());
    });
    assert_eq!(odd_time, falsified);
    let other_algorithm = resigned(|all| {
        *attribute(all, ALGORITHM_PROTECTION).at(&[1, 0, 0, 0]) = Node::oid("1.3.14.3.2.26");
    });
    assert_eq!(other_algorithm, falsified);
}

#[test]
fn any_order_of_attributes_verifies() {
    assert_eq!(resigned(|all| all.reverse()), Ok(()), "signed in the order in which it came");
    let person = signer();
    let mut cms = signed(&person);
    cms.at(&SIGNER).children()[3].children().reverse();
    assert_eq!(verify(&cms.write(), &person), Ok(()), "signed in DER order, sent in another");
}

#[test]
fn attributes_that_are_not_der_are_falsified() {
    let person = signer();
    let mut cms = signed(&person);
    let mut set = cms.at(&SIGNER).children()[3].clone().children().clone();
    // contentType's first octets: a SEQUENCE whose length is written in two octets.
    let first = set[0].write();
    set[0] = Node::Leaf(0x30, [&[0x81][..], &first[1..]].concat());
    let mut raw: Vec<u8> = [&[0x30, 0x81][..], &first[1..]].concat();
    raw.extend(set[1..].iter().flat_map(Node::write));
    let covered = Node::Leaf(0x31, raw.clone()).write();
    cms.at(&SIGNER).children()[3] = Node::Leaf(0xa0, raw);
    *cms.at(&SIGNER).children()[5].bytes() = person.key.sign(SCHEME, &covered).unwrap();
    assert_eq!(verify(&cms.write(), &person), Err(SignatureFault::Falsified));
}

#[test]
fn signed_attributes_taken_for_content_are_falsified() {
    let person = signer();
    let mut cms = signed(&person);
    let attributes = cms.at(&SIGNER).children().remove(3);
    let content_attributes = attributes.clone();
    let Node::Branch(_, members) = attributes else { panic!("attributes") };
    let content = Node::Branch(0x31, members).write();
    // The signature value is right for these octets, which is the point.
    let signed = SignedData::parse(&cms.write()).unwrap();
    assert_eq!(
        signed.signers[0].verify(&content, &person.certificate),
        Err(SignatureFault::Falsified)
    );
    // Whatever else is among them: a value with a tag of several octets is none that we read.
    let Node::Branch(_, mut members) = content_attributes else { panic!("attributes") };
    let odd = Node::Leaf(0x31, vec![0xdf, 0x28, 1, 0]);
    members.push(Node::Branch(0x30, vec![Node::oid("1.2.3.4"), odd]));
    let content = Node::Branch(0x31, members).write();
    *cms.at(&SIGNER).children()[4].bytes() = person.key.sign(SCHEME, &content).unwrap();
    let signed = SignedData::parse(&cms.write()).unwrap();
    assert_eq!(
        signed.signers[0].verify(&content, &person.certificate),
        Err(SignatureFault::Falsified)
    );
    // Without attributes over other content it is fine.
    *cms.at(&SIGNER).children()[4].bytes() = person.key.sign(SCHEME, CONTENT).unwrap();
    assert_eq!(verify(&cms.write(), &person), Ok(()));
}

#[test]
fn other_content_types_are_not_mail() {
    let person = signer();
    let mut cms = signed(&person);
    *cms.at(&[1, 0, 2, 0]) = Node::oid("1.2.840.113549.1.9.16.1.4");
    let parsed = SignedData::parse(&cms.write()).unwrap();
    assert!(!parsed.content_is_data);
    assert!(parsed.signers[0].verify(CONTENT, &person.certificate).is_err());
}

#[test]
fn algorithms_that_contradict_or_lack_parameters_are_errors() {
    let alice = rfc9216("alice.sign");
    let key = alice.own();
    let signing = Signing {
        key: &key,
        scheme: SignatureScheme::RsaPss(Digest::Sha256),
        encryption_certificate: None,
        signed_at: Timestamp(1_700_000_000),
    };
    let cms = Node::parse(&sign_detached(&signing, &[CONTENT]).unwrap());
    assert_eq!(verify(&cms.write(), &alice), Ok(()));
    let mut absent = cms.clone();
    absent.at(&SIGNER).children()[4].children().truncate(1);
    assert_eq!(verify(&absent.write(), &alice), Err(SignatureFault::Falsified));
    let mut unknown = cms.clone();
    *unknown.at(&SIGNER).children()[4].at(&[0]) = Node::oid("1.2.3.4");
    assert_eq!(verify(&unknown.write(), &alice), Err(SignatureFault::Unsupported));
    let mut other_digest = cms;
    *other_digest.at(&SIGNER).children()[2].at(&[0]) = Node::oid("2.16.840.1.101.3.4.2.3");
    assert_eq!(verify(&other_digest.write(), &alice), Err(SignatureFault::Falsified));
}

#[test]
fn signed_data_limits() {
    let person = signer();
    let repeat = |path: &[usize], count: usize| {
        let mut cms = signed(&person);
        let members = cms.at(path).children();
        *members = vec![members[0].clone(); count];
        SignedData::parse(&cms.write())
    };
    assert_eq!(repeat(&CERTIFICATES, 64).unwrap().certificates.len(), 64);
    assert_eq!(repeat(&CERTIFICATES, 65).unwrap_err(), CmsError::OverLimit);
    assert_eq!(repeat(&SIGNERS, 8).unwrap().signers.len(), 8);
    assert_eq!(repeat(&SIGNERS, 9).unwrap_err(), CmsError::OverLimit);
    let crls = |count: usize| {
        let mut cms = signed(&person);
        let crl = Node::Branch(0x30, vec![]);
        cms.at(&SIGNED_DATA).children().insert(4, Node::Branch(0xa1, vec![crl; count]));
        SignedData::parse(&cms.write())
    };
    assert_eq!(crls(4).unwrap().crls.len(), 4);
    assert_eq!(crls(5).unwrap_err(), CmsError::OverLimit);
    // A certificate that does not parse is left out.
    let mut cms = signed(&person);
    cms.at(&CERTIFICATES).children().push(Node::Branch(0x30, vec![Node::Leaf(2, vec![1])]));
    assert_eq!(SignedData::parse(&cms.write()).unwrap().certificates.len(), 1);
}

fn sealed(person: &Person, cipher: ContentCipher) -> Node {
    let way = match person.certificate.key_kind() {
        KeyKind::Rsa { .. } => KeyWrap::RsaPkcs1,
        _ => KeyWrap::Ecdh,
    };
    Node::parse(&encrypt(&[CONTENT], cipher, &[(&person.certificate, way)]).unwrap())
}

fn open(cms: &Node, person: &Person) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
    let parsed = EnvelopedData::parse(&cms.write()).expect("it parses");
    let recipient = parsed.recipient_for(&person.certificate).expect("it is ours");
    parsed.open(recipient, &person.certificate, &*person.key)
}

#[test]
fn gcm_tags_are_12_to_16_octets_and_as_long_as_said() {
    let person = signer();
    for cipher in [ContentCipher::Aes128Gcm, ContentCipher::Aes256Gcm] {
        let whole = sealed(&person, cipher);
        for said in 0..=17_usize {
            for found in [said, 16] {
                let mut cms = whole.clone();
                *cms.at(&[1, 0, 2, 1, 1, 1]).bytes() = vec![said as u8];
                let tag = cms.at(&[1, 0, 3]).bytes();
                tag.resize(found, 0);
                let right = (12..=16).contains(&said) && said == found;
                match open(&cms, &person) {
                    Ok(plain) => assert!(right && *plain == CONTENT, "{said} {found}"),
                    Err(fault) => assert!(!right && fault == OpenFault::Failed, "{said} {found}"),
                }
                if right {
                    let last = cms.at(&[1, 0, 3]).bytes();
                    last[said - 1] ^= 1;
                    assert_eq!(open(&cms, &person).unwrap_err(), OpenFault::Failed);
                    last_of(&mut cms);
                    assert_eq!(open(&cms, &person).unwrap_err(), OpenFault::Failed);
                }
            }
        }
        // No length at all: the message fails for whom it is, and not before.
        for odd in [vec![1, 0x11, 0x70], vec![0xff], vec![0, 16]] {
            let mut cms = whole.clone();
            *cms.at(&[1, 0, 2, 1, 1, 1]).bytes() = odd;
            assert_eq!(open(&cms, &person).unwrap_err(), OpenFault::Failed);
        }
        // aes-ICVlen DEFAULT 12.
        let mut cms = whole.clone();
        cms.at(&[1, 0, 2, 1, 1]).children().truncate(1);
        assert_eq!(open(&cms, &person).unwrap_err(), OpenFault::Failed);
        cms.at(&[1, 0, 3]).bytes().truncate(12);
        assert_eq!(*open(&cms, &person).unwrap(), CONTENT);
    }
}

/// Puts the tag right again and flips the content instead.
fn last_of(cms: &mut Node) {
    let tag = cms.at(&[1, 0, 3]).bytes();
    let end = tag.len() - 1;
    tag[end] ^= 1;
    cms.at(&[1, 0, 2, 2]).bytes()[5] ^= 0x80;
}

#[test]
fn gcm_relabelled_as_cbc_gives_nothing_of_the_content() {
    let person = signer();
    let mut cms = sealed(&person, ContentCipher::Aes256Gcm);
    *cms.at(&[0]) = Node::oid("1.2.840.113549.1.7.3");
    cms.at(&[1, 0]).children().truncate(3);
    let iv = Node::Leaf(4, vec![7; 16]);
    let cbc = vec![Node::oid("2.16.840.1.101.3.4.1.42"), iv];
    *cms.at(&[1, 0, 2, 1]) = Node::Branch(0x30, cbc);
    cms.at(&[1, 0, 2, 2]).bytes().truncate(32);
    match open(&cms, &person) {
        Ok(noise) => assert!(!noise.windows(4).any(|four| CONTENT.windows(4).any(|w| w == four))),
        Err(fault) => assert_eq!(fault, OpenFault::Failed),
    }
    // With its own identifier under EnvelopedData it contradicts itself.
    let mut gcm = sealed(&person, ContentCipher::Aes256Gcm);
    *gcm.at(&[0]) = Node::oid("1.2.840.113549.1.7.3");
    gcm.at(&[1, 0]).children().truncate(3);
    assert_eq!(EnvelopedData::parse(&gcm.write()).unwrap_err(), CmsError::Malformed);
}

#[test]
fn cbc_padding_is_checked_whole() {
    // Key and IV are zero: what is encrypted here is chosen octet by octet.
    let bob = rfc9216("bob.encrypt");
    let zero = Told(Ok(vec![0; 32]));
    for (last, good) in [
        (vec![16; 16], true),
        (vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], true),
        (vec![9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 2, 3, 3], false),
        (vec![0; 16], false),
        (vec![17; 16], false),
        ([vec![15], vec![16; 15]].concat(), false),
        (vec![9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 3, 3, 3], true),
    ] {
        let mut block = last.clone();
        let key = aws_lc_rs::cipher::UnboundCipherKey::new(&aws_lc_rs::cipher::AES_256, &[0; 32]);
        let key = aws_lc_rs::cipher::EncryptingKey::cbc(key.unwrap()).unwrap();
        let iv = aws_lc_rs::iv::FixedLength::from([0; 16]);
        key.less_safe_encrypt(&mut block, aws_lc_rs::cipher::EncryptionContext::Iv128(iv)).unwrap();
        let mut cms = sealed(&bob, ContentCipher::Aes256Cbc);
        *cms.at(&[1, 0, 2, 1, 1]).bytes() = vec![0; 16];
        *cms.at(&[1, 0, 2, 2]).bytes() = block;
        let parsed = EnvelopedData::parse(&cms.write()).unwrap();
        let opened = parsed.open(0, &bob.certificate, &zero);
        assert_eq!(opened.is_ok(), good, "{last:?}");
        if let Ok(plain) = opened {
            assert_eq!(plain.len(), 16 - usize::from(last[15]));
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
fn authenticated_attributes_are_authenticated() {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let bob = rfc9216("bob.encrypt");
    let told = Told(Ok(vec![3; 32]));
    let mut cms = sealed(&bob, ContentCipher::Aes256Gcm);
    let attribute = Node::Branch(
        0x30,
        vec![
            Node::oid(SIGNING_TIME),
            Node::Branch(0x31, vec![Node::Leaf(0x17, b"231114221320Z".to_vec())]),
        ],
    );
    let nonce: [u8; 12] = cms.at(&[1, 0, 2, 1, 1, 0]).bytes().clone().try_into().unwrap();
    let additional = Node::Branch(0x31, vec![attribute.clone()]).write();
    let mut content = CONTENT.to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[3; 32]).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(additional), &mut content).unwrap();
    *cms.at(&[1, 0, 2, 2]).bytes() = content;
    *cms.at(&[1, 0, 3]).bytes() = tag.as_ref().to_vec();
    cms.at(&[1, 0]).children().insert(3, Node::Branch(0xa1, vec![attribute]));
    let parsed = EnvelopedData::parse(&cms.clone().write()).unwrap();
    assert_eq!(*parsed.open(0, &bob.certificate, &told).unwrap(), CONTENT);
    cms.at(&[1, 0, 3, 0, 1, 0]).bytes()[0] = b'3';
    let parsed = EnvelopedData::parse(&cms.write()).unwrap();
    assert_eq!(parsed.open(0, &bob.certificate, &told).unwrap_err(), OpenFault::Failed);
}

#[test]
fn absent_parameters_are_errors_everywhere() {
    let person = signer();
    for cipher in [ContentCipher::Aes256Gcm, ContentCipher::Aes256Cbc] {
        let mut cms = sealed(&person, cipher);
        cms.at(&[1, 0, 2, 1]).children().truncate(1);
        assert_eq!(EnvelopedData::parse(&cms.write()).unwrap_err(), CmsError::Malformed);
    }
    // keyEncryptionAlgorithm of key agreement, without and with a foreign key wrap.
    let mut agreement = sealed(&person, ContentCipher::Aes256Gcm);
    let mut foreign = agreement.clone();
    agreement.at(&[1, 0, 1, 0, 2]).children().truncate(1);
    assert_eq!(open(&agreement, &person).unwrap_err(), OpenFault::Failed);
    *foreign.at(&[1, 0, 1, 0, 2, 1, 0]) = Node::oid("1.2.3.4");
    assert_eq!(open(&foreign, &person).unwrap_err(), OpenFault::Unsupported);
    let is_unsupported = |cms: &Node| EnvelopedData::parse(&cms.write()).unwrap().is_unsupported(0);
    assert!(is_unsupported(&foreign) && !is_unsupported(&agreement));
    let bob = rfc9216("bob.encrypt");
    let mut oaep = sealed(&bob, ContentCipher::Aes256Gcm);
    let without = Node::Branch(0x30, vec![Node::oid("1.2.840.113549.1.1.7")]);
    *oaep.at(&[1, 0, 1, 0, 2]) = without;
    assert_eq!(open(&oaep, &bob).unwrap_err(), OpenFault::Failed);
}

#[test]
fn recipients_are_limited() {
    let person = signer();
    let repeat = |count: usize, tag: Option<u8>| {
        let mut cms = sealed(&person, ContentCipher::Aes256Gcm);
        let infos = cms.at(&[1, 0, 1]).children();
        let info = match tag {
            Some(tag) => Node::Branch(tag, vec![]),
            None => infos[0].clone(),
        };
        *infos = vec![info; count];
        EnvelopedData::parse(&cms.write())
    };
    assert_eq!(repeat(500, None).unwrap().recipient_count(), 500);
    assert_eq!(repeat(501, None).unwrap_err(), CmsError::OverLimit);
    // Passwords and shared keys are passed over but counted.
    assert_eq!(repeat(500, Some(0xa3)).unwrap().recipient_count(), 0);
    assert_eq!(repeat(501, Some(0xa2)).unwrap_err(), CmsError::OverLimit);
}

/// A certificate like the signer's over another key.
fn with_rsa_key(modulus: &[u8], exponent: &[u8]) -> Certificate {
    let integer = |digits: &[u8]| {
        let sign: &[u8] = if digits[0] >= 0x80 { &[0] } else { &[] };
        Node::Leaf(2, [sign, digits].concat())
    };
    let key = Node::Branch(0x30, vec![integer(modulus), integer(exponent)]).write();
    let alice = rfc9216("alice.sign");
    let mut certificate = Node::parse(alice.certificate.der());
    *certificate.at(&[0, 6, 1]).bytes() = [&[0][..], &key].concat();
    Certificate::from_der(&certificate.write()).unwrap()
}

#[test]
fn absurd_rsa_keys_cost_nothing() {
    let alice = rfc9216("alice.sign");
    let key = alice.own();
    let signing = Signing {
        key: &key,
        scheme: SignatureScheme::RsaPkcs1(Digest::Sha256),
        encryption_certificate: None,
        signed_at: Timestamp(1_700_000_000),
    };
    let mut cms = Node::parse(&sign_detached(&signing, &[CONTENT]).unwrap());
    // Without signingCertificateV2, so that the key itself is reached.
    let attributes = cms.at(&SIGNER).children()[3].children();
    attributes.retain(|one| !one.is("1.2.840.113549.1.9.16.2.47"));
    let parsed = SignedData::parse(&cms.write()).unwrap();
    let started = Instant::now();
    let odd = |length: usize| [vec![0xc5; length - 1], vec![0x01]].concat();
    for (modulus, exponent) in [
        (odd(2048), vec![1, 0, 1]),
        (odd(1025), vec![1, 0, 1]),
        (odd(127), vec![1, 0, 1]),
        (odd(256), odd(9)),
        // What is not taken is not falsified.
        (odd(256), odd(8)),
        (odd(256), vec![2, 0, 0, 0, 1]),
        (odd(256), odd(256)),
        (odd(256), vec![1, 0, 0]),
        (odd(256), vec![1]),
        ([odd(255), vec![2]].concat(), vec![1, 0, 1]),
    ] {
        let certificate = with_rsa_key(&modulus, &exponent);
        assert_eq!(
            parsed.signers[0].verify(CONTENT, &certificate),
            Err(SignatureFault::Unsupported),
            "{} octets, exponent {exponent:?}",
            modulus.len()
        );
    }
    let longest = with_rsa_key(&odd(256), &[1, 0, 0, 0, 1]);
    assert_eq!(parsed.signers[0].verify(CONTENT, &longest), Err(SignatureFault::Falsified));
    let huge = with_rsa_key(&odd(2048), &[1, 0, 1]);
    assert_eq!(huge.key_kind(), KeyKind::Rsa { bits: 16384 });
    let pinned = PublicKey {
        certificate: Arc::new(huge.clone()),
        intermediates: Vec::new(),
        capabilities: None,
        pinned: true,
        of_domain: false,
    };
    let anybody = Address::parse("alice@smime.example").unwrap();
    let at = huge.not_before();
    let chosen = choose_certificate(&[pinned], &anybody, &TrustStore::default(), at, false);
    assert_eq!(chosen.unwrap_err(), NoKey::Unusable);
    let named = [(&huge, KeyWrap::RsaPkcs1)];
    assert!(encrypt(&[CONTENT], ContentCipher::Aes256Gcm, &named).is_err());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn certificates_are_limited_in_size() {
    let alice = rfc9216("alice.sign");
    let pad = |size: usize| {
        let mut certificate = Node::parse(alice.certificate.der());
        let extensions = certificate.at(&[0, 7, 0]).children();
        let value = Node::Leaf(4, vec![0; size]);
        extensions.push(Node::Branch(0x30, vec![Node::oid("1.2.3.4"), value]));
        certificate.write()
    };
    let base = pad(60_000).len() - 60_000;
    assert!(Certificate::from_der(&pad(65_536 - base)).is_ok());
    assert!(Certificate::from_der(&pad(65_537 - base)).is_err());
    let trailing = [alice.certificate.der(), &[0]].concat();
    assert!(Certificate::from_der(&trailing).is_err());
}

/// Alice's certificate with other subjectAltName octets and another subject attribute.
fn with_names(names: Vec<Node>, subject_email: Option<&str>) -> Certificate {
    let alice = rfc9216("alice.sign");
    let mut certificate = Node::parse(alice.certificate.der());
    let extensions = certificate.at(&[0, 7, 0]).children();
    let san = Node::oid("2.5.29.17");
    extensions.retain(|extension| !extension.is("2.5.29.17"));
    if !names.is_empty() {
        let value = Node::Leaf(4, Node::Branch(0x30, names).write());
        extensions.push(Node::Branch(0x30, vec![san, value]));
    }
    if let Some(email) = subject_email {
        let oid = Node::oid("1.2.840.113549.1.9.1");
        let pair = Node::Branch(0x30, vec![oid, Node::Leaf(0x16, email.as_bytes().to_vec())]);
        certificate.at(&[0, 5]).children().push(Node::Branch(0x31, vec![pair]));
    }
    Certificate::from_der(&certificate.write()).unwrap()
}

#[test]
fn addresses_come_from_the_right_place() {
    let mail = |text: &str| Node::Leaf(0x81, text.as_bytes().to_vec());
    let texts = |certificate: &Certificate| {
        certificate.addresses().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let both = with_names(vec![mail("a@abc.example")], Some("b@abc.example"));
    assert_eq!(texts(&both), ["a@abc.example"], "subjectAltName wins");
    let none = with_names(vec![], Some("b@abc.example"));
    assert_eq!(texts(&none), ["b@abc.example"]);
    let dns = with_names(vec![Node::Leaf(0x82, b"abc.example".to_vec())], Some("b@abc.example"));
    assert_eq!(texts(&dns), ["b@abc.example"], "no entry for mail in subjectAltName");
    let bad = [
        " a@abc.example",
        "a@b@abc.example",
        "a@abc.example\0",
        "\"a b\"@abc.example",
        "a\\@b@c.example",
        "(x)a@abc.example",
    ];
    let odd = with_names(bad.iter().map(|text| mail(text)).collect(), Some("b@abc.example"));
    assert_eq!(
        texts(&odd),
        [""; 0],
        "an entry that is no address is no match, and no reason to look elsewhere"
    );
    let utf8 = Node::Leaf(0x0c, "médor@abc.example".as_bytes().to_vec());
    let other = vec![Node::oid("1.3.6.1.5.5.7.8.9"), Node::Branch(0xa0, vec![utf8])];
    let smtp_utf8 = with_names(vec![Node::Branch(0xa0, other)], None);
    assert_eq!(texts(&smtp_utf8), ["médor@abc.example"]);
    let raw_utf8 = with_names(vec![mail("médor@abc.example")], None);
    assert!(texts(&raw_utf8).is_empty(), "rfc822Name is ASCII");
}

#[test]
fn keys_of_other_kinds_are_refused() {
    for bad in [&[][..], &[0x30, 0], b"-----BEGIN PRIVATE KEY-----", &[0x30; 70_000]] {
        assert_eq!(SoftwareKey::from_pkcs8(bad).unwrap_err(), KeyError::Failed);
    }
    let p256 = signer();
    for scheme in [
        SignatureScheme::RsaPkcs1(Digest::Sha256),
        SignatureScheme::Ecdsa(Digest::Sha1),
        SignatureScheme::Ed25519,
    ] {
        assert_eq!(p256.key.sign(scheme, b"x").unwrap_err(), KeyError::Failed);
    }
    let transport = KeyTransport::RsaPkcs1 { encrypted_key: &[0; 256] };
    assert_eq!(p256.key.unwrap(&transport).unwrap_err(), KeyError::Failed);
    // A point that is on no curve.
    let ephemeral = [&[4][..], &[9; 64]].concat();
    let transport = KeyTransport::Ecdh { ephemeral: &ephemeral };
    assert_eq!(p256.key.unwrap(&transport).unwrap_err(), KeyError::Failed);
    assert_eq!(format!("{:?}", Arc::clone(&p256.key)), "SoftwareKey(P256)");
}

/// A certificate like the signer's whose key is for RSASSA-PSS alone, with these parameters.
fn pss_only(person: &Person, parameters: Option<Node>) -> Certificate {
    let mut certificate = Node::parse(person.certificate.der());
    let algorithm = certificate.at(&[0, 6, 0]).children();
    *algorithm = [Node::oid("1.2.840.113549.1.1.10")].into_iter().chain(parameters).collect();
    Certificate::from_der(&certificate.write()).unwrap()
}

/// RSASSA-PSS-params with one digest for both uses.
fn pss_parameters(digest: &str, salt: u8) -> Node {
    let hash = Node::Branch(0x30, vec![Node::oid(digest)]);
    let mask = Node::Branch(0x30, vec![Node::oid("1.2.840.113549.1.1.8"), hash.clone()]);
    Node::Branch(
        0x30,
        vec![
            Node::Branch(0xa0, vec![hash]),
            Node::Branch(0xa1, vec![mask]),
            Node::Branch(0xa2, vec![Node::Leaf(2, vec![salt])]),
        ],
    )
}

#[test]
fn keys_for_pss_alone_do_nothing_else() {
    const SHA_256: &str = "2.16.840.1.101.3.4.2.1";
    const SHA_384: &str = "2.16.840.1.101.3.4.2.2";
    let alice = rfc9216("alice.sign");
    let free = Arc::new(pss_only(&alice, None));
    let narrow = Arc::new(pss_only(&alice, Some(pss_parameters(SHA_384, 48))));
    let (pss, pkcs1) = (SignatureScheme::RsaPss, SignatureScheme::RsaPkcs1);
    assert_eq!(default_scheme(&alice.certificate), Some(pkcs1(Digest::Sha256)));
    assert_eq!(default_scheme(&free), Some(pss(Digest::Sha256)));
    assert_eq!(default_scheme(&narrow), Some(pss(Digest::Sha384)));
    let long_salt = pss_only(&alice, Some(pss_parameters(SHA_256, 33)));
    assert_eq!(default_scheme(&long_salt), None, "our salts are shorter");
    let sha_1 = pss_only(&alice, Some(Node::Branch(0x30, vec![])));
    assert_eq!(default_scheme(&sha_1), None, "empty parameters mean SHA-1");
    let odd = pss_only(&alice, Some(Node::Leaf(5, vec![])));
    assert_eq!(odd.key_kind(), KeyKind::Unsupported);

    let verified = |scheme, certificate: &Arc<Certificate>| {
        let key = OwnKey { certificate: Arc::clone(certificate), ..alice.own() };
        let signed_at = Timestamp(1_700_000_000);
        let signing = Signing { key: &key, scheme, encryption_certificate: None, signed_at };
        let cms = sign_detached(&signing, &[CONTENT]).unwrap();
        SignedData::parse(&cms).unwrap().signers[0].verify(CONTENT, certificate)
    };
    let refused = Err(SignatureFault::Unsupported);
    assert_eq!(verified(pkcs1(Digest::Sha256), &free), refused);
    assert_eq!(verified(pss(Digest::Sha256), &free), Ok(()));
    assert_eq!(verified(pss(Digest::Sha384), &free), Ok(()));
    assert_eq!(verified(pss(Digest::Sha384), &narrow), Ok(()));
    assert_eq!(verified(pss(Digest::Sha256), &narrow), refused, "another digest");
    assert_eq!(verified(pkcs1(Digest::Sha384), &narrow), refused);
    let short_salt = Arc::new(pss_only(&alice, Some(pss_parameters(SHA_256, 33))));
    assert_eq!(verified(pss(Digest::Sha256), &short_salt), refused, "32 octets of 33");
}

#[test]
fn md5_is_known_as_weak() {
    let person = signer();
    let plain = SignedData::parse(&signed(&person).write()).unwrap();
    assert!(!plain.signers[0].is_weak_digest());
    for (member, dotted, name) in
        [(2, "1.2.840.113549.2.5", "md5"), (4, "1.2.840.113549.1.1.4", "sha-256")]
    {
        let mut cms = signed(&person);
        *cms.at(&SIGNER).children()[member].at(&[0]) = Node::oid(dotted);
        let parsed = SignedData::parse(&cms.write()).unwrap();
        let info = &parsed.signers[0];
        assert!(info.is_weak_digest(), "{dotted}");
        assert_eq!(info.digest_name(), name);
        assert_eq!(info.verify(CONTENT, &person.certificate), Err(SignatureFault::Unsupported));
    }
}

#[test]
fn gcm_nonces_of_another_length_are_not_supported() {
    let bob = rfc9216("bob.encrypt");
    // A key that would say so if it were asked.
    let told = Told(Err(KeyError::Unavailable("asked".to_owned())));
    for (length, cipher) in
        [(12, Some(ContentCipher::Aes256Gcm)), (8, None), (11, None), (13, None), (16, None)]
    {
        let mut cms = sealed(&bob, ContentCipher::Aes256Gcm);
        cms.at(&[1, 0, 2, 1, 1, 0]).bytes().resize(length, 7);
        let parsed = EnvelopedData::parse(&cms.write()).unwrap();
        assert_eq!(parsed.cipher(), cipher, "{length} octets");
        let expected = match cipher {
            Some(_) => OpenFault::Unavailable("asked".to_owned()),
            None => OpenFault::Unsupported,
        };
        assert_eq!(parsed.open(0, &bob.certificate, &told).unwrap_err(), expected);
    }
}

#[test]
fn of_a_certificate_and_its_renewal_the_right_one_is_taken() {
    let person = signer();
    let pair = rcgen::KeyPair::try_from(&person.pkcs8[..]).unwrap();
    let issued = |years: (i32, i32)| {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        Arc::new(Certificate::from_der(params.self_signed(&pair).unwrap().der()).unwrap())
    };
    let (old, new) = (issued((2020, 2022)), issued((2022, 2030)));
    let (in_2021, in_2025) = (Timestamp(1_620_000_000), Timestamp(1_750_000_000));
    let key_identifier = old.subject_key_identifier().unwrap().to_vec();
    assert_eq!(new.subject_key_identifier(), Some(&*key_identifier));
    let chosen = |named: Option<&Arc<Certificate>>, now| {
        let certificate = named.unwrap_or(&old).clone();
        let key = OwnKey { certificate, ..person.own() };
        let signed_at = Timestamp(1_700_000_000);
        let signing =
            Signing { key: &key, scheme: SCHEME, encryption_certificate: None, signed_at };
        let mut cms = Node::parse(&sign_detached(&signing, &[CONTENT]).unwrap());
        *cms.at(&SIGNER).at(&[1]) = Node::Leaf(0x80, key_identifier.clone());
        if named.is_none() {
            let attributes = cms.at(&SIGNER).children()[3].children();
            attributes.retain(|one| !one.is("1.2.840.113549.1.9.16.2.47"));
        }
        let parsed = SignedData::parse(&cms.write()).unwrap();
        let choose = |all: [&Arc<Certificate>; 2]| {
            parsed.signers[0].certificate(all.into_iter(), now).unwrap().fingerprint()
        };
        assert_eq!(choose([&old, &new]), choose([&new, &old]), "whichever comes first");
        choose([&old, &new])
    };
    assert_eq!(chosen(None, in_2021), old.fingerprint());
    assert_eq!(chosen(None, in_2025), new.fingerprint());
    assert_eq!(chosen(Some(&old), in_2025), old.fingerprint(), "the signer's word comes first");
    assert_eq!(chosen(Some(&new), in_2021), new.fingerprint());
}
