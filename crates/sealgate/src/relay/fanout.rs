//! Several copies, several hops, one transaction upstream (ARCHITECTURE, O9, O11).
//!
//! * LMTP upstream: each copy is delivered on its own, and each recipient's answer goes up as it comes.
//! * SMTP upstream, which hears one reply for all: deliveries are brought to "content sent, final dot held", as many as
//!   [`HELD_MAX`] at once; those that got so far are released, one dot after another. What the outcomes come to
//!   together is [`super::settle`]'s affair.
//!
//! Large contents are sent a few at a time ([`pace`]), and over SMTP their dots follow at once, where nothing would be beyond repair
//! if some were too late.
//!
//! As long as nobody has the message, nothing more is released where somebody has been refused, at RCPT, in his content or after his dot, and
//! that could not be put right: coming in, the sender's own server could not be told of him alone; and without the
//! done-record, every further attempt would serve the others again. Once somebody has it, the others get it too.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sealgate_core::address::Domain;
use sealgate_core::envelope::{Envelope, MailParameters, Ret};
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::Direction;
use sealgate_core::smtp::Protocol;
use sealgate_core::step::Parcel;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use super::deliver::{
    Admission, Consignment, Delivery, Downstream, Outcome, is_permanent, too_late,
};
use super::hops::Reservation;
use super::introduction::Introduction;
use super::recipients::Recipients;
use super::route::Hop;
use super::transport::{Demand, Transport};
use crate::config::NextHop;
use grace::Grace;
use join::join;
use pace::Pace;

mod grace;
mod join;
mod pace;

/// What the deliveries of one transaction share.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    /// Connections.
    pub(crate) downstream: &'a Downstream,
    /// Where to.
    pub(crate) next_hop: &'a NextHop,
    /// Where the mail server was asked at RCPT: what is believed of its mailboxes.
    pub(crate) recipients: Option<&'a Recipients>,
    /// Whom the mail server is told about.
    pub(crate) introduction: Option<&'a Introduction>,
    /// What it demands of its way there, and how that was.
    pub(crate) transport: &'a Transport,
    /// Which way.
    pub(crate) direction: Direction,
    /// Who and what.
    pub(crate) envelope: &'a Envelope,
    /// Recipients who have it already.
    pub(crate) served: &'a [bool],
    /// Recipients for whom there was no room for a copy.
    pub(crate) deferred: &'a [usize],
    /// Whether the done-record can be asked, so that it can be expected to take what is written.
    pub(crate) remembers: bool,
    /// No dot is sent after this.
    pub(crate) deadline: Instant,
    /// No answer is waited for after this.
    pub(crate) answer_deadline: Instant,
    /// A key of ours was tried on the message, whatever came of it (REQUIREMENTS 0.1): all its copies are alike to whoever
    /// sent it.
    pub(crate) opened: bool,
    /// What all its copies are announced with then, where they are not larger.
    pub(crate) announced_bytes: usize,
    /// Becomes true with the first dot: from there on the transaction must not be dropped.
    pub(crate) released: &'a AtomicBool,
    /// Whether what fails on the way counts against the hop.
    pub(crate) judges_hops: bool,
    /// Answers, each recipient's first one counts.
    pub(crate) answers: UnboundedSender<Outcome>,
}

/// What the dots that went out have come to so far.
#[derive(Debug, Default)]
struct Dots {
    /// Copies that somebody has, or may have: the answer is not there yet, or never came.
    taken: AtomicUsize,
    /// Somebody was refused in a way that nothing puts right.
    beyond_repair: AtomicBool,
}

impl Dots {
    /// Whether the message can, and must, still be kept from everybody.
    fn hold_back(&self) -> bool {
        self.beyond_repair.load(Ordering::Acquire) && self.taken.load(Ordering::Acquire) == 0
    }
}

/// Which server each recipient's copy was for, by index into the envelope.
pub(crate) type Remotes = HashMap<usize, String>;

impl Fanout<'_> {
    /// Delivers all copies.
    pub(crate) async fn deliver(self, upstream: Protocol, parcels: &[Parcel]) -> Remotes {
        let (consignments, stop) = self.consignments(parcels).await;
        match upstream {
            Protocol::Lmtp => {
                let pace = Pace::new(sizes_bytes(&consignments), self.deadline);
                let each =
                    consignments.iter().map(|consignment| self.deliver_alone(consignment, &pace));
                join(each).await;
            }
            Protocol::Smtp if stop => {}
            Protocol::Smtp => self.deliver_jointly(&consignments).await,
        }
        let remotes = consignments.iter().flat_map(|consignment| {
            let host = consignment.hop.targets.first().map(|target| target.host.clone());
            let host = host.unwrap_or_else(|| consignment.hop.name.clone());
            consignment.recipients.iter().map(move |index| (*index, host.clone()))
        });
        remotes.collect()
    }

    /// Copies by hop; recipients without a hop are answered at once. And whether one of them holds back everything.
    async fn consignments<'p>(&'p self, parcels: &'p [Parcel]) -> (Vec<Consignment<'p>>, bool) {
        let mut stop = self.defer();
        let hops = self.hops().await;
        let mut consignments: Vec<Consignment<'p>> = Vec::new();
        for parcel in parcels {
            let first_of_parcel = consignments.len();
            let opened = self.opened;
            for index in &parcel.recipients {
                if self.served.get(*index) == Some(&true) {
                    continue;
                }
                let Some(recipient) = self.envelope.recipients.get(*index) else { continue };
                let domain = recipient.address.domain();
                let demand = self.transport.demand(*index);
                let Some(hop) = hops.get(&(domain, demand)) else { continue };
                match hop {
                    Ok(hop) => {
                        let same = consignments.iter_mut().skip(first_of_parcel);
                        match same.into_iter().find(|other| other.hop.targets == hop.targets) {
                            Some(consignment) => consignment.recipients.push(*index),
                            None => consignments.push(Consignment {
                                envelope: self.envelope,
                                parameters: self.parameters(opened),
                                parcel,
                                recipients: vec![*index],
                                hop: hop.clone(),
                                transport: self.transport,
                                judges_hop: self.judges_hops,
                                opened,
                                size_bytes_min: self.size_bytes_min(),
                            }),
                        }
                    }
                    Err(refusal) => {
                        stop |= self.is_beyond_repair(refusal);
                        self.answer((*index, Err(refusal.clone())));
                    }
                }
            }
        }
        (consignments, stop)
    }

    /// Answers those who get no copy for now, and whether that holds back everything.
    fn defer(&self) -> bool {
        let is_served = |index: &&usize| self.served.get(**index) == Some(&true);
        let mut stop = false;
        for index in self.deferred.iter().filter(|index| !is_served(index)) {
            stop |= self.is_beyond_repair(&Refusal::TooManyCopies);
            self.answer((*index, Err(Refusal::TooManyCopies)));
        }
        stop
    }

    /// The hop of each domain that is to be served: some at once, so that a domain whose name servers are away does not use
    /// up the time of the others.
    async fn hops(&self) -> HashMap<(&Domain, Demand), Result<Hop, Refusal>> {
        let mut wanted: Vec<(&Domain, Demand)> = Vec::new();
        let mut seen = HashSet::new();
        for (index, recipient) in self.envelope.recipients.iter().enumerate() {
            let one = (recipient.address.domain(), self.transport.demand(index));
            if self.served.get(index) != Some(&true) && seen.insert(one) {
                wanted.push(one);
            }
        }
        let mut hops = HashMap::new();
        if *self.next_hop == NextHop::Mx && wanted.len() > DOMAINS_MAX {
            let rest = wanted.split_off(DOMAINS_MAX);
            hops.extend(rest.into_iter().map(|one| (one, Err(too_many_domains()))));
        }
        for some in wanted.chunks(LOOK_UPS_AT_ONCE) {
            let found = join(some.iter().map(|(domain, demand)| self.hop(domain, *demand))).await;
            hops.extend(some.iter().copied().zip(found));
        }
        hops
    }

    async fn hop(&self, domain: &Domain, demand: Demand) -> Result<Hop, Refusal> {
        failpoint!("fanout.route");
        let deadline = self.deadline.min(Instant::now() + LOOK_UP_MAX);
        let found = self.downstream.router.hop(self.next_hop, domain, demand);
        let hop = tokio::time::timeout_at(deadline, found).await;
        failpoint!("fanout.routed");
        let introduction = self.introduction.cloned();
        hop.unwrap_or(Err(Refusal::NextHopUnreachable)).map(|hop| Hop { introduction, ..hop })
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

    /// Of each copy of a message that a key of ours was tried on: it has one size, opened or not, where a size decides about anything.
    fn size_bytes_min(&self) -> usize {
        if self.opened { self.announced_bytes } else { 0 }
    }

    /// One copy, whatever becomes of the others.
    async fn deliver_alone(&self, consignment: &Consignment<'_>, pace: &Pace) {
        let reserved = self.downstream.hops.reserve(&consignment.hop, 1, self.deadline).await;
        failpoint!("fanout.alone");
        let Admission { delivery, refused, .. } =
            self.admit(consignment, reserved, self.deadline).await;
        refused.into_iter().for_each(|outcome| self.answer(outcome));
        if let Some(delivery) = delivery {
            self.finish(delivery, consignment, &Dots::default(), pace).await;
        }
    }

    /// Content and dot.
    async fn finish(
        &self,
        mut delivery: Delivery<'_>,
        consignment: &Consignment<'_>,
        dots: &Dots,
        pace: &Pace,
    ) {
        failpoint!("fanout.content");
        if Instant::now() >= self.deadline {
            return self.give_up(consignment, &too_late(), dots);
        }
        if consignment.size_bytes() <= TOGETHER_BYTES_MAX {
            delivery.queue_content();
        } else if let Err(refusal) = pace.send(send_content(&mut delivery)).await {
            return self.give_up(consignment, &refusal, dots);
        }
        self.release(delivery, dots).await;
    }

    async fn release(&self, delivery: Delivery<'_>, dots: &Dots) {
        failpoint!("fanout.release");
        self.released.store(true, Ordering::Release);
        dots.taken.fetch_add(1, Ordering::AcqRel);
        let mut refused_by_all = true;
        let answer = |outcome: Outcome| {
            match &outcome.1 {
                // No answer: delivered or not, nobody knows.
                Ok(_) | Err(Refusal::NextHopTimeout) => refused_by_all = false,
                Err(refusal) if self.is_beyond_repair(refusal) => {
                    dots.beyond_repair.store(true, Ordering::Release);
                }
                Err(_) => {}
            }
            self.answer(outcome);
        };
        delivery.release(self.downstream, self.answer_deadline, answer).await;
        if refused_by_all {
            dots.taken.fetch_sub(1, Ordering::AcqRel);
        }
    }

    async fn deliver_jointly(&self, consignments: &[Consignment<'_>]) {
        let dots = Dots::default();
        let connections_max = self.downstream.hops.connections_max();
        let mut rest: Vec<&Consignment<'_>> = consignments.iter().collect();
        while !rest.is_empty() {
            let count = first_together(rest.iter().map(|one| &one.hop), connections_max);
            let later = rest.split_off(count.min(rest.len()));
            let late = self.deliver_together(&rest, &dots).await;
            if dots.hold_back() {
                return;
            }
            // A server that is slow now is as slow at the next attempt: it has the time that is left. Each turn settles somebody, or
            // nobody was late.
            rest = [later, late].concat();
        }
    }

    /// Comes back with those that were not waited for.
    async fn deliver_together<'c>(
        &self,
        consignments: &[&'c Consignment<'c>],
        dots: &Dots,
    ) -> Vec<&'c Consignment<'c>> {
        // A hop that does not answer must not use up the time in which the others can be released.
        let now = Instant::now();
        let half = now + self.deadline.saturating_duration_since(now) / 2;
        let ready_by = if consignments.len() > 1 { half } else { self.deadline };
        let mut wanted: HashMap<&Hop, usize> = HashMap::new();
        for consignment in consignments {
            let count = wanted.entry(&consignment.hop).or_default();
            *count = count.saturating_add(1);
        }
        let mut reserved = self.downstream.hops.reserve_all(wanted, ready_by).await;
        let grace = Grace::new(ready_by);
        let admissions = consignments.iter().map(|&consignment| {
            let own = reserved.get_mut(&consignment.hop).map_or(Err(too_late()), |all| {
                let all = all.as_mut().map_err(|refusal| refusal.clone())?;
                all.split_one().ok_or_else(too_late)
            });
            self.admit_in_time(consignment, own, ready_by, &grace)
        });
        let (mut admitted, mut late) = (Vec::new(), Vec::new());
        for (admission, &consignment) in join(admissions).await.into_iter().zip(consignments) {
            match admission {
                Some(admission) => admitted.push((admission, consignment)),
                None => late.push(consignment),
            }
        }
        self.compare(&mut admitted);
        failpoint!("fanout.admitted");
        let mut deliveries = Vec::new();
        for (admission, consignment) in admitted {
            for outcome in admission.refused {
                if outcome.1.as_ref().is_err_and(|refusal| self.is_beyond_repair(refusal)) {
                    dots.beyond_repair.store(true, Ordering::Release);
                }
                self.answer(outcome);
            }
            deliveries.extend(admission.delivery.map(|delivery| (delivery, consignment)));
        }
        // Where it holds back, they are dropped: every connection is closed without its dot.
        if !dots.hold_back() {
            self.finish_together(deliveries, ready_by, dots).await;
        }
        late
    }

    /// Contents and dots of those that are ready.
    async fn finish_together<'c>(
        &self,
        mut deliveries: Vec<(Delivery<'c>, &'c Consignment<'c>)>,
        ready_by: Instant,
        dots: &Dots,
    ) {
        if let [_] = deliveries.as_slice()
            && let Some((delivery, consignment)) = deliveries.pop()
        {
            let pace = Pace::new(std::iter::empty(), self.deadline);
            return self.finish(delivery, consignment, dots, &pace).await;
        }
        let pace = Pace::new(sizes_bytes(deliveries.iter().map(|(_, one)| *one)), self.deadline);
        if pace.is_large() && !self.is_beyond_repair(&too_late()) {
            return self.finish_in_turn(deliveries, dots, &pace).await;
        }
        let contents = deliveries.into_iter().map(|(mut delivery, consignment)| async move {
            let sent = tokio::time::timeout_at(ready_by, send_content(&mut delivery)).await;
            match sent.unwrap_or_else(|_| Err(too_late())) {
                Ok(()) => Some((delivery, consignment)),
                Err(refusal) => {
                    self.give_up(consignment, &refusal, dots);
                    None
                }
            }
        });
        let ready = join(contents).await;
        failpoint!("fanout.dots_held");
        self.release_in_turn(ready.into_iter().flatten(), dots).await;
    }

    /// The dots, one after another; an answer that does not come soon is waited for while the next dot goes out.
    async fn release_in_turn<'c>(
        &self,
        deliveries: impl Iterator<Item = (Delivery<'c>, &'c Consignment<'c>)>,
        dots: &Dots,
    ) {
        let mut turn: Option<oneshot::Receiver<()>> = None;
        let mut releases = Vec::new();
        for (delivery, consignment) in deliveries {
            let (done, next) = oneshot::channel::<()>();
            let before = turn.replace(next);
            releases.push(async move {
                if let Some(before) = before {
                    // Nothing is ever sent: it ends when the one before drops its end.
                    let _ = before.await;
                }
                self.release_next(delivery, consignment, dots, done).await;
            });
        }
        join(releases.into_iter()).await;
    }

    /// Large contents, each with its dot as soon as it is sent: those that come too late are put off, and the next attempt skips the
    /// others.
    async fn finish_in_turn<'c>(
        &self,
        deliveries: Vec<(Delivery<'c>, &'c Consignment<'c>)>,
        dots: &Dots,
        pace: &Pace,
    ) {
        let turn = Mutex::new(());
        let each = deliveries.into_iter().map(async |(mut delivery, consignment)| {
            if let Err(refusal) = pace.send(send_content(&mut delivery)).await {
                return self.give_up(consignment, &refusal, dots);
            }
            let done = turn.lock().await;
            self.release_next(delivery, consignment, dots, done).await;
        });
        join(each).await;
    }

    /// One dot. `done` is dropped, and the next one has its turn, once the answer is there or does not come soon.
    async fn release_next<D>(
        &self,
        delivery: Delivery<'_>,
        consignment: &Consignment<'_>,
        dots: &Dots,
        done: D,
    ) {
        if dots.hold_back() {
            // Dropped: the connection is closed without its dot.
            return;
        }
        if Instant::now() >= self.deadline {
            return self.give_up(consignment, &too_late(), dots);
        }
        failpoint!("fanout.dot_in_turn");
        let mut release = std::pin::pin!(self.release(delivery, dots));
        if tokio::time::timeout(DOT_PATIENCE, release.as_mut()).await.is_err() {
            drop(done);
            release.await;
        }
    }

    /// Whether a refusal holds back everything, as long as nobody has the message.
    fn is_beyond_repair(&self, refusal: &Refusal) -> bool {
        // Somebody has it since an earlier attempt.
        if self.served.contains(&true) {
            return false;
        }
        if Reply::from(refusal).is_permanent() {
            self.direction == Direction::Inbound
        } else {
            !self.remembers
        }
    }

    async fn admit<'c>(
        &self,
        consignment: &'c Consignment<'c>,
        reserved: Result<Reservation, Refusal>,
        deadline: Instant,
    ) -> Admission<'c> {
        match reserved {
            Ok(reservation) => self.downstream.admit(consignment, reservation, deadline).await,
            Err(refusal) => Admission::to_nobody(consignment, &refusal),
        }
    }

    /// One of several, which those who are ready do not wait for any longer than they must; `None` where they no longer do. Where
    /// nothing would remember that they were served, all wait to the end: nobody has the message without it.
    async fn admit_in_time<'c>(
        &self,
        consignment: &'c Consignment<'c>,
        reserved: Result<Reservation, Refusal>,
        deadline: Instant,
        grace: &Grace,
    ) -> Option<Admission<'c>> {
        let admission = self.admit(consignment, reserved, deadline);
        if self.is_beyond_repair(&too_late()) {
            return Some(admission.await);
        }
        grace.of(admission, |admission| admission.delivery.is_some()).await
    }

    /// Who was admitted at RCPT and is refused for good now: the one reply for all must not bounce the others' mail. The next
    /// attempt hears of it at RCPT, alone.
    fn compare(&self, admitted: &mut [(Admission<'_>, &Consignment<'_>)]) {
        let Some(known) = self.recipients else { return };
        let envelope = self.envelope;
        let outcomes = admitted.iter().flat_map(|(admission, _)| &admission.refused);
        let refused = outcomes.filter(|(_, outcome)| outcome.as_ref().is_err_and(is_permanent));
        let are_others = refused.count() < envelope.recipients.len();
        for (admission, consignment) in admitted {
            if !admission.for_envelope {
                continue;
            }
            for (index, outcome) in &mut admission.refused {
                let Some(to) = envelope.recipients.get(*index) else { continue };
                let Err(refusal) = outcome else { continue };
                if !is_permanent(refusal) {
                    continue;
                }
                if are_others {
                    known.owe(&consignment.hop, envelope, to, refusal);
                    *refusal = refused_since(refusal);
                } else {
                    known.forget(&consignment.hop, envelope, to);
                }
            }
        }
    }

    /// A copy that reached nobody; it holds back the others where that cannot be put right.
    fn give_up(&self, consignment: &Consignment<'_>, refusal: &Refusal, dots: &Dots) {
        if self.is_beyond_repair(refusal) {
            dots.beyond_repair.store(true, Ordering::Release);
        }
        self.answer_all(consignment, refusal);
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

async fn send_content(delivery: &mut Delivery<'_>) -> Result<(), Refusal> {
    delivery.send_content().await.map_err(|_| Refusal::NextHopTimeout)
}

/// Of their contents, as far as the sender may notice.
fn sizes_bytes<'c>(
    consignments: impl IntoIterator<Item = &'c Consignment<'c>>,
) -> impl Iterator<Item = usize> {
    consignments.into_iter().map(Consignment::size_bytes)
}

/// What all hear once of one who was admitted before: for now.
fn refused_since(refusal: &Refusal) -> Refusal {
    let (_, subject, detail) = Reply::from(refusal).enhanced.unwrap_or((5, 0, 0));
    let text = "refused since RCPT, try again for the others";
    Refusal::NextHop(Reply::new(451, (4, subject, detail), text))
}

/// RFC 3463 §3.6: those of the other domains are served; the next attempt skips these and gets further.
fn too_many_domains() -> Refusal {
    let text =
        format!("recipients in more than {DOMAINS_MAX} domains, try again later for the rest");
    Refusal::NextHop(Reply::new(451, (4, 5, 3), text))
}

/// How many of the first go together: as many as one transaction may hold the dots of, and as there are connections to one
/// hop. Every one that waits for a later turn is asked only when others have the message.
fn first_together<'h>(hops: impl Iterator<Item = &'h Hop>, connections_max: usize) -> usize {
    let mut wanted: HashMap<&Hop, usize> = HashMap::new();
    let has_place = |hop: &&'h Hop| {
        let count = wanted.entry(hop).or_default();
        *count = count.saturating_add(1);
        *count <= connections_max
    };
    hops.take(HELD_MAX).take_while(has_place).count().max(1)
}

/// REQUIREMENTS K13: domains of one message that are looked up. What each of them may cost is bounded where it is looked up.
const DOMAINS_MAX: usize = 64;
/// Domains of one message whose hops are looked up at the same time.
const LOOK_UPS_AT_ONCE: usize = 32;
/// How long one of them may take, an MTA-STS policy included.
const LOOK_UP_MAX: Duration = Duration::from_secs(60);
/// Content up to this size travels together with its dot: there is no time in which anything could change.
const TOGETHER_BYTES_MAX: usize = 64 << 10;
/// How long the next dot waits for the answer to the one before.
const DOT_PATIENCE: Duration = Duration::from_secs(5);
/// Connections of one transaction that wait for their dots at once.
const HELD_MAX: usize = 16;

#[cfg(test)]
mod tests;
