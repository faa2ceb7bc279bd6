//! What the CMS parsers are fuzzed with: one function a parser, called by the fuzz targets and by
//! the test command.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::LazyLock;

use sealgate_core::cms::transcode::to_der;
use sealgate_core::cms::{EnvelopedData, SignedData, content_kind, parse_capabilities};
use sealgate_core::keys::{
    Certificate, KeyError, KeyTransport, SecretKey, SignatureScheme, SoftwareKey, Timestamp,
};

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name, each with what it runs.
pub const TARGETS: &[Target] = &[
    ("certificate", certificate),
    ("cms_enveloped", cms_enveloped_for_bob),
    ("cms_signed", cms_signed_data),
    ("cms_small_parsers", small_parsers),
    ("cms_transcode", cms_transcode),
];

/// BER to DER: what comes out is DER, and not much longer.
pub fn cms_transcode(data: &[u8]) {
    let _ = content_kind(data);
    if let Ok(der) = to_der(data) {
        let again = to_der(&der).expect("what was transcoded transcodes");
        assert_eq!(der, again, "transcoding twice changes something");
        assert!(der.len() <= data.len() * 2 + 16);
    }
}

/// SignedData: parsing and verifying with every certificate that came along.
pub fn cms_signed_data(data: &[u8]) {
    let Ok(signed) = SignedData::parse(data) else { return };
    let content = signed.content.clone().unwrap_or_default();
    for signer in &signed.signers {
        let _ = (signer.digest_name(), signer.is_weak_digest(), signer.signing_time());
        let _ = signer.capabilities();
        let _ = signer.encryption_certificate(signed.certificates.iter());
        if let Some(certificate) =
            signer.certificate(signed.certificates.iter(), Timestamp(1_700_000_000))
        {
            let _ = signer.signature_name(certificate);
            let _ = signer.verify(&content, certificate);
        }
    }
}

/// EnvelopedData and AuthEnvelopedData: parsing, and opening with a key that knows every answer.
pub fn cms_enveloped_data(data: &[u8], certificate: &Certificate) {
    let Ok(enveloped) = EnvelopedData::parse(data) else { return };
    let _ = (enveloped.is_authenticated(), enveloped.cipher());
    for recipient in 0..enveloped.recipient_count().min(4) {
        let _ = enveloped.key_name(recipient);
    }
    if let Some(recipient) = enveloped.recipient_for(certificate) {
        let _ = enveloped.open(recipient, certificate, &KnowsAll);
    }
}

/// The same where the envelope may be addressed to Bob of RFC 9216.
fn cms_enveloped_for_bob(data: &[u8]) {
    static BOB: LazyLock<Certificate> = LazyLock::new(|| {
        let pem = include_str!("../data/rfc9216/certs/bob.encrypt.crt");
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = base64_simd::STANDARD.decode_to_vec(text).expect("PEM holds base64");
        Certificate::from_der(&der).expect("the certificate of RFC 9216")
    });
    cms_enveloped_data(data, &BOB);
}

/// Certificates.
pub fn certificate(data: &[u8]) {
    if let Ok(certificate) = Certificate::from_der(data) {
        assert_eq!(certificate.der(), data);
        let _ = (certificate.subject(), certificate.issuer(), certificate.serial());
        let _ = (certificate.addresses(), certificate.key_kind(), certificate.capabilities());
        let _ = (certificate.may_sign(), certificate.may_encrypt(), certificate.is_for_mail());
    }
}

/// SMIMECapabilities and PKCS#8.
pub fn small_parsers(data: &[u8]) {
    let _ = parse_capabilities(data);
    let _ = SoftwareKey::from_pkcs8(data);
}

/// Unwraps everything to the same key.
#[derive(Debug)]
struct KnowsAll;

impl SecretKey for KnowsAll {
    fn sign(&self, _: SignatureScheme, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::Failed)
    }

    fn unwrap(&self, _: &KeyTransport<'_>) -> Result<zeroize::Zeroizing<Vec<u8>>, KeyError> {
        Ok(zeroize::Zeroizing::new(vec![7; 32]))
    }
}
