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
use sealgate_core::smtp::client::{Event, Transaction};
use sealgate_core::step::Parcel;
use tokio::time::Instant;

use super::hops::{Hops, Reservation};
use super::link::Link;
use super::pool::Pool;
use super::route::{Hop, Router};
use super::transport::{Passage, Transport};
use begin::Begun;
pub(super) use begin::REUSED_MAX;
pub(super) use said::{Over, is_permanent, lacking_over, said_over, too_late, turned_away};
use said::{delivered, passed_on, without_text};

mod begin;
mod said;

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

/// What became of a copy up to the server's 354.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    /// None where nobody was admitted.
    pub(crate) delivery: Option<Delivery<'a>>,
    /// Those who were not.
    pub(crate) refused: Vec<Outcome>,
    /// The server refused them for who the message is from and for.
    pub(crate) for_envelope: bool,
}

/// One recipient's outcome, by index into the envelope.
pub(crate) type Outcome = (usize, Result<Reply, Refusal>);

impl Downstream {
    /// Without connections yet.
    pub(crate) fn new(router: Router, hostname: String, hops: Hops) -> Self {
        let inside_offers = InsideOffers::unknown();
        Self { router, pool: Pool::default(), hops, hostname, inside_offers }
    }

    /// Opens a transaction for a consignment: a pooled connection, or a new one where that is dead.
    pub(crate) async fn admit<'a>(
        &self,
        consignment: &'a Consignment<'a>,
        reservation: Reservation,
        deadline: Instant,
    ) -> Admission<'a> {
        // Time that is used up is not the hop's fault.
        let begun = if Instant::now() >= deadline {
            Err(too_late())
        } else {
            match self.begin_again(consignment, deadline).await {
                Some(begun) => begun,
                None => self.begin_anew(consignment, deadline).await,
            }
        };
        let Begun { link, is_admitted, refused, for_envelope } = match begun {
            Ok(begun) => begun,
            Err(refusal) => return Admission::to_nobody(consignment, &refusal),
        };
        let delivery = if is_admitted {
            Some(Delivery { consignment, link, _reservation: reservation })
        } else {
            self.take_back(&consignment.hop, link).await;
            None
        };
        Admission { delivery, refused, for_envelope }
    }
}

impl<'a> Admission<'a> {
    /// Nobody is admitted, for one reason.
    pub(crate) fn to_nobody(consignment: &Consignment<'a>, refusal: &Refusal) -> Self {
        let recipients = consignment.recipients.iter();
        let refused = recipients.map(|index| (*index, Err(refusal.clone()))).collect();
        Self { delivery: None, refused, for_envelope: false }
    }
}

impl<'a> Consignment<'a> {
    /// Its size, as far as that may be noticed by whoever sent it.
    pub(crate) fn size_bytes(&self) -> usize {
        self.parcel.size_bytes().max(self.size_bytes_min)
    }

    fn transaction(&self) -> Transaction<'_> {
        let of = |index: &usize| self.envelope.recipients.get(*index);
        Transaction {
            reverse_path: self.envelope.reverse_path.as_ref(),
            parameters: &self.parameters,
            recipients: self.recipients.iter().filter_map(of).collect(),
            size_bytes: u64::try_from(self.size_bytes()).unwrap_or(u64::MAX),
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

    /// Those of the replies to RCPT that are refusals, over a link.
    fn refused(&self, link: &Link, replies: Vec<Reply>) -> Vec<Outcome> {
        let replies = self.recipients.iter().zip(replies);
        let refusal = |reply: &Reply| said_over(Over::of(link), &self.hop, reply);
        replies
            .filter(|(_, reply)| !reply.is_positive())
            .map(|(index, reply)| (*index, Err(refusal(&reply))))
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
                        false if self.consignment.opened => {
                            self.consignment.transport.note_opened_refused(&reply);
                            Err(without_text(&reply))
                        }
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
