//! One message from its final dot upstream to the answers for its recipients: transform, route, deliver.
//!
//! In: the envelope and the message. Out: an answer for each recipient, sent as it becomes known, and the [`Report`] for the
//! log. The loop over the steps of the core is here; what is done with a message is not.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use sealgate_core::envelope::Envelope;
use sealgate_core::inbound::Inbound;
use sealgate_core::message::Message;
use sealgate_core::outbound::{Context, Outbound};
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::{Direction, Layer, Report};
use sealgate_core::smtp::Protocol;
use sealgate_core::step::{Done, KeyQuery, Keys, Room, Step};
use sealgate_core::verify::Harvest;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use super::authentication::{Authentication, Authenticator, Rejection, Sender};
use super::budget::CopiesRoom;
use super::decryption_failures::{self, Attempt};
use super::deliver::Outcome;
use super::done::{Before, Done as DoneState};
use super::fanout::{Fanout, Remotes};
use super::introduction::Introduction;
use super::recipients::Recipients;
use super::settle::{Outcomes, Settled};
use super::trace::{self, Origin};
use super::transport::Transport;
use super::wall_clock::Time;
use super::{Relay, Settings, off_the_clock, veil};
use crate::config::{Dmarc, NextHop};

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// Everything shared.
    pub(crate) relay: Arc<Relay>,
    /// The configuration, the same from the first command to the reply.
    pub(crate) settings: Arc<Settings>,
    /// Which way.
    pub(crate) direction: Direction,
    /// How the client is answered.
    pub(crate) upstream: Protocol,
    /// The id in reply and log.
    pub(crate) id: String,
    /// Who is it from and for.
    pub(crate) envelope: Envelope,
    /// How it came.
    pub(crate) origin: Origin,
    /// What the mail server is told about the client.
    pub(crate) introduction: Option<Introduction>,
    /// How it is to go on and did; empty until it is known.
    pub(crate) transport: OnceLock<Transport>,
    /// Which of our keys may be used on it; empty until it is known.
    pub(crate) attempt: OnceLock<Attempt>,
    /// The message as received.
    pub(crate) message: Bytes,
    /// Who has it.
    pub(super) done: DoneState,
}

/// Either direction of the core.
#[derive(Debug)]
enum Processor {
    Inbound(Box<Inbound>),
    Outbound(Box<Outbound>),
}

impl Processor {
    fn step(&mut self, keys: &Keys) -> Step {
        match self {
            Self::Inbound(inbound) => inbound.step(keys),
            Self::Outbound(outbound) => outbound.step(keys),
        }
    }

    /// No copies for those who have the message.
    fn skip(&mut self, served: &[bool]) {
        if let Self::Outbound(outbound) = self {
            outbound.skip(served);
        }
    }
}

impl Transaction {
    /// Does it all. Before `released` becomes true this future may be dropped, and nothing was delivered.
    pub(crate) async fn run(
        &self,
        released: &AtomicBool,
        answers: &UnboundedSender<Outcome>,
    ) -> Settled {
        let limits = &self.settings.config.limits;
        failpoint!("transaction.start");
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(limits.delivery_secs_max);
        let answer_deadline = begun + Duration::from_secs(limits.answer_secs_max);
        let message = Message::new(self.message.clone());
        let room = CopiesRoom::new(&self.relay.memory, limits.into());
        // Held until all copies are gone.
        let room: Arc<dyn Room> = Arc::new(room);
        let transformed = tokio::time::timeout_at(deadline, self.prepare(message, &room));
        let (transformed, before) = tokio::join!(transformed, self.before());
        let transformed = transformed
            .unwrap_or_else(|_| Err(Box::new((Refusal::NextHop(late()), self.empty_report()))));
        let (sender, receiver) = mpsc::unbounded_channel();
        let sending = async {
            match transformed {
                Err(refused) => {
                    failpoint!("transaction.refused");
                    let (refusal, report) = *refused;
                    self.answer_unserved(sender, before, &refusal);
                    (report, Remotes::default())
                }
                Ok(done) => {
                    failpoint!("transaction.transformed");
                    self.learn(done.harvest);
                    let fanout = Fanout {
                        downstream: &self.relay.downstream,
                        next_hop: &self.next_hop(),
                        recipients: self.asked_recipients(),
                        introduction: self.introduction.as_ref(),
                        transport: self.transport.get_or_init(Transport::default),
                        direction: self.direction,
                        envelope: &self.envelope,
                        served: &before.served,
                        deferred: &done.deferred,
                        remembers: before.remembers,
                        deadline,
                        answer_deadline,
                        released,
                        opened: self.direction == Direction::Inbound && is_ours(&done.report),
                        announced_bytes: veil::size_bytes(&done.report, self.message.len()),
                        judges_hops: true,
                        answers: sender,
                    };
                    (done.report, fanout.deliver(self.upstream, &done.parcels).await)
                }
            }
        };
        let collecting = self.collect(before, receiver, answers);
        let ((report, remotes), outcomes) = tokio::join!(sending, collecting);
        self.learn_offers();
        failpoint!("transaction.settle");
        self.settle(report, &outcomes, &remotes, answer_deadline, released).await
    }

    /// What the message demands of its way, and what becomes of it.
    async fn prepare(
        &self,
        message: Message,
        room: &Arc<dyn Room>,
    ) -> Result<Done, Box<(Refusal, Report)>> {
        let policy = &self.settings.config.policy;
        let header = message.header_section();
        let transport = Transport::new(self.direction, policy, &self.envelope, header)
            .map_err(|refusal| Box::new((refusal, self.empty_report())))?;
        let _ = self.transport.set(transport);
        let transformed = self.transform(message, room).await;
        self.count_failure(&transformed);
        match transformed {
            Err(refused) if refused.0 == Refusal::KeysUnavailable && self.is_put_off() => {
                Err(Box::new((decryption_failures::put_off(), refused.1)))
            }
            other => other,
        }
    }

    fn is_put_off(&self) -> bool {
        self.attempt.get().is_some_and(|attempt| attempt.is_put_off)
    }

    /// J5. What is delivered of an unauthenticated encryption counts whether it was opened or not: the client is told 250 of
    /// both, and what it is told after the limit must not tell them apart either.
    fn count_failure(&self, transformed: &Result<Done, Box<(Refusal, Report)>>) {
        let report = match transformed {
            Ok(done) => &done.report,
            Err(refused) if refused.0 == Refusal::Falsified => &refused.1,
            Err(_) => return,
        };
        if let Some(attempt) = self.attempt.get()
            && is_ours(report)
            && veil::is_open_to_guesses(report)
        {
            let failures_max = self.settings.config.limits.decryption_failures_per_hour_max;
            self.relay.decryption_failures.count(attempt, failures_max);
        }
    }

    /// Asks the stores, and on the way out who has the message already: no copies are made for them.
    async fn look_up(&self, queries: &[KeyQuery], keys: &mut Keys, processor: &mut Processor) {
        let answered = off_the_clock(self.relay.stores.answer(queries, keys));
        match self.direction {
            Direction::Inbound => {
                answered.await;
                let failures_max = self.settings.config.limits.decryption_failures_per_hour_max;
                let failures = &self.relay.decryption_failures;
                let attempt = failures.attempt(keys, self.origin.peer, failures_max);
                let _ = self.attempt.set(attempt);
            }
            Direction::Outbound => {
                let ((), before) = tokio::join!(answered, self.before());
                processor.skip(&before.served);
            }
        }
    }

    fn next_hop(&self) -> NextHop {
        match self.direction {
            Direction::Inbound => NextHop::Fixed(self.settings.config.inside.mail_server.clone()),
            Direction::Outbound => self.settings.config.outside.next_hop.clone(),
        }
    }

    fn asked_recipients(&self) -> Option<&Recipients> {
        let asked =
            self.direction == Direction::Inbound && self.settings.config.inside.check_recipients;
        asked.then_some(&self.relay.recipients)
    }

    fn answer_unserved(
        &self,
        sender: UnboundedSender<Outcome>,
        before: &Before,
        refusal: &Refusal,
    ) {
        let unserved = before.served.iter().enumerate().filter(|(_, served)| !**served);
        for (index, _) in unserved {
            let _ = sender.send((index, Err(refusal.clone())));
        }
    }

    /// Takes the answers as they come, writes down what must be, and passes them on.
    async fn collect(
        &self,
        before: &Before,
        mut receiver: UnboundedReceiver<Outcome>,
        answers: &UnboundedSender<Outcome>,
    ) -> Outcomes {
        let earlier = |served: &bool| served.then(|| Ok(Self::served_before()));
        let mut outcomes: Outcomes = before.served.iter().map(earlier).collect();
        for (index, outcome) in outcomes.iter().enumerate() {
            if let Some(outcome) = outcome {
                let _ = answers.send((index, outcome.clone()));
            }
        }
        let mut together = Vec::new();
        while receiver.recv_many(&mut together, usize::from(u8::MAX)).await > 0 {
            for (index, outcome) in &together {
                if let Some(slot) = outcomes.get_mut(*index) {
                    slot.get_or_insert_with(|| outcome.clone());
                }
            }
            if self.remembers_always() {
                self.remember(&outcomes).await;
            }
            for outcome in together.drain(..) {
                let _ = answers.send(outcome);
            }
        }
        outcomes
    }

    /// What the core knows of the world at this moment.
    ///
    /// # Errors
    /// [`Refusal::KeysUnavailable`] where the stores do not say whom we trust.
    pub(crate) async fn context(relay: &Relay, settings: &Settings) -> Result<Context, Refusal> {
        let trust = off_the_clock(relay.stores.trust()).await.map_err(|error| {
            tracing::error!(%error, "the key database does not answer");
            Refusal::KeysUnavailable
        })?;
        let Time { now, stamp, is_doubtful } = relay.clock.look();
        Ok(Context {
            policy: Arc::clone(&settings.config.policy),
            trust,
            hostname: settings.config.hostname.clone(),
            now,
            clock_is_doubtful: is_doubtful,
            stamp,
            dkim: settings.dkim.clone(),
        })
    }

    async fn transform(
        &self,
        message: Message,
        room: &Arc<dyn Room>,
    ) -> Result<Done, Box<(Refusal, Report)>> {
        let config = &self.settings.config;
        let early = |refusal| Box::new((refusal, self.empty_report()));
        trace::check_loop(&message, &config.hostname, config.limits.hops_max).map_err(early)?;
        failpoint!("transaction.context");
        let context = Self::context(&self.relay, &self.settings).await.map_err(early)?;
        failpoint!("transaction.context_known");
        let received = trace::received_field(&self.origin, &config.hostname, &self.id);
        let (id, envelope) = (self.id.clone(), self.envelope.clone());
        let size_bytes = message.bytes().len();
        let mut processor = match self.direction {
            Direction::Inbound => {
                let found = self.authenticate(&message).await?;
                let inbound = Inbound::new(context, id, envelope, message, received);
                Processor::Inbound(Box::new(match found {
                    Some(found) => inbound.authenticated(found.results, found.chain),
                    None => inbound,
                }))
            }
            Direction::Outbound => {
                let outbound = Outbound::new(context, id, envelope, message, received);
                Processor::Outbound(Box::new(outbound.within(Arc::clone(room))))
            }
        };
        let mut keys = Keys::default();
        // Without keys the core only reads: for a small message that is less work than changing threads. A panic
        // is caught around the whole transaction.
        if size_bytes <= INLINE_BYTES_MAX {
            match processor.step(&keys) {
                Step::Want(queries) => {
                    failpoint!("transaction.look_up");
                    self.look_up(&queries, &mut keys, &mut processor).await;
                    failpoint!("transaction.looked_up");
                }
                Step::Done(done) => return Ok(*done),
                Step::Refused(refused) => return Err(refused),
            }
        }
        for _ in 0..ROUNDS_MAX {
            let wait_max = Duration::from_secs(config.limits.crypto_wait_secs_max);
            failpoint!("transaction.compute");
            let computed = self.relay.crypto.run(wait_max, move || {
                failpoint!(blocking "transaction.computing");
                let step = processor.step(&keys);
                failpoint!(blocking "transaction.computed_step");
                (processor, keys, step)
            });
            let (again, known, step) = off_the_clock(computed).await.map_err(early)?;
            (processor, keys) = (again, known);
            failpoint!("transaction.computed");
            match step {
                Step::Want(queries) => {
                    failpoint!("transaction.look_up_large");
                    self.look_up(&queries, &mut keys, &mut processor).await;
                }
                Step::Done(done) => return Ok(*done),
                Step::Refused(refused) => return Err(refused),
            }
        }
        tracing::error!(id = self.id, "the data processor asks without end");
        Err(early(Refusal::Internal))
    }

    /// What the sender's domain says, before anything is changed (E9).
    async fn authenticate(
        &self,
        message: &Message,
    ) -> Result<Option<Authentication>, Box<(Refusal, Report)>> {
        let config = &self.settings.config;
        if !config.outside.authenticate {
            return Ok(None);
        }
        let sender = Sender {
            client: self.origin.peer,
            hello: &self.origin.hello,
            from: self.envelope.reverse_path.as_ref(),
            deadline: Instant::now() + Duration::from_secs(config.limits.authentication_secs_max),
        };
        let authenticator = Authenticator::new(self.relay.downstream.router.resolver());
        let found = authenticator.authenticate(sender, &config.hostname, message).await;
        match &found.rejection {
            Some(rejection) if config.outside.dmarc == Dmarc::Refuse => {
                let text = match rejection {
                    Rejection::ByAuthor(domain) => {
                        format!("{domain} asks to refuse mail that does not pass its DMARC policy")
                    }
                    Rejection::AuthorUnclear => {
                        "From is ambiguous: programs read different domains in it".to_owned()
                    }
                };
                let refusal = Refusal::NextHop(Reply::new(550, (5, 7, 1), text));
                let report = Report { authentication: found.results, ..self.empty_report() };
                Err(Box::new((refusal, report)))
            }
            _ => Ok(Some(found)),
        }
    }

    /// Takes in what the mail taught, without making the sender wait.
    fn learn(&self, harvest: Option<Harvest>) {
        let Some(harvest) = harvest else { return };
        let relay = Arc::clone(&self.relay);
        tokio::spawn(async move {
            failpoint!("transaction.learn");
            if let Err(error) = off_the_clock(relay.stores.learn(&harvest)).await {
                tracing::warn!(%error, "certificates of a verified mail could not be kept");
            }
        });
    }

    fn empty_report(&self) -> Report {
        Report::new(self.direction, &self.id)
    }
}

/// Whether a key of ours was tried on it: what is said about it then must not tell how that went.
fn is_ours(report: &Report) -> bool {
    let is_tried = |layer: &Layer| matches!(layer, Layer::Encrypted { key, .. } if !key.is_empty());
    report.layers.iter().any(is_tried)
}

/// ARCHITECTURE: the upstream's patience is used up.
fn late() -> Reply {
    Reply::new(451, (4, 4, 7), "the message took too long, try again later")
}

/// Messages up to this size are read on the thread that received them.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Rounds of questions for one message; the core needs one for each layer at most (K3: four).
const ROUNDS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use sealgate_core::report::Format;

    use super::*;

    #[test]
    fn a_message_is_ours_where_a_key_of_ours_was_tried_whatever_came_of_it() {
        for (key, ours) in [("rsa-oaep-sha256", true), ("", false)] {
            let mut report = Report::new(Direction::Inbound, "id");
            assert!(!is_ours(&report), "plain mail");
            report.layers.push(Layer::Encrypted {
                format: Format::Smime,
                content: "aes-256-gcm".to_owned(),
                key: key.to_owned(),
                recipient: String::new(),
            });
            assert_eq!(is_ours(&report), ours, "{report:?}");
        }
    }
}
