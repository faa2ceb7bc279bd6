//! SQLite: a file in WAL mode, so that `sealgate secret-key ...` writes while the relay reads.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteError, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Mutex;

/// The file, open.
#[derive(Debug)]
pub(super) struct SqliteDatabase {
    pub(super) pool: SqlitePool,
    watcher: Mutex<Watcher>,
    read_only: ReadOnly,
}

/// When a connection was last found to be good for reading only. SQLite opens a file so where it may not write, and stays
/// with that for as long as the connection lives: those from before are not used again.
#[derive(Clone, Debug, Default)]
struct ReadOnly(Arc<Lock<Option<Instant>>>);

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
    /// Opens the file and brings its tables up to date; `None` where it has none of ours, as after a restoration that failed or a
    /// `touch`: taken for a new one, it would answer that nobody has a key.
    pub(super) async fn open(path: &Path) -> Result<Option<Self>, MigrateError> {
        // SQLite writes into an empty file as soon as it looks.
        if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
            return Ok(None);
        }
        let file = Self::connect(path).await?;
        let tables: i64 = sqlx::query_scalar(TABLES).fetch_one(&file.pool).await?;
        if tables == 0 {
            file.close().await;
            return Ok(None);
        }
        migrate(&file.pool).await?;
        Ok(Some(file))
    }

    async fn connect(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What is removed, or sealed under another key, is not to be found in the file (REQUIREMENTS L6).
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        let read_only = ReadOnly::default();
        let known = read_only.clone();
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(BUSY_TIMEOUT)
            .before_acquire(move |_, connection| {
                let is_good = known.is_older_than(connection.age);
                Box::pin(async move { Ok(is_good) })
            })
            .connect_with(options.clone())
            .await?;
        let connection = SqliteConnection::connect_with(&options).await?;
        let watcher = Mutex::new(Watcher { connection: Some(connection), seen: None, changes: 0 });
        Ok(Self { pool, watcher, read_only })
    }

    /// Makes a new, empty file, mode 0600.
    pub(super) fn create(path: &Path) -> std::io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
    }

    /// Makes the tables in a file that was just made.
    pub(super) async fn fill(path: &Path) -> Result<(), MigrateError> {
        let file = Self::connect(path).await?;
        let made = migrate(&file.pool).await;
        file.close().await;
        made
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
        let raised = sqlx::query(super::RAISE_COUNTER).execute(&mut *transaction).await;
        raised.inspect_err(|error| self.note(error))?;
        Ok(transaction)
    }

    /// Takes what was removed out of the files, from what programs before this one left in free room too where
    /// `thoroughly` is said; says whether that was possible. Other processes may be reading what was there before.
    pub(super) async fn wipe(&self, thoroughly: bool) -> Result<bool, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        // The log has every page that was written since it was last emptied. Before the file is written anew, for which the disk
        // may be too small; and after that, or the log would keep the disk full.
        let mut is_emptied = empty_log(&mut connection).await?;
        if thoroughly {
            let vacuumed = sqlx::raw_sql("VACUUM").execute(&mut *connection).await;
            is_emptied = empty_log(&mut connection).await?;
            vacuumed.inspect_err(|error| self.note(error))?;
        }
        Ok(is_emptied)
    }

    /// What SQLite finds wrong with the file, where it does.
    pub(super) async fn damage(&self) -> Result<Option<String>, sqlx::Error> {
        let found = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&self.pool).await;
        match found {
            Ok(said) => Ok(Some(said).filter(|said: &String| said != "ok")),
            // It may be too damaged to be looked at.
            Err(sqlx::Error::Database(error)) if result_code(&*error) == Some(SQLITE_CORRUPT) => {
                Ok(Some(error.message().to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// Copies what was committed into a file that is there and empty, and sees it onto the disk.
    pub(super) async fn copy_to(&self, path: &Path) -> Result<(), sqlx::Error> {
        let invalid = || sqlx::Error::Configuration("the name of the file is no UTF-8".into());
        let name = path.to_str().ok_or_else(invalid)?;
        sqlx::query("VACUUM INTO $1").bind(name).execute(&self.pool).await?;
        std::fs::File::open(path)?.sync_all()?;
        Ok(())
    }

    /// Looks at an error for what it says of the connection.
    pub(super) fn note(&self, error: &sqlx::Error) {
        if error.as_database_error().and_then(result_code) == Some(SQLITE_READONLY) {
            *self.read_only.lock() = Some(Instant::now());
        }
    }
}

/// Whether the file, or one beside it, could not be opened as it must be.
pub(super) fn cannot_open(error: &(dyn DatabaseError + 'static)) -> bool {
    error.try_downcast_ref::<SqliteError>().is_some() && result_code(error) == Some(SQLITE_CANTOPEN)
}

/// The primary result code, without the reason.
fn result_code(error: &(dyn DatabaseError + 'static)) -> Option<u32> {
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// Brings the tables up to date. Unlike other databases SQLite lets two processes do that at once, and who comes second fails on
/// what the first has made, or finds the file locked without being made to wait: then it looks again.
async fn migrate(pool: &SqlitePool) -> Result<(), MigrateError> {
    let began = Instant::now();
    loop {
        match MIGRATIONS.run(pool).await {
            Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))
                if began.elapsed() < BUSY_TIMEOUT =>
            {
                tokio::time::sleep(MIGRATION_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Moves all of the log into the file; `false` where others are reading what was there before.
async fn empty_log(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let checkpoint = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)");
    let is_busy: i64 = checkpoint.fetch_one(connection).await?;
    Ok(is_busy == 0)
}

impl ReadOnly {
    /// Whether that was before a connection of this age was opened.
    fn is_older_than(&self, age: Duration) -> bool {
        self.lock().is_none_or(|found| found.elapsed() > age)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
/// Whether all tables of the first version are there.
const TABLES: &str = "SELECT COUNT(*) = 3 FROM sqlite_master \
                      WHERE type = 'table' AND name IN ('changes', 'facts', 'secret_keys')";
/// Of a result code the low octet; what is above it is the reason (sqlite.org/rescode.html).
const SQLITE_CANTOPEN: u32 = 14;
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_READONLY: u32 = 8;
/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Before a migration is tried again that another one came before: each needs a moment without others.
const MIGRATION_PAUSE: Duration = Duration::from_millis(20);
pub(super) const CONNECTIONS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// As after an upgrade: the relay, and a `sealgate check` beside it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn several_may_bring_a_file_up_to_date_at_once() {
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("sealgate.db");
            SqliteDatabase::create(&path).unwrap();
            // The log, which `init` begins alone.
            SqliteDatabase::connect(&path).await.unwrap().close().await;
            let all = (0..4).map(|_| {
                let path = path.clone();
                tokio::spawn(async move { SqliteDatabase::fill(&path).await })
            });
            for one in all.collect::<Vec<_>>() {
                one.await.unwrap().unwrap();
            }
        }
    }
}
