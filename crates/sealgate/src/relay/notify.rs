//! Notifications to the sender, handed over through the mail server: of who was refused for good after others accepted, and of
//! who has the message through a server that confirms no delivery.
//!
//! In: the outcomes of a transaction. Out: whether the sender was told. What depends on that is [`super::settle`]'s affair; how a
//! notification is written, the core's.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealgate_core::address::Address;
use sealgate_core::envelope::{Envelope, MailParameters, Recipient, Ret};
use sealgate_core::message::Message;
use sealgate_core::notification::{Action, Notice, Notification, PerRecipient};
use sealgate_core::refusal::Reply;
use sealgate_core::report::{Delivered, Direction};
use sealgate_core::smtp::Protocol;
use sealgate_core::step::Parcel;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::fanout::{Fanout, Remotes};
use super::introduction::Introduction;
use super::settle::Outcomes;
use super::trace;
use super::transaction::Transaction;
use super::transport::Transport;
use crate::config::{ClientAddress, NextHop};

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    Over,
    NotOver,
    Refused,
    /// Refused for good because of its size.
    TooLarge,
    Unwanted,
}

impl Transaction {
    /// Tells the sender who was refused for good.
    pub(super) async fn notify(
        &self,
        outcomes: &Outcomes,
        remotes: &Remotes,
        deadline: Instant,
        released: &AtomicBool,
    ) -> Handed {
        let refused = outcomes.iter().enumerate().filter_map(|(index, outcome)| match outcome {
            Some(Err(refusal)) => Some(PerRecipient {
                recipient: self.envelope.recipients.get(index)?,
                reply: Reply::from(refusal),
                remote: remotes.get(&index).map(String::as_str),
            }),
            _ => None,
        });
        let refused: Vec<PerRecipient<'_>> = refused.collect();
        self.tell(Action::Failed, &refused, deadline, released).await
    }

    /// Where the sender asked to hear of success and a server confirms none, he is told that he will not (RFC 3461 §5.2.2).
    /// Mail does not depend on it and waits for it for a short time only.
    ///
    /// Coming in it is the mail server who would have to confirm. Where it does not, DSN is not offered to the Internet any
    /// more, and the sender's own server tells him (A7): a notification of ours to somebody whom nobody has verified
    /// would be backscatter.
    pub(super) async fn confirm(&self, outcomes: &Outcomes, released: &AtomicBool) {
        let Some(transport) = self.transport.get() else { return };
        if self.direction == Direction::Inbound {
            if let Some(dsn) = transport.last_offered_dsn() {
                self.relay.inside_confirms.store(dsn, Ordering::Relaxed);
            }
            return;
        }
        let unconfirmed = transport.unconfirmed();
        let relayed = unconfirmed.iter().filter_map(|(index, host)| {
            let recipient = self.envelope.recipients.get(*index)?;
            let reply = outcomes.get(*index)?.as_ref()?.as_ref().ok()?.clone();
            Some(PerRecipient { recipient, reply, remote: Some(host) })
        });
        let relayed: Vec<PerRecipient<'_>> =
            relayed.filter(|one| Action::Relayed.is_wanted(one.recipient)).collect();
        if relayed.is_empty() {
            return;
        }
        let deadline = Instant::now() + CONFIRM_MAX;
        let handed = self.tell(Action::Relayed, &relayed, deadline, released).await;
        if !matches!(handed, Handed::Over | Handed::Unwanted) {
            tracing::warn!(id = self.id, "the sender did not get the confirmation he asked for");
        }
    }

    /// What became of these recipients; with less of the message where the whole is too large.
    async fn tell(
        &self,
        action: Action,
        recipients: &[PerRecipient<'_>],
        deadline: Instant,
        released: &AtomicBool,
    ) -> Handed {
        let mut envelope = Cow::Borrowed(&self.envelope);
        let handed = loop {
            let notice = self.notice(&envelope, action, recipients);
            let handed = match (notice, &self.envelope.reverse_path) {
                (Ok(Some(notice)), Some(sender)) => {
                    self.hand_over(notice, sender, deadline, released).await
                }
                (Ok(_), _) => Handed::Unwanted,
                (Err(()), _) => Handed::NotOver,
            };
            if handed != Handed::TooLarge || envelope.parameters.ret != Some(Ret::Full) {
                break handed;
            }
            envelope.to_mut().parameters.ret = Some(Ret::Headers);
        };
        let outcome = match handed {
            Handed::Over => "handed-over",
            Handed::NotOver => "failed",
            Handed::Refused | Handed::TooLarge => "refused",
            Handed::Unwanted => "unwanted",
        };
        metrics::counter!("sealgate_notifications_total", "outcome" => outcome).increment(1);
        handed
    }

    /// Written for an envelope that is the message's, or asks for less to be returned.
    fn notice(
        &self,
        envelope: &Envelope,
        action: Action,
        recipients: &[PerRecipient<'_>],
    ) -> Result<Option<Notice>, ()> {
        let notification = Notification {
            id: &self.id,
            hostname: &self.settings.config.hostname,
            date: &trace::date(),
            envelope,
            action,
            recipients: recipients.to_vec(),
            message: &Message::new(self.message.clone()),
        };
        notification
            .write()
            .map_err(|error| tracing::error!(id = self.id, %error, "no notification"))
    }

    async fn hand_over(
        &self,
        notice: Notice,
        sender: &Address,
        deadline: Instant,
        released: &AtomicBool,
    ) -> Handed {
        let envelope = Envelope {
            reverse_path: None,
            recipients: vec![Recipient::new(sender.clone())],
            parameters: MailParameters::default(),
        };
        let parcel = Parcel {
            recipients: vec![0],
            message: notice.message,
            delivered: Delivered::AsReceived,
            eight_bit: notice.eight_bit,
        };
        let (answers, mut receiver) = mpsc::unbounded_channel();
        // Where the mail server wants the PROXY header, it wants it on every connection.
        let is_proxied = self.settings.config.inside.client_address == ClientAddress::Proxy;
        let introduction = is_proxied.then_some(Introduction::Ourselves);
        let fanout = Fanout {
            downstream: &self.relay.downstream,
            next_hop: &NextHop::Fixed(self.settings.config.inside.mail_server.clone()),
            recipients: None,
            introduction: introduction.as_ref(),
            transport: &Transport::default(),
            direction: Direction::Inbound,
            envelope: &envelope,
            served: &[],
            deferred: &[],
            remembers: true,
            deadline,
            answer_deadline: deadline,
            released,
            opened: false,
            received_bytes: 0,
            answers,
        };
        fanout.deliver(Protocol::Lmtp, &[parcel]).await;
        match receiver.try_recv() {
            Ok((_, Ok(_))) => Handed::Over,
            Ok((_, Err(refusal))) => {
                tracing::error!(id = self.id, %refusal, "the mail server takes no notification");
                let reply = Reply::from(&refusal);
                match reply.is_permanent() {
                    true if is_about_size(&reply) => Handed::TooLarge,
                    true => Handed::Refused,
                    false => Handed::NotOver,
                }
            }
            Err(_) => Handed::NotOver,
        }
    }
}

/// RFC 1870 §6, RFC 3463 §3.3 and §3.4: too large for the server or for the mailbox, or more than the mailbox has room for.
fn is_about_size(reply: &Reply) -> bool {
    reply.code == 552 || matches!(reply.enhanced, Some((5, 3, 4) | (5, 2, 2 | 3)))
}

/// How long the client waits for a confirmation to be handed over.
const CONFIRM_MAX: Duration = Duration::from_secs(10);
