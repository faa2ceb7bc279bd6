//! Tells the right master key from a wrong one: a known text, wrapped when the database was made and again by each
//! rotation, in one transaction with what is sealed under the key.

use crate::database::{Change, Database, Row as DatabaseRow, Statement};
use crate::error::StoreError;
use crate::master_key::{MasterKey, Row};

/// The wrapped text.
pub(crate) struct Check {
    wrapped: Vec<u8>,
}

impl Check {
    /// Whether this is the key.
    pub(crate) fn is_opened_by(&self, key: &MasterKey) -> bool {
        key.unwrap(&ROW, &self.wrapped).is_ok_and(|text| text.as_slice() == KNOWN_TEXT)
    }

    fn from_row(database: &Database, row: &DatabaseRow) -> Result<Self, StoreError> {
        Ok(Self { wrapped: row.get("value").map_err(|error| database.error(&error))? })
    }
}

/// What the database holds; `None` in one that was never finished.
pub(crate) async fn stored(database: &Database) -> Result<Option<Check>, StoreError> {
    let row = database.fetch_optional(Statement::new(SELECT).bind(ROW.id)).await?;
    row.map(|row| Check::from_row(database, &row)).transpose()
}

/// Whether the database is sealed under this key.
pub(crate) async fn fits(database: &Database, key: &MasterKey) -> Result<bool, StoreError> {
    Ok(stored(database).await?.is_some_and(|check| check.is_opened_by(key)))
}

/// Within a change, which keeps every other writer out: whether what is written now may be sealed under this key.
///
/// # Errors
/// [`StoreError::WrongMasterKey`].
pub(crate) async fn require(change: &mut Change<'_>, key: &MasterKey) -> Result<(), StoreError> {
    let rows = change.fetch_all(Statement::new(SELECT).bind(ROW.id)).await?;
    let check = rows.first().map(|row| Check::from_row(change.database(), row)).transpose()?;
    if check.is_some_and(|check| check.is_opened_by(key)) {
        return Ok(());
    }
    Err(StoreError::WrongMasterKey { source: "in memory".to_owned(), right: None })
}

/// Puts the known text into a new database; says whether none was there.
pub(crate) async fn establish(
    change: &mut Change<'_>,
    key: &MasterKey,
) -> Result<bool, StoreError> {
    let wrapped = key.wrap(&ROW, KNOWN_TEXT)?;
    let insert = Statement::new(
        "INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
    );
    Ok(change.execute(insert.bind(ROW.id).bind(&wrapped)).await? > 0)
}

/// Makes this the key of the database.
pub(crate) async fn replace(change: &mut Change<'_>, key: &MasterKey) -> Result<(), StoreError> {
    let wrapped = key.wrap(&ROW, KNOWN_TEXT)?;
    let update = Statement::new("UPDATE facts SET value = $1 WHERE name = $2");
    change.execute(update.bind(&wrapped).bind(ROW.id)).await?;
    require(change, key).await
}

const SELECT: &str = "SELECT value FROM facts WHERE name = $1";
const ROW: Row<'_> = Row { table: "facts", id: "master-key-check", owner: "" };
const KNOWN_TEXT: &[u8] = b"sealgate";
