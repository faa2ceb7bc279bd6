//! Both directions against the `openssl` program: what it writes we read, what we write it reads.
//!
//! What it cannot do stands in a list with the reason, and the test fails when the list is wrong in
//! either direction.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use sealgate_core::cms::{
    ContentCipher, EnvelopedData, KeyWrap, SignatureFault, SignedData, Signing, default_scheme,
    encrypt, sign_detached,
};
use sealgate_core::keys::{Certificate, Digest, SignatureScheme, SoftwareKey, Timestamp};
use sealgate_core::trust::{Purpose, Trust, TrustStore};

#[path = "support/cms_people.rs"]
mod people;

use people::{Person, fresh, recipients, rfc9216, signers};

const CONTENT: &[u8] = b"Content-Type: text/plain\r\n\r\nThe quick brown fox.\r\n";

/// It hands the digest to a primitive that takes none ("invalid digest").
const NO_ED25519: &str = "OpenSSL 3.0 has no Ed25519 in CMS";

/// It writes the parameters before it has them ("illegal zero content").
const NO_STREAMED_PSS: &str = "OpenSSL 3.0 cannot stream RSASSA-PSS";

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sealgate-cms-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn put_person(&self, person: &Person) -> (PathBuf, PathBuf) {
        let certificate =
            self.put(&format!("{}.crt", person.name), person.certificate_pem().as_bytes());
        let key = self.put(&format!("{}.key", person.name), person.key_pem().as_bytes());
        (certificate, key)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `openssl cms`; its output file's bytes or what it complained about.
fn openssl(
    folder: &Folder,
    arguments: &[&str],
    paths: &[(&str, &Path)],
) -> Result<Vec<u8>, String> {
    let out = folder.0.join("out");
    let _ = std::fs::remove_file(&out);
    let mut command = Command::new("openssl");
    command.arg("cms").args(arguments);
    // Options that OpenSSL wants in order come as they are given; -keyopt belongs behind -recip and
    // -signer.
    for (option, path) in paths {
        if option.starts_with("keyopt ") {
            command.arg("-keyopt").arg(option.trim_start_matches("keyopt "));
        } else {
            command.arg(option).arg(path);
        }
    }
    let done = command.arg("-out").arg(&out).output().expect("the openssl program is installed");
    if done.status.success() {
        std::fs::read(&out).map_err(|why| why.to_string())
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

/// Compares what happened with what is known, and prints the table.
fn settle(what: &str, outcomes: &[(String, Result<(), String>)], cannot: &[(&str, &str)]) {
    for (cell, outcome) in outcomes {
        let reason = cannot.iter().find(|(known, _)| known == cell).map(|(_, reason)| *reason);
        match (outcome, reason) {
            (Ok(()), None) => println!("{what}: {cell}: ok"),
            (Err(_), Some(reason)) => println!("{what}: {cell}: peer cannot: {reason}"),
            (Ok(()), Some(reason)) => panic!("{what}: {cell} works, but the list says: {reason}"),
            (Err(why), None) => panic!("{what}: {cell}: {why}"),
        }
    }
    for (known, _) in cannot {
        assert!(outcomes.iter().any(|(cell, _)| cell == known), "{what}: no such cell {known}");
    }
}

#[test]
fn it_reads_what_we_sign() {
    let folder = Folder::new("we-sign");
    let mut outcomes = Vec::new();
    for person in signers() {
        let mut schemes = vec![default_scheme(&person.certificate).unwrap()];
        if person.name == "alice.sign" {
            schemes.extend([
                SignatureScheme::RsaPkcs1(Digest::Sha384),
                SignatureScheme::RsaPss(Digest::Sha256),
                SignatureScheme::RsaPss(Digest::Sha512),
            ]);
        }
        let (certificate, _) = folder.put_person(&person);
        for scheme in schemes {
            let key = person.own();
            let signing = Signing {
                key: &key,
                scheme,
                encryption_certificate: None,
                signed_at: Timestamp(1_700_000_000),
            };
            let cms = folder.put("cms", &sign_detached(&signing, &[CONTENT]).unwrap());
            let content = folder.put("content", CONTENT);
            let paths: [(&str, &Path); 3] =
                [("-in", &cms), ("-content", &content), ("-certfile", &certificate)];
            let outcome =
                openssl(&folder, &["-verify", "-binary", "-noverify", "-inform", "DER"], &paths)
                    .map(|bytes| assert_eq!(bytes, CONTENT));
            outcomes.push((format!("{} {scheme:?}", person.name), outcome));
        }
    }
    settle("verifies ours", &outcomes, &[("carlos.sign Ed25519", NO_ED25519)]);
}

#[test]
fn we_read_what_it_signs() {
    let folder = Folder::new("it-signs");
    let content = folder.put("content", CONTENT);
    let mut outcomes = Vec::new();
    for person in signers() {
        let (certificate, key) = folder.put_person(&person);
        let pss: &[(&str, &str)] =
            &[("pss", "keyopt rsa_padding_mode:pss"), ("pss-salt-20", "keyopt rsa_pss_saltlen:20")];
        let mut kinds: Vec<(&str, Vec<&str>)> = vec![("", vec![])];
        if person.name == "alice.sign" {
            kinds.push(("pss", vec![pss[0].1]));
            kinds.push(("pss-salt-20", vec![pss[0].1, pss[1].1]));
        }
        for (kind, options) in kinds {
            for shape in ["-noindef", "-indef"] {
                for detached in [true, false] {
                    for attributes in [true, false] {
                        for named in ["issuer", "keyid"] {
                            let mut arguments = vec!["-sign", "-binary", "-outform", "DER", shape];
                            let md = if person.name == "p521" || person.name == "carlos.sign" {
                                "sha512"
                            } else {
                                "sha256"
                            };
                            arguments.extend(["-md", md]);
                            if !detached {
                                arguments.push("-nodetach");
                            }
                            if !attributes {
                                arguments.push("-noattr");
                            }
                            if named == "keyid" {
                                arguments.push("-keyid");
                            }
                            let mut paths: Vec<(&str, &Path)> = vec![
                                ("-in", &content),
                                ("-signer", &certificate),
                                ("-inkey", &key),
                            ];
                            paths.extend(options.iter().map(|option| (*option, Path::new(""))));
                            let outcome = openssl(&folder, &arguments, &paths)
                                .map(|cms| check_signed(&cms, &person, detached));
                            let cell = format!(
                                "{} {kind} {shape} detached={detached} attributes={attributes} {named}",
                                person.name
                            );
                            outcomes.push((cell, outcome));
                        }
                    }
                }
            }
        }
    }
    println!("{} signatures", outcomes.len());
    let cannot: Vec<(&str, &str)> = outcomes
        .iter()
        .filter_map(|(cell, _)| {
            let reason = match cell.as_str() {
                cell if cell.starts_with("carlos.sign") => NO_ED25519,
                cell if cell.contains("pss") && cell.contains("-indef") => NO_STREAMED_PSS,
                _ => return None,
            };
            Some((cell.as_str(), reason))
        })
        .collect();
    settle("it signs", &outcomes, &cannot);
}

fn check_signed(cms: &[u8], person: &Person, detached: bool) {
    let parsed = SignedData::parse(cms).unwrap();
    // OpenSSL's streamed DER holds the content whether that was asked for or not.
    let expected = if detached { parsed.content.as_ref().map(|_| CONTENT) } else { Some(CONTENT) };
    assert_eq!(parsed.content.as_deref(), expected);
    assert_eq!(parsed.signers.len(), 1);
    let signer = &parsed.signers[0];
    let found = signer
        .certificate(parsed.certificates.iter(), Timestamp(1_700_000_000))
        .expect("the certificate came along");
    assert_eq!(found.fingerprint(), person.certificate.fingerprint());
    assert_eq!(signer.verify(CONTENT, found), Ok(()));
    assert!(signer.verify(b"other", found).is_err());
}

#[test]
fn it_reads_what_we_encrypt() {
    let folder = Folder::new("we-encrypt");
    let mut outcomes = Vec::new();
    for person in recipients() {
        let (certificate, key) = folder.put_person(&person);
        let ways: &[KeyWrap] = if person.name == "bob.encrypt" {
            &[KeyWrap::RsaPkcs1, KeyWrap::RsaOaepSha256]
        } else {
            &[KeyWrap::Ecdh]
        };
        for way in ways {
            for cipher in [
                ContentCipher::Aes128Cbc,
                ContentCipher::Aes256Cbc,
                ContentCipher::Aes128Gcm,
                ContentCipher::Aes256Gcm,
            ] {
                let named = [(&*person.certificate, *way)];
                let cms = folder.put("cms", &encrypt(&[CONTENT], cipher, &named).unwrap());
                let paths: [(&str, &Path); 3] =
                    [("-in", &cms), ("-recip", &certificate), ("-inkey", &key)];
                let outcome = openssl(&folder, &["-decrypt", "-binary", "-inform", "DER"], &paths)
                    .map(|bytes| assert_eq!(bytes, CONTENT));
                outcomes
                    .push((format!("{} {} {}", person.name, way.name(), cipher.name()), outcome));
            }
        }
    }
    let reason = "OpenSSL 3.0 has no X25519 in CMS";
    let cannot = [
        ("dana.encrypt ecdh aes-128-cbc", reason),
        ("dana.encrypt ecdh aes-256-cbc", reason),
        ("dana.encrypt ecdh aes-128-gcm", reason),
        ("dana.encrypt ecdh aes-256-gcm", reason),
    ];
    settle("decrypts ours", &outcomes, &cannot);
}

#[test]
fn we_read_what_it_encrypts() {
    let folder = Folder::new("it-encrypts");
    let large: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
    let contents = [("small", CONTENT.to_vec()), ("large", large)];
    let oaep = ["keyopt rsa_padding_mode:oaep", "keyopt rsa_oaep_md:sha256"];
    let mut outcomes = Vec::new();
    for person in recipients().into_iter().filter(|person| person.name != "dana.encrypt") {
        let (certificate, _) = folder.put_person(&person);
        let kinds: Vec<(&str, &[&str])> = if person.name == "bob.encrypt" {
            vec![("rsa-pkcs1", &[]), ("rsa-oaep-sha1", &oaep[..1]), ("rsa-oaep-sha256", &oaep[..])]
        } else {
            vec![("ecdh", &[]), ("ecdh-sha256", &["keyopt ecdh_kdf_md:sha256"])]
        };
        for (kind, options) in kinds {
            for cipher in ["aes-128-cbc", "aes-256-cbc", "des3", "aes-128-gcm", "aes-256-gcm"] {
                for shape in ["-noindef", "-stream"] {
                    for (size, content) in &contents {
                        let input = folder.put("content", content);
                        let flag = format!("-{cipher}");
                        let mut arguments =
                            vec!["-encrypt", "-binary", "-outform", "DER", shape, &flag];
                        if person.name != "bob.encrypt" && cipher == "des3" {
                            arguments.push("-aes128-wrap");
                        }
                        let mut paths: Vec<(&str, &Path)> =
                            vec![("-in", &input), ("-recip", &certificate)];
                        paths.extend(options.iter().map(|option| (*option, Path::new(""))));
                        let outcome = openssl(&folder, &arguments, &paths)
                            .map(|cms| check_encrypted(&cms, &person, kind, cipher, content));
                        let cell = format!("{} {kind} {cipher} {shape} {size}", person.name);
                        outcomes.push((cell, outcome));
                    }
                }
            }
        }
    }
    println!("{} messages", outcomes.len());
    settle("it encrypts", &outcomes, &[]);
}

fn check_encrypted(cms: &[u8], person: &Person, kind: &str, cipher: &str, content: &[u8]) {
    let parsed = EnvelopedData::parse(cms).unwrap_or_else(|why| panic!("{kind} {cipher}: {why}"));
    let expected = if cipher == "des3" { "3des-cbc" } else { cipher };
    assert_eq!(parsed.cipher().map(ContentCipher::name), Some(expected));
    assert_eq!(parsed.is_authenticated(), cipher.ends_with("gcm"));
    let recipient = parsed.recipient_for(&person.certificate).unwrap();
    if kind.starts_with("rsa") {
        assert_eq!(parsed.key_name(recipient), kind);
    }
    let opened = parsed.open(recipient, &person.certificate, &*person.key).unwrap();
    assert_eq!(*opened, content, "{kind} {cipher}");
}

#[test]
fn key_identifiers_and_several_recipients() {
    let folder = Folder::new("several");
    let content = folder.put("content", CONTENT);
    let people = [rfc9216("bob.encrypt"), fresh("p256", &rcgen::PKCS_ECDSA_P256_SHA256)];
    let files: Vec<(PathBuf, PathBuf)> =
        people.iter().map(|person| folder.put_person(person)).collect();
    let paths: Vec<(&str, &Path)> =
        vec![("-in", &content), ("-recip", &files[0].0), ("-recip", &files[1].0)];
    let arguments = ["-encrypt", "-binary", "-outform", "DER", "-keyid", "-aes-256-cbc"];
    let cms = openssl(&folder, &arguments, &paths).unwrap();
    let parsed = EnvelopedData::parse(&cms).unwrap();
    assert_eq!(parsed.recipient_count(), 2);
    for person in &people {
        let recipient = parsed.recipient_for(&person.certificate).expect("named by key identifier");
        let opened = parsed.open(recipient, &person.certificate, &*person.key).unwrap();
        assert_eq!(*opened, CONTENT);
    }
}

#[test]
fn passwords_are_passed_over() {
    let folder = Folder::new("password");
    let content = folder.put("content", CONTENT);
    let bob = rfc9216("bob.encrypt");
    let (certificate, _) = folder.put_person(&bob);
    let arguments =
        ["-encrypt", "-binary", "-outform", "DER", "-aes-256-cbc", "-pwri_password", "secret"];
    let cms = openssl(&folder, &arguments, &[("-in", &content), ("-recip", &certificate)]).unwrap();
    let parsed = EnvelopedData::parse(&cms).unwrap();
    assert_eq!(parsed.recipient_count(), 1);
    let opened = parsed.open(0, &bob.certificate, &*bob.key).unwrap();
    assert_eq!(*opened, CONTENT);
}

/// A key and a certificate for RSASSA-PSS alone (RFC 4055 §1.2), both as OpenSSL makes them.
fn pss_person(folder: &Folder, restricted: bool) -> Person {
    let key = folder.0.join("pss.der");
    let certificate = folder.0.join("pss.crt");
    let run = |command: &mut Command| {
        let done = command.output().expect("the openssl program is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let mut generate = Command::new("openssl");
    generate.args(["genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"]);
    if restricted {
        for option in ["md:sha384", "mgf1_md:sha384", "saltlen:32"] {
            generate.args(["-pkeyopt", &format!("rsa_pss_keygen_{option}")]);
        }
    }
    run(generate.args(["-outform", "DER", "-out"]).arg(&key));
    let mut request = Command::new("openssl");
    request.args(["req", "-new", "-x509", "-subj", "/CN=pss", "-outform", "DER"]);
    run(request.args(["-keyform", "DER", "-key"]).arg(&key).arg("-out").arg(&certificate));
    let pkcs8 = std::fs::read(key).unwrap();
    let certificate = Certificate::from_der(&std::fs::read(certificate).unwrap()).unwrap();
    let key = SoftwareKey::from_pkcs8(&pkcs8).unwrap();
    assert_eq!(key.public_key_bytes(), certificate.public_key_bytes());
    Person { name: "pss", certificate: Arc::new(certificate), key: Arc::new(key), pkcs8 }
}

#[test]
fn keys_for_pss_alone_work_both_ways() {
    for (restricted, digest) in [(false, Digest::Sha256), (true, Digest::Sha384)] {
        let folder = Folder::new(if restricted { "pss-restricted" } else { "pss" });
        let person = pss_person(&folder, restricted);
        assert!(person.certificate.is_pss_only());
        let (certificate, key_file) = folder.put_person(&person);
        let scheme = default_scheme(&person.certificate).unwrap();
        assert_eq!(scheme, SignatureScheme::RsaPss(digest));
        let (key, signed_at) = (person.own(), Timestamp(1_700_000_000));
        let signing = Signing { key: &key, scheme, encryption_certificate: None, signed_at };
        let ours = sign_detached(&signing, &[CONTENT]).unwrap();
        check_signed(&ours, &person, true);
        let (cms, content) = (folder.put("cms", &ours), folder.put("content", CONTENT));
        let paths: [(&str, &Path); 3] =
            [("-in", &cms), ("-content", &content), ("-certfile", &certificate)];
        let arguments = ["-verify", "-binary", "-noverify", "-inform", "DER"];
        assert_eq!(openssl(&folder, &arguments, &paths).unwrap(), CONTENT);
        let padding = ("keyopt rsa_padding_mode:pss", Path::new(""));
        let paths: [(&str, &Path); 4] =
            [("-in", &content), ("-signer", &certificate), ("-inkey", &key_file), padding];
        let name = if restricted { "sha384" } else { "sha256" };
        let arguments = ["-sign", "-binary", "-outform", "DER", "-md", name];
        check_signed(&openssl(&folder, &arguments, &paths).unwrap(), &person, true);
        // Without that option it names rsaEncryption: refused, but no proof of falsification.
        let wrong = openssl(&folder, &arguments, &paths[..3]).unwrap();
        let signer = &SignedData::parse(&wrong).unwrap().signers[0];
        let fault = signer.verify(CONTENT, &person.certificate);
        assert_eq!(fault, Err(SignatureFault::Unsupported));
    }
}

/// OpenSSL 3.0 takes the longest salt that the key has room for where nobody says another.
#[test]
fn certificates_under_pss_signatures_are_trusted_whatever_the_salt() {
    let folder = Folder::new("pss-path");
    let run = |line: &str| {
        let done = Command::new("openssl")
            .args(line.split_whitespace())
            .current_dir(&folder.0)
            .output()
            .expect("the openssl program is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let read = |name: &str| {
        Arc::new(Certificate::from_der(&std::fs::read(folder.0.join(name)).unwrap()).unwrap())
    };
    let new = "req -nodes -newkey rsa:2048 -days 90";
    run(&format!("{new} -x509 -subj /CN=ca -keyout ca.key -outform DER -out ca.der"));
    run(&format!("{new} -new -subj /CN=leaf -keyout leaf.key -out leaf.csr"));
    let trust = TrustStore::new(vec![read("ca.der")], Vec::new(), Vec::new());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = Timestamp(i64::try_from(now.as_secs()).unwrap() + 60);
    for salt in ["20", "digest", "222"] {
        run(&format!(
            "x509 -req -in leaf.csr -CA ca.der -CAform DER -CAkey ca.key -set_serial 1 -days 80 -sha256 \
             -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:{salt} -outform DER -out leaf.der"
        ));
        let leaf = read("leaf.der");
        assert_eq!(trust.judge(&leaf, &[], Purpose::Sign, now), Trust::Trusted, "{salt}");
        let mut bytes = leaf.der().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let falsified = Certificate::from_der(&bytes).unwrap();
        assert_eq!(trust.judge(&falsified, &[], Purpose::Sign, now), Trust::Untrusted);
    }
}
