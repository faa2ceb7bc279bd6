//! Writes the containers of RFC 8551 §3: multipart/signed and application/pkcs7-mime.
//!
//! In: header fields, content and CMS objects. Out: pieces to send one after another, or one buffer; lines of at most 76
//! characters with CRLF. Randomness comes from the caller.

use bytes::Bytes;
use memchr::memmem;

use super::encode;
use crate::hex;

/// A boundary that does not occur in what it parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary(String);

impl Boundary {
    /// Makes one from 16 random bytes. It begins with `=_`, which neither quoted-printable nor base64 can contain
    /// (RFC 2045 §6.7); should the content hold it nevertheless, it gets a number that the content does not hold.
    pub fn new(random: [u8; 16], content: &[Bytes]) -> Self {
        let mut base = String::from("=_");
        hex::write(&mut base, &random);
        let mut text = base.clone();
        let mut number = 0_u64;
        // Content is finite, so some number does not stand in it.
        while occurs(text.as_bytes(), content) {
            number = number.wrapping_add(1);
            text = format!("{base}.{number}.");
        }
        Self(text)
    }

    /// The boundary as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A multipart/signed (RFC 8551 §3.5.3). `fields` are the other header fields, each with its CRLF; where there are any
/// this is the root of a message, and MIME-Version is written. `signed` is one entity, in pieces, and is not
/// touched. `micalg` as RFC 8551 §3.5.3.2 names it.
pub fn multipart_signed(
    fields: &[u8],
    signed: &[Bytes],
    signature_der: &[u8],
    micalg: &str,
    boundary: &Boundary,
) -> Vec<Bytes> {
    let boundary = boundary.as_str();
    let mut head = Vec::with_capacity(fields.len().saturating_add(256));
    head.extend_from_slice(fields);
    push_version(&mut head, fields);
    head.extend_from_slice(
        format!(
            "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n\
             \tmicalg={micalg}; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"
        )
        .as_bytes(),
    );
    let mut tail = Vec::with_capacity(encode::base64_len(signature_der.len()).saturating_add(384));
    tail.extend_from_slice(
        format!(
            "\r\n--{boundary}\r\n\
             Content-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; filename=\"smime.p7s\"\r\n\r\n"
        )
        .as_bytes(),
    );
    encode::base64(signature_der, &mut tail);
    tail.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let mut pieces = Vec::with_capacity(signed.len().saturating_add(2));
    pieces.push(Bytes::from(head));
    pieces.extend(signed.iter().cloned());
    pieces.push(Bytes::from(tail));
    pieces
}

/// An application/pkcs7-mime (RFC 8551 §3.2) around a DER-encoded ContentInfo. `fields` as for [`multipart_signed`];
/// `smime_type` as RFC 8551 §3.2.2 names it. The DER's buffer becomes the text's.
pub fn pkcs7_mime(fields: &[u8], smime_type: &str, der: Vec<u8>) -> Bytes {
    let mut head = Vec::with_capacity(fields.len().saturating_add(256));
    head.extend_from_slice(fields);
    push_version(&mut head, fields);
    head.extend_from_slice(
        format!(
            "Content-Type: application/pkcs7-mime; smime-type={smime_type};\r\n\
             \tname=\"smime.p7m\"\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; filename=\"smime.p7m\"\r\n\r\n"
        )
        .as_bytes(),
    );
    Bytes::from(encode::base64_in_place(&head, der))
}

/// RFC 2045 §4: at the root of a message, not in the entities below it.
fn push_version(out: &mut Vec<u8>, fields: &[u8]) {
    if !fields.is_empty() {
        out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    }
}

/// Whether `text` stands in the content, across its pieces too.
fn occurs(text: &[u8], content: &[Bytes]) -> bool {
    let finder = memmem::Finder::new(text);
    let overlap = text.len().saturating_sub(1);
    let mut seam: Vec<u8> = Vec::new();
    for piece in content {
        seam.extend_from_slice(piece.get(..overlap.min(piece.len())).unwrap_or_default());
        if finder.find(&seam).is_some() || finder.find(piece).is_some() {
            return true;
        }
        if piece.len() > overlap {
            seam.clear();
            seam.extend_from_slice(
                piece.get(piece.len().saturating_sub(overlap)..).unwrap_or_default(),
            );
        }
        seam.drain(..seam.len().saturating_sub(overlap));
    }
    false
}

#[cfg(test)]
mod tests;
