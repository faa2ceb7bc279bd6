//! The master key as a running process holds it. A rotation by another process is noticed by what it leaves: rows that
//! this key does not open. Then the key is read again, once for each such failure, and the work is done anew.

use std::sync::{Arc, PoisonError, RwLock};

use super::MasterKey;
use crate::database::Database;
use crate::error::StoreError;
use crate::key_check;
use crate::secret_source::SecretSource;

/// The key, and where it is read again.
#[derive(Debug)]
pub(crate) struct HeldMasterKey {
    source: SecretSource,
    key: RwLock<Arc<MasterKey>>,
}

impl HeldMasterKey {
    /// Reads the key that this database is sealed under.
    ///
    /// # Errors
    /// As [`fitting`].
    pub(crate) async fn open(
        database: &Database,
        source: &SecretSource,
    ) -> Result<Self, StoreError> {
        let key = RwLock::new(Arc::new(fitting(database, source).await?));
        Ok(Self { source: source.clone(), key })
    }

    /// Does what needs the key. Where that fails because the database is sealed under another one by now, the key is read
    /// again and the work done once more, from its beginning.
    ///
    /// # Errors
    /// What the work says; [`StoreError::WrongMasterKey`] where the other key is not here.
    pub(crate) async fn used<T, Work>(
        &self,
        database: &Database,
        work: impl Fn(Arc<MasterKey>) -> Work,
    ) -> Result<T, StoreError>
    where
        Work: Future<Output = Result<T, StoreError>>,
    {
        let held = Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner));
        let error = match work(Arc::clone(&held)).await {
            Err(error @ (StoreError::Corrupt { .. } | StoreError::WrongMasterKey { .. })) => error,
            other => return other,
        };
        if key_check::fits(database, &held).await? {
            return Err(error);
        }
        let key = Arc::new(fitting(database, &self.source).await?);
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&key);
        tracing::info!(source = %self.source, "the master key was rotated and has been read again");
        work(key).await
    }
}

/// The key that the database is sealed under: the one at `source`, else its successor, which lies there while a rotation
/// goes on or after it was cut off. A database that is sealed under none is given none: only `init` makes a new one, and another
/// has lost its keys.
///
/// # Errors
/// [`StoreError::Secret`] where it cannot be read, [`StoreError::WrongMasterKey`] where neither fits,
/// [`StoreError::DatabaseEmpty`].
pub(crate) async fn fitting(
    database: &Database,
    source: &SecretSource,
) -> Result<MasterKey, StoreError> {
    for _ in 0..READS {
        let first = MasterKey::read(source);
        let check = key_check::stored(database).await?.ok_or_else(|| database.empty_error())?;
        if let Ok(key) = first
            && check.is_opened_by(&key)
        {
            return Ok(key);
        }
        let successor = source.successor();
        if let Ok(key) = MasterKey::read(&successor)
            && check.is_opened_by(&key)
        {
            tracing::warn!(
                file = %successor,
                "the database is sealed under this new master key already: `sealgate master-key \
                 rotate` on this machine puts it in place"
            );
            return Ok(key);
        }
    }
    MasterKey::read(source)?;
    Err(wrong(database, source).await)
}

/// Why no key here opens the database.
async fn wrong(database: &Database, source: &SecretSource) -> StoreError {
    let check = key_check::stored(database).await.ok().flatten();
    let fits = |former: &SecretSource| match (MasterKey::read(former), &check) {
        (Ok(key), Some(check)) => check.is_opened_by(&key),
        _ => false,
    };
    let right = source.formers().find(fits).map(|former| former.to_string());
    StoreError::WrongMasterKey { source: source.to_string(), right }
}

/// The files are read again where none fits: they may have been renamed between two looks.
const READS: usize = 2;
