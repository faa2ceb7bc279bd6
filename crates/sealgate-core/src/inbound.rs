//! Inbound (B1 to B7): sealed mail from the Internet is checked, opened and handed to the mail server, or refused.
//!
//! In: one message with its envelope and the answers of the key stores. Out: copies for those who may read it opened and
//! for those who may not, each with the result on top, or one refusal. The decision table is REQUIREMENTS §3; the
//! tests of this module go through it row by row.

use std::cell::Cell;
use std::collections::HashSet;

use bytes::Bytes;

use crate::address::{Address, Domain};
use crate::dkim::arc::Chain;
use crate::envelope::Envelope;
use crate::inbound::peel::{Peeled, Peeler};
use crate::inbound::result_fields::Believed;
use crate::message::Message;
use crate::mime::{self, Cryptographic, Entity, Field};
use crate::outbound::Context;
use crate::policy::{Decision, Falsified, RsaPkcs1, SignerMismatch, UnauthenticatedEncryption};
use crate::refusal::Refusal;
use crate::report::{AuthenticationResult, Delivered, Direction, Layer, Reason, Report, Verdict};
use crate::step::{Done, KeyQuery, Keys, Parcel, Step};
use crate::trust::Budget;

mod peel;
mod plaintext;
mod result_fields;
#[cfg(test)]
mod tests;

/// One inbound message. Call [`Inbound::step`] until it is done or refused; it computes (verifies, decrypts), so call it
/// on a crypto thread.
#[derive(Debug)]
pub struct Inbound {
    context: Context,
    envelope: Envelope,
    message: Message,
    received: Vec<u8>,
    report: Report,
    /// The ARC chain as it came; `None`: not known, and not continued.
    chain: Option<Chain>,
    /// Parsed before the keys were asked for; `None` before that.
    asked_for: Option<Entity>,
}

impl Inbound {
    /// Takes a message; `received` is the trace field to put on top (with its CRLF), `id` goes into the report.
    pub fn new(
        context: Context,
        id: String,
        envelope: Envelope,
        message: Message,
        received: Vec<u8>,
    ) -> Self {
        let report = Report::new(Direction::Inbound, &id);
        Self { context, envelope, message, received, report, chain: None, asked_for: None }
    }

    /// Adds what was found out about the message as it came (SPF, DKIM, DMARC, ARC), to be told with the result.
    #[must_use]
    pub fn authenticated(
        mut self,
        results: Vec<AuthenticationResult>,
        chain: Option<Chain>,
    ) -> Self {
        self.report.authentication = results;
        self.chain = chain;
        self
    }

    /// The next thing to do, given the answers so far.
    pub fn step(&mut self, keys: &Keys) -> Step {
        match self.advance(keys) {
            Ok(step) => step,
            Err(refusal) => {
                if refusal == Refusal::Falsified {
                    self.report.verdict = Verdict::Fail;
                    self.report.reason.get_or_insert(Reason::Falsified);
                }
                self.report.delivered = Delivered::Nothing;
                Step::Refused(Box::new((refusal, self.report.clone())))
            }
        }
    }

    fn advance(&mut self, keys: &Keys) -> Result<Step, Refusal> {
        let asked_for = self.asked_for.take();
        let asked = asked_for.is_some();
        let entity = match asked_for {
            Some(entity) => entity,
            None => self.parse()?,
        };
        let from = entity.header.from_mailboxes();
        let author = match from.as_deref() {
            Ok([one]) => Some(one),
            _ => None,
        };
        if !asked && !matches!(mime::cryptographic_layer(&entity), Cryptographic::None) {
            let queries = self.queries(author);
            self.asked_for = Some(entity);
            return Ok(Step::Want(queries));
        }
        let named = match &from {
            Ok(_) => None,
            Err(_) => entity.header.named_in_from().ok(),
        };
        let decision = self.decision(named.as_deref().or(from.as_deref().ok()));
        let peeler = Peeler {
            context: &self.context,
            envelope: &self.envelope,
            keys,
            decision,
            author,
            budget: Budget::default(),
            named_in_vain: Cell::new(false),
        };
        let mut layers = Vec::new();
        let peeled = peeler.peel(entity.clone(), &mut layers);
        self.report.named_in_vain = peeler.named_in_vain.get();
        let reason = match &peeled {
            Ok(peeled) => peeled.reason,
            Err(fault) => fault.reason,
        };
        // J7: what was found inside before it failed tells one failure behind a key from another.
        self.report.layers = match reason {
            Some(Reason::NotDecrypted) => outermost_encryption(&layers),
            _ => layers,
        };
        let peeled = peeled.map_err(|fault| {
            self.report.reason = fault.reason;
            fault.refusal
        })?;
        self.report.verdict = peeled.verdict;
        self.report.reason = peeled.reason;
        self.report.author_layer = peeled.author_layer;
        // The clock, or a revocation list that has lapsed: what can be told tomorrow is not refused for good today.
        if decision.expect_signed && peeled.verdict == Verdict::TempError {
            return Err(Refusal::KeysUnavailable);
        }
        if decision.expect_signed && peeled.verdict != Verdict::Pass {
            self.report.reason = Some(Reason::ExpectSigned);
            return Err(Refusal::Falsified);
        }
        Ok(self.deliver(&entity, peeled, decision))
    }

    fn parse(&self) -> Result<Entity, Refusal> {
        let entity = Entity::parse(self.message.bytes().clone())
            .map_err(|_| Refusal::BadMessage("its header section is malformed or over a limit"))?;
        match entity.header.duplicates() {
            Some(field) => Err(Refusal::BadMessage(field)),
            None => Ok(entity),
        }
    }

    fn queries(&self, author: Option<&Address>) -> Vec<KeyQuery> {
        let mut queries: Vec<KeyQuery> = self
            .envelope
            .recipients
            .iter()
            .map(|one| KeyQuery::Decryption(one.address.clone()))
            .collect();
        queries.sort_by_key(|query| match query {
            KeyQuery::Decryption(address) => address.lookup_key(),
            _ => String::new(),
        });
        queries.dedup();
        queries.extend(author.map(|address| KeyQuery::Public(address.clone())));
        queries
    }

    /// The strictest of what policy says for the recipients. What relaxes a check is matched by the envelope's
    /// sender, unless his domain disowns the message; `expect_signed` by everybody whom From names too, or a forger
    /// would choose another envelope. `from` is `None` where From cannot be read: then a program may show
    /// anybody, and what is expected of anybody is expected.
    fn decision(&self, from: Option<&[Address]>) -> Decision {
        let policy = &self.context.policy;
        let from = from.map(|from| from.iter().collect::<HashSet<_>>());
        let from = from.filter(|from| !from.is_empty() && from.len() <= AUTHORS_MAX);
        let is_disowned = self.is_disowned();
        let mut strictest: Option<Decision> = None;
        for recipient in &self.envelope.recipients {
            let to = &recipient.address;
            let mut one = policy.decide(self.envelope.reverse_path.as_ref(), to);
            if is_disowned {
                one = stricter(one, policy.decide(None, to));
            }
            one.expect_signed |= match &from {
                Some(from) => {
                    from.iter().any(|author| policy.decide(Some(author), to).expect_signed)
                }
                None => policy.expects_signatures(to),
            };
            strictest = Some(strictest.map_or(one, |so_far| stricter(so_far, one)));
        }
        strictest.unwrap_or_default()
    }

    /// Whether the domain of the envelope's sender says that the client may not send for it (SPF), and has not signed the message
    /// either (DKIM), as it would have where somebody forwards its mail.
    fn is_disowned(&self) -> bool {
        let of = |method: &'static str| {
            self.report.authentication.iter().filter(move |one| one.method == method)
        };
        let Some(path) = &self.envelope.reverse_path else { return false };
        let is_signer = |(property, domain): &(&str, String)| {
            *property == "header.d"
                && Domain::parse(domain).is_ok_and(|domain| domain == *path.domain())
        };
        of("spf").any(|one| matches!(one.result, "fail" | "softfail"))
            && !of("dkim").any(|one| one.result == "pass" && one.properties.iter().any(is_signer))
    }

    fn deliver(&self, entity: &Entity, peeled: Peeled, decision: Decision) -> Step {
        let mut report = self.report.clone();
        let withheld = peeled.is_withheld(decision.signer_mismatch == SignerMismatch::Withhold);
        let is_entitled =
            |index: &usize| peeled.entitled.as_ref().is_none_or(|some| some.contains(index));
        let (entitled, others): (Vec<usize>, Vec<usize>) =
            (0..self.envelope.recipients.len()).partition(is_entitled);
        // What somebody's key showed is not for the others.
        let mut theirs = report.clone();
        theirs.delivered = Delivered::AsReceived;
        theirs.verdict = Verdict::None;
        theirs.reason = Some(Reason::NoKey);
        theirs.author_layer = None;
        theirs.layers = outermost_encryption(&report.layers);
        let mut parcels = Vec::new();
        match &peeled.deliver {
            _ if entitled.is_empty() => report = theirs.clone(),
            Some(inner) if !withheld => {
                report.delivered = Delivered::Plain;
                let mut parcel = self.opened(entity, inner, &report, entitled);
                // As it would have been delivered unopened.
                parcel.eight_bit |= peeled.is_unproven && !entity.body.is_ascii();
                parcels.push(parcel);
            }
            _ => {
                report.delivered = Delivered::AsReceived;
                parcels.push(self.as_received(entity, &report, entitled));
            }
        }
        if !others.is_empty() {
            parcels.push(self.as_received(entity, &theirs, others));
        }
        Step::Done(Box::new(Done {
            parcels,
            deferred: Vec::new(),
            report,
            harvest: peeled.harvest,
        }))
    }

    /// The message as it came under trace and result fields (REQUIREMENTS D12, D24).
    fn as_received(&self, entity: &Entity, report: &Report, recipients: Vec<usize>) -> Parcel {
        let believed = self.believed();
        let head = entity.header.without(|field| result_fields::looks_like_ours(field, believed));
        Parcel {
            recipients,
            eight_bit: !entity.body.is_ascii(),
            message: vec![self.top(report), Bytes::from(head), entity.body.clone()],
            delivered: Delivered::AsReceived,
        }
    }

    /// The outer fields over the opened entity. Of its own header section the Content fields only are promoted: the rest
    /// was not what the Internet saw, and a forger's to write (C8, E3).
    fn opened(
        &self,
        entity: &Entity,
        inner: &Entity,
        report: &Report,
        recipients: Vec<usize>,
    ) -> Parcel {
        let believed = self.believed();
        let mut head = entity.header.fields_without(|field| {
            result_fields::looks_like_ours(field, believed) || field.is_content()
        });
        if entity.header.count("MIME-Version") == 0 {
            head.extend_from_slice(b"MIME-Version: 1.0\r\n");
        }
        let mut message = vec![self.top(report), Bytes::from(head)];
        message.extend(transportable(inner));
        let eight_bit = message.iter().skip(2).any(|piece| !piece.is_ascii());
        if let Some(set) = self.arc_set(report, &message) {
            message.insert(0, set);
        }
        Parcel { recipients, eight_bit, message, delivered: Delivered::Plain }
    }

    fn believed(&self) -> Believed<'_> {
        // Who evaluates nothing himself may have a filter of ours before him.
        let is_border = !self.report.authentication.is_empty();
        let domains = if is_border { self.context.policy.domains.as_slice() } else { &[] };
        Believed { authserv_id: &self.context.hostname, domains }
    }

    /// What was found out before we changed the message, sealed with what it is now (E6). Mail does not wait for it.
    fn arc_set(&self, report: &Report, message: &[Bytes]) -> Option<Bytes> {
        let (signer, chain) = (self.context.dkim.as_ref()?, self.chain?);
        let results = result_fields::results(report);
        let sealed =
            signer.seal(message, chain, &self.context.hostname, &results, self.context.stamp);
        sealed.ok().flatten()
    }

    fn top(&self, report: &Report) -> Bytes {
        // RFC 5321 §7.2: a copy for several must not tell who else has it, as whose key opened it would.
        let is_for_one = self.envelope.recipients.len() == 1;
        let mut top = result_fields::write(report, &self.context.hostname, is_for_one);
        top.extend_from_slice(&self.received);
        Bytes::from(top)
    }
}

/// An opened entity as SMTP can carry it. Encryption carries any octets: bare line ends, NUL and endless lines are
/// encoded anew, which never touches a signed part; where even that does not help, line ends are made whole. In the fields
/// they are no line ends at all: what follows one would else be a field, or a command, to whoever takes a lone LF for an end.
fn transportable(inner: &Entity) -> Vec<Bytes> {
    let mut fields: Vec<u8> = inner
        .header
        .fields()
        .filter(Field::is_content)
        .flat_map(|field| mime::transportable_field(&field).into_owned())
        .collect();
    if !fields.is_empty() && !fields.ends_with(b"\r\n") {
        fields.extend_from_slice(b"\r\n");
    }
    let is_whole = mime::is_transportable(&inner.body);
    if !is_whole
        && let Ok(canonical) = mime::canonical_for_signing(&fields, &inner.body)
        && canonical.seven_bit
    {
        return canonical.pieces;
    }
    fields.extend_from_slice(b"\r\n");
    let body = inner.body.clone();
    let body = if is_whole { body } else { mime::canonical_line_ends(body) };
    vec![Bytes::from(fields), body]
}

/// What an encryption that proves nothing had inside, in ASCII; `None` where it cannot be. Else a mail server without 8BITMIME would
/// refuse it, and take it unopened, and whoever sent it learn that it opened (0.1).
fn seven_bit(inner: &Entity) -> Option<Entity> {
    let fields = inner.header.fields_without(|field| !field.is_content());
    if !fields.is_ascii() {
        return None;
    }
    if inner.body.is_ascii() {
        return Some(inner.clone());
    }
    let canonical = mime::canonical_for_signing(&fields, &inner.body).ok()?;
    let entity = canonical.seven_bit.then(|| Bytes::from(canonical.to_vec()))?;
    Entity::parse(entity).ok()
}

/// Mailboxes of From that policy is asked for, each for each recipient. With more what is expected of anybody is expected.
const AUTHORS_MAX: usize = 16;

/// What everybody can see: the layers down to the first encryption.
fn outermost_encryption(layers: &[Layer]) -> Vec<Layer> {
    let end = layers.iter().position(|layer| matches!(layer, Layer::Encrypted { .. }));
    layers.iter().take(end.map_or(0, |at| at.saturating_add(1))).cloned().collect()
}

fn stricter(a: Decision, b: Decision) -> Decision {
    let falsified = if b.falsified == Falsified::Refuse { b.falsified } else { a.falsified };
    let unauthenticated_encryption = match b.unauthenticated_encryption {
        UnauthenticatedEncryption::Refuse => UnauthenticatedEncryption::Refuse,
        UnauthenticatedEncryption::Pass => a.unauthenticated_encryption,
    };
    let signer_mismatch = match b.signer_mismatch {
        SignerMismatch::Withhold => SignerMismatch::Withhold,
        SignerMismatch::Tag => a.signer_mismatch,
    };
    let rsa_pkcs1 = if b.rsa_pkcs1 == RsaPkcs1::Refuse { b.rsa_pkcs1 } else { a.rsa_pkcs1 };
    Decision {
        rsa_pkcs1,
        falsified,
        unauthenticated_encryption,
        signer_mismatch,
        expect_signed: a.expect_signed || b.expect_signed,
        ..a
    }
}
