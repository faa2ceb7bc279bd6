//! Makes content ready to be signed: CRLF, 7-bit, nothing a relay would touch (RFC 8551 §3.1, RFC 3156 §3 and §5).
//!
//! In: the Content-* fields and the body of a message. Out: the entity in pieces, unchanged slices where they are safe
//! already. Leaves that are not are encoded anew, as quoted-printable or base64, whichever is shorter for text;
//! multiparts and attached messages are walked with an explicit stack. What is signed or encrypted further down is
//! never altered, and neither is what cannot be read in exactly one way.

use std::borrow::Cow;

use bytes::Bytes;

use super::header::{Field, Header};
use super::layer::is_pkcs7_mime;
use super::{
    ContentType, DEPTH_MAX, Entity, LINE_BYTES_MAX, MimeError, Multipart, PARTS_MAX,
    TransferEncoding, ascii_field, decode, encode,
};

/// An entity ready to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// The entity, in pieces to be taken one after another.
    pub pieces: Vec<Bytes>,
    /// Whether every line survives relays. Not so where something unsafe may not be altered (a signed part with 8-bit
    /// lines, say): inside of encryption that does no harm.
    pub seven_bit: bool,
}

impl Canonical {
    /// The length of the entity in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entity in one buffer.
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// The canonical form of an entity. `content_fields` as [`super::split_content_fields`] gives them: no empty line.
///
/// # Errors
/// [`MimeError::OverLimit`] beyond the limits of REQUIREMENTS K1 and K2.
pub fn canonical_for_signing(content_fields: &[u8], body: &Bytes) -> Result<Canonical, MimeError> {
    let mut section = Vec::with_capacity(content_fields.len().saturating_add(64));
    section.extend_from_slice(content_fields);
    if section.is_empty() {
        section.extend_from_slice(default_type(body));
    }
    section.extend_from_slice(b"\r\n");
    let header = Header::parse(Bytes::from(section))?;
    let bytes = Bytes::new();
    let root = Entity { header, bytes, body: body.clone() };
    let mut walk = Walk::default();
    walk.entity(root, 0, false)?;
    while let Some(next) = walk.todo.pop() {
        match next {
            Todo::Emit(piece) => walk.emit(piece),
            Todo::Entity { bytes, depth, in_digest } => {
                walk.entity(Entity::parse(bytes)?, depth, in_digest)?;
            }
        }
    }
    Ok(Canonical { pieces: walk.pieces, seven_bit: !walk.unsafe_left })
}

/// CRLF for every line end: a decrypted message may have been encrypted with bare LF (or CR). Unchanged, without a copy,
/// where there is nothing to do.
pub fn canonical_line_ends(bytes: Bytes) -> Bytes {
    if has_only_crlf(&bytes) {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len().saturating_add(bytes.len() / 32));
    let mut rest: &[u8] = &bytes;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        let (line, end) = rest.split_at(at);
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        let len = if end.starts_with(b"\r\n") { 2 } else { 1 };
        rest = end.get(len..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Bytes::from(out)
}

/// Whether the bytes pass every relay unchanged: ASCII without NUL, lines of at most 998 characters with CRLF, no white
/// space at their ends, none that begins with "From ".
pub fn is_seven_bit(bytes: &[u8]) -> bool {
    bytes.is_ascii() && memchr::memchr(0, bytes).is_none() && lines_are_safe(bytes)
}

/// The walk through an entity, in the order of its bytes.
#[derive(Default)]
struct Walk {
    pieces: Vec<Bytes>,
    todo: Vec<Todo>,
    entities: usize,
    unsafe_left: bool,
}

/// What is still to be done; the last is the next.
enum Todo {
    Emit(Bytes),
    Entity { bytes: Bytes, depth: usize, in_digest: bool },
}

impl Walk {
    fn emit(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    /// What may not be altered.
    fn emit_as_it_is(&mut self, entity: &Entity) {
        self.unsafe_left |= !is_seven_bit(entity.header.bytes()) || !is_seven_bit(&entity.body);
        self.emit(entity.header.bytes().clone());
        self.emit(entity.body.clone());
    }

    fn entity(&mut self, entity: Entity, depth: usize, in_digest: bool) -> Result<(), MimeError> {
        self.entities = self.entities.saturating_add(1);
        if self.entities > PARTS_MAX {
            return Err(MimeError::OverLimit("the parts of a message"));
        }
        if depth > DEPTH_MAX {
            return Err(MimeError::OverLimit("the depth of a message"));
        }
        match kind_of(&entity, in_digest) {
            Kind::Untouchable => self.emit_as_it_is(&entity),
            Kind::Leaf { is_text } => self.leaf(&entity, is_text),
            Kind::Message => {
                self.header(&entity.header, Some("7bit"));
                self.todo.push(Todo::Entity {
                    bytes: entity.body,
                    depth: depth.saturating_add(1),
                    in_digest: false,
                });
            }
            Kind::Multipart { boundary, is_digest } => {
                self.multipart(&entity, &boundary, is_digest, depth)?;
            }
        }
        Ok(())
    }

    fn multipart(
        &mut self,
        entity: &Entity,
        boundary: &str,
        is_digest: bool,
        depth: usize,
    ) -> Result<(), MimeError> {
        let split = Multipart::split(&entity.body, boundary)?;
        if split.ambiguous || split.parts.is_empty() {
            self.emit_as_it_is(entity);
            return Ok(());
        }
        self.header(&entity.header, Some("7bit"));
        // Preamble and epilogue are no content (RFC 2046 §5.1.1): they go where they would harm.
        let opening = if split.preamble.is_empty() || !is_seven_bit(&split.preamble) {
            format!("--{boundary}\r\n")
        } else {
            self.emit(split.preamble);
            format!("\r\n--{boundary}\r\n")
        };
        self.emit(Bytes::from(opening));
        let epilogue = Some(split.epilogue).filter(|epilogue| is_seven_bit(epilogue));
        let between = Bytes::from(format!("\r\n--{boundary}\r\n"));
        self.todo.push(Todo::Emit(epilogue.unwrap_or_default()));
        self.todo.push(Todo::Emit(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
        for (number, part) in split.parts.into_iter().enumerate().rev() {
            self.todo.push(Todo::Entity {
                bytes: part,
                depth: depth.saturating_add(1),
                in_digest: is_digest,
            });
            if number != 0 {
                self.todo.push(Todo::Emit(between.clone()));
            }
        }
        Ok(())
    }

    fn leaf(&mut self, entity: &Entity, is_text: bool) {
        let encoding = entity.header.transfer_encoding();
        if is_seven_bit(&entity.body) {
            self.header(&entity.header, Some("7bit").filter(|_| encoding.is_identity()));
            self.emit(entity.body.clone());
            return;
        }
        let Some(content) = decode::lenient(&entity.body, encoding) else {
            self.emit_as_it_is(entity);
            return;
        };
        let mut body = Vec::new();
        let name = if quotes_better(&content, is_text, encoding) {
            encode::quoted_printable(&content, &mut body);
            "quoted-printable"
        } else {
            encode::base64(&content, &mut body);
            "base64"
        };
        self.header(&entity.header, Some(name));
        self.emit(Bytes::from(body));
    }

    /// The header section with safe lines, and with `encoding` where it named another.
    fn header(&mut self, header: &Header, encoding: Option<&str>) {
        let named = header.first("Content-Transfer-Encoding");
        let keep = match (encoding, named) {
            (None, _) | (Some("7bit"), None) => true,
            (Some(wanted), Some(field)) => {
                field.value_unfolded().trim().eq_ignore_ascii_case(wanted)
            }
            (Some(_), None) => false,
        };
        if keep && is_seven_bit(header.bytes()) {
            self.emit(header.bytes().clone());
            return;
        }
        let mut section = Vec::with_capacity(header.bytes().len().saturating_add(64));
        for field in header.fields() {
            if !keep && field.is("Content-Transfer-Encoding") {
                continue;
            }
            let mut lines = Vec::with_capacity(field.raw().len());
            push_trimmed_lines(field.raw(), &mut lines);
            match ascii_field::rewritten(&field).filter(|_| !is_seven_bit(&lines)) {
                Some(rewritten) => section.extend_from_slice(&rewritten),
                None => section.extend_from_slice(&lines),
            }
        }
        if let Some(wanted) = encoding.filter(|_| !keep) {
            let field = format!("Content-Transfer-Encoding: {wanted}\r\n");
            section.extend_from_slice(field.as_bytes());
        }
        section.extend_from_slice(b"\r\n");
        self.unsafe_left |= !is_seven_bit(&section);
        self.emit(Bytes::from(section));
    }
}

/// What may be done with an entity.
enum Kind {
    Leaf { is_text: bool },
    Message,
    Multipart { boundary: String, is_digest: bool },
    Untouchable,
}

fn kind_of(entity: &Entity, in_digest: bool) -> Kind {
    let Ok(content_type) = entity.header.content_type() else {
        return Kind::Untouchable;
    };
    let identity = entity.header.transfer_encoding().is_identity();
    let Some(found) = content_type else {
        // RFC 2046 §5.1.5, RFC 2045 §5.2.
        return if in_digest && identity { Kind::Message } else { Kind::Leaf { is_text: true } };
    };
    if is_protected(&found, &entity.header) || entity.header.count("Content-Transfer-Encoding") > 1
    {
        return Kind::Untouchable;
    }
    match found.kind.as_str() {
        "multipart" => match found.boundary() {
            Ok(boundary) if identity && found.is_regular() => Kind::Multipart {
                boundary: boundary.into_owned(),
                is_digest: found.subtype == "digest",
            },
            _ => Kind::Untouchable,
        },
        "message" if found.subtype == "rfc822" && identity => Kind::Message,
        // RFC 2046 §5.2 and RFC 2045 §6.4 forbid to encode the others.
        "message" => Kind::Untouchable,
        kind => Kind::Leaf { is_text: kind == "text" },
    }
}

/// What carries signatures or ciphertext.
fn is_protected(content_type: &ContentType, header: &Header) -> bool {
    let subtype = content_type.subtype.as_str();
    match content_type.kind.as_str() {
        "multipart" => matches!(subtype, "signed" | "encrypted"),
        "application" => {
            subtype.starts_with("pkcs7-")
                || subtype.starts_with("x-pkcs7-")
                || subtype.starts_with("pgp-")
                || is_pkcs7_mime(content_type, header)
        }
        _ => false,
    }
}

/// Whether quoted-printable is right for the content: text of which less than a sixth needs an escape of three bytes
/// (base64 costs a third). Text with NUL or lone CR or LF is no text in the sense of RFC 2045 §6.7.
fn quotes_better(content: &[u8], is_text: bool, encoding: TransferEncoding) -> bool {
    let escapes = content.iter().filter(|&&b| b >= 0x80 || b == b'=').count();
    let was_base64 = encoding == TransferEncoding::Base64;
    is_text
        && !was_base64
        && memchr::memchr(0, content).is_none()
        && has_only_crlf(content)
        && escapes <= SHORT_TEXT_ESCAPES.max(content.len() / 6)
}

/// Copies lines without the white space at their ends; a line of white space only would end the section, so it goes.
fn push_trimmed_lines(field: &[u8], out: &mut Vec<u8>) {
    for line in field.split(|&b| b == b'\n') {
        let line = line.trim_ascii_end();
        if !line.is_empty() {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Whether SMTP carries a body as it is, 8-bit octets apart: CRLF only, no NUL, no line over 998 octets
/// (RFC 5321 §4.5.3.1.6).
pub fn is_transportable(body: &[u8]) -> bool {
    let mut line_start = 0_usize;
    let mut lines_fit = true;
    for at in memchr::memchr_iter(b'\n', body) {
        lines_fit &= at.saturating_sub(line_start) <= LINE_AND_CR_MAX;
        line_start = at.saturating_add(1);
    }
    lines_fit
        && body.len().saturating_sub(line_start) < LINE_AND_CR_MAX
        && memchr::memchr(0, body).is_none()
        && has_only_crlf(body)
}

/// A field of a header section as SMTP carries it: a lone CR, a lone LF and NUL are spaces, and a line over 998 octets is folded;
/// nothing is left of a field where that cannot be done.
pub fn transportable_field<'a>(field: &Field<'a>) -> Cow<'a, [u8]> {
    let raw = field.raw();
    if is_transportable(raw) {
        return Cow::Borrowed(raw);
    }
    let mut whole = raw.to_vec();
    for (at, byte) in whole.iter_mut().enumerate() {
        let next = raw.get(at.saturating_add(1));
        let before = at.checked_sub(1).and_then(|at| raw.get(at));
        let is_lone = match *byte {
            0 => true,
            b'\r' => next != Some(&b'\n'),
            b'\n' => before != Some(&b'\r'),
            _ => false,
        };
        if is_lone {
            *byte = b' ';
        }
    }
    if is_transportable(&whole) {
        return Cow::Owned(whole);
    }
    let header = Header::parse(Bytes::from(whole));
    let folded = header.ok().and_then(|header| ascii_field::rewritten(&header.fields().next()?));
    Cow::Owned(folded.unwrap_or_default())
}

/// 998 octets and the CR.
const LINE_AND_CR_MAX: usize = 999;

fn has_only_crlf(bytes: &[u8]) -> bool {
    let mut line_feeds = 0_usize;
    for at in memchr::memchr_iter(b'\n', bytes) {
        if at.checked_sub(1).and_then(|before| bytes.get(before)) != Some(&b'\r') {
            return false;
        }
        line_feeds = line_feeds.saturating_add(1);
    }
    memchr::memchr_iter(b'\r', bytes).count() == line_feeds
}

fn lines_are_safe(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut line_feeds = 0_usize;
    while let Some(at) = memchr::memchr(b'\n', rest) {
        let (line, tail) = rest.split_at(at);
        match line.strip_suffix(b"\r") {
            Some(line) if line_is_safe(line) => {}
            _ => return false,
        }
        line_feeds = line_feeds.saturating_add(1);
        rest = tail.get(1..).unwrap_or_default();
    }
    line_is_safe(rest) && memchr::memchr_iter(b'\r', bytes).count() == line_feeds
}

fn line_is_safe(line: &[u8]) -> bool {
    line.len() <= LINE_BYTES_MAX
        && !matches!(line.last(), Some(b' ' | b'\t'))
        && !line.starts_with(b"From ")
}

/// The type of content without Content-* fields: RFC 2045 §5.2, or UTF-8 where it is UTF-8.
fn default_type(body: &[u8]) -> &'static [u8] {
    if body.is_ascii() || std::str::from_utf8(body).is_err() {
        b"Content-Type: text/plain; charset=us-ascii\r\n"
    } else {
        b"Content-Type: text/plain; charset=utf-8\r\n"
    }
}

/// Escapes that do not matter for the size, so that short texts stay readable.
const SHORT_TEXT_ESCAPES: usize = 32;

#[cfg(test)]
mod tests;
