//! The database that the embedded stores share: where it is, how it is opened, and how a change is noticed.
//!
//! SQLite in WAL mode, so that `sealgate secret-key ...` writes while the relay reads. The SQL of the stores keeps to
//! what PostgreSQL takes too ($1 placeholders, ON CONFLICT); what is SQLite's own stands in this file and in
//! `migrations/sqlite`.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite};
use tokio::sync::Mutex;

use crate::error::StoreError;

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseUrl {
    /// A file.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// The same with a relative path starting at `directory`.
    #[must_use]
    pub fn within(&self, directory: &Path) -> Self {
        match self {
            Self::Sqlite(path) => Self::Sqlite(directory.join(path)),
        }
    }
}

impl Default for DatabaseUrl {
    fn default() -> Self {
        Self::Sqlite(PathBuf::from("sealgate.db"))
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let usable = !path.is_empty() && !path.contains([':', '?', '#', '\0']);
            if usable {
                return Ok(Self::Sqlite(PathBuf::from(path)));
            }
        } else if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(format!("`{text}`: this build knows SQLite only: write sqlite:FILE"));
        }
        Err(format!("`{text}` is no database: write sqlite:FILE"))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
        }
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    url: DatabaseUrl,
    pool: SqlitePool,
    watcher: Mutex<Watcher>,
}

/// A connection that writes nothing: to it, every write is another's.
#[derive(Debug)]
struct Watcher {
    /// `None` once closed.
    connection: Option<SqliteConnection>,
    /// The data version (SQLite's PRAGMA) at the last look.
    seen: Option<i64>,
    changes: i64,
}

impl Database {
    /// Opens an existing database and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::DatabaseMissing`] or [`StoreError::Database`].
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let DatabaseUrl::Sqlite(path) = url;
        if !path.exists() {
            return Err(StoreError::DatabaseMissing(path.clone()));
        }
        let failed = |error: sqlx::Error| database_error(url, &error);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        sqlx::migrate!("migrations/sqlite").run(&pool).await.map_err(|error| {
            StoreError::Database { database: url.to_string(), why: error.to_string() }
        })?;
        let connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        let watcher = Mutex::new(Watcher { connection: Some(connection), seen: None, changes: 0 });
        Ok(Self { url: url.clone(), pool, watcher })
    }

    /// Makes a new, empty database, mode 0600, and opens it.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where there is one, else [`StoreError::Database`].
    pub async fn create(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let DatabaseUrl::Sqlite(path) = url;
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        created.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                StoreError::Exists(format!("{}: exists already and is left alone", path.display()))
            }
            _ => StoreError::Database { database: url.to_string(), why: error.to_string() },
        })?;
        Self::open(url).await
    }

    /// Closes all connections; the last one of all processes to do so leaves everything in the one file.
    pub async fn close(&self) {
        self.pool.close().await;
        let mut watcher = self.watcher.lock().await;
        // Closing is a courtesy: nothing is lost where it fails.
        if let Some(connection) = watcher.connection.take() {
            let _ = connection.close().await;
        }
    }

    /// How many changes that answers depend on were ever made, by whatever process. Costs a pragma where nothing was
    /// written since the last call.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn changes(&self) -> Result<i64, StoreError> {
        let failed = |error: sqlx::Error| self.error(&error);
        let mut watcher = self.watcher.lock().await;
        let Watcher { connection, seen, changes } = &mut *watcher;
        let connection = connection.as_mut().ok_or_else(|| failed(sqlx::Error::PoolClosed))?;
        let version: i64 = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        if *seen != Some(version) {
            *changes = sqlx::query_scalar("SELECT counter FROM changes WHERE id = 1")
                .fetch_one(&mut *connection)
                .await
                .map_err(failed)?;
            *seen = Some(version);
        }
        Ok(watcher.changes)
    }

    /// Begins a change that answers depend on; the counter goes up with its commit. Being a write from its first
    /// statement on, it never fails half-way because another writer came first.
    pub(crate) async fn begin_change(&self) -> Result<sqlx::Transaction<'_, Sqlite>, StoreError> {
        let failed = |error: sqlx::Error| self.error(&error);
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        sqlx::query("UPDATE changes SET counter = counter + 1 WHERE id = 1")
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        Ok(transaction)
    }

    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    pub(crate) fn error(&self, error: &sqlx::Error) -> StoreError {
        database_error(&self.url, error)
    }
}

fn database_error(url: &DatabaseUrl, error: &sqlx::Error) -> StoreError {
    let why = error.to_string().replace('\n', " ");
    StoreError::Database { database: url.to_string(), why }
}

/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_urls_are_read() {
        for (text, path) in [
            ("sqlite:sealgate.db", "sealgate.db"),
            ("sqlite:///var/lib/sealgate.db", "/var/lib/sealgate.db"),
        ] {
            assert_eq!(text.parse(), Ok(DatabaseUrl::Sqlite(PathBuf::from(path))));
        }
        for text in ["", "sealgate.db", "sqlite:", "sqlite::memory:", "postgres://db/x", "mysql:x"]
        {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_change_through_another_connection_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(directory.path().join("sealgate.db"));
        assert!(matches!(Database::open(&url).await, Err(StoreError::DatabaseMissing(_))));
        let first = Database::create(&url).await.unwrap();
        assert!(matches!(Database::create(&url).await, Err(StoreError::Exists(_))));
        let second = Database::open(&url).await.unwrap();
        let before = first.changes().await.unwrap();
        assert_eq!(first.changes().await.unwrap(), before);
        let change = second.begin_change().await.unwrap();
        drop(change);
        assert_eq!(first.changes().await.unwrap(), before, "rolled back");
        let change = second.begin_change().await.unwrap();
        change.commit().await.unwrap();
        assert_eq!(first.changes().await.unwrap(), before + 1);
    }
}
