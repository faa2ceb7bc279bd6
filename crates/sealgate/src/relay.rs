//! Data communication: listeners, sessions, transactions, routes and deliveries; the only part that knows the network.
//!
//! A message goes listener → session → transaction → fan-out → delivery, and its answer the same way back. Nothing is
//! queued and nothing touches a disk: 250 is said upstream after the next hop said it. What is done with a
//! message is the core's affair, where keys are is the stores'.

use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use sealgate_core::address::Domain;
use sealgate_core::dkim::Signer;
use sealgate_core::report::Direction;
use sealgate_core::smtp::server::{Limits as ServerLimits, Options, StartTls};
use sealgate_keys::stores::Stores;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, NextHop};
use crate::domain_key;

mod answers;
mod authentication;
mod budget;
mod client_name;
mod confirm;
mod connect;
pub(crate) mod crypto_threads;
mod dane;
mod decryption_failures;
mod deliver;
mod done;
pub(crate) mod endings;
mod fanout;
mod hops;
mod inherited;
mod introduction;
mod link;
pub(crate) mod listener;
mod look_ups;
mod mta_sts;
pub(crate) mod names;
mod notify;
mod pool;
mod readiness;
mod recipients;
mod restart;
mod route;
#[cfg(test)]
pub(crate) mod schedules;
mod session;
pub(crate) mod settle;
mod stream;
pub(crate) mod tls;
pub(crate) mod trace;
mod transaction;
pub(crate) mod transport;
mod veil;
mod wall_clock;

use budget::{Entrances, Memory};
use confirm::Confirmations;
use crypto_threads::CryptoThreads;
use decryption_failures::DecryptionFailures;
use deliver::{Downstream, InsideOffers};
use done::Absence;
use hops::Hops;
use inherited::Inherited;
use listener::Entrance;
use readiness::Readiness;
use recipients::Recipients;
use route::Router;
use wall_clock::WallClock;

/// What a configuration means to the relay; replaced as a whole by a reload.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The configuration.
    pub(crate) config: Config,
    /// STARTTLS for the Internet, where a certificate is given.
    outside_tls: Option<Arc<ServerConfig>>,
    /// STARTTLS for the inside.
    inside_tls: Option<Arc<ServerConfig>>,
    /// Signs for our domains, where they have a key.
    pub(crate) dkim: Option<Arc<Signer>>,
    hostname: Domain,
    postmaster_domain: Domain,
}

impl Settings {
    /// # Errors
    /// A line that says what is wrong with the TLS files or the names.
    pub(crate) fn new(config: Config) -> Result<Self, String> {
        let outside_tls = config.tls.as_ref().map(tls::server).transpose()?;
        let inside_tls = match (&config.tls, &config.inside.client_ca) {
            (Some(files), Some(ca)) => Some(tls::authenticating_server(files, ca)?),
            _ => outside_tls.clone(),
        };
        let dkim = config.dkim.as_ref().map(domain_key::signer).transpose()?;
        let hostname = Domain::parse(&config.hostname)
            .map_err(|_| format!("hostname `{}` is no domain name", config.hostname))?;
        let postmaster_domain = config.domains.first().unwrap_or(&hostname).clone();
        Ok(Self { config, outside_tls, inside_tls, dkim, hostname, postmaster_domain })
    }

    /// What STARTTLS comes to at an entrance.
    pub(crate) fn tls(&self, direction: Direction) -> Option<&Arc<ServerConfig>> {
        match direction {
            Direction::Inbound => self.outside_tls.as_ref(),
            Direction::Outbound => self.inside_tls.as_ref(),
        }
    }

    fn server_options(&self, entrance: Entrance, inside: &InsideOffers) -> Options {
        let limits = &self.config.limits;
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Options {
            protocol: entrance.protocol(),
            hostname: self.hostname.clone(),
            postmaster_domain: self.postmaster_domain.clone(),
            starttls: match (self.tls(entrance.direction()), &self.config.inside.client_ca) {
                (None, _) => StartTls::Absent,
                (Some(_), Some(_)) if entrance.direction() == Direction::Outbound => {
                    StartTls::Required
                }
                (Some(_), _) => StartTls::Offered,
            },
            // What the mail server does not honour is not promised to the Internet (A7).
            smtputf8: entrance.direction() == Direction::Outbound || inside.smtputf8(),
            dsn: entrance.direction() == Direction::Outbound || inside.dsn(),
            // Only towards the Internet there is a next hop that may be able to.
            requiretls: entrance.direction() == Direction::Outbound,
            limits: ServerLimits {
                message_bytes_max: u64::try_from(limits.message_bytes_max).unwrap_or(u64::MAX),
                recipients_max: limits.recipients_max,
                commands_max: number(limits.commands_per_session_max),
                errors_max: number(limits.errors_per_session_max),
                refusals_are_errors: entrance.direction() == Direction::Inbound,
                ..ServerLimits::default()
            },
        }
    }
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Relay {
    settings: RwLock<Arc<Settings>>,
    /// What it was started with: some of it holds until it is started again.
    started: Arc<Settings>,
    stores: Arc<Stores>,
    crypto: CryptoThreads,
    downstream: Downstream,
    recipients: Recipients,
    confirmations: Confirmations,
    decryption_failures: DecryptionFailures,
    absence: Absence,
    readiness: Readiness,
    memory: Arc<Memory>,
    connections: Entrances,
    clock: WallClock,
    draining: watch::Sender<bool>,
}

impl Relay {
    /// # Errors
    /// A line that says what is wrong with the configuration.
    pub(crate) fn new(settings: Settings, stores: Stores) -> Result<Arc<Self>, String> {
        let hostname = settings.config.hostname.clone();
        let router =
            Router::new(&settings.config.dns, settings.config.outside.ca.as_deref(), &hostname)?;
        let hops = Hops::new(settings.config.limits.connections_per_next_hop_max);
        let started = Arc::new(settings);
        Ok(Arc::new(Self {
            settings: RwLock::new(Arc::clone(&started)),
            started,
            crypto: CryptoThreads::new(stores.key_place()),
            stores: Arc::new(stores),
            downstream: Downstream::new(router, hostname, hops),
            recipients: Recipients::new(),
            confirmations: Confirmations::default(),
            decryption_failures: DecryptionFailures::new(),
            absence: Absence::default(),
            readiness: Readiness::default(),
            memory: Arc::default(),
            connections: Entrances::default(),
            clock: WallClock::new(),
            draining: watch::Sender::new(false),
        }))
    }

    /// The configuration of this moment.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
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
    /// [`StartError`].
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), StartError> {
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

    /// Opens all listeners, and serves where all could be opened: a client is not taken in only to be cut off. Returns them
    /// as the `ready` line shows them.
    async fn start(self: &Arc<Self>) -> Result<String, StartError> {
        self.remember_policies().await;
        let config = &self.started.config;
        let mut line = String::new();
        let mut entrances = Vec::new();
        let mut inherited = Inherited::take().map_err(StartError::contradiction)?;
        for (entrance, address) in [
            (Entrance::InsideLmtp, config.inside.lmtp),
            (Entrance::InsideSmtp, config.inside.smtp),
            (Entrance::OutsideSmtp, config.outside.smtp),
        ] {
            let named = inherited.named(entrance.name(), address);
            let mut listeners = named.map_err(StartError::contradiction)?;
            if let Some(address) = address
                && listeners.is_empty()
            {
                listeners.push(listener::open(address).map_err(|error| {
                    io::Error::other(format!("{}: {address}: {error}", entrance.name()))
                })?);
            }
            for listener in listeners {
                line.push_str(&format!(" {}={}", entrance.name(), listener.local_addr()?));
                entrances.push((entrance, TcpListener::from_std(listener)?));
            }
        }
        let names = Entrance::ALL.map(Entrance::name);
        inherited.finish(&names).map_err(StartError::contradiction)?;
        if let Some(address) = config.observe.listen {
            let address = crate::observe::http::serve(Arc::clone(self), address).await?;
            line.push_str(&format!(" observe={address}"));
        }
        for (entrance, listener) in entrances {
            tokio::spawn(listener::serve(Arc::clone(self), entrance, listener));
        }
        self.probe_resolvers();
        tokio::spawn(endings::watch(Arc::downgrade(self)));
        let relay = Arc::downgrade(self);
        tokio::spawn(async move {
            for round in 0_u64.. {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(relay) = relay.upgrade() else { return };
                relay.downstream.pool.sweep();
                relay.downstream.hops.sweep();
                relay.follow_resolvers();
                crate::observe::drain();
                // A clock that jumped ahead must have neither policies forgotten nor who has a message already.
                if round % DONE_SWEEP_ROUNDS == 0 && !relay.clock.look().is_doubtful {
                    done::sweep(&relay).await;
                    mta_sts::record::sweep(&relay.stores).await;
                }
            }
        });
        Ok(line)
    }

    /// The system's resolvers are others after a DHCP lease, a VPN or the boot.
    fn follow_resolvers(self: &Arc<Self>) {
        if self.downstream.router.follow_resolvers() {
            self.probe_resolvers();
        }
    }

    fn probe_resolvers(self: &Arc<Self>) {
        if self.settings().config.outside.next_hop == NextHop::Mx {
            let relay = Arc::clone(self);
            tokio::spawn(async move { relay.downstream.router.probe().await });
        }
    }

    /// Reads the MTA-STS policies that were learned before, and keeps what is learned from now on.
    async fn remember_policies(self: &Arc<Self>) {
        let mut record = mta_sts::Record::new();
        let relay = Arc::downgrade(self);
        self.exchange_policies(&mut record).await;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(relay) = relay.upgrade() else { return };
                relay.exchange_policies(&mut record).await;
            }
        });
    }

    async fn exchange_policies(&self, record: &mut mta_sts::Record) {
        // A reload may make it so.
        if self.settings().config.outside.next_hop == NextHop::Mx {
            record.exchange(self.downstream.router.policies(), &self.stores).await;
        }
    }

    /// Until SIGTERM or SIGINT; SIGHUP reloads.
    async fn wait_for(self: &Arc<Self>, mut signals: Signals) {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hang_up.recv() => self.reload().await,
            }
        }
    }

    /// Takes configuration, TLS files and stores anew; where one of them is unusable nothing of these is changed. Listeners,
    /// database and configured resolvers stay as they are, and what is under way ends with what it began with.
    async fn reload(self: &Arc<Self>) {
        self.clock.confirm();
        self.follow_resolvers();
        let path = self.settings().config.path.clone();
        match self.load(&path).await {
            Ok(settings) => {
                let before = self.settings();
                let is_another =
                    before.config.inside.mail_server != settings.config.inside.mail_server;
                *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
                if is_another {
                    self.downstream.inside_offers.forget();
                }
                tracing::info!(path = %path.display(), "configuration reloaded");
            }
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }

    /// The stores' part is taken over last: it is the only one that changes something by itself.
    async fn load(&self, path: &Path) -> Result<Settings, String> {
        let mut config = Config::load(path).map_err(|error| error.to_string())?;
        let stores = config.stores.clone();
        let new = config.clone();
        // One name in every greeting, EHLO and field.
        config.hostname.clone_from(&self.started.config.hostname);
        let settings = Settings::new(config)?;
        self.stores.reload(&stores).await.map_err(|error| error.to_string())?;
        self.crypto.make_room(self.stores.key_place());
        restart::warn(&self.started.config, &new);
        Ok(settings)
    }

    /// No new connections; transactions may end.
    async fn drain(&self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let drain_max = Duration::from_secs(self.settings().config.limits.drain_secs_max);
        let deadline = tokio::time::Instant::now() + drain_max;
        tracing::info!(connections = self.connections.total(), "draining");
        self.draining.send_replace(true);
        failpoint!("drain.started");
        let is_done = || self.connections.total() == 0 && self.confirmations.are_done();
        while !is_done() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        failpoint!("drain.done");
        mta_sts::record::write(self.downstream.router.policies(), &self.stores).await;
        self.downstream.pool.clear();
        tracing::info!(cut = self.connections.total(), "stopped");
    }
}

/// Why the relay does not run.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The configuration and the sockets handed over do not go together.
    Configuration(String),
    /// What the system says.
    System(io::Error),
}

impl StartError {
    fn contradiction(error: io::Error) -> Self {
        Self::Configuration(error.to_string())
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(what) => f.write_str(what),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// What other threads work at: where tests run in virtual time, that stands still meanwhile.
#[cfg(not(test))]
fn off_the_clock<F: Future>(work: F) -> F {
    work
}
#[cfg(test)]
use schedules::off_the_clock;

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

/// How often idle downstream connections are looked at, and policies that were learned are written.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Old done-records and policies are deleted every hour.
const DONE_SWEEP_ROUNDS: u64 = 720;
/// How often a drain looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod fuzz_replay;
