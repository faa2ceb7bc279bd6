//! Which database: a file (SQLite) or a server (PostgreSQL).
//!
//! In: `sqlite:FILE`, or `postgres://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE...` with libpq's names ([`PARAMETERS`]);
//! for a unix socket `postgres:///DATABASE?host=DIRECTORY&user=USER`.
//! A server that is neither on this machine nor behind a unix socket is spoken to over TLS with its name verified
//! (REQUIREMENTS A16). The password shows in nothing that is printed; where the URL has none, libpq's places are
//! looked into: `PGPASSWORD`, `PGPASSFILE`, `~/.pgpass`.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use zeroize::Zeroizing;

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseUrl {
    /// A server.
    Postgres(PostgresUrl),
    /// A file.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// The same with relative paths starting at `directory`.
    #[must_use]
    pub fn within(&self, directory: &Path) -> Self {
        match self {
            Self::Postgres(url) => Self::Postgres(url.within(directory)),
            Self::Sqlite(path) => Self::Sqlite(directory.join(path)),
        }
    }

    /// Whether the URL itself holds a password, so that a file it is written to must be kept from others.
    pub fn has_password(&self) -> bool {
        matches!(self, Self::Postgres(url) if url.has_password())
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
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return PostgresUrl::parse(text).map(Self::Postgres);
        }
        // The text is not shown: it may hold a password.
        Err("no database: write sqlite:FILE or postgres://USER@HOST/DATABASE".to_owned())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => url.fmt(f),
            Self::Sqlite(path) => path.display().fmt(f),
        }
    }
}

/// A PostgreSQL server and a database there.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// As written.
    text: Zeroizing<String>,
    /// Without password and parameters.
    shown: String,
}

impl PostgresUrl {
    fn parse(text: &str) -> Result<Self, String> {
        for (name, _) in parameters(text) {
            // sqlx ignores what it does not know, and logs it.
            if !PARAMETERS.contains(&name) {
                let known = PARAMETERS.join(", ");
                return Err(format!("the database's URL has an unknown parameter; known: {known}"));
            }
        }
        let options = read(text)?;
        let (user, port) = (options.get_username(), options.get_port());
        let database = options.get_database().unwrap_or(user);
        let shown = match socket(&options) {
            Some(socket) => format!("postgres:///{database}?host={socket}&user={user}"),
            None => format!("postgres://{user}@{}:{port}/{database}", options.get_host()),
        };
        Ok(Self { text: Zeroizing::new(text.to_owned()), shown })
    }

    /// What sqlx connects with. Reading the URL again succeeds as it did before.
    pub(super) fn options(&self) -> Result<PgConnectOptions, String> {
        let options = read(&self.text)?;
        // Numbers with fractions are not stored; not every connection pooler knows the setting.
        Ok(options
            .extra_float_digits(None)
            .application_name("sealgate")
            .disable_statement_logging())
    }

    fn within(&self, directory: &Path) -> Self {
        let mut text = self.text.clone();
        for name in FILE_PARAMETERS {
            for (_, value) in parameters(&self.text).filter(|(found, _)| *found == name) {
                if !value.starts_with('/') && !value.to_ascii_lowercase().starts_with("%2f") {
                    let (from, folder) = (format!("{name}={value}"), percent_encoded(directory));
                    let to = format!("{name}={folder}/{value}");
                    text = Zeroizing::new(text.replacen(&from, &to, 1));
                }
            }
        }
        Self { text, shown: self.shown.clone() }
    }

    fn has_password(&self) -> bool {
        let authority = self.text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        user.contains(':') || parameters(&self.text).any(|(name, _)| name == "password")
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({})", self.shown)
    }
}

/// Reads the URL and decides about TLS.
fn read(text: &str) -> Result<PgConnectOptions, String> {
    // sqlx logs a line of ~/.pgpass that it cannot read, password and all.
    let silence = tracing::subscriber::NoSubscriber::default();
    let options = tracing::subscriber::with_default(silence, || PgConnectOptions::from_str(text));
    let options = options.map_err(|error| {
        format!(
            "the database's URL cannot be read ({error}): write postgres://USER@HOST/DATABASE, \
             or postgres:///DATABASE?host=DIRECTORY for a unix socket"
        )
    })?;
    if socket(&options).is_some() || is_loopback(options.get_host()) {
        return Ok(options);
    }
    match parameters(text).filter(|(name, _)| *name == "sslmode").last() {
        None | Some((_, "verify-full")) => Ok(options.ssl_mode(PgSslMode::VerifyFull)),
        // The others take whoever answers for the server; with verify-ca that is whoever has a public certificate.
        Some(_) => Err(format!(
            "the database at {} must prove who it is: write sslmode=verify-full, with \
             sslrootcert=FILE where its authority is not a public one",
            options.get_host()
        )),
    }
}

/// The unix socket's directory.
fn socket(options: &PgConnectOptions) -> Option<String> {
    let host = options.get_host();
    match options.get_socket() {
        Some(path) => Some(path.display().to_string()),
        None => host.starts_with('/').then(|| host.to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Names and values after the question mark, as written.
fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn percent_encoded(path: &Path) -> String {
    let encode = |byte: &u8| match *byte {
        b'/' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    path.as_os_str().as_bytes().iter().map(encode).collect()
}

/// The parameters of libpq (PostgreSQL 17 manual, section 32.1.2) that are understood.
const PARAMETERS: [&str; 11] = [
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];
const FILE_PARAMETERS: [&str; 3] = ["sslcert", "sslkey", "sslrootcert"];

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(text: &str) -> PostgresUrl {
        match text.parse() {
            Ok(DatabaseUrl::Postgres(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn database_urls_are_read() {
        for (text, path) in [
            ("sqlite:sealgate.db", "sealgate.db"),
            ("sqlite:///var/lib/sealgate.db", "/var/lib/sealgate.db"),
        ] {
            assert_eq!(text.parse(), Ok(DatabaseUrl::Sqlite(PathBuf::from(path))));
        }
        for text in ["", "sealgate.db", "sqlite:", "sqlite::memory:", "mysql:x", "postgres:"] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
        for (text, shown) in [
            ("postgres://u:geheim@db.example/keys", "postgres://u@db.example:5432/keys"),
            ("postgresql://u:geheim@[::1]:5/keys?sslmode=disable", "postgres://u@[::1]:5/keys"),
            ("postgres:///keys?host=/run/pg&user=u", "postgres:///keys?host=/run/pg&user=u"),
            ("postgres://h/x?user=u&password=geheim&dbname=keys", "postgres://u@h:5432/keys"),
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.has_password(), text.contains("geheim"), "{text}");
            assert!(!format!("{url:?}").contains("geheim"), "{url:?}");
        }
    }

    #[test]
    fn no_fault_shows_the_password() {
        for text in [
            "postgres://u:geheim@h:port/x",
            "postgres://u:geheim@h/x?sslmode=maybe",
            "postgres://u:geheim@h/x?sslmode=disable",
            "postgres://u:geheim@h/x?pasword=geheim",
            "postgres://u:ge#heim@h/x?port=geheim",
            "mysql://u:geheim@h/x",
        ] {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_server_elsewhere_must_prove_who_it_is() {
        let mode = |text: &str| postgres(text).options().unwrap().get_ssl_mode();
        assert!(matches!(mode("postgres://u@db.example/x"), PgSslMode::VerifyFull));
        let explicit = "postgres://u@192.0.2.1/x?sslmode=verify-full&sslrootcert=/ca.pem";
        assert!(matches!(mode(explicit), PgSslMode::VerifyFull));
        for name in ["disable", "allow", "prefer", "require", "verify-ca"] {
            let url = format!("postgres://u@db.example/x?sslmode={name}");
            let error = url.parse::<DatabaseUrl>().unwrap_err();
            assert!(error.contains("verify-full") && error.contains("db.example"), "{error}");
            for host in ["localhost", "127.0.0.2", "[::1]"] {
                postgres(&format!("postgres://u@{host}/x?sslmode={name}"));
            }
        }
        postgres("postgres:///x?host=/run/postgresql&sslmode=disable");
    }

    #[test]
    fn relative_certificate_files_start_at_the_configuration() {
        let url = postgres("postgres://u@h/x?sslrootcert=ca.pem&sslcert=/c.pem&sslkey=%2Fk.pem");
        let within = url.within(Path::new("/etc/seal gate"));
        let expected = "postgres://u@h/x?sslrootcert=/etc/seal%20gate/ca.pem&sslcert=/c.pem\
                        &sslkey=%2Fk.pem";
        assert_eq!(within.text.as_str(), expected);
        assert!(within.options().is_ok());
    }
}
