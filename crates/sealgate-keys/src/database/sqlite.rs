//! SQLite: a file in WAL mode, so that `sealgate secret-key ...` writes while the relay reads.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Mutex;

/// The file, open.
#[derive(Debug)]
pub(super) struct SqliteDatabase {
    pub(super) pool: SqlitePool,
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

impl SqliteDatabase {
    /// Opens the file and brings its tables up to date.
    pub(super) async fn open(path: &Path) -> Result<Self, MigrateError> {
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
            .await?;
        MIGRATIONS.run(&pool).await?;
        let connection = SqliteConnection::connect_with(&options).await?;
        let watcher = Mutex::new(Watcher { connection: Some(connection), seen: None, changes: 0 });
        Ok(Self { pool, watcher })
    }

    /// Makes a new, empty file, mode 0600.
    pub(super) fn create(path: &Path) -> std::io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
    }

    /// The last one of all processes to close leaves everything in the one file.
    pub(super) async fn close(&self) {
        self.pool.close().await;
        let mut watcher = self.watcher.lock().await;
        // Closing is a courtesy: nothing is lost where it fails.
        if let Some(connection) = watcher.connection.take() {
            let _ = connection.close().await;
        }
    }

    /// The counter of changes. Costs a pragma where nothing was written since the last call.
    pub(super) async fn changes(&self) -> Result<i64, sqlx::Error> {
        let mut watcher = self.watcher.lock().await;
        let Watcher { connection, seen, changes } = &mut *watcher;
        let connection = connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        let version: i64 =
            sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut *connection).await?;
        if *seen != Some(version) {
            *changes = sqlx::query_scalar(super::READ_COUNTER).fetch_one(&mut *connection).await?;
            *seen = Some(version);
        }
        Ok(watcher.changes)
    }

    /// A transaction that has raised the counter. Being a write from its first statement on, it never fails half-way
    /// because another writer came first.
    pub(super) async fn begin_change(
        &self,
    ) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(super::RAISE_COUNTER).execute(&mut *transaction).await?;
        Ok(transaction)
    }
}

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const CONNECTIONS_MAX: u32 = 4;
