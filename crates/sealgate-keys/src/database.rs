//! The database that the embedded stores share: how it is opened and asked, and how a change is noticed.
//!
//! In: a [`DatabaseUrl`] and the stores' statements, one text for both databases. Out: rows, and a number that
//! is another after each change. What is SQLite's or PostgreSQL's own stands in a module for each and in `migrations/`.
//!
//! A statement under way takes ten KiB and more in sqlx's futures. They are boxed here, so that they are there only as long as
//! it is asked, and no session of the relay has room for each of its questions all the time.

use std::fmt;
use std::path::Path;

use sqlx::Sqlite;
use sqlx::migrate::MigrateError;

use crate::error::StoreError;

mod postgres;
mod sqlite;
mod statement;
mod url;

pub(crate) use statement::{Row, Statement};
pub use url::{DatabaseUrl, PostgresUrl};

use postgres::{Content, PostgresChange, PostgresDatabase};
use sqlite::SqliteDatabase;

/// An open database.
#[derive(Debug)]
pub struct Database {
    url: DatabaseUrl,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Postgres(PostgresDatabase),
    Sqlite(SqliteDatabase),
}

impl Database {
    /// Opens an existing database and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::DatabaseMissing`], [`StoreError::DatabaseEmpty`] or [`StoreError::Database`].
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let kind = match url {
            DatabaseUrl::Postgres(server) => {
                let options = server.options().map_err(|why| database_error(url, &why))?;
                let opened = PostgresDatabase::open(&options).await;
                let opened = opened.map_err(|error| migrate_error(url, error))?;
                Kind::Postgres(opened.ok_or(StoreError::DatabaseEmpty(url.to_string()))?)
            }
            DatabaseUrl::Sqlite(path) if matches!(path.try_exists(), Ok(false)) => {
                return Err(StoreError::DatabaseMissing(path.clone()));
            }
            DatabaseUrl::Sqlite(path) => {
                let opened = SqliteDatabase::open(path).await;
                let opened = opened.map_err(|error| migrate_error(url, error))?;
                Kind::Sqlite(opened.ok_or(StoreError::DatabaseEmpty(url.to_string()))?)
            }
        };
        Ok(Self { url: url.clone(), kind })
    }

    /// Makes a new file, mode 0600, or the tables in a server's empty database, and opens it.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where there is something already, else [`StoreError::Database`].
    pub async fn create(url: &DatabaseUrl) -> Result<Self, StoreError> {
        match url {
            DatabaseUrl::Postgres(server) => {
                let options = server.options().map_err(|why| database_error(url, &why))?;
                let found = PostgresDatabase::create(&options).await;
                match found.map_err(|error| migrate_error(url, error))? {
                    Content::Nothing => {}
                    Content::Other => {
                        let what = format!(
                            "{url}: holds other tables; name an empty database with --database"
                        );
                        return Err(StoreError::Exists(what));
                    }
                    Content::Stores => return Err(taken(url)),
                }
            }
            DatabaseUrl::Sqlite(path) => {
                create_file(url, path, " and is left alone; name another file with --database")?;
                let filled = SqliteDatabase::fill(path).await;
                if let Err(error) = filled {
                    remove_new(url);
                    return Err(migrate_error(url, error));
                }
            }
        }
        let opened = Self::open(url).await;
        if opened.is_err() {
            remove_new(url);
        }
        opened
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match &self.kind {
            Kind::Postgres(server) => server.close().await,
            Kind::Sqlite(file) => file.close().await,
        }
    }

    /// Whether an SQLite file is whole; a server looks after its own.
    ///
    /// # Errors
    /// [`StoreError::Database`] where it is not, or does not answer.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        let Kind::Sqlite(file) = &self.kind else { return self.ping().await };
        match file.damage().await.map_err(|error| self.error(&error))? {
            None => Ok(()),
            Some(damage) => {
                let why = format!(
                    "damaged ({damage}): stop sealgate and put a backup in its place, without the -wal and -shm files that \
                     are beside it"
                );
                Err(database_error(&self.url, &why))
            }
        }
    }

    /// Copies an SQLite database into a file that is not there yet, mode 0600; others may write meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Input`] for a server's database, [`StoreError::Exists`], or [`StoreError::Database`].
    pub(crate) async fn back_up(&self, to: &Path) -> Result<(), StoreError> {
        let Kind::Sqlite(file) = &self.kind else {
            let what = format!("{}: back it up with the server's own means (pg_dump)", self.url);
            return Err(StoreError::Input(what));
        };
        create_file(&DatabaseUrl::Sqlite(to.to_owned()), to, "; name another file")?;
        let copied = file.copy_to(to).await;
        if copied.is_err() {
            // Half a copy must not be taken for one.
            let _ = std::fs::remove_file(to);
        }
        copied.map_err(|error| self.error(&error))
    }

    /// Another number after each change that answers depend on, by whatever process.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn changes(&self) -> Result<i64, StoreError> {
        match &self.kind {
            Kind::Postgres(server) => Ok(server.changes()),
            Kind::Sqlite(file) => {
                Box::pin(file.changes()).await.map_err(|error| self.error(&error))
            }
        }
    }

    /// Whether it answers now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        self.fetch_all(Statement::new(READ_COUNTER)).await.map(drop)
    }

    /// Whether the database tells of changes by itself, so that [`Self::changes`] costs nothing.
    pub(crate) fn tells_changes(&self) -> bool {
        matches!(self.kind, Kind::Postgres(_))
    }

    pub(crate) async fn fetch_all(&self, statement: Statement<'_>) -> Result<Vec<Row>, StoreError> {
        let rows = match &self.kind {
            Kind::Postgres(server) => {
                let rows = Box::pin(server.fetch_all(&statement)).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
            Kind::Sqlite(file) => {
                let rows = Box::pin(statement.query::<Sqlite>().fetch_all(&file.pool)).await;
                let rows = rows.inspect_err(|error| file.note(error));
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
        };
        rows.map_err(|error| self.error(&error))
    }

    /// The first row, if there is one; the statement gives one at most.
    pub(crate) async fn fetch_optional(
        &self,
        statement: Statement<'_>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch_all(statement).await?.into_iter().next())
    }

    /// Writes what no answer depends on; says how many rows it touched.
    pub(crate) async fn execute(&self, statement: Statement<'_>) -> Result<u64, StoreError> {
        let done = match &self.kind {
            Kind::Postgres(server) => Box::pin(server.execute(&statement)).await,
            Kind::Sqlite(file) => {
                let done = Box::pin(statement.query::<Sqlite>().execute(&file.pool)).await;
                let done = done.inspect_err(|error| file.note(error));
                done.map(|done| done.rows_affected())
            }
        };
        done.map_err(|error| self.error(&error))
    }

    /// Begins a change that answers depend on; the counter goes up with its commit.
    pub(crate) async fn begin_change(&self) -> Result<Change<'_>, StoreError> {
        let transaction = match &self.kind {
            Kind::Postgres(server) => {
                Box::pin(server.begin_change()).await.map(Transaction::Postgres)
            }
            Kind::Sqlite(file) => Box::pin(file.begin_change()).await.map(Transaction::Sqlite),
        };
        let transaction = transaction.map_err(|error| self.error(&error))?;
        Ok(Change { database: self, transaction })
    }

    /// Takes what was removed, or sealed anew, out of the database's files. What cannot be done now is said in one line, with what
    /// to do about it: what was asked for has been done, and is not to fail for this.
    pub(crate) async fn wipe(&self, wiping: Wiping) -> Option<String> {
        let Kind::Sqlite(file) = &self.kind else {
            return Some(format!(
                "{}: the server keeps what was removed in its files until somebody runs, as the owner of the tables: \
                 VACUUM FULL own_authorities, secret_keys",
                self.url
            ));
        };
        let why = match Box::pin(file.wipe(wiping == Wiping::FreeRoomToo)).await {
            Ok(true) => return None,
            Ok(false) => "another process is reading what was there before".to_owned(),
            Err(error) => self.error(&error).to_string(),
        };
        let remedy = match wiping {
            Wiping::FreeRoomToo => "rotate once more later",
            Wiping::Removed => "it goes when no process has the database open any more",
        };
        Some(format!(
            "what was removed may still be found in the database's files ({why}): {remedy}"
        ))
    }

    /// What is said of a database that was never finished, or that something was taken out of.
    pub(crate) fn empty_error(&self) -> StoreError {
        StoreError::DatabaseEmpty(self.url.to_string())
    }

    pub(crate) fn error(&self, error: &sqlx::Error) -> StoreError {
        sqlx_error(&self.url, error)
    }

    #[cfg(test)]
    pub(crate) fn sqlite_pool(&self) -> &sqlx::SqlitePool {
        match &self.kind {
            Kind::Postgres(_) => panic!("{}: no SQLite", self.url),
            Kind::Sqlite(file) => &file.pool,
        }
    }
}

/// How much of what is no more is taken out of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wiping {
    /// All that ever was: the file is written anew.
    FreeRoomToo,
    /// What this program removed.
    Removed,
}

/// Several statements, all of which hold or none.
pub(crate) struct Change<'d> {
    database: &'d Database,
    transaction: Transaction,
}

enum Transaction {
    Postgres(PostgresChange),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Change<'_> {
    /// Where this happens.
    pub(crate) fn database(&self) -> &Database {
        self.database
    }

    /// Rows as this change sees them.
    pub(crate) async fn fetch_all(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = match &mut self.transaction {
            Transaction::Postgres(change) => {
                let rows = Box::pin(change.fetch_all(&statement)).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
            Transaction::Sqlite(transaction) => {
                let rows = statement.query::<Sqlite>().fetch_all(&mut **transaction);
                let rows = Box::pin(rows).await;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
        };
        rows.map_err(|error| self.database.error(&error))
    }

    /// Runs a statement and says how many rows it touched.
    pub(crate) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, StoreError> {
        let done = match &mut self.transaction {
            Transaction::Postgres(change) => Box::pin(change.execute(&statement)).await,
            Transaction::Sqlite(transaction) => {
                let done = statement.query::<Sqlite>().execute(&mut **transaction);
                let done = Box::pin(done).await;
                done.map(|done| done.rows_affected())
            }
        };
        done.map_err(|error| self.database.error(&error))
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        let done = match self.transaction {
            Transaction::Postgres(change) => Box::pin(change.commit()).await,
            Transaction::Sqlite(transaction) => Box::pin(transaction.commit()).await,
        };
        done.map_err(|error| self.database.error(&error))
    }
}

/// Why a database that holds stores already does not become another's.
pub(crate) fn taken(url: &DatabaseUrl) -> StoreError {
    let advice = "is left alone; name an empty database with --database";
    StoreError::Exists(format!("{url}: holds a sealgate already and {advice}"))
}

/// Takes the file of a new database away where that came to nothing, so that it is not in the way of the next attempt. What
/// cannot be removed is named by that one.
pub(crate) fn remove_new(url: &DatabaseUrl) {
    let DatabaseUrl::Sqlite(path) = url else { return };
    // What SQLite keeps beside a file that is open (https://www.sqlite.org/tempfiles.html).
    for end in ["", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(end);
        let _ = std::fs::remove_file(name);
    }
}

/// Makes an empty file; `advice` is for where there is one.
fn create_file(url: &DatabaseUrl, path: &Path, advice: &str) -> Result<(), StoreError> {
    SqliteDatabase::create(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            StoreError::Exists(format!("{}: exists already{advice}", path.display()))
        }
        _ => database_error(url, &error),
    })
}

fn sqlx_error(url: &DatabaseUrl, error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::PoolTimedOut => {
            database_error(url, &"no connection in time: it is away, or all connections are in use")
        }
        sqlx::Error::Database(said) if sqlite::cannot_open(&**said) => {
            let why = format!(
                "{}: who runs sealgate must be able to write it, the -wal and -shm files beside it and their directory, and the \
                 file system must not be read-only",
                said.message()
            );
            database_error(url, &why)
        }
        // The rest of what sqlx shows is a line of the server's source.
        sqlx::Error::Database(said) => database_error(url, &said.message()),
        other => database_error(url, other),
    }
}

fn migrate_error(url: &DatabaseUrl, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) => sqlx_error(url, &error),
        other => database_error(url, &other),
    }
}

fn database_error(url: &DatabaseUrl, why: &dyn fmt::Display) -> StoreError {
    StoreError::Database { database: url.to_string(), why: why.to_string().replace('\n', " ") }
}

const READ_COUNTER: &str = "SELECT counter FROM changes WHERE id = 1";
const RAISE_COUNTER: &str = "UPDATE changes SET counter = counter + 1 WHERE id = 1";

#[cfg(test)]
mod tests {
    use super::*;

    /// Else its keys would be none, and mail would leave unsigned and come in unread.
    #[tokio::test]
    async fn a_file_without_our_tables_is_no_new_database() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sealgate.db");
        let url = DatabaseUrl::Sqlite(path.clone());
        let refused = async || {
            let refused = Database::open(&url).await.map(|_| ()).unwrap_err();
            assert!(matches!(refused, StoreError::DatabaseEmpty(_)), "{refused}");
        };
        std::fs::write(&path, b"").unwrap();
        refused().await;
        assert_eq!(std::fs::read(&path).unwrap(), b"", "it is left as it was");
        // Somebody else's, or one that a restoration has begun.
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
        sqlx::raw_sql("CREATE TABLE facts (name TEXT)").execute(&mut other).await.unwrap();
        refused().await;
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
