//! In place of the store where the feature `pkcs11` is not built in: it cannot be opened.

use super::Pkcs11Config;
use crate::error::StoreError;
use crate::secret_key_store::{NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry};

/// There is none, so that all have ended.
pub fn end_modules() -> bool {
    true
}

/// A token as a store of secret keys: none in this build.
#[derive(Debug)]
pub enum Token {}

impl Token {
    /// Says that this build has no PKCS#11.
    ///
    /// # Errors
    /// Always [`StoreError::Unavailable`].
    pub fn open(config: Pkcs11Config) -> Result<Self, StoreError> {
        let store = format!("PKCS#11 token {}", config.token);
        let why = "this build has no PKCS#11: build with the feature `pkcs11`".to_owned();
        Err(StoreError::Unavailable { store, why })
    }
}

impl RemoteStore for Token {
    fn find(&self, _owner: &str) -> Result<Vec<RemoteKey>, StoreError> {
        match *self {}
    }
    fn list(&self) -> Result<Vec<SecretKeyEntry>, StoreError> {
        match *self {}
    }
    fn insert(&self, _keys: &[NewSecretKey]) -> Result<(), StoreError> {
        match *self {}
    }
    fn remove(&self, _owner: &str) -> Result<u64, StoreError> {
        match *self {}
    }
    fn check(&self) -> Result<String, StoreError> {
        match *self {}
    }
}
