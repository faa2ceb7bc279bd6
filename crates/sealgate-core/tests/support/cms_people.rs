//! Keys and certificates for the CMS tests: RFC 9216's people, and freshly made ones for the curves
//! that it does not have.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::PathBuf;
use std::sync::Arc;

use sealgate_core::keys::{Certificate, OwnKey, SecretKey, SoftwareKey};

/// A key with its certificate.
pub struct Person {
    pub name: &'static str,
    pub certificate: Arc<Certificate>,
    pub key: Arc<SoftwareKey>,
    pub pkcs8: Vec<u8>,
}

impl Person {
    pub fn own(&self) -> OwnKey {
        let secret: Arc<dyn SecretKey> = self.key.clone();
        OwnKey {
            address: None,
            certificate: self.certificate.clone(),
            chain: vec![],
            secret,
            is_active: true,
        }
    }

    pub fn certificate_pem(&self) -> String {
        to_pem("CERTIFICATE", self.certificate.der())
    }

    pub fn key_pem(&self) -> String {
        to_pem("PRIVATE KEY", &self.pkcs8)
    }
}

/// One of RFC 9216: "alice.sign", "dana.encrypt", ...
pub fn rfc9216(name: &'static str) -> Person {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rfc9216"));
    let certificate = std::fs::read(folder.join(format!("certs/{name}.crt"))).unwrap();
    let pkcs8 = from_pem(&std::fs::read(folder.join(format!("keys/{name}.key"))).unwrap());
    let certificate = Arc::new(Certificate::from_der(&from_pem(&certificate)).unwrap());
    let key = Arc::new(SoftwareKey::from_pkcs8(&pkcs8).unwrap());
    assert_eq!(key.public_key_bytes(), certificate.public_key_bytes(), "{name}");
    Person { name, certificate, key, pkcs8 }
}

/// A self-signed certificate over a fresh key.
pub fn fresh(name: &'static str, algorithm: &'static rcgen::SignatureAlgorithm) -> Person {
    let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.subject_alt_names =
        vec![rcgen::SanType::Rfc822Name(format!("{name}@abc.example").try_into().unwrap())];
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    // A key identifier goes into certificates of authorities only.
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&pair).unwrap();
    let pkcs8 = pair.serialize_der();
    Person {
        name,
        certificate: Arc::new(Certificate::from_der(certificate.der()).unwrap()),
        key: Arc::new(SoftwareKey::from_pkcs8(&pkcs8).unwrap()),
        pkcs8,
    }
}

/// One signer of each kind.
pub fn signers() -> Vec<Person> {
    vec![
        rfc9216("alice.sign"),
        rfc9216("carlos.sign"),
        fresh("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        fresh("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        fresh("p521", &rcgen::PKCS_ECDSA_P521_SHA512),
    ]
}

/// One recipient of each kind.
pub fn recipients() -> Vec<Person> {
    vec![
        rfc9216("bob.encrypt"),
        rfc9216("dana.encrypt"),
        fresh("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        fresh("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        fresh("p521", &rcgen::PKCS_ECDSA_P521_SHA512),
    ]
}

/// The fixtures that lie beside the project; a test that needs them fails where they are absent.
pub fn fixtures(set: &str) -> PathBuf {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures")).join(set);
    assert!(folder.is_dir(), "the fixtures {} are absent: this test is left out", folder.display());
    folder
}

/// Every file under a folder, in order.
pub fn files(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// The first block of a PEM file, or the bytes themselves if it is none.
pub fn from_pem(bytes: &[u8]) -> Vec<u8> {
    blocks(bytes).into_iter().next().unwrap_or_else(|| bytes.to_vec())
}

/// Every block of a PEM file.
pub fn blocks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut inside: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("-----BEGIN") {
            inside = Some(String::new());
        } else if line.starts_with("-----END") {
            let base64 = inside.take().unwrap_or_default();
            found.extend(base64_simd::STANDARD.decode_to_vec(base64));
        } else if let Some(base64) = &mut inside {
            base64.push_str(line.trim());
        }
    }
    found
}

/// The base64 body of a MIME part, for fixtures that are mails.
pub fn from_mail(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes).replace('\r', "");
    let (_, body) = text.split_once("\n\n")?;
    let base64: String = body.split_whitespace().collect();
    base64_simd::STANDARD.decode_to_vec(base64).ok()
}

fn to_pem(label: &str, der: &[u8]) -> String {
    let base64 = base64_simd::STANDARD.encode_to_string(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
