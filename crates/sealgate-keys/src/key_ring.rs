//! The embedded secret keys by their names, as `sealgate key-server` needs them: found by owner, used by row, taken in and
//! removed one by one.
//!
//! Nothing here asks who may: entitlement is the server's affair. Parsed keys are kept in a bounded cache, which a change
//! by any process empties within [`WATCH_INTERVAL`], and at once where the database tells of it (PostgreSQL).

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sealgate_core::keys::{Certificate, SecretKey};
use zeroize::Zeroizing;

use crate::administration::purpose_for;
use crate::database::{Database, Wiping};
use crate::error::StoreError;
use crate::import::Material;
use crate::learning::unix_now;
use crate::master_key::held::HeldMasterKey;
use crate::owner::Owner;
use crate::secret_key_store::embedded::{self, Held, StoredKey};
use crate::secret_key_store::{KeyPurpose, KeyState, NewSecretKey};
use crate::stores::secret_keys::blocking;
use crate::stores::{StoresConfig, WATCH_INTERVAL};

/// The keys.
pub struct KeyRing {
    database: Database,
    master_key: HeldMasterKey,
    keys: moka::sync::Cache<(u64, String), RingKey>,
    /// Whose a certificate is, by its SHA-256: a short cut, never the only way.
    certificates: moka::sync::Cache<(u64, String), OwnedCertificate>,
    watch: Watch,
    /// Held while many rows are looked at: one caller at a time.
    scanning: tokio::sync::Mutex<()>,
}

/// What is known of a key without its secret.
#[derive(Clone, Debug)]
pub struct KeyEntry {
    /// The row's name.
    pub id: String,
    /// Address in lower case, or `@domain`.
    pub owner: String,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Where it is in its life.
    pub state: KeyState,
    /// Its certificate.
    pub certificate: Arc<Certificate>,
    /// Issuers upwards.
    pub chain: Vec<Arc<Certificate>>,
}

/// A key that can be used.
#[derive(Clone, Debug)]
pub struct RingKey {
    /// What is known of it.
    pub entry: Arc<KeyEntry>,
    /// The handle.
    pub secret: Arc<dyn SecretKey>,
}

/// A certificate and one of those whose it is.
#[derive(Clone, Debug)]
pub struct OwnedCertificate {
    /// Address in lower case, or `@domain`.
    pub owner: String,
    /// The certificate: the owner's own, or of his chain.
    pub certificate: Arc<Certificate>,
}

/// What a search for a certificate found, and how.
#[derive(Clone, Debug)]
pub struct Searched {
    /// The certificate, if it is anybody's.
    pub found: Option<OwnedCertificate>,
    /// Whether all rows had to be looked at.
    pub scanned: bool,
}

impl KeyRing {
    /// Opens the keys of an existing database.
    ///
    /// # Errors
    /// [`StoreError`]: no database, no master key, one that is readable by others or belongs to another database.
    pub async fn open(config: &StoresConfig) -> Result<Self, StoreError> {
        let database = Database::open(&config.database).await?;
        let master_key = HeldMasterKey::open(&database, &config.master_key).await?;
        let (entries_max, ttl) = (config.cache_entries_max, config.cache_ttl);
        Ok(Self {
            keys: moka::sync::Cache::builder().max_capacity(entries_max).time_to_live(ttl).build(),
            certificates: moka::sync::Cache::builder()
                .max_capacity(entries_max)
                .time_to_live(ttl)
                .build(),
            watch: Watch::default(),
            scanning: tokio::sync::Mutex::default(),
            database,
            master_key,
        })
    }

    /// Closes the database; everything asked afterwards fails.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// The keys of one owner, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer, or a row was changed outside sealgate;
    /// [`StoreError::Input`] where there are more than `OWNER_KEYS_MAX`; [`StoreError::Unavailable`] where keys of the
    /// owner were moved to another store, whatever stayed here: that is not somebody without a key, nor with old ones only.
    pub async fn of_owner(&self, owner: &str) -> Result<Vec<KeyEntry>, StoreError> {
        let entries = self.here_of_owner(owner).await?;
        for purpose in [KeyPurpose::Sign, KeyPurpose::Encrypt] {
            embedded::moved::refuse(&self.database, &[owner], purpose).await?;
        }
        Ok(entries)
    }

    async fn here_of_owner(&self, owner: &str) -> Result<Vec<KeyEntry>, StoreError> {
        let generation = self.generation().await;
        let limit = OWNER_KEYS_MAX.saturating_add(1);
        let rows = embedded::of_owner(&self.database, owner, limit).await?;
        if is_over_limit(rows.len()) {
            return Err(too_many(owner));
        }
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        entries.iter().for_each(|entry| self.remember(generation, entry));
        Ok(entries)
    }

    /// The keys of all owners for whom `wanted` holds, `entries_max` of them at most.
    ///
    /// # Errors
    /// As [`Self::of_owner`]; [`StoreError::Input`] where there are more rows than [`SCANNED_ROWS_MAX`].
    pub async fn list(
        &self,
        wanted: impl Fn(&str) -> bool,
        entries_max: usize,
    ) -> Result<Vec<KeyEntry>, StoreError> {
        let _alone = self.scanning.lock().await;
        let mut found = Vec::new();
        let mut scan = Scan::default();
        while let Some(rows) = scan.next(&self.database).await? {
            for row in rows.iter().filter(|row| wanted(row.owner())) {
                if found.len() >= entries_max {
                    return Ok(found);
                }
                found.push(entry(row)?);
            }
        }
        Ok(found)
    }

    /// What is known of a key; `None` where there is none of this name.
    ///
    /// # Errors
    /// As [`Self::of_owner`].
    pub async fn entry(&self, id: &str) -> Result<Option<Arc<KeyEntry>>, StoreError> {
        let generation = self.generation().await;
        if let Some(key) = self.keys.get(&(generation, id.to_owned())) {
            return Ok(Some(key.entry));
        }
        let row = embedded::by_id(&self.database, id).await?;
        row.map(|row| entry(&row).map(Arc::new)).transpose()
    }

    /// A key to be used; `None` where there is none of this name.
    ///
    /// # Errors
    /// As [`Self::of_owner`].
    pub async fn key(&self, id: &str) -> Result<Option<RingKey>, StoreError> {
        let generation = self.generation().await;
        let place = (generation, id.to_owned());
        if let Some(key) = self.keys.get(&place) {
            return Ok(Some(key));
        }
        let open = move |master_key: Arc<_>| async move {
            let Some(row) = embedded::by_id(&self.database, id).await? else { return Ok(None) };
            // Parsing checks the key, which takes a large RSA key a millisecond.
            let parse = move || {
                let secret = row.open(&master_key, None)?.secret;
                Ok(Some(RingKey { entry: Arc::new(entry(&row)?), secret }))
            };
            blocking(parse).await
        };
        let key = self.master_key.used(&self.database, open).await?;
        if let Some(key) = &key {
            self.keys.insert(place, key.clone());
        }
        Ok(key)
    }

    /// A key's secret as PKCS#8; `None` where there is none of this name.
    ///
    /// # Errors
    /// As [`Self::of_owner`].
    pub async fn pkcs8(&self, id: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let open = move |master_key: Arc<_>| async move {
            let row = embedded::by_id(&self.database, id).await?;
            row.map(|row| row.pkcs8(&master_key)).transpose()
        };
        self.master_key.used(&self.database, open).await
    }

    /// The certificate with this SHA-256 (lower-case hexadecimal), a key's own or of its chain, if it is anybody's for
    /// whom `wanted` holds.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn certificate(
        &self,
        sha256: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Searched, StoreError> {
        let found = |certificate| Searched { found: Some(certificate), scanned: false };
        let place = (self.generation().await, sha256.to_owned());
        if let Some(known) = self.certificates.get(&place).filter(|known| wanted(&known.owner)) {
            return Ok(found(known));
        }
        let rows = embedded::with_certificate(&self.database, sha256, OWNER_KEYS_MAX).await?;
        if let Some(row) = rows.iter().find(|row| wanted(row.owner())) {
            let certificate = row.certificate()?;
            return Ok(found(OwnedCertificate { owner: row.owner().to_owned(), certificate }));
        }
        let _alone = self.scanning.lock().await;
        let mut scan = Scan::default();
        while let Some(rows) = scan.next(&self.database).await? {
            for row in rows.iter().filter(|row| wanted(row.owner())) {
                for certificate in row.chain()? {
                    if certificate.fingerprint().to_string() == sha256 {
                        let owner = row.owner().to_owned();
                        let found = OwnedCertificate { owner, certificate };
                        self.certificates.insert(place, found.clone());
                        return Ok(Searched { found: Some(found), scanned: true });
                    }
                }
            }
        }
        Ok(Searched { found: None, scanned: true })
    }

    /// Takes in a key (PKCS#8, PKCS#1 or SEC 1, not encrypted) with its certificate and the chain that are among
    /// `certificates`.
    ///
    /// # Errors
    /// [`StoreError::Input`] where the certificate is missing, for another address or for no mail,
    /// [`StoreError::Exists`] where the key is there already. [`StoreError::Input`] also where the owner would have more than
    /// `OWNER_KEYS_MAX`.
    pub async fn insert(
        &self,
        owner: &Owner,
        key: &[u8],
        certificates: &[Arc<Certificate>],
    ) -> Result<KeyEntry, StoreError> {
        let refuse = |why: &dyn fmt::Display| StoreError::Input(format!("{owner}: {why}"));
        let mut material = Material::read(key, None).map_err(|error| refuse(&error))?;
        material.certificates.extend(certificates.iter().cloned());
        // Issuers that came with the owner's other keys.
        let known = self.here_of_owner(&owner.lookup_key()).await?;
        let before = known.len();
        material.certificates.extend(known.into_iter().flat_map(|entry| entry.chain));
        let keys = material.into_keys().map_err(|error| refuse(&error))?;
        // One more, and none of them would be found.
        if is_over_limit(before.saturating_add(keys.len())) {
            return Err(too_many(&owner.lookup_key()));
        }
        let mut new = Vec::new();
        for key in keys {
            new.push(NewSecretKey {
                owner: owner.lookup_key(),
                purpose: purpose_for(owner, &key.certificate)?,
                pkcs8: key.pkcs8,
                certificate: key.certificate,
                chain: key.chain,
            });
        }
        let keys = new.as_slice();
        let insert = move |master_key: Arc<_>| async move {
            embedded::insert(&self.database, &master_key, keys, unix_now(), Held::Refuse).await
        };
        self.master_key.used(&self.database, insert).await?;
        self.changed();
        let entries = self.here_of_owner(&owner.lookup_key()).await?;
        let is_new = |entry: &KeyEntry| {
            let mine = entry.certificate.fingerprint();
            new.iter().any(|key| key.certificate.fingerprint() == mine)
        };
        entries.into_iter().find(is_new).ok_or_else(|| {
            StoreError::NotFound(format!("{owner}: the key was removed while it came in"))
        })
    }

    /// Revokes one key; says whether it was there and not revoked as badly already.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer.
    pub async fn revoke(&self, id: &str, state: KeyState) -> Result<bool, StoreError> {
        let revoked = embedded::revoke(&self.database, id, state).await?;
        self.changed();
        Ok(revoked)
    }

    /// Removes one key; says whether it was there.
    ///
    /// # Errors
    /// [`StoreError`] where the database does not answer.
    pub async fn remove(&self, id: &str) -> Result<bool, StoreError> {
        let removed = embedded::remove_one(&self.database, id).await?;
        self.changed();
        if let Some(remains) = self.database.wipe(Wiping::Removed).await {
            tracing::warn!(%remains, "a key was removed");
        }
        Ok(removed)
    }

    fn remember(&self, generation: u64, entry: &KeyEntry) {
        for certificate in entry.chain.iter().take(OWNER_CHAIN_MAX) {
            let place = (generation, certificate.fingerprint().to_string());
            let owner = entry.owner.clone();
            let certificate = Arc::clone(certificate);
            self.certificates.insert(place, OwnedCertificate { owner, certificate });
        }
    }

    fn changed(&self) {
        self.watch.generation.fetch_add(1, Ordering::AcqRel);
        self.keys.invalidate_all();
        self.certificates.invalidate_all();
    }

    /// What is cached now belongs to this. Where the database does not answer it stays as it was.
    async fn generation(&self) -> u64 {
        let may_have_changed = self.database.tells_changes() || self.watch.is_due();
        if may_have_changed
            && let Ok(changes) = self.database.changes().await
            && self.watch.changes.swap(changes, Ordering::AcqRel) != changes
        {
            self.changed();
        }
        self.watch.generation.load(Ordering::Acquire)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({:?}, {} keys in memory)", self.database, self.keys.entry_count())
    }
}

fn is_over_limit(keys: usize) -> bool {
    i64::try_from(keys).is_ok_and(|keys| keys > OWNER_KEYS_MAX)
}

fn too_many(owner: &str) -> StoreError {
    StoreError::Input(format!("{owner}: more than {OWNER_KEYS_MAX} keys: remove old ones"))
}

fn entry(row: &StoredKey) -> Result<KeyEntry, StoreError> {
    let certificate = row.certificate()?;
    Ok(KeyEntry {
        id: row.id().to_owned(),
        owner: row.owner().to_owned(),
        purpose: KeyPurpose::of(&certificate).ok_or_else(|| row.corrupt())?,
        state: row.state(),
        certificate,
        chain: row.chain()?,
    })
}

/// Pages through all rows.
#[derive(Default)]
struct Scan {
    after: String,
    seen: usize,
    ended: bool,
}

impl Scan {
    async fn next(&mut self, database: &Database) -> Result<Option<Vec<StoredKey>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let rows = embedded::page(database, &self.after, PAGE_ROWS).await?;
        self.seen = self.seen.saturating_add(rows.len());
        // What was not looked at is not what is not there.
        if self.seen > SCANNED_ROWS_MAX {
            let text = format!("more than {SCANNED_ROWS_MAX} keys: ask for those of one owner");
            return Err(StoreError::Input(text));
        }
        match rows.last() {
            Some(last) => self.after = last.id().to_owned(),
            None => self.ended = true,
        }
        Ok(Some(rows))
    }
}

/// When other processes' changes were last looked for.
#[derive(Debug)]
struct Watch {
    looked: Mutex<Option<Instant>>,
    changes: AtomicI64,
    generation: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            looked: Mutex::new(None),
            changes: AtomicI64::new(i64::MIN),
            generation: AtomicU64::new(0),
        }
    }
}

impl Watch {
    /// Whether this caller is the one to look.
    fn is_due(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.is_none_or(|at| at.elapsed() >= WATCH_INTERVAL);
        if due {
            *looked = Some(Instant::now());
        }
        due
    }
}

/// Keys of one owner, old ones among them.
const OWNER_KEYS_MAX: i64 = 256;
/// Certificates of one key's chain that are remembered.
const OWNER_CHAIN_MAX: usize = 16;
/// Rows read at once.
const PAGE_ROWS: i64 = 256;
/// Rows that one listing looks at.
pub const SCANNED_ROWS_MAX: usize = 100_000;

#[cfg(test)]
mod tests;
