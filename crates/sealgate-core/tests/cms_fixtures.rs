//! Messages and keys of other projects: what they expect, and the same reading as `rasn-cms` has.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rasn_cms::{EncapsulatedContentInfo, RecipientInfo};
use sealgate_core::cms::{
    CmsError, ContentCipher, ContentKind, EnvelopedData, OpenFault, SignatureFault, SignedData,
    SignerInfo, Signing, content_kind, default_scheme, encrypt, key_wrap_for, sign_detached,
};
use sealgate_core::keys::{Certificate, KeyKind, SoftwareKey, Timestamp};

#[path = "support/ber.rs"]
mod ber;
#[path = "fuzz_bodies/cms.rs"]
mod bodies;
#[path = "support/cms_people.rs"]
mod people;
#[path = "support/shortest.rs"]
mod shortest;

use people::{blocks, files, fixtures, from_mail, from_pem, recipients, rfc9216, signers};
use shortest::shortest;

/// What no file may take.
const LIMIT: Duration = Duration::from_secs(1);

fn read(path: &Path) -> Vec<u8> {
    from_pem(&std::fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display())))
}

/// The one signer's verdict over its own content.
fn verdict(
    signed: &SignedData,
    more: &[Arc<Certificate>],
    content: &[u8],
) -> Vec<Result<(), SignatureFault>> {
    let find = |signer: &SignerInfo| {
        signer
            .certificate(signed.certificates.iter().chain(more), Timestamp(1_700_000_000))
            .expect("a certificate")
            .clone()
    };
    signed.signers.iter().map(|signer| signer.verify(content, &find(signer))).collect()
}

#[test]
fn openssl_attribute_cases_are_falsified() {
    let folder = fixtures("openssl-smime/recipes/80-test_cms_data");
    let certificates: Vec<Arc<Certificate>> = ["smrsa1", "smrsa2", "smroot", "smec1", "smec2"]
        .iter()
        .map(|name| {
            let path = fixtures("openssl-smime/smime-certs").join(format!("{name}.pem"));
            let all = blocks(&std::fs::read(path).unwrap());
            Arc::new(all.iter().find_map(|der| Certificate::from_der(der).ok()).unwrap())
        })
        .collect();
    for name in ["bad_signtime_attr", "no_ct_attr", "no_md_attr", "ct_multiple_attr"] {
        let bytes = std::fs::read(folder.join(format!("{name}.cms"))).unwrap();
        let der = blocks(&bytes).into_iter().next().or_else(|| from_mail(&bytes)).unwrap_or(bytes);
        let signed = SignedData::parse(&der).unwrap_or_else(|why| panic!("{name}: {why}"));
        let content = signed.content.clone().unwrap_or_default();
        let verdicts = verdict(&signed, &certificates, &content);
        assert_eq!(verdicts, [Err(SignatureFault::Falsified)], "{name}");
    }
}

#[test]
fn openssl_malformed_cases_are_refused() {
    let set = fixtures("openssl-smime");
    let key = SoftwareKey::from_pkcs8(&read(&set.join("smime-certs/smrsa1.pem"))).unwrap();
    let certificate = blocks(&std::fs::read(set.join("smime-certs/smrsa1.pem")).unwrap())
        .iter()
        .find_map(|der| Certificate::from_der(der).ok())
        .unwrap();
    assert_eq!(key.public_key_bytes(), certificate.public_key_bytes());
    // AES-GCM under EnvelopedData contradicts itself.
    let gcm = read(&set.join("cms-msg/enveloped-content-type-for-aes-gcm.pem"));
    assert_eq!(EnvelopedData::parse(&gcm).unwrap_err(), CmsError::Malformed);
    // No parameters where the algorithm needs them (CVE-2026-28389, CVE-2026-28390).
    for name in ["rsa-malformed.der", "ecdh-malformed.der", "dh-malformed.der"] {
        let cms = read(&set.join("recipes/80-test_cms_data").join(name));
        match EnvelopedData::parse(&cms) {
            Ok(enveloped) => {
                if let Some(recipient) = enveloped.recipient_for(&certificate) {
                    let fault = enveloped.open(recipient, &certificate, &key).unwrap_err();
                    assert!(matches!(fault, OpenFault::Failed | OpenFault::Unsupported), "{name}");
                }
            }
            Err(fault) => println!("{name}: {fault}"),
        }
    }
    for name in ["d2i-tests/bad-cms.der", "recipes/25-test_pkcs7_data/malformed.pkcs7"] {
        let cms = read(&set.join(name));
        assert!(SignedData::parse(&cms).is_err() && EnvelopedData::parse(&cms).is_err(), "{name}");
    }
    for name in ["bad_cert.der", "bad_generalname.der"] {
        let der = read(&set.join("d2i-tests").join(name));
        assert!(Certificate::from_der(&der).is_err(), "{name}");
    }
}

#[test]
fn rfc_4134_examples() {
    let set = fixtures("rfc4134");
    let certificates: Vec<Arc<Certificate>> = files(&set)
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "cer"))
        .map(|path| Arc::new(Certificate::from_der(&read(path)).unwrap()))
        .collect();
    assert!(certificates.len() >= 5);
    let content = std::fs::read(set.join("ExContent.bin")).unwrap();
    let (falsified, unsupported) =
        (Err(SignatureFault::Falsified), Err(SignatureFault::Unsupported));
    assert_ne!(falsified, unsupported);
    // DSA is off (REQUIREMENTS K5): well formed, not supported.
    let expected: BTreeMap<&str, Vec<Result<(), SignatureFault>>> = BTreeMap::from([
        ("4.1.bin", vec![unsupported]),
        ("4.2.bin", vec![Ok(())]),
        ("4.3.bin", vec![unsupported]),
        ("4.4.bin", vec![unsupported]),
        ("4.5.bin", vec![Ok(())]),
        ("4.6.bin", vec![unsupported, unsupported]),
        ("4.7.bin", vec![unsupported]),
        ("4.10.bin", vec![unsupported]),
        ("4.11.bin", vec![]),
    ]);
    for (name, verdicts) in expected {
        let signed = SignedData::parse(&read(&set.join(name))).unwrap();
        if let Some(inside) = &signed.content
            && name != "4.10.bin"
        {
            assert_eq!(inside, &content, "{name}");
        }
        let inside = signed.content.clone().unwrap_or(content.clone().into());
        assert_eq!(verdict(&signed, &certificates, &inside), verdicts, "{name}");
        for signer in &signed.signers {
            assert!(signer.is_weak_digest(), "{name} is of 2005");
        }
    }
}

#[test]
fn rfc_4134_encrypted() {
    let set = fixtures("rfc4134");
    let bob = Certificate::from_der(&read(&set.join("BobRSASignByCarl.cer"))).unwrap();
    assert_eq!(bob.key_kind(), KeyKind::Rsa { bits: 1024 });
    let triple_des = EnvelopedData::parse(&read(&set.join("5.1.bin"))).unwrap();
    assert_eq!(triple_des.cipher(), Some(ContentCipher::TripleDesCbc));
    assert_eq!(triple_des.recipient_for(&bob), Some(0));
    assert_eq!(triple_des.key_name(0), "rsa-pkcs1");
    // RC2 never (REQUIREMENTS F2).
    let rc2 = EnvelopedData::parse(&read(&set.join("5.2.bin"))).unwrap();
    assert_eq!(rc2.cipher(), None);
    let alice = rfc9216("alice.encrypt");
    assert_eq!(rc2.open(0, &alice.certificate, &*alice.key).unwrap_err(), OpenFault::Unsupported);
}

#[test]
fn rfc_9216_certificates_say_what_the_text_says() {
    for (name, may_sign, may_encrypt, kind) in [
        ("alice.sign", true, false, KeyKind::Rsa { bits: 2048 }),
        ("alice.encrypt", false, true, KeyKind::Rsa { bits: 2048 }),
        ("bob.sign", true, false, KeyKind::Rsa { bits: 2048 }),
        ("bob.encrypt", false, true, KeyKind::Rsa { bits: 2048 }),
        ("carlos.sign", true, false, KeyKind::Ed25519),
        ("carlos.encrypt", false, true, KeyKind::X25519),
        ("dana.sign", true, false, KeyKind::Ed25519),
        ("dana.encrypt", false, true, KeyKind::X25519),
    ] {
        let person = rfc9216(name);
        let certificate = &person.certificate;
        assert_eq!(
            (certificate.may_sign(), certificate.may_encrypt()),
            (may_sign, may_encrypt),
            "{name}"
        );
        assert_eq!(certificate.key_kind(), kind);
        assert_eq!(person.key.kind(), kind);
        let (first, _) = name.split_once('.').unwrap();
        assert_eq!(certificate.addresses()[0].to_string(), format!("{first}@smime.example"));
        assert_eq!(certificate.addresses().len(), 1);
        assert!(certificate.is_for_mail() && !certificate.is_authority());
        assert!(certificate.not_before() < Timestamp(1_610_000_000));
        assert!(certificate.not_after() > Timestamp(2_500_000_000));
        assert!(certificate.subject().starts_with("CN="), "{}", certificate.subject());
        assert!(certificate.subject_key_identifier().is_some());
        assert!(!certificate.is_self_issued());
    }
    let root =
        Certificate::from_der(&from_pem(include_bytes!("data/rfc9216/certs/rsa-ca-root.crt")));
    let root = root.unwrap();
    assert!(root.is_authority() && root.is_self_issued() && root.addresses().is_empty());
}

#[test]
fn every_foreign_file_goes_through_every_parser() {
    let bob = rfc9216("bob.encrypt").certificate;
    let mut count = 0;
    for set in
        ["openssl-smime", "rfc4134", "rustcrypto-cms", "fuzz-openssl", "fuzz-awslc", "rfc9216"]
    {
        for path in files(&fixtures(set)) {
            let bytes = std::fs::read(&path).unwrap();
            let mut forms = blocks(&bytes);
            forms.extend(from_mail(&bytes));
            forms.push(bytes);
            for form in forms {
                let took = shortest(LIMIT, || {
                    bodies::cms_transcode(&form);
                    bodies::cms_signed_data(&form);
                    bodies::cms_enveloped_data(&form, &bob);
                    bodies::certificate(&form);
                    bodies::small_parsers(&form);
                });
                assert!(took < LIMIT, "{}: {took:?}", path.display());
                count += 1;
            }
        }
    }
    println!("{count} inputs");
    assert!(count > 1300, "only {count} inputs");
}

/// What `rasn-cms` makes of an object; none if it does not parse.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    Enveloped { recipients: usize, ciphertext: usize },
    Signed { content: Option<Vec<u8>>, certificates: usize, signers: usize },
}

fn oracle(bytes: &[u8]) -> Option<Reading> {
    let info: rasn_cms::ContentInfo = rasn::ber::decode(bytes).ok()?;
    let recipients_of = |recipients: &rasn_cms::RecipientInfos| -> usize {
        recipients
            .to_vec()
            .iter()
            .map(|info| match info {
                RecipientInfo::KeyTransRecipientInfo(_) => 1,
                RecipientInfo::KeyAgreeRecipientInfo(info) => info.recipient_encrypted_keys.len(),
                _ => 0,
            })
            .sum()
    };
    let content = info.content.as_bytes();
    match content_kind(bytes).ok()? {
        ContentKind::SignedData => {
            let signed: rasn_cms::SignedData = rasn::ber::decode(content).ok()?;
            let EncapsulatedContentInfo { content, .. } = signed.encap_content_info;
            Some(Reading::Signed {
                content: content.map(|octets| octets.to_vec()),
                certificates: signed.certificates.map_or(0, |set| set.len()),
                signers: signed.signer_infos.len(),
            })
        }
        ContentKind::EnvelopedData => {
            let enveloped: rasn_cms::EnvelopedData = rasn::ber::decode(content).ok()?;
            let ciphertext = enveloped.encrypted_content_info.encrypted_content;
            Some(Reading::Enveloped {
                recipients: recipients_of(&enveloped.recipient_infos),
                ciphertext: ciphertext.map_or(0, |octets| octets.len()),
            })
        }
        ContentKind::AuthEnvelopedData => {
            let enveloped: rasn_cms::AuthEnvelopedData = rasn::ber::decode(content).ok()?;
            let ciphertext = enveloped.auth_encrypted_content_info.encrypted_content;
            Some(Reading::Enveloped {
                recipients: recipients_of(&enveloped.recipient_infos),
                ciphertext: ciphertext.map_or(0, |octets| octets.len()),
            })
        }
        _ => None,
    }
}

/// What we make of it.
fn ours(bytes: &[u8]) -> Result<Reading, CmsError> {
    match content_kind(bytes)? {
        ContentKind::SignedData => SignedData::parse(bytes).map(|signed| Reading::Signed {
            content: signed.content.map(|content| content.to_vec()),
            certificates: signed.certificates.len(),
            signers: signed.signers.len(),
        }),
        ContentKind::EnvelopedData | ContentKind::AuthEnvelopedData => EnvelopedData::parse(bytes)
            .map(|enveloped| Reading::Enveloped {
                recipients: enveloped.recipient_count(),
                ciphertext: enveloped.ciphertext_bytes(),
            }),
        _ => Err(CmsError::Unsupported),
    }
}

/// The messages that we write, as DER and streamed.
fn generated() -> Vec<(String, Vec<u8>)> {
    let content: Vec<u8> = (0..3000_u32).map(|index| (index % 250) as u8).collect();
    let mut all = Vec::new();
    for person in signers() {
        let key = person.own();
        let scheme = default_scheme(&person.certificate).unwrap();
        let signing =
            Signing { key: &key, scheme, encryption_certificate: None, signed_at: Timestamp(0) };
        all.push((
            format!("signed by {}", person.name),
            sign_detached(&signing, &[&content]).unwrap(),
        ));
    }
    let people = recipients();
    for cipher in [ContentCipher::Aes256Cbc, ContentCipher::Aes256Gcm] {
        let named: Vec<_> = people
            .iter()
            .map(|person| {
                let way = key_wrap_for(person.certificate.key_kind(), None).unwrap();
                (&*person.certificate, way)
            })
            .collect();
        all.push((
            format!("{} to all", cipher.name()),
            encrypt(&[&content], cipher, &named).unwrap(),
        ));
    }
    let mut forms = Vec::new();
    for (name, der) in all {
        for segment in [1, 100, 5000] {
            forms.push((format!("{name}, segments of {segment}"), ber::streamed(&der, segment)));
        }
        forms.push((name, der));
    }
    forms
}

#[test]
fn streamed_forms_are_read_as_their_der() {
    let mut ders = BTreeMap::new();
    for (name, bytes) in generated().into_iter().rev() {
        let (base, form) = name.split_once(", ").unwrap_or((&name, "der"));
        let der = sealgate_core::cms::transcode::to_der(&bytes).unwrap().into_owned();
        let first = ders.entry(base.to_owned()).or_insert_with(|| der.clone());
        assert!(*first == der, "{base}: {form}");
    }
    assert_eq!(ders.len(), 7);
}

#[test]
fn what_we_write_is_der_to_the_cms_crate() {
    use der::Decode;
    for (name, bytes) in generated() {
        let der = sealgate_core::cms::transcode::to_der(&bytes).unwrap();
        let info = cms::content_info::ContentInfo::from_der(&der).unwrap();
        let theirs = match content_kind(&der).unwrap() {
            ContentKind::SignedData => {
                let signed: cms::signed_data::SignedData = info.content.decode_as().unwrap();
                Reading::Signed {
                    content: None,
                    certificates: signed.certificates.map_or(0, |set| set.0.len()),
                    signers: signed.signer_infos.0.len(),
                }
            }
            ContentKind::EnvelopedData => {
                let enveloped: cms::enveloped_data::EnvelopedData =
                    info.content.decode_as().unwrap();
                let ciphertext = enveloped.encrypted_content.encrypted_content.unwrap();
                let recipients = enveloped.recip_infos.0.len();
                Reading::Enveloped { recipients, ciphertext: ciphertext.as_bytes().len() }
            }
            _ => {
                let enveloped: cms::authenveloped_data::AuthEnvelopedData =
                    info.content.decode_as().unwrap();
                let ciphertext = enveloped.auth_encrypted_content_info.encrypted_content.unwrap();
                let recipients = enveloped.recip_infos.0.len();
                Reading::Enveloped { recipients, ciphertext: ciphertext.as_bytes().len() }
            }
        };
        assert_eq!(ours(&bytes).unwrap(), theirs, "{name}");
    }
}

/// Where the two readings may differ, and why.
const EXCEPTIONS: [(&str, &str); 2] = [
    ("openssl-smime/enveloped-content-type-for-aes-gcm.pem", "GCM under EnvelopedData is refused"),
    ("openssl-smime/pkcs7-1.pem", "octets behind the signature value; OpenSSL complains too"),
];

/// Mutants of fuzzers: refusing more than the oracle is no fault there (versions and content types
/// that do not exist, parameters of another type, octets behind the end), reading something else
/// is.
const MUTANTS: [&str; 2] = ["fuzz-openssl", "fuzz-awslc"];

#[test]
fn rasn_reads_the_same() {
    let mut inputs = generated();
    for set in [
        "rfc4134",
        "openssl-smime",
        "rustcrypto-cms",
        "comm-smime",
        "fuzz-openssl/cms",
        "fuzz-awslc",
    ] {
        for path in files(&fixtures(set)) {
            let bytes = std::fs::read(&path).unwrap();
            let name = format!("{set}/{}", path.file_name().unwrap().to_string_lossy());
            inputs.extend(blocks(&bytes).into_iter().map(|block| (name.clone(), block)));
            inputs.extend(from_mail(&bytes).map(|block| (name.clone(), block)));
            inputs.push((name, bytes));
        }
    }
    let (mut same, mut refused, mut differences) = (0, 0, Vec::new());
    for (name, bytes) in &inputs {
        let Some(theirs) = oracle(bytes) else { continue };
        match ours(bytes) {
            Ok(reading) if reading == theirs => same += 1,
            Err(_) if MUTANTS.iter().any(|set| name.starts_with(set)) => refused += 1,
            outcome => {
                let outcome = outcome.map(|reading| format!("{reading:?}").len());
                differences.push(format!("{name}: {outcome:?}"));
            }
        }
    }
    println!("{same} of {} inputs read alike, {refused} mutants refused by us only", inputs.len());
    assert!(refused < same, "{refused} mutants refused");
    let unknown: Vec<&String> = differences
        .iter()
        .filter(|found| !EXCEPTIONS.iter().any(|(known, _)| found.starts_with(known)))
        .collect();
    for (known, _) in EXCEPTIONS {
        assert!(
            differences.iter().any(|found| found.starts_with(known)),
            "{known} reads alike now"
        );
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(same > 40, "only {same} inputs were compared");
}
