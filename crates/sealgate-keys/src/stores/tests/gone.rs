//! Keys that a store outside this process has no more.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use sealgate_core::keys::{KeyError, KeyTransport, SecretKey};
use zeroize::Zeroizing;

use super::*;
use crate::secret_key_store::{NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry};

const ALICE: &str = "alice@smime.example";

/// Has one key of Alice's.
#[derive(Debug, Default)]
struct Elsewhere {
    key: Arc<Handle>,
    asked: AtomicUsize,
}

#[derive(Debug, Default)]
struct Handle {
    is_gone: AtomicBool,
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
        let certificate = certificate("certs/alice.sign.crt");
        Ok(vec![RemoteKey { certificate, chain: Vec::new(), secret: self.key.clone() }])
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

#[tokio::test]
async fn the_store_is_asked_again_once_it_has_said_that_a_key_is_gone() {
    let (_bed, stores) = Bed::new().await;
    let elsewhere = Arc::new(Elsewhere::default());
    let present = stores.settings();
    *stores.settings.write().unwrap() = Arc::new(Settings {
        config: present.config.clone(),
        secret_keys: SecretKeys::Remote(elsewhere.clone()),
        directory: None,
        trust: Arc::clone(&present.trust),
    });
    let asked = || elsewhere.asked.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(signing(&stores, ALICE).await.len(), 1);
    }
    assert_eq!(asked(), 1, "cached");
    elsewhere.key.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(signing(&stores, ALICE).await.len(), 1);
    assert_eq!(asked(), 2);
}
