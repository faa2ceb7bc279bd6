//! The one secret key store that the configuration names, embedded or remote, behind the same questions.

use std::sync::Arc;

use sealgate_core::address::Address;
use sealgate_core::keys::{OwnKey, PublicKey};

use super::StoresConfig;
use crate::database::Database;
use crate::error::StoreError;
use crate::master_key::held::HeldMasterKey;
use crate::public_key_store::MailboxAndDomain;
use crate::secret_key_store::embedded::{self, Held, StoredKey, left};
use crate::secret_key_store::ending::{self, EndingKeys, Question};
use crate::secret_key_store::key_management_server::KeyManagementServer;
use crate::secret_key_store::pkcs11::Token;
use crate::secret_key_store::{
    KeyPurpose, KeyState, NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry, SecretKeyStoreKind,
};

/// The store.
#[derive(Clone, Debug)]
pub(crate) enum SecretKeys {
    /// Rows of the database under this master key.
    Embedded(Arc<HeldMasterKey>),
    /// Outside this process.
    Remote(Arc<dyn RemoteStore>),
}

/// The store of a kind outside this process.
///
/// # Errors
/// [`StoreError::Input`] where it is not described, or its files cannot be used.
pub(crate) fn remote(
    config: &StoresConfig,
    kind: SecretKeyStoreKind,
) -> Result<Arc<dyn RemoteStore>, StoreError> {
    let undescribed = |table: &str| {
        StoreError::Input(format!("the store is not described: add a table [secret_keys.{table}]"))
    };
    match kind {
        SecretKeyStoreKind::Embedded => {
            Err(StoreError::Input("the embedded store is no other store".to_owned()))
        }
        SecretKeyStoreKind::Kmip => {
            let kmip = config.kmip.clone().ok_or_else(|| undescribed("kmip"))?;
            Ok(Arc::new(KeyManagementServer::new(kmip)?))
        }
        SecretKeyStoreKind::Pkcs11 => {
            let pkcs11 = config.pkcs11.clone().ok_or_else(|| undescribed("pkcs11"))?;
            Ok(Arc::new(Token::open(pkcs11)?))
        }
    }
}

impl SecretKeys {
    /// Our keys for a purpose: the mailbox's before its domain's, the newest first.
    pub(crate) async fn own_keys(
        &self,
        database: &Database,
        address: &Address,
        purpose: KeyPurpose,
    ) -> Result<Vec<OwnKey>, StoreError> {
        match self {
            Self::Embedded(master_key) => {
                let open = move |master_key: Arc<_>| async move {
                    let stored = embedded::keys_for(database, address, purpose).await?;
                    if stored.is_empty() {
                        return Ok(Vec::new());
                    }
                    let address = address.clone();
                    // Parsing checks the key, which takes a large RSA key a millisecond.
                    let parse = move |key: &StoredKey| key.open(&master_key, Some(&address));
                    blocking(move || stored.iter().map(parse).collect()).await
                };
                master_key.used(database, open).await
            }
            Self::Remote(store) => {
                let (own, domains) = find_both(store, address).await?;
                let serves = |key: &RemoteKey| {
                    KeyPurpose::of(&key.certificate).is_some_and(|found| found.serves(purpose))
                };
                if !own.iter().any(serves) {
                    left::require_none(database, &address.lookup_key(), purpose).await?;
                }
                // Before a domain's keys sign it is asked whether they do; what was encrypted to them is opened beside.
                if purpose == KeyPurpose::Encrypt && !domains.iter().any(serves) {
                    left::require_none(database, &domain_of(address), purpose).await?;
                }
                let mailbox = own.into_iter().filter(serves).map(|key| (Some(address), key));
                let domain = domains.into_iter().filter(serves).map(|key| (None, key));
                let key = |(address, key): (Option<&Address>, RemoteKey)| OwnKey {
                    address: address.cloned(),
                    certificate: key.certificate,
                    chain: key.chain,
                    secret: key.secret,
                    is_active: key.is_active,
                };
                Ok(mailbox.chain(domain).map(key).collect())
            }
        }
    }

    /// Asked before a domain's keys sign, or nothing does: for a mailbox that has no key of its own that can.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where they are in another store, so that mail waits for them.
    pub(crate) async fn domain_signs_here(
        &self,
        database: &Database,
        address: &Address,
        found: &[OwnKey],
    ) -> Result<(), StoreError> {
        match self {
            Self::Embedded(_) => embedded::domain_signs_here(database, address).await,
            Self::Remote(_) if found.iter().any(|key| key.address.is_none()) => Ok(()),
            Self::Remote(_) => {
                left::require_none(database, &domain_of(address), KeyPurpose::Sign).await
            }
        }
    }

    /// Certificates of our own keys: mail to ourselves. Nothing is encrypted to a key that was revoked.
    pub(crate) async fn own_certificates(
        &self,
        database: &Database,
        address: &Address,
    ) -> Result<MailboxAndDomain, StoreError> {
        let public = |certificate, intermediates, of_domain| PublicKey {
            certificate,
            intermediates,
            capabilities: None,
            pinned: true,
            of_domain,
        };
        match self {
            Self::Embedded(_) => {
                let mut found = MailboxAndDomain::default();
                for key in embedded::keys_for(database, address, KeyPurpose::Encrypt).await? {
                    if key.state() != KeyState::Active {
                        continue;
                    }
                    let of_domain = key.is_of_domain();
                    let of = if of_domain { &mut found.domain } else { &mut found.mailbox };
                    of.push(public(key.certificate()?, key.chain()?, of_domain));
                }
                Ok(found)
            }
            Self::Remote(store) => {
                let (mailbox, domain) = find_both(store, address).await?;
                let is_of_use = |key: &RemoteKey| key.is_active && key.certificate.may_encrypt();
                let certificates = |keys: Vec<RemoteKey>, of_domain| {
                    let keys = keys.into_iter().filter(is_of_use);
                    keys.map(|key| public(key.certificate, key.chain, of_domain)).collect()
                };
                Ok(MailboxAndDomain {
                    mailbox: certificates(mailbox, false),
                    domain: certificates(domain, true),
                })
            }
        }
    }

    /// All keys, or those of one owner.
    pub(crate) async fn list(
        &self,
        database: &Database,
        owner: Option<String>,
    ) -> Result<Vec<SecretKeyEntry>, StoreError> {
        match (self, owner) {
            (Self::Embedded(_), owner) => embedded::list(database, owner.as_deref()).await,
            (Self::Remote(store), None) => {
                let store = Arc::clone(store);
                blocking(move || store.list()).await
            }
            (Self::Remote(store), Some(owner)) => {
                let store = Arc::clone(store);
                blocking(move || {
                    let mut keys = store.find(&owner)?;
                    newest_first(&mut keys);
                    Ok(keys.iter().map(|key| key.entry(&owner)).collect())
                })
                .await
            }
        }
    }

    /// Those whose certificates end first.
    pub(crate) async fn ending(
        &self,
        database: &Database,
        question: Question,
    ) -> Result<EndingKeys, StoreError> {
        match self {
            Self::Embedded(_) => ending::embedded(database, question).await,
            Self::Remote(store) => {
                let store = Arc::clone(store);
                blocking(move || ending::remote(&*store, question)).await
            }
        }
    }

    /// Takes in keys: all or none where they are embedded, else one after another.
    pub(crate) async fn insert(
        &self,
        database: &Database,
        keys: Vec<NewSecretKey>,
        now: i64,
    ) -> Result<(), StoreError> {
        match self {
            Self::Embedded(master_key) => {
                let keys = keys.as_slice();
                let insert = move |master_key: Arc<_>| async move {
                    embedded::insert(database, &master_key, keys, now, Held::Correct).await
                };
                master_key.used(database, insert).await
            }
            Self::Remote(store) => {
                let store = Arc::clone(store);
                blocking(move || store.insert(&keys)).await
            }
        }
    }

    /// Removes all keys of an owner and says how many there were.
    pub(crate) async fn remove(
        &self,
        database: &Database,
        owner: String,
    ) -> Result<u64, StoreError> {
        match self {
            Self::Embedded(_) => embedded::remove(database, &owner).await,
            Self::Remote(store) => {
                let store = Arc::clone(store);
                blocking(move || store.remove(&owner)).await
            }
        }
    }

    /// Whether a store outside this process answers now.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Remote(store) => {
                let store = Arc::clone(store);
                blocking(move || store.ping()).await
            }
        }
    }

    /// Whether the keys can be used; one line for the administrator.
    pub(crate) async fn check(&self, database: &Database) -> Result<String, StoreError> {
        match self {
            Self::Embedded(master_key) => {
                let verify = move |master_key: Arc<_>| async move {
                    embedded::verify(database, &master_key).await
                };
                let verified = master_key.used(database, verify).await?;
                let moved = embedded::moved::list(database).await?;
                if let Some(first) = moved.first() {
                    let who = match moved.len() {
                        1 => first.owner.clone(),
                        more => format!("{} and {} more", first.owner, more - 1),
                    };
                    return Err(embedded::moved::unavailable(&who, &first.store));
                }
                match verified {
                    0 => Ok("none; make one with `sealgate secret-key generate ADDR`".to_owned()),
                    count => Ok(format!("{count} usable")),
                }
            }
            Self::Remote(store) => {
                let asked = Arc::clone(store);
                let said = blocking(move || asked.check()).await?;
                for owner in left::owners(database).await? {
                    let found = find(store, &owner).await?;
                    left::require_all_there(database, &owner, &found).await?;
                }
                Ok(said)
            }
        }
    }
}

/// Keys of the mailbox, and of its domain.
async fn find_both(
    store: &Arc<dyn RemoteStore>,
    address: &Address,
) -> Result<(Vec<RemoteKey>, Vec<RemoteKey>), StoreError> {
    let store = Arc::clone(store);
    let (mailbox, domain) = (address.lookup_key(), domain_of(address));
    blocking(move || {
        let mut found = store.find_both(&mailbox, &domain)?;
        newest_first(&mut found.0);
        newest_first(&mut found.1);
        Ok(found)
    })
    .await
}

fn domain_of(address: &Address) -> String {
    format!("@{}", address.domain())
}

async fn find(store: &Arc<dyn RemoteStore>, owner: &str) -> Result<Vec<RemoteKey>, StoreError> {
    let (store, owner) = (Arc::clone(store), owner.to_owned());
    blocking(move || store.find(&owner)).await
}

fn newest_first(keys: &mut [RemoteKey]) {
    keys.sort_by_key(|key| std::cmp::Reverse(key.certificate.not_before()));
}

/// Runs what blocks or computes on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let store = "secret keys".to_owned();
        Err(StoreError::Unavailable { store, why: error.to_string() })
    })
}
