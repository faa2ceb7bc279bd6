//! `secret-key move`: from the embedded store to one outside this process, a key at a time, so that every key is always
//! in one of the two: it is taken in there, proven there, and only then removed here.

use std::sync::Arc;

use sealgate_core::keys::Certificate;

use super::Administration;
use crate::error::StoreError;
use crate::learning::unix_now;
use crate::owner::Owner;
use crate::secret_key_store::{NewSecretKey, RemoteStore, SecretKeyStoreKind, embedded, proof};
use crate::stores::secret_keys::{blocking, remote};

/// A key that was moved.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Whose: an address in lower case, or `@domain`.
    pub owner: String,
    /// Its certificate.
    pub certificate: Arc<Certificate>,
}

impl Administration<'_> {
    /// Moves the embedded keys of one owner, or all, to a store that the configuration describes. `moved` is called after
    /// each; what was moved before an error stays moved, and the same call goes on from there. Those that the other store does not
    /// take are told of at the end.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is nothing to move, else what the store says.
    pub async fn move_secret_keys(
        &self,
        to: SecretKeyStoreKind,
        owner: Option<&Owner>,
        mut moved: impl FnMut(Moved),
    ) -> Result<u64, StoreError> {
        let store = remote(&self.stores.settings().config, to)?;
        let master_key = self.stores.master_key().await?;
        let owner = owner.map(Owner::lookup_key);
        let ids = embedded::ids(self.database, owner.as_deref()).await?;
        let mut count = 0_u64;
        let mut not_taken = Vec::new();
        for id in ids {
            let (database, id) = (self.database, id.as_str());
            let read = move |master_key: Arc<_>| async move {
                embedded::secret(database, &master_key, id).await
            };
            let key = master_key.used(database, read).await?;
            let done =
                Moved { owner: key.owner.clone(), certificate: Arc::clone(&key.certificate) };
            let store = Arc::clone(&store);
            let key = match blocking(move || take_in(store.as_ref(), key)).await {
                Ok(key) => key,
                Err(StoreError::Input(why) | StoreError::Exists(why)) => {
                    not_taken.push(why);
                    continue;
                }
                Err(other) => return Err(other),
            };
            embedded::leave(database, id, &key, to, unix_now()).await?;
            self.stores.changed();
            count = count.saturating_add(1);
            moved(done);
        }
        if !not_taken.is_empty() {
            let what = format!("{count} moved; not taken: {}", not_taken.join("; "));
            return Err(StoreError::Input(what));
        }
        let revoked = embedded::revoked(self.database, owner.as_deref()).await?;
        if !revoked.is_empty() {
            let what = format!(
                "{count} moved; revoked keys stay here, another store would take them for good ones: {}; remove them, or keep \
                 this store",
                revoked.join(", ")
            );
            return Err(StoreError::Input(what));
        }
        if count == 0 {
            let what = "no embedded secret key to move; see `sealgate secret-key list`";
            return Err(StoreError::NotFound(what.to_owned()));
        }
        Ok(count)
    }
}

/// Takes in a key and gives it back once the store finds it and has shown that it does there what mail needs, each way of
/// decrypting too: what is removed here cannot be had again. A store proves what it takes in; what is there already, from a
/// move that was cut off, is proven here.
fn take_in(store: &dyn RemoteStore, key: NewSecretKey) -> Result<NewSecretKey, StoreError> {
    let exists = match store.insert(std::slice::from_ref(&key)) {
        Ok(()) => None,
        Err(StoreError::Exists(what)) => Some(what),
        Err(other) => return Err(other),
    };
    let found = store.find(&key.owner)?;
    let same = found.iter().find(|found| found.certificate.der() == key.certificate.der());
    let owner = &key.owner;
    let is_proven = match (same, exists) {
        (Some(same), _) if !same.is_active => Err("it was revoked there".to_owned()),
        (Some(_), None) => Ok(()),
        (Some(same), Some(_)) => proof::prove(same.secret.as_ref(), &key),
        (None, Some(what)) => return Err(StoreError::Exists(what)),
        (None, None) => Err("the store took it and does not find it".to_owned()),
    };
    match is_proven {
        Ok(()) => Ok(key),
        Err(why) => Err(StoreError::Input(format!("{owner}: the key stays here: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use sealgate_core::address::Domain;
    use sealgate_core::keys::{KeyError, KeyTransport, SecretKey, SignatureScheme, SoftwareKey};
    use std::time::SystemTime;
    use zeroize::Zeroizing;

    use super::*;
    use crate::authority::{Algorithm, Authority, KeyAndCertificate};
    use crate::secret_key_store::{KeyPurpose, RemoteKey, SecretKeyEntry};

    /// Has a key, what it does with that depends.
    #[derive(Debug)]
    struct Having {
        key: RemoteKey,
    }

    impl RemoteStore for Having {
        fn find(&self, _owner: &str) -> Result<Vec<RemoteKey>, StoreError> {
            Ok(vec![self.key.clone()])
        }
        fn list(&self) -> Result<Vec<SecretKeyEntry>, StoreError> {
            Ok(Vec::new())
        }
        fn insert(&self, _keys: &[NewSecretKey]) -> Result<(), StoreError> {
            Err(StoreError::Exists("there already".to_owned()))
        }
        fn remove(&self, _owner: &str) -> Result<u64, StoreError> {
            Ok(0)
        }
        fn check(&self) -> Result<String, StoreError> {
            Ok(String::new())
        }
    }

    /// Does everything but one way of decrypting.
    #[derive(Debug)]
    struct Lacking {
        key: SoftwareKey,
        lacks: &'static str,
    }

    impl SecretKey for Lacking {
        fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError> {
            self.key.sign(scheme, message)
        }
        fn unwrap(&self, transport: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
            let way = match transport {
                KeyTransport::Ecdh { .. } => "ECDH",
                KeyTransport::RsaOaep { .. } => "OAEP",
                KeyTransport::RsaPkcs1 { .. } => "PKCS1",
                _ => "",
            };
            if way == self.lacks {
                return Err(KeyError::Unavailable("not permitted".to_owned()));
            }
            self.key.unwrap(transport)
        }
    }

    fn new_key(owner: &Owner, made: &KeyAndCertificate) -> NewSecretKey {
        NewSecretKey {
            owner: owner.lookup_key(),
            purpose: KeyPurpose::of(&made.certificate).unwrap(),
            pkcs8: made.pkcs8.clone(),
            certificate: Arc::clone(&made.certificate),
            chain: Vec::new(),
        }
    }

    /// What was in use here would be a key that nobody encrypts to.
    #[test]
    fn a_key_that_was_revoked_there_stays_here() {
        let domain = Domain::parse("nec.example").unwrap();
        let authority = Authority::generate(&domain, SystemTime::now()).unwrap();
        let authority = Authority::load(&authority.pkcs8, &authority.certificate).unwrap();
        let owner: Owner = "alice@nec.example".parse().unwrap();
        let [_, made] = authority.issue(&owner, Algorithm::P256, SystemTime::now()).unwrap();
        for is_active in [true, false] {
            let key = SoftwareKey::from_pkcs8(&made.pkcs8).unwrap();
            let certificate = Arc::clone(&made.certificate);
            let key =
                RemoteKey { certificate, chain: Vec::new(), secret: Arc::new(key), is_active };
            let taken = take_in(&Having { key }, new_key(&owner, &made))
                .map(|_| ())
                .map_err(|e| e.to_string());
            match is_active {
                true => assert_eq!(taken, Ok(())),
                false => {
                    let text = taken.unwrap_err();
                    assert!(text.contains("revoked there"), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_key_that_is_there_already_and_does_not_decrypt_there_stays_here() {
        let domain = Domain::parse("nec.example").unwrap();
        let authority = Authority::generate(&domain, SystemTime::now()).unwrap();
        let authority = Authority::load(&authority.pkcs8, &authority.certificate).unwrap();
        let owner: Owner = "alice@nec.example".parse().unwrap();
        for (algorithm, ways) in
            [(Algorithm::Rsa2048, &["PKCS1", "OAEP"][..]), (Algorithm::P256, &["ECDH"])]
        {
            let [_, made] = authority.issue(&owner, algorithm, SystemTime::now()).unwrap();
            for lacks in ways.iter().copied().chain(["nothing"]) {
                let key = SoftwareKey::from_pkcs8(&made.pkcs8).unwrap();
                let certificate = Arc::clone(&made.certificate);
                let secret = Arc::new(Lacking { key, lacks });
                let key = RemoteKey { certificate, chain: Vec::new(), secret, is_active: true };
                let taken = take_in(&Having { key }, new_key(&owner, &made))
                    .map(|_| ())
                    .map_err(|e| e.to_string());
                match lacks {
                    "nothing" => assert_eq!(taken, Ok(())),
                    way => {
                        let text = taken.unwrap_err();
                        assert!(text.contains(way) && text.contains("stays here"), "{text}");
                    }
                }
            }
        }
    }
}
