//! What is signed of a message (RFC 6376 §3.4): header fields relaxed, the body simple.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use bytes::Bytes;

use crate::mime::Header;

/// A message in segments, as header section and body.
#[derive(Debug)]
pub(super) struct Content<'a> {
    /// `None` where it cannot be read.
    pub(super) header: Option<Header>,
    body: Vec<&'a [u8]>,
}

impl<'a> Content<'a> {
    pub(super) fn of(message: &'a [Bytes]) -> Self {
        let mut section: Vec<u8> = Vec::new();
        let mut body = Vec::new();
        let mut segments = message.iter();
        for segment in segments.by_ref() {
            let end = if section.ends_with(b"\r\n") && segment.starts_with(b"\r\n") {
                Some(2)
            } else {
                memchr::memmem::find(segment, b"\r\n\r\n").map(|at| at.saturating_add(4))
            };
            let (head, rest) =
                segment.split_at_checked(end.unwrap_or(segment.len())).unwrap_or_default();
            section.extend_from_slice(head);
            if end.is_some() {
                body.push(rest);
                break;
            }
        }
        body.extend(segments.map(Bytes::as_ref));
        Self { header: Header::parse(Bytes::from(section)).ok(), body }
    }

    /// The list for `h=`, and the fields in that order, relaxed: each as often as it stands, from the bottom up, and once more, which
    /// says that there is no other (§5.4.2), unless the next host may add one.
    pub(super) fn signed_fields(&self, names: &[&str]) -> (String, Vec<u8>) {
        let (mut list, mut data, mut column) = (String::new(), Vec::new(), 0_usize);
        for name in names {
            let mut fields: Vec<_> =
                self.header.iter().flat_map(|header| header.all(name)).collect();
            fields.reverse();
            for field in &fields {
                relaxed(field.name().as_bytes(), field.value(), &mut data);
            }
            let once_more = usize::from(*name != ADDED_BY_OTHERS);
            for _ in 0..fields.len().saturating_add(once_more) {
                if !list.is_empty() {
                    list.push(':');
                }
                if column.saturating_add(name.len()) > LIST_COLUMNS {
                    list.push_str("\r\n\t ");
                    column = 0;
                }
                list.push_str(name);
                column = column.saturating_add(name.len()).saturating_add(1);
            }
        }
        (list, data)
    }

    /// SHA-256 of the body without the empty lines at its end (§3.4.3).
    pub(super) fn body_digest(&self) -> Digest {
        let mut left = self.body.iter().map(|piece| piece.len()).sum::<usize>();
        let mut wanted = b'\n';
        let mut pair_open = false;
        for &octet in self.body.iter().rev().flat_map(|piece| piece.iter().rev()) {
            if octet != wanted {
                break;
            }
            if pair_open {
                left = left.saturating_sub(2);
            }
            pair_open = !pair_open;
            wanted = if pair_open { b'\r' } else { b'\n' };
        }
        let mut context = Context::new(&SHA256);
        for piece in &self.body {
            let taken = piece.get(..left.min(piece.len())).unwrap_or_default();
            context.update(taken);
            left = left.saturating_sub(taken.len());
        }
        context.update(b"\r\n");
        context.finish()
    }
}

/// A field relaxed, with its CRLF (§3.4.2).
pub(super) fn relaxed(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let words = value.split(|octet| matches!(octet, b' ' | b'\t' | b'\r' | b'\n'));
    for (index, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
}

/// A field of ours relaxed, without CRLF: the one that will hold the signature.
pub(super) fn relaxed_unended(field: &str, out: &mut Vec<u8>) {
    let (name, value) = field.split_once(':').unwrap_or((field, ""));
    relaxed(name.as_bytes(), value.as_bytes(), out);
    out.truncate(out.len().saturating_sub(2));
}

/// Each host that hands a message on may sign it anew.
pub(super) const ADDED_BY_OTHERS: &str = "DKIM-Signature";
/// Width of the list of signed fields.
const LIST_COLUMNS: usize = 70;
