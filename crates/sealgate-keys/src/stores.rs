//! The key stores as the relay sees them: questions in, keys out, within one deadline.
//!
//! [`Stores::answer`] answers the [`KeyQuery`]s of a step from a bounded cache of parsed keys, else from the database.
//! Keys of the mailbox come before the domain's (`@example.org`). Expired decryption keys are given out: old mail must
//! stay readable. Changes that another process makes are noticed within [`WATCH_INTERVAL`],
//! and at once where the database tells of them (PostgreSQL).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sealgate_core::address::{Address, Domain};
use sealgate_core::keys::{LookupError, OwnKey, PublicKey};
use sealgate_core::step::{KeyQuery, Keys};
use sealgate_core::trust::TrustStore;
use sealgate_core::verify::Harvest;

use crate::administration::Administration;
use crate::cache::{Answer, Cache};
use crate::database::{Database, DatabaseUrl};
use crate::done_record::{DoneRecords, Hint};
use crate::error::StoreError;
use crate::learning::Learning;
use crate::master_key::MasterKey;
use crate::public_key_store::directory_server::{DirectoryServer, LdapConfig};
use crate::public_key_store::{self, PublicKeyStoreKind};
use crate::secret_key_store::key_management_server::KmipConfig;
use crate::secret_key_store::pkcs11::Pkcs11Config;
use crate::secret_key_store::{KeyPurpose, SecretKeyStoreKind};
use crate::secret_source::SecretSource;
use crate::trust_source::TrustSource;

pub(crate) mod secret_keys;

use secret_keys::SecretKeys;

/// What the stores are made of.
#[derive(Clone, Debug)]
pub struct StoresConfig {
    /// The database.
    pub database: DatabaseUrl,
    /// The master key; read only where secret keys are embedded, or the organisation's own authority is used.
    pub master_key: SecretSource,
    /// Whose certificates a remote secret key store is asked for: our own domains.
    pub domains: Vec<Domain>,
    /// Where the relay finds secret keys.
    pub secret_keys: SecretKeyStoreKind,
    /// The key management server, where it is described.
    pub kmip: Option<KmipConfig>,
    /// The token, where it is described.
    pub pkcs11: Option<Pkcs11Config>,
    /// Where public keys are looked for, in order.
    pub public_keys: Vec<PublicKeyStoreKind>,
    /// The directory server, where it is described.
    pub ldap: Option<LdapConfig>,
    /// Files with revocation lists, DER or PEM.
    pub crls: Vec<PathBuf>,
    /// How long all questions of one step together may take.
    pub lookup_timeout: Duration,
    /// Answers kept.
    pub cache_entries_max: u64,
    /// How long an answer is kept.
    pub cache_ttl: Duration,
    /// How long it is remembered that there is no key.
    pub cache_negative_ttl: Duration,
}

impl Default for StoresConfig {
    fn default() -> Self {
        Self {
            database: DatabaseUrl::default(),
            master_key: SecretSource::File(PathBuf::from("master.key")),
            domains: Vec::new(),
            secret_keys: SecretKeyStoreKind::Embedded,
            kmip: None,
            pkcs11: None,
            public_keys: vec![PublicKeyStoreKind::Embedded],
            ldap: None,
            crls: Vec::new(),
            lookup_timeout: Duration::from_secs(5),
            cache_entries_max: 10_000,
            cache_ttl: Duration::from_secs(600),
            cache_negative_ttl: Duration::from_secs(5),
        }
    }
}

/// Both key stores.
#[derive(Debug)]
pub struct Stores {
    database: Database,
    config: StoresConfig,
    secret_keys: SecretKeys,
    directory: Option<DirectoryServer>,
    cache: Cache,
    learning: Learning,
    trust: TrustSource,
    lookup_timeout: Duration,
    watch: Watch,
    done_hint: Hint,
}

impl Stores {
    /// Opens existing stores.
    ///
    /// # Errors
    /// [`StoreError`]: no database, no master key, one that is readable by others or belongs to another database.
    pub async fn open(config: &StoresConfig) -> Result<Self, StoreError> {
        let (database, secret_keys) = match config.secret_keys {
            SecretKeyStoreKind::Embedded => {
                let master_key = MasterKey::read(&config.master_key)?;
                let database = Database::open(&config.database).await?;
                crate::key_check::verify(&database, &master_key, &config.master_key).await?;
                (database, SecretKeys::Embedded(Arc::new(master_key)))
            }
            kind => {
                let store = secret_keys::remote(config, kind)?;
                (Database::open(&config.database).await?, SecretKeys::Remote(store))
            }
        };
        let directory = config.ldap.clone().map(DirectoryServer::new).transpose()?;
        Ok(Self {
            config: config.clone(),
            directory,
            cache: Cache::new(
                config.cache_entries_max,
                config.cache_ttl,
                config.cache_negative_ttl,
            ),
            learning: Learning::new(),
            trust: TrustSource::new(config.crls.clone()),
            lookup_timeout: config.lookup_timeout,
            watch: Watch::new(),
            done_hint: Hint::default(),
            database,
            secret_keys,
        })
    }

    /// Answers the questions of one step. A question that cannot be answered in time gets a [`LookupError`].
    pub async fn answer(&self, queries: &[KeyQuery], keys: &mut Keys) {
        let deadline = tokio::time::Instant::now() + self.lookup_timeout;
        let generation = self.generation_by(deadline).await;
        for query in queries {
            let answer = match self.cache.find(generation, query) {
                Some(answer) => Ok(answer),
                None => self.look_up_by(deadline, generation, query).await,
            };
            match query {
                KeyQuery::Public(address) => {
                    keys.public.insert(address.clone(), answer.map(Answer::into_public));
                }
                KeyQuery::Decryption(_) | KeyQuery::Signing(_) => {
                    keys.own.insert(query.clone(), answer.map(Answer::into_own));
                }
            }
        }
    }

    /// Whom we trust now: the same object as before while nothing has changed. While the database does not answer it is
    /// the last one, so that mail that needs no key still flows (REQUIREMENTS O12).
    ///
    /// # Errors
    /// [`StoreError`] where nothing was read yet and the database does not answer, or a revocation list cannot be
    /// read.
    pub async fn trust(&self) -> Result<Arc<TrustStore>, StoreError> {
        let deadline = tokio::time::Instant::now() + self.lookup_timeout;
        let generation = self.generation_by(deadline).await;
        let current = self.trust.current(&self.database, generation);
        let error = match tokio::time::timeout_at(deadline, current).await {
            Ok(Ok(store)) => return Ok(store),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Database {
                database: "the key database".to_owned(),
                why: "no answer in time".to_owned(),
            },
        };
        let last = self.trust.last();
        if last.is_some() {
            tracing::error!(%error, "anchors cannot be read, the last ones are used");
        }
        last.ok_or(error)
    }

    /// Takes in what verified mail taught: candidates and capabilities. Cheap where it is known already.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer.
    pub async fn learn(&self, harvest: &Harvest) -> Result<(), StoreError> {
        if self.learning.learn(&self.database, harvest).await? {
            self.changed();
        }
        Ok(())
    }

    /// Closes the database; everything asked afterwards fails.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Who has a message already.
    pub fn done_records(&self) -> DoneRecords<'_> {
        DoneRecords::new(&self.database, &self.done_hint)
    }

    /// The administrator's side of the stores.
    pub fn administration(&self) -> Administration<'_> {
        Administration::new(self, &self.database)
    }

    /// Where secret keys are.
    pub(crate) fn secret_keys(&self) -> &SecretKeys {
        &self.secret_keys
    }

    /// The directory server, where one is described.
    pub(crate) fn directory(&self) -> Option<&DirectoryServer> {
        self.directory.as_ref()
    }

    /// What the stores were opened with.
    pub(crate) fn config(&self) -> &StoresConfig {
        &self.config
    }

    /// The master key, which a store outside this process does not need, and our own authority does.
    pub(crate) async fn master_key(&self) -> Result<Arc<MasterKey>, StoreError> {
        if let SecretKeys::Embedded(master_key) = &self.secret_keys {
            return Ok(Arc::clone(master_key));
        }
        let source = &self.config.master_key;
        let master_key = MasterKey::read(source)?;
        crate::key_check::verify(&self.database, &master_key, source).await?;
        Ok(Arc::new(master_key))
    }

    /// Drops what is cached, after a change by this process.
    pub(crate) fn changed(&self) {
        self.watch.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.clear();
    }

    async fn look_up_by(
        &self,
        deadline: tokio::time::Instant,
        generation: u64,
        query: &KeyQuery,
    ) -> Result<Answer, LookupError> {
        let found = tokio::time::timeout_at(deadline, self.look_up(query)).await;
        let answer = found
            .map_err(|_| LookupError("the key stores did not answer in time".to_owned()))?
            .map_err(|error| LookupError(error.to_string()))?;
        self.cache.keep(generation, query, answer.clone());
        Ok(answer)
    }

    async fn look_up(&self, query: &KeyQuery) -> Result<Answer, StoreError> {
        match query {
            KeyQuery::Decryption(address) => {
                let keys =
                    self.secret_keys.own_keys(&self.database, address, KeyPurpose::Encrypt).await?;
                Ok(Answer::Own(keys.into()))
            }
            KeyQuery::Public(address) => {
                Ok(Answer::Public(self.public_keys(address).await?.into()))
            }
            KeyQuery::Signing(address) => {
                let mut keys =
                    self.secret_keys.own_keys(&self.database, address, KeyPurpose::Sign).await?;
                keys.retain(|key| key.certificate.may_sign());
                Ok(Answer::Own(keys.into()))
            }
        }
    }

    /// What the directory server has; what its owner's software reads may have been learned from mail.
    async fn in_directory(&self, address: &Address) -> Result<Vec<PublicKey>, StoreError> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let mut keys = directory.find(address).await?;
        if keys.iter().any(|key| key.capabilities.is_none()) {
            let learned = public_key_store::embedded::learned(&self.database, address).await?;
            for key in &mut keys {
                key.capabilities = key.capabilities.or(learned);
            }
        }
        Ok(keys)
    }

    /// Certificates from the first store that has any. That there is none is known only where every store has answered.
    async fn public_keys(&self, address: &Address) -> Result<Vec<PublicKey>, StoreError> {
        let mut keys = Vec::new();
        let mut away = None;
        for kind in &self.config.public_keys {
            let found = match kind {
                PublicKeyStoreKind::Embedded => {
                    public_key_store::embedded::keys_for(&self.database, address).await
                }
                PublicKeyStoreKind::Ldap => self.in_directory(address).await,
            };
            match found {
                Ok(found) => keys.extend(found),
                Err(error) => away = Some(error),
            }
            if !keys.is_empty() {
                break;
            }
        }
        // A store outside this process is asked only for those whose keys it can have, and where nothing else is known.
        let ours = self.config.domains.contains(address.domain());
        if matches!(self.secret_keys, SecretKeys::Embedded(_)) || (ours && keys.is_empty()) {
            keys.extend(self.secret_keys.own_certificates(&self.database, address).await?);
        }
        match away {
            Some(error) if keys.is_empty() => Err(error),
            _ => Ok(keys),
        }
    }

    /// The generation, where the database tells it in time, else the last known.
    async fn generation_by(&self, deadline: tokio::time::Instant) -> u64 {
        match tokio::time::timeout_at(deadline, self.generation()).await {
            Ok(Ok(generation)) => generation,
            Ok(Err(_)) | Err(_) => self.watch.generation.load(Ordering::Acquire),
        }
    }

    async fn generation(&self) -> Result<u64, StoreError> {
        if self.database.tells_changes() || self.watch.is_due() {
            let changes = u64::try_from(self.database.changes().await?).unwrap_or_default();
            if self.watch.changes.swap(changes, Ordering::AcqRel) != changes {
                self.changed();
            }
        }
        Ok(self.watch.generation.load(Ordering::Acquire))
    }
}

impl Answer {
    fn into_own(self) -> Vec<OwnKey> {
        match self {
            Self::Own(keys) => keys.to_vec(),
            Self::Public(_) => Vec::new(),
        }
    }

    fn into_public(self) -> Vec<PublicKey> {
        match self {
            Self::Own(_) => Vec::new(),
            Self::Public(keys) => keys.to_vec(),
        }
    }
}

/// When other processes' changes were last looked for, and what was seen.
#[derive(Debug)]
struct Watch {
    started: Instant,
    /// Milliseconds after `started` at which the next look is due.
    due_ms: AtomicU64,
    changes: AtomicU64,
    generation: AtomicU64,
}

impl Watch {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            due_ms: AtomicU64::new(0),
            changes: AtomicU64::new(u64::MAX),
            generation: AtomicU64::new(0),
        }
    }

    /// Whether this caller is the one to look.
    fn is_due(&self) -> bool {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due_ms = self.due_ms.load(Ordering::Acquire);
        let interval_ms = u64::try_from(WATCH_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        now_ms >= due_ms
            && self
                .due_ms
                .compare_exchange(
                    due_ms,
                    now_ms.saturating_add(interval_ms),
                    Ordering::AcqRel,
                    Ordering::Acquire,
                )
                .is_ok()
    }
}

/// How often changes of other processes are looked for, at most.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
