//! One copy from a hop to the server's answers to MAIL, RCPT and DATA: over a pooled connection, or a new one to the first of the
//! hop's hosts and their addresses that takes it.
//!
//! In: a [`Consignment`] and a deadline. Out: [`Begun`], or the refusal of everybody. What a server is silent about ends its turn
//! early as long as there is something else to try; no content has gone out then.

use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::Delivered;
use sealgate_core::smtp::client::{Event, Failure, Lack};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::super::connect::Tried;
use super::super::hops::Attempt;
use super::super::link::Link;
use super::super::route::Hop;
use super::said::{Over, is_permanent, lacking_over, said_over, too_late};
use super::{Consignment, Downstream, Outcome};

/// What became of the recipients of a transaction.
pub(super) struct Begun {
    pub(super) link: Link,
    /// Somebody was admitted, and the server waits for content; else it is taking the envelope back.
    pub(super) is_admitted: bool,
    pub(super) refused: Vec<Outcome>,
    /// They were refused for who the message is from and for, and not at DATA.
    pub(super) for_envelope: bool,
}

/// What a connection attempt came to.
enum Trouble {
    /// The connection broke, or was of no use any more: another one may do.
    Broken(Refusal),
    /// The host does not take the message now, or never: another host or address may (RFC 5321 §5.1).
    Elsewhere(Refusal),
    /// The server or the message is what it is.
    Final(Refusal),
}

/// How long the first answer to a message is waited for.
enum FirstAnswer {
    /// The connection was used before, and may be dead.
    AfterUse(Instant),
    /// There is something else to try.
    By(Instant),
    /// There is not.
    Whenever,
}

impl Downstream {
    /// Over a pooled connection; `None` where there is none that works.
    pub(super) async fn begin_again(
        &self,
        consignment: &Consignment<'_>,
        deadline: Instant,
    ) -> Option<Result<Begun, Refusal>> {
        let hop = &consignment.hop;
        while let Some(link) = self.pool.take(hop) {
            failpoint!("deliver.pooled");
            let others = !link.is_only;
            let other_hosts = hop.targets.len() > 1;
            let until = if other_hosts { share_of(deadline, HOST_MAX) } else { deadline };
            let first_answer = FirstAnswer::AfterUse(share_of(deadline, REUSED_MAX));
            let begun = self.begin(link, consignment, others, first_answer);
            match timeout_at(until, begun).await {
                Ok(Ok(begun)) => return Some(Ok(begun)),
                Ok(Err(Trouble::Final(refusal))) => return Some(Err(refusal)),
                Ok(Err(Trouble::Broken(_))) => {}
                Ok(Err(Trouble::Elsewhere(_))) => return None,
                Err(_) if other_hosts => {
                    self.pool.forget(hop);
                    return None;
                }
                Err(_) => {
                    // It has greeted the client that was introduced, and may be silent to that one alone.
                    if consignment.judges_hop
                        && !hop.introduces_client()
                        && let Ok(attempt) = self.hops.attempt(hop)
                    {
                        attempt.failed();
                    }
                    return Some(Err(too_late()));
                }
            }
        }
        None
    }

    /// Over a new connection, unless the hop is left alone.
    pub(super) async fn begin_anew(
        &self,
        consignment: &Consignment<'_>,
        deadline: Instant,
    ) -> Result<Begun, Refusal> {
        failpoint!("deliver.connect");
        let attempt = self.hops.attempt(&consignment.hop)?;
        let mut earlier = None;
        let begun = self.begin_at_any(consignment, (deadline, &attempt), &mut earlier);
        let begun = match timeout_at(deadline, begun).await {
            Ok(begun) => begun,
            Err(_) => Err(Trouble::Broken(too_late())),
        };
        match begun.map_err(|trouble| trouble.after(earlier)) {
            Err(Trouble::Broken(refusal)) => {
                if consignment.judges_hop {
                    attempt.failed();
                }
                Err(refusal)
            }
            // It closed without a word, which says nothing of it: as if nobody had tried.
            Err(Trouble::Elsewhere(refusal) | Trouble::Final(refusal))
                if refusal == Refusal::NextHopTimeout =>
            {
                drop(attempt);
                Err(refusal)
            }
            Err(Trouble::Elsewhere(refusal) | Trouble::Final(refusal)) => {
                attempt.succeeded();
                Err(refusal)
            }
            Ok(begun) => {
                attempt.succeeded();
                Ok(begun)
            }
        }
    }

    /// At the first of the hosts that takes the message; where none does, what the ones before the last came to is `earlier`.
    async fn begin_at_any(
        &self,
        consignment: &Consignment<'_>,
        (deadline, attempt): (Instant, &Attempt),
        earlier: &mut Option<Trouble>,
    ) -> Result<Begun, Trouble> {
        let mut tried = Tried::default();
        loop {
            let link = match self.connect_after(&consignment.hop, &mut tried, attempt).await {
                Ok(link) => link,
                Err(refusal) if is_permanent(&refusal) => return Err(Trouble::Final(refusal)),
                Err(refusal) => return Err(Trouble::Broken(refusal)),
            };
            let others = !tried.is_over(&consignment.hop);
            // A host that greets and falls silent must not keep the mail from the next one, or from its own next address. Which is as
            // slow, if it is not out of reach: once the host has answered, only another one is worth leaving it for.
            let soon = share_of(deadline, HOST_MAX);
            let until = if tried.has_other_host(&consignment.hop) { soon } else { deadline };
            let first_answer = if others { FirstAnswer::By(soon) } else { FirstAnswer::Whenever };
            let begun =
                timeout_at(until, self.begin(link, consignment, others, first_answer)).await;
            let is_late = Instant::now() >= deadline;
            match begun.unwrap_or_else(|_| Err(Trouble::silent(is_late))) {
                // It is there, and greeted the client that was introduced: what it says to that one says nothing of others.
                Err(Trouble::Broken(refusal)) if consignment.hop.introduces_client() => {
                    return Err(Trouble::Final(refusal));
                }
                Err(trouble @ (Trouble::Broken(_) | Trouble::Elsewhere(_))) if others => {
                    *earlier = Some(trouble.after(earlier.take()));
                }
                begun => return begun,
            }
        }
    }

    /// Over one connection. Where there are other hosts or addresses, a refusal that need not be theirs is not the last word.
    async fn begin(
        &self,
        mut link: Link,
        consignment: &Consignment<'_>,
        others: bool,
        first_answer: FirstAnswer,
    ) -> Result<Begun, Trouble> {
        let hop = &consignment.hop;
        if let Err(lack) = link.client.start(&consignment.transaction()) {
            let refusal = consignment.lacking(&link, lack);
            if others {
                return Err(Trouble::Elsewhere(refusal));
            }
            self.pool.keep(hop, link);
            return Err(Trouble::Final(refusal));
        }
        let is_reused = matches!(first_answer, FirstAnswer::AfterUse(_));
        self.hear_first(&mut link, hop, first_answer).await.ok_or(Trouble::silent(false))?;
        loop {
            let event = match link.next().await {
                Ok(event) => event,
                Err(_) if is_reused => return Err(Trouble::silent(false)),
                // It has just greeted us: what it does not like is this message, which must not shut the hop for all others.
                Err(_) => return Err(Trouble::Elsewhere(Refusal::NextHopTimeout)),
            };
            let is_over = |reply: &Reply| reply.code == 421;
            match event {
                Event::Admitted(replies) => {
                    failpoint!("deliver.admitted");
                    let refused = consignment.refused(&link, replies);
                    consignment.transport.note(link.passage.clone());
                    return Ok(Begun { link, is_admitted: true, refused, for_envelope: true });
                }
                Event::Refused(replies) if is_reused && replies.iter().all(is_over) => {
                    // "Too many messages in this connection": another one may do. Of a new one it is the message that is meant.
                    return Err(Trouble::Broken(Refusal::NextHopUnreachable));
                }
                Event::Refused(replies) => {
                    let refused = consignment.refused(&link, replies);
                    let refusals =
                        || refused.iter().filter_map(|(_, outcome)| outcome.as_ref().err());
                    if others && !refusals().any(is_permanent) {
                        let said = refusals().next().cloned();
                        return Err(Trouble::Elsewhere(
                            said.unwrap_or(Refusal::NextHopUnreachable),
                        ));
                    }
                    failpoint!("deliver.refused");
                    let for_envelope = !link.client.is_content_refused();
                    return Ok(Begun { link, is_admitted: false, refused, for_envelope });
                }
                Event::Failed(Failure::Closing(reply)) if !is_over(&reply) => {
                    let refusal = said_over(Over::of(&link), hop, &reply);
                    return Err(match others && !is_permanent(&refusal) {
                        true => Trouble::Elsewhere(refusal),
                        false => Trouble::Final(refusal),
                    });
                }
                Event::Failed(_) => return Err(Trouble::silent(false)),
                Event::Answer { .. } | Event::Checked(_) | Event::Idle => {}
                Event::NeedInput | Event::StartTls => {}
            }
        }
    }

    /// Waits for the first answer as long as it may take; `None` where it does not come.
    async fn hear_first(&self, link: &mut Link, hop: &Hop, answer: FirstAnswer) -> Option<()> {
        match answer {
            FirstAnswer::AfterUse(until) => self.hear_again(link, hop, until).await,
            // What breaks here shows again at the next event.
            FirstAnswer::By(until) => timeout_at(until, link.hear()).await.ok().map(drop),
            FirstAnswer::Whenever => Some(()),
        }
    }

    /// Waits until a server begins to answer over a connection that was used before; `None` where it does not. Where one such
    /// connection has gone silent, as behind a firewall that forgot it, the others have.
    pub(in super::super) async fn hear_again(
        &self,
        link: &mut Link,
        hop: &Hop,
        until: Instant,
    ) -> Option<()> {
        match timeout_at(until, link.hear()).await {
            Ok(heard) => heard.ok(),
            Err(_) => {
                self.pool.forget(hop);
                None
            }
        }
    }

    /// Keeps a connection for the next message once the server has taken the envelope back; what it said before does not wait
    /// for that.
    pub(in super::super) async fn take_back(&self, hop: &Hop, mut link: Link) {
        if let Ok(Ok(Event::Idle)) = timeout(RESET_MAX, link.next()).await {
            self.pool.keep(hop, link);
        }
    }
}

impl Consignment<'_> {
    /// What is said of a server that lacks something for this copy. What only the opened content needs would tell of it: that is
    /// refused as a filter would (D25).
    fn lacking(&self, link: &Link, lack: Lack) -> Refusal {
        let refusal = Refusal::from(lack);
        let mut as_received = self.transaction();
        // What was not opened has its size.
        let size_bytes = match self.parcel.delivered {
            Delivered::AsReceived => self.size_bytes(),
            _ => self.size_bytes_min,
        };
        as_received.size_bytes = u64::try_from(size_bytes).unwrap_or(u64::MAX);
        (as_received.eight_bit, as_received.utf8_header) = (false, false);
        if !self.opened || link.client.lacks(&as_received) == Some(lack) {
            return lacking_over(Over::of(link), refusal);
        }
        self.transport.note_opened_refused(&Reply::from(&refusal));
        Refusal::NextHopRefusedOpened
    }
}

impl Trouble {
    /// Nothing usable was said; in time, or not.
    fn silent(is_late: bool) -> Self {
        Self::Broken(if is_late { too_late() } else { Refusal::NextHopTimeout })
    }

    /// What a hop comes to where hosts before were of no use. For good only where every host said so, and who was away said
    /// nothing.
    fn after(self, earlier: Option<Self>) -> Self {
        let is_answer = !matches!(self, Self::Broken(_));
        let refusal = self.into_refusal();
        let Some(earlier) = earlier else {
            return if is_answer { Self::Final(refusal) } else { Self::Broken(refusal) };
        };
        let was_answer = !matches!(earlier, Self::Broken(_));
        let said = earlier.into_refusal();
        let of_earlier =
            !is_permanent(&said) && (is_permanent(&refusal) || was_answer && !is_answer);
        let refusal = if of_earlier { said } else { refusal };
        if is_answer || was_answer { Self::Final(refusal) } else { Self::Broken(refusal) }
    }

    fn into_refusal(self) -> Refusal {
        match self {
            Self::Broken(refusal) | Self::Elsewhere(refusal) | Self::Final(refusal) => refusal,
        }
    }
}

/// When the next thing is to be tried: no later than half of the time that is left.
fn share_of(deadline: Instant, max: Duration) -> Instant {
    let now = Instant::now();
    now + max.min(deadline.saturating_duration_since(now) / 2)
}

/// For one host, once it has greeted us, while there are others; for the first answer of one of its addresses.
const HOST_MAX: Duration = Duration::from_secs(60);
/// For the first answer over a connection that was used before: a server that is there says something sooner, and a new
/// connection finds out.
pub(in super::super) const REUSED_MAX: Duration = Duration::from_secs(20);
/// For the answer to RSET.
const RESET_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
