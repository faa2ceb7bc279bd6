//! Whether mail can be taken now: what `/readyz` says (REQUIREMENTS O13).
//!
//! Out: nothing, or one line that says what is in the way: a drain, a key store or the database that does not answer, a mail
//! server or a fixed next hop that is left alone. Whoever asks often gets the same answer for [`VALID`], so that asking costs
//! the stores nothing. A server that was away is tried here too: where nobody sends any more, no message finds out that it is
//! back.

use std::sync::Arc;
use std::time::Duration;

use sealgate_core::refusal::Reply;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Relay;
use super::connect::OPENING_MAX;
use super::introduction::Introduction;
use super::route::{self, Hop};
use super::transport::Demand;
use crate::config::{ClientAddress, NextHop};

/// What was found last, and when.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Relay {
    /// Whether mail can be taken now.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) async fn readiness(self: &Arc<Self>) -> Result<(), String> {
        if *self.draining.borrow() {
            return Err("shutting down".to_owned());
        }
        let relay = Arc::clone(self);
        // Whoever asks may lose his patience: the look goes on, and the next one has its answer.
        let looking = tokio::spawn(async move { relay.look().await });
        looking.await.unwrap_or_else(|_| Err("an internal error: see the log".to_owned()))
    }

    /// The last answer, where it still holds.
    async fn look(self: &Arc<Self>) -> Result<(), String> {
        let mut last = self.readiness.0.lock().await;
        if let Some((at, answer)) = last.as_ref()
            && at.elapsed() < VALID
        {
            return answer.clone();
        }
        let stores = timeout(PATIENCE, self.look_at_stores());
        let servers = async { tokio::join!(self.look_at_mail_server(), self.look_at_next_hop()) };
        let (stores, (mail_server, next_hop)) = tokio::join!(stores, servers);
        let late = |_| Err("the key stores: no answer in time".to_owned());
        let answer = stores.unwrap_or_else(late).and(mail_server).and(next_hop);
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn look_at_stores(&self) -> Result<(), String> {
        self.stores.reach(PATIENCE).await.map_err(|error| error.to_string())?;
        // The database may answer where a revocation list cannot be read.
        self.stores.trust().await.map(drop).map_err(|error| error.to_string())
    }

    /// Looks at the mail server only where messages found it away.
    async fn look_at_mail_server(self: &Arc<Self>) -> Result<(), String> {
        let settings = self.settings();
        let config = &settings.config;
        let is_proxied = config.inside.client_address == ClientAddress::Proxy;
        let hop = Hop {
            // Where the mail server wants the PROXY header, it wants it on every connection.
            introduction: is_proxied.then_some(Introduction::Ourselves),
            ..route::fixed(&config.inside.mail_server, Demand::default())
        };
        if self.downstream.hops.is_working(&hop) {
            return Ok(());
        }
        self.look_at(hop, "mail server").await
    }

    /// Looks at a fixed next hop only where messages found it away: where there is no entrance from inside, none did. Mail
    /// exchangers are many, and one that is away is no reason to take no mail for the others.
    async fn look_at_next_hop(self: &Arc<Self>) -> Result<(), String> {
        let settings = self.settings();
        let NextHop::Fixed(server) = &settings.config.outside.next_hop else { return Ok(()) };
        let hop = route::fixed(server, Demand::default());
        if self.downstream.hops.is_server_working(&hop) {
            return Ok(());
        }
        // Without the demands of the messages that failed: a server that does not meet those is there.
        self.look_at(hop, "next hop").await
    }

    async fn look_at(self: &Arc<Self>, hop: Hop, what: &str) -> Result<(), String> {
        let away = format!("{what} {}: away", hop.name);
        let relay = Arc::clone(self);
        // A server that greets late has as long as it has for mail: what comes of it the next look knows.
        let trying = tokio::spawn(async move { relay.is_back(&hop).await });
        match timeout(PATIENCE, trying).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(away),
        }
    }

    /// Tries a hop, once its pause is over and nobody else does.
    async fn is_back(&self, hop: &Hop) -> bool {
        let Ok(attempt) = self.downstream.hops.attempt(hop) else { return false };
        let Ok(_place) = self.downstream.hops.reserve(hop, 1, Instant::now()).await else {
            return false;
        };
        match timeout(OPENING_MAX, self.downstream.connect(hop)).await {
            Ok(Ok(link)) => {
                attempt.succeeded();
                self.downstream.pool.keep(hop, link);
                true
            }
            // Whoever refuses is there.
            Ok(Err(refusal)) if Reply::from(&refusal).is_permanent() => {
                attempt.succeeded();
                true
            }
            Ok(Err(_)) | Err(_) => {
                attempt.failed();
                false
            }
        }
    }
}

/// How long an answer holds.
const VALID: Duration = Duration::from_secs(3);
/// How long the stores, and each server, are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
