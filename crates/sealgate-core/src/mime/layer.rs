//! What the root of a message says about its protection: RFC 1847, RFC 3156, RFC 8551 §3.
//!
//! In: the root entity. Out: its outermost cryptographic container, if any. Parts further down are never looked at
//! (REQUIREMENTS D16, D17). Parsing the CMS or OpenPGP object is not done here.

use bytes::Bytes;

use super::header::Header;
use super::{ContentType, Entity, MimeError, Multipart, decode_body};

/// The cryptographic container at the root of an entity.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Cryptographic {
    /// It claims to be a container but can be read in several ways, is broken or too large: it gets no status (K2).
    Ambiguous(MimeError),
    /// multipart/signed with a CMS signature.
    ClearSigned(SignedParts),
    /// No container.
    None,
    /// multipart/encrypted, or multipart/signed with an OpenPGP signature.
    PgpMime,
    /// application/(x-)pkcs7-mime; what is in it, the CMS object says (F17).
    Pkcs7Mime,
}

/// The two parts of a multipart/signed (RFC 1847 §2.1).
#[derive(Clone, Debug)]
pub struct SignedParts {
    /// The exact bytes that were signed: part one without the CRLF before the boundary.
    pub signed: Bytes,
    /// Part two.
    pub signature: Entity,
    /// Whether the form leaves nothing unsigned to an attacker (D14): printable header fields, nothing before the first
    /// delimiter but white space or one of the fixed notices of well-known programs, nothing but white space behind.
    pub strict: bool,
}

/// What protection an outgoing message has by its form (REQUIREMENTS B8, B9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Encrypted to its recipients already.
    Encrypted,
    /// None that counts.
    None,
    /// It has the form of a signed message; whether a signature is there, and whose, is not judged here.
    Signed,
}

/// The container at the root.
pub fn cryptographic_layer(entity: &Entity) -> Cryptographic {
    let content_type = match entity.header.content_type() {
        Ok(Some(content_type)) => content_type,
        Ok(None) => return Cryptographic::None,
        Err(error) => return Cryptographic::Ambiguous(error),
    };
    if is_pkcs7_mime(&content_type, &entity.header) {
        if content_type.subtype == "octet-stream" && !may_be_cms(entity) {
            return Cryptographic::None;
        }
        if content_type.is_regular() {
            return Cryptographic::Pkcs7Mime;
        }
        return Cryptographic::Ambiguous(IRREGULAR);
    }
    if content_type.is("multipart", "encrypted") {
        return Cryptographic::PgpMime;
    }
    if content_type.is("multipart", "signed") {
        return signed_layer(entity, &content_type).unwrap_or_else(Cryptographic::Ambiguous);
    }
    Cryptographic::None
}

/// Whether a message from inside is protected already. For encryption the label alone does not count, or a label would be a
/// way around it where it is mandatory: the content must look like what it says.
pub fn protection(entity: &Entity) -> Protection {
    match cryptographic_layer(entity) {
        Cryptographic::ClearSigned(_) => Protection::Signed,
        Cryptographic::Pkcs7Mime => pkcs7_protection(entity),
        Cryptographic::PgpMime => pgp_mime_protection(entity),
        Cryptographic::None => inline_protection(entity),
        Cryptographic::Ambiguous(_) => Protection::None,
    }
}

/// application/(x-)pkcs7-mime, or an untyped attachment with its file name (RFC 8551 §3.9).
pub(super) fn is_pkcs7_mime(content_type: &ContentType, header: &Header) -> bool {
    if content_type.kind != "application" {
        return false;
    }
    match content_type.subtype.as_str() {
        "pkcs7-mime" | "x-pkcs7-mime" => true,
        "octet-stream" => is_named(content_type, header, ".p7m"),
        _ => false,
    }
}

/// Whether the content of what only its file name calls S/MIME may be CMS: such files (CAdES) also travel as PEM or text. What cannot
/// be decoded may be.
fn may_be_cms(entity: &Entity) -> bool {
    decode_body(entity).map_or(true, |content| content_info_type(&content).is_some())
}

/// application/(x-)pkcs7-signature, or an untyped attachment with its file name (RFC 8551 §3.9).
fn is_pkcs7_signature(content_type: &ContentType, header: &Header) -> bool {
    content_type.is("application", "pkcs7-signature")
        || content_type.is("application", "x-pkcs7-signature")
        || content_type.is("application", "octet-stream") && is_named(content_type, header, ".p7s")
}

/// Whether one of the names that an attachment has ends so.
fn is_named(content_type: &ContentType, header: &Header, extension: &str) -> bool {
    let disposition = header.first("Content-Disposition");
    let disposition =
        disposition.and_then(|field| ContentType::parse_disposition(field.value()).ok());
    let file = disposition.as_ref().and_then(|found| found.parameter("filename"));
    let names = [content_type.parameter("name"), file];
    names.into_iter().flatten().any(|name| name.to_ascii_lowercase().ends_with(extension))
}

fn signed_layer(root: &Entity, content_type: &ContentType) -> Result<Cryptographic, MimeError> {
    if !content_type.is_regular() {
        return Err(IRREGULAR);
    }
    let boundary = content_type.boundary()?;
    let split = Multipart::split(&root.body, &boundary)?;
    // An encoded multipart is forbidden (RFC 2045 §6.4), and decoded by some.
    if split.ambiguous || !root.header.transfer_encoding().is_identity() {
        return Err(MimeError::Ambiguous("a multipart/signed"));
    }
    let [signed, signature] = split.parts.as_slice() else {
        return Err(NOT_TWO_PARTS);
    };
    if !split.closed {
        return Err(NOT_TWO_PARTS);
    }
    let signature = Entity::parse(signature.clone())?;
    let protocol = content_type.parameter("protocol").unwrap_or_default().to_ascii_lowercase();
    let signature_type = signature.header.content_type()?;
    if signature_type.is_some_and(|found| is_pkcs7_signature(&found, &signature.header)) {
        if protocol == PGP_SIGNATURE {
            return Err(MimeError::Ambiguous("the protocol of a multipart/signed"));
        }
        let first = Header::parse(signed.clone())?;
        let strict = is_harmless_preamble(&split.preamble)
            && split.epilogue.trim_ascii().is_empty()
            && [&root.header, &first, &signature.header].iter().all(|h| h.is_printable());
        let signed = signed.clone();
        return Ok(Cryptographic::ClearSigned(SignedParts { signed, signature, strict }));
    }
    if protocol == PGP_SIGNATURE { Ok(Cryptographic::PgpMime) } else { Ok(Cryptographic::None) }
}

/// A preamble in which an attacker who splices blocks of a CBC message (EFAIL) has no byte of his own.
fn is_harmless_preamble(preamble: &[u8]) -> bool {
    let text = preamble.trim_ascii();
    text.is_empty() || NOTICES.contains(&text)
}

fn pkcs7_protection(entity: &Entity) -> Protection {
    let certs_only = entity.header.content_type().ok().flatten().is_some_and(|content_type| {
        content_type.parameter("smime-type").is_some_and(|t| t.eq_ignore_ascii_case("certs-only"))
    });
    let Ok(content) = decode_body(entity) else {
        return Protection::None;
    };
    match content_info_type(&content) {
        Some(oid) if oid == ENVELOPED_DATA || oid == AUTH_ENVELOPED_DATA => Protection::Encrypted,
        Some(oid) if oid == SIGNED_DATA && !certs_only => Protection::Signed,
        _ => Protection::None,
    }
}

/// The contentType of a ContentInfo (RFC 5652 §3), its DER octets without tag and length.
fn content_info_type(content: &[u8]) -> Option<&[u8]> {
    let rest = content.strip_prefix(b"\x30")?;
    let (&length, rest) = rest.split_first()?;
    // X.690 §8.1.3: bit 8 of the first length octet says that the other bits count the octets that follow.
    let skipped = if length & 0x80 == 0 { 0 } else { usize::from(length & 0x7f) };
    let rest = rest.get(skipped..)?.strip_prefix(b"\x06")?;
    let (&length, rest) = rest.split_first()?;
    rest.get(..usize::from(length))
}

/// REQUIREMENTS H12: part one is there to say `Version: 1` and nothing else, so that no text passes in it.
fn pgp_mime_protection(entity: &Entity) -> Protection {
    let Ok(Some(content_type)) = entity.header.content_type() else {
        return Protection::None;
    };
    if content_type.is("multipart", "signed") {
        return Protection::Signed;
    }
    let Ok(split) = content_type.boundary().and_then(|b| Multipart::split(&entity.body, &b)) else {
        return Protection::None;
    };
    let [control, encrypted] = split.parts.as_slice() else {
        return Protection::None;
    };
    let has_nothing_beside = split.closed
        && !split.ambiguous
        && is_harmless_preamble(&split.preamble)
        && split.epilogue.trim_ascii().is_empty();
    let body = Entity::parse(encrypted.clone()).and_then(|part| decode_body(&part));
    if has_nothing_beside && is_pgp_control(control) && body.is_ok_and(|b| is_encrypted_armor(&b)) {
        return Protection::Encrypted;
    }
    Protection::None
}

/// Part one of RFC 3156 §4.
fn is_pgp_control(part: &Bytes) -> bool {
    let Ok(part) = Entity::parse(part.clone()) else { return false };
    let is_control = matches!(
        part.header.content_type(),
        Ok(Some(content_type)) if content_type.is("application", "pgp-encrypted")
    );
    let says_version = |body: Bytes| body.trim_ascii().eq_ignore_ascii_case(b"Version: 1");
    is_control && decode_body(&part).is_ok_and(says_version)
}

/// OpenPGP armor that is all there is of a text (RFC 9580 §6.2, §7).
fn inline_protection(entity: &Entity) -> Protection {
    let is_text = match entity.header.content_type() {
        Ok(found) => found.is_none_or(|content_type| content_type.is("text", "plain")),
        Err(_) => false,
    };
    let Some(body) = is_text.then(|| decode_body(entity).ok()).flatten() else {
        return Protection::None;
    };
    if is_encrypted_armor(&body) {
        return Protection::Encrypted;
    }
    if body.trim_ascii_start().starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
        return Protection::Signed;
    }
    Protection::None
}

/// Whether the text is one armored OpenPGP message and nothing around it, and the message is encrypted: what is signed
/// only, or compressed only, has the same armor.
fn is_encrypted_armor(text: &[u8]) -> bool {
    let inner = text
        .trim_ascii()
        .strip_prefix(b"-----BEGIN PGP MESSAGE-----")
        .and_then(|rest| rest.strip_suffix(b"-----END PGP MESSAGE-----"));
    let Some(inner) = inner else {
        return false;
    };
    let mut lines = inner.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    // What is behind BEGIN on its line, then armor headers up to the empty line.
    if lines.next() != Some(b"") {
        return false;
    }
    if !lines.by_ref().take(ARMOR_HEADERS_MAX).any(<[u8]>::is_empty) {
        return false;
    }
    let mut lines = lines.skip_while(|line| line.is_empty()).peekable();
    let begins_with_session_key = lines.peek().is_some_and(|line| {
        let first = line.get(..4).and_then(|start| base64_simd::STANDARD.decode_to_vec(start).ok());
        first.is_some_and(|octets| octets.first().is_some_and(|&octet| is_session_key(octet)))
    });
    begins_with_session_key
        && lines.all(|line| {
            line.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
        })
}

/// Whether a packet that begins with this octet holds an encrypted session key (RFC 9580 §4.2, §5.1, §5.3): with one
/// of these every encrypted message begins (§10.3).
fn is_session_key(octet: u8) -> bool {
    let packet_type = match octet >> 6 {
        0b11 => octet & 0x3f,
        0b10 => (octet >> 2) & 0x0f,
        _ => return false,
    };
    matches!(packet_type, PUBLIC_KEY_ENCRYPTED | SYMMETRIC_KEY_ENCRYPTED)
}

const ARMOR_HEADERS_MAX: usize = 16;
/// id-ct-authEnvelopedData, 1.2.840.113549.1.9.16.1.23 (RFC 5083 §2.1).
const AUTH_ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 1, 23];
/// id-envelopedData, 1.2.840.113549.1.7.3 (RFC 5652 §6.1).
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];
/// id-signedData, 1.2.840.113549.1.7.2 (RFC 5652 §5.1).
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const IRREGULAR: MimeError = MimeError::Ambiguous("the parameters of a Content-Type");
const NOT_TWO_PARTS: MimeError = MimeError::Malformed("a multipart/signed: it has not two parts");
/// What OpenSSL, Thunderbird, Outlook, Enigmail and GPGMail write before the first delimiter, word for word.
const NOTICES: [&[u8]; 8] = [
    b"This is an S/MIME signed message",
    b"This is a cryptographically signed message in MIME format.",
    b"This is a multi-part message in MIME format.",
    b"This is a multipart message in MIME format.",
    b"This is an OpenPGP/MIME signed message (RFC 4880 and 3156)",
    b"This is an OpenPGP/MIME encrypted message (RFC 4880 and 3156)",
    b"This is an OpenPGP/MIME signed message (RFC 2440 and 3156)",
    b"This is an OpenPGP/MIME encrypted message (RFC 2440 and 3156)",
];
/// The packet types of RFC 9580 §5.
const PUBLIC_KEY_ENCRYPTED: u8 = 1;
const SYMMETRIC_KEY_ENCRYPTED: u8 = 3;
const PGP_SIGNATURE: &str = "application/pgp-signature";

#[cfg(test)]
mod tests;
