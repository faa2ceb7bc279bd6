use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use sealgate_core::address::Domain;

use super::*;
use crate::administration::establish;
use crate::database::{DatabaseUrl, Statement};
use crate::secret_key_store::SecretKeyStoreKind;
use crate::secret_source::SecretSource;

/// A key ring in a folder of its own.
async fn ring() -> (tempfile::TempDir, StoresConfig, KeyRing) {
    let directory = tempfile::tempdir().unwrap();
    let key: PathBuf = directory.path().join("master.key");
    let config = StoresConfig {
        database: DatabaseUrl::Sqlite(directory.path().join("sealgate.db")),
        master_key: SecretSource::File(key.clone()),
        ..StoresConfig::default()
    };
    establish(&key, &config.database, &Domain::parse("nec.example").unwrap()).await.unwrap();
    let ring = KeyRing::open(&config).await.unwrap();
    (directory, config, ring)
}

/// PKCS#8, its certificate, and the intermediate authority that issued it.
fn person(address: &str) -> (Vec<u8>, Arc<Certificate>, Arc<Certificate>) {
    let der = |der: &[u8]| Arc::new(Certificate::from_der(der).unwrap());
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.distinguished_name.push(rcgen::DnType::CommonName, "root");
    let root = Issuer::new(root, root_key);
    let mut between = CertificateParams::default();
    between.distinguished_name.push(rcgen::DnType::CommonName, "between");
    between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let between_key = KeyPair::generate().unwrap();
    let between_certificate = between.signed_by(&between_key, &root).unwrap();
    let between = Issuer::new(between, between_key);
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::Rfc822Name(address.try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &between).unwrap();
    (key.serialize_der(), der(leaf.der()), der(between_certificate.der()))
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_key_comes_in_is_found_and_used_and_goes() {
    let (_directory, _, ring) = ring().await;
    let (pkcs8, leaf, between) = person("alice@nec.example");
    let alice = owner("Alice@nec.example");
    let refused = ring.insert(&alice, &pkcs8, &[Arc::clone(&between)]).await.unwrap_err();
    assert!(refused.to_string().contains("without its certificate"), "{refused}");
    let all = [Arc::clone(&between), Arc::clone(&leaf)];
    let refused = ring.insert(&owner("bob@nec.example"), &pkcs8, &all).await.unwrap_err();
    assert!(refused.to_string().contains("alice@nec.example"), "{refused}");
    let entry = ring.insert(&alice, &pkcs8, &all).await.unwrap();
    assert_eq!((entry.owner.as_str(), entry.purpose), ("alice@nec.example", KeyPurpose::Sign));
    assert_eq!(entry.chain, [Arc::clone(&between)]);
    assert!(matches!(ring.insert(&alice, &pkcs8, &all).await, Err(StoreError::Exists(_))));

    let key = ring.key(&entry.id).await.unwrap().unwrap();
    let scheme = sealgate_core::keys::SignatureScheme::Ecdsa(sealgate_core::keys::Digest::Sha256);
    assert!(key.secret.sign(scheme, b"x").is_ok());
    assert_eq!(*ring.pkcs8(&entry.id).await.unwrap().unwrap(), pkcs8);
    assert_eq!(ring.of_owner("alice@nec.example").await.unwrap().len(), 1);
    assert!(ring.of_owner("bob@nec.example").await.unwrap().is_empty());

    assert!(ring.remove(&entry.id).await.unwrap());
    assert!(!ring.remove(&entry.id).await.unwrap());
    assert!(ring.key(&entry.id).await.unwrap().is_none());
    assert!(ring.entry(&entry.id).await.unwrap().is_none());
}

/// Until the configuration names the other store, or keys come in here again, whoever asks for them waits.
#[tokio::test]
async fn whose_keys_were_moved_elsewhere_is_nobody_without_a_key() {
    let (_directory, _, ring) = ring().await;
    let (pkcs8, leaf, _) = person("alice@nec.example");
    let alice = owner("alice@nec.example");
    let entry = ring.insert(&alice, &pkcs8, &[Arc::clone(&leaf)]).await.unwrap();
    for purpose in [KeyPurpose::Sign, KeyPurpose::Encrypt] {
        let (pkcs8, certificate) = (pkcs8.clone().into(), Arc::clone(&leaf));
        let owner = alice.lookup_key();
        let key = NewSecretKey { owner, purpose, pkcs8, certificate, chain: Vec::new() };
        let to = SecretKeyStoreKind::Pkcs11;
        embedded::leave(&ring.database, &entry.id, &key, to, unix_now()).await.unwrap();
        let away = ring.of_owner("alice@nec.example").await.unwrap_err();
        assert!(matches!(away, StoreError::Unavailable { .. }), "{purpose:?}: {away}");
        assert!(away.to_string().contains("store = \"pkcs11\""), "{purpose:?}: {away}");
    }
    assert!(ring.of_owner("bob@nec.example").await.unwrap().is_empty());
    // A new key of hers may come, which does not say that she has none for what the other was for.
    let (pkcs8, leaf, _) = person("alice@nec.example");
    ring.insert(&alice, &pkcs8, &[leaf]).await.unwrap();
    assert!(ring.of_owner("alice@nec.example").await.is_err(), "what decrypts is elsewhere still");
    let forget = Statement::new("DELETE FROM moved_keys");
    ring.database.execute(forget).await.unwrap();
    assert_eq!(ring.of_owner("alice@nec.example").await.unwrap().len(), 1);
}

/// A revoked key is not moved; with what stayed, the owner is still somebody whose keys are elsewhere.
#[tokio::test]
async fn a_revoked_key_that_stayed_does_not_hide_that_the_others_were_moved() {
    let (_directory, _, ring) = ring().await;
    let alice = owner("alice@nec.example");
    let (old, old_leaf, _) = person("alice@nec.example");
    let (new, new_leaf, _) = person("alice@nec.example");
    let stays = ring.insert(&alice, &old, &[old_leaf]).await.unwrap();
    let goes = ring.insert(&alice, &new, &[Arc::clone(&new_leaf)]).await.unwrap();
    assert!(ring.revoke(&stays.id, KeyState::Deactivated).await.unwrap());
    assert_eq!(ring.of_owner("alice@nec.example").await.unwrap().len(), 2, "not moved yet");
    let key = NewSecretKey {
        owner: alice.lookup_key(),
        purpose: KeyPurpose::Sign,
        pkcs8: new.clone().into(),
        certificate: Arc::clone(&new_leaf),
        chain: Vec::new(),
    };
    let to = SecretKeyStoreKind::Pkcs11;
    embedded::leave(&ring.database, &goes.id, &key, to, unix_now()).await.unwrap();
    let away = ring.of_owner("alice@nec.example").await.unwrap_err();
    assert!(away.to_string().contains("store = \"pkcs11\""), "{away}");
    // What is named by its row is there, as ever: whoever began with it ends with it.
    assert!(ring.key(&stays.id).await.unwrap().is_some());
    // The key comes back.
    ring.insert(&alice, &new, &[new_leaf]).await.unwrap();
    assert_eq!(ring.of_owner("alice@nec.example").await.unwrap().len(), 2);
}

/// Beyond that none of them would be found any more.
#[tokio::test]
async fn an_owner_has_no_more_keys_than_can_be_looked_at() {
    let (_directory, _, ring) = ring().await;
    let alice = owner("alice@nec.example");
    let new = |(pkcs8, certificate, _): (Vec<u8>, Arc<Certificate>, _)| NewSecretKey {
        owner: alice.lookup_key(),
        purpose: KeyPurpose::Sign,
        pkcs8: pkcs8.into(),
        certificate,
        chain: Vec::new(),
    };
    let keys: Vec<_> = (0..OWNER_KEYS_MAX).map(|_| new(person("alice@nec.example"))).collect();
    let insert = |master_key: Arc<_>| {
        let (database, keys) = (&ring.database, &keys);
        async move { embedded::insert(database, &master_key, keys, unix_now(), Held::Refuse).await }
    };
    ring.master_key.used(&ring.database, insert).await.unwrap();
    let count = ring.of_owner("alice@nec.example").await.unwrap().len();
    assert_eq!(i64::try_from(count), Ok(OWNER_KEYS_MAX));
    let (pkcs8, leaf, _) = person("alice@nec.example");
    let refused = ring.insert(&alice, &pkcs8, &[leaf]).await.unwrap_err().to_string();
    assert!(refused.contains("remove old ones"), "{refused}");
    assert_eq!(ring.of_owner("alice@nec.example").await.unwrap().len(), count);
}

#[tokio::test]
async fn certificates_are_found_by_their_digest_for_whose_they_are() {
    let (_directory, config, ring) = ring().await;
    let (pkcs8, leaf, between) = person("alice@nec.example");
    let all = [Arc::clone(&between), Arc::clone(&leaf)];
    ring.insert(&owner("alice@nec.example"), &pkcs8, &all).await.unwrap();
    // Nothing is remembered here.
    let fresh = KeyRing::open(&config).await.unwrap();
    for (ring, certificate) in [(&fresh, &leaf), (&fresh, &between), (&ring, &between)] {
        let sha256 = certificate.fingerprint().to_string();
        let found = ring.certificate(&sha256, |owner| owner == "alice@nec.example").await.unwrap();
        assert_eq!(found.found.unwrap().certificate.der(), certificate.der());
        assert!(ring.certificate(&sha256, |_| false).await.unwrap().found.is_none());
    }
    let unknown = fresh.certificate(&"0".repeat(64), |_| true).await.unwrap();
    assert!(unknown.found.is_none() && unknown.scanned);
    let leaf = leaf.fingerprint().to_string();
    let known = fresh.certificate(&leaf, |_| true).await.unwrap();
    assert!(known.found.is_some() && !known.scanned);
}

#[tokio::test]
async fn lists_are_filtered_and_bounded() {
    let (_directory, _, ring) = ring().await;
    for address in ["alice@nec.example", "bob@nec.example", "carol@nec.example"] {
        let (pkcs8, leaf, _) = person(address);
        ring.insert(&owner(address), &pkcs8, &[leaf]).await.unwrap();
    }
    assert_eq!(ring.list(|_| true, 10).await.unwrap().len(), 3);
    assert_eq!(ring.list(|_| true, 2).await.unwrap().len(), 2);
    let bobs = ring.list(|owner| owner.starts_with("bob"), 10).await.unwrap();
    assert_eq!(
        bobs.iter().map(|entry| entry.owner.as_str()).collect::<Vec<_>>(),
        ["bob@nec.example"]
    );
}

#[tokio::test]
async fn a_scan_that_would_end_too_early_is_an_error() {
    let (_directory, _, ring) = ring().await;
    let (pkcs8, leaf, _) = person("alice@nec.example");
    ring.insert(&owner("alice@nec.example"), &pkcs8, &[leaf]).await.unwrap();
    let mut scan = Scan { seen: SCANNED_ROWS_MAX - 1, ..Scan::default() };
    assert!(scan.next(&ring.database).await.is_ok());
    let mut scan = Scan { seen: SCANNED_ROWS_MAX, ..Scan::default() };
    let refused = scan.next(&ring.database).await.err().unwrap();
    assert!(matches!(refused, StoreError::Input(_)), "{refused}");
}

#[tokio::test]
async fn what_another_process_removes_is_gone_within_the_watch_interval() {
    let (_directory, config, ring) = ring().await;
    let (pkcs8, leaf, _) = person("alice@nec.example");
    let entry = ring.insert(&owner("alice@nec.example"), &pkcs8, &[leaf]).await.unwrap();
    assert!(ring.key(&entry.id).await.unwrap().is_some());
    let other = KeyRing::open(&config).await.unwrap();
    assert!(other.remove(&entry.id).await.unwrap());
    let end = Instant::now() + WATCH_INTERVAL * 5;
    while ring.key(&entry.id).await.unwrap().is_some() {
        assert!(Instant::now() < end, "still there");
        tokio::time::sleep(WATCH_INTERVAL / 20).await;
    }
}
