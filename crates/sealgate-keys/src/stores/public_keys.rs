//! Certificates of correspondents, from the public key stores in their order.

use sealgate_core::address::Address;
use sealgate_core::encrypt::choose_certificate;
use sealgate_core::keys::{PublicKey, Timestamp};

use super::secret_keys::SecretKeys;
use super::settings::Settings;
use super::{Found, Stores};
use crate::error::StoreError;
use crate::learning::unix_now;
use crate::public_key_store::directory_server::DirectoryServer;
use crate::public_key_store::{self, PublicKeyStoreKind};

impl Stores {
    /// Candidates of the stores up to the first that has a certificate which can be encrypted to now. What is expired or
    /// not trusted bars no later store, and while one is away nothing that is found and unusable is the answer: that
    /// would be taken for "no key".
    pub(super) async fn public_keys(
        &self,
        settings: &Settings,
        address: &Address,
    ) -> Result<Found<Vec<PublicKey>>, StoreError> {
        let mut keys = Vec::new();
        let mut away = None;
        let mut usable = false;
        for kind in &settings.config.public_keys {
            let found = match kind {
                PublicKeyStoreKind::Embedded => {
                    public_key_store::embedded::keys_for(&self.database, address).await
                }
                PublicKeyStoreKind::Ldap => {
                    self.in_directory(settings.directory.as_ref(), address).await
                }
            };
            match found {
                Ok(found) if found.is_empty() => {}
                Ok(found) => {
                    keys.extend(found);
                    usable = self.has_usable(&keys, address).await;
                }
                Err(error) => away = Some(error),
            }
            if usable {
                break;
            }
        }
        // A store outside this process is asked only for those whose keys it can have, and where nothing else is usable.
        let ours = settings.config.domains.contains(address.domain());
        let secret_keys = &settings.secret_keys;
        if matches!(secret_keys, SecretKeys::Embedded(_)) || (ours && !usable) {
            let own = secret_keys.own_certificates(&self.database, address).await?;
            keys.extend(own);
            usable = usable || self.has_usable(&keys, address).await;
        }
        match away {
            Some(error) if !usable => Err(error),
            away => Ok(Found { keys, complete: away.is_none(), usable }),
        }
    }

    /// What the directory server has; what its owner's software reads may have been learned from mail.
    async fn in_directory(
        &self,
        directory: Option<&DirectoryServer>,
        address: &Address,
    ) -> Result<Vec<PublicKey>, StoreError> {
        let Some(directory) = directory else { return Ok(Vec::new()) };
        let mut keys = directory.find(address).await?;
        if keys.iter().any(|key| key.capabilities.is_none()) {
            let learned = public_key_store::embedded::learned(&self.database, address).await?;
            for key in &mut keys {
                key.capabilities = key.capabilities.or(learned);
            }
        }
        Ok(keys)
    }

    /// Where whom we trust is not known, nobody is, and mail waits anyway.
    async fn has_usable(&self, keys: &[PublicKey], address: &Address) -> bool {
        match self.trust().await {
            Ok(trust) => {
                let now = Timestamp(unix_now());
                choose_certificate(keys, address, &trust, now, false).is_ok()
            }
            Err(_) => false,
        }
    }
}
