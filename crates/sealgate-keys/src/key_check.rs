//! Tells the right master key from a wrong one: a known text, wrapped when the database was made.

use crate::database::Database;
use crate::error::StoreError;
use crate::master_key::{MasterKey, Row};
use crate::secret_source::SecretSource;

/// Puts the known text into a new database.
pub(crate) async fn establish(
    database: &Database,
    master_key: &MasterKey,
) -> Result<(), StoreError> {
    let wrapped = master_key.wrap(&ROW, KNOWN_TEXT)?;
    sqlx::query("INSERT INTO facts (name, value) VALUES ($1, $2)")
        .bind(ROW.id)
        .bind(wrapped)
        .execute(database.pool())
        .await
        .map_err(|error| database.error(&error))?;
    Ok(())
}

/// Whether this master key made this database.
pub(crate) async fn verify(
    database: &Database,
    master_key: &MasterKey,
    source: &SecretSource,
) -> Result<(), StoreError> {
    let wrapped: Option<Vec<u8>> = sqlx::query_scalar("SELECT value FROM facts WHERE name = $1")
        .bind(ROW.id)
        .fetch_optional(database.pool())
        .await
        .map_err(|error| database.error(&error))?;
    let Some(wrapped) = wrapped else { return establish(database, master_key).await };
    match master_key.unwrap(&ROW, &wrapped) {
        Ok(text) if text.as_slice() == KNOWN_TEXT => Ok(()),
        _ => Err(StoreError::WrongMasterKey { source: source.to_string() }),
    }
}

const ROW: Row<'_> = Row { table: "facts", id: "master-key-check", owner: "" };
const KNOWN_TEXT: &[u8] = b"sealgate";
