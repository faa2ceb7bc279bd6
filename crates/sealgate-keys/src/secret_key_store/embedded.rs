//! Secret keys as rows of the database, each wrapped under the master key.
//!
//! Rows are read by owner and turned into handles; a row whose wrapping does not authenticate for exactly its id and
//! owner is refused, and with it the whole answer.

use std::sync::Arc;

use sealgate_core::address::Address;
use sealgate_core::keys::{Certificate, OwnKey, SoftwareKey};
use zeroize::Zeroizing;

use crate::certificates;
use crate::database::{self, Change, Database, Statement};
use crate::error::StoreError;
use crate::key_check;
use crate::master_key::{MasterKey, Row};
use crate::secret_key_store::{
    KeyPurpose, KeyState, NewSecretKey, SecretKeyEntry, SecretKeyStoreKind,
};

pub(crate) mod left;
pub(crate) mod moved;

/// A row as stored; the secret still wrapped.
pub(crate) struct StoredKey {
    id: String,
    owner: String,
    purpose: String,
    state: String,
    wrapped: Vec<u8>,
    certificate: Vec<u8>,
    chain: Vec<u8>,
}

impl StoredKey {
    /// Whether the owner is a domain.
    pub(crate) fn is_of_domain(&self) -> bool {
        self.owner.starts_with('@')
    }

    /// Unwraps and parses; costs up to a millisecond for large RSA keys.
    pub(crate) fn open(
        &self,
        master_key: &MasterKey,
        address: Option<&Address>,
    ) -> Result<OwnKey, StoreError> {
        let row = Row { table: TABLE, id: &self.id, owner: &self.owner };
        let secret = master_key.unwrap(&row, &self.wrapped)?;
        let key = SoftwareKey::from_pkcs8(&secret).map_err(|_| self.corrupt())?;
        let certificate = self.certificate()?;
        if key.public_key_bytes() != certificate.public_key_bytes() {
            return Err(self.corrupt());
        }
        Ok(OwnKey {
            address: address.filter(|_| !self.is_of_domain()).cloned(),
            certificate,
            chain: self.chain()?,
            secret: Arc::new(key),
            is_active: self.state() == KeyState::Active,
        })
    }

    /// What is known without the secret.
    pub(crate) fn entry(&self) -> Result<SecretKeyEntry, StoreError> {
        Ok(SecretKeyEntry {
            owner: self.owner.clone(),
            purpose: self.purpose.clone(),
            certificate: self.certificate()?,
            chain: self.chain()?,
            is_active: self.state() == KeyState::Active,
        })
    }

    pub(crate) fn certificate(&self) -> Result<Arc<Certificate>, StoreError> {
        Certificate::from_der(&self.certificate).map(Arc::new).map_err(|_| self.corrupt())
    }

    pub(crate) fn chain(&self) -> Result<Vec<Arc<Certificate>>, StoreError> {
        certificates::split(&self.chain).ok_or_else(|| self.corrupt())
    }

    /// Where the key is in its life; a word that we do not know is taken for the worst.
    pub(crate) fn state(&self) -> KeyState {
        KeyState::from_word(&self.state).unwrap_or(KeyState::Compromised)
    }

    /// The row's name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Address in lower case, or `@domain`.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// The secret as PKCS#8.
    pub(crate) fn pkcs8(&self, master_key: &MasterKey) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let row = Row { table: TABLE, id: &self.id, owner: &self.owner };
        master_key.unwrap(&row, &self.wrapped)
    }

    pub(crate) fn corrupt(&self) -> StoreError {
        StoreError::Corrupt { table: TABLE, owner: self.owner.clone() }
    }

    fn from_row(row: &database::Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            purpose: row.get("purpose")?,
            state: row.get("state")?,
            wrapped: row.get("wrapped")?,
            certificate: row.get("certificate")?,
            chain: row.get("chain")?,
        })
    }
}

/// Keys of an owner that are for the purpose, the newest first; the mailbox's before its domain's. Of those that were revoked
/// only what decrypts. Whoever lets a domain's keys sign asks [`domain_signs_here`] as well.
pub(crate) async fn keys_for(
    database: &Database,
    address: &Address,
    purpose: KeyPurpose,
) -> Result<Vec<StoredKey>, StoreError> {
    let domain = format!("@{}", address.domain());
    let select = Statement::new(
        "SELECT id, owner, purpose, state, wrapped, certificate, chain FROM secret_keys \
         WHERE (owner = $1 OR owner = $2) AND (purpose = $3 OR purpose = 'both') \
         AND (state = 'active' OR $3 = 'encrypt') \
         ORDER BY CASE WHEN owner = $1 THEN 0 ELSE 1 END, not_before DESC, id",
    );
    let mailbox = address.lookup_key();
    let select = select.bind(&mailbox).bind(&domain).bind(purpose.as_str());
    let keys = collect(database, select).await?;
    // Mail may be encrypted to either; whether the domain's keys are to sign is known where it is known whom we trust.
    let owners: &[&str] =
        if purpose == KeyPurpose::Sign { &[&mailbox] } else { &[&mailbox, &domain] };
    moved::refuse(database, owners, purpose).await?;
    Ok(keys)
}

/// Whether what the domain of an address signs with is in this database, as far as there is anything.
///
/// # Errors
/// [`StoreError::Unavailable`] where it was moved to another store.
pub(crate) async fn domain_signs_here(
    database: &Database,
    address: &Address,
) -> Result<(), StoreError> {
    moved::refuse(database, &[&format!("@{}", address.domain())], KeyPurpose::Sign).await
}

/// All keys, or those of one owner.
pub(crate) async fn list(
    database: &Database,
    owner: Option<&str>,
) -> Result<Vec<SecretKeyEntry>, StoreError> {
    let select = Statement::new(
        "SELECT id, owner, purpose, state, wrapped, certificate, chain FROM secret_keys \
         WHERE $1 = '' OR owner = $1 ORDER BY owner, not_before DESC, purpose DESC, id",
    );
    let rows = collect(database, select.bind(owner.unwrap_or_default())).await?;
    rows.iter().map(StoredKey::entry).collect()
}

/// Opens every row and says how many there are.
pub(crate) async fn verify(database: &Database, master_key: &MasterKey) -> Result<u64, StoreError> {
    let select = Statement::new(
        "SELECT id, owner, purpose, state, wrapped, certificate, chain FROM secret_keys ORDER BY owner",
    );
    let mut count = 0;
    for stored in collect(database, select).await? {
        stored.open(master_key, None)?;
        count += 1;
    }
    Ok(count)
}

/// What is done about a key that is held already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Its chain becomes the one that comes now, unless that is empty: there is no other way to correct it.
    Correct,
    /// Nothing is stored.
    Refuse,
}

/// Stores keys, all or none; none where the database is sealed under another master key by now.
///
/// # Errors
/// [`StoreError::Exists`] where one is held already that is to be refused, or where nothing of all is new.
pub(crate) async fn insert(
    database: &Database,
    master_key: &MasterKey,
    keys: &[NewSecretKey],
    now: i64,
    held: Held,
) -> Result<(), StoreError> {
    let mut change = database.begin_change().await?;
    key_check::require(&mut change, master_key).await?;
    let mut unchanged = None;
    let mut is_any_new = false;
    for key in keys {
        let id = certificates::random_id()?;
        let row = Row { table: TABLE, id: &id, owner: &key.owner };
        let wrapped = master_key.wrap(&row, &key.pkcs8)?;
        let (chain, sha256) =
            (certificates::concatenate(&key.chain), key.certificate.fingerprint().to_string());
        let insert = Statement::new(
            "INSERT INTO secret_keys (id, owner, purpose, wrapped, certificate, chain, sha256, \
             not_before, not_after, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (owner, sha256) DO NOTHING",
        )
        .bind(&id)
        .bind(&key.owner)
        .bind(key.purpose.as_str())
        .bind(&wrapped)
        .bind(key.certificate.der())
        .bind(&chain)
        .bind(&sha256)
        .bind(key.certificate.not_before().0)
        .bind(key.certificate.not_after().0)
        .bind(now);
        if change.execute(insert).await? > 0 {
            is_any_new = true;
            moved::forget(&mut change, &key.owner, Some(key.purpose)).await?;
        } else if held == Held::Correct && correct_chain(&mut change, key, &chain, &sha256).await? {
            is_any_new = true;
        } else {
            unchanged = Some(&key.owner);
        }
    }
    match unchanged {
        Some(owner) if held == Held::Refuse || !is_any_new => {
            Err(StoreError::Exists(format!("{owner}: this key is in the store already")))
        }
        _ => change.commit().await,
    }
}

/// Gives a key that is held the chain that came with it now; says whether it is another.
async fn correct_chain(
    change: &mut Change<'_>,
    key: &NewSecretKey,
    chain: &[u8],
    sha256: &str,
) -> Result<bool, StoreError> {
    if chain.is_empty() {
        return Ok(false);
    }
    let update = Statement::new(
        "UPDATE secret_keys SET chain = $1 WHERE owner = $2 AND sha256 = $3 AND chain <> $1",
    );
    Ok(change.execute(update.bind(chain).bind(&key.owner).bind(sha256)).await? > 0)
}

/// Removes all keys of an owner and says how many there were; where none is left, removes the marks that some were moved. One
/// after the other: whoever takes away revoked keys that stayed behind does not say that the owner has no key elsewhere.
pub(crate) async fn remove(database: &Database, owner: &str) -> Result<u64, StoreError> {
    let mut change = database.begin_change().await?;
    let delete = Statement::new("DELETE FROM secret_keys WHERE owner = $1").bind(owner);
    let removed = change.execute(delete).await?;
    let gone = match removed {
        0 => moved::forget(&mut change, owner, None).await?,
        removed => removed,
    };
    change.commit().await?;
    Ok(gone)
}

/// Removes one row whose key is in another store now, and leaves a mark of that.
///
/// # Errors
/// [`StoreError::Input`] where it was revoked since it was read: then it stays, and there it is a good one.
pub(crate) async fn leave(
    database: &Database,
    id: &str,
    key: &NewSecretKey,
    store: SecretKeyStoreKind,
    now: i64,
) -> Result<(), StoreError> {
    let mut change = database.begin_change().await?;
    let delete = Statement::new("DELETE FROM secret_keys WHERE id = $1 AND state = 'active'");
    let removed = change.execute(delete.bind(id)).await?;
    let select = Statement::new("SELECT id FROM secret_keys WHERE id = $1").bind(id);
    if removed == 0 && !change.fetch_all(select).await?.is_empty() {
        let (owner, certificate) = (&key.owner, key.certificate.fingerprint());
        return Err(StoreError::Input(format!(
            "{owner}: the key of certificate {certificate} was revoked while it was moved: it stays here, and is in the \
             other store as well: remove it there"
        )));
    }
    moved::mark(&mut change, key, store, now).await?;
    change.commit().await
}

/// The rows of one owner, or all.
pub(crate) async fn ids(
    database: &Database,
    owner: Option<&str>,
) -> Result<Vec<String>, StoreError> {
    let select =
        Statement::new("SELECT id FROM secret_keys WHERE ($1 = '' OR owner = $1) AND state = 'active' ORDER BY owner, id")
            .bind(owner.unwrap_or_default());
    let rows = database.fetch_all(select).await?;
    rows.iter().map(|row| row.get("id").map_err(|error| database.error(&error))).collect()
}

/// Whose keys were revoked, of one owner or all, `REVOKED_NAMED_MAX` at most.
pub(crate) async fn revoked(
    database: &Database,
    owner: Option<&str>,
) -> Result<Vec<String>, StoreError> {
    let select = Statement::new(
        "SELECT DISTINCT owner FROM secret_keys WHERE ($1 = '' OR owner = $1) \
         AND state <> 'active' ORDER BY owner LIMIT $2",
    );
    let select = select.bind(owner.unwrap_or_default()).bind(REVOKED_NAMED_MAX);
    let rows = database.fetch_all(select).await?;
    rows.iter().map(|row| row.get("owner").map_err(|error| database.error(&error))).collect()
}

/// Named in one message; the others show when these are gone.
const REVOKED_NAMED_MAX: i64 = 10;

/// One row with its secret, to be moved.
///
/// # Errors
/// [`StoreError::Input`] where it was revoked: another store would take it for a good one.
pub(crate) async fn secret(
    database: &Database,
    master_key: &MasterKey,
    id: &str,
) -> Result<NewSecretKey, StoreError> {
    let stored = by_id(database, id).await?;
    let gone = || StoreError::NotFound(format!("{id}: this key has just been removed"));
    let stored = stored.ok_or_else(gone)?;
    if stored.state() != KeyState::Active {
        let owner = stored.owner();
        return Err(StoreError::Input(format!(
            "{owner}: a key has just been revoked and stays here: move the others again"
        )));
    }
    let certificate = stored.certificate()?;
    Ok(NewSecretKey {
        purpose: KeyPurpose::of(&certificate).ok_or_else(|| stored.corrupt())?,
        pkcs8: stored.pkcs8(master_key)?,
        certificate,
        chain: stored.chain()?,
        owner: stored.owner,
    })
}

/// One row by its name.
pub(crate) async fn by_id(database: &Database, id: &str) -> Result<Option<StoredKey>, StoreError> {
    let select = Statement::new(
        "SELECT id, owner, purpose, state, wrapped, certificate, chain FROM secret_keys WHERE id = $1",
    );
    Ok(collect(database, select.bind(id)).await?.pop())
}

/// Rows of one owner, `rows_max` of them at most.
pub(crate) async fn of_owner(
    database: &Database,
    owner: &str,
    rows_max: i64,
) -> Result<Vec<StoredKey>, StoreError> {
    let select = Statement::new(
        "SELECT id, owner, purpose, state, wrapped, certificate, chain FROM secret_keys \
         WHERE owner = $1 ORDER BY not_before DESC, id LIMIT $2",
    );
    collect(database, select.bind(owner).bind(rows_max)).await
}

/// Rows with this certificate, by its SHA-256 in lower-case hexadecimal; `rows_max` of them at most.
pub(crate) async fn with_certificate(
    database: &Database,
    sha256: &str,
    rows_max: i64,
) -> Result<Vec<StoredKey>, StoreError> {
    let select = Statement::new(
        "SELECT id, owner, purpose, state, wrapped, certificate, chain FROM secret_keys \
         WHERE sha256 = $1 ORDER BY owner LIMIT $2",
    );
    collect(database, select.bind(sha256).bind(rows_max)).await
}

/// Rows after the one with this name, in the order of their names; begins with the empty name.
pub(crate) async fn page(
    database: &Database,
    after: &str,
    rows_max: i64,
) -> Result<Vec<StoredKey>, StoreError> {
    let select = Statement::new(
        "SELECT id, owner, purpose, state, wrapped, certificate, chain FROM secret_keys \
         WHERE id > $1 ORDER BY id LIMIT $2",
    );
    collect(database, select.bind(after).bind(rows_max)).await
}

/// Revokes one key; says whether it was there and not revoked as badly already.
pub(crate) async fn revoke(
    database: &Database,
    id: &str,
    state: KeyState,
) -> Result<bool, StoreError> {
    let mut change = database.begin_change().await?;
    let update = Statement::new(
        "UPDATE secret_keys SET state = $1 WHERE id = $2 AND state <> $1 AND state <> 'compromised'",
    );
    let revoked = change.execute(update.bind(state.as_str()).bind(id)).await?;
    change.commit().await?;
    Ok(revoked > 0)
}

/// Removes one row; says whether it was there.
pub(crate) async fn remove_one(database: &Database, id: &str) -> Result<bool, StoreError> {
    let mut change = database.begin_change().await?;
    let delete = Statement::new("DELETE FROM secret_keys WHERE id = $1").bind(id);
    let removed = change.execute(delete).await?;
    change.commit().await?;
    Ok(removed > 0)
}

async fn collect(database: &Database, select: Statement<'_>) -> Result<Vec<StoredKey>, StoreError> {
    let rows = database.fetch_all(select).await?;
    rows.iter().map(|row| StoredKey::from_row(row).map_err(|e| database.error(&e))).collect()
}

pub(crate) const TABLE: &str = "secret_keys";
