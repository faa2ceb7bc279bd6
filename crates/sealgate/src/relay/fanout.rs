//! Several copies, several hops, one transaction upstream (ARCHITECTURE, O9, O11).
//!
//! * One copy to one hop, or LMTP upstream: each is delivered on its own, and each recipient's answer goes up as it comes.
//! * SMTP upstream, which hears one reply for all: every delivery is brought to "content sent, final dot held"; if
//!   anybody has been refused by then, nothing is released and the refusal is the reply. Then the dots go out
//!   one after another. A refusal after something was accepted cannot be taken back: for now 451 (the client sends
//!   again, those served already get it twice), for good 250 and a loud `partial` in the log. The
//!   notification (RFC 3464) and the done-record that repair both come with the done-record's table.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use sealgate_core::address::Domain;
use sealgate_core::envelope::{Envelope, MailParameters, Ret};
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::{Delivered, Direction};
use sealgate_core::smtp::Protocol;
use sealgate_core::step::Parcel;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::deliver::{Consignment, Delivery, Downstream, Outcome};
use super::introduction::Introduction;
use super::route::Hop;
use crate::config::NextHop;

/// What the deliveries of one transaction share.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    /// Connections.
    pub(crate) downstream: &'a Downstream,
    /// Where to.
    pub(crate) next_hop: &'a NextHop,
    /// Whom the mail server is told about.
    pub(crate) introduction: Option<&'a Introduction>,
    /// Which way.
    pub(crate) direction: Direction,
    /// Who and what.
    pub(crate) envelope: &'a Envelope,
    /// No dot is sent after this.
    pub(crate) deadline: Instant,
    /// Becomes true with the first dot: from there on the transaction must not be dropped.
    pub(crate) released: &'a AtomicBool,
    /// Answers, each recipient's first one counts.
    pub(crate) answers: &'a UnboundedSender<Outcome>,
}

/// The outcome for a client that hears one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joint {
    /// The reply for all.
    pub(crate) result: Result<Reply, Refusal>,
    /// Some have it and some do not.
    pub(crate) partial: bool,
}

impl Fanout<'_> {
    /// Delivers all copies.
    pub(crate) async fn deliver(&self, upstream: Protocol, parcels: &[Parcel]) {
        let consignments = self.consignments(parcels).await;
        match (upstream, consignments.as_slice()) {
            (Protocol::Lmtp, consignments) => {
                let each = consignments.iter().map(|consignment| self.deliver_alone(consignment));
                join(each).await;
            }
            (Protocol::Smtp, consignments) => self.deliver_jointly(consignments).await,
        }
    }

    /// Copies by hop; recipients without a hop are answered at once.
    async fn consignments<'p>(&'p self, parcels: &'p [Parcel]) -> Vec<Consignment<'p>> {
        let mut hops: HashMap<&Domain, Result<Hop, Refusal>> = HashMap::new();
        let mut consignments: Vec<Consignment<'p>> = Vec::new();
        for parcel in parcels {
            let first_of_parcel = consignments.len();
            let opened =
                self.direction == Direction::Inbound && parcel.delivered == Delivered::Plain;
            for index in &parcel.recipients {
                let Some(recipient) = self.envelope.recipients.get(*index) else { continue };
                let domain = recipient.address.domain();
                if !hops.contains_key(domain) {
                    failpoint!("fanout.route");
                    let found = self.downstream.router.hop(self.next_hop, domain);
                    let hop = tokio::time::timeout_at(self.deadline, found).await;
                    failpoint!("fanout.routed");
                    let hop = hop.unwrap_or(Err(Refusal::NextHopUnreachable));
                    let introduction = self.introduction.cloned();
                    hops.insert(domain, hop.map(|hop| Hop { introduction, ..hop }));
                }
                match hops.get(domain) {
                    Some(Ok(hop)) => {
                        let same = consignments.iter_mut().skip(first_of_parcel);
                        match same.into_iter().find(|other| other.hop.targets == hop.targets) {
                            Some(consignment) => consignment.recipients.push(*index),
                            None => consignments.push(Consignment {
                                envelope: self.envelope,
                                parameters: self.parameters(opened),
                                parcel,
                                recipients: vec![*index],
                                hop: hop.clone(),
                                opened,
                            }),
                        }
                    }
                    Some(Err(refusal)) => self.answer((*index, Err(refusal.clone()))),
                    None => {}
                }
            }
        }
        consignments
    }

    /// RET=HDRS for what we opened, where the sender asked for anything or nothing: his mail server may return a
    /// notification in plain (RFC 3461 §4.3).
    fn parameters(&self, opened: bool) -> Cow<'_, MailParameters> {
        let asked = &self.envelope.parameters;
        if opened {
            Cow::Owned(MailParameters { ret: Some(Ret::Headers), ..asked.clone() })
        } else {
            Cow::Borrowed(asked)
        }
    }

    /// One copy, whatever becomes of the others.
    async fn deliver_alone(&self, consignment: &Consignment<'_>) {
        failpoint!("fanout.alone");
        let (delivery, refused) = self.admit(consignment).await;
        refused.into_iter().for_each(|outcome| self.answer(outcome));
        if let Some(delivery) = delivery {
            self.finish(delivery, consignment).await;
        }
    }

    /// Content and dot.
    async fn finish(&self, mut delivery: Delivery<'_>, consignment: &Consignment<'_>) {
        failpoint!("fanout.content");
        if consignment.parcel.size_bytes() <= TOGETHER_BYTES_MAX {
            delivery.queue_content();
        } else if let Err(refusal) = self.send_content(&mut delivery).await {
            return self.answer_all(consignment, &refusal);
        }
        failpoint!("fanout.release");
        self.released.store(true, Ordering::Release);
        delivery.release(self.downstream, |outcome| self.answer(outcome)).await;
    }

    async fn deliver_jointly(&self, consignments: &[Consignment<'_>]) {
        let admitted = join(consignments.iter().map(|consignment| self.admit(consignment))).await;
        failpoint!("fanout.admitted");
        let mut deliveries = Vec::new();
        let mut refused = false;
        for ((delivery, outcomes), consignment) in admitted.into_iter().zip(consignments) {
            refused |= !outcomes.is_empty();
            outcomes.into_iter().for_each(|outcome| self.answer(outcome));
            deliveries.extend(delivery.map(|delivery| (delivery, consignment)));
        }
        let routed: usize = consignments.iter().map(|c| c.recipients.len()).sum();
        if refused || routed < self.envelope.recipients.len() {
            // Dropped: every connection is closed without its dot.
            return;
        }
        if let [_] = deliveries.as_slice()
            && let Some((delivery, consignment)) = deliveries.pop()
        {
            return self.finish(delivery, consignment).await;
        }
        let contents = deliveries.iter_mut().map(|(delivery, consignment)| async {
            let sent = self.send_content(delivery).await;
            sent.map_err(|refusal| self.answer_all(consignment, &refusal))
        });
        if join(contents).await.iter().any(Result::is_err) {
            return;
        }
        failpoint!("fanout.dots_held");
        self.release_in_turn(deliveries).await;
    }

    /// The dots, one after another, until one is not accepted and it is better to stop.
    async fn release_in_turn(&self, deliveries: Vec<(Delivery<'_>, &Consignment<'_>)>) {
        let mut accepted = false;
        for (delivery, _) in deliveries {
            failpoint!("fanout.dot_in_turn");
            self.released.store(true, Ordering::Release);
            let (mut refused_for_now, mut refused_for_good) = (false, false);
            let watch = |outcome: Outcome| {
                match &outcome.1 {
                    Ok(_) => accepted = true,
                    Err(refusal) if Reply::from(refusal).is_permanent() => refused_for_good = true,
                    Err(_) => refused_for_now = true,
                }
                self.answer(outcome);
            };
            delivery.release(self.downstream, watch).await;
            failpoint!("fanout.dot_answered");
            // For now: all will be sent again. For good before anything was accepted: all are refused.
            if refused_for_now || (refused_for_good && !accepted) {
                return;
            }
        }
    }

    async fn admit<'c>(
        &self,
        consignment: &'c Consignment<'c>,
    ) -> (Option<Delivery<'c>>, Vec<Outcome>) {
        let admission = self.downstream.admit(consignment);
        tokio::time::timeout_at(self.deadline, admission).await.unwrap_or_else(|_| {
            let recipients = consignment.recipients.iter();
            (None, recipients.map(|index| (*index, Err(too_late()))).collect())
        })
    }

    async fn send_content(&self, delivery: &mut Delivery<'_>) -> Result<(), Refusal> {
        match tokio::time::timeout_at(self.deadline, delivery.send_content()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Refusal::NextHopTimeout),
            Err(_) => Err(too_late()),
        }
    }

    fn answer_all(&self, consignment: &Consignment<'_>, refusal: &Refusal) {
        for index in &consignment.recipients {
            self.answer((*index, Err(refusal.clone())));
        }
    }

    fn answer(&self, outcome: Outcome) {
        // Nobody listens any more: the client is gone, and the log line shows what became of the message.
        let _ = self.answers.send(outcome);
    }
}

/// One reply out of all outcomes; `None` stands for a recipient whose copy was held back.
pub(crate) fn joint(outcomes: &[Option<Result<Reply, Refusal>>]) -> Joint {
    let refusals = || outcomes.iter().flatten().filter_map(|outcome| outcome.as_ref().err());
    let temporary = refusals().find(|refusal| !Reply::from(*refusal).is_permanent());
    let permanent = refusals().find(|refusal| Reply::from(*refusal).is_permanent());
    let accepted = outcomes.iter().flatten().find_map(|outcome| outcome.as_ref().ok());
    let held_back = outcomes.iter().any(Option::is_none);
    let partial = accepted.is_some() && (temporary.is_some() || permanent.is_some() || held_back);
    let result = match (temporary, accepted, permanent) {
        (Some(refusal), _, _) => Err(refusal.clone()),
        (None, Some(_), _) if held_back => Err(Refusal::NextHopTimeout),
        (None, Some(reply), _) => Ok(reply.clone()),
        (None, None, Some(refusal)) => Err(refusal.clone()),
        (None, None, None) => Err(Refusal::Internal),
    };
    Joint { result, partial }
}

/// ARCHITECTURE: the upstream's patience is used up.
fn too_late() -> Refusal {
    Refusal::NextHop(Reply::new(451, (4, 4, 7), "delivery took too long, try again later"))
}

/// Drives all futures to their ends, within one task, so that dropping it ends them together.
async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    struct Running<F: Future> {
        future: Pin<Box<F>>,
        output: Option<F::Output>,
    }
    let start = |future| Running { future: Box::pin(future), output: None };
    let mut all: Vec<Running<F>> = futures.map(start).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for one in &mut all {
            if one.output.is_none() {
                match one.future.as_mut().poll(context) {
                    Poll::Ready(value) => one.output = Some(value),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    all.into_iter().filter_map(|one| one.output).collect()
}

/// Content up to this size travels together with its dot: there is no time in which anything could change.
const TOGETHER_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests;
