//! What a signature is worth when its algorithms are too weak.

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, PublicKeyData,
    SanType, SignatureAlgorithm,
};

use super::*;
use crate::cms::element::{INTEGER, SEQUENCE, tlv};
use crate::cms::{Signing, default_scheme, sign_detached};
use crate::keys::{Digest, KeyError, KeyTransport, OwnKey, SecretKey, SignatureScheme};
use crate::testing::NOW;
use crate::trust::{Budget, TrustStore};

const CONTENT: &[u8] = b"Content-Type: text/plain\r\n\r\nHello\r\n";

/// An RSA key without a secret: nobody gets as far as the mathematics.
#[derive(Debug)]
struct Hollow(Vec<u8>);

impl Hollow {
    fn new(octets: usize) -> Self {
        let modulus = [vec![0, 0xc5], vec![0xc5; octets - 2], vec![1]].concat();
        let exponent = tlv(INTEGER, &[&[1, 0, 1]]);
        Self(tlv(SEQUENCE, &[&tlv(INTEGER, &[&modulus]), &exponent]))
    }
}

impl PublicKeyData for Hollow {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

impl SecretKey for Hollow {
    fn sign(&self, _: SignatureScheme, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(vec![1; 64])
    }
    fn unwrap(&self, _: &KeyTransport<'_>) -> Result<zeroize::Zeroizing<Vec<u8>>, KeyError> {
        Err(KeyError::Failed)
    }
}

/// What comes of a message signed with an RSA key of so many octets, its CMS object changed.
fn judged(octets: usize, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Checked {
    judged_by(octets, None, change)
}

/// The same, signed in a given way.
fn judged_by(
    octets: usize,
    scheme: Option<SignatureScheme>,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> Checked {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let anchor = params.self_signed(&pair).unwrap();
    let anchor = Arc::new(Certificate::from_der(anchor.der()).unwrap());
    let issuer = Issuer::new(params, pair);
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::Rfc822Name("alice@nec.example".try_into().unwrap())];
    let certificate = params.signed_by(&Hollow::new(octets), &issuer).unwrap();
    let certificate = Arc::new(Certificate::from_der(certificate.der()).unwrap());
    let bits = u32::try_from(octets * 8).unwrap();
    assert_eq!(certificate.key_kind(), KeyKind::Rsa { bits });
    let scheme = scheme.unwrap_or_else(|| default_scheme(&certificate).unwrap());
    let secret = Arc::new(Hollow::new(octets));
    let key = OwnKey { address: None, certificate, chain: Vec::new(), secret, is_active: true };
    let signing = Signing { key: &key, scheme, encryption_certificate: None, signed_at: NOW };
    let cms = change(sign_detached(&signing, &[CONTENT]).unwrap());
    let author = Address::parse("alice@nec.example").unwrap();
    let trust = TrustStore::new(vec![anchor], Vec::new(), Vec::new());
    let budget = Budget::default();
    let judge = Judge {
        author: Some(&author),
        known: &[],
        trust: &trust,
        budget: &budget,
        now: NOW,
        clock_is_doubtful: false,
    };
    check(&SignedData::parse(&cms).unwrap(), CONTENT, &judge).unwrap()
}

fn outcome(checked: &Checked) -> (SignatureStatus, Verdict, Option<Reason>) {
    (checked.status, checked.verdict, checked.reason)
}

#[test]
fn a_tiny_rsa_key_is_no_signature() {
    let none = (SignatureStatus::Unverifiable, Verdict::None, Some(Reason::Weak));
    assert_eq!(outcome(&judged(64, |cms| cms)), none);
    assert_eq!(outcome(&judged(127, |cms| cms)), none);
    let falsified = (SignatureStatus::Falsified, Verdict::Fail, Some(Reason::Falsified));
    assert_eq!(outcome(&judged(128, |cms| cms)), falsified, "1024 bits count");
}

/// Another algorithm for sha256WithRSAEncryption, in all the places where it stands.
fn replaced(last: u8) -> impl FnOnce(Vec<u8>) -> Vec<u8> {
    move |cms: Vec<u8>| {
        let known = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b];
        let mut changed = cms.clone();
        let places: Vec<usize> = memchr::memmem::find_iter(&cms, &known).collect();
        assert_eq!(places.len(), 2, "signatureAlgorithm and its protection");
        places.iter().for_each(|at| changed[at + 8] = last);
        changed
    }
}

/// aws-lc verifies them for some digests only.
#[test]
fn a_short_rsa_key_is_weak_with_every_digest() {
    let weak = (SignatureStatus::Unverifiable, Verdict::Policy, Some(Reason::Weak));
    let falsified = (SignatureStatus::Falsified, Verdict::Fail, Some(Reason::Falsified));
    for (digest, short) in
        [(Digest::Sha256, falsified), (Digest::Sha384, weak), (Digest::Sha512, falsified)]
    {
        let scheme = Some(SignatureScheme::RsaPkcs1(digest));
        assert_eq!(outcome(&judged_by(128, scheme, |cms| cms)), short, "{digest:?}");
        assert_eq!(outcome(&judged_by(256, scheme, |cms| cms)), falsified, "{digest:?}");
        let scheme = Some(SignatureScheme::RsaPss(digest));
        assert_eq!(outcome(&judged_by(128, scheme, |cms| cms)), weak, "{digest:?}");
        assert_eq!(outcome(&judged_by(256, scheme, |cms| cms)), falsified, "{digest:?}");
    }
}

#[test]
fn md5_is_weak_and_not_merely_unknown() {
    let weak = (SignatureStatus::Unverifiable, Verdict::Policy, Some(Reason::Weak));
    assert_eq!(outcome(&judged(256, replaced(4))), weak);
    let unknown = (SignatureStatus::Unverifiable, Verdict::Neutral, Some(Reason::Unsupported));
    assert_eq!(outcome(&judged(256, replaced(99))), unknown);
}

#[test]
fn who_signs_for_a_domain() {
    let is_for = |signer: &str, author: &str| {
        signs_for_domain_of(&Address::parse(signer).unwrap(), &Address::parse(author).unwrap())
    };
    assert!(is_for("domain-signing-authority@nec.example", "alice@nec.example"));
    assert!(is_for("Domain-Signing-Authority@NEC.example", "alice@lab.nec.example"));
    assert!(is_for("domain-signing-authority@nec.example", "alice@a.b.nec.example"));
    for (signer, author) in [
        ("domain-signing-authority@lab.nec.example", "alice@nec.example"),
        ("domain-signing-authority@nec.example", "alice@evilnec.example"),
        ("domain-signing-authority@nec.example", "alice@nec.example.org"),
        ("domain-signing-authority@example", "alice@nec.example"),
        ("domain-signing-authority@example", "alice@example"),
        ("domain-signing-authority@[192.0.2.1]", "alice@[192.0.2.1]"),
        ("domain-confidentiality-authority@nec.example", "alice@nec.example"),
        ("domain-signing-authority2@nec.example", "alice@nec.example"),
        ("postmaster@nec.example", "alice@nec.example"),
    ] {
        assert!(!is_for(signer, author), "{signer} for {author}");
    }
}
