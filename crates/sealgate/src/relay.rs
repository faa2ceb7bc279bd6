//! Data communication: listeners, sessions, transactions, routes and deliveries; the only part that knows the network.
//!
//! A message goes listener → session → transaction → fan-out → delivery, and its answer the same way back. Nothing is
//! queued and nothing touches a disk: 250 is said upstream after the next hop said it. What is done with a
//! message is the core's affair, where keys are is the stores'.

use std::io::{self, Write as _};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use sealgate_core::address::Domain;
use sealgate_core::smtp::server::{Limits as ServerLimits, Options};
use sealgate_keys::stores::Stores;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::Config;

mod answers;
mod budget;
mod connect;
pub(crate) mod crypto_threads;
mod deliver;
mod done;
mod fanout;
mod hops;
mod link;
pub(crate) mod listener;
mod pool;
mod route;
mod session;
pub(crate) mod settle;
mod stream;
pub(crate) mod tls;
mod trace;
mod transaction;

use budget::{Connections, Memory};
use crypto_threads::CryptoThreads;
use deliver::Downstream;
use done::Absence;
use hops::Hops;
use listener::Entrance;
use route::Router;

/// What a configuration means to the relay; replaced as a whole by a reload.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The configuration.
    pub(crate) config: Config,
    /// STARTTLS, where a certificate is given.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    hostname: Domain,
    postmaster_domain: Domain,
}

impl Settings {
    /// # Errors
    /// A line that says what is wrong with the TLS files or the names.
    pub(crate) fn new(config: Config) -> Result<Self, String> {
        let tls = config.tls.as_ref().map(tls::server).transpose()?;
        let hostname = Domain::parse(&config.hostname)
            .map_err(|_| format!("hostname `{}` is no domain name", config.hostname))?;
        let postmaster_domain = config.domains.first().unwrap_or(&hostname).clone();
        Ok(Self { config, tls, hostname, postmaster_domain })
    }

    fn server_options(&self, entrance: Entrance) -> Options {
        let limits = &self.config.limits;
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Options {
            protocol: entrance.protocol(),
            hostname: self.hostname.clone(),
            postmaster_domain: self.postmaster_domain.clone(),
            starttls: self.tls.is_some(),
            smtputf8: true,
            dsn: true,
            limits: ServerLimits {
                message_bytes_max: u64::try_from(limits.message_bytes_max).unwrap_or(u64::MAX),
                recipients_max: limits.recipients_max,
                commands_max: number(limits.commands_per_session_max),
                errors_max: number(limits.errors_per_session_max),
                ..ServerLimits::default()
            },
        }
    }
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Relay {
    settings: RwLock<Arc<Settings>>,
    stores: Arc<Stores>,
    crypto: CryptoThreads,
    downstream: Downstream,
    absence: Absence,
    memory: Arc<Memory>,
    connections: Arc<Connections>,
    draining: watch::Sender<bool>,
}

impl Relay {
    /// # Errors
    /// A line that says what is wrong with the configuration.
    pub(crate) fn new(settings: Settings, stores: Stores) -> Result<Arc<Self>, String> {
        let hostname = settings.config.hostname.clone();
        let router = Router::new(&settings.config.dns, &hostname)?;
        let hops = Hops::new(settings.config.limits.connections_per_next_hop_max);
        Ok(Arc::new(Self {
            settings: RwLock::new(Arc::new(settings)),
            stores: Arc::new(stores),
            crypto: CryptoThreads::new(),
            downstream: Downstream::new(router, hostname, hops)?,
            absence: Absence::default(),
            memory: Arc::default(),
            connections: Arc::default(),
            draining: watch::Sender::new(false),
        }))
    }

    /// The configuration of this moment.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether mail can be taken now (`/readyz`).
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) async fn readiness(&self) -> Result<(), String> {
        if *self.draining.borrow() {
            return Err("shutting down".to_owned());
        }
        self.stores.trust().await.map(drop).map_err(|error| error.to_string())
    }

    /// Sets the gauges that are read off when they are asked for.
    pub(crate) fn measure(&self) {
        let gauge = |value: usize| f64::from(u32::try_from(value).unwrap_or(u32::MAX));
        metrics::gauge!("sealgate_connections_open").set(gauge(self.connections.total()));
        let kibibytes = self.memory.used_bytes() / 1024;
        metrics::gauge!("sealgate_memory_in_flight_kibibytes").set(gauge(kibibytes));
    }

    /// Listens, serves, and returns after a drain.
    ///
    /// # Errors
    /// Where an address cannot be listened on, or the signals not be waited for.
    pub(crate) async fn run(self: Arc<Self>) -> io::Result<()> {
        let signals = Signals::new()?;
        let addresses = self.start().await?;
        let mut out = io::stdout();
        writeln!(out, "ready{addresses}")?;
        out.flush()?;
        // Without systemd this does nothing.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        self.wait_for(signals).await;
        self.drain().await;
        Ok(())
    }

    /// Opens all listeners; returns them as the `ready` line shows them.
    async fn start(self: &Arc<Self>) -> io::Result<String> {
        let settings = self.settings();
        let config = &settings.config;
        let mut line = String::new();
        for (entrance, address) in [
            (Entrance::InsideLmtp, config.inside.lmtp),
            (Entrance::InsideSmtp, config.inside.smtp),
            (Entrance::OutsideSmtp, config.outside.smtp),
        ] {
            let Some(address) = address else { continue };
            let listener = listener::open(address).map_err(|error| {
                io::Error::other(format!("{}: {address}: {error}", entrance.name()))
            })?;
            line.push_str(&format!(" {}={}", entrance.name(), listener.local_addr()?));
            tokio::spawn(listener::serve(Arc::clone(self), entrance, listener));
        }
        if let Some(address) = config.observe.listen {
            let address = crate::observe::http::serve(Arc::clone(self), address).await?;
            line.push_str(&format!(" observe={address}"));
        }
        let relay = Arc::downgrade(self);
        tokio::spawn(async move {
            for round in 0_u64.. {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(relay) = relay.upgrade() else { return };
                relay.downstream.pool.sweep();
                relay.downstream.hops.sweep();
                if round % DONE_SWEEP_ROUNDS == 0 {
                    done::sweep(&relay).await;
                }
            }
        });
        Ok(line)
    }

    /// Until SIGTERM or SIGINT; SIGHUP reloads.
    async fn wait_for(&self, mut signals: Signals) {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hang_up.recv() => self.reload(),
            }
        }
    }

    /// Takes the configuration anew; a wrong one changes nothing. Listeners, stores and resolvers stay as they are.
    fn reload(&self) {
        let path = self.settings().config.path.clone();
        let loaded = Config::load(&path).map_err(|error| error.to_string()).and_then(Settings::new);
        match loaded {
            Ok(settings) => {
                *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
                tracing::info!(path = %path.display(), "configuration reloaded");
            }
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }

    /// No new connections; transactions may end.
    async fn drain(&self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let drain_max = Duration::from_secs(self.settings().config.limits.drain_secs_max);
        let deadline = tokio::time::Instant::now() + drain_max;
        tracing::info!(connections = self.connections.total(), "draining");
        self.draining.send_replace(true);
        while self.connections.total() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        self.downstream.pool.clear();
        tracing::info!(cut = self.connections.total(), "stopped");
    }
}

/// Caught from before the `ready` line on.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
    pub(crate) hang_up: Signal,
}

impl Signals {
    /// # Errors
    /// What the system says.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// How often idle downstream connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Old done-records are deleted every hour.
const DONE_SWEEP_ROUNDS: u64 = 720;
/// How often a drain looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);
