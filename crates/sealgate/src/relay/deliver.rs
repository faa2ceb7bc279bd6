//! One copy to one hop: pumps the core's SMTP client over a pooled or a new connection.
//!
//! [`Downstream::admit`] goes up to the server's 354; [`Delivery::send_content`] sends all but the final dot; [`Delivery::release`]
//! sends the dot and waits for the answers. Dropping a [`Delivery`] before that closes the connection without
//! the dot, and nothing is delivered (REQUIREMENTS O5).

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sealgate_core::envelope::{Envelope, MailParameters};
use sealgate_core::notification::Action;
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::smtp::client::{Event, Failure, Lack, Transaction};
use sealgate_core::step::Parcel;
use tokio::time::Instant;

use super::hops::{Attempt, Hops, Reservation};
use super::link::Link;
use super::pool::Pool;
use super::route::{Hop, Router};
use super::transport::{Passage, Transport};

/// What every delivery needs.
#[derive(Debug)]
pub(crate) struct Downstream {
    /// Finds addresses.
    pub(crate) router: Router,
    /// Idle connections.
    pub(crate) pool: Pool,
    /// What is known of the hops.
    pub(crate) hops: Hops,
    /// Our EHLO name.
    pub(crate) hostname: String,
    /// What may be offered to the Internet for the mail server.
    pub(crate) inside_offers: InsideOffers,
}

/// What the mail server offered when it was last asked about a recipient or given a message; everything as long as nobody knows.
#[derive(Debug)]
pub(crate) struct InsideOffers {
    dsn: AtomicBool,
    smtputf8: AtomicBool,
}

impl InsideOffers {
    /// Nothing is known.
    pub(crate) const fn unknown() -> Self {
        Self { dsn: AtomicBool::new(true), smtputf8: AtomicBool::new(true) }
    }

    /// What was said on a connection to it.
    pub(crate) fn learn(&self, passage: &Passage) {
        self.dsn.store(passage.dsn, Ordering::Relaxed);
        self.smtputf8.store(passage.smtputf8, Ordering::Relaxed);
    }

    /// Another mail server takes its place.
    pub(crate) fn forget(&self) {
        self.dsn.store(true, Ordering::Relaxed);
        self.smtputf8.store(true, Ordering::Relaxed);
    }

    /// Whether it confirms delivery (RFC 3461).
    pub(crate) fn dsn(&self) -> bool {
        self.dsn.load(Ordering::Relaxed)
    }

    /// Whether it takes addresses and header sections in UTF-8 (RFC 6531).
    pub(crate) fn smtputf8(&self) -> bool {
        self.smtputf8.load(Ordering::Relaxed)
    }
}

/// One copy for one hop.
#[derive(Clone, Debug)]
pub(crate) struct Consignment<'a> {
    /// Whom the message is from and for.
    pub(crate) envelope: &'a Envelope,
    /// Parameters of MAIL for this copy: notifications of what we opened return its header section only (B17).
    pub(crate) parameters: Cow<'a, MailParameters>,
    /// The message.
    pub(crate) parcel: &'a Parcel,
    /// Recipients of the parcel at this hop, by index into the envelope.
    pub(crate) recipients: Vec<usize>,
    /// Where to.
    pub(crate) hop: Hop,
    /// Takes note of the connection.
    pub(crate) transport: &'a Transport,
    /// Whether a failure counts against the hop.
    pub(crate) judges_hop: bool,
    /// A key of ours was tried on the content: what is said about it stays inside (REQUIREMENTS D25).
    pub(crate) opened: bool,
    /// A limit of the server's applies to at least this, so that it does not tell the opened from the unopened.
    pub(crate) size_bytes_min: usize,
}

/// A copy whose recipients, some at least, were admitted downstream.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    consignment: &'a Consignment<'a>,
    link: Link,
    /// Given back after the connection is.
    _reservation: Reservation,
}

/// One recipient's outcome, by index into the envelope.
pub(crate) type Outcome = (usize, Result<Reply, Refusal>);

/// What became of the recipients of a transaction.
struct Admitted {
    /// Waits for content, where anybody was admitted.
    link: Option<Link>,
    refused: Vec<Outcome>,
}

/// What a connection attempt came to.
enum Trouble {
    /// The connection broke, or was of no use any more: another one may do.
    Broken(Refusal),
    /// The host does not take the message now, or never: another host may (RFC 5321 §5.1).
    Elsewhere(Refusal),
    /// The server or the message is what it is.
    Final(Refusal),
}

impl Downstream {
    /// Without connections yet.
    pub(crate) fn new(router: Router, hostname: String, hops: Hops) -> Self {
        let inside_offers = InsideOffers::unknown();
        Self { router, pool: Pool::default(), hops, hostname, inside_offers }
    }

    /// Opens a transaction for a consignment: a pooled connection, or a new one where that is dead.
    ///
    /// The second value holds those recipients who were refused; without a delivery that is everybody.
    pub(crate) async fn admit<'a>(
        &self,
        consignment: &'a Consignment<'a>,
        reservation: Reservation,
        deadline: Instant,
    ) -> (Option<Delivery<'a>>, Vec<Outcome>) {
        // Time that is used up is not the hop's fault.
        let admitted = if Instant::now() >= deadline {
            Err(too_late())
        } else {
            match self.begin_again(consignment, deadline).await {
                Some(admitted) => admitted,
                None => self.begin_anew(consignment, deadline).await,
            }
        };
        match admitted {
            Ok(Admitted { link, refused }) => {
                let of = |link| Delivery { consignment, link, _reservation: reservation };
                (link.map(of), refused)
            }
            Err(refusal) => {
                let recipients = consignment.recipients.iter();
                (None, recipients.map(|index| (*index, Err(refusal.clone()))).collect())
            }
        }
    }

    /// Over a pooled connection; `None` where there is none that works.
    async fn begin_again(
        &self,
        consignment: &Consignment<'_>,
        deadline: Instant,
    ) -> Option<Result<Admitted, Refusal>> {
        let others = consignment.hop.targets.len() > 1;
        while let Some(link) = self.pool.take(&consignment.hop) {
            failpoint!("deliver.pooled");
            match tokio::time::timeout_at(deadline, self.begin(link, consignment, others)).await {
                Ok(Ok(admitted)) => return Some(Ok(admitted)),
                Ok(Err(Trouble::Final(refusal))) => return Some(Err(refusal)),
                Ok(Err(Trouble::Broken(_))) => {}
                Ok(Err(Trouble::Elsewhere(_))) => return None,
                Err(_) => {
                    if consignment.judges_hop
                        && let Ok(attempt) = self.hops.attempt(&consignment.hop)
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
    async fn begin_anew(
        &self,
        consignment: &Consignment<'_>,
        deadline: Instant,
    ) -> Result<Admitted, Refusal> {
        failpoint!("deliver.connect");
        let attempt = self.hops.attempt(&consignment.hop)?;
        let mut earlier = None;
        let begun = self.begin_at_any(consignment, &mut earlier);
        let begun = match tokio::time::timeout_at(deadline, begun).await {
            Ok(begun) => begun,
            Err(_) => Err(Trouble::Broken(too_late())),
        };
        match begun.map_err(|trouble| trouble.after(earlier)) {
            Err(Trouble::Broken(refusal)) => {
                if consignment.judges_hop {
                    count_failure(attempt, &consignment.hop, &refusal);
                }
                Err(refusal)
            }
            Err(Trouble::Elsewhere(refusal) | Trouble::Final(refusal)) => {
                attempt.succeeded();
                Err(refusal)
            }
            Ok(admitted) => {
                attempt.succeeded();
                Ok(admitted)
            }
        }
    }

    /// At the first of the hosts that takes the message; where none does, what the ones before the last came to is `earlier`.
    async fn begin_at_any(
        &self,
        consignment: &Consignment<'_>,
        earlier: &mut Option<Trouble>,
    ) -> Result<Admitted, Trouble> {
        let mut tried = 0;
        loop {
            let link = match self.connect_after(&consignment.hop, tried).await {
                Ok((link, now)) => {
                    tried = now;
                    link
                }
                Err(refusal) if is_permanent(&refusal) => return Err(Trouble::Final(refusal)),
                Err(refusal) => return Err(Trouble::Broken(refusal)),
            };
            let others = tried < consignment.hop.targets.len();
            match self.begin(link, consignment, others).await {
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

    /// Over one connection. Where there are other hosts, a refusal that need not be theirs is not the last word.
    async fn begin(
        &self,
        mut link: Link,
        consignment: &Consignment<'_>,
        others: bool,
    ) -> Result<Admitted, Trouble> {
        let transaction = consignment.transaction();
        match link.client.start(&transaction) {
            Ok(()) => {}
            Err(lack) if others => return Err(Trouble::Elsewhere(lack.into())),
            Err(lack @ (Lack::Extension(_) | Lack::Size)) => {
                self.pool.keep(&consignment.hop, link);
                return Err(Trouble::Final(lack.into()));
            }
        }
        loop {
            let event = link.next().await.map_err(|_| Trouble::Broken(Refusal::NextHopTimeout))?;
            match event {
                Event::Admitted(replies) => {
                    failpoint!("deliver.admitted");
                    let refused = consignment.refused(replies);
                    consignment.transport.note(link.passage.clone());
                    return Ok(Admitted { link: Some(link), refused });
                }
                Event::Refused(replies) if replies.iter().all(|reply| reply.code == 421) => {
                    // "Too many messages in this connection": another one may do.
                    return Err(Trouble::Broken(Refusal::NextHopUnreachable));
                }
                Event::Refused(replies)
                    if others && !replies.iter().any(|reply| reply.is_permanent()) =>
                {
                    let said = replies.first().map(|reply| passed_on(&consignment.hop, reply));
                    let refusal = said.unwrap_or(Refusal::NextHopUnreachable);
                    return Err(Trouble::Elsewhere(refusal));
                }
                Event::Refused(replies) => {
                    failpoint!("deliver.refused");
                    let refused = consignment.refused(replies);
                    // Whether the connection can be used again shows in the next event.
                    if let Ok(Event::Idle) = link.next().await {
                        self.pool.keep(&consignment.hop, link);
                    }
                    return Ok(Admitted { link: None, refused });
                }
                Event::Failed(Failure::Closing(reply)) if reply.code != 421 => {
                    let refusal = passed_on(&consignment.hop, &reply);
                    return Err(match others && !reply.is_permanent() {
                        true => Trouble::Elsewhere(refusal),
                        false => Trouble::Final(refusal),
                    });
                }
                Event::Failed(_) => return Err(Trouble::Broken(Refusal::NextHopTimeout)),
                Event::Answer { .. } | Event::Checked(_) | Event::Idle => {}
                Event::NeedInput | Event::StartTls => {}
            }
        }
    }
}

impl Trouble {
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

impl<'a> Consignment<'a> {
    fn transaction(&self) -> Transaction<'_> {
        let of = |index: &usize| self.envelope.recipients.get(*index);
        Transaction {
            reverse_path: self.envelope.reverse_path.as_ref(),
            parameters: &self.parameters,
            recipients: self.recipients.iter().filter_map(of).collect(),
            size_bytes: u64::try_from(self.parcel.size_bytes().max(self.size_bytes_min))
                .unwrap_or(u64::MAX),
            eight_bit: self.parcel.eight_bit,
            // Many clients say SMTPUTF8 wherever it is offered: whether the message needs it shows in it alone.
            utf8_header: self.parameters.smtputf8 && has_utf8_header(&self.parcel.message),
        }
    }

    /// Notes what a server said that will not confirm the delivery, for a recipient whose sender asked for that.
    fn note_unconfirmed(&self, index: usize, passage: &Passage, reply: &Reply) {
        if let Some(recipient) = self.envelope.recipients.get(index)
            && Action::Relayed.is_wanted(recipient)
        {
            self.transport.note_unconfirmed(index, &passage.host, reply);
        }
    }

    /// Those of the replies to RCPT that are refusals.
    fn refused(&self, replies: Vec<Reply>) -> Vec<Outcome> {
        let replies = self.recipients.iter().zip(replies);
        replies
            .filter(|(_, reply)| !reply.is_positive())
            .map(|(index, reply)| (*index, Err(passed_on(&self.hop, &reply))))
            .collect()
    }
}

impl Delivery<'_> {
    /// Queues the content, without the dot; small content travels together with the dot.
    pub(crate) fn queue_content(&mut self) {
        self.link.client.send_content(&self.consignment.parcel.message);
    }

    /// Sends the content, without the dot.
    ///
    /// # Errors
    /// Where the connection broke.
    pub(crate) async fn send_content(&mut self) -> io::Result<()> {
        self.queue_content();
        failpoint!("deliver.content");
        self.link.write().await?;
        failpoint!("deliver.content_sent");
        Ok(())
    }

    /// Sends the final dot and hands over each answer as it comes, until the deadline; the connection goes back to the pool.
    pub(crate) async fn release(
        mut self,
        downstream: &Downstream,
        deadline: Instant,
        mut answer: impl FnMut(Outcome),
    ) {
        let mut open: Vec<usize> = (0..self.consignment.recipients.len()).collect();
        failpoint!("deliver.dot");
        if !self.link.interrupted {
            self.link.client.release();
        }
        // What breaks here shows again, and is judged, at the next event. So does a server that does not read.
        let written = tokio::time::timeout_at(deadline, self.link.write()).await;
        if matches!(written, Ok(Ok(()))) {
            failpoint!("deliver.dot_sent");
        }
        loop {
            match tokio::time::timeout_at(deadline, self.link.next()).await {
                Ok(Ok(Event::Answer { recipient, reply })) => {
                    failpoint!("deliver.answered");
                    open.retain(|index| *index != recipient);
                    let hop = &self.consignment.hop;
                    let result = match reply.is_positive() {
                        true if self.link.interrupted => Err(Refusal::NextHopTimeout),
                        // What a filter says of content that we opened stays inside.
                        true if self.consignment.opened => {
                            Ok(Reply::new(250, (2, 0, 0), "delivered"))
                        }
                        true => Ok(delivered(&reply)),
                        false if self.consignment.opened => Err(without_text(&reply)),
                        false => Err(passed_on(hop, &reply)),
                    };
                    if let Some(index) = self.consignment.recipients.get(recipient) {
                        if result.is_ok() && !self.link.passage.dsn {
                            self.consignment.note_unconfirmed(*index, &self.link.passage, &reply);
                        }
                        answer((*index, result));
                    }
                    failpoint!("deliver.answer_passed");
                }
                Ok(Ok(Event::Idle)) if self.link.interrupted => return,
                Ok(Ok(Event::Idle)) => {
                    downstream.pool.keep(&self.consignment.hop, self.link);
                    return;
                }
                Ok(Ok(Event::Failed(_))) | Ok(Err(_)) | Err(_) => break,
                Ok(Ok(_)) => {}
            }
        }
        failpoint!("deliver.unanswered");
        // No answer after the dot: delivered or not, nobody knows; a duplicate is better than a loss. Those refused at RCPT
        // have been answered for before and are not asked about again by the caller.
        for recipient in open {
            if let Some(index) = self.consignment.recipients.get(recipient) {
                answer((*index, Err(Refusal::NextHopTimeout)));
            }
        }
    }
}

fn is_permanent(refusal: &Refusal) -> bool {
    Reply::from(refusal).is_permanent()
}

/// What a server said, for the one upstream: the same class, the enhanced status kept, and who said it (O3).
pub(super) fn passed_on(hop: &Hop, reply: &Reply) -> Refusal {
    let class = if reply.is_permanent() { 5 } else { 4 };
    let code = match reply.code {
        450..=455 | 550 | 552..=554 | 556 => reply.code,
        _ if class == 5 => 554,
        _ => 451,
    };
    let enhanced = reply.enhanced.filter(|(first, _, _)| *first == class).unwrap_or((class, 0, 0));
    let text = format!("{} said: {} {}", hop.name, reply.code, reply.text());
    Refusal::NextHop(Reply::new(code, enhanced, text))
}

/// What a server said before it heard of any mail. 5xx says no more than that it will not talk to us now: it may be set up wrongly,
/// or have our address on a list, and mail waits. Only 521 says that it takes none at all (RFC 7504 §3); and once a client was
/// introduced, it is that client who is refused.
pub(super) fn turned_away(hop: &Hop, reply: &Reply, is_introduced: bool) -> Refusal {
    match passed_on(hop, reply) {
        Refusal::NextHop(said) if said.is_permanent() && reply.code != 521 && !is_introduced => {
            let (_, subject, detail) = said.enhanced.unwrap_or((5, 0, 0));
            Refusal::NextHop(Reply::new(451, (4, subject, detail), said.text()))
        }
        refusal => refusal,
    }
}

/// Counts a failure against a hop. What the server said to whom a client was introduced to may be meant for that one alone, who
/// must not shut it for everybody.
pub(super) fn count_failure(attempt: Attempt, hop: &Hop, refusal: &Refusal) {
    let is_answer = matches!(refusal, Refusal::NextHop(_)) && *refusal != too_late();
    if !(is_answer && hop.introduces_client()) {
        attempt.failed();
    }
}

/// Whether a header section in pieces, at the beginning of a message, has octets above 127.
fn has_utf8_header(message: &[Bytes]) -> bool {
    let mut line_is_empty = true;
    for byte in message.iter().flatten() {
        match byte {
            0x80.. => return true,
            b'\n' if line_is_empty => return false,
            b'\n' => line_is_empty = true,
            b'\r' => {}
            _ => line_is_empty = false,
        }
    }
    false
}

/// The class of an answer and nothing of its text, which a filter may have written about the decrypted content.
fn without_text(reply: &Reply) -> Refusal {
    if reply.is_permanent() {
        Refusal::NextHopRefusedOpened
    } else {
        Refusal::NextHop(Reply::new(451, (4, 7, 1), "message refused for now, try again later"))
    }
}

/// What the one upstream hears of a 2xx.
fn delivered(reply: &Reply) -> Reply {
    let said: String = reply.text().chars().take(TEXT_CHARS_MAX).collect();
    Reply::new(250, (2, 0, 0), format!("delivered, next hop said: {said}"))
}

/// ARCHITECTURE: the upstream's patience is used up.
pub(super) fn too_late() -> Refusal {
    Refusal::NextHop(Reply::new(451, (4, 4, 7), "delivery took too long, try again later"))
}

/// What is passed on of the next hop's words.
const TEXT_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_section_in_utf8_is_told_from_a_body_in_it() {
        for (pieces, expected) in [
            (&["A: a\r\n", "Subject: j\u{f6}rg\r\n\r\n"][..], true),
            (&["A: a\r\n", "\r\nj\u{f6}rg\r\n"], false),
            (&["A: a\r", "\n\r", "\nj\u{f6}rg\r\n"], false),
            (&["A: a\r\n", "B: b\r\n"], false),
            (&["\r\n\u{f6}"], false),
            (&[], false),
        ] {
            let pieces: Vec<Bytes> = pieces.iter().map(|text| Bytes::from(*text)).collect();
            assert_eq!(has_utf8_header(&pieces), expected, "{pieces:?}");
        }
    }
}
