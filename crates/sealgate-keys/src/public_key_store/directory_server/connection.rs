//! The one connection that all look-ups share, and how it comes back.
//!
//! In: an operation. Out: its answer within the deadline, by the first of the servers that can be reached. A connection
//! that is lost or hangs is replaced and the operation tried once more; a server that could not be reached is left alone
//! for [`RETRY_AFTER`]; an earlier server is preferred again once it is back. Whoever needs a connection while one is
//! being made waits for that one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, StdStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::login::Login;
use super::search::{self, Fault, Question};
use super::server::Server;
use super::{STORE, way};
use crate::error::StoreError;

/// The connection of all look-ups.
pub(super) struct Connections {
    servers: Vec<Server>,
    login: Login,
    timeout: Duration,
    session: Mutex<Option<Session>>,
    /// One for each operation under way.
    places: Semaphore,
    /// Of each server the last failure. Held by whoever connects.
    failures: Arc<tokio::sync::Mutex<Vec<Option<Failure>>>>,
}

#[derive(Clone)]
struct Session {
    ldap: Ldap,
    /// Index of its server; 0 is preferred.
    server: usize,
    /// Told from other connections by its place in memory.
    identity: Arc<()>,
}

struct Failure {
    at: Instant,
    why: String,
    /// When the log was told this.
    told: Option<Instant>,
}

impl Failure {
    /// One more; the log is told what is new, and what stays now and then.
    fn tell(server: &Server, why: String, last: Option<&Self>) -> Self {
        let now = Instant::now();
        let same = last.filter(|last| last.why == why).and_then(|last| last.told);
        let told = same.filter(|told| now.saturating_duration_since(*told) < TOLD_AGAIN_AFTER);
        if told.is_none() {
            tracing::warn!(%server, why, "directory server is away");
        }
        Self { at: now, why, told: told.or(Some(now)) }
    }

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < RETRY_AFTER
    }
}

impl Connections {
    pub(super) fn new(servers: Vec<Server>, login: Login, timeout: Duration) -> Self {
        let failures = servers.iter().map(|_| None).collect();
        let failures = Arc::new(tokio::sync::Mutex::new(failures));
        let places = Semaphore::new(OPERATIONS_MAX);
        Self { servers, login, timeout, session: Mutex::new(None), places, failures }
    }

    pub(super) fn names(&self) -> String {
        self.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Runs an operation that may be repeated, and repeats it once on a new connection where the old one was lost. The
    /// first try has half of the time, so that something is left for the second.
    pub(super) async fn run<T, Running>(
        self: &Arc<Self>,
        operation: impl Fn(Ldap, Instant) -> Running,
    ) -> Result<T, StoreError>
    where
        Running: Future<Output = Result<T, Fault>> + Send,
    {
        let deadline = Instant::now() + self.timeout;
        let late = |what| unavailable(format!("{}: no {what} in time", self.names()));
        let _place =
            timeout_at(deadline, self.places.acquire()).await.map_err(|_| late("answer"))?;
        let mut is_last = false;
        loop {
            let session =
                timeout_at(deadline, self.session()).await.map_err(|_| late("connection"))??;
            let share = if is_last { self.timeout } else { self.timeout / 2 };
            let until = deadline.min(Instant::now() + share);
            let fault = match operation(session.ldap.clone(), until).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let is_final = matches!(fault, Fault::Answered(_));
            if !is_final {
                self.discard(&session, &fault);
            }
            if is_final || is_last {
                let name = self.servers.get(session.server).map(ToString::to_string);
                let why = fault.into_reason();
                return Err(unavailable(format!("{}: {why}", name.unwrap_or_default())));
            }
            is_last = true;
        }
    }

    /// Asks every server, on a connection of its own: for the base, and for an address that nobody has. One that fails is a
    /// fault, although look-ups go on with the others: it is missed only when they fail too.
    pub(super) async fn check(
        &self,
        base: &Question,
        nobody: &Question,
    ) -> Result<String, StoreError> {
        let (mut lines, mut failed) = (Vec::new(), Vec::new());
        for server in &self.servers {
            let deadline = Instant::now() + self.timeout;
            let checked =
                timeout_at(deadline, self.check_server(server, [base, nobody], deadline)).await;
            let line = match checked {
                Ok(Ok(who)) => {
                    lines.push(format!("{server}: bound as {who}, {} is there", base.base));
                    continue;
                }
                Ok(Err(why)) => format!("{server}: {why}"),
                Err(_) => format!("{server}: no answer in time"),
            };
            failed.push(line);
        }
        // What fails stands first, where it is seen.
        if failed.is_empty() {
            return Ok(lines.join("; "));
        }
        failed.append(&mut lines);
        Err(unavailable(failed.join("; ")))
    }

    async fn check_server(
        &self,
        server: &Server,
        [base, nobody]: [&Question; 2],
        deadline: Instant,
    ) -> Result<String, String> {
        let (ldap, who) = self.open(server, deadline).await?;
        let entries = search::entries(ldap.clone(), deadline, base.clone());
        let found = entries.await.map_err(Fault::into_reason)?;
        if let Some(why) = found.cut_off {
            return Err(why);
        }
        if found.entries.is_empty() {
            return Err(format!(
                "`{}` cannot be read: correct `base`, or let us read it",
                base.base
            ));
        }
        // As the look-ups of all who have no certificate are answered: what is not whole makes their mail wait.
        let entries = search::entries(ldap, deadline, nobody.clone());
        let found = entries.await.map_err(Fault::into_reason)?;
        match found.not_whole() {
            Some(why) => Err(format!("a search below `{}`: {why}", base.base)),
            None => Ok(who),
        }
    }

    async fn session(self: &Arc<Self>) -> Result<Session, StoreError> {
        if let Some(session) = self.live() {
            self.prefer_before(session.server);
            return Ok(session);
        }
        let mut failures = self.failures.lock().await;
        match self.live() {
            Some(session) => Ok(session),
            None => self.connect(&mut failures, self.servers.len()).await,
        }
    }

    /// Connects to the first of so many servers that can be reached.
    async fn connect(
        &self,
        failures: &mut [Option<Failure>],
        count: usize,
    ) -> Result<Session, StoreError> {
        let mut reasons = Vec::new();
        let servers = self.servers.iter().zip(failures).take(count).enumerate();
        for (index, (server, failure)) in servers {
            if let Some(last) = failure.as_ref().filter(|failure| failure.is_fresh()) {
                reasons.push(format!("{server}: {}", last.why));
                continue;
            }
            let deadline = Instant::now() + self.connect_timeout();
            let opened = timeout_at(deadline, self.open(server, deadline)).await;
            let why = match opened.unwrap_or_else(|_| Err("no connection in time".to_owned())) {
                Ok((ldap, _)) => {
                    *failure = None;
                    let session = Session { ldap, server: index, identity: Arc::new(()) };
                    *self.slot() = Some(session.clone());
                    tracing::info!(%server, "connected to the directory server");
                    return Ok(session);
                }
                Err(why) => why,
            };
            reasons.push(format!("{server}: {why}"));
            *failure = Some(Failure::tell(server, why, failure.as_ref()));
        }
        Err(unavailable(reasons.join("; ")))
    }

    async fn open(&self, server: &Server, deadline: Instant) -> Result<(Ldap, String), String> {
        let password = self.login.password(server)?;
        let stream = way::open(server, self.login.tls.as_ref(), deadline).await?;
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(stream));
        let (connection, mut ldap) = LdapConnAsync::with_settings(settings, LIBRARY_URL)
            .await
            .map_err(|error| Fault::of_connection(error).into_reason())?;
        let name = server.to_string();
        tokio::spawn(async move {
            if let Err(error) = connection.drive().await {
                tracing::debug!(server = name, %error, "the connection to the directory server ended");
            }
        });
        let who = self.login.bind(server, &mut ldap, password).await?;
        Ok((ldap, who))
    }

    /// Looks, beside the look-ups, whether a server that comes before this one is back.
    fn prefer_before(self: &Arc<Self>, server: usize) {
        if server == 0 {
            return;
        }
        let Ok(mut failures) = Arc::clone(&self.failures).try_lock_owned() else { return };
        let is_due = |failure: &Option<Failure>| !failure.as_ref().is_some_and(Failure::is_fresh);
        if failures.iter().take(server).any(is_due) {
            let connections = Arc::clone(self);
            tokio::spawn(async move {
                // Not reached again: the connection that we have stays.
                let _ = connections.connect(&mut failures, server).await;
            });
        }
    }

    /// Takes a connection out of use, and its server where others may do better.
    fn discard(&self, session: &Session, fault: &Fault) {
        {
            let mut slot = self.slot();
            let is_ours =
                slot.as_ref().is_some_and(|now| Arc::ptr_eq(&now.identity, &session.identity));
            if is_ours {
                *slot = None;
            }
        }
        tracing::debug!(?fault, "a connection to the directory server is given up");
        let Fault::Stuck(why) = fault else { return };
        // Whoever connects at this moment finds out by himself.
        if self.servers.len() > 1
            && let Ok(mut failures) = self.failures.try_lock()
            && let Some(failure) = failures.get_mut(session.server)
        {
            *failure = Some(Failure { at: Instant::now(), why: why.clone(), told: None });
        }
    }

    fn live(&self) -> Option<Session> {
        let mut slot = self.slot();
        let session = slot.as_mut()?;
        (!session.ldap.is_closed()).then(|| session.clone())
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All servers can be tried in half of the time of an answer.
    fn connect_timeout(&self) -> Duration {
        let servers = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        self.timeout / 2 / servers.max(1)
    }
}

fn unavailable(why: String) -> StoreError {
    StoreError::Unavailable { store: STORE.to_owned(), why }
}

/// Operations under way on the connection. OpenLDAP closes a connection with more than 100 (`conn_max_pending`).
const OPERATIONS_MAX: usize = 64;
/// The library is handed a stream; its URL only has to have the form.
const LIBRARY_URL: &str = "ldapi:///";
/// How long a server that failed is not asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the log is not told again what it was told.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_what_is_new_and_what_stays_only_now_and_then() {
        let server = Server::parse("ldap://localhost", false).unwrap();
        let tell = |why: &str, last: &Failure| Failure::tell(&server, why.to_owned(), Some(last));
        let first = Failure::tell(&server, "refused".to_owned(), None);
        let told = first.told.unwrap();
        let second = tell("refused", &first);
        assert_eq!((second.told, second.at >= first.at), (Some(told), true));
        assert!(tell("hangs", &second).told > Some(told), "another reason is news");
        let long_ago = told.checked_sub(TOLD_AGAIN_AFTER);
        assert!(tell("refused", &Failure { told: long_ago, ..second }).told >= Some(told));
    }
}
