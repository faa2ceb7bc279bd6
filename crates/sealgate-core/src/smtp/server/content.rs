//! Content of DATA and BDAT: received, drained, and handed over (RFC 5321 §4.1.1.4, RFC 3030 §2).

use bytes::{Buf, BytesMut};

use super::{Event, Phase, Question, Server, Start};
use crate::envelope::Envelope;
use crate::refusal::{Refusal, Reply};
use crate::smtp::Protocol;
use crate::smtp::data::{Content, Decoder, Progress, Violation};

/// Content being received.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) decoder: Decoder,
    pub(super) content: Content,
    /// Why it is being drained only.
    pub(super) refusal: Option<Reply>,
}

impl Body {
    /// What is said of it at its end, where that is not the caller's to decide any more.
    fn decided(&self) -> Option<Reply> {
        let too_large = || self.content.is_too_large().then(|| Reply::from(&Refusal::TooLarge));
        self.refusal.clone().or_else(too_large)
    }
}

/// Content that began and became no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// What was said of it; `None` where it was the client who ended it (RSET, a hello or QUIT between two chunks).
    pub refusal: Option<Reply>,
    /// What would have been said of it at its end, where that was decided already.
    pub decided: Option<Reply>,
    /// `None` where the content came without a transaction.
    pub envelope: Option<Envelope>,
    /// How much of it came, kept or not.
    pub received_bytes: u64,
}

impl Server {
    /// Drops the message that is being received and reads on to its end, which is then answered with `reply`.
    pub fn discard_message(&mut self, reply: Reply) {
        if let Some(body) = &mut self.body {
            body.content.discard();
            body.refusal.get_or_insert(reply);
        }
    }

    /// Takes the transaction whose content has begun and not ended, where there is one: nobody will read on.
    pub fn give_up(&mut self) -> Option<Discarded> {
        self.discard(None)
    }

    pub(super) fn bdat(&mut self, left: u64, last: bool) -> Option<Event> {
        if self.body.is_some() {
            self.commands = self.commands.saturating_sub(1);
            self.phase = Phase::Chunk { left, last };
            return None;
        }
        // The chunk follows whatever is replied (RFC 3030 §2).
        if let Some(reply) = self.not_ready() {
            self.drain_chunk(left, last, reply);
            return None;
        }
        self.question = Some(Question::Data(Start::Chunk { left, last }));
        Some(Event::Data)
    }

    pub(super) fn drain_chunk(&mut self, left: u64, last: bool, reply: Reply) {
        let mut body = self.new_body(Start::Chunk { left, last });
        body.content.discard();
        body.refusal = Some(reply);
        self.body = Some(body);
        self.phase = Phase::Chunk { left, last };
    }

    pub(super) fn new_body(&self, start: Start) -> Body {
        let limits = &self.options.limits;
        let expected = self.envelope.as_ref().and_then(|envelope| envelope.parameters.size_bytes);
        let decoder = match start {
            Start::Chunk { .. } => Decoder::for_chunks(limits.line_bytes_max),
            Start::Data => Decoder::for_data(limits.line_bytes_max),
        };
        let content = Content::new(limits.message_bytes_max, expected);
        Body { decoder, content, refusal: None }
    }

    pub(super) fn start_content(&mut self, start: Start) {
        self.body = Some(self.new_body(start));
        self.phase = match start {
            Start::Chunk { left, last } => Phase::Chunk { left, last },
            Start::Data => {
                self.reply_plain(354, vec!["end with <CRLF>.<CRLF>".to_owned()]);
                Phase::Data
            }
        };
    }

    pub(super) fn data(&mut self, input: &mut BytesMut) -> Option<Event> {
        let Some(body) = &mut self.body else {
            self.phase = Phase::Command;
            return None;
        };
        match body.decoder.decode(input, &mut body.content) {
            Ok(Progress::More) => {
                input.clear();
                Some(Event::NeedInput)
            }
            Ok(Progress::End(used)) => {
                input.advance(used);
                self.end_of_message()
            }
            Err(violation) => self.violation(violation),
        }
    }

    pub(super) fn chunk(&mut self, left: u64, last: bool, input: &mut BytesMut) -> Option<Event> {
        let Some(body) = &mut self.body else {
            self.phase = Phase::Command;
            return None;
        };
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let chunk = input.get(..length).unwrap_or_default();
        if body.refusal.is_some() {
            // A refused chunk is no message: nothing in it can offend. It takes its time all the same.
            body.content.skip(length);
        } else if let Err(violation) = body.decoder.decode(chunk, &mut body.content) {
            return self.violation(violation);
        }
        input.advance(length);
        let left = left.saturating_sub(u64::try_from(length).unwrap_or(left));
        if left > 0 {
            self.phase = Phase::Chunk { left, last };
            return Some(Event::NeedInput);
        }
        self.phase = Phase::Command;
        if last {
            if body.refusal.is_none()
                && let Err(violation) = body.decoder.finish_chunks(&mut body.content)
            {
                return self.violation(violation);
            }
            return self.end_of_message();
        }
        let Some(reply) = body.decided() else {
            self.say(250, (2, 0, 0), "chunk ok");
            return None;
        };
        let discarded = self.discard(Some(reply.clone()));
        self.reset();
        self.reply(&reply);
        discarded.map(Event::discarded)
    }

    /// Ends content that has begun, and the transaction with it.
    pub(super) fn discard(&mut self, refusal: Option<Reply>) -> Option<Discarded> {
        let body = self.body.take()?;
        let (decided, received_bytes) = (body.decided(), body.content.received());
        Some(Discarded { refusal, decided, envelope: self.envelope.take(), received_bytes })
    }

    /// All content is here: ask, or answer what was decided before.
    pub(super) fn end_of_message(&mut self) -> Option<Event> {
        self.phase = Phase::Command;
        let body = self.body.take()?;
        let refusal = body.decided();
        let envelope = self.envelope.take();
        self.reset();
        let recipients = envelope.as_ref().map_or(1, |envelope| envelope.recipients.len());
        let owed = match self.options.protocol {
            Protocol::Lmtp => recipients.max(1),
            Protocol::Smtp => 1,
        };
        if let Some(reply) = refusal {
            for _ in 0..owed {
                self.reply(&reply);
            }
            let received_bytes = body.content.received();
            let (refusal, decided) = (Some(reply), None);
            let discarded = Discarded { refusal, decided, envelope, received_bytes };
            return Some(Event::discarded(discarded));
        }
        let (envelope, message) = (envelope?, body.content.finish()?);
        self.question = Some(Question::Message(owed));
        Some(Event::Message(Box::new((envelope, message))))
    }

    pub(super) fn violation(&mut self, violation: Violation) -> Option<Event> {
        let reply = Reply::from(violation);
        let is_last = !matches!(self.phase, Phase::Chunk { last: false, .. });
        // RFC 2033 §4.2: whoever hears nothing is tried again.
        let recipients = self.envelope.as_ref().map_or(1, |envelope| envelope.recipients.len());
        if self.options.protocol == Protocol::Lmtp && is_last {
            (1..recipients).for_each(|_| self.reply(&reply));
        }
        self.hang_up(&reply)
    }
}
