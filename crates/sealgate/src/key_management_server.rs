//! Our own key management server (embodiment 3): it holds the embedded secret keys and uses them for relays that hold none.
//!
//! It speaks KMIP 1.2 to 1.4 over TLS with client certificates, or over a unix socket whose other end the system names. A
//! message goes listener → session → operations; entitlement is looked at with every request, keys are used on bounded
//! threads, and every use and every refusal is audited before its answer goes out.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use sealgate_keys::key_ring::KeyRing;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, KeyServerConfig, RelayEntry};
use crate::relay::{Signals, listener as tcp, tls};

pub(crate) mod audit;
mod entitlement;
mod incoming;
mod key_use;
mod lanes;
mod listener;
mod objects;
mod operations;
mod places;
mod rate;
mod register;
mod restart;
mod session;

use audit::Audit;
use lanes::Lanes;
use places::Places;
use rate::Rates;
use restart::Standing;

/// What a configuration means to the server; replaced as a whole by a reload.
#[derive(Debug)]
pub(crate) struct Settings {
    path: PathBuf,
    config: KeyServerConfig,
    relays: Vec<Arc<RelayEntry>>,
    tls: Option<Arc<ServerConfig>>,
    /// What tells the authorities of clients from those of another configuration.
    authorities: Option<Arc<str>>,
    standing: Standing,
    drain_max: Duration,
}

impl Settings {
    /// # Errors
    /// A line that says what is wrong with the TLS files, or that there is no `[key_server]`.
    pub(crate) fn new(config: Config) -> Result<Self, String> {
        let server = config.key_server.as_ref().ok_or_else(|| {
            format!(
                "{}: no [key_server]: add one, with at least one [[key_server.relay]]",
                config.path.display()
            )
        })?;
        let tls = server.tls.as_ref();
        let authorities = tls.map(|tls| digest_of_file(&tls.client_ca)).transpose()?;
        let tls = tls.map(|tls| tls::authenticating_server(&tls.files, &tls.client_ca));
        Ok(Self {
            standing: Standing::new(&config, server),
            tls: tls.transpose()?,
            authorities: authorities.map(Arc::from),
            relays: server.relays.iter().cloned().map(Arc::new).collect(),
            drain_max: Duration::from_secs(config.limits.drain_secs_max),
            config: server.clone(),
            path: config.path,
        })
    }

    /// How many relays are entitled to something.
    pub(crate) fn relays(&self) -> usize {
        self.relays.len()
    }

    /// Whether the audit file could be written, as far as can be told without a change to it.
    ///
    /// # Errors
    /// A line that says why not.
    pub(crate) fn look_at_audit(&self) -> Result<(), String> {
        let path = self.config.audit.as_deref();
        audit::look(path).map_err(|error| self.of_audit(&error))
    }

    /// Whether the socket could be made; where a server listens there already it may be this one.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) fn look_at_socket(&self) -> io::Result<()> {
        self.config.socket.as_deref().map_or(Ok(()), listener::look)
    }

    fn of_audit(&self, error: &io::Error) -> String {
        let path = self.config.audit.as_deref().unwrap_or(&self.path);
        format!("{}: {error}: the audit file", path.display())
    }
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct KeyServer {
    settings: RwLock<Arc<Settings>>,
    /// Some of it holds until it is started again.
    started: Standing,
    ring: KeyRing,
    audit: Audit,
    rates: Rates,
    lanes: Lanes,
    /// Connections over TLS that have not shown a certificate yet, by where they come from.
    strangers: Arc<Places>,
    /// Connections over TLS with a certificate of our authorities, by where they come from.
    places: Arc<Places>,
    /// Connections over the socket by user, counted apart: strangers of the network take up no place here.
    local_places: Arc<Places>,
    /// Connections by who it is.
    clients: Arc<Places>,
    draining: watch::Sender<bool>,
}

impl KeyServer {
    /// # Errors
    /// A line that says why the audit file cannot be written, or no thread be started.
    pub(crate) fn new(settings: Settings, ring: KeyRing) -> Result<Arc<Self>, String> {
        let path = settings.config.audit.as_deref();
        let audit = Audit::open(path).map_err(|error| settings.of_audit(&error))?;
        Ok(Arc::new(Self {
            started: settings.standing.clone(),
            settings: RwLock::new(Arc::new(settings)),
            ring,
            audit,
            rates: Rates::default(),
            lanes: Lanes::start().map_err(|error| format!("no threads to serve on: {error}"))?,
            strangers: Arc::default(),
            places: Arc::default(),
            local_places: Arc::default(),
            clients: Arc::default(),
            draining: watch::Sender::new(false),
        }))
    }

    /// The configuration of this moment.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Listens, serves, and returns after a drain.
    ///
    /// # Errors
    /// Where an address or socket cannot be listened on, or the signals not be waited for.
    pub(crate) async fn run(self: Arc<Self>) -> io::Result<()> {
        let mut signals = Signals::new()?;
        let settings = self.settings();
        let mut line = "ready".to_owned();
        if let Some(tls) = &settings.config.tls {
            let listener = tcp::open(tls.listen)
                .and_then(TcpListener::from_std)
                .map_err(|error| io::Error::other(format!("{}: {error}", tls.listen)))?;
            line.push_str(&format!(" key-server={}", listener.local_addr()?));
            tokio::spawn(listener::serve_tls(Arc::clone(&self), listener));
        }
        if let Some(path) = &settings.config.socket {
            let listener = listener::open_socket(path)?;
            line.push_str(&format!(" key-server-socket={}", path.display()));
            tokio::spawn(listener::serve_socket(Arc::clone(&self), listener));
        }
        let mut out = io::stdout();
        writeln!(out, "{line}")?;
        out.flush()?;
        // Without systemd this does nothing.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.hang_up.recv() => self.reload(),
            }
        }
        self.drain(settings.config.socket.as_ref()).await;
        Ok(())
    }

    /// Takes configuration, TLS files and entitlements anew, and opens the audit file anew; a wrong configuration changes
    /// nothing. Listeners, the audit file's name, the database and the master key stay as they are, which is said where they
    /// should not.
    fn reload(&self) {
        self.audit.reopen();
        let path = self.settings().path.clone();
        let loaded = Config::load(&path).map_err(|error| error.to_string()).and_then(Settings::new);
        match loaded {
            Ok(settings) => {
                self.started.warn(&settings.standing);
                *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
                tracing::info!(path = %path.display(), "configuration reloaded");
            }
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }

    /// No new connections and no new messages; what is being answered may end.
    async fn drain(&self, socket: Option<&PathBuf>) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let deadline = tokio::time::Instant::now() + self.settings().drain_max;
        self.draining.send_replace(true);
        if let Some(path) = socket {
            // Whoever comes next replaces it where it stays.
            let _ = std::fs::remove_file(path);
        }
        let open = || self.places.total().saturating_add(self.local_places.total());
        while open() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        self.audit.close();
        tracing::info!(cut = open(), "stopped");
        self.ring.close().await;
    }
}

fn digest_of_file(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(audit::sha256(&bytes))
}

/// How often a drain looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);
