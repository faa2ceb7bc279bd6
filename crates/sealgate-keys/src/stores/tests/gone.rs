//! Keys that a store outside this process has no more.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use sealgate_core::keys::{KeyError, KeyTransport, SecretKey};
use zeroize::Zeroizing;

use super::*;
use crate::secret_key_store::{NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry};

const ALICE: &str = "alice@smime.example";

/// Has one key of Alice's.
#[derive(Debug)]
struct Elsewhere {
    certificate: &'static str,
    key: Arc<Handle>,
    asked: AtomicUsize,
}

#[derive(Debug, Default)]
struct Handle {
    is_gone: AtomicBool,
    is_revoked: AtomicBool,
}

impl SecretKey for Handle {
    fn sign(&self, _scheme: SignatureScheme, _message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::Failed)
    }
    fn unwrap(&self, _transport: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        Err(KeyError::Failed)
    }
    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

impl RemoteStore for Elsewhere {
    fn find(&self, owner: &str) -> Result<Vec<RemoteKey>, StoreError> {
        if owner != ALICE {
            return Ok(Vec::new());
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        let certificate = certificate(self.certificate);
        let is_active = !self.key.is_revoked.load(Ordering::Relaxed);
        Ok(vec![RemoteKey { certificate, chain: Vec::new(), secret: self.key.clone(), is_active }])
    }
    fn list(&self) -> Result<Vec<SecretKeyEntry>, StoreError> {
        Ok(Vec::new())
    }
    fn insert(&self, _keys: &[NewSecretKey]) -> Result<(), StoreError> {
        Ok(())
    }
    fn remove(&self, _owner: &str) -> Result<u64, StoreError> {
        Ok(0)
    }
    fn check(&self) -> Result<String, StoreError> {
        Ok(String::new())
    }
}

fn keys_elsewhere(stores: &Stores, certificate: &'static str) -> Arc<Elsewhere> {
    let (key, asked) = Default::default();
    let elsewhere = Arc::new(Elsewhere { certificate, key, asked });
    let present = stores.settings();
    *stores.settings.write().unwrap() = Arc::new(Settings {
        config: present.config.clone(),
        secret_keys: SecretKeys::Remote(elsewhere.clone()),
        directory: None,
        trust: Arc::clone(&present.trust),
    });
    elsewhere
}

#[tokio::test]
async fn the_store_is_asked_again_once_it_has_said_that_a_key_is_gone() {
    let (_bed, stores) = Bed::new().await;
    let elsewhere = keys_elsewhere(&stores, "certs/alice.sign.crt");
    let asked = || elsewhere.asked.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(signing(&stores, ALICE).await.len(), 1);
    }
    assert_eq!(asked(), 1, "cached");
    elsewhere.key.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(signing(&stores, ALICE).await.len(), 1);
    assert_eq!(asked(), 2);
}

/// It decrypts what was encrypted to it, and nothing new is.
#[tokio::test]
async fn nothing_is_encrypted_to_a_revoked_key_of_a_store_elsewhere() {
    let (_bed, stores) = Bed::new().await;
    let elsewhere = keys_elsewhere(&stores, "certs/alice.encrypt.crt");
    let secret_keys = SecretKeys::Remote(elsewhere.clone());
    let alice = Address::parse(ALICE).unwrap();
    for is_revoked in [false, true] {
        elsewhere.key.is_revoked.store(is_revoked, Ordering::Relaxed);
        let public = secret_keys.own_certificates(&stores.database, &alice).await.unwrap();
        assert_eq!(public.is_empty(), is_revoked);
        let own =
            secret_keys.own_keys(&stores.database, &alice, KeyPurpose::Encrypt).await.unwrap();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].is_active, !is_revoked);
    }
}

/// Of who was not moved yet another store knows nothing, which is not "no key": his mail would leave unsigned, and come in unread.
#[tokio::test]
async fn mail_waits_for_keys_that_stayed_in_the_database() {
    let (_bed, stores) = Bed::new().await;
    for owner in ["alice@nec.example", "@abc.example", ALICE, "@smime.example"] {
        generate(&stores, owner).await;
    }
    keys_elsewhere(&stores, "certs/alice.sign.crt");
    for (who, signing_waits, reading_waits) in [
        ("alice@nec.example", true, true),
        ("bob@abc.example", true, true),
        ("carol@nec.example", false, false),
        // Signs there, and her domain need not.
        (ALICE, false, true),
        ("bob@smime.example", true, true),
    ] {
        for (query, waits) in [
            (KeyQuery::Signing(address(who)), signing_waits),
            (KeyQuery::Decryption(address(who)), reading_waits),
        ] {
            let answer = own(&stores, query).await;
            assert_eq!(answer.is_err(), waits, "{who}");
            let said = answer.map(|_| String::new()).unwrap_or_else(|error| error.to_string());
            assert_eq!(said.contains("sealgate secret-key move"), waits, "{said}");
        }
    }
    let checked = stores.administration().check_secret_keys().await.unwrap_err().to_string();
    assert!(checked.contains("@abc.example") && checked.contains("secret-key move"), "{checked}");
    let (revoke, none) = ("UPDATE secret_keys SET state = 'deactivated'", "nobody is given these");
    stores.database.execute(Statement::new(revoke)).await.unwrap();
    stores.changed();
    let query = KeyQuery::Decryption(address("alice@nec.example"));
    assert!(own(&stores, query).await.unwrap().is_empty(), "{none}");
}
