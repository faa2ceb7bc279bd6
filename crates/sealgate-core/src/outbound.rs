//! Outbound (A2 to A7): plain mail from the mail server becomes sealed copies for the Internet.
//!
//! In: one message with its envelope and the answers of the key stores. Out: copies, each for some of the recipients, or
//! one refusal. All or nothing: where one recipient must not get the mail, nobody gets it (REQUIREMENTS B5).
//! Connections, look-ups and time are the relay's.

use std::cell::LazyCell;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::{Address, Domain};
use crate::dkim::Signer;
use crate::encrypt::{self, Chosen, NoKey};
use crate::envelope::{Envelope, Recipient};
use crate::keys::{KeyError, LookupError, OwnKey, PublicKey, Timestamp};
use crate::message::Message;
use crate::mime::{Entity, Protection};
use crate::outbound::copies::{Copies, Made, Treatment};
use crate::policy::{Decision, Encrypt, Policy, Sign};
use crate::refusal::Refusal;
use crate::report::{Delivered, Direction, ID_FIELD, Reason, Report};
use crate::sign;
use crate::step::{Done, KeyQuery, Keys, Parcel, Room, Step};
use crate::trust::TrustStore;

mod already;
mod copies;
mod outer_fields;
mod returned;
#[cfg(test)]
mod tests;

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
    /// The clock has jumped: what `now` alone speaks against waits, and is not refused (REQUIREMENTS O15).
    pub clock_is_doubtful: bool,
    /// What is written down as the time: never in the future of a receiver whose clock is right, who would take it for forged.
    pub stamp: Timestamp,
    /// Signs for our domains what leaves, and seals what comes in and is changed.
    pub dkim: Option<Arc<Signer>>,
}

/// One outbound message. Call [`Outbound::step`] until it is done or refused; it computes (signs, encrypts), so call it
/// on a crypto thread.
#[derive(Debug)]
pub struct Outbound {
    context: Context,
    envelope: Envelope,
    message: Message,
    received: Vec<u8>,
    report: Report,
    asked: bool,
    room: Option<Arc<dyn Room>>,
    served: Vec<bool>,
}

impl Outbound {
    /// Takes a message; `received` is the trace field to put on top (with its CRLF), `id` goes into the report.
    pub fn new(
        context: Context,
        id: String,
        envelope: Envelope,
        message: Message,
        received: Vec<u8>,
    ) -> Self {
        let report = Report::new(Direction::Outbound, &id);
        let (asked, room, served) = (false, None, Vec::new());
        Self { context, envelope, message, received, report, asked, room, served }
    }

    /// Bounds the memory for copies; without this there is no bound.
    #[must_use]
    pub fn within(mut self, room: Arc<dyn Room>) -> Self {
        self.room = Some(room);
        self
    }

    /// Who has the message already, by index into the envelope's recipients: no copy is made for him alone.
    pub fn skip(&mut self, served: &[bool]) {
        served.clone_into(&mut self.served);
    }

    /// The next thing to do, given the answers so far.
    pub fn step(&mut self, keys: &Keys) -> Step {
        if !self.asked {
            self.asked = true;
            let queries = self.queries();
            // Nothing to ask for, and yet something to compute, which is not this thread's to do.
            if !queries.is_empty() || self.computes() {
                return Step::Want(queries);
            }
        }
        match self.transform(keys) {
            Ok(Made { parcels, deferred }) => {
                let mut report = self.report.clone();
                report.delivered =
                    parcels.first().map_or(Delivered::Nothing, |parcel| parcel.delivered);
                Step::Done(Box::new(Done { parcels, deferred, report, harvest: None }))
            }
            Err(refusal) => Step::Refused(Box::new((refusal, self.report.clone()))),
        }
    }

    /// Everything that any branch can need, asked for at once: one round of look-ups a message.
    fn queries(&self) -> Vec<KeyQuery> {
        let from = self.envelope.reverse_path.as_ref();
        let mut queries = Vec::new();
        let mut signs = false;
        // Where policy encrypts for everybody the header section need not be searched.
        let asks_for_encryption = LazyCell::new(|| self.header_holds(&[ENCRYPT_SIGNAL]));
        for recipient in &self.envelope.recipients {
            let decision = self.context.policy.decide(from, &recipient.address);
            signs |= decision.sign != Sign::Never;
            let query = KeyQuery::Public(recipient.address.clone());
            if (decision.encrypt != Encrypt::Never || *asks_for_encryption)
                && !queries.contains(&query)
            {
                queries.push(query);
            }
        }
        // Others' keys are nobody's to ask for here.
        if let Some(from) = from.filter(|from| self.context.policy.is_ours(from)) {
            if signs {
                queries.push(KeyQuery::Signing(from.clone()));
            }
            if !queries.is_empty() {
                queries.push(KeyQuery::Decryption(from.clone()));
            }
        }
        queries
    }

    /// Whether the header section has one of these words, given in lower case; it is not parsed yet.
    fn header_holds(&self, words: &[&[u8]]) -> bool {
        let header = self.message.header_section().to_ascii_lowercase();
        words.iter().any(|word| memchr::memmem::find(&header, word).is_some())
    }

    /// Whether a key is used without one being asked for: our domain signs, or it may be a client's signature.
    fn computes(&self) -> bool {
        self.context.dkim.is_some() || self.header_holds(&SIGNED_TYPES)
    }

    fn transform(&mut self, keys: &Keys) -> Result<Made, Refusal> {
        let entity = Entity::parse(self.message.bytes().clone())
            .map_err(|_| Refusal::BadMessage("its header section is malformed or over a limit"))?;
        if let Some(field) = entity.header.duplicates() {
            return Err(Refusal::BadMessage(field));
        }
        // For some readers the text begins there. Sealed or not, it would leave plain, above what we make of the rest.
        if entity.header.fields().any(|field| field.is_malformed()) {
            return Err(Refusal::BadMessage("a line of its header section that is no field"));
        }
        let entity =
            returned::without_opened_content(&entity, &self.context.policy).unwrap_or(entity);
        let protection = already::protection(&entity, &self.envelope, &self.context);
        if protection == Protection::Encrypted {
            self.report.reason = Some(Reason::AlreadyEncrypted);
            let parcels = self.as_received(&entity);
            return self.signed_for_domain(&entity, Made { parcels, deferred: Vec::new() });
        }
        if protection == Protection::Signed {
            self.report.reason = Some(Reason::AlreadySigned);
        }
        let decisions = self.decisions(&entity)?;
        let signer = self.signer(&entity, protection, &decisions, keys)?;
        let treatments = self.treatments(&entity, &decisions, keys)?;
        // Only what is encrypted needs a copy that its originator can open: other mail flows while the keys are away, if
        // need be without the certificate that a signature tells others (B14).
        let encrypts = treatments.iter().any(|treatment| treatment.key.is_some());
        let own = match self.own_certificate(keys) {
            Err(refusal) if encrypts => return Err(refusal),
            found => found.ok().flatten(),
        };
        let copies = Copies {
            context: &self.context,
            received: &self.received,
            entity: &entity,
            protection,
            signer,
            own,
            room: self.room.as_deref(),
            served: &self.served,
        };
        let made = copies.make(treatments, &mut self.report)?;
        self.signed_for_domain(&entity, made)
    }

    /// The author's domain signs each copy as it leaves (DKIM, B15); nothing is done to one afterwards.
    fn signed_for_domain(&self, entity: &Entity, mut made: Made) -> Result<Made, Refusal> {
        let Some(signer) = &self.context.dkim else { return Ok(made) };
        let Some(domain) = self.domain_that_signs(signer, entity) else { return Ok(made) };
        for parcel in &mut made.parcels {
            let signed = signer.sign(&parcel.message, &domain, self.context.stamp);
            let field = signed.map_err(|error| match error {
                KeyError::Unavailable(_) => Refusal::KeysUnavailable,
                KeyError::Failed => Refusal::Internal,
            })?;
            // A header section that became too long to be read has nothing that a signature could be about.
            if let Some(field) = field {
                parcel.message.insert(0, field);
            }
        }
        Ok(made)
    }

    /// The author's domain, else the envelope sender's. For what the mail server forwards the domain answers with its own
    /// envelope, and never for an author whom the Internet named.
    fn domain_that_signs(&self, signer: &Signer, entity: &Entity) -> Option<Domain> {
        let ours = |address: &&Address| signer.signs_for(address.domain());
        let from = entity.header.from_mailboxes();
        let path = self.envelope.reverse_path.as_ref();
        let answers = if came_from_outside(entity) {
            let may_be_ours = |one: &Address| signer.may_align_with(one.domain());
            let is_anothers = from.is_ok_and(|from| !from.iter().any(may_be_ours));
            path.filter(ours).filter(|_| is_anothers).cloned()
        } else {
            from.unwrap_or_default().iter().chain(path).find(ours).cloned()
        };
        answers.map(|address| address.domain().clone())
    }

    /// REQUIREMENTS B8: mail that its sender encrypted passes, its body untouched.
    /// Blind recipients travel apart here too (B10).
    fn as_received(&self, entity: &Entity) -> Vec<Parcel> {
        let head = Bytes::from(outer_fields::for_untouched_body(&entity.header));
        let named = entity.header.addressees();
        let everyone = self.envelope.recipients.iter().enumerate();
        let (named, blind): (Vec<_>, Vec<_>) =
            everyone.partition(|(_, recipient)| named.contains(&recipient.address));
        let index = |(index, _)| index;
        let mut groups: Vec<Vec<usize>> = vec![named.into_iter().map(index).collect()];
        groups.extend(blind.into_iter().map(|one| vec![index(one)]));
        groups.retain(|group| !group.is_empty());
        let parcel = |recipients| Parcel {
            recipients,
            eight_bit: !entity.body.is_ascii(),
            message: vec![Bytes::from(self.received.clone()), head.clone(), entity.body.clone()],
            delivered: Delivered::AsReceived,
        };
        groups.into_iter().map(parcel).collect()
    }

    /// The originator's key, where policy wants a signature and the key may be used: its owner is the one mailbox of
    /// From and of MAIL FROM, which the mail server asserts by handing the mail over (B4). What it forwards, for an alias say,
    /// has come from the Internet, where anybody writes both.
    fn signer<'a>(
        &self,
        entity: &Entity,
        protection: Protection,
        decisions: &[Decision],
        keys: &'a Keys,
    ) -> Result<Option<&'a OwnKey>, Refusal> {
        if protection == Protection::Signed
            || decisions.iter().all(|decision| decision.sign == Sign::Never)
        {
            return Ok(None);
        }
        let must = decisions.iter().any(|decision| decision.sign == Sign::Always);
        let originator =
            match (&self.envelope.reverse_path, entity.header.from_mailboxes().as_deref()) {
                (Some(path), Ok([from]))
                    if path == from
                        && self.context.policy.is_ours(path)
                        && !came_from_outside(entity) =>
                {
                    path
                }
                _ if must => return Err(Refusal::OriginatorNotAsserted),
                _ => return Ok(None),
            };
        let answer = keys.own.get(&KeyQuery::Signing(originator.clone()));
        let candidates = match answer {
            Some(Ok(candidates)) => candidates.as_slice(),
            // No answer is not the answer "no key".
            Some(Err(LookupError(_))) | None => return Err(Refusal::KeysUnavailable),
        };
        match sign::choose_key(candidates, originator, &self.context.trust, self.context.now) {
            Some(key) => Ok(Some(key)),
            None if self.context.clock_is_doubtful
                && sign::would_be_usable(candidates, originator) =>
            {
                Err(Refusal::KeysUnavailable)
            }
            None if must => Err(Refusal::NoSigningKey(originator.clone())),
            None => Ok(None),
        }
    }

    /// What policy says for each recipient, and the sender in the message.
    fn decisions(&self, entity: &Entity) -> Result<Vec<Decision>, Refusal> {
        let wants_encryption = wants_encryption(entity)?;
        let from = self.envelope.reverse_path.as_ref();
        let decide = |recipient: &Recipient| {
            let mut decision = self.context.policy.decide(from, &recipient.address);
            if wants_encryption {
                // B18: what a user asks for raises the protection, never lowers it.
                decision.encrypt = Encrypt::Require;
            }
            decision
        };
        Ok(self.envelope.recipients.iter().map(decide).collect())
    }

    /// What happens to each recipient's copy.
    fn treatments(
        &self,
        entity: &Entity,
        decisions: &[Decision],
        keys: &Keys,
    ) -> Result<Vec<Treatment>, Refusal> {
        let named = entity.header.addressees();
        let mut treatments = Vec::with_capacity(self.envelope.recipients.len());
        for (index, (recipient, &decision)) in
            self.envelope.recipients.iter().zip(decisions).enumerate()
        {
            let address = &recipient.address;
            let key = match decision.encrypt {
                Encrypt::Never => None,
                Encrypt::Prefer | Encrypt::Require => {
                    let answer = keys.public.get(address).ok_or(Refusal::KeysUnavailable)?;
                    usable_key(&self.context, address, decision.encrypt, answer)?
                }
            };
            treatments.push(Treatment {
                recipient: index,
                address: address.clone(),
                decision,
                key,
                is_blind: !named.contains(address),
            });
        }
        Ok(treatments)
    }

    fn own_certificate(&self, keys: &Keys) -> Result<Option<Chosen>, Refusal> {
        let Some(from) = &self.envelope.reverse_path else { return Ok(None) };
        match keys.own.get(&KeyQuery::Decryption(from.clone())) {
            Some(Ok(own)) => Ok(encrypt::choose_own(own, &self.context.trust, self.context.now)),
            Some(Err(LookupError(_))) => Err(Refusal::KeysUnavailable),
            None => Ok(None),
        }
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
    match context.policy.decide(from, to).encrypt {
        Encrypt::Never => Ok(()),
        // Mail that its sender encrypted needs no key of ours, and that is known at DATA only; but a recipient
        // whom nothing can be sent to must be refused before anything is sent to the others.
        wish @ (Encrypt::Prefer | Encrypt::Require) => {
            usable_key(context, to, wish, keys).map(|_| ())
        }
    }
}

/// Whether a message came in through sealgate: it takes every such field off what the Internet sends, and puts one on.
fn came_from_outside(entity: &Entity) -> bool {
    entity.header.count(ID_FIELD) > 0
}

/// Whether the sender asks for encryption in the message (B18). Whoever writes the field in a way that cannot be read may
/// have asked for it, and must not be told that the mail has left.
fn wants_encryption(entity: &Entity) -> Result<bool, Refusal> {
    let mut wants = false;
    for field in entity.header.all(ENCRYPT_FIELD) {
        match field.token().as_deref() {
            Some("yes") => wants = true,
            Some("no") => {}
            _ => {
                return Err(Refusal::BadMessage(
                    "an X-Sealgate-Encrypt that is neither yes nor no",
                ));
            }
        }
    }
    Ok(wants)
}

/// A failed look-up is never taken for "no key" (B6).
fn usable_key(
    context: &Context,
    address: &Address,
    wish: Encrypt,
    answer: &Result<Vec<PublicKey>, LookupError>,
) -> Result<Option<Chosen>, Refusal> {
    let candidates = answer.as_ref().map_err(|LookupError(_)| Refusal::KeysUnavailable)?;
    let Context { trust, now, clock_is_doubtful, .. } = context;
    match encrypt::choose_certificate(candidates, address, trust, *now, *clock_is_doubtful) {
        Ok(chosen) => Ok(Some(chosen)),
        Err(NoKey::Undecided) => Err(Refusal::KeysUnavailable),
        Err(NoKey::Unusable) if wish == Encrypt::Require => {
            Err(Refusal::NoEncryptionKey(address.clone()))
        }
        Err(NoKey::Unusable) => Ok(None),
    }
}

/// One of these stands in the Content-Type of a signed message, however it is written (RFC 8551 §3.5, §3.9).
const SIGNED_TYPES: [&[u8]; 3] = [b"signed", b"pkcs7-mime", b"octet-stream"];
/// The field by which a user asks for encryption (REQUIREMENTS B18); it does not leave.
const ENCRYPT_FIELD: &str = "X-Sealgate-Encrypt";
/// The same in lower case, to look for before the header section is parsed: a question too many harms nothing. White space
/// may stand before its colon.
const ENCRYPT_SIGNAL: &[u8] = b"x-sealgate-encrypt";
