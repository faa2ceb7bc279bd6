//! Inbound (B1 to B7): sealed mail from the Internet is checked, opened and handed to the mail server, or refused.

use crate::envelope::Envelope;
use crate::message::Message;
use crate::outbound::Context;
use crate::step::{Keys, Step};

/// One inbound message. Call [`Inbound::step`] until it is done or refused; it computes (verifies, decrypts), so call it
/// on a crypto thread.
#[derive(Debug)]
pub struct Inbound {}

impl Inbound {
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
