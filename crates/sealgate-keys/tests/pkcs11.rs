//! Secret keys in a real token (SoftHSM 2), at hand and at the other end of a socket that breaks.
//!
//! A module reads its environment when it is loaded, so that each test runs in a process of its own: the test starts
//! itself again with the environment that the token needs.
#![cfg(feature = "pkcs11")]
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "pkcs11/away.rs"]
mod away;
#[path = "pkcs11/bed.rs"]
mod bed;
#[path = "pkcs11/uses.rs"]
mod uses;

use std::process::Command;
use std::sync::Arc;
use std::thread;

use aws_lc_rs::agreement::{self, EphemeralPrivateKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use cryptoki::object::Attribute;
use sealgate_core::keys::{
    Certificate, Digest, KeyError, KeyTransport, SecretKey, SignatureScheme, SoftwareKey,
};
use sealgate_keys::StoreError;
use sealgate_keys::secret_key_store::pkcs11::{Pkcs11Config, Pkcs11Key, Token};
use sealgate_keys::secret_key_store::{KeyPurpose, RemoteStore};
use sealgate_testkit::pki::pem_body;
use sealgate_testkit::process;
use sealgate_testkit::softhsm::{PIN, TOKEN};

use bed::{Bed, ED25519_KEY, P256, P384, RSA, SIGN_AND_ENCRYPT, inside, new_key};
use uses::{
    CONTENT_KEY, ECDSA_SHA256, ECDSA_SHA384, Given, MESSAGE, PSS_SHA256, RETURN_PATIENCE,
    RSA_SHA256, RSA_SHA512, decrypts_rsa, each_does_its_own, encrypted_pkcs1, given_to, only,
    signs, signs_this, works_within,
};

#[test]
fn keys_in_a_token_sign_and_never_leave_it() {
    inside("keys_in_a_token_sign_and_never_leave_it", |bed| {
        let cases: [(&str, &[&str], SignatureScheme, &'static dyn VerificationAlgorithm); 5] = [
            ("r1@nec.example", RSA, RSA_SHA256, &RSA_PKCS1_2048_8192_SHA256),
            ("r2@nec.example", RSA, RSA_SHA512, &RSA_PKCS1_2048_8192_SHA512),
            ("r3@nec.example", RSA, PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
            ("p256@nec.example", P256, ECDSA_SHA256, &ECDSA_P256_SHA256_ASN1),
            ("p384@nec.example", P384, ECDSA_SHA384, &ECDSA_P384_SHA384_ASN1),
        ];
        let mut people = Vec::new();
        for (number, (address, kind, ..)) in cases.iter().enumerate() {
            let person = bed.person(address, kind, SIGN_AND_ENCRYPT);
            bed.import(&person, address, &format!("0{number}"));
            people.push(person);
        }
        let token = Token::open(bed.config()).unwrap();
        for (person, (address, _, scheme, algorithm)) in people.iter().zip(cases) {
            let key = only(token.find(address).unwrap());
            assert_eq!(key.certificate.der(), pem_body(&person.certificate));
            let signature = key.secret.sign(scheme, MESSAGE).unwrap();
            let public = key.certificate.public_key_bytes();
            UnparsedPublicKey::new(algorithm, public)
                .verify(MESSAGE, &signature)
                .unwrap_or_else(|_| panic!("{address}: {scheme:?}"));
        }
        assert_eq!(token.list().unwrap().len(), cases.len());
        let secrets = bed.secrets_that_can_be_read();
        assert_eq!(secrets, vec![Vec::<u8>::new(); cases.len()], "secrets leave the token");
        assert!(token.find("nobody@nec.example").unwrap().is_empty());
        let text = token.check().unwrap();
        assert_eq!(text, format!("token `{TOKEN}`, model SoftHSM v2, secret keys: 5"));
    });
}

#[test]
fn keys_in_a_token_decrypt_and_agree_as_keys_in_memory_do() {
    inside("keys_in_a_token_decrypt_and_agree_as_keys_in_memory_do", |bed| {
        let rsa = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&rsa, "r@nec.example", "01");
        let token = Token::open(bed.config()).unwrap();
        decrypts_rsa(&only(token.find("r@nec.example").unwrap()));
        for (address, kind, algorithm) in [
            ("p256@nec.example", P256, &agreement::ECDH_P256),
            ("p384@nec.example", P384, &agreement::ECDH_P384),
        ] {
            let person = bed.person(address, kind, SIGN_AND_ENCRYPT);
            bed.import(&person, address, "02");
            let key = only(token.find(address).unwrap());
            let software = SoftwareKey::from_pkcs8(&pem_body(&person.key)).unwrap();
            let theirs = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).unwrap();
            let ephemeral = theirs.compute_public_key().unwrap();
            let request = KeyTransport::Ecdh { ephemeral: ephemeral.as_ref() };
            assert_eq!(key.secret.unwrap(&request), SecretKey::unwrap(&software, &request));
            let request = KeyTransport::Ecdh { ephemeral: &[4; 65] };
            assert_eq!(key.secret.unwrap(&request), Err(KeyError::Failed), "no point of the curve");
        }
        let secrets = bed.token.tool(&["--list-objects", "--type", "secrkey"]);
        assert!(!secrets.contains("Secret Key"), "an agreed secret stays in the token: {secrets}");
    });
}

#[test]
fn a_key_is_found_by_the_label_or_id_that_the_configuration_names() {
    inside("a_key_is_found_by_the_label_or_id_that_the_configuration_names", |bed| {
        let [alice, bob, carol] = ["alice", "bob", "carol"]
            .map(|name| bed.person(&format!("{name}@nec.example"), P256, SIGN_AND_ENCRYPT));
        bed.import(&alice, "key of alice", "0a");
        bed.import(&bob, "key 2", "0b");
        bed.token.import_key(&carol.key, "key 3", "0c");
        // Under carol's id, and not her key's.
        bed.token.import_certificate(&bob.certificate, "key 3", "0c");
        let named = |owner: &str, label: Option<&str>, id: Option<u8>, certificate| Pkcs11Key {
            owner: format!("{owner}@nec.example"),
            label: label.map(str::to_owned),
            id: id.map(|id| vec![id]),
            certificate,
        };
        let mut config = bed.config();
        config.keys = vec![
            named("alice", Some("key of alice"), None, None),
            named("bob", None, Some(0x0b), None),
            named("carol", Some("key 3"), Some(0x0c), Some(carol.certificate.clone())),
            named("dave", Some("key 3"), None, None),
        ];
        let token = Token::open(config).unwrap();
        for person in [&alice, &bob, &carol] {
            let key = only(token.find(&person.address).unwrap());
            assert_eq!(key.certificate.der(), pem_body(&person.certificate));
            signs(&key);
        }
        let of_another = token.find("dave@nec.example").unwrap_err().to_string();
        assert!(of_another.contains("`key 3` has no certificate"), "{of_another}");
        let owners: Vec<String> = token.list().unwrap().into_iter().map(|key| key.owner).collect();
        assert_eq!(owners, ["alice@nec.example", "bob@nec.example", "carol@nec.example"]);
    });
}

#[test]
fn a_key_without_a_certificate_is_not_no_key() {
    inside("a_key_without_a_certificate_is_not_no_key", |bed| {
        let [alice, bob] = ["alice@nec.example", "bob@nec.example"]
            .map(|address| bed.person(address, P256, SIGN_AND_ENCRYPT));
        bed.token.import_key(&alice.key, &alice.address, "0a");
        bed.import(&bob, &bob.address, "0b");
        let token = Token::open(bed.config()).unwrap();
        let why = token.find(&alice.address).unwrap_err();
        assert!(matches!(why, StoreError::Unavailable { .. }), "{why:?}");
        let text = "the key `alice@nec.example` has no certificate with its id or label; put it";
        assert!(why.to_string().contains(text), "{why}");
        assert_eq!(token.check(), Err(why), "the administrator hears of it");
        // Others' are used and shown.
        signs(&only(token.find(&bob.address).unwrap()));
        let owners: Vec<String> = token.list().unwrap().into_iter().map(|key| key.owner).collect();
        assert_eq!(owners, [bob.address.as_str()]);
        assert!(token.find("nobody@nec.example").unwrap().is_empty());
        // Its certificate is in a file.
        let mut config = bed.config();
        config.keys = vec![Pkcs11Key {
            owner: alice.address.clone(),
            label: Some(alice.address.clone()),
            id: None,
            certificate: Some(alice.certificate.clone()),
        }];
        signs(&only(Token::open(config).unwrap().find(&alice.address).unwrap()));
        bed.token.import_certificate(&alice.certificate, &alice.address, "0a");
        signs(&only(token.find(&alice.address).unwrap()));
        assert_eq!(token.list().unwrap().len(), 2);
        assert!(token.check().is_ok());
    });
}

#[test]
fn two_keys_of_one_label_without_an_id_are_not_taken_for_each_other() {
    inside("two_keys_of_one_label_without_an_id_are_not_taken_for_each_other", |bed| {
        for (owner, kind, decrypting) in
            [("r@nec.example", RSA, "keyEncipherment"), ("p256@nec.example", P256, "keyAgreement")]
        {
            let decrypts = bed.person(owner, kind, decrypting);
            bed.import_without_id(&decrypts, owner);
            bed.import_without_id(&bed.person(owner, kind, "digitalSignature"), owner);
        }
        let token = Token::open(bed.config()).unwrap();
        for owner in ["r@nec.example", "p256@nec.example"] {
            each_does_its_own(&token.find(owner).unwrap());
        }
        // Found again after the token was away.
        let (mut remoting, token) = bed.open_behind_a_socket();
        let keys = token.find("r@nec.example").unwrap();
        remoting.kill();
        assert!(matches!(keys[0].secret.sign(RSA_SHA256, MESSAGE), Err(KeyError::Unavailable(_))));
        remoting.start();
        let signing = keys.iter().find(|key| key.certificate.may_sign()).unwrap();
        assert!(works_within(signing, RETURN_PATIENCE));
        each_does_its_own(&keys);
    });
}

#[test]
fn a_handle_does_not_become_that_of_another_key_with_its_name() {
    inside("a_handle_does_not_become_that_of_another_key_with_its_name", |bed| {
        for (owner, kind) in [("r@nec.example", RSA), ("p256@nec.example", P256)] {
            bed.import(&bed.person(owner, kind, SIGN_AND_ENCRYPT), owner, "01");
            let token = Token::open(bed.config()).unwrap();
            let key = only(token.find(owner).unwrap());
            signs(&key);
            assert_eq!(token.remove(owner), Ok(1));
            bed.import(&bed.person(owner, kind, SIGN_AND_ENCRYPT), owner, "01");
            let scheme = if kind == RSA { RSA_SHA256 } else { ECDSA_SHA256 };
            let signature = key.secret.sign(scheme, MESSAGE);
            assert!(matches!(signature, Err(KeyError::Unavailable(_))), "{owner}: {signature:?}");
            signs(&only(token.find(owner).unwrap()));
        }
    });
}

#[test]
fn a_handle_says_that_its_key_is_gone_from_the_token() {
    inside("a_handle_says_that_its_key_is_gone_from_the_token", |bed| {
        let [alice, bob] = ["alice@nec.example", "bob@nec.example"]
            .map(|address| bed.person(address, P256, SIGN_AND_ENCRYPT));
        bed.import(&alice, &alice.address, "0a");
        bed.import(&bob, &bob.address, "0b");
        let token = Token::open(bed.config()).unwrap();
        let [gone, stays] = [&alice, &bob].map(|person| only(token.find(&person.address).unwrap()));
        signs(&gone);
        assert!(!gone.secret.is_gone());
        assert_eq!(token.remove(&alice.address), Ok(1));
        // A module is not started anew at once after it was.
        let is_gone = process::holds_within(RETURN_PATIENCE, || {
            let signature = gone.secret.sign(ECDSA_SHA256, MESSAGE);
            assert!(matches!(signature, Err(KeyError::Unavailable(_))), "{signature:?}");
            gone.secret.is_gone()
        });
        assert!(is_gone);
        signs(&stays);
        assert!(!stays.secret.is_gone());
    });
}

#[test]
fn mail_waits_for_a_key_that_may_not_decrypt() {
    inside("mail_waits_for_a_key_that_may_not_decrypt", |bed| {
        for (owner, kind) in [("r@nec.example", RSA), ("p256@nec.example", P256)] {
            let person = bed.person(owner, kind, SIGN_AND_ENCRYPT);
            bed.import(&person, owner, "01");
            let token = Token::open(bed.config()).unwrap();
            assert_eq!(token.find(owner).unwrap().len(), 1);
            let forbidden =
                if kind == RSA { Attribute::Decrypt(false) } else { Attribute::Derive(false) };
            bed.change(owner, &[forbidden]);
            let key = only(token.find(owner).unwrap());
            signs(&key);
            for given in given_to(&key.certificate) {
                let plain = key.secret.unwrap(&given.request());
                assert!(matches!(plain, Err(KeyError::Unavailable(_))), "{owner}: {plain:?}");
            }
        }
    });
}

#[test]
fn a_key_that_the_token_cannot_decrypt_with_is_not_left_there() {
    inside("a_key_that_the_token_cannot_decrypt_with_is_not_left_there", |bed| {
        let before = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&before, "r@nec.example", "01");
        // SoftHSM does OAEP with SHA-1 only; for other digests it is given the bare key's work.
        bed.forbid_mechanisms("CKM_RSA_X_509,CKM_ECDH1_DERIVE");
        let token = Token::open(bed.config()).unwrap();
        for (kind, lacks) in [(RSA, "RSAES-OAEP with SHA-256"), (P256, "ECDH")] {
            let alice = bed.person("alice@nec.example", kind, SIGN_AND_ENCRYPT);
            let result = token.insert(&[new_key(&alice, &alice)]);
            let Err(StoreError::Input(why)) = result else { panic!("{kind:?}: {result:?}") };
            assert!(why.contains(lacks), "{why}");
        }
        let listed = bed.token.tool(&["--list-objects"]);
        assert!(!listed.contains("alice"), "{listed}");
        let alice = bed.person("alice@nec.example", RSA, "digitalSignature");
        assert_eq!(token.insert(&[new_key(&alice, &alice)]), Ok(()), "it signs, and needs no more");
        // One that is there already: mail that needs what the token lacks waits.
        let key = only(token.find("r@nec.example").unwrap());
        signs(&key);
        for given in given_to(&key.certificate) {
            let plain = key.secret.unwrap(&given.request());
            match given {
                Given::Oaep(Digest::Sha256, _) => {
                    assert!(matches!(plain, Err(KeyError::Unavailable(_))), "{plain:?}");
                }
                _ => assert_eq!(plain.unwrap().as_slice(), CONTENT_KEY),
            }
        }
    });
}

#[test]
fn a_trial_that_the_token_refuses_is_an_error_and_no_absent_key() {
    inside("a_trial_that_the_token_refuses_is_an_error_and_no_absent_key", |bed| {
        let owner = "p256@nec.example";
        bed.import(&bed.person(owner, P256, SIGN_AND_ENCRYPT), owner, "01");
        let token = Token::open(bed.config()).unwrap();
        signs(&only(token.find(owner).unwrap()));
        // Cannot sign, so that it is tried by agreeing on a key.
        bed.change(owner, &[Attribute::Sign(false)]);
        assert_eq!(token.find(owner).unwrap().len(), 1);
        bed.change(owner, &[Attribute::Derive(false)]);
        let found = token.find(owner);
        assert!(matches!(found, Err(StoreError::Unavailable { .. })), "{found:?}");
    });
}

#[test]
fn a_key_is_taken_in_used_and_destroyed() {
    inside("a_key_is_taken_in_used_and_destroyed", |bed| {
        let token = Token::open(bed.config()).unwrap();
        let kinds = [RSA, P256, P384, ED25519_KEY];
        for (number, kind) in kinds.into_iter().enumerate() {
            let owner = format!("n{number}@nec.example");
            let person = bed.person(&owner, kind, SIGN_AND_ENCRYPT);
            let new = new_key(&person, &person);
            assert_eq!(token.insert(&[new]), Ok(()), "{kind:?}");
            let key = only(token.find(&owner).unwrap());
            assert_eq!(key.certificate.der(), pem_body(&person.certificate));
            match kind {
                RSA => decrypts_rsa(&key),
                ED25519_KEY => {
                    let signature = key.secret.sign(SignatureScheme::Ed25519, MESSAGE).unwrap();
                    let public = key.certificate.public_key_bytes();
                    UnparsedPublicKey::new(&ED25519, public).verify(MESSAGE, &signature).unwrap();
                }
                P256 => signs(&key),
                _ => {}
            }
            let again = token.insert(&[new_key(&person, &person)]);
            assert!(matches!(again, Err(StoreError::Exists(_))), "{again:?}");
        }
        let secrets = bed.secrets_that_can_be_read();
        assert_eq!(secrets, vec![Vec::<u8>::new(); kinds.len()], "secrets leave the token");
        assert_eq!(token.remove("n0@nec.example"), Ok(1));
        assert!(token.find("n0@nec.example").unwrap().is_empty());
        assert_eq!(token.remove("n0@nec.example"), Ok(0));
        let listed = bed.token.tool(&["--list-objects"]);
        assert!(!listed.contains("n0@nec.example"), "{listed}");
        assert!(listed.contains("n1@nec.example"), "{listed}");
    });
}

#[test]
fn issuers_are_kept_beside_the_key_and_destroyed_with_it() {
    inside("issuers_are_kept_beside_the_key_and_destroyed_with_it", |bed| {
        let root = bed.person("root", P256, "keyCertSign");
        let issuer = bed.issued("issuer", &root, "CA:TRUE");
        let alice = bed.issued("alice@nec.example", &issuer, "CA:FALSE");
        let mut new = new_key(&alice, &alice);
        let issuer = Arc::new(Certificate::from_der(&pem_body(&issuer.certificate)).unwrap());
        new.chain = vec![Arc::clone(&issuer)];
        let token = Token::open(bed.config()).unwrap();
        token.insert(&[new]).unwrap();
        let key = only(token.find("alice@nec.example").unwrap());
        assert_eq!(key.certificate.der(), pem_body(&alice.certificate));
        assert_eq!(key.chain, [issuer]);
        signs(&key);
        let certificates = |bed: &Bed| {
            bed.token
                .tool(&["--list-objects", "--type", "cert"])
                .matches("Certificate Object")
                .count()
        };
        assert_eq!(certificates(bed), 2);
        assert_eq!(token.remove("alice@nec.example"), Ok(1));
        assert_eq!(certificates(bed), 0);
    });
}

#[test]
fn a_key_for_one_purpose_does_nothing_else() {
    inside("a_key_for_one_purpose_does_nothing_else", |bed| {
        let token = Token::open(bed.config()).unwrap();
        for (owner, kind, usage, purpose) in [
            ("s@nec.example", RSA, "digitalSignature", KeyPurpose::Sign),
            ("e@nec.example", RSA, "keyEncipherment", KeyPurpose::Encrypt),
            ("a@nec.example", P256, "keyAgreement", KeyPurpose::Encrypt),
        ] {
            let person = bed.person(owner, kind, usage);
            let new = new_key(&person, &person);
            assert_eq!(new.purpose, purpose);
            token.insert(&[new]).unwrap();
            let key = only(token.find(owner).unwrap());
            let scheme = if kind == RSA { RSA_SHA256 } else { ECDSA_SHA256 };
            let signature = key.secret.sign(scheme, MESSAGE);
            assert_eq!(signature.is_ok(), purpose == KeyPurpose::Sign, "{owner}");
            if kind == RSA {
                let encrypted_key = encrypted_pkcs1(&key.certificate);
                let request = KeyTransport::RsaPkcs1 { encrypted_key: &encrypted_key };
                let plain = key.secret.unwrap(&request);
                assert_eq!(plain.is_ok(), purpose == KeyPurpose::Encrypt, "{owner}");
            }
        }
    });
}

#[test]
fn a_key_that_is_not_its_certificates_is_not_left_in_the_token() {
    inside("a_key_that_is_not_its_certificates_is_not_left_in_the_token", |bed| {
        let token = Token::open(bed.config()).unwrap();
        for kind in [RSA, P256] {
            let alice = bed.person("alice@nec.example", kind, SIGN_AND_ENCRYPT);
            let bob = bed.person("bob@nec.example", kind, SIGN_AND_ENCRYPT);
            let result = token.insert(&[new_key(&alice, &bob)]);
            assert!(matches!(result, Err(StoreError::Input(_))), "{result:?}");
        }
        let listed = bed.token.tool(&["--list-objects"]);
        assert!(!listed.contains("nec.example"), "{listed}");
        assert!(token.list().unwrap().is_empty());
    });
}

#[test]
fn keys_beyond_a_bound_are_told_and_no_absent_keys() {
    inside("keys_beyond_a_bound_are_told_and_no_absent_keys", |bed| {
        const MOST: usize = 1024;
        let person = bed.person("p256@nec.example", P256, SIGN_AND_ENCRYPT);
        bed.import(&person, &person.address, "01");
        let token = Token::open(bed.config()).unwrap();
        signs(&only(token.find(&person.address).unwrap()));
        let count = || token.find(&person.address).map(|found| found.len());
        bed.copy_key(&person.address, 2..=100);
        assert_eq!(count(), Ok(100));
        let last = token.find(&person.address).unwrap().pop().unwrap();
        bed.copy_key(&person.address, 101..=MOST + 1);
        let why = count().unwrap_err().to_string();
        assert!(why.contains("more than 1024") && why.contains(&person.address), "{why}");
        assert!(matches!(count(), Err(StoreError::Unavailable { .. })), "mail waits");
        // A handle that has its object needs no search.
        signs(&last);
        assert!(token.list().unwrap().is_empty(), "one owner's keys hide no others");
        assert_eq!(token.remove(&person.address), Ok(MOST as u64 + 1));
        assert_eq!(count(), Ok(0));
    });
}

#[test]
fn eight_threads_sign_at_once() {
    inside("eight_threads_sign_at_once", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        let token = Token::open(bed.config()).unwrap();
        let key = only(token.find("r@nec.example").unwrap());
        let verified: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..8_u8)
                .map(|thread| {
                    let key = &key;
                    scope.spawn(move || {
                        (0..50_u8).filter(|round| signs_this(key, &[thread, *round])).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(verified, 8 * 50);
    });
}

#[test]
fn a_wrong_pin_is_tried_once_and_a_right_one_when_it_is_there() {
    inside("a_wrong_pin_is_tried_once_and_a_right_one_when_it_is_there", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        bed.token.write_pin("00000000");
        // Writes down every call.
        let mut config = bed.config();
        config.module = bed.spy();
        let token = Token::open(config.clone()).unwrap();
        for round in 0..5 {
            let error = token.find("r@nec.example").unwrap_err();
            assert!(matches!(error, StoreError::Secret { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("does not try it again"), "{round}: {text}");
            assert!(!text.contains("00000000"), "{text}");
        }
        let another = Token::open(config).unwrap();
        assert!(another.check().is_err());
        assert_eq!(bed.calls("C_Login"), 1, "tries with the wrong PIN");
        bed.token.write_pin(PIN);
        signs(&only(token.find("r@nec.example").unwrap()));
        assert_eq!(bed.calls("C_Login"), 2);
    });
}

#[test]
fn a_wrong_pin_of_another_process_is_not_followed_by_a_try_of_this_one() {
    inside("a_wrong_pin_of_another_process_is_not_followed_by_a_try_of_this_one", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(bed.token.module()).envs(bed.token.environment());
        command.args(["--token-label", TOKEN, "--login", "--pin", "00000000", "--list-objects"]);
        assert!(!process::run(&mut command, b"").ok(), "a wrong PIN is refused");
        let mut config = bed.config();
        config.module = bed.spy();
        let token = Token::open(config).unwrap();
        let text = token.find("r@nec.example").unwrap_err().to_string();
        assert!(text.contains("log in once with the vendor's tool"), "{text}");
        assert_eq!(bed.calls("C_Login"), 0);
        // Logs in with the right one.
        bed.token.tool(&["--list-objects"]);
        signs(&only(token.find("r@nec.example").unwrap()));
        assert_eq!(bed.calls("C_Login"), 1);
    });
}

#[test]
fn a_key_of_another_label_than_was_asked_for_is_nobodys_and_is_not_destroyed() {
    inside("a_key_of_another_label_than_was_asked_for_is_nobodys_and_is_not_destroyed", |bed| {
        let [alice, bob] = ["alice@nec.example", "bob@nec.example"];
        let person = bed.person(alice, RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, alice, "01");
        let config = Pkcs11Config { module: bed.labels_not_minded(), ..bed.config() };
        let token = Token::open(config).unwrap();
        signs(&only(token.find(alice).unwrap()));
        for error in [token.find(bob).unwrap_err(), token.remove(bob).unwrap_err()] {
            assert!(matches!(error, StoreError::Unavailable { .. }), "mail waits: {error}");
            let text = error.to_string();
            assert!(text.contains("`alice@nec.example` for label `bob@nec.example`"), "{text}");
        }
        signs(&only(token.find(alice).unwrap()));
    });
}

#[test]
fn a_missing_token_or_module_is_named() {
    inside("a_missing_token_or_module_is_named", |bed| {
        let mut config = bed.config();
        config.token = "another".to_owned();
        let error = Token::open(config.clone()).unwrap().check().unwrap_err().to_string();
        assert!(error.contains("no token `another`"), "{error}");
        assert!(error.contains(&format!("tokens there: `{TOKEN}`")), "{error}");
        config.module = bed.directory.join("missing.so");
        let error = Token::open(config.clone()).unwrap_err().to_string();
        assert!(error.contains("missing.so"), "{error}");
        config.label = "no placeholder".to_owned();
        assert!(matches!(Token::open(config), Err(StoreError::Input(_))));
    });
}
