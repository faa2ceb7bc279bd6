//! Builds the [`TrustStore`] from what the administrator imported, our own authority and revocation lists, and builds it
//! anew when one of these changes. A revocation list that cannot be read any more is replaced by its last good version
//! and complained about: without it revoked certificates would pass, and refusing all mail helps nobody.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use sealgate_core::keys::Certificate;
use sealgate_core::trust::TrustStore;
use tokio::sync::Mutex;

use crate::database::{Database, Statement};
use crate::error::StoreError;
use crate::import::crl;

/// The source, with what was last built.
#[derive(Debug)]
pub(crate) struct TrustSource {
    files: Vec<PathBuf>,
    state: Mutex<State>,
    /// What was built last; read while another is being built, which may hang.
    last: RwLock<Option<Arc<TrustStore>>>,
}

#[derive(Debug, Default)]
struct State {
    built: Option<Built>,
    /// What every file held when it was last good.
    lists: HashMap<PathBuf, Vec<Vec<u8>>>,
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
        Self { files, state: Mutex::default(), last: RwLock::default() }
    }

    pub(crate) async fn current(
        &self,
        database: &Database,
        generation: u64,
    ) -> Result<Arc<TrustStore>, StoreError> {
        let stamps = self.stamps();
        let mut state = self.state.lock().await;
        let is_current = |built: &&Built| built.generation == generation && built.stamps == stamps;
        if let Some(built) = state.built.as_ref().filter(is_current) {
            return Ok(Arc::clone(&built.store));
        }
        let anchors = certificates(database, Role::Anchor).await?;
        let intermediates = certificates(database, Role::Intermediate).await?;
        let mut crls = stored_crls(database).await?;
        for path in &self.files {
            crls.extend(state.read(path)?);
        }
        let store = Arc::new(TrustStore::new(anchors, intermediates, crls));
        let unreadable = store.unreadable_crls().len();
        if unreadable > 0 {
            tracing::error!(unreadable, "revocation lists that cannot be read check nothing");
        }
        state.built = Some(Built { generation, stamps, store: Arc::clone(&store) });
        let last = Some(Arc::clone(&store));
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = last;
        Ok(store)
    }

    /// What was built last; `None` where nothing was.
    pub(crate) fn last(&self) -> Option<Arc<TrustStore>> {
        self.last.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where revocation lists are, besides the database.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        self.files.iter().map(stamp).collect()
    }
}

impl State {
    fn read(&mut self, path: &Path) -> Result<Vec<Vec<u8>>, StoreError> {
        match crl::read_file(path) {
            Ok(lists) => {
                self.lists.insert(path.to_owned(), lists.clone());
                Ok(lists)
            }
            Err(error) => {
                let last_good = self.lists.get(path).cloned().ok_or(error.clone())?;
                tracing::error!(%error, "revocation list unusable, its last version is used");
                Ok(last_good)
            }
        }
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
    let select = Statement::new(
        "SELECT certificate FROM authorities WHERE role = $1 \
         UNION SELECT certificate FROM own_authorities WHERE $1 = 'anchor'",
    );
    let ders = column(database, select.bind(role.as_str()), "certificate").await?;
    let corrupt = || StoreError::Corrupt { table: "authorities", owner: role.as_str().to_owned() };
    ders.iter().map(|der| Certificate::from_der(der).map(Arc::new).map_err(|_| corrupt())).collect()
}

/// Revocation lists that were imported.
pub(crate) async fn stored_crls(database: &Database) -> Result<Vec<Vec<u8>>, StoreError> {
    column(database, Statement::new("SELECT crl FROM crls ORDER BY issuer, this_update, id"), "crl")
        .await
}

/// A column of bytes.
pub(crate) async fn column(
    database: &Database,
    select: Statement<'_>,
    name: &str,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let rows = database.fetch_all(select).await?;
    rows.iter().map(|row| row.get(name).map_err(|error| database.error(&error))).collect()
}
