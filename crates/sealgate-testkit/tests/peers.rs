//! The peers of the interoperability matrix understand each other, so that a failure of the matrix is sealgate's.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::collections::HashMap;

use sealgate_testkit::bouncycastle::BouncyCastle;
use sealgate_testkit::cms::{self, Target};
use sealgate_testkit::gpgsm::GpgSm;
use sealgate_testkit::openssl::OpenSsl;
use sealgate_testkit::peer::{Cipher, Form, Peer, Signing, Transport};
use sealgate_testkit::pki::{Identity, KeyKind, Pki, Reads};

struct Bed {
    pki: Pki,
    people: HashMap<KeyKind, Identity>,
    peers: Vec<Box<dyn Peer>>,
}

impl Bed {
    fn new() -> Self {
        let pki = Pki::new("Peers");
        let people: HashMap<KeyKind, Identity> = [
            (KeyKind::Rsa2048, "rsa2048@peer.example"),
            (KeyKind::Rsa3072, "rsa3072@peer.example"),
            (KeyKind::P256, "p256@peer.example"),
            (KeyKind::Ed25519, "ed25519@peer.example"),
        ]
        .into_iter()
        .map(|(kind, address)| (kind, pki.issue(address, kind, Reads::GcmAndOaep)))
        .collect();
        let gpgsm = GpgSm::new(&[&pki.root], &people.values().collect::<Vec<_>>());
        let peers: Vec<Box<dyn Peer>> =
            vec![Box::new(OpenSsl), Box::new(gpgsm), Box::new(BouncyCastle::start())];
        Self { pki, people, peers }
    }

    fn signer(&self, scheme: Signing) -> &Identity {
        &self.people[&match scheme {
            Signing::Rsa2048 | Signing::RsaPss => KeyKind::Rsa2048,
            Signing::Rsa3072 => KeyKind::Rsa3072,
            Signing::P256 => KeyKind::P256,
            Signing::Ed25519 => KeyKind::Ed25519,
        }]
    }

    fn recipient(&self, transport: Transport) -> &Identity {
        &self.people[&match transport {
            Transport::RsaPkcs1 | Transport::RsaOaep => KeyKind::Rsa2048,
            Transport::EcdhP256 => KeyKind::P256,
        }]
    }
}

/// How many of 10 signings (5 schemes, 2 forms) each peer makes, and how many of these each reads.
#[test]
fn peers_read_each_others_signatures() {
    let bed = Bed::new();
    let content = b"Content-Type: text/plain\r\n\r\nSigned.\r\n";
    let mut read = HashMap::new();
    for writer in &bed.peers {
        for scheme in Signing::ALL {
            for form in Form::ALL {
                let signature = match writer.sign(bed.signer(scheme), scheme, form, content) {
                    Ok(signature) => signature,
                    Err(why) => {
                        println!("{:12} {scheme:9} {form}: cannot sign: {why}", writer.name());
                        continue;
                    }
                };
                assert_eq!(Form::of(&signature), form, "{} {scheme}", writer.name());
                for reader in &bed.peers {
                    let result = reader.verify(&signature, content, &bed.pki.root);
                    let key = (writer.name(), reader.name());
                    if let Err(why) = result {
                        println!("{key:?} {scheme} {form}: cannot verify: {why}");
                        continue;
                    }
                    *read.entry(key).or_insert(0) += 1;
                    let broken = cms::flipped(&signature, Target::Signature);
                    let broken = reader.verify(&broken, content, &bed.pki.root);
                    assert!(broken.is_err(), "{key:?} {scheme} {form}: took a falsified signature");
                }
            }
        }
    }
    println!("{read:?}");
    // openssl 3.0 has no Ed25519 in CMS and fails on streamed PSS; gpgsm 2.2 signs RSA PKCS#1 and ECDSA, BER only.
    assert_eq!(read[&("openssl", "bouncycastle")], 7);
    assert_eq!(read[&("openssl", "gpgsm")], 7);
    assert_eq!(read[&("bouncycastle", "openssl")], 8);
    assert_eq!(read[&("bouncycastle", "bouncycastle")], 10);
    assert_eq!(read[&("gpgsm", "openssl")], 3);
}

/// How many of 12 encryptions (3 transports, 2 ciphers, 2 forms) each peer makes, and how many of these each opens.
#[test]
fn peers_open_each_others_messages() {
    let bed = Bed::new();
    let plain = b"Content-Type: text/plain\r\n\r\nSealed.\r\n".repeat(400);
    let mut opened = HashMap::new();
    for writer in &bed.peers {
        for transport in Transport::ALL {
            for cipher in Cipher::ALL {
                for form in Form::ALL {
                    let recipient = bed.recipient(transport);
                    let what = format!("{transport} {cipher} {form}");
                    let sealed = match writer.encrypt(recipient, transport, cipher, form, &plain) {
                        Ok(sealed) => sealed,
                        Err(why) => {
                            println!("{:12} {what}: cannot encrypt: {why}", writer.name());
                            continue;
                        }
                    };
                    assert_eq!(Form::of(&sealed), form, "{} {what}", writer.name());
                    assert!(cms::locate(&sealed, Target::EncryptedContent).len() > 100);
                    for reader in &bed.peers {
                        let key = (writer.name(), reader.name());
                        match reader.decrypt(recipient, &sealed) {
                            Ok(read) => {
                                assert!(read == plain, "{key:?} {what}: another content");
                                *opened.entry(key).or_insert(0) += 1;
                            }
                            Err(why) => println!("{key:?} {what}: cannot decrypt: {why}"),
                        }
                        if cipher == Cipher::Gcm {
                            let broken = cms::flipped(&sealed, Target::EncryptedContent);
                            assert!(reader.decrypt(recipient, &broken).is_err(), "{key:?} {what}");
                        }
                    }
                }
            }
        }
    }
    println!("{opened:?}");
    assert_eq!(opened[&("openssl", "bouncycastle")], 12, "{opened:?}");
    assert_eq!(opened[&("bouncycastle", "openssl")], 12, "{opened:?}");
    assert_eq!(opened[&("gpgsm", "openssl")], 1, "gpgsm 2.2 writes RSA PKCS#1, CBC, BER");
    assert_eq!(opened[&("openssl", "gpgsm")], 2, "{opened:?}");
}
