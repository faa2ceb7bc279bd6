//! Stores in PostgreSQL: what several relays share, what they notice, and what becomes of them while the server is away.
//! What holds with SQLite too is tested in `src/stores/tests.rs`.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::time::{Duration, Instant};

use sealgate_core::address::Domain;
use sealgate_core::keys::{LookupError, OwnKey};
use sealgate_core::step::{KeyQuery, Keys};
use sealgate_keys::StoreError;
use sealgate_keys::administration::establish;
use sealgate_keys::authority::Algorithm;
use sealgate_keys::database::{Database, DatabaseUrl};
use sealgate_keys::mta_sts_policies::StoredPolicy;
use sealgate_keys::secret_source::SecretSource;
use sealgate_keys::stores::{Stores, StoresConfig};
use sealgate_testkit::pki::Pki;
use sealgate_testkit::postgres::Postgres;
use sealgate_testkit::process::await_that;
use tempfile::TempDir;

/// A sealgate in a database of a server.
struct Bed {
    directory: TempDir,
    config: StoresConfig,
}

impl Bed {
    async fn new(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("master.key");
        let config = StoresConfig {
            database: url.parse().unwrap(),
            master_key: SecretSource::File(key.clone()),
            // What is not noticed stays wrong for longer than a test takes.
            cache_negative_ttl: Duration::from_secs(600),
            ..StoresConfig::default()
        };
        establish(&key, &config.database, &Domain::parse("nec.example").unwrap()).await.unwrap();
        Self { directory, config }
    }

    async fn open(&self) -> Stores {
        Stores::open(&self.config).await.unwrap()
    }
}

async fn signing(stores: &Stores, text: &str) -> Result<Vec<OwnKey>, LookupError> {
    let query = KeyQuery::Signing(text.parse().unwrap());
    let mut keys = Keys::default();
    stores.answer(std::slice::from_ref(&query), &mut keys).await;
    keys.own.remove(&query).unwrap()
}

async fn generate(stores: &Stores, text: &str) {
    let owner = text.parse().unwrap();
    stores.administration().generate_secret_keys(&owner, Algorithm::P256).await.unwrap();
}

/// How long it takes until these stores know a key for the address.
async fn noticed(stores: &Stores, text: &str) -> Duration {
    let started = Instant::now();
    while signing(stores, text).await.map_or(0, |keys| keys.len()) == 0 {
        assert!(started.elapsed() < BELOW_POLL_INTERVAL, "{text}: only polling would notice it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

/// The counter is read every 30 s where nothing is heard: what is noticed earlier was heard of.
const BELOW_POLL_INTERVAL: Duration = Duration::from_secs(15);

/// REQUIREMENTS O12.
const BACK_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_change_through_one_is_used_by_the_other_within_a_second() {
    let server = Postgres::shared();
    let bed = Bed::new(&server.socket_url(&server.create_database())).await;
    let (one, other) = (bed.open().await, bed.open().await);
    let mut times = Vec::new();
    for name in ["a@nec.example", "b@nec.example", "c@nec.example", "d@nec.example"] {
        assert!(signing(&other, name).await.unwrap().is_empty());
        generate(&one, name).await;
        times.push(noticed(&other, name).await);
    }
    println!("noticed after {times:?}");
    // A busy machine may delay one of them, not most.
    times.sort();
    let median = times[times.len() / 2];
    assert!(median < Duration::from_secs(1), "{times:?}");
}

#[tokio::test]
async fn mta_sts_policies_learned_through_one_are_the_others_too() {
    let server = Postgres::shared();
    let database = server.create_database();
    let bed = Bed::new(&server.socket_url(&database)).await;
    // As the version before left it.
    server.sql(&database, "DROP TABLE mta_sts_policies");
    server.sql(&database, "DELETE FROM _sqlx_migrations WHERE version = 6");
    let (one, other) = (bed.open().await, bed.open().await);
    let policy = |record_id: &str, expires_at| StoredPolicy {
        domain: "abc.example".to_owned(),
        record_id: record_id.to_owned(),
        policy: b"mx: \0\xff".to_vec(),
        fetched_at: 1,
        expires_at,
    };
    for record_id in ["1", "2"] {
        let learned = policy(record_id, i64::MAX);
        assert!(one.mta_sts_policies().put(&learned).await.unwrap());
        assert_eq!(other.mta_sts_policies().written_since(2).await.unwrap(), [learned]);
    }
    let earlier = StoredPolicy { fetched_at: 0, ..policy("0", i64::MAX) };
    assert!(other.mta_sts_policies().put(&earlier).await.unwrap());
    assert_eq!(one.mta_sts_policies().written_since(2).await.unwrap(), [policy("2", i64::MAX)]);
    let wrong_clock = StoredPolicy { fetched_at: i64::MAX, ..policy("9", i64::MAX) };
    assert!(other.mta_sts_policies().put(&wrong_clock).await.unwrap());
    assert!(one.mta_sts_policies().put(&policy("3", 1)).await.unwrap());
    assert_eq!(other.mta_sts_policies().written_since(0).await.unwrap(), []);
    assert_eq!(other.mta_sts_policies().sweep().await.unwrap(), 1);
}

#[tokio::test]
async fn a_change_is_noticed_after_the_listeners_connection_was_lost() {
    let server = Postgres::shared();
    let database = server.create_database();
    let bed = Bed::new(&server.url(&database)).await;
    let (one, other) = (bed.open().await, bed.open().await);
    // The second time the server comes back without its last change, as a replica may.
    for (name, lost) in [("a@nec.example", 0), ("b@nec.example", 1)] {
        assert!(signing(&other, name).await.unwrap().is_empty());
        // The listeners may still be on their way.
        let started = Instant::now();
        while listeners(&server, &database) < 2 {
            assert!(started.elapsed() < BELOW_POLL_INTERVAL, "no listener");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.sql(
            "postgres",
            &format!("SELECT pg_terminate_backend(pid) {LISTENERS} AND datname = '{database}'"),
        );
        server.sql(&database, &format!("UPDATE changes SET counter = counter - {lost}"));
        generate(&one, name).await;
        println!("noticed after {:?}", noticed(&other, name).await);
    }
}

fn listeners(server: &Postgres, database: &str) -> u32 {
    let count = format!("SELECT COUNT(*) {LISTENERS} AND datname = '{database}'");
    server.sql("postgres", &count).parse().unwrap()
}

const LISTENERS: &str = "FROM pg_stat_activity WHERE application_name = 'sealgate listener'";

#[tokio::test]
async fn look_ups_fail_while_the_server_is_away_and_work_after_it_returns() {
    let server = Postgres::start();
    for url in [server.url("one"), server.socket_url("two")] {
        let name = if url.contains("/one") { "one" } else { "two" };
        server.sql("postgres", &format!("CREATE DATABASE {name} OWNER sealgate"));
        let bed = Bed::new(&url).await;
        let (stores, other) = (bed.open().await, bed.open().await);
        assert!(signing(&stores, "alice@nec.example").await.unwrap().is_empty());
        generate(&other, "alice@nec.example").await;
        noticed(&stores, "alice@nec.example").await;
        for (end, round) in [(Postgres::stop as fn(&Postgres), 1), (Postgres::kill, 2)] {
            let trust = stores.trust().await.unwrap();
            end(&server);
            let started = Instant::now();
            assert!(signing(&stores, &format!("away{round}@nec.example")).await.is_err());
            let took = started.elapsed();
            assert!(took < bed.config.lookup_timeout + Duration::from_secs(1), "{took:?}");
            // The server's return drops what is cached, some time after the second round has begun.
            if round == 1 {
                let cached = signing(&stores, "alice@nec.example").await;
                assert_eq!(cached.expect("what is cached serves on").len(), 1);
            }
            assert!(std::sync::Arc::ptr_eq(&trust, &stores.trust().await.unwrap()));
            let opened = Stores::open(&bed.config).await.unwrap_err();
            assert!(matches!(opened, StoreError::Database { .. }), "{opened}");
            assert!(!opened.to_string().contains("geheim"), "{opened}");

            server.resume();
            let back = Instant::now();
            while signing(&stores, &format!("away{round}@nec.example")).await.is_err() {
                assert!(back.elapsed() < BACK_WITHIN, "not back after {BACK_WITHIN:?}");
            }
            println!("failed after {took:?}, back after {:?}", back.elapsed());
            let back = format!("back{round}@nec.example");
            // Remembered to have no key: only word of the change makes it known.
            assert!(signing(&stores, &back).await.unwrap().is_empty());
            generate(&other, &back).await;
            noticed(&stores, &back).await;
        }
    }
}

#[tokio::test]
async fn a_silent_server_holds_up_nobody_for_longer_than_a_look_up_may_take() {
    let server = Postgres::start();
    server.sql("postgres", "CREATE DATABASE one OWNER sealgate");
    let mut bed = Bed::new(&server.url("one")).await;
    bed.config.lookup_timeout = Duration::from_millis(700);
    let stores = bed.open().await;
    assert!(signing(&stores, "before@nec.example").await.unwrap().is_empty());
    server.signal_all("STOP");
    // More than there are connections, and each would hold one.
    for index in 0..9 {
        let started = Instant::now();
        assert!(signing(&stores, &format!("{index}@nec.example")).await.is_err());
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    server.signal_all("CONT");
    let back = Instant::now();
    while signing(&stores, "after@nec.example").await.is_err() {
        assert!(back.elapsed() < BACK_WITHIN, "not back after {BACK_WITHIN:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_hangs_holds_up_others_for_seconds_only() {
    let server = Postgres::start();
    server.sql("postgres", "CREATE DATABASE one OWNER sealgate");
    let bed = Bed::new(&server.url("one")).await;
    let stores = bed.open().await;
    std::thread::scope(|scope| {
        // One transaction; it ends badly, when the server is stopped.
        let hang = "UPDATE changes SET counter = counter; SELECT pg_sleep(600)";
        let hanging = scope.spawn(|| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.sql("one", hang)))
        });
        let sleeping = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        await_that("the writer hangs", || server.sql("one", sleeping) == "1");
        let started = Instant::now();
        let owner = "alice@nec.example".parse().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let refused = tokio::task::block_in_place(|| {
            let administration = stores.administration();
            runtime.block_on(administration.generate_secret_keys(&owner, Algorithm::P256))
        });
        assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
        assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
        let found =
            tokio::task::block_in_place(|| runtime.block_on(signing(&stores, "alice@nec.example")));
        assert!(found.expect("readers are not held up").is_empty());
        server.stop();
        assert!(hanging.join().unwrap().is_err());
    });
}

#[tokio::test]
async fn a_database_in_use_is_left_alone_and_an_empty_one_named() {
    let server = Postgres::shared();
    let url = server.url(&server.create_database());
    let empty: DatabaseUrl = url.parse().unwrap();
    let error = Database::open(&empty).await.unwrap_err();
    assert!(matches!(error, StoreError::DatabaseEmpty(_)), "{error}");
    assert!(error.to_string().contains("sealgate init --domain DOMAIN --database"), "{error}");
    assert!(!error.to_string().contains("geheim"), "{error}");

    Bed::new(&url).await;
    let others = server.create_database();
    server.sql(&others, "CREATE TABLE orders (id BIGINT)");
    for (url, word) in [(url, "holds a sealgate already"), (server.url(&others), "other tables")] {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("master.key");
        let refused =
            establish(&key, &url.parse().unwrap(), &Domain::parse("b.example").unwrap()).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, StoreError::Exists(_)), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
        assert!(!key.exists(), "a file was written");
    }
}

/// One makes the database, the other finds it made; neither leaves a key that opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_make_a_database_at_once_one_does() {
    let server = Postgres::shared();
    for _ in 0..3 {
        let url: DatabaseUrl = server.socket_url(&server.create_database()).parse().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let keys = ["one", "other"].map(|name| directory.path().join(name));
        let [one, other] = keys.clone().map(|key| {
            let url = url.clone();
            tokio::spawn(async move {
                establish(&key, &url, &Domain::parse("nec.example").unwrap()).await
            })
        });
        let made = [one.await.unwrap(), other.await.unwrap()];
        let refused: Vec<_> = made.iter().filter_map(|made| made.as_ref().err()).collect();
        let [StoreError::Exists(why)] = refused.as_slice() else { panic!("{refused:?}") };
        assert!(why.contains("holds a sealgate already"), "{why}");
        for (key, made) in keys.into_iter().zip(made) {
            assert_eq!(key.exists(), made.is_ok());
            let Ok(authority) = made else { continue };
            let master_key = SecretSource::File(key);
            let config =
                StoresConfig { database: url.clone(), master_key, ..StoresConfig::default() };
            let stores = Stores::open(&config).await.unwrap();
            let anchors = stores.administration().anchors().await.unwrap();
            assert_eq!(anchors.len(), 1);
            assert_eq!(anchors[0].der(), authority.der());
            generate(&stores, "alice@nec.example").await;
        }
    }
}

#[tokio::test]
async fn several_may_open_at_once() {
    let server = Postgres::shared();
    let bed = Bed::new(&server.socket_url(&server.create_database())).await;
    let (a, b, c) = tokio::join!(
        Stores::open(&bed.config),
        Stores::open(&bed.config),
        Stores::open(&bed.config)
    );
    for stores in [a, b, c] {
        let stores = stores.unwrap();
        assert_eq!(stores.administration().anchors().await.unwrap().len(), 1);
        stores.close().await;
        assert!(signing(&stores, "alice@nec.example").await.is_err(), "closed");
    }
}

#[tokio::test]
async fn a_relays_role_needs_no_right_to_make_tables() {
    let server = Postgres::shared();
    let database = server.create_database();
    let mut bed = Bed::new(&server.socket_url(&database)).await;
    server.sql(
        &database,
        "CREATE ROLE relay LOGIN; GRANT SELECT ON _sqlx_migrations TO relay; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO relay",
    );
    let url = server.socket_url(&database).replace("user=sealgate", "user=relay");
    bed.config.database = url.parse().unwrap();
    let stores = bed.open().await;
    generate(&stores, "alice@nec.example").await;
    assert_eq!(signing(&stores, "alice@nec.example").await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_server_proves_who_it_is_with_its_certificate() {
    let server = Postgres::shared();
    let database = server.create_database();
    let url = server.url(&database);
    let root = server.root.display();
    let bed = Bed::new(&format!("{url}?sslmode=verify-full&sslrootcert={root}")).await;
    // A relative path starts at the configuration.
    std::fs::copy(&server.root, bed.directory.path().join("ca.pem")).unwrap();
    let relative: DatabaseUrl =
        format!("{url}?sslmode=verify-full&sslrootcert=ca.pem").parse().unwrap();
    let open = Database::open(&relative.within(bed.directory.path())).await.unwrap();
    let plain = format!(
        "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE datname = '{database}' AND application_name LIKE 'sealgate%' AND NOT ssl"
    );
    assert_eq!(server.sql("postgres", &plain), "0");
    open.close().await;

    let stranger = Pki::new("Stranger");
    let elsewhere = url.replace("127.0.0.1", "127.0.0.2");
    for (url, word) in [
        (
            format!("{url}?sslmode=verify-full&sslrootcert={}", stranger.root.display()),
            "UnknownIssuer",
        ),
        (format!("{url}?sslmode=verify-full"), "UnknownIssuer"),
        (format!("{elsewhere}?sslmode=verify-full&sslrootcert={root}"), "not valid for name"),
    ] {
        let refused = Database::open(&url.parse().unwrap()).await.unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
        assert!(!refused.contains("geheim"), "{refused}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_named_and_not_shown() {
    let server = Postgres::shared();
    let url = server.url(&server.create_database()).replace("geheim", "falsch");
    let refused = Database::open(&url.parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Database { .. }), "{refused}");
    let refused = refused.to_string();
    assert!(refused.contains("password authentication failed"), "{refused}");
    assert!(!refused.contains("falsch"), "{refused}");
}
