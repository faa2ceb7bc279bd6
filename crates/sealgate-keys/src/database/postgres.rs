//! PostgreSQL: a bounded pool of connections, and one more that hears of changes (LISTEN/NOTIFY).
//!
//! Every wait has an end: for a connection, for a statement, for the listener's. A connection that an answer was still
//! owed on is closed, never given back, so that a server that went silent costs one statement's time and not the pool.
//! Nothing is set for a session, and what a transaction sets ends with it, so that a connection pooler (PgBouncer) may
//! stand between; where it swallows notifications the counter is read every [`POLL_INTERVAL`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions, PgRow, Postgres,
};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::statement::Statement;

/// The server, with connections.
#[derive(Debug)]
pub(super) struct PostgresDatabase {
    pool: PgPool,
    /// No connection was to be had when last tried: meanwhile one caller waits for the next, the others are told at once.
    is_away: AtomicBool,
    probe: Mutex<()>,
    /// Goes up with every change heard of, and whenever one may have been missed.
    changes: Arc<AtomicI64>,
    listener: JoinHandle<()>,
}

/// What a database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// No table.
    Nothing,
    /// Ours.
    Stores,
    /// Somebody else's.
    Other,
}

impl PostgresDatabase {
    /// Connects and brings the tables up to date; `None` where there are none.
    pub(super) async fn open(options: &PgConnectOptions) -> Result<Option<Self>, MigrateError> {
        let pool = connect(options).await?;
        if content(&pool).await? != Content::Stores {
            return Ok(None);
        }
        migrate(&pool).await?;
        let counter = read_counter(&mut *pool.acquire().await?).await?;
        let changes = Arc::new(AtomicI64::new(0));
        let told = Arc::clone(&changes);
        let listener = tokio::spawn(listen(options.clone(), pool.clone(), told, counter));
        Ok(Some(Self {
            pool,
            is_away: AtomicBool::new(false),
            probe: Mutex::new(()),
            changes,
            listener,
        }))
    }

    /// Makes the tables in an empty database; says what stood in the way.
    pub(super) async fn create(options: &PgConnectOptions) -> Result<Content, MigrateError> {
        let pool = connect(options).await?;
        let content = content(&pool).await?;
        if content == Content::Nothing {
            migrate(&pool).await?;
        }
        pool.close().await;
        Ok(content)
    }

    pub(super) async fn close(&self) {
        self.listener.abort();
        // A server that does not answer needs no farewell.
        let _ = timeout(STATEMENT_TIMEOUT, self.pool.close()).await;
    }

    /// Another number after each change; costs nothing.
    pub(super) fn changes(&self) -> i64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) async fn fetch_all(
        &self,
        statement: &Statement<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut lease = self.lease().await?;
        let rows = bounded(statement.query().fetch_all(lease.connection()?)).await?;
        lease.give_back();
        Ok(rows)
    }

    /// Runs a statement and says how many rows it touched.
    pub(super) async fn execute(&self, statement: &Statement<'_>) -> Result<u64, sqlx::Error> {
        let mut lease = self.lease().await?;
        let done = bounded(statement.query().execute(lease.connection()?)).await?;
        lease.give_back();
        Ok(done.rows_affected())
    }

    /// A connection, or at once that there is none where there was none before: many who each wait for a dead server would
    /// hold up their senders for minutes.
    async fn lease(&self) -> Result<Lease, sqlx::Error> {
        let _probing = match self.is_away.load(Ordering::Acquire) {
            true => Some(self.probe.try_lock().map_err(|_| sqlx::Error::PoolTimedOut)?),
            false => None,
        };
        let acquired = self.pool.acquire().await;
        self.is_away.store(acquired.is_err(), Ordering::Release);
        Ok(Lease { connection: Some(acquired?) })
    }

    /// Begins a transaction that has raised the counter and tells of it when it commits.
    pub(super) async fn begin_change(&self) -> Result<PostgresChange, sqlx::Error> {
        let mut lease = self.lease().await?;
        bounded(sqlx::raw_sql(BEGIN).execute(lease.connection()?)).await?;
        bounded(sqlx::query(super::RAISE_COUNTER).execute(lease.connection()?)).await?;
        bounded(sqlx::query(NOTIFY).bind(CHANNEL).execute(lease.connection()?)).await?;
        Ok(PostgresChange { lease })
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// A transaction; without [`Self::commit`] its connection is closed, which the server takes for a rollback.
pub(super) struct PostgresChange {
    lease: Lease,
}

impl PostgresChange {
    pub(super) async fn execute(&mut self, statement: &Statement<'_>) -> Result<u64, sqlx::Error> {
        let done = bounded(statement.query().execute(self.lease.connection()?)).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn fetch_all(
        &mut self,
        statement: &Statement<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        bounded(statement.query().fetch_all(self.lease.connection()?)).await
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        bounded(sqlx::raw_sql("COMMIT").execute(self.lease.connection()?)).await?;
        self.lease.give_back();
        Ok(())
    }
}

/// A connection of the pool that goes back to it only when said so.
struct Lease {
    /// `None` once given back.
    connection: Option<PoolConnection<Postgres>>,
}

impl Lease {
    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Every answer has been read: the next one may have it.
    fn give_back(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// A statement with an end.
async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match timeout(STATEMENT_TIMEOUT, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options.clone())
        .await
}

async fn content(pool: &PgPool) -> Result<Content, sqlx::Error> {
    let tables: Vec<String> = bounded(sqlx::query_scalar(TABLES).fetch_all(pool)).await?;
    let ours = |table: &&str| tables.iter().any(|found| found == table);
    Ok(if ["changes", "facts", "secret_keys"].iter().all(ours) {
        Content::Stores
    } else if tables.is_empty() {
        Content::Nothing
    } else {
        Content::Other
    })
}

/// Brings the tables up to date. Where they are already nothing is written, so that a relay's role may be one that
/// makes no tables. Several at once wait for each other (an advisory lock).
async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
    let applied: Option<i64> = if content(pool).await? == Content::Stores {
        bounded(sqlx::query_scalar(APPLIED).fetch_one(pool)).await?
    } else {
        None
    };
    if applied.is_some() && applied == newest {
        return Ok(());
    }
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    timeout(MIGRATION_TIMEOUT, MIGRATIONS.run(pool)).await.map_err(late)?
}

async fn read_counter(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    bounded(sqlx::query_scalar(super::READ_COUNTER).fetch_one(connection)).await
}

/// Hears of changes for as long as it runs; a lost connection comes back, and meanwhile the counter is read over the
/// pool, which may have connections where no new one is to be had. `counter` is as last read.
async fn listen(options: PgConnectOptions, pool: PgPool, changes: Arc<AtomicI64>, counter: i64) {
    let mut failures = 0;
    let mut seen = Some(counter);
    loop {
        let error = listen_once(&options, &changes, &mut seen, &mut failures).await;
        // A server that comes back may have lost its last changes: the same number need not be the same content.
        if failures == 0 {
            seen = None;
        }
        match bounded(sqlx::query_scalar(super::READ_COUNTER).fetch_one(&pool)).await {
            Ok(now) if seen.replace(now) != Some(now) => {
                changes.fetch_add(1, Ordering::AcqRel);
            }
            Ok(_) => {}
            Err(_) => seen = None,
        }
        // Once for each time that it goes away, not for each time that it does not come back.
        if failures == 0 {
            tracing::warn!(%error, "no word of changes from the key database; connecting again");
        }
        let pause = LISTENER_PAUSE.saturating_mul(1 << failures.min(LISTENER_DOUBLINGS_MAX));
        failures = failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}

/// Listens until the connection is lost, and says how.
async fn listen_once(
    options: &PgConnectOptions,
    changes: &AtomicI64,
    seen: &mut Option<i64>,
    failures: &mut u32,
) -> sqlx::Error {
    match listener(options).await {
        Ok(mut listener) => {
            if *failures > 0 {
                tracing::info!("the key database tells of changes again");
            }
            *failures = 0;
            let Err(error) = follow(&mut listener, changes, seen).await;
            error
        }
        Err(error) => error,
    }
}

async fn listener(options: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    // A pool of its own: it takes no connection from the stores, and a dead one does not bar the next.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options.clone().application_name("sealgate listener"));
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    bounded(listener.listen(CHANNEL)).await?;
    Ok(listener)
}

/// Reads the counter after LISTEN, which shows what was committed before it, and at every notification.
async fn follow(
    listener: &mut PgListener,
    changes: &AtomicI64,
    seen: &mut Option<i64>,
) -> Result<Infallible, sqlx::Error> {
    loop {
        let read = sqlx::query_scalar(super::READ_COUNTER).fetch_one(&mut *listener);
        let now = bounded(read).await?;
        if seen.replace(now) != Some(now) {
            changes.fetch_add(1, Ordering::AcqRel);
        }
        match timeout(POLL_INTERVAL, listener.try_recv()).await {
            Ok(Ok(Some(_))) | Err(_) => {}
            Ok(Ok(None)) => return Err(sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into())),
            Ok(Err(error)) => return Err(error),
        }
    }
}

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");
/// The newest migration that was applied.
const APPLIED: &str = "SELECT MAX(version) FROM _sqlx_migrations WHERE success";
/// The tables where ours are or would be.
const TABLES: &str = "SELECT tablename::text FROM pg_tables \
                      WHERE schemaname = current_schema() AND tablename <> '_sqlx_migrations'";
/// A relay that dies in the middle must not keep others from writing (milliseconds).
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 5000; \
                     SET LOCAL idle_in_transaction_session_timeout = 10000";
const NOTIFY: &str = "SELECT pg_notify($1, '')";
const CHANNEL: &str = "sealgate_changes";
const CONNECTIONS_MAX: u32 = 8;
/// How long somebody waits for a connection, a new one included: below the look-up timeout.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long making or changing the tables may take, other copies' turns included.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the listener waits before it connects again; doubled with each failure, to 1.6 s.
const LISTENER_PAUSE: Duration = Duration::from_millis(200);
const LISTENER_DOUBLINGS_MAX: u32 = 3;
/// How often the counter is read where nothing is heard: a pooler or a firewall may swallow what is notified, and a key that was
/// taken out must not be used for longer.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
