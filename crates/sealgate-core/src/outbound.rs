//! Outbound (A2 to A7): plain mail from the mail server becomes sealed copies for the Internet.

use std::sync::Arc;

use crate::address::Address;
use crate::envelope::Envelope;
use crate::keys::{LookupError, PublicKey, Timestamp};
use crate::message::Message;
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::step::{Keys, Step};
use crate::trust::TrustStore;

/// What both directions need to know and may not find out themselves.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who is ours and what must be done.
    pub policy: Arc<Policy>,
    /// Whom we believe.
    pub trust: Arc<TrustStore>,
    /// EHLO name and authserv-id.
    pub hostname: String,
    /// The time of verification.
    pub now: Timestamp,
}

/// One outbound message. Call [`Outbound::step`] until it is done or refused; it computes (signs, encrypts), so call it
/// on a crypto thread.
#[derive(Debug)]
pub struct Outbound {}

impl Outbound {
    /// Takes a message; `received` is the trace field to put on top (with its CRLF), `id` goes into the report.
    pub fn new(
        context: Context,
        id: String,
        envelope: Envelope,
        message: Message,
        received: Vec<u8>,
    ) -> Self {
        let _ = (context, id, envelope, message, received);
        todo!()
    }

    /// The next thing to do, given the answers so far.
    pub fn step(&mut self, keys: &Keys) -> Step {
        let _ = keys;
        todo!()
    }
}

/// Whether a recipient can be admitted at RCPT already: mandatory encryption and no usable key is refused here (B5).
/// Returns quickly: at most a path validation, cached.
///
/// # Errors
/// The refusal to answer with.
pub fn admit_recipient(
    context: &Context,
    from: Option<&Address>,
    to: &Address,
    keys: &Result<Vec<PublicKey>, LookupError>,
) -> Result<(), Refusal> {
    let _ = (context, from, to, keys);
    todo!()
}
