//! The key stores as the relay sees them: questions in, keys out, within one deadline.
//!
//! [`Stores::answer`] answers the [`KeyQuery`]s of a step from a bounded cache of parsed keys, else from the database.
//! Keys of the mailbox come before the domain's (`@example.org`). Expired decryption keys are given out: old mail must
//! stay readable. Changes that another process makes are noticed within [`WATCH_INTERVAL`],
//! and at once where the database tells of them (PostgreSQL).

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join3;
use futures_util::stream::FuturesUnordered;
use sealgate_core::address::Domain;
use sealgate_core::encrypt::choose_certificate;
use sealgate_core::keys::{LookupError, OwnKey, PublicKey, Timestamp};
use sealgate_core::sign::choose_key;
use sealgate_core::step::{KeyQuery, Keys};
use sealgate_core::trust::TrustStore;
use sealgate_core::verify::Harvest;
use tokio::sync::OnceCell;

use crate::administration::Administration;
use crate::cache::{Answer, Cache, Kept};
use crate::database::{Database, DatabaseUrl};
use crate::done_record::{DoneRecords, Hint};
use crate::error::StoreError;
use crate::learning::{Learning, unix_now};
use crate::master_key::held::HeldMasterKey;
use crate::mta_sts_policies::StoredPolicies;
use crate::public_key_store::PublicKeyStoreKind;
use crate::public_key_store::directory_server::LdapConfig;
use crate::secret_key_store::key_management_server::KmipConfig;
use crate::secret_key_store::pkcs11::Pkcs11Config;
use crate::secret_key_store::{KeyPurpose, SecretKeyStoreKind};
use crate::secret_source::SecretSource;

mod public_keys;
pub(crate) mod secret_keys;
mod settings;

use secret_keys::SecretKeys;
use settings::Settings;

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

/// Where secret keys are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// By the relay itself.
    ThisProcess,
    /// By a key server at a unix socket.
    ThisHost,
    /// At a key management server, or in a token.
    Elsewhere,
}

/// Both key stores.
#[derive(Debug)]
pub struct Stores {
    database: Database,
    settings: RwLock<Arc<Settings>>,
    cache: Cache,
    learning: Learning,
    watch: Watch,
    done_hint: Hint,
}

impl Stores {
    /// Opens existing stores.
    ///
    /// # Errors
    /// [`StoreError`]: no database, no master key, one that is readable by others or belongs to another database.
    pub async fn open(config: &StoresConfig) -> Result<Self, StoreError> {
        let database = Database::open(&config.database).await?;
        Ok(Self {
            settings: RwLock::new(Arc::new(Settings::open(&database, config).await?)),
            cache: Cache::new(
                config.cache_entries_max,
                config.cache_ttl,
                config.cache_negative_ttl,
            ),
            learning: Learning::new(),
            watch: Watch::new(),
            done_hint: Hint::default(),
            database,
        })
    }

    /// Takes another configuration: the tables of the stores, what their files hold now, and the names of revocation lists.
    /// Database and cache sizes stay. Answers that are under way end with what they began with.
    ///
    /// # Errors
    /// [`StoreError`] as [`Self::open`], also where a password's or PIN's file cannot be used; nothing is changed then.
    pub async fn reload(&self, config: &StoresConfig) -> Result<(), StoreError> {
        let settings = Arc::new(self.settings().reload(&self.database, config).await?);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        // What is cached has handles of the former stores in it.
        self.changed();
        Ok(())
    }

    /// Answers the questions of one step. A question that cannot be answered in time gets a [`LookupError`].
    pub async fn answer(&self, queries: &[KeyQuery], keys: &mut Keys) {
        let deadline = tokio::time::Instant::now() + self.settings().config.lookup_timeout;
        let generation = self.generation_by(deadline).await;
        // After the generation: what former stores answer must not be kept for the present ones.
        let settings = &*self.settings();
        let round = &Round { settings, deadline, generation, trust: OnceCell::new() };
        // At once: a store that is far away must not make many recipients wait for each other.
        let mut queries = queries.iter();
        let mut asked = FuturesUnordered::new();
        loop {
            while asked.len() < QUERIES_AT_ONCE_MAX
                && let Some(query) = queries.next()
            {
                asked.push(self.ask(round, query));
            }
            let Some((query, answer)) = asked.next().await else { return };
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
        let settings = self.settings();
        let deadline = tokio::time::Instant::now() + settings.config.lookup_timeout;
        let generation = self.generation_by(deadline).await;
        let error = match self.current_trust(&settings, deadline, generation).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        let last = settings.trust.last();
        if last.is_some() {
            tracing::error!(%error, "anchors cannot be read, the last ones are used");
        }
        last.ok_or(error)
    }

    /// The anchors and revocation lists of this generation.
    async fn current_trust(
        &self,
        settings: &Settings,
        deadline: tokio::time::Instant,
        generation: u64,
    ) -> Result<Arc<TrustStore>, StoreError> {
        let current = settings.trust.current(&self.database, generation);
        let late = |_| {
            let (database, why) = ("the key database".to_owned(), "no answer in time".to_owned());
            StoreError::Database { database, why }
        };
        tokio::time::timeout_at(deadline, current).await.map_err(late)?
    }

    /// Whether all that mail may need answers within so long: the database, and stores outside this process.
    ///
    /// # Errors
    /// The [`StoreError`] of the first that does not, which names it.
    pub async fn reach(&self, patience: Duration) -> Result<(), StoreError> {
        let settings = self.settings();
        let directory = async {
            match &settings.directory {
                Some(server) if settings.config.public_keys.contains(&PublicKeyStoreKind::Ldap) => {
                    server.ping().await
                }
                Some(_) | None => Ok(()),
            }
        };
        let in_time = |name: &'static str, answer: Result<_, tokio::time::error::Elapsed>| {
            let late = || {
                let (store, why) = (name.to_owned(), "no answer in time".to_owned());
                Err(StoreError::Unavailable { store, why })
            };
            answer.unwrap_or_else(|_| late())
        };
        let (database, secret_keys, directory) = join3(
            tokio::time::timeout(patience, self.database.ping()),
            tokio::time::timeout(patience, settings.secret_keys.ping()),
            tokio::time::timeout(patience, directory),
        )
        .await;
        in_time("the key database", database)?;
        in_time("the secret key store", secret_keys)?;
        in_time("the directory server", directory)
    }

    /// Takes in what verified mail taught: candidates and capabilities. Cheap where it is known already.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer.
    pub async fn learn(&self, harvest: &Harvest) -> Result<(), StoreError> {
        let settings = self.settings();
        let keeps_candidates = settings.config.public_keys.contains(&PublicKeyStoreKind::Embedded);
        if self.learning.learn(&self.database, harvest, keeps_candidates).await? {
            self.changed();
        }
        Ok(())
    }

    /// Closes the database; everything asked afterwards fails.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Where our secret keys are used.
    pub fn key_place(&self) -> KeyPlace {
        match &self.settings().secret_keys {
            SecretKeys::Remote(store) if store.is_on_this_host() => KeyPlace::ThisHost,
            SecretKeys::Remote(_) => KeyPlace::Elsewhere,
            _ => KeyPlace::ThisProcess,
        }
    }

    /// Who has a message already.
    pub fn done_records(&self) -> DoneRecords<'_> {
        DoneRecords::new(&self.database, &self.done_hint)
    }

    /// What other domains demand of mail to them.
    pub fn mta_sts_policies(&self) -> StoredPolicies<'_> {
        StoredPolicies::new(&self.database)
    }

    /// The administrator's side of the stores.
    pub fn administration(&self) -> Administration<'_> {
        Administration::new(self, &self.database)
    }

    /// The stores of this moment.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where secret keys are.
    pub(crate) fn secret_keys(&self) -> SecretKeys {
        self.settings().secret_keys.clone()
    }

    /// The master key, which a store outside this process does not need, and our own authority does.
    pub(crate) async fn master_key(&self) -> Result<Arc<HeldMasterKey>, StoreError> {
        let settings = self.settings();
        if let SecretKeys::Embedded(master_key) = &settings.secret_keys {
            return Ok(Arc::clone(master_key));
        }
        HeldMasterKey::open(&self.database, &settings.config.master_key).await.map(Arc::new)
    }

    /// Drops what is cached, after a change by this process.
    pub(crate) fn changed(&self) {
        self.watch.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.clear();
    }

    /// One question, from the cache where it is known there.
    async fn ask<'q>(
        &self,
        round: &Round<'_>,
        query: &'q KeyQuery,
    ) -> (&'q KeyQuery, Result<Answer, LookupError>) {
        if let Some(kept) = self.cache.find(round.generation, query)
            && self.holds(round, query, &kept).await
        {
            return (query, Ok(kept.answer));
        }
        // Boxed: what is cached needs none of it.
        (query, Box::pin(self.look_up_by(round, query)).await)
    }

    /// Whether what was of use when it was kept still is. Certificates expire and are revoked, and keys are replaced where
    /// they are; then what stores have now is not to wait until the answer is forgotten. Verdicts are remembered, so that
    /// this validates no path again.
    async fn holds(&self, round: &Round<'_>, query: &KeyQuery, kept: &Kept) -> bool {
        if !kept.usable {
            return true;
        }
        let now = Timestamp(unix_now());
        match (query, &kept.answer) {
            (_, Answer::Own(keys)) if keys.iter().any(|key| key.secret.is_gone()) => false,
            (KeyQuery::Public(address), Answer::Public(keys)) => {
                // Where the mailbox's own was of use, its domain's is no reason not to look for its successor.
                let own = keys.iter().take_while(|key| !key.of_domain).count();
                let in_use = keys.get(..own).filter(|own| !own.is_empty()).unwrap_or(keys);
                // Where nobody knows whom we trust, mail waits anyway.
                self.trust_of(round).await.is_none_or(|trust| {
                    choose_certificate(in_use, address, trust, now, false).is_ok()
                })
            }
            (KeyQuery::Signing(address), Answer::Own(keys)) => self
                .trust_of(round)
                .await
                .is_none_or(|trust| choose_key(keys, address, trust, now).is_some()),
            _ => true,
        }
    }

    /// Whom we trust, looked up once for all questions.
    async fn trust_of<'r>(&self, round: &'r Round<'_>) -> Option<&'r Arc<TrustStore>> {
        let Round { settings, deadline, generation, trust } = round;
        let look_up = || async {
            let current = self.current_trust(settings, *deadline, *generation).await;
            current.ok().or_else(|| settings.trust.last())
        };
        trust.get_or_init(look_up).await.as_ref()
    }

    async fn look_up_by(&self, round: &Round<'_>, query: &KeyQuery) -> Result<Answer, LookupError> {
        let look_up = self.look_up(round, query);
        let found = tokio::time::timeout_at(round.deadline, look_up).await;
        let answer = match found {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("the key stores did not answer in time".to_owned()),
        };
        let answer = answer.map_err(|why| {
            let (KeyQuery::Decryption(address)
            | KeyQuery::Public(address)
            | KeyQuery::Signing(address)) = query;
            // The reply to the sender does not say why.
            tracing::warn!(%address, why, "no answer from the key stores: mail that needs it waits");
            LookupError(why)
        })?;
        if answer.complete {
            let kept = Kept { answer: answer.keys.clone(), usable: answer.usable };
            self.cache.keep(round.generation, query, kept);
        }
        Ok(answer.keys)
    }

    async fn look_up(&self, round: &Round<'_>, query: &KeyQuery) -> Result<Found, StoreError> {
        let settings = round.settings;
        let (database, secret_keys) = (&self.database, &settings.secret_keys);
        match query {
            KeyQuery::Decryption(address) => {
                let keys = secret_keys.own_keys(database, address, KeyPurpose::Encrypt).await?;
                // What is expired reads old mail.
                let usable = !keys.is_empty();
                Ok(Found { keys: Answer::Own(keys.into()), complete: true, usable })
            }
            KeyQuery::Public(address) => {
                let Found { keys, complete, usable } = self.public_keys(settings, address).await?;
                Ok(Found { keys: Answer::Public(keys.into()), complete, usable })
            }
            KeyQuery::Signing(address) => {
                let mut keys = secret_keys.own_keys(database, address, KeyPurpose::Sign).await?;
                keys.retain(|key| key.certificate.may_sign());
                // Where nobody knows whom we trust, mail waits anyway.
                let trust = self.trust_of(round).await;
                let now = Timestamp(unix_now());
                let chosen = trust.and_then(|trust| choose_key(&keys, address, trust, now));
                if chosen.is_none_or(|key| key.address.is_none()) {
                    secret_keys.domain_signs_here(database, address, &keys).await?;
                }
                let usable = chosen.is_some();
                Ok(Found { keys: Answer::Own(keys.into()), complete: true, usable })
            }
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

/// What all questions of one step are answered with.
struct Round<'a> {
    settings: &'a Settings,
    deadline: tokio::time::Instant,
    generation: u64,
    trust: OnceCell<Option<Arc<TrustStore>>>,
}

/// An answer as it came from the stores.
#[derive(Debug)]
struct Found<T = Answer> {
    keys: T,
    /// Every store that was to be asked has answered; else the next question asks again.
    complete: bool,
    /// Something in it can be used now.
    usable: bool,
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

/// Questions of one step that are asked at the same time.
const QUERIES_AT_ONCE_MAX: usize = 32;

/// How often changes of other processes are looked for, at most.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
