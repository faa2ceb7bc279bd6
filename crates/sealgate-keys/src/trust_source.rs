//! Builds the [`TrustStore`] from what the administrator imported, our own authority and revocation lists, and builds it
//! anew when one of these changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use sealgate_core::keys::Certificate;
use sealgate_core::trust::TrustStore;
use tokio::sync::Mutex;

use crate::database::Database;
use crate::error::StoreError;
use crate::import::crl;

/// The source, with what was last built.
#[derive(Debug)]
pub(crate) struct TrustSource {
    files: Vec<PathBuf>,
    built: Mutex<Option<Built>>,
}

#[derive(Debug)]
struct Built {
    generation: u64,
    stamps: Vec<Stamp>,
    store: Arc<TrustStore>,
}

/// Changes when a file is written or replaced.
type Stamp = Option<(SystemTime, u64)>;

impl TrustSource {
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        Self { files, built: Mutex::new(None) }
    }

    pub(crate) async fn current(
        &self,
        database: &Database,
        generation: u64,
    ) -> Result<Arc<TrustStore>, StoreError> {
        let stamps = self.stamps();
        let mut built = self.built.lock().await;
        if let Some(built) =
            built.as_ref().filter(|b| b.generation == generation && b.stamps == stamps)
        {
            return Ok(Arc::clone(&built.store));
        }
        let anchors = certificates(database, Role::Anchor).await?;
        let intermediates = certificates(database, Role::Intermediate).await?;
        let mut crls = stored_crls(database).await?;
        for path in &self.files {
            crls.extend(crl::read_file(path)?);
        }
        let store = Arc::new(TrustStore::new(anchors, intermediates, crls));
        *built = Some(Built { generation, stamps, store: Arc::clone(&store) });
        Ok(store)
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        self.files.iter().map(stamp).collect()
    }
}

/// What an authority in the database is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Anchor,
    Intermediate,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Intermediate => "intermediate",
        }
    }
}

/// Authorities of one role; our own is an anchor.
pub(crate) async fn certificates(
    database: &Database,
    role: Role,
) -> Result<Vec<Arc<Certificate>>, StoreError> {
    let ders: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT certificate FROM authorities WHERE role = $1 \
         UNION SELECT certificate FROM own_authorities WHERE $1 = 'anchor'",
    )
    .bind(role.as_str())
    .fetch_all(database.pool())
    .await
    .map_err(|error| database.error(&error))?;
    let corrupt = || StoreError::Corrupt { table: "authorities", owner: role.as_str().to_owned() };
    ders.iter().map(|der| Certificate::from_der(der).map(Arc::new).map_err(|_| corrupt())).collect()
}

async fn stored_crls(database: &Database) -> Result<Vec<Vec<u8>>, StoreError> {
    sqlx::query_scalar("SELECT crl FROM crls")
        .fetch_all(database.pool())
        .await
        .map_err(|error| database.error(&error))
}
