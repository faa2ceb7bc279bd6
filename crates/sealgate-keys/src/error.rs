//! Why a store could not do something, in one line that says what to do.

use std::fmt;
use std::path::PathBuf;

/// A store failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// Our own authority cannot do what is asked of it.
    Authority(String),
    /// A row does not authenticate or does not parse: it was changed outside sealgate.
    Corrupt {
        /// The table.
        table: &'static str,
        /// Whose row.
        owner: String,
    },
    /// A revocation list named in the configuration cannot be used.
    Crl {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The database does not answer or refuses.
    Database {
        /// Which one.
        database: String,
        /// What it says.
        why: String,
    },
    /// The database holds nothing of ours, or not what tells the right master key: no new one, but one that is missing.
    DatabaseEmpty(String),
    /// There is no such database yet.
    DatabaseMissing(PathBuf),
    /// Refused, because it is there already.
    Exists(String),
    /// The material to import is not usable.
    Input(String),
    /// A secret that a store needs (master key, PIN, password) cannot be had.
    Secret {
        /// File or credential.
        source: String,
        /// What is wrong.
        why: String,
    },
    /// Nothing there under that name.
    NotFound(String),
    /// A key management server, a token or a directory server is away, or answers with what it must not.
    Unavailable {
        /// Which one.
        store: String,
        /// What happened.
        why: String,
    },
    /// The master key is not the one of this database.
    WrongMasterKey {
        /// File or credential.
        source: String,
        /// Where the right one lies, if that is known.
        right: Option<String>,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(why) => write!(f, "the organisation's own authority: {why}"),
            Self::Corrupt { table, owner } => write!(
                f,
                "table {table}: the row of {owner} was changed outside sealgate and is refused; \
                 restore the database from a backup"
            ),
            Self::Crl { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Database { database, why } => write!(f, "database {database}: {why}"),
            Self::DatabaseEmpty(url) => write!(
                f,
                "database {url}: holds no sealgate: restore it from a backup, or correct [database] url; a new one is \
                 made, in a file that is not there yet or a server's empty database, with `sealgate init --domain \
                 DOMAIN --database URL`"
            ),
            Self::DatabaseMissing(path) => write!(
                f,
                "{}: no such database; make one with `sealgate init --domain DOMAIN`, or correct [database] url",
                path.display()
            ),
            Self::Exists(what) | Self::Input(what) | Self::NotFound(what) => f.write_str(what),
            Self::Secret { source, why } => write!(f, "secret {source}: {why}"),
            Self::Unavailable { store, why } => write!(f, "{store}: {why}"),
            Self::WrongMasterKey { source, right: None } => write!(
                f,
                "master key {source}: not the key that this database is sealed under; restore the \
                 right one"
            ),
            Self::WrongMasterKey { source, right: Some(right) } => write!(
                f,
                "master key {source}: not the key that this database is sealed under, which is \
                 older than the last rotation; {right} is the right one: copy it to {source}"
            ),
        }
    }
}

impl std::error::Error for StoreError {}
