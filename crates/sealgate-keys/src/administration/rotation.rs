//! The rotation of the master key: everything that is sealed under it is sealed under a new one, in one transaction.
//!
//! At every moment a key on disk opens the database: the new key is durable before the transaction commits, the old one
//! keeps its name until after that. A process that is killed leaves the new key's file, and the same command goes on from
//! there. Other processes meet rows that their key does not open and read it again ([`HeldMasterKey`]); whoever writes
//! looks, within his transaction, whether his key is still the one.
//!
//! What was sealed under the old key is wiped before the new one is put in place, so that a rotation that is cut off meanwhile is
//! finished with that: whoever has the old key and the files finds nothing that it opens.
//!
//! [`HeldMasterKey`]: crate::master_key::held::HeldMasterKey

use std::path::{Path, PathBuf};

use super::own_authority;
use crate::database::{Change, Database, Statement, Wiping};
use crate::error::StoreError;
use crate::key_check;
use crate::master_key::successor::Successor;
use crate::master_key::{MasterKey, Row};
use crate::secret_source::SecretSource;
use crate::stores::StoresConfig;

/// What a rotation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Where the new key is.
    pub key: PathBuf,
    /// Where the old key is kept, which opens older copies of the database; `None` where the new key was not put in the
    /// old one's place.
    pub former: Option<PathBuf>,
    /// Where the key is now that was kept there until now, if there was another.
    pub earlier: Option<PathBuf>,
    /// How many secrets were sealed anew; `None` where an earlier rotation had done that and was cut off.
    pub secrets: Option<u64>,
    /// Why what was sealed under the old key may still be in the database's files, and what to do; `None` where it is gone.
    pub remains: Option<String>,
}

/// Makes a new master key, seals everything under it, and puts it in the old one's place, or leaves it in `to_file`. A key
/// that was prepared or left by a rotation that was cut off is used.
///
/// # Errors
/// [`StoreError::Input`] where the key is a credential and there is no `to_file`, [`StoreError::WrongMasterKey`],
/// [`StoreError::Corrupt`] for the first row that the old key does not open, [`StoreError::Secret`] about the files.
/// After each of them the same call may be made again.
pub async fn rotate_master_key(
    config: &StoresConfig,
    to_file: Option<&Path>,
) -> Result<Rotation, StoreError> {
    let target = target(&config.master_key, to_file)?;
    let database = Database::open(&config.database).await?;
    let rotated = rotate(&database, &config.master_key, &target, to_file.is_none()).await;
    database.close().await;
    rotated
}

/// Makes the next master key and changes nothing else: it can be copied to other machines before the rotation. Returns its
/// file.
///
/// # Errors
/// As [`rotate_master_key`].
pub fn prepare_master_key(
    config: &StoresConfig,
    to_file: Option<&Path>,
) -> Result<PathBuf, StoreError> {
    let target = target(&config.master_key, to_file)?;
    // Where the present key is unusable there is nothing to be followed.
    let key = MasterKey::read(&config.master_key)?;
    let successor = Successor::take_up(&target, present(&config.master_key).as_deref())?;
    if successor.key().is_same(&key)? {
        return Err(in_use(&target));
    }
    Ok(successor.path().to_owned())
}

fn in_use(path: &Path) -> StoreError {
    StoreError::Input(format!(
        "{}: holds the key that is in use already, and no new one: remove this file, or name another",
        path.display()
    ))
}

/// Where the new key is made.
fn target(source: &SecretSource, to_file: Option<&Path>) -> Result<PathBuf, StoreError> {
    match (to_file, source.successor()) {
        (Some(path), _) => Ok(path.to_owned()),
        (None, SecretSource::File(path)) => Ok(path),
        (None, SecretSource::Credential(_)) => {
            let why = format!(
                "the master key is {source}, which only systemd can exchange: name a file for the \
                 new key with --to-file, and make it the credential afterwards"
            );
            Err(StoreError::Input(why))
        }
    }
}

/// The present key's own file, not a link to it.
fn present(source: &SecretSource) -> Option<PathBuf> {
    match source {
        SecretSource::Credential(_) => None,
        SecretSource::File(path) => Some(path.canonicalize().unwrap_or_else(|_| path.clone())),
    }
}

async fn rotate(
    database: &Database,
    source: &SecretSource,
    target: &Path,
    swaps: bool,
) -> Result<Rotation, StoreError> {
    let wrong = || StoreError::WrongMasterKey { source: source.to_string(), right: None };
    let old = MasterKey::read(source);
    // Where nothing is under way, no file is made for a key that is the wrong one.
    if !target.exists() && !key_check::fits(database, old.as_ref().map_err(Clone::clone)?).await? {
        return Err(wrong());
    }
    let present = present(source);
    let successor = Successor::take_up(target, present.as_deref())?;
    let secrets = if key_check::fits(database, successor.key()).await? {
        // The other way a rotation that was cut off looks, and is none: nothing would be sealed anew, and a former key given up.
        if let Ok(old) = &old
            && key_check::fits(database, old).await?
        {
            return Err(in_use(target));
        }
        None
    } else {
        let old = old?;
        if !key_check::fits(database, &old).await? {
            return Err(wrong());
        }
        let sealed = seal_anew(database, &old, successor.key()).await;
        Some(sealed.map_err(|error| match error {
            // Another machine was first.
            StoreError::WrongMasterKey { .. } => wrong(),
            other => other,
        })?)
    };
    let remains = database.wipe(Wiping::FreeRoomToo).await;
    let key = successor.path().to_owned();
    let mut rotation = Rotation { key, former: None, earlier: None, secrets, remains };
    if let (Some(present), SecretSource::File(former), true) = (present, source.former(), swaps) {
        rotation.earlier = successor.swap(&present, &former)?;
        rotation.key = present;
        rotation.former = Some(former);
    }
    Ok(rotation)
}

/// Seals everything under another key, reads it back, and only then commits; says how many secrets there are.
async fn seal_anew(
    database: &Database,
    old: &MasterKey,
    new: &MasterKey,
) -> Result<u64, StoreError> {
    let mut change = database.begin_change().await?;
    key_check::require(&mut change, old).await?;
    let mut count = 0_u64;
    for table in TABLES {
        let mut after = String::new();
        while let Some(rows) = table.page(&mut change, &mut after).await? {
            for row in &rows {
                let wrapped =
                    new.wrap(&table.row(row), &old.unwrap(&table.row(row), &row.wrapped)?)?;
                let update = Statement::new(table.update).bind(&wrapped).bind(&row.id);
                change.execute(update).await?;
            }
        }
    }
    for table in TABLES {
        let mut after = String::new();
        while let Some(rows) = table.page(&mut change, &mut after).await? {
            for row in &rows {
                new.unwrap(&table.row(row), &row.wrapped)?;
                count = count.saturating_add(1);
            }
        }
    }
    key_check::replace(&mut change, new).await?;
    change.commit().await?;
    Ok(count)
}

/// A table with secrets.
struct Table {
    name: &'static str,
    select: &'static str,
    update: &'static str,
}

/// A row of one.
struct Sealed {
    id: String,
    owner: String,
    wrapped: Vec<u8>,
}

impl Table {
    /// The rows after the one with this name, in the order of their names; `None` after the last.
    async fn page(
        &self,
        change: &mut Change<'_>,
        after: &mut String,
    ) -> Result<Option<Vec<Sealed>>, StoreError> {
        let select = Statement::new(self.select).bind(after.as_str()).bind(PAGE_ROWS);
        let rows = change.fetch_all(select).await?;
        let failed = |error: sqlx::Error| change.database().error(&error);
        let mut page = Vec::with_capacity(rows.len());
        for row in &rows {
            page.push(Sealed {
                id: row.get("id").map_err(failed)?,
                owner: row.get("owner").map_err(failed)?,
                wrapped: row.get("wrapped").map_err(failed)?,
            });
        }
        let Some(last) = page.last() else { return Ok(None) };
        after.clone_from(&last.id);
        Ok(Some(page))
    }

    fn row<'r>(&self, sealed: &'r Sealed) -> Row<'r> {
        Row { table: self.name, id: &sealed.id, owner: &sealed.owner }
    }
}

/// Every table with something that is sealed under the master key.
const TABLES: [Table; 2] = [
    Table {
        name: own_authority::TABLE,
        select: "SELECT id, '' AS owner, wrapped FROM own_authorities WHERE id > $1 ORDER BY id LIMIT $2",
        update: "UPDATE own_authorities SET wrapped = $1 WHERE id = $2",
    },
    Table {
        name: crate::secret_key_store::embedded::TABLE,
        select: "SELECT id, owner, wrapped FROM secret_keys WHERE id > $1 ORDER BY id LIMIT $2",
        update: "UPDATE secret_keys SET wrapped = $1 WHERE id = $2",
    },
];
/// Rows read at once.
const PAGE_ROWS: i64 = 256;
