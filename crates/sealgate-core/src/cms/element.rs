//! DER elements read without copying, and written from parts (X.690).
//!
//! In: bytes that [`super::transcode`] has made DER. Out: tag, body and whole element as slices of
//! them, so that what was signed is hashed as it came. Definite, minimal lengths only; tags of one
//! octet, others are refused. It does not look into values: integers, times and strings are the
//! caller's affair.

use super::CmsError;

/// One element of the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    /// The identifier octet.
    pub(crate) tag: u8,
    /// The content octets.
    pub(crate) body: &'a [u8],
    /// Identifier, length and content octets.
    pub(crate) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// A reader of what is inside.
    pub(crate) fn reader(&self) -> Reader<'a> {
        Reader::new(self.body)
    }
}

/// Reads elements one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The one element that fills `bytes`, which must have the tag.
    pub(crate) fn only(bytes: &'a [u8], tag: u8) -> Result<Element<'a>, CmsError> {
        let mut reader = Self::new(bytes);
        let element = reader.expect(tag)?;
        reader.finish()?;
        Ok(element)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, whatever its tag.
    pub(crate) fn element(&mut self) -> Result<Element<'a>, CmsError> {
        let header = Header::read(self.rest).ok_or(CmsError::Malformed)?;
        let length = header.length.ok_or(CmsError::Malformed)?;
        if header.tag_bytes != 1 || !header.length_is_minimal {
            return Err(CmsError::Malformed);
        }
        let end = header.bytes.checked_add(length).ok_or(CmsError::Malformed)?;
        let (whole, rest) = self.rest.split_at_checked(end).ok_or(CmsError::Malformed)?;
        let body = whole.get(header.bytes..).ok_or(CmsError::Malformed)?;
        self.rest = rest;
        Ok(Element { tag: header.tag, body, whole })
    }

    /// The next element, which must have the tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, CmsError> {
        let element = self.element()?;
        if element.tag == tag { Ok(element) } else { Err(CmsError::Malformed) }
    }

    /// The next element if it has the tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, CmsError> {
        if self.rest.first() == Some(&tag) { self.element().map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), CmsError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CmsError::Malformed) }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Element<'a>, CmsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.element();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

/// Identifier and length octets, BER (X.690 §8.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// The first identifier octet.
    pub(super) tag: u8,
    /// How many identifier octets.
    pub(super) tag_bytes: usize,
    /// How many identifier and length octets.
    pub(super) bytes: usize,
    /// The length; none if indefinite.
    pub(super) length: Option<usize>,
    /// Whether the length octets are those that DER asks for.
    pub(super) length_is_minimal: bool,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let tag = *bytes.first()?;
        let mut tag_bytes = 1;
        if tag & TAG_NUMBER_HIGH == TAG_NUMBER_HIGH {
            loop {
                let next = *bytes.get(tag_bytes)?;
                tag_bytes += 1;
                if next & 0x80 == 0 {
                    break;
                }
                if tag_bytes > TAG_BYTES_MAX {
                    return None;
                }
            }
        }
        let first = *bytes.get(tag_bytes)?;
        let after_first = tag_bytes + 1;
        let header = |bytes, length, length_is_minimal| {
            Some(Self { tag, tag_bytes, bytes, length, length_is_minimal })
        };
        if first < 0x80 {
            return header(after_first, Some(usize::from(first)), true);
        }
        if first == LENGTH_INDEFINITE {
            // Only constructed elements may be indefinite (X.690 §8.1.3.2).
            return if tag & CONSTRUCTED == 0 { None } else { header(after_first, None, false) };
        }
        let count = usize::from(first & 0x7f);
        if count > LENGTH_BYTES_MAX {
            return None;
        }
        let octets = bytes.get(after_first..after_first.checked_add(count)?)?;
        let length = octets.iter().try_fold(0_usize, |sum, octet| {
            sum.checked_mul(256).and_then(|sum| sum.checked_add(usize::from(*octet)))
        })?;
        let minimal = length >= 0x80 && octets.first() != Some(&0);
        header(after_first + count, Some(length), minimal)
    }
}

/// The length octets of DER.
pub(crate) fn push_length(out: &mut Vec<u8>, length: usize) {
    if let Ok(short) = u8::try_from(length)
        && short < 0x80
    {
        out.push(short);
        return;
    }
    let octets = length.to_be_bytes();
    let skipped = octets.iter().take_while(|octet| **octet == 0).count();
    let used = octets.get(skipped..).unwrap_or_default();
    out.push(0x80 | u8::try_from(used.len()).unwrap_or_default());
    out.extend_from_slice(used);
}

/// Identifier and length octets for a body of `length` octets.
pub(crate) fn push_header(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    push_length(out, length);
}

/// How many octets an element with a body of `length` octets has.
pub(crate) fn element_size(length: usize) -> usize {
    let mut header = Vec::with_capacity(LENGTH_BYTES_MAX + 2);
    push_header(&mut header, 0, length);
    header.len() + length
}

/// An element whose body is the parts one after another.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + LENGTH_BYTES_MAX + 2);
    push_header(&mut out, tag, length);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A SET OF in DER order (X.690 §11.6), under a tag of the caller's.
pub(crate) fn set_of(tag: u8, mut members: Vec<Vec<u8>>) -> Vec<u8> {
    members.sort();
    let parts: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
    tlv(tag, &parts)
}

/// BOOLEAN.
pub(crate) const BOOLEAN: u8 = 0x01;
/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// NULL.
pub(crate) const NULL: u8 = 0x05;
/// OBJECT IDENTIFIER.
pub(crate) const OID: u8 = 0x06;
/// UTF8String.
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const IA5_STRING: u8 = 0x16;
/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// SET.
pub(crate) const SET: u8 = 0x31;
/// UTCTime.
pub(crate) const UTC_TIME: u8 = 0x17;
/// GeneralizedTime.
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` primitive.
pub(crate) const PRIMITIVE_0: u8 = 0x80;
/// `[1]` primitive.
pub(crate) const PRIMITIVE_1: u8 = 0x81;
/// `[2]` primitive.
pub(crate) const PRIMITIVE_2: u8 = 0x82;
/// `[0]` constructed.
pub(crate) const CONSTRUCTED_0: u8 = 0xa0;
/// `[1]` constructed.
pub(crate) const CONSTRUCTED_1: u8 = 0xa1;
/// `[2]` constructed.
pub(crate) const CONSTRUCTED_2: u8 = 0xa2;
/// `[3]` constructed.
pub(crate) const CONSTRUCTED_3: u8 = 0xa3;
/// `[4]` constructed.
pub(crate) const CONSTRUCTED_4: u8 = 0xa4;

/// The bit of a constructed encoding (X.690 §8.1.2.5).
pub(super) const CONSTRUCTED: u8 = 0x20;
/// The tag number that says that more identifier octets follow (X.690 §8.1.2.4).
const TAG_NUMBER_HIGH: u8 = 0x1f;
/// Identifier octets that are read at most.
const TAG_BYTES_MAX: usize = 5;
/// The length octet of the indefinite form (X.690 §8.1.3.6).
const LENGTH_INDEFINITE: u8 = 0x80;
/// Length octets that are read at most: 64 bits.
const LENGTH_BYTES_MAX: usize = 8;
