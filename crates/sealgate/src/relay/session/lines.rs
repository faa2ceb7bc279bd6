//! The log lines of what becomes no transaction of its own (REQUIREMENTS O17): refusals at MAIL and RCPT, and content that the
//! machine refused or whose end never came. Each says the envelope, so that who looks for a message finds it.

use std::time::Duration;

use sealgate_core::address::Address;
use sealgate_core::envelope::{Envelope, Recipient};
use sealgate_core::refusal::{Refusal, Reply};
use sealgate_core::report::Report;
use sealgate_core::smtp::server::Discarded;

use super::{Next, Session};
use crate::observe::record::Record;

impl Session {
    /// A refusal at MAIL or RCPT, which has its log line as every refusal.
    pub(super) fn refused_early(
        &mut self,
        from: Option<&Address>,
        to: Option<&Address>,
        refusal: &Refusal,
    ) {
        let reply = Reply::from(refusal);
        self.server.refuse(&reply);
        let report = Report::new(self.entrance.direction(), &self.id);
        let recipient = to.map(|address| Recipient::new(address.clone()));
        let recipients = recipient.as_slice();
        self.record(report, &reply, recipients, 0, Duration::ZERO).from(from).write();
    }

    /// The machine refused content by itself, or its client ended it.
    pub(super) fn discarded(&mut self, discarded: Discarded) -> Next {
        let is_aborted = discarded.refusal.is_none();
        self.write_discarded(discarded, is_aborted);
        Next::Go
    }

    /// The end of content did not come: from a client that is gone, or was waited for long enough and told so.
    pub(super) fn unfinished(&mut self, discarded: Discarded) {
        self.write_discarded(discarded, true);
    }

    fn write_discarded(&mut self, discarded: Discarded, is_aborted: bool) {
        self.memory.release();
        let elapsed = self.receiving.take().map_or(Duration::ZERO, |it| it.since.elapsed());
        // A chunk outside a transaction is a wrong command, which has no line.
        let Some(envelope) = discarded.envelope else { return };
        let reply = discarded.refusal.or(discarded.decided).unwrap_or_else(|| {
            Reply::new(451, (4, 4, 2), "ended by the client before its content: nothing delivered")
        });
        let size_bytes = usize::try_from(discarded.received_bytes).unwrap_or(usize::MAX);
        let record = self.content_record(&reply, &envelope, size_bytes, elapsed);
        if is_aborted { record.aborted().write() } else { record.write() }
    }

    /// The client left before anything of a whole message was released: it will send again.
    pub(super) fn client_gone(&self, envelope: &Envelope, size_bytes: usize, elapsed: Duration) {
        let gone = Reply::new(451, (4, 4, 2), "client gone before delivery: nothing delivered");
        self.content_record(&gone, envelope, size_bytes, elapsed).aborted().write();
    }

    fn content_record(
        &self,
        reply: &Reply,
        envelope: &Envelope,
        size_bytes: usize,
        elapsed: Duration,
    ) -> Record {
        let report = Report::new(self.entrance.direction(), &self.id);
        self.record(report, reply, &envelope.recipients, size_bytes, elapsed)
            .from(envelope.reverse_path.as_ref())
    }

    pub(super) fn record(
        &self,
        report: Report,
        reply: &Reply,
        recipients: &[Recipient],
        size_bytes: usize,
        elapsed: Duration,
    ) -> Record {
        Record::new(report, reply, self.peer.ip(), self.entrance.name())
            .to(recipients)
            .size(size_bytes)
            .elapsed(elapsed)
    }
}
