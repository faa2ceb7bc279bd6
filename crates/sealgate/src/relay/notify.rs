//! Notifications to the sender, handed over through the mail server.
//!
//! In: what became of which recipients. Out: whether the sender was told. What depends on that is the affair of
//! [`super::settle`] and [`super::confirm`]; how a notification is written, the core's.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

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

    /// What became of these recipients; with less of the message where the whole is too large.
    pub(super) async fn tell(
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
                    self.hand_over((action, notice), sender, deadline, released).await
                }
                (Ok(_), _) => Handed::Unwanted,
                (Err(()), _) => Handed::NotOver,
            };
            let is_whole = action == Action::Failed && envelope.parameters.ret == Some(Ret::Full);
            if handed != Handed::TooLarge || !is_whole {
                break handed;
            }
            envelope.to_mut().parameters.ret = Some(Ret::Headers);
        };
        counted(action, handed)
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
            recipients,
            message: &Message::new(self.message.clone()),
        };
        notification
            .write()
            .map_err(|error| tracing::error!(id = self.id, %error, "no notification"))
    }

    async fn hand_over(
        &self,
        (action, notice): (Action, Notice),
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
            announced_bytes: 0,
            judges_hops: action == Action::Failed,
            answers,
        };
        fanout.deliver(Protocol::Lmtp, &[parcel]).await;
        match receiver.try_recv() {
            Ok((_, Ok(_))) => Handed::Over,
            Ok((_, Err(refusal))) => {
                // A message is refused that others have got, or only a confirmation is lost.
                match action {
                    Action::Failed => tracing::error!(id = self.id, %refusal, NOT_TAKEN),
                    Action::Relayed => tracing::warn!(id = self.id, %refusal, NOT_TAKEN),
                }
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

/// Counts it.
pub(super) fn counted(action: Action, handed: Handed) -> Handed {
    let outcome = match handed {
        Handed::Over => "handed-over",
        Handed::NotOver => "failed",
        Handed::Refused | Handed::TooLarge => "refused",
        Handed::Unwanted => "unwanted",
    };
    let labels = [("action", action.word()), ("outcome", outcome)];
    metrics::counter!("sealgate_notifications_total", &labels).increment(1);
    handed
}

/// RFC 1870 §6, RFC 3463 §3.3 and §3.4: too large for the server or for the mailbox, or more than the mailbox has room for.
fn is_about_size(reply: &Reply) -> bool {
    reply.code == 552 || matches!(reply.enhanced, Some((5, 3, 4) | (5, 2, 2 | 3)))
}

/// What the log says of it.
const NOT_TAKEN: &str = "the mail server takes no notification";
