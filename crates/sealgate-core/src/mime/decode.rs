//! Undoes transfer encodings (RFC 2045 §6.7, §6.8).
//!
//! In: a body. Out: its content, the same slice where there was no encoding. [`decode_body`] takes white space anywhere
//! in base64 and nothing else that is not base64, because what it decodes is fed to cryptography; [`lenient`] does
//! what RFC 2045 asks of mail readers, because what it decodes is encoded again.

use bytes::Bytes;

use super::structured::is_wsp;
use super::{Entity, MimeError, TransferEncoding};
use crate::hex;

/// The content of an entity.
///
/// # Errors
/// [`MimeError::Malformed`] for base64 that is none and for an unknown encoding.
pub fn decode_body(entity: &Entity) -> Result<Bytes, MimeError> {
    match entity.header.transfer_encoding() {
        TransferEncoding::Base64 => base64(&entity.body).map(Bytes::from),
        TransferEncoding::QuotedPrintable => Ok(quoted_printable(&entity.body).into()),
        TransferEncoding::Unknown => Err(MimeError::Malformed("a Content-Transfer-Encoding")),
        TransferEncoding::Binary | TransferEncoding::EightBit | TransferEncoding::SevenBit => {
            Ok(entity.body.clone())
        }
    }
}

/// The content of a leaf as a mail reader takes it: characters that are no base64 are skipped (RFC 2045 §6.8).
pub(super) fn lenient(body: &[u8], encoding: TransferEncoding) -> Option<Vec<u8>> {
    match encoding {
        TransferEncoding::Base64 => base64(body).ok().or_else(|| {
            let alphabet: Vec<u8> = body
                .iter()
                .copied()
                .take_while(|&b| b != b'=')
                .filter(|&b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
                .collect();
            base64_simd::forgiving_decode_to_vec(&alphabet).ok()
        }),
        TransferEncoding::QuotedPrintable => Some(quoted_printable(body)),
        TransferEncoding::Unknown => None,
        TransferEncoding::Binary | TransferEncoding::EightBit | TransferEncoding::SevenBit => {
            Some(body.to_vec())
        }
    }
}

/// Base64 with padding, in lines of any length.
fn base64(body: &[u8]) -> Result<Vec<u8>, MimeError> {
    let mut text = Vec::with_capacity(body.len());
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        text.extend_from_slice(line.trim_ascii());
        rest = tail.get(1..).unwrap_or_default();
    }
    let len = match base64_simd::STANDARD.decode_inplace(&mut text) {
        Ok(decoded) => decoded.len(),
        // White space inside a line is rare enough for a second pass.
        Err(_) => {
            text.clear();
            text.extend(body.iter().copied().filter(|b| !b.is_ascii_whitespace()));
            base64_simd::STANDARD.decode_inplace(&mut text).map_err(|_| NO_BASE64)?.len()
        }
    };
    text.truncate(len);
    Ok(text)
}

/// Quoted-printable. What is no valid escape stays as it is; white space at a line's end goes (RFC 2045 §6.7 rule 3).
fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while !rest.is_empty() {
        let (line, ends, tail) = match memchr::memchr(b'\n', rest) {
            Some(at) => {
                let (line, tail) = rest.split_at(at);
                (line.strip_suffix(b"\r").unwrap_or(line), true, tail.get(1..).unwrap_or_default())
            }
            None => (rest, false, &[][..]),
        };
        rest = tail;
        let kept = line.iter().rposition(|&b| !is_wsp(b)).map_or(0, |at| at.saturating_add(1));
        let line = line.get(..kept).unwrap_or_default();
        match line.strip_suffix(b"=") {
            Some(soft) => unescape(soft, &mut out),
            None => {
                unescape(line, &mut out);
                if ends {
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }
    out
}

fn unescape(line: &[u8], out: &mut Vec<u8>) {
    let mut rest = line;
    while let Some(at) = memchr::memchr(b'=', rest) {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        let octet = match escape {
            [_, high, low, ..] => hex::octet(*high, *low),
            _ => None,
        };
        let taken = match octet {
            Some(octet) => {
                out.push(octet);
                3
            }
            None => {
                out.push(b'=');
                1
            }
        };
        rest = escape.get(taken..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

const NO_BASE64: MimeError = MimeError::Malformed("a base64 body");

#[cfg(test)]
mod tests;
