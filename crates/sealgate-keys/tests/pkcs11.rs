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

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{self, EphemeralPrivateKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA512_MGF1SHA512, OaepAlgorithm,
    OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::SessionState;
use sealgate_core::keys::{
    Certificate, Digest, KeyError, KeyTransport, SecretKey, SignatureScheme, SoftwareKey,
};
use sealgate_keys::StoreError;
use sealgate_keys::secret_key_store::pkcs11::{Pkcs11Config, Pkcs11Key, Token};
use sealgate_keys::secret_key_store::{KeyPurpose, NewSecretKey, RemoteKey, RemoteStore};
use sealgate_keys::secret_source::SecretSource;
use sealgate_testkit::pki::pem_body;
use sealgate_testkit::process;
use sealgate_testkit::softhsm::{PIN, Remoting, SoftHsm, TOKEN};
use zeroize::Zeroizing;

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
        assert!(token.find("dave@nec.example").unwrap().is_empty(), "a certificate of another key");
        let owners: Vec<String> = token.list().unwrap().into_iter().map(|key| key.owner).collect();
        assert_eq!(owners, ["alice@nec.example", "bob@nec.example", "carol@nec.example"]);
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
        let mut remoting = bed.token.serve();
        let mut config = bed.config();
        config.module = remoting.module();
        let token = Token::open(config).unwrap();
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
fn eight_threads_sign_at_once() {
    inside("eight_threads_sign_at_once", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        let token = Token::open(bed.config()).unwrap();
        let key = only(token.find("r@nec.example").unwrap());
        let verified: usize = std::thread::scope(|scope| {
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
        assert_eq!(bed.logins(), 1, "tries with the wrong PIN");
        bed.token.write_pin(PIN);
        signs(&only(token.find("r@nec.example").unwrap()));
        assert_eq!(bed.logins(), 2);
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
        assert_eq!(bed.logins(), 0);
        // Logs in with the right one.
        bed.token.tool(&["--list-objects"]);
        signs(&only(token.find("r@nec.example").unwrap()));
        assert_eq!(bed.logins(), 1);
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

#[test]
fn a_token_pulled_and_put_back_works_again_with_the_same_handle() {
    inside("a_token_pulled_and_put_back_works_again_with_the_same_handle", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        let token = Token::open(bed.config()).unwrap();
        let key = only(token.find("r@nec.example").unwrap());
        signs(&key);
        bed.token.set_present(false);
        // "Away", which lets mail wait, and never "no".
        let away = key.secret.sign(RSA_SHA256, MESSAGE);
        assert!(matches!(away, Err(KeyError::Unavailable(_))), "{away:?}");
        bed.token.set_present(true);
        assert!(works_within(&key, RETURN_PATIENCE));
        assert_eq!(token.find("r@nec.example").unwrap().len(), 1);
    });
}

#[test]
fn a_token_behind_a_socket_that_breaks_comes_back_without_a_restart() {
    inside("a_token_behind_a_socket_that_breaks_comes_back_without_a_restart", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        let mut remoting = bed.token.serve();
        let mut config = bed.config();
        config.module = remoting.module();
        let token = Token::open(config).unwrap();
        let key = only(token.find("r@nec.example").unwrap());
        signs(&key);
        decrypts_rsa(&key);
        for round in 0..2 {
            remoting.kill();
            let started = Instant::now();
            let result = key.secret.sign(RSA_SHA256, MESSAGE);
            assert!(matches!(result, Err(KeyError::Unavailable(_))), "{round}: {result:?}");
            let encrypted_key = encrypted_pkcs1(&key.certificate);
            let request = KeyTransport::RsaPkcs1 { encrypted_key: &encrypted_key };
            let result = key.secret.unwrap(&request);
            assert!(matches!(result, Err(KeyError::Unavailable(_))), "{round}: {result:?}");
            let found = token.find("r@nec.example");
            assert!(matches!(found, Err(StoreError::Unavailable { .. })), "{round}: {found:?}");
            assert!(started.elapsed() < Duration::from_secs(10), "answers while away are quick");
            remoting.start();
            assert!(works_within(&key, RETURN_PATIENCE), "{round}");
            assert_eq!(token.find("r@nec.example").unwrap().len(), 1);
        }
    });
}

#[test]
fn a_token_that_hangs_holds_nobody_for_long() {
    inside("a_token_that_hangs_holds_nobody_for_long", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        let remoting = bed.token.serve();
        let mut config = bed.config();
        config.module = remoting.module();
        let token = Token::open(config).unwrap();
        let key = only(token.find("r@nec.example").unwrap());
        signs(&key);
        remoting.signal("STOP");
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let result = key.secret.sign(RSA_SHA256, MESSAGE);
                    assert!(matches!(result, Err(KeyError::Unavailable(_))), "{result:?}");
                });
            }
        });
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        assert_eq!(threads_of_tokens(), 32, "no more threads than sessions");
        remoting.signal("CONT");
        assert!(works_within(&key, RETURN_PATIENCE));
    });
}

/// A token and where its files are.
struct Bed {
    directory: PathBuf,
    token: SoftHsm,
}

/// Somebody's key and self-signed certificate.
struct Person {
    address: String,
    key: PathBuf,
    certificate: PathBuf,
}

impl Bed {
    fn config(&self) -> Pkcs11Config {
        Pkcs11Config {
            module: self.token.module(),
            token: TOKEN.to_owned(),
            pin: SecretSource::File(self.token.pin_file()),
            label: "{address}".to_owned(),
            keys: Vec::new(),
        }
    }

    fn person(&self, address: &str, kind: &[&str], usage: &str) -> Person {
        let [key, certificate] =
            ["key", "pem"].map(|end| self.directory.join(format!("{address}.{end}")));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "30", "-newkey"]).args(kind);
        command.args(["-subj", &format!("/CN={address}"), "-addext", &format!("keyUsage={usage}")]);
        command.args(["-addext", &format!("subjectAltName=email:{address}")]);
        command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        process::run(&mut command, b"").expect_ok("openssl req");
        Person { address: address.to_owned(), key, certificate }
    }

    /// Somebody with a P-256 key and a certificate by an issuer.
    fn issued(&self, name: &str, issuer: &Person, constraint: &str) -> Person {
        let person = self.person(name, P256, SIGN_AND_ENCRYPT);
        let request = self.directory.join("request");
        let extensions = self.directory.join("extensions");
        fs::write(&extensions, format!("basicConstraints=critical,{constraint}\n")).unwrap();
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-subj", &format!("/CN={name}"), "-key"]).arg(&person.key);
        process::run(command.arg("-out").arg(&request), b"").expect_ok("openssl req");
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "30", "-in"]).arg(&request);
        command.arg("-CA").arg(&issuer.certificate).arg("-CAkey").arg(&issuer.key);
        command.args(["-CAcreateserial", "-extfile"]).arg(&extensions);
        process::run(command.arg("-out").arg(&person.certificate), b"").expect_ok("openssl x509");
        person
    }

    fn import(&self, person: &Person, label: &str, id: &str) {
        self.token.import_key(&person.key, label, id);
        self.token.import_certificate(&person.certificate, label, id);
    }

    /// As some vendors' tools do.
    fn import_without_id(&self, person: &Person, label: &str) {
        for (pem, kind) in [(&person.key, "privkey"), (&person.certificate, "cert")] {
            let der = self.directory.join("object.der");
            fs::write(&der, pem_body(pem)).unwrap();
            let mut arguments = vec!["--write-object", der.to_str().unwrap(), "--type", kind];
            arguments.extend(["--label", label]);
            if kind == "privkey" {
                arguments.extend([
                    "--sensitive",
                    "--usage-sign",
                    "--usage-decrypt",
                    "--usage-derive",
                ]);
            }
            self.token.tool(&arguments);
        }
    }

    /// Takes mechanisms from the token; before the module is loaded.
    fn forbid_mechanisms(&self, names: &str) {
        let path = self.directory.join("softhsm2.conf");
        let configuration = fs::read_to_string(&path).unwrap();
        // SoftHSM does not see the first of those names.
        let line = format!("slots.mechanisms = -CKM_DES_ECB,{names}\n");
        fs::write(&path, format!("{configuration}{line}")).unwrap();
    }

    /// Changes what the key with a label may do.
    fn change(&self, label: &str, attributes: &[Attribute]) {
        let module = Pkcs11::new(self.token.module()).unwrap();
        let slots = module.get_slots_with_initialized_token().unwrap();
        let session = module.open_rw_session(slots[0]).unwrap();
        let label = Attribute::Label(label.as_bytes().to_vec());
        let named = [Attribute::Class(ObjectClass::PRIVATE_KEY), label];
        let keys = session.find_objects(&named).unwrap();
        assert_eq!(keys.len(), 1);
        session.update_attributes(keys[0], attributes).unwrap();
    }

    /// A module that logs calls and passes them on.
    fn spy(&self) -> PathBuf {
        PathBuf::from(format!("/usr/lib/{}-linux-gnu/pkcs11/pkcs11-spy.so", std::env::consts::ARCH))
    }

    /// Of each secret key in the token what a program that is logged in gets of its secret.
    fn secrets_that_can_be_read(&self) -> Vec<Vec<u8>> {
        let module = Pkcs11::new(self.token.module()).unwrap();
        let slots = module.get_slots_with_initialized_token().unwrap();
        let session = module.open_ro_session(slots[0]).unwrap();
        assert_eq!(session.get_session_info().unwrap().session_state(), SessionState::RoUser);
        let keys = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap();
        keys.into_iter()
            .map(|key| {
                let wanted =
                    [AttributeType::PrivateExponent, AttributeType::Prime1, AttributeType::Value];
                let read = session.get_attributes(key, &wanted).unwrap();
                read.into_iter()
                    .flat_map(|attribute| format!("{attribute:?}").into_bytes())
                    .collect()
            })
            .collect()
    }

    fn logins(&self) -> usize {
        fs::read_to_string(self.directory.join(SPY_LOG)).unwrap().matches("C_Login").count()
    }
}

/// Runs a test's body in a process of its own.
fn inside(test: &str, body: impl Fn(&Bed)) {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let directory = PathBuf::from(directory);
        let token = SoftHsm::at(&directory);
        return body(&Bed { directory, token });
    }
    let directory = process::open_temp_dir("pkcs11");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]);
    command.env(DIRECTORY, directory.path());
    command.envs(SoftHsm::environment_at(directory.path()));
    command.envs(Remoting::environment_at(directory.path()));
    command.env("PKCS11SPY", "/usr/lib/softhsm/libsofthsm2.so");
    command.env("PKCS11SPY_OUTPUT", directory.path().join(SPY_LOG));
    let ran = process::run(&mut command, b"");
    let stdout = String::from_utf8_lossy(&ran.stdout).into_owned();
    // Not the exit status: the module's destructors may run, and rarely crash, while a thread of ours still waits in it.
    let passed = stdout.contains("test result: ok. 1 passed");
    assert!(passed, "{stdout}\n{}\nexit status {}", ran.stderr, ran.code);
}

/// How many threads of this process are a token's.
fn threads_of_tokens() -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap();
    names
        .filter(|task| {
            let name = fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
            name.is_ok_and(|name| name == "pkcs11\n")
        })
        .count()
}

fn new_key(person: &Person, certified: &Person) -> NewSecretKey {
    let certificate = Certificate::from_der(&pem_body(&certified.certificate)).unwrap();
    NewSecretKey {
        owner: person.address.clone(),
        purpose: KeyPurpose::of(&certificate).unwrap(),
        pkcs8: Zeroizing::new(pem_body(&person.key)),
        certificate: Arc::new(certificate),
        chain: Vec::new(),
    }
}

fn only(keys: Vec<RemoteKey>) -> RemoteKey {
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.into_iter().next().unwrap()
}

fn signs(key: &RemoteKey) {
    assert!(signs_this(key, MESSAGE), "{:?}", key.certificate);
}

/// With RSA or P-256.
fn signs_this(key: &RemoteKey, message: &[u8]) -> bool {
    let public = key.certificate.public_key_bytes();
    let (scheme, algorithm): (_, &'static dyn VerificationAlgorithm) = if public.len() == 65 {
        (ECDSA_SHA256, &ECDSA_P256_SHA256_ASN1)
    } else {
        (RSA_SHA256, &RSA_PKCS1_2048_8192_SHA256)
    };
    let signature = key.secret.sign(scheme, message);
    signature.is_ok_and(|signature| {
        UnparsedPublicKey::new(algorithm, public).verify(message, &signature).is_ok()
    })
}

fn works_within(key: &RemoteKey, patience: Duration) -> bool {
    process::holds_within(patience, || signs_this(key, MESSAGE))
}

fn encrypted_pkcs1(certificate: &Certificate) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(certificate.public_key_info_der()).unwrap();
    let key = Pkcs1PublicEncryptingKey::new(key).unwrap();
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(CONTENT_KEY, &mut out).unwrap();
    out
}

fn encrypted_oaep(certificate: &Certificate, algorithm: &'static OaepAlgorithm) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(certificate.public_key_info_der()).unwrap();
    let key = OaepPublicEncryptingKey::new(key).unwrap();
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(algorithm, CONTENT_KEY, &mut out, None).unwrap();
    out
}

/// What a key is given to decrypt.
enum Given {
    Ecdh(Vec<u8>),
    Oaep(Digest, Vec<u8>),
    Pkcs1(Vec<u8>),
}

impl Given {
    fn request(&self) -> KeyTransport<'_> {
        match self {
            Self::Ecdh(ephemeral) => KeyTransport::Ecdh { ephemeral },
            Self::Oaep(digest, encrypted_key) => {
                KeyTransport::RsaOaep { digest: *digest, encrypted_key }
            }
            Self::Pkcs1(encrypted_key) => KeyTransport::RsaPkcs1 { encrypted_key },
        }
    }
}

/// All that a certificate of RSA or P-256 can be given.
fn given_to(certificate: &Certificate) -> Vec<Given> {
    if certificate.public_key_bytes().len() == 65 {
        let theirs = EphemeralPrivateKey::generate(&agreement::ECDH_P256, &SystemRandom::new());
        return vec![Given::Ecdh(theirs.unwrap().compute_public_key().unwrap().as_ref().to_vec())];
    }
    vec![
        Given::Pkcs1(encrypted_pkcs1(certificate)),
        Given::Oaep(Digest::Sha1, encrypted_oaep(certificate, &OAEP_SHA1_MGF1SHA1)),
        Given::Oaep(Digest::Sha256, encrypted_oaep(certificate, &OAEP_SHA256_MGF1SHA256)),
    ]
}

/// One signs, the other decrypts, each as its certificate says.
fn each_does_its_own(keys: &[RemoteKey]) {
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        if key.certificate.may_sign() {
            signs(key);
        } else if key.certificate.public_key_bytes().len() == 65 {
            agrees(key);
        } else {
            decrypts_rsa(key);
        }
    }
    assert_eq!(keys.iter().filter(|key| key.certificate.may_sign()).count(), 1);
}

/// On the same secret as its correspondent.
fn agrees(key: &RemoteKey) {
    let algorithm = &agreement::ECDH_P256;
    let theirs = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).unwrap();
    let ephemeral = theirs.compute_public_key().unwrap();
    let request = KeyTransport::Ecdh { ephemeral: ephemeral.as_ref() };
    let agreed = key.secret.unwrap(&request).unwrap();
    let public = agreement::UnparsedPublicKey::new(algorithm, key.certificate.public_key_bytes());
    let expected = agreement::agree_ephemeral(theirs, public, (), |z| Ok(z.to_vec())).unwrap();
    assert_eq!(agreed.as_slice(), expected);
}

/// All paddings, and none of them where the ciphertext is another's.
fn decrypts_rsa(key: &RemoteKey) {
    let encrypted_key = encrypted_pkcs1(&key.certificate);
    let request = KeyTransport::RsaPkcs1 { encrypted_key: &encrypted_key };
    assert_eq!(key.secret.unwrap(&request).unwrap().as_slice(), CONTENT_KEY);
    for (digest, algorithm) in [
        (Digest::Sha1, &OAEP_SHA1_MGF1SHA1),
        (Digest::Sha256, &OAEP_SHA256_MGF1SHA256),
        (Digest::Sha512, &OAEP_SHA512_MGF1SHA512),
    ] {
        let wrong = encrypted_pkcs1(&key.certificate);
        let encrypted_key = encrypted_oaep(&key.certificate, algorithm);
        for _ in 0..2 {
            let request = KeyTransport::RsaOaep { digest, encrypted_key: &encrypted_key };
            assert_eq!(key.secret.unwrap(&request).unwrap().as_slice(), CONTENT_KEY, "{digest:?}");
            let request = KeyTransport::RsaOaep { digest, encrypted_key: &wrong };
            assert_eq!(key.secret.unwrap(&request), Err(KeyError::Failed), "{digest:?}");
        }
        let request = KeyTransport::RsaPkcs1 { encrypted_key: &encrypted_key };
        assert_eq!(key.secret.unwrap(&request), Err(KeyError::Failed), "{digest:?} as PKCS #1");
    }
    for length in [0, 1, 255, 257] {
        let request = KeyTransport::RsaPkcs1 { encrypted_key: &vec![1; length] };
        assert_eq!(key.secret.unwrap(&request), Err(KeyError::Failed), "{length} octets");
    }
}

const RSA: &[&str] = &["rsa:2048"];
const P256: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
const ED25519_KEY: &[&str] = &["ed25519"];
const SIGN_AND_ENCRYPT: &str = "digitalSignature,keyEncipherment,keyAgreement";

const RSA_SHA256: SignatureScheme = SignatureScheme::RsaPkcs1(Digest::Sha256);
const RSA_SHA512: SignatureScheme = SignatureScheme::RsaPkcs1(Digest::Sha512);
const PSS_SHA256: SignatureScheme = SignatureScheme::RsaPss(Digest::Sha256);
const ECDSA_SHA256: SignatureScheme = SignatureScheme::Ecdsa(Digest::Sha256);
const ECDSA_SHA384: SignatureScheme = SignatureScheme::Ecdsa(Digest::Sha384);

const MESSAGE: &[u8] = b"Content-Type: text/plain\r\n\r\nto be signed\r\n";
const CONTENT_KEY: &[u8] = &[0x2a; 32];

/// Issue 3: mail flows again within this time after a store's return.
const RETURN_PATIENCE: Duration = Duration::from_secs(5);

const DIRECTORY: &str = "SEALGATE_TEST_TOKEN_DIRECTORY";
const SPY_LOG: &str = "spy.log";
