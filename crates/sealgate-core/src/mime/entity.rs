//! An entity: a header section and a body (RFC 2045 §2.4), and what its fields say about the body.

use bytes::Bytes;

use super::MimeError;
use super::content_type::first_token;
use super::header::{Header, section_len};

/// An entity as received: all three fields share one buffer.
#[derive(Clone, Debug)]
pub struct Entity {
    /// The header section.
    pub header: Header,
    /// The whole entity.
    pub bytes: Bytes,
    /// What follows the empty line.
    pub body: Bytes,
}

impl Entity {
    /// Splits at the first empty line. Without one, all is header section.
    ///
    /// # Errors
    /// [`MimeError::OverLimit`] beyond the limits of REQUIREMENTS K1.
    pub fn parse(bytes: Bytes) -> Result<Self, MimeError> {
        let body_offset = section_len(&bytes);
        let header = Header::parse(bytes.slice(..body_offset))?;
        let body = bytes.slice(body_offset..);
        Ok(Self { header, bytes, body })
    }
}

/// Content-Transfer-Encoding (RFC 2045 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferEncoding {
    /// `base64`.
    Base64,
    /// `binary`.
    Binary,
    /// `8bit`.
    EightBit,
    /// `quoted-printable`.
    QuotedPrintable,
    /// `7bit`, or no such field.
    SevenBit,
    /// Anything else, or two fields.
    Unknown,
}

impl TransferEncoding {
    pub(super) fn parse(value: &[u8]) -> Self {
        match first_token(value).as_deref() {
            Some("7bit") => Self::SevenBit,
            Some("8bit") => Self::EightBit,
            Some("base64") => Self::Base64,
            Some("binary") => Self::Binary,
            Some("quoted-printable") => Self::QuotedPrintable,
            _ => Self::Unknown,
        }
    }

    /// Whether the body is the content itself.
    pub fn is_identity(self) -> bool {
        matches!(self, Self::Binary | Self::EightBit | Self::SevenBit)
    }
}

/// Parts the fields of a message: the Content-* fields, which go with the content into a protected payload, and the
/// rest, which stays outside. MIME-Version is in neither: whoever writes a message root writes it anew. No empty line in
/// either.
pub fn split_content_fields(header: &Header) -> (Vec<u8>, Vec<u8>) {
    let (mut content, mut rest) = (Vec::new(), Vec::with_capacity(header.bytes().len()));
    for field in header.fields().filter(|field| !field.is("MIME-Version")) {
        let to = if field.is_content() { &mut content } else { &mut rest };
        to.extend_from_slice(field.raw());
        if !field.raw().ends_with(b"\r\n") {
            to.extend_from_slice(b"\r\n");
        }
    }
    (content, rest)
}
