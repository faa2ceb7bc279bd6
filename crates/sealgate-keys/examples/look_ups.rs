//! For `cargo xtask bench look-ups`: how long a key store takes to say what it knows of one address of very many.
//!
//! In: where the store is, a certificate of [`TEMPLATE_ADDRESS`], and how many rows to make and to ask for. Out: one
//! line of JSON with percentiles in microseconds, of first answers (`cold`) and of answers that are cached (`cached`).
//! It asks [`Stores`] with the relay's own defaults, one question at a time.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a bench: a failure is a message to whoever runs it"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sealgate_core::address::Domain;
use sealgate_core::keys::Certificate;
use sealgate_core::step::{KeyQuery, Keys};
use sealgate_keys::administration::establish;
use sealgate_keys::database::DatabaseUrl;
use sealgate_keys::public_key_store::PublicKeyStoreKind;
use sealgate_keys::public_key_store::directory_server::{LdapBind, LdapConfig};
use sealgate_keys::secret_source::SecretSource;
use sealgate_keys::stores::{Stores, StoresConfig};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["database", url, master_key, template, rows, asked] => {
            let template = Template::read(Path::new(template));
            let config = made(url, master_key).await;
            match &config.database {
                DatabaseUrl::Sqlite(path) => fill_sqlite(path, &template, number(rows)).await,
                _ => fill_postgres(url, &template, number(rows)).await,
            }
            measure(&config, number(rows), number(asked)).await;
        }
        ["directory", url, master_key, server, ca, base, rows, asked] => {
            let config = made(url, master_key).await;
            let ldap = LdapConfig {
                servers: vec![(*server).to_owned()],
                starttls: true,
                ca: Some(PathBuf::from(ca)),
                bind: LdapBind::Anonymous,
                base: (*base).to_owned(),
                filter: "(mail={address})".to_owned(),
                entries_max: 10,
                timeout: Duration::from_secs(4),
            };
            let public_keys = vec![PublicKeyStoreKind::Ldap];
            let config = StoresConfig { ldap: Some(ldap), public_keys, ..config };
            measure(&config, number(rows), number(asked)).await;
        }
        _ => panic!("started by `cargo xtask bench look-ups`, which knows what to say"),
    }
}

/// New stores without anything in them, configured as a relay's.
async fn made(url: &str, master_key: &str) -> StoresConfig {
    let database: DatabaseUrl = url.parse().unwrap();
    let domain = Domain::parse("nec.example").unwrap();
    establish(Path::new(master_key), &database, &domain).await.unwrap();
    let master_key = SecretSource::File(PathBuf::from(master_key));
    StoresConfig { database, master_key, domains: vec![domain], ..StoresConfig::default() }
}

/// Asks for so many addresses among the rows, each for the first time, and then for the same again.
async fn measure(config: &StoresConfig, rows: usize, asked: usize) {
    assert!((asked as u64) < config.cache_entries_max, "the cache would not hold them");
    let stores = Stores::open(config).await.unwrap();
    let queries: Vec<KeyQuery> = (0..asked)
        .map(|at| KeyQuery::Public(address((at * STRIDE + 1) % rows).parse().unwrap()))
        .collect();
    // The first question of all connects.
    ask(&stores, &KeyQuery::Public(address(0).parse().unwrap())).await;
    let mut line = String::new();
    for name in ["cold", "cached"] {
        let mut times = Vec::with_capacity(asked);
        for query in &queries {
            times.push(ask(&stores, query).await);
        }
        times.sort();
        let us = |per_mille: usize| times[times.len() * per_mille / 1000].as_nanos() as f64 / 1e3;
        write!(line, "\"{name}\":[{:.1},{:.1}],", us(500), us(990)).unwrap();
    }
    println!("{{{}}}", line.trim_end_matches(','));
    stores.close().await;
}

/// How long one answer took; it must hold one certificate.
async fn ask(stores: &Stores, query: &KeyQuery) -> Duration {
    let KeyQuery::Public(address) = query else { panic!("{query:?}") };
    let mut keys = Keys::default();
    let started = Instant::now();
    stores.answer(std::slice::from_ref(query), &mut keys).await;
    let took = started.elapsed();
    assert_eq!(keys.public[address].as_ref().map(Vec::len), Ok(1), "{address}");
    took
}

/// A certificate that becomes another address's by its digits. Its signature no longer holds, which no store looks at.
struct Template {
    der: Vec<u8>,
    /// Where the digits are.
    places: Vec<usize>,
    not_before: i64,
    not_after: i64,
}

impl Template {
    fn read(path: &Path) -> Self {
        let der = std::fs::read(path).unwrap();
        let certificate = Certificate::from_der(&der).unwrap();
        let wanted = TEMPLATE_ADDRESS.as_bytes();
        let places = der.windows(wanted.len()).enumerate();
        let places = places.filter(|(_, window)| *window == wanted).map(|(at, _)| at + 1);
        let places: Vec<usize> = places.collect();
        assert!(!places.is_empty(), "no certificate of {TEMPLATE_ADDRESS}");
        let (not_before, not_after) = (certificate.not_before().0, certificate.not_after().0);
        Self { not_before, not_after, der, places }
    }

    fn of(&self, number: usize) -> Vec<u8> {
        let mut der = self.der.clone();
        for place in &self.places {
            der[*place..place + DIGITS].copy_from_slice(digits(number).as_bytes());
        }
        der
    }
}

async fn fill_sqlite(path: &Path, template: &Template, rows: usize) {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off)
        .disable_statement_logging();
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let values = vec!["(?, ?, 'pinned', ?, x'', ?, ?, 0)"; ROWS_PER_INSERT].join(", ");
    let insert = format!(
        "INSERT INTO public_keys (owner, sha256, state, certificate, intermediates, not_before, \
         not_after, created_at) VALUES {values}"
    );
    assert_eq!(rows % ROWS_PER_INSERT, 0, "full inserts only");
    sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
    for first in (0..rows).step_by(ROWS_PER_INSERT) {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(insert.as_str()));
        for number in first..first + ROWS_PER_INSERT {
            let der = template.of(number);
            let sha256 = Certificate::from_der(&der).unwrap().fingerprint().to_string();
            query = query.bind(address(number)).bind(sha256).bind(der);
            query = query.bind(template.not_before).bind(template.not_after);
        }
        query.execute(&mut connection).await.unwrap();
    }
    sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The server makes the rows itself, which is faster than telling it each.
async fn fill_postgres(url: &str, template: &Template, rows: usize) {
    let mut certificate = format!("'\\x{}'::bytea", hexadecimal(&template.der));
    for place in &template.places {
        // Counted from 1.
        let from = place + 1;
        certificate =
            format!("overlay({certificate} PLACING convert_to(digits, 'UTF8') FROM {from})");
    }
    let insert = format!(
        "INSERT INTO public_keys (owner, sha256, state, certificate, intermediates, not_before, \
         not_after, created_at) \
         SELECT 'u' || digits || '{DOMAIN}', encode(sha256(der), 'hex'), 'pinned', der, ''::bytea, \
         {}, {}, 0 FROM (SELECT digits, {certificate} AS der FROM \
         (SELECT lpad(number::text, {DIGITS}, '0') AS digits FROM generate_series(0, {}) AS number) \
         AS numbers) AS certificates",
        template.not_before,
        template.not_after,
        rows - 1
    );
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut connection).await.unwrap();
    // What the server does by itself some time after a change as large as this.
    sqlx::raw_sql("VACUUM ANALYZE public_keys").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn address(number: usize) -> String {
    format!("u{}{DOMAIN}", digits(number))
}

fn digits(number: usize) -> String {
    format!("{number:0DIGITS$}")
}

fn number(word: &str) -> usize {
    word.parse().unwrap()
}

/// Whose certificate the template is.
const TEMPLATE_ADDRESS: &str = "u0000000@big.example";
const DOMAIN: &str = "@big.example";
const DIGITS: usize = 7;
/// Has no factor in common with a power of ten, so that no address comes twice.
const STRIDE: usize = 387_911;
const ROWS_PER_INSERT: usize = 100;
