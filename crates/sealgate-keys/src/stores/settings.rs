//! What a configuration means to the stores, replaced as a whole by a reload. Whoever asks keeps what he began with, so that a
//! message that is under way ends with the connections and certificates that it began with.

use std::sync::Arc;

use super::StoresConfig;
use super::secret_keys::{SecretKeys, remote};
use crate::database::Database;
use crate::error::StoreError;
use crate::import::crl;
use crate::master_key::held::HeldMasterKey;
use crate::public_key_store::directory_server::{DirectoryServer, LdapBind};
use crate::secret_key_store::SecretKeyStoreKind;
use crate::trust_source::TrustSource;

/// The stores of one configuration.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: StoresConfig,
    pub(crate) secret_keys: SecretKeys,
    pub(crate) directory: Option<DirectoryServer>,
    pub(crate) trust: Arc<TrustSource>,
}

impl Settings {
    /// For stores that are opened.
    pub(super) async fn open(
        database: &Database,
        config: &StoresConfig,
    ) -> Result<Self, StoreError> {
        let secret_keys = match config.secret_keys {
            SecretKeyStoreKind::Embedded => embedded(database, config).await?,
            kind => SecretKeys::Remote(remote(config, kind)?),
        };
        Ok(Self {
            directory: config.ldap.clone().map(DirectoryServer::new).transpose()?,
            trust: Arc::new(TrustSource::new(config.crls.clone())),
            config: config.clone(),
            secret_keys,
        })
    }

    /// For stores that are open: every file that is named is read again, and must be usable now. What needs no file again
    /// stays as it is. The database does.
    pub(super) async fn reload(
        &self,
        database: &Database,
        config: &StoresConfig,
    ) -> Result<Self, StoreError> {
        let present = &self.config;
        let same_kind = config.secret_keys == present.secret_keys;
        let secret_keys = match config.secret_keys {
            SecretKeyStoreKind::Embedded
                if same_kind && config.master_key == present.master_key =>
            {
                self.secret_keys.clone()
            }
            SecretKeyStoreKind::Embedded => embedded(database, config).await?,
            // A module is loaded once for the process, and its PIN read with each login.
            SecretKeyStoreKind::Pkcs11 if same_kind && config.pkcs11 == present.pkcs11 => {
                self.secret_keys.clone()
            }
            kind => SecretKeys::Remote(remote(config, kind)?),
        };
        if config.secret_keys == SecretKeyStoreKind::Pkcs11
            && let Some(pkcs11) = &config.pkcs11
        {
            pkcs11.pin.read_line()?;
        }
        if let Some(ldap) = &config.ldap
            && let LdapBind::Simple { password, .. } = &ldap.bind
        {
            password.read_line()?;
        }
        let trust = if config.crls == present.crls {
            Arc::clone(&self.trust)
        } else {
            for path in &config.crls {
                crl::read_file(path)?;
            }
            Arc::new(TrustSource::new(config.crls.clone()))
        };
        Ok(Self {
            directory: config.ldap.clone().map(DirectoryServer::new).transpose()?,
            config: StoresConfig { database: present.database.clone(), ..config.clone() },
            secret_keys,
            trust,
        })
    }
}

async fn embedded(database: &Database, config: &StoresConfig) -> Result<SecretKeys, StoreError> {
    let master_key = HeldMasterKey::open(database, &config.master_key).await?;
    Ok(SecretKeys::Embedded(Arc::new(master_key)))
}
