//! A header section as received: fields in order, with their exact bytes (RFC 5322 §2.2).
//!
//! In: the bytes up to and with the empty line. Out: fields as slices, so that a section can be written again without
//! some of its fields and with every other byte kept. A line that is no field is kept as a malformed one, never lost.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::address_list;
use super::content_type::{ContentType, first_token};
use super::entity::TransferEncoding;
use super::structured::{is_wsp, remove_folds};
use super::{FIELD_BYTES_MAX, FIELDS_MAX, HEADER_SECTION_BYTES_MAX, MimeError};
use crate::address::Address;

/// A header section.
#[derive(Clone, Debug)]
pub struct Header {
    section: Bytes,
    fields: Vec<Span>,
}

impl Header {
    /// Reads a header section; it ends at the first empty line or with the bytes.
    ///
    /// # Errors
    /// [`MimeError::OverLimit`] beyond the limits of REQUIREMENTS K1.
    pub fn parse(section: Bytes) -> Result<Self, MimeError> {
        let section = section.slice(..section_len(&section));
        if section.len() > HEADER_SECTION_BYTES_MAX {
            return Err(MimeError::OverLimit("the header section"));
        }
        let mut fields = Vec::new();
        let mut start = 0_usize;
        while let Some(rest) = section.get(start..).filter(|r| !r.is_empty() && !is_blank(r)) {
            if fields.len() >= FIELDS_MAX {
                return Err(MimeError::OverLimit("the fields of the header section"));
            }
            let len = field_len(rest);
            if len > FIELD_BYTES_MAX {
                return Err(MimeError::OverLimit("a header field"));
            }
            let end = start.saturating_add(len);
            let (name_len, value_start) = name_of(rest.get(..len).unwrap_or_default());
            fields.push(Span { range: start..end, name_len, value_start });
            start = end;
        }
        let header = Self { section, fields };
        if header.decoding_steps(&["From"]) > DECODING_STEPS_MAX {
            return Err(MimeError::OverLimit("the encoded words of From"));
        }
        Ok(header)
    }

    /// What a decoder of encoded words may have to do with the fields of these names: at each `=?` it looks for the end of a word, in
    /// vain perhaps, to the end of the field.
    pub(super) fn decoding_steps(&self, names: &[&str]) -> usize {
        let fields = self.fields().filter(|field| names.iter().any(|name| field.is(name)));
        fields.fold(0_usize, |steps, field| {
            let words = memchr::memmem::find_iter(field.raw(), b"=?").count();
            steps.saturating_add(words.saturating_mul(field.raw().len()))
        })
    }

    /// The section as received, with its empty line.
    pub fn bytes(&self) -> &Bytes {
        &self.section
    }

    /// The fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|span| Field {
            raw: self.section.get(span.range.clone()).unwrap_or_default(),
            name_len: span.name_len,
            value_start: span.value_start,
        })
    }

    /// The fields of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Field<'a>> {
        self.fields().filter(move |field| field.is(name))
    }

    /// How many fields have that name.
    pub fn count(&self, name: &str) -> usize {
        self.all(name).count()
    }

    /// The first field of that name.
    pub fn first<'a>(&'a self, name: &'a str) -> Option<Field<'a>> {
        self.all(name).next()
    }

    /// As [`Header::without`], but without the empty line that ends the section.
    pub fn fields_without(&self, erase: impl Fn(&Field<'_>) -> bool) -> Vec<u8> {
        let mut section = self.without(erase);
        if section == b"\r\n" || section.ends_with(b"\r\n\r\n") {
            section.truncate(section.len().saturating_sub(2));
        }
        section
    }

    /// The section without the fields that `erase` picks; every other byte as it was, the empty line too.
    pub fn without(&self, erase: impl Fn(&Field<'_>) -> bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.section.len());
        for field in self.fields().filter(|field| !erase(field)) {
            out.extend_from_slice(field.raw());
        }
        let end = self.fields.last().map_or(0, |span| span.range.end);
        out.extend_from_slice(self.section.get(end..).unwrap_or_default());
        out
    }

    /// The media type, `None` where there is none.
    ///
    /// # Errors
    /// [`MimeError::Ambiguous`] for two Content-Type fields, [`MimeError::Malformed`] or [`MimeError::OverLimit`] for
    /// one that cannot be read: nobody may act on such an entity.
    pub fn content_type(&self) -> Result<Option<ContentType>, MimeError> {
        let mut found = self.all("Content-Type");
        let first = found.next();
        if found.next().is_some() {
            return Err(MimeError::Ambiguous("Content-Type given twice"));
        }
        first.map(|field| ContentType::parse(field.value())).transpose()
    }

    /// The Content-Transfer-Encoding (RFC 2045 §6.1), `SevenBit` where there is none.
    pub fn transfer_encoding(&self) -> TransferEncoding {
        let mut found = self.all("Content-Transfer-Encoding");
        match (found.next(), found.next()) {
            (None, _) => TransferEncoding::SevenBit,
            (Some(field), None) => TransferEncoding::parse(field.value()),
            (Some(_), Some(_)) => TransferEncoding::Unknown,
        }
    }

    /// The first field name that stands twice although only one may (REQUIREMENTS C13), if any.
    pub fn duplicates(&self) -> Option<&'static str> {
        SINGLE_FIELDS.into_iter().find(|name| self.count(name) > 1)
    }

    /// The mailboxes of From, those in groups too (RFC 6854). Empty where there is no From.
    ///
    /// # Errors
    /// [`MimeError`] for two From fields and for anything that is not exactly an address list of RFC 5322 §3.4.
    pub fn from_mailboxes(&self) -> Result<Vec<Address>, MimeError> {
        self.only_from()?.map_or_else(|| Ok(Vec::new()), |field| address_list::parse(field.value()))
    }

    /// The same, and the mailboxes that stand in From where a display name does, for which it has no mailboxes: good for telling
    /// whom a program may show, not for deciding whom to trust.
    ///
    /// # Errors
    /// As [`Self::from_mailboxes`] for all else.
    pub fn named_in_from(&self) -> Result<Vec<Address>, MimeError> {
        self.only_from()?.map_or_else(|| Ok(Vec::new()), |field| address_list::named(field.value()))
    }

    fn only_from(&self) -> Result<Option<Field<'_>>, MimeError> {
        let mut found = self.all("From");
        let first = found.next();
        match found.next() {
            Some(_) => Err(MimeError::Ambiguous("From given twice")),
            None => Ok(first),
        }
    }

    /// The mailboxes of To and Cc, as far as they can be read; at most [`super::ADDRESSES_MAX`]. Good for telling who
    /// is named in the message (REQUIREMENTS B10), not for deciding whom to trust.
    pub fn addressees(&self) -> Vec<Address> {
        let mut addresses = Vec::new();
        for field in self.fields().filter(|field| field.is("To") || field.is("Cc")) {
            address_list::collect(field.value(), &mut addresses);
        }
        addresses
    }

    /// Whether every field has a name and only printable text (UTF-8 of RFC 6532 is text) and proper folds (D14).
    pub fn is_printable(&self) -> bool {
        std::str::from_utf8(&self.section).is_ok()
            && self.fields().all(|field| {
                !field.is_malformed()
                    && remove_folds(field.value())
                        .iter()
                        .all(|&b| b == b'\t' || b >= b' ' && b != 0x7f)
            })
    }
}

/// One field of a [`Header`].
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    raw: &'a [u8],
    name_len: usize,
    value_start: usize,
}

impl<'a> Field<'a> {
    /// The name without white space around it; empty for a malformed field.
    pub fn name(&self) -> &'a str {
        self.raw.get(..self.name_len).and_then(|n| std::str::from_utf8(n).ok()).unwrap_or_default()
    }

    /// Whether the field has that name, without regard to case.
    pub fn is(&self, name: &str) -> bool {
        self.name_len != 0 && self.name().eq_ignore_ascii_case(name)
    }

    /// Whether the name begins with these letters, in whatever case.
    pub fn name_starts_with(&self, prefix: &str) -> bool {
        self.name().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    }

    /// Whether it describes the content: such names begin with "Content-" (RFC 2045 §9).
    pub fn is_content(&self) -> bool {
        self.name_starts_with("Content-")
    }

    /// Whether the line has no colon or its name holds what no name may hold (RFC 5322 §2.2).
    pub fn is_malformed(&self) -> bool {
        self.name_len == 0
    }

    /// Whether white space stands between name and colon: obsolete (RFC 5322 §4.5), and for some readers no field.
    pub fn has_space_before_colon(&self) -> bool {
        self.raw.get(self.name_len).is_some_and(|&b| is_wsp(b))
    }

    /// The field as received: name, value, folds and the CRLF at its end.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The value as received, folds included, without the CRLF at its end.
    pub fn value(&self) -> &'a [u8] {
        let value = self.raw.get(self.value_start..).unwrap_or_default();
        value.strip_suffix(b"\r\n").unwrap_or(value)
    }

    /// The one token (RFC 2045 §5.1) that the value consists of, in lower case; comments do not count. `None` where it is
    /// anything else.
    pub fn token(&self) -> Option<String> {
        first_token(self.value())
    }

    /// The value unfolded and trimmed; bytes that are no UTF-8 are replaced.
    pub fn value_unfolded(&self) -> Cow<'a, str> {
        match remove_folds(self.value()) {
            Cow::Borrowed(value) => String::from_utf8_lossy(value.trim_ascii()),
            Cow::Owned(value) => {
                Cow::Owned(String::from_utf8_lossy(value.trim_ascii()).into_owned())
            }
        }
    }
}

/// Where a field lies in the section, and what in it is name and value.
#[derive(Clone, Debug)]
struct Span {
    range: Range<usize>,
    name_len: usize,
    value_start: usize,
}

/// Up to and with the first empty line.
pub(super) fn section_len(bytes: &[u8]) -> usize {
    if is_blank(bytes) {
        return 2;
    }
    memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at.saturating_add(4))
}

fn is_blank(rest: &[u8]) -> bool {
    rest.starts_with(b"\r\n")
}

/// A field ends at the first CRLF that no white space follows.
fn field_len(rest: &[u8]) -> usize {
    memchr::memmem::find_iter(rest, b"\r\n")
        .map(|at| at.saturating_add(2))
        .find(|&end| !rest.get(end).is_some_and(|&b| is_wsp(b)))
        .unwrap_or(rest.len())
}

/// The length of the name and the start of the value; (0, 0) where there is no valid name. White space
/// before the colon is obsolete syntax (RFC 5322 §4.5) that others accept, so it is accepted here.
fn name_of(field: &[u8]) -> (usize, usize) {
    let Some(colon) = memchr::memchr(b':', field) else {
        return (0, 0);
    };
    let before = field.get(..colon).unwrap_or_default();
    let name_len = before.iter().rposition(|&b| !is_wsp(b)).map_or(0, |at| at.saturating_add(1));
    let name = field.get(..name_len).unwrap_or_default();
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return (0, 0);
    }
    (name_len, colon.saturating_add(1))
}

/// RFC 5322 §3.6 and RFC 2045 §3: what may stand once, and what readers that differ would each take another of.
const SINGLE_FIELDS: [&str; 5] =
    ["From", "Subject", "Content-Type", "MIME-Version", "Content-Transfer-Encoding"];

/// Of one section, which a library may read a second time: eighty mailboxes with an encoded word each take as much, and some milliseconds.
pub(super) const DECODING_STEPS_MAX: usize = 512 * 1024;

#[cfg(test)]
mod tests;
