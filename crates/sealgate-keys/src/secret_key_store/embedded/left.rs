//! Keys that stayed in this database when others were moved, while another store is in use.
//!
//! Without a look at them the other store's silence would be "no key", and the relay would send their owners' mail unsigned and hand
//! them what it cannot decrypt.

use crate::database::{Database, Statement};
use crate::error::StoreError;
use crate::secret_key_store::{KeyPurpose, KeyState, RemoteKey, SecretKeyEntry};

/// Asked where the store in use has no key of an owner for a purpose.
///
/// # Errors
/// [`StoreError::Unavailable`] where one is here.
pub(crate) async fn require_none(
    database: &Database,
    owner: &str,
    purpose: KeyPurpose,
) -> Result<(), StoreError> {
    require(database, owner, |entry| {
        KeyPurpose::of(&entry.certificate).is_some_and(|own| own.serves(purpose))
    })
    .await
}

/// Asked of all keys that the store in use has of an owner.
///
/// # Errors
/// [`StoreError::Unavailable`] where another one is here.
pub(crate) async fn require_all_there(
    database: &Database,
    owner: &str,
    found: &[RemoteKey],
) -> Result<(), StoreError> {
    require(database, owner, |entry| {
        !found.iter().any(|key| key.certificate.der() == entry.certificate.der())
    })
    .await
}

async fn require(
    database: &Database,
    owner: &str,
    is_left: impl Fn(&SecretKeyEntry) -> bool,
) -> Result<(), StoreError> {
    let here = super::list(database, Some(owner)).await?;
    match here.iter().any(|entry| entry.is_active && is_left(entry)) {
        true => Err(unavailable(owner)),
        false => Ok(()),
    }
}

/// Whose keys are here, revoked ones aside.
pub(crate) async fn owners(database: &Database) -> Result<Vec<String>, StoreError> {
    let select =
        Statement::new("SELECT DISTINCT owner FROM secret_keys WHERE state = $1 ORDER BY owner");
    let rows = database.fetch_all(select.bind(KeyState::Active.as_str())).await?;
    let owner = |row: &crate::database::Row| row.get("owner");
    rows.iter().map(owner).collect::<Result<_, _>>().map_err(|error| database.error(&error))
}

fn unavailable(owner: &str) -> StoreError {
    StoreError::Unavailable {
        store: "secret keys".to_owned(),
        why: format!(
            "keys of {owner} are still in the database, and not in the store in use: move them with `sealgate \
             secret-key move {owner} --to STORE`; or, with [secret_keys] store = \"embedded\" again, remove them"
        ),
    }
}
