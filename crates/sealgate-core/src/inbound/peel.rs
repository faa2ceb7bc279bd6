//! Taking the cryptographic layers off, from the outside in (RFC 9787 §4.2: only the contiguous ones at the root).
//!
//! Every way out of here is a row of REQUIREMENTS §3. What is behind one of our keys and fails gives one refusal,
//! whatever failed.

use std::cell::Cell;

use bytes::Bytes;

use crate::address::Address;
use crate::cms::{self, CmsError, ContentKind, EnvelopedData, SignedData};
use crate::decrypt::{self, Opened, Opening};
use crate::envelope::Envelope;
use crate::keys::{LookupError, PublicKey};
use crate::mime::{self, Cryptographic, Entity, Field, MimeError, SignedParts};
use crate::outbound::Context;
use crate::policy::{Decision, Falsified, UnauthenticatedEncryption};
use crate::refusal::Refusal;
use crate::report::{Layer, Reason, SignatureStatus, Verdict};
use crate::step::Keys;
use crate::trust::Budget;
use crate::verify::{self, Checked, Harvest, Judge};

use super::plaintext::{self, is_well_formed, repeats_content_fields};

/// What peeling needs.
pub(super) struct Peeler<'a> {
    pub(super) context: &'a Context,
    pub(super) envelope: &'a Envelope,
    pub(super) keys: &'a Keys,
    pub(super) decision: Decision,
    pub(super) author: Option<&'a Address>,
    /// One for all layers (K6).
    pub(super) budget: Budget,
    /// Set where somebody is named in an encryption that his key does not open, whatever becomes of the message.
    pub(super) named_in_vain: Cell<bool>,
}

/// A message without its layers.
#[derive(Debug, Default)]
pub(super) struct Peeled {
    /// What to deliver instead of the message as received.
    pub(super) deliver: Option<Entity>,
    /// Who may have it; `None`: everyone.
    pub(super) entitled: Option<Vec<usize>>,
    pub(super) verdict: Verdict,
    pub(super) reason: Option<Reason>,
    pub(super) harvest: Option<Harvest>,
    /// Which of the layers is the author's signature, where it passes.
    pub(super) author_layer: Option<usize>,
    /// Nothing proves that what was opened is what was encrypted.
    pub(super) is_unproven: bool,
    /// A valid signature behind an encryption, by someone who is not the author (D20).
    mismatch_behind_encryption: bool,
}

impl Peeled {
    /// Whether the plaintext is kept back because its signer is not the author.
    pub(super) fn is_withheld(&self, policy_withholds: bool) -> bool {
        policy_withholds && self.mismatch_behind_encryption
    }

    fn as_received(verdict: Verdict, reason: Reason) -> Self {
        Self { verdict, reason: Some(reason), ..Self::default() }
    }
}

/// Why peeling ended in a refusal.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) refusal: Refusal,
    pub(super) reason: Option<Reason>,
}

impl Fault {
    fn falsified(reason: Reason) -> Self {
        Self { refusal: Refusal::Falsified, reason: Some(reason) }
    }

    /// Everything behind a secret key (REQUIREMENTS 0.1).
    fn behind_key() -> Self {
        Self::falsified(Reason::NotDecrypted)
    }
}

/// What encloses the entity at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// No encryption: what is wrong can be seen by everyone.
    Nothing,
    /// An encryption that proves its content whole.
    Authenticated,
    /// An encryption that does not, directly outside: a signature must follow (D14).
    Unauthenticated,
    /// The same, and the signature has been found valid.
    UnauthenticatedSigned,
}

impl Behind {
    fn is_encryption(self) -> bool {
        self != Self::Nothing
    }
}

/// Where peeling stands after one layer.
enum Next {
    Inner(Entity),
    End,
}

/// The state between two layers.
struct Walk {
    behind: Behind,
    /// Whether the message's own Content fields, which go where it is opened, are ASCII: else a mail server without SMTPUTF8 would
    /// take it opened only.
    is_plain_outside: bool,
    /// The signature that would be the author's if nothing encrypted follows inside (D19), and which layer it is.
    signature: Option<(Checked, usize)>,
    peeled: Peeled,
}

impl Peeler<'_> {
    /// Peels to the end. `layers` gets what was found also when the end is a refusal.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) fn peel(&self, root: Entity, layers: &mut Vec<Layer>) -> Result<Peeled, Fault> {
        let is_plain_outside =
            root.header.fields().filter(Field::is_content).all(|field| field.raw().is_ascii());
        let (behind, signature, peeled) = (Behind::Nothing, None, Peeled::default());
        let mut walk = Walk { behind, is_plain_outside, signature, peeled };
        let mut entity = root;
        for _ in 0..=LAYERS_MAX {
            if layers.len() >= LAYERS_MAX
                && !matches!(mime::cryptographic_layer(&entity), Cryptographic::None)
            {
                if walk.behind == Behind::Unauthenticated {
                    // Not a word on what the key showed: good and bad padding look alike (0.1).
                    return match self.unauthenticated_failure(&walk) {
                        Err(End::AsReceived(peeled)) => Ok(*peeled),
                        Ok(peeled) => Ok(peeled),
                        Err(End::Refuse(fault)) => Err(fault),
                    };
                }
                let entitled = walk.peeled.entitled;
                let unopened = Peeled::as_received(Verdict::Neutral, Reason::OverLimit);
                return Ok(Peeled { entitled, ..unopened });
            }
            match self.layer(&entity, &mut walk, layers) {
                Ok(Next::Inner(inner)) => entity = inner,
                Ok(Next::End) => break,
                Err(End::Refuse(fault)) => return Err(fault),
                Err(End::AsReceived(peeled)) => return Ok(*peeled),
            }
        }
        Ok(walk.conclude())
    }

    fn layer(
        &self,
        entity: &Entity,
        walk: &mut Walk,
        layers: &mut Vec<Layer>,
    ) -> Result<Next, End> {
        let layer = mime::cryptographic_layer(entity);
        if walk.behind == Behind::Unauthenticated && !is_signed(&layer, entity) {
            return self.unsigned_behind_unauthenticated(entity, &layer, walk);
        }
        if !matches!(layer, Cryptographic::None)
            && !walk.is_settled()
            && !mime::agrees_with_reader(entity)
        {
            // A reader that sees other parts than we do would show what we did not verify. Behind an encryption the signature
            // is looked at all the same: one that proves nothing needs it to show that nobody changed it on the way (D14).
            if walk.behind.is_encryption()
                && let Cryptographic::ClearSigned(parts) = &layer
                && mime::root_agrees_with_reader(entity)
            {
                self.clear_signed(parts, walk, layers)?;
                if walk.passes() {
                    walk.signature = None;
                }
            }
            return self.not_judged(walk, Verdict::Neutral, Reason::Ambiguous);
        }
        match layer {
            Cryptographic::ClearSigned(parts) => self.clear_signed(&parts, walk, layers),
            Cryptographic::Pkcs7Mime => self.pkcs7_mime(entity, walk, layers),
            Cryptographic::Ambiguous(MimeError::OverLimit(_)) => {
                self.not_judged(walk, Verdict::Neutral, Reason::OverLimit)
            }
            Cryptographic::Ambiguous(_) => {
                self.not_judged(walk, Verdict::Neutral, Reason::Ambiguous)
            }
            _ => Ok(Next::End),
        }
    }

    fn clear_signed(
        &self,
        parts: &SignedParts,
        walk: &mut Walk,
        layers: &mut Vec<Layer>,
    ) -> Result<Next, End> {
        if walk.behind == Behind::Unauthenticated && !parts.strict {
            return self.unauthenticated_failure(walk);
        }
        let parsed = mime::decode_body(&parts.signature).map_err(|_| CmsError::Malformed);
        let signed = match parsed.and_then(|der| SignedData::parse(&der)) {
            Ok(signed) => signed,
            Err(error) => return self.bad_cms(&error, walk),
        };
        if signed.content.is_some() {
            // Which of the two would be meant? (D18, CVE-2009-0547)
            return self.not_judged(walk, Verdict::Neutral, Reason::Ambiguous);
        }
        if !self.signature(&signed, &parts.signed, walk, layers)? {
            return Ok(Next::End);
        }
        match Entity::parse(parts.signed.clone()) {
            Ok(inner) => Ok(Next::Inner(inner)),
            Err(_) => Ok(Next::End),
        }
    }

    fn pkcs7_mime(
        &self,
        entity: &Entity,
        walk: &mut Walk,
        layers: &mut Vec<Layer>,
    ) -> Result<Next, End> {
        let Ok(decoded) = mime::decode_body(entity) else {
            return self.bad_cms(&CmsError::Malformed, walk);
        };
        match cms::content_kind(&decoded) {
            Ok(ContentKind::SignedData) => self.opaque_signed(&decoded, walk, layers),
            Ok(ContentKind::AuthEnvelopedData | ContentKind::EnvelopedData) => {
                self.encrypted(&decoded, walk, layers)
            }
            Ok(ContentKind::CompressedData | ContentKind::Other) => {
                self.not_judged(walk, Verdict::Neutral, Reason::Unsupported)
            }
            Err(error) => self.bad_cms(&error, walk),
        }
    }

    fn opaque_signed(
        &self,
        cms: &[u8],
        walk: &mut Walk,
        layers: &mut Vec<Layer>,
    ) -> Result<Next, End> {
        let signed = match SignedData::parse(cms) {
            Ok(signed) => signed,
            Err(error) => return self.bad_cms(&error, walk),
        };
        let content = match &signed.content {
            Some(content) if signed.content_is_data => content.clone(),
            Some(_) => return self.not_judged(walk, Verdict::Neutral, Reason::Unsupported),
            // The content is elsewhere (RFC 5652 §5.2): nothing was found wrong with it.
            None if !signed.signers.is_empty() => {
                return self.not_judged(walk, Verdict::Neutral, Reason::Unsupported);
            }
            None => Bytes::new(),
        };
        if !self.signature(&signed, &content, walk, layers)? {
            return Ok(Next::End);
        }
        let Some(inner) = plaintext::of_signed(&content) else { return Ok(Next::End) };
        if repeats_content_fields(&inner) {
            return self.not_judged(walk, Verdict::Neutral, Reason::Ambiguous);
        }
        if walk.passes() || walk.behind.is_encryption() {
            walk.peeled.deliver = Some(inner.clone());
        }
        Ok(Next::Inner(inner))
    }

    /// What the public key store said of the author.
    fn stored(&self) -> Option<&Result<Vec<PublicKey>, LookupError>> {
        self.author.and_then(|author| self.keys.public.get(author))
    }

    /// Judges a signature. `false`: there is none (certificates only), so nothing inside is looked at.
    fn signature(
        &self,
        signed: &SignedData,
        content: &[u8],
        walk: &mut Walk,
        layers: &mut Vec<Layer>,
    ) -> Result<bool, End> {
        let stored = self.stored();
        let known: &[PublicKey] = match stored {
            Some(Ok(known)) => known,
            Some(Err(_)) | None => &[],
        };
        let Context { trust, now, clock_is_doubtful, .. } = self.context;
        let judge = Judge {
            author: self.author,
            known,
            trust,
            budget: &self.budget,
            now: *now,
            clock_is_doubtful: *clock_is_doubtful,
        };
        let Some(checked) = verify::smime::check(signed, content, &judge) else {
            if walk.behind == Behind::Unauthenticated {
                return self.unauthenticated_failure(walk);
            }
            return Ok(false);
        };
        let is_broken = checked.status == SignatureStatus::Falsified || checked.key_compromised;
        let by_gateway = walk.signature.as_ref().is_some_and(|(outer, _)| outer.is_gateways);
        if walk.is_settled() && checked.verdict != Verdict::Pass && !(by_gateway && is_broken) {
            // The author answers for all that his own signature covers, whoever signed in it before, and whatever became of that.
            layers.push(checked.layer);
            return Ok(true);
        }
        let settled =
            checked.verdict == Verdict::Pass || checked.status == SignatureStatus::Falsified;
        if matches!(stored, Some(Err(_))) && !settled {
            // The store may hold the certificate or the trust that is missing: not judged for good without it.
            return Err(End::Refuse(Fault { refusal: Refusal::KeysUnavailable, reason: None }));
        }
        layers.push(checked.layer.clone());
        match walk.behind {
            Behind::Unauthenticated if checked.status != SignatureStatus::Valid => {
                return self.unauthenticated_failure(walk);
            }
            Behind::Unauthenticated => walk.behind = Behind::UnauthenticatedSigned,
            _ => {}
        }
        if checked.status == SignatureStatus::Falsified {
            if walk.behind == Behind::Nothing && self.decision.falsified == Falsified::Tag {
                return Err(End::as_received(Verdict::Fail, Reason::Falsified));
            }
            return Err(End::Refuse(Fault::falsified(if walk.behind.is_encryption() {
                Reason::NotDecrypted
            } else {
                Reason::Falsified
            })));
        }
        if checked.key_compromised {
            return Err(End::Refuse(Fault::falsified(Reason::Revoked)));
        }
        walk.signature = Some((checked, layers.len().saturating_sub(1)));
        Ok(true)
    }

    fn encrypted(&self, cms: &[u8], walk: &mut Walk, layers: &mut Vec<Layer>) -> Result<Next, End> {
        // A signature outside an encryption says who sent the ciphertext, not who wrote the content (D19).
        walk.signature = None;
        let enveloped = match EnvelopedData::parse(cms) {
            Ok(enveloped) => enveloped,
            Err(error) => return self.bad_cms(&error, walk),
        };
        let reached = walk.peeled.entitled.as_deref();
        // J1: whether the store is needed for the signature inside is for the plaintext to tell. Where the encryption
        // proves nothing, that must not decide about the reply: the store is waited for before anything is opened.
        let may_open = enveloped.is_authenticated() || !matches!(self.stored(), Some(Err(_)));
        let rsa_pkcs1 = self.decision.rsa_pkcs1;
        let opening = decrypt::smime::open(
            &enveloped,
            self.envelope,
            self.keys,
            reached,
            rsa_pkcs1,
            may_open,
        );
        match opening {
            Opening::Unavailable => {
                Err(End::Refuse(Fault { refusal: Refusal::KeysUnavailable, reason: None }))
            }
            Opening::NotForUs(layer) => {
                layers.push(layer);
                if walk.behind == Behind::Nothing {
                    Err(End::as_received(Verdict::None, Reason::NoKey))
                } else {
                    walk.peeled.reason = Some(Reason::NoKey);
                    Ok(Next::End)
                }
            }
            Opening::Unsupported(layer) => {
                layers.push(layer);
                self.not_judged(walk, Verdict::Neutral, Reason::Unsupported)
            }
            Opening::Failed { named, layer } => {
                layers.push(layer);
                if enveloped.is_authenticated() {
                    return Err(End::Refuse(Fault::behind_key()));
                }
                walk.peeled.entitled = Some(named);
                // What good padding with noise behind it would cost, so that time tells less (J1).
                std::hint::black_box(plaintext::of_unauthenticated(Bytes::copy_from_slice(cms)));
                self.unauthenticated_failure(walk)
            }
            Opening::Opened(opened) => {
                layers.push(opened.layer.clone());
                self.named_in_vain.set(self.named_in_vain.get() || opened.named_in_vain);
                let may_pass = self.decision.unauthenticated_encryption
                    == UnauthenticatedEncryption::Pass
                    && !opened.is_authenticated;
                let entitled = if may_pass { &opened.named } else { &opened.entitled };
                walk.peeled.entitled = Some(entitled.clone());
                if may_pass && opened.named_in_vain {
                    // Who of those named has it is known only where it opens: then nobody does.
                    return self.unauthenticated_failure(walk);
                }
                self.opened(opened, walk)
            }
        }
    }

    fn opened(&self, opened: Opened, walk: &mut Walk) -> Result<Next, End> {
        let sound = match opened.is_authenticated {
            true => plaintext::of_authenticated(&opened.content),
            false => plaintext::of_unauthenticated(opened.content),
        };
        // They would stand in the outer header section, where such a pair is refused (C13).
        let Some(inner) = sound.filter(|entity| !repeats_content_fields(entity)) else {
            return if opened.is_authenticated {
                Err(End::Refuse(Fault::behind_key()))
            } else {
                self.unauthenticated_failure(walk)
            };
        };
        walk.behind =
            if opened.is_authenticated { Behind::Authenticated } else { Behind::Unauthenticated };
        walk.peeled.deliver = Some(inner.clone());
        Ok(Next::Inner(inner))
    }

    /// CBC without a signature directly inside: refused, or by rule delivered, and then only where it is an ordinary
    /// message; that rule's two outcomes are both 250.
    fn unsigned_behind_unauthenticated(
        &self,
        entity: &Entity,
        layer: &Cryptographic,
        walk: &mut Walk,
    ) -> Result<Next, End> {
        let ordinary = matches!(layer, Cryptographic::None) && is_well_formed(entity);
        if self.decision.unauthenticated_encryption == UnauthenticatedEncryption::Pass
            && ordinary
            && walk.is_plain_outside
            && let Some(seven_bit) = super::seven_bit(entity)
        {
            walk.peeled.deliver = Some(seven_bit);
            walk.peeled.is_unproven = true;
            walk.peeled.verdict = Verdict::None;
            walk.peeled.reason = Some(Reason::EncryptedUnsigned);
            return Ok(Next::End);
        }
        self.unauthenticated_failure(walk)
    }

    /// What passes goes in the same copies as if it had been opened: in how many, and who shares one, shows in the reply where the
    /// mail server refuses some of them (0.1).
    fn unauthenticated_failure<T>(&self, walk: &Walk) -> Result<T, End> {
        match self.decision.unauthenticated_encryption {
            UnauthenticatedEncryption::Refuse => Err(End::Refuse(Fault::behind_key())),
            UnauthenticatedEncryption::Pass => {
                let entitled = walk.peeled.entitled.clone();
                let unopened = Peeled::as_received(Verdict::None, Reason::NotDecrypted);
                Err(End::AsReceived(Box::new(Peeled { entitled, ..unopened })))
            }
        }
    }

    /// CMS that is malformed is falsified (F-g); what is merely not supported is not judged.
    fn bad_cms(&self, error: &CmsError, walk: &mut Walk) -> Result<Next, End> {
        match (error, walk.behind) {
            _ if walk.is_settled() => Ok(Next::End),
            (_, Behind::Unauthenticated) => self.unauthenticated_failure(walk),
            (CmsError::Malformed, Behind::Nothing) => {
                Err(End::Refuse(Fault::falsified(Reason::Malformed)))
            }
            (CmsError::Malformed, _) => Err(End::Refuse(Fault::behind_key())),
            (CmsError::OverLimit, _) => self.not_judged(walk, Verdict::Neutral, Reason::OverLimit),
            _ => self.not_judged(walk, Verdict::Neutral, Reason::Unsupported),
        }
    }

    /// Ends with what is opened so far, without a verdict on what is inside.
    fn not_judged(&self, walk: &mut Walk, verdict: Verdict, reason: Reason) -> Result<Next, End> {
        if walk.behind == Behind::Unauthenticated {
            return self.unauthenticated_failure(walk);
        }
        if walk.is_settled() {
            return Ok(Next::End);
        }
        let is_anothers = walk.signature.as_ref().is_some_and(|(checked, _)| checked.is_anothers());
        if walk.behind.is_encryption() && is_anothers {
            // Whose it is decides who may have sent it (D20), whatever is inside.
            return Ok(Next::End);
        }
        walk.signature = None;
        walk.peeled.verdict = verdict;
        walk.peeled.reason = Some(reason);
        Ok(Next::End)
    }
}

impl Walk {
    /// Whether the author's signature, with nothing encrypted inside so far, is found good.
    fn passes(&self) -> bool {
        self.signature.as_ref().is_some_and(|(checked, _)| checked.verdict == Verdict::Pass)
    }

    /// Whether it is also his own. His domain's may be a gateway's that signs whatever leaves, falsified mail too.
    fn is_settled(&self) -> bool {
        self.passes() && self.signature.as_ref().is_some_and(|(checked, _)| checked.is_authors_own)
    }

    fn conclude(self) -> Peeled {
        let mut peeled = self.peeled;
        match self.signature {
            Some((checked, layer)) => {
                peeled.author_layer = (checked.verdict == Verdict::Pass).then_some(layer);
                peeled.verdict = checked.verdict;
                peeled.reason = checked.reason;
                peeled.mismatch_behind_encryption =
                    self.behind.is_encryption() && checked.is_anothers();
                if peeled.mismatch_behind_encryption {
                    peeled.verdict = Verdict::Policy;
                    peeled.reason = Some(Reason::SignerMismatch);
                }
                peeled.harvest = checked.harvest;
            }
            None if self.behind.is_encryption() && peeled.verdict == Verdict::None => {
                peeled.reason.get_or_insert(Reason::EncryptedUnsigned);
            }
            None => {}
        }
        peeled
    }
}

/// The end of peeling before the innermost layer.
enum End {
    AsReceived(Box<Peeled>),
    Refuse(Fault),
}

impl End {
    fn as_received(verdict: Verdict, reason: Reason) -> Self {
        Self::AsReceived(Box::new(Peeled::as_received(verdict, reason)))
    }
}

fn is_signed(layer: &Cryptographic, entity: &Entity) -> bool {
    match layer {
        Cryptographic::ClearSigned(_) => true,
        Cryptographic::Pkcs7Mime => mime::decode_body(entity)
            .is_ok_and(|der| matches!(cms::content_kind(&der), Ok(ContentKind::SignedData))),
        _ => false,
    }
}

/// REQUIREMENTS K3.
const LAYERS_MAX: usize = 4;
