//! Marks of keys that were moved to a store outside this database.
//!
//! Without them the embedded store would say of such an owner that he has no key, and the relay would send his mail
//! unsigned and hand him what it cannot decrypt. With them the answer is an error until the configuration names the other
//! store.

use crate::database::{Change, Database, Statement};
use crate::error::StoreError;
use crate::secret_key_store::{KeyPurpose, NewSecretKey, SecretKeyStoreKind};

/// One mark: whose key for which purpose is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) owner: String,
    pub(crate) store: String,
}

/// Writes that a key is in a store now.
pub(super) async fn mark(
    change: &mut Change<'_>,
    key: &NewSecretKey,
    store: SecretKeyStoreKind,
    now: i64,
) -> Result<(), StoreError> {
    for purpose in purposes(key.purpose) {
        let insert = Statement::new(
            "INSERT INTO moved_keys (owner, purpose, store, moved_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (owner, purpose) DO UPDATE SET store = excluded.store, \
             moved_at = excluded.moved_at",
        )
        .bind(&key.owner)
        .bind(purpose.as_str())
        .bind(store.as_str())
        .bind(now);
        change.execute(insert).await?;
    }
    Ok(())
}

/// Removes the marks of an owner, all or those for a purpose, and says how many there were.
pub(super) async fn forget(
    change: &mut Change<'_>,
    owner: &str,
    purpose: Option<KeyPurpose>,
) -> Result<u64, StoreError> {
    let mut forgotten = 0_u64;
    for purpose in purposes(purpose.unwrap_or(KeyPurpose::Both)) {
        let delete = Statement::new("DELETE FROM moved_keys WHERE owner = $1 AND purpose = $2");
        let removed = change.execute(delete.bind(owner).bind(purpose.as_str())).await?;
        forgotten = forgotten.saturating_add(removed);
    }
    Ok(forgotten)
}

/// # Errors
/// [`StoreError::Unavailable`] where one of these owners has a mark for the purpose.
pub(crate) async fn refuse(
    database: &Database,
    owners: &[&str],
    purpose: KeyPurpose,
) -> Result<(), StoreError> {
    for owner in owners {
        let select = Statement::new(
            "SELECT owner, store FROM moved_keys WHERE owner = $1 AND purpose = $2 LIMIT 1",
        );
        let row = database.fetch_optional(select.bind(*owner).bind(purpose.as_str())).await?;
        if let Some(row) = row {
            let mark = Mark::from_row(&row).map_err(|error| database.error(&error))?;
            return Err(unavailable(&mark.owner, &mark.store));
        }
    }
    Ok(())
}

/// All marks, one an owner and store; `LISTED_MAX` at most.
pub(crate) async fn list(database: &Database) -> Result<Vec<Mark>, StoreError> {
    let select = Statement::new(
        "SELECT DISTINCT owner, store FROM moved_keys ORDER BY owner, store LIMIT $1",
    );
    let rows = database.fetch_all(select.bind(LISTED_MAX)).await?;
    rows.iter().map(|row| Mark::from_row(row).map_err(|error| database.error(&error))).collect()
}

/// What the embedded store says of marked owners: `who` is one or several of them.
pub(crate) fn unavailable(who: &str, store: &str) -> StoreError {
    StoreError::Unavailable {
        store: "embedded secret keys".to_owned(),
        why: format!(
            "the keys of {who} were moved: set [secret_keys] store = \"{store}\" and reload, or make \
             or import keys here, or forget them with `sealgate secret-key remove`"
        ),
    }
}

impl Mark {
    fn from_row(row: &crate::database::Row) -> Result<Self, sqlx::Error> {
        Ok(Self { owner: row.get("owner")?, store: row.get("store")? })
    }
}

fn purposes(purpose: KeyPurpose) -> impl Iterator<Item = KeyPurpose> {
    [KeyPurpose::Sign, KeyPurpose::Encrypt].into_iter().filter(move |one| purpose.serves(*one))
}

/// Marks that are listed: enough to name some and to say that there are more.
const LISTED_MAX: i64 = 1000;
