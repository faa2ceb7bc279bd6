//! ContentInfo (RFC 5652 §3): which kind of object it is, and what is inside.

use std::borrow::Cow;

use const_oid::ObjectIdentifier;

use super::CmsError;
use super::algorithm as oid;
use super::element::{CONSTRUCTED_0, Element, Header, OID, Reader, SEQUENCE, push_header};
use super::transcode::to_der;

/// The kinds of CMS objects that mail knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentKind {
    /// Encryption that authenticates (RFC 5083).
    AuthEnvelopedData,
    /// Compression (RFC 3274).
    CompressedData,
    /// Encryption that does not authenticate (RFC 5652 §6).
    EnvelopedData,
    /// Anything else.
    Other,
    /// A signature, or certificates only (RFC 5652 §5).
    SignedData,
}

/// Looks at the type of a ContentInfo, BER or DER, and at nothing behind it.
///
/// # Errors
/// [`CmsError::Malformed`] when it does not begin as a ContentInfo.
pub fn content_kind(bytes: &[u8]) -> Result<ContentKind, CmsError> {
    let header = Header::read(bytes).ok_or(CmsError::Malformed)?;
    if header.tag != SEQUENCE {
        return Err(CmsError::Malformed);
    }
    let body = bytes.get(header.bytes..).ok_or(CmsError::Malformed)?;
    Ok(kind_of(Reader::new(body).expect(OID)?.body))
}

/// Type and content of a ContentInfo.
pub(super) struct ContentInfo<'a> {
    pub(super) kind: ContentKind,
    pub(super) content: Element<'a>,
}

impl<'a> ContentInfo<'a> {
    /// Reads what [`to_der`] gave.
    pub(super) fn read(der: &'a [u8]) -> Result<Self, CmsError> {
        let mut members = Reader::only(der, SEQUENCE)?.reader();
        let kind = kind_of(members.expect(OID)?.body);
        let explicit = members.expect(CONSTRUCTED_0)?;
        members.finish()?;
        let content = Reader::only(explicit.body, SEQUENCE)?;
        Ok(Self { kind, content })
    }
}

/// Transcodes after a look at the type, so that other kinds cost nothing.
pub(super) fn der_of(bytes: &[u8]) -> Result<Cow<'_, [u8]>, CmsError> {
    if bytes.len() > BYTES_MAX {
        return Err(CmsError::OverLimit);
    }
    to_der(bytes)
}

/// The octets of a ContentInfo before its content of `length` octets (the content's own header
/// included).
pub(super) fn push_head(out: &mut Vec<u8>, kind: ObjectIdentifier, length: usize) {
    let oid_size = super::element::element_size(kind.as_bytes().len());
    let explicit_size = super::element::element_size(length);
    push_header(out, SEQUENCE, oid_size + explicit_size);
    push_header(out, OID, kind.as_bytes().len());
    out.extend_from_slice(kind.as_bytes());
    push_header(out, CONSTRUCTED_0, length);
}

fn kind_of(oid: &[u8]) -> ContentKind {
    match oid {
        _ if oid == oid::SIGNED_DATA.as_bytes() => ContentKind::SignedData,
        _ if oid == oid::ENVELOPED_DATA.as_bytes() => ContentKind::EnvelopedData,
        _ if oid == oid::AUTH_ENVELOPED_DATA.as_bytes() => ContentKind::AuthEnvelopedData,
        _ if oid == oid::COMPRESSED_DATA.as_bytes() => ContentKind::CompressedData,
        _ => ContentKind::Other,
    }
}

/// Larger objects are not looked at: messages are bounded at 50 MiB by default (REQUIREMENTS K1),
/// and the administrator may raise that.
const BYTES_MAX: usize = 1 << 30;
