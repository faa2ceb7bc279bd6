//! Signed attributes (RFC 5652 §5.3, §11): what else a signer signed, and the rules that make it
//! mean something.
//!
//! In: the content of the `[0]` of a SignerInfo as it came. Out: the few attributes that matter,
//! checked: each at most once, with one value, DER. An attribute that breaks the rules makes the
//! signature falsified, never merely odd (REQUIREMENTS F9).

use der::Decode;
use der::asn1::{GeneralizedTime, UtcTime};

use super::CmsError;
use super::algorithm::{
    ALGORITHM_PROTECTION, Algorithm, CONTENT_TYPE, ENCRYPTION_KEY_PREFERENCE, MESSAGE_DIGEST,
    SIGNING_CERTIFICATE_V2, SIGNING_TIME, SMIME_CAPABILITIES, digest_of, hash,
};
use super::element::{
    CONSTRUCTED_1, CONSTRUCTED_2, Element, GENERALIZED_TIME, OCTET_STRING, OID, Reader, SEQUENCE,
    SET, UTC_TIME, set_of, tlv,
};
use crate::keys::{Certificate, Digest, Timestamp};

/// The attributes of one signer.
#[derive(Clone, Debug)]
pub(super) struct SignedAttributes {
    /// The content octets of the SET as they came.
    bytes: Vec<u8>,
}

/// The attributes with a meaning, as slices of the bytes; those that are there are known to be
/// single.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meaning<'a> {
    pub(super) content_type: Option<&'a [u8]>,
    pub(super) message_digest: Option<&'a [u8]>,
    pub(super) signing_time: Option<Timestamp>,
    pub(super) capabilities: Option<&'a [u8]>,
    pub(super) encryption_key: Option<Element<'a>>,
    signing_certificate: Option<Element<'a>>,
    algorithm_protection: Option<Element<'a>>,
}

impl SignedAttributes {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec() }
    }

    /// What the signature covers: the attributes as they came, under SET's tag instead of `[0]`'s
    /// (RFC 5652 §5.4).
    pub(super) fn as_received(&self) -> Vec<u8> {
        tlv(SET, &[&self.bytes])
    }

    /// The same in DER order, if that differs: some signers sign the sorted form and send another.
    pub(super) fn sorted(&self) -> Option<Vec<u8>> {
        let members: Result<Vec<Vec<u8>>, CmsError> =
            Reader::new(&self.bytes).map(|member| Ok(member?.whole.to_vec())).collect();
        let sorted = set_of(SET, members.ok()?);
        (sorted != self.as_received()).then_some(sorted)
    }

    /// Reads the attributes.
    pub(super) fn meaning(&self) -> Result<Meaning<'_>, CmsError> {
        let mut meaning = Meaning::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        for attribute in Reader::new(&self.bytes) {
            let attribute = attribute?;
            let (oid, values) = read_attribute(&attribute)?;
            // RFC 5652 §11: attributes that matter "MUST NOT include multiple instances"; for the
            // others we ask the same.
            if seen.len() >= ATTRIBUTES_MAX || seen.contains(&oid) {
                return Err(CmsError::Malformed);
            }
            seen.push(oid);
            meaning.note(oid, values)?;
        }
        Ok(meaning)
    }
}

impl<'a> Meaning<'a> {
    fn note(&mut self, oid: &[u8], values: Reader<'a>) -> Result<(), CmsError> {
        let single = || {
            let mut values = values;
            let value = values.element()?;
            values.finish().map(|()| value)
        };
        if oid == CONTENT_TYPE.as_bytes() {
            self.content_type = Some(tagged(single()?, OID)?.body);
        } else if oid == MESSAGE_DIGEST.as_bytes() {
            self.message_digest = Some(tagged(single()?, OCTET_STRING)?.body);
        } else if oid == SIGNING_TIME.as_bytes() {
            self.signing_time = Some(read_time(&single()?)?);
        } else if oid == SMIME_CAPABILITIES.as_bytes() {
            self.capabilities = Some(tagged(single()?, SEQUENCE)?.whole);
        } else if oid == ENCRYPTION_KEY_PREFERENCE.as_bytes() {
            self.encryption_key = Some(single()?);
        } else if oid == SIGNING_CERTIFICATE_V2.as_bytes() {
            self.signing_certificate = Some(tagged(single()?, SEQUENCE)?);
        } else if oid == ALGORITHM_PROTECTION.as_bytes() {
            self.algorithm_protection = Some(tagged(single()?, SEQUENCE)?);
        }
        Ok(())
    }

    /// Whether the attributes name this certificate as the signer's, where they name one (RFC 5035
    /// §3).
    pub(super) fn names_certificate(&self, certificate: &Certificate) -> Result<bool, CmsError> {
        let Some(attribute) = self.signing_certificate else { return Ok(true) };
        let first = attribute.reader().expect(SEQUENCE)?.reader().expect(SEQUENCE)?;
        let mut members = first.reader();
        let digest = match members.optional(SEQUENCE)? {
            Some(algorithm) => digest_of(&Algorithm::read(&algorithm)?),
            None => Some(Digest::Sha256),
        };
        let expected = members.expect(OCTET_STRING)?.body;
        // A digest that we do not know proves nothing in either direction.
        Ok(digest.is_none_or(|digest| hash(digest, certificate.der()).as_ref() == expected))
    }

    /// Whether the attributes name the algorithms that SignerInfo names, where they name some (RFC
    /// 6211 §2).
    pub(super) fn names_algorithms(
        &self,
        digest: &Algorithm<'_>,
        signature: &Algorithm<'_>,
    ) -> Result<bool, CmsError> {
        let Some(attribute) = self.algorithm_protection else { return Ok(true) };
        let mut members = attribute.reader();
        let named_digest = Algorithm::next(&mut members)?;
        let Some(named_signature) = members.optional(CONSTRUCTED_1)? else {
            // A MAC's algorithm has no business here.
            members.expect(CONSTRUCTED_2)?;
            return Ok(false);
        };
        members.finish()?;
        let named_signature = Algorithm::read(&named_signature)?;
        Ok(is_same(digest, &named_digest) && is_same(signature, &named_signature))
    }
}

/// Whether octets are a SET of which a member is an attribute that signed attributes must have (RFC 5652 §5.3): such content
/// without signed attributes is a forgery made of somebody's signed attributes (REQUIREMENTS F10). What others they have, and whether
/// we would read those, makes no difference.
pub(super) fn is_attribute_set(content: &[u8]) -> bool {
    let Ok(set) = Reader::only(content, SET) else { return false };
    set.reader().map_while(Result::ok).any(|attribute| {
        let oid = tagged(attribute, SEQUENCE).and_then(|found| found.reader().expect(OID));
        oid.is_ok_and(|oid| {
            [CONTENT_TYPE, MESSAGE_DIGEST].iter().any(|one| one.as_bytes() == oid.body)
        })
    })
}

/// Whether unsigned attributes hold one that must be signed (RFC 5652 §11.1 to §11.3: "MUST NOT be
/// an unsigned attribute").
pub(super) fn holds_signed_only(unsigned: &Element<'_>) -> bool {
    let signed_only = [CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME];
    unsigned.reader().any(|attribute| {
        let oid = attribute.and_then(|attribute| attribute.reader().expect(OID));
        oid.is_ok_and(|oid| signed_only.iter().any(|known| known.as_bytes() == oid.body))
    })
}

/// Attribute ::= SEQUENCE { attrType, attrValues SET OF } (RFC 5652 §5.3).
fn read_attribute<'a>(attribute: &Element<'a>) -> Result<(&'a [u8], Reader<'a>), CmsError> {
    let mut members = tagged(*attribute, SEQUENCE)?.reader();
    let oid = members.expect(OID)?.body;
    let values = members.expect(SET)?;
    members.finish()?;
    if values.reader().any(|value| value.is_err()) {
        return Err(CmsError::Malformed);
    }
    Ok((oid, values.reader()))
}

/// Equal algorithms; absent and NULL parameters are the same (RFC 5754 §2).
fn is_same(one: &Algorithm<'_>, other: &Algorithm<'_>) -> bool {
    let parameters =
        |algorithm: &Algorithm<'_>| algorithm.parameters.map(|value| value.whole.to_vec());
    one.oid == other.oid
        && (parameters(one) == parameters(other)
            || (one.has_no_parameters() && other.has_no_parameters()))
}

/// Time ::= CHOICE { UTCTime, GeneralizedTime } in the one form that RFC 5652 §11.3 allows.
fn read_time(value: &Element<'_>) -> Result<Timestamp, CmsError> {
    let since = match value.tag {
        UTC_TIME => UtcTime::from_der(value.whole).map(|time| time.to_unix_duration()),
        GENERALIZED_TIME => {
            GeneralizedTime::from_der(value.whole).map(|time| time.to_unix_duration())
        }
        _ => return Err(CmsError::Malformed),
    };
    let seconds = since.map_err(|_| CmsError::Malformed)?.as_secs();
    i64::try_from(seconds).map(Timestamp).map_err(|_| CmsError::Malformed)
}

fn tagged(element: Element<'_>, tag: u8) -> Result<Element<'_>, CmsError> {
    if element.tag == tag { Ok(element) } else { Err(CmsError::Malformed) }
}

/// Signed attributes that are read at most.
const ATTRIBUTES_MAX: usize = 64;
