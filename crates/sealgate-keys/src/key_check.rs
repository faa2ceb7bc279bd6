//! Tells the right master key from a wrong one: a known text, wrapped when the database was made.

use crate::database::{Database, Statement};
use crate::error::StoreError;
use crate::master_key::{MasterKey, Row};
use crate::secret_source::SecretSource;

/// Puts the known text into a new database.
pub(crate) async fn establish(
    database: &Database,
    master_key: &MasterKey,
) -> Result<(), StoreError> {
    let wrapped = master_key.wrap(&ROW, KNOWN_TEXT)?;
    let insert = Statement::new("INSERT INTO facts (name, value) VALUES ($1, $2)");
    database.execute(insert.bind(ROW.id).bind(&wrapped)).await?;
    Ok(())
}

/// Whether this master key made this database.
pub(crate) async fn verify(
    database: &Database,
    master_key: &MasterKey,
    source: &SecretSource,
) -> Result<(), StoreError> {
    let select = Statement::new("SELECT value FROM facts WHERE name = $1").bind(ROW.id);
    let Some(row) = database.fetch_optional(select).await? else {
        return establish(database, master_key).await;
    };
    let wrapped: Vec<u8> = row.get("value").map_err(|error| database.error(&error))?;
    match master_key.unwrap(&ROW, &wrapped) {
        Ok(text) if text.as_slice() == KNOWN_TEXT => Ok(()),
        _ => Err(StoreError::WrongMasterKey { source: source.to_string() }),
    }
}

const ROW: Row<'_> = Row { table: "facts", id: "master-key-check", owner: "" };
const KNOWN_TEXT: &[u8] = b"sealgate";
