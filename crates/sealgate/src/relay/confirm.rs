//! What a sender hears who asked for a confirmation (NOTIFY=SUCCESS) where a next hop sends none (RFC 3461 §5.2.2).
//!
//! In: a message that was delivered, once its client has the reply. Out: a notification by way of the mail server. Neither mail nor
//! client waits for it: it is tried once, for a short time, and is left out where there is too much of it. Coming in, what the
//! mail server does not honour is not promised.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use sealgate_core::message::Message;
use sealgate_core::notification::{Action, PerRecipient};
use sealgate_core::refusal::Reply;
use sealgate_core::report::Direction;
use sealgate_core::smtp::Protocol;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::notify::{Handed, counted};
use super::route;
use super::transaction::Transaction;
use super::transport::{Demand, Transport, Unconfirmed};

/// Confirmations under way.
#[derive(Debug)]
pub(super) struct Confirmations {
    begun: Arc<Semaphore>,
    /// Those that may be at the mail server: its connections are there for mail.
    handed: Semaphore,
}

impl Default for Confirmations {
    fn default() -> Self {
        Self { begun: Arc::new(Semaphore::new(BEGUN_MAX)), handed: Semaphore::new(HANDED_MAX) }
    }
}

impl Confirmations {
    /// Whether none is under way.
    pub(super) fn are_done(&self) -> bool {
        self.begun.available_permits() == BEGUN_MAX
    }
}

impl Transaction {
    /// Tells a sender of ours of those whose servers will confirm nothing. Others are told nothing: what a mailing list or a
    /// forwarding sends on through us would bring notifications to people whom nobody has verified.
    pub(super) fn confirm(mut self, reply: &Reply) {
        let unconfirmed = self.transport.get().map(Transport::take_unconfirmed).unwrap_or_default();
        let is_ours = |sender| self.settings.config.policy.is_ours(sender);
        // One reply that bounces the message for all tells the sender enough.
        let is_bounced = self.upstream == Protocol::Smtp && reply.is_permanent();
        if unconfirmed.is_empty()
            || is_bounced
            || !self.envelope.reverse_path.as_ref().is_some_and(is_ours)
        {
            return;
        }
        let Ok(place) = Arc::clone(&self.relay.confirmations.begun).try_acquire_owned() else {
            tracing::warn!(id = self.id, "too many confirmations: this one is left out");
            counted(Action::Relayed, Handed::NotOver);
            return;
        };
        // A copy of all that is returned, so that the memory of the whole is free.
        self.message = Bytes::copy_from_slice(&Message::new(self.message).header_section());
        tokio::spawn(async move {
            let _place = place;
            self.tell_unconfirmed(unconfirmed).await;
        });
    }

    async fn tell_unconfirmed(&self, unconfirmed: BTreeMap<usize, Unconfirmed>) {
        let about = unconfirmed.iter().filter_map(|(index, one)| {
            let recipient = self.envelope.recipients.get(*index)?;
            Some(PerRecipient { recipient, reply: one.reply.clone(), remote: Some(&one.host) })
        });
        let about: Vec<PerRecipient<'_>> = about.collect();
        let server = &self.settings.config.inside.mail_server;
        let hop = route::fixed(server, Demand::default());
        let deadline = Instant::now() + CONFIRM_MAX;
        let place = timeout_at(deadline, self.relay.confirmations.handed.acquire()).await;
        // Who tries a server that is left alone keeps mail from trying it.
        if place.is_ok() && self.relay.downstream.hops.is_working(&hop) {
            let released = AtomicBool::new(true);
            self.tell(Action::Relayed, &about, deadline, &released).await;
        } else {
            tracing::warn!(id = self.id, "the mail server is away or slow: no confirmation");
            counted(Action::Relayed, Handed::NotOver);
        }
    }

    /// What the mail server honours. The rest is not offered to the Internet any more, and the sender's own server tells him (A7).
    pub(super) fn learn_offers(&self) {
        if self.direction == Direction::Inbound
            && let Some(transport) = self.transport.get()
        {
            transport
                .with_last_passage(|passage| self.relay.downstream.inside_offers.learn(passage));
        }
    }
}

/// How long one may take.
pub(super) const CONFIRM_MAX: Duration = Duration::from_secs(10);
/// So many at once, each with the header section of a message.
const BEGUN_MAX: usize = 200;
/// So many at the mail server at once.
const HANDED_MAX: usize = 4;
