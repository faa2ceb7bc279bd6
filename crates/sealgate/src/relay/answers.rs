//! The answers for one message's recipients: in whatever order they come, they go up in the order of RCPT (O11).

use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::smtp::Protocol;
use sealgate_core::smtp::server::Server;

use super::deliver::Outcome;
use super::settle::Outcomes;

/// The answers so far.
#[derive(Debug)]
pub(crate) struct Answers {
    outcomes: Outcomes,
    said: usize,
    id: String,
    /// Nobody listens any more.
    pub(crate) client_is_gone: bool,
}

impl Answers {
    /// For so many recipients.
    pub(crate) fn new(recipients: usize, id: &str) -> Self {
        Self { outcomes: vec![None; recipients], said: 0, id: id.to_owned(), client_is_gone: false }
    }

    /// Takes an answer; a recipient's first one counts.
    pub(crate) fn take(&mut self, (index, result): Outcome) {
        if let Some(slot) = self.outcomes.get_mut(index) {
            slot.get_or_insert(result);
        }
    }

    /// LMTP: says the next answer, if it is known; whether it was.
    pub(crate) fn say_next(&mut self, server: &mut Server) -> bool {
        let Some(Some(outcome)) = self.outcomes.get(self.said) else { return false };
        server.answer(&self.reply(outcome));
        self.said += 1;
        true
    }

    /// Nothing more is going to be known: who has no answer gets one that has him tried again.
    pub(crate) fn complete(&mut self) {
        for slot in &mut self.outcomes {
            slot.get_or_insert(Err(Refusal::Internal));
        }
    }

    /// SMTP: says the one answer for all. Returns it, as the log shows it.
    pub(crate) fn last_reply(
        &self,
        server: &mut Server,
        protocol: Protocol,
        joint: &Result<Reply, Refusal>,
    ) -> Reply {
        let reply = self.reply(joint);
        if protocol == Protocol::Smtp {
            server.answer(&reply);
        }
        reply
    }

    /// What became of each recipient, as far as it is known.
    pub(crate) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// The reply to say; the server adds the id to refusals.
    fn reply(&self, outcome: &Result<Reply, Refusal>) -> Reply {
        match outcome {
            Ok(reply) => Reply::new(250, (2, 0, 0), format!("{} (id {})", reply.text(), self.id)),
            Err(refusal) => match Reply::from(refusal) {
                // 421 would close a session that goes on.
                reply if reply.code == 421 => Reply { code: 451, ..reply },
                reply => reply,
            },
        }
    }
}
