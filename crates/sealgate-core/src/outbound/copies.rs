//! The copies of one outbound message: who shares one, and how each is signed and encrypted.

use bytes::Bytes;

use crate::address::Address;
use crate::cms::ContentCipher;
use crate::encrypt::{self, Chosen};
use crate::keys::{Certificate, KeyError, OwnKey};
use crate::mime::{self, Entity, Protection};
use crate::outbound::{Context, outer_fields};
use crate::policy::{Content, Decision, Order, Sign};
use crate::refusal::Refusal;
use crate::report::{Delivered, Format, Layer, Report, SignatureStatus, Signer};
use crate::sign;
use crate::step::{Parcel, Room};

/// What is to be done for one recipient.
#[derive(Clone, Debug)]
pub(super) struct Treatment {
    /// Index into the envelope.
    pub(super) recipient: usize,
    /// Whose copy.
    pub(super) address: Address,
    /// What policy says.
    pub(super) decision: Decision,
    /// The certificate to encrypt to; `None`: not encrypted.
    pub(super) key: Option<Chosen>,
    /// Not named in To or Cc: gets a copy apart (REQUIREMENTS B10).
    pub(super) is_blind: bool,
}

/// Makes the copies.
pub(super) struct Copies<'a> {
    pub(super) context: &'a Context,
    pub(super) received: &'a [u8],
    pub(super) entity: &'a Entity,
    pub(super) protection: Protection,
    pub(super) signer: Option<&'a OwnKey>,
    /// The originator's own certificate, so that his copy can be read again (B11).
    pub(super) own: Option<Chosen>,
    /// Memory for all copies but the first, which has its place beside the message; so every attempt serves somebody.
    pub(super) room: Option<&'a dyn Room>,
    /// Who has the message already, by index into the envelope.
    pub(super) served: &'a [bool],
}

/// What was made.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) parcels: Vec<Parcel>,
    /// Recipients, by index, for whose copies there was no room.
    pub(super) deferred: Vec<usize>,
}

/// How the layers of one copy are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layering {
    /// A signature around the payload.
    inner: bool,
    encryption: Option<ContentCipher>,
    /// A signature around the encryption.
    outer: bool,
}

/// Recipients who share a copy.
struct Group {
    layering: Layering,
    members: Vec<Treatment>,
}

impl Group {
    fn recipients(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.recipient)
    }
}

/// An entity (Content fields, empty line, body) and its layers from the outside in.
#[derive(Clone)]
struct Layered {
    entity: Vec<Bytes>,
    layers: Vec<Layer>,
    /// Whether relays leave every line of the payload as it is; only encryption makes up for it.
    survives: bool,
}

impl Copies<'_> {
    /// Makes every copy, one signature over the payload for all of them; the report gets the first copy's layers.
    ///
    /// # Errors
    /// A refusal for the whole message.
    pub(super) fn make(
        &self,
        treatments: Vec<Treatment>,
        report: &mut Report,
    ) -> Result<Made, Refusal> {
        let named_keys: Vec<Chosen> = treatments
            .iter()
            .filter(|one| !one.is_blind)
            .filter_map(|one| one.key.clone())
            .collect();
        let header = &self.entity.header;
        let (content_fields, _) = mime::split_content_fields(header);
        let outer =
            Bytes::from(outer_fields::for_transformed_body(header, &self.context.policy.domains));
        let mut payload: Option<Layered> = None;
        let mut signed: Option<Layered> = None;
        let mut made = Made::default();
        let mut has_copy = false;
        for group in self.groups(treatments)? {
            let layering = group.layering;
            if group.recipients().all(|index| self.served.get(index) == Some(&true)) {
                continue;
            }
            if layering == UNTOUCHED {
                made.parcels.push(self.untouched(&group));
                continue;
            }
            let bare = match &payload {
                Some(bare) => bare.clone(),
                None => payload.insert(self.payload(&content_fields)?).clone(),
            };
            if layering.encryption.is_none() && !bare.survives {
                // A signature that breaks on the way would make the peer refuse an honest mail.
                if group.members.iter().any(|member| member.decision.sign == Sign::Always) {
                    return Err(Refusal::BadMessage("it has a part that no signature survives"));
                }
                made.parcels.push(self.untouched(&group));
                continue;
            }
            let inner = match (&signed, layering.inner) {
                (_, false) => bare,
                (Some(inner), true) => inner.clone(),
                (None, true) => signed.insert(self.sign(bare)?).clone(),
            };
            let readers = self.readers(&group, &named_keys);
            if layering.encryption.is_some() && !self.has_room(&mut has_copy, &inner, &readers) {
                made.deferred.extend(group.recipients());
                continue;
            }
            let whole = self.seal(&group, &readers, inner)?;
            if report.layers.is_empty() {
                report.layers.clone_from(&whole.layers);
            }
            made.parcels.push(self.parcel(&group, &outer, whole));
        }
        Ok(made)
    }

    /// Takes the memory for a copy that is encrypted and so shares nothing with the others.
    fn has_room(&self, has_copy: &mut bool, content: &Layered, readers: &[&Chosen]) -> bool {
        let is_first = !std::mem::replace(has_copy, true);
        let content: usize = content.entity.iter().map(Bytes::len).sum();
        let cms = content.saturating_add(readers.len().saturating_mul(RECIPIENT_INFO_BYTES));
        // In lines of base64: 78 octets for 57.
        let bytes = cms.saturating_add(cms / 5 * 2).saturating_add(COPY_FIELDS_BYTES);
        is_first || self.room.is_none_or(|room| room.take(bytes))
    }

    /// Named recipients with the same layering share a copy; each blind one has his own.
    fn groups(&self, treatments: Vec<Treatment>) -> Result<Vec<Group>, Refusal> {
        // B12: one floor for the whole message, the blind copies included. CBC never goes without a signature inside (F3): who is
        // sent none gets GCM, and so do all.
        let automatic = || {
            let automatic = treatments.iter().filter(|one| one.decision.content == Content::Auto);
            automatic.filter_map(|one| one.key.as_ref().map(|key| (one, key)))
        };
        let is_gcm = automatic().all(|(_, key)| key.reads_gcm)
            || automatic().any(|(one, _)| !self.is_signed(one));
        let mut groups: Vec<Group> = Vec::new();
        for one in treatments {
            let layering = self.layering(&one, is_gcm)?;
            let shared = groups.iter_mut().find(|group| {
                group.layering == layering
                    && group.members.len() < GROUP_MEMBERS_MAX
                    && group.members.first().is_some_and(|member| !member.is_blind)
            });
            match shared {
                Some(group) if !one.is_blind => group.members.push(one),
                _ => groups.push(Group { layering, members: vec![one] }),
            }
        }
        Ok(groups)
    }

    fn signs(&self, one: &Treatment) -> bool {
        self.signer.is_some() && one.decision.sign != Sign::Never
    }

    /// By us, or by its sender.
    fn is_signed(&self, one: &Treatment) -> bool {
        self.signs(one) || self.protection == Protection::Signed
    }

    /// `is_gcm`: what `content = "auto"` comes to for this message.
    fn layering(&self, one: &Treatment, is_gcm: bool) -> Result<Layering, Refusal> {
        let signs = self.signs(one);
        if one.key.is_none() {
            return Ok(Layering { inner: signs, encryption: None, outer: false });
        }
        let cipher = match one.decision.content {
            Content::Aes256Cbc if !self.is_signed(one) => {
                return Err(Refusal::SignatureNeeded(one.address.clone()));
            }
            Content::Aes256Cbc => ContentCipher::Aes256Cbc,
            Content::Aes256Gcm => ContentCipher::Aes256Gcm,
            Content::Auto if is_gcm => ContentCipher::Aes256Gcm,
            Content::Auto => ContentCipher::Aes256Cbc,
        };
        let (inner, outer) = match one.decision.order {
            Order::SignThenEncrypt => (signs, false),
            Order::Triple => (signs, signs),
            // F3 again: with CBC the signature outside does not do, one stands inside too.
            Order::EncryptThenSign => (signs && !cipher.is_authenticated(), signs),
        };
        Ok(Layering { inner, encryption: Some(cipher), outer })
    }

    /// The content as one entity, 7-bit safe; what its sender signed stays as it is (B9).
    fn payload(&self, content_fields: &[u8]) -> Result<Layered, Refusal> {
        if self.protection == Protection::Signed {
            let head = Bytes::from([content_fields, b"\r\n"].concat());
            let entity = vec![head, self.entity.body.clone()];
            return Ok(Layered { entity, layers: Vec::new(), survives: true });
        }
        let canonical = mime::canonical_for_signing(content_fields, &self.entity.body)
            .map_err(|_| Refusal::BadMessage("its MIME structure is malformed or over a limit"))?;
        let survives = canonical.seven_bit;
        Ok(Layered { entity: canonical.pieces, layers: Vec::new(), survives })
    }

    fn sign(&self, content: Layered) -> Result<Layered, Refusal> {
        let Some(key) = self.signer else { return Ok(content) };
        let own: Option<&Certificate> = self.own.as_ref().map(|own| own.certificate.as_ref());
        let signed =
            sign::smime::sign(&content.entity, key, own, self.context.stamp).map_err(|error| {
                match error {
                    KeyError::Unavailable(_) => Refusal::KeysUnavailable,
                    KeyError::Failed => Refusal::Internal,
                }
            })?;
        let mut layers = content.layers;
        layers.insert(
            0,
            Layer::Signed {
                format: Format::Smime,
                status: SignatureStatus::Valid,
                signer: Some(Signer::of(&key.certificate, key.address.as_ref())),
                digest: signed.digest.to_owned(),
                signature: signed.signature.to_owned(),
            },
        );
        Ok(Layered { entity: signed.entity, layers, survives: content.survives })
    }

    /// To whom a copy is encrypted: the members, the named recipients when it is a blind one, and the originator.
    fn readers<'g>(&'g self, group: &'g Group, named: &'g [Chosen]) -> Vec<&'g Chosen> {
        let is_blind = group.members.iter().any(|member| member.is_blind);
        let of_others = named.iter().take(if is_blind { GROUP_MEMBERS_MAX } else { 0 });
        let mut recipients: Vec<&Chosen> = Vec::new();
        let members = group.members.iter().filter_map(|member| member.key.as_ref());
        for chosen in members.chain(of_others).chain(&self.own) {
            let fingerprint = chosen.certificate.fingerprint();
            if !recipients.iter().any(|other| other.certificate.fingerprint() == fingerprint) {
                recipients.push(chosen);
            }
        }
        recipients
    }

    fn seal(&self, group: &Group, readers: &[&Chosen], inner: Layered) -> Result<Layered, Refusal> {
        let Some(cipher) = group.layering.encryption else { return Ok(inner) };
        let entity = encrypt::smime::encrypt(&inner.entity, cipher, readers)
            .map_err(|_| Refusal::Internal)?;
        let addresses: Vec<String> =
            group.members.iter().map(|member| member.address.to_string()).collect();
        let key = group.members.iter().find_map(|member| member.key.as_ref());
        let mut layers = inner.layers;
        layers.insert(
            0,
            Layer::Encrypted {
                format: Format::Smime,
                content: cipher.name().to_owned(),
                key: key.map_or_else(String::new, |chosen| chosen.wrap_name().to_owned()),
                recipient: addresses.join(", "),
            },
        );
        let sealed = Layered { entity, layers, survives: true };
        if group.layering.outer { self.sign(sealed) } else { Ok(sealed) }
    }

    fn parcel(&self, group: &Group, outer: &Bytes, whole: Layered) -> Parcel {
        let mut message = vec![Bytes::copy_from_slice(self.received), outer.clone()];
        message.extend(whole.entity);
        Parcel {
            recipients: group.recipients().collect(),
            eight_bit: message.iter().skip(2).any(|segment| !segment.is_ascii()),
            message,
            delivered: match group.layering.encryption {
                Some(_) => Delivered::Sealed,
                None => Delivered::Signed,
            },
        }
    }

    /// Neither signed nor encrypted by policy: the body leaves as it came.
    fn untouched(&self, group: &Group) -> Parcel {
        let head = outer_fields::for_untouched_body(&self.entity.header);
        Parcel {
            recipients: group.recipients().collect(),
            eight_bit: !self.entity.body.is_ascii(),
            message: vec![
                Bytes::copy_from_slice(self.received),
                Bytes::from(head),
                self.entity.body.clone(),
            ],
            delivered: Delivered::Plain,
        }
    }
}

/// Recipients who share a copy; two such groups and the originator stay below what a CMS reader takes (K4: 500).
const GROUP_MEMBERS_MAX: usize = 200;
/// A RecipientInfo is smaller (RSA keys have 8192 bits at most, K5), but for a long issuer's name.
const RECIPIENT_INFO_BYTES: usize = 1536;
/// The fields on top of a copy, and a signature around it, without what is shared.
const COPY_FIELDS_BYTES: usize = 16 << 10;
const UNTOUCHED: Layering = Layering { inner: false, encryption: None, outer: false };
