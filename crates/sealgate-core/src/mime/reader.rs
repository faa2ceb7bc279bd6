//! Whether another reader sees the same message as we do (REQUIREMENTS N5).
//!
//! In: an entity. Out: yes or no. A signature counts only where what was verified is what a mail program shows, and
//! `mail-parser` stands for those programs. Header sections are given to it as they are. Bodies are not: reading a
//! large body twice would cost more than verifying it. Instead a multipart/signed must be built so that no reader known
//! to us can part it elsewhere: every multipart inside closed, no boundary anywhere but at the start of a line, every
//! header section ended. `tests/mime_reader.rs` holds this against `mail-parser` reading the whole.

use bytes::Bytes;
use mail_parser::{Address as TheirAddress, HeaderName, HeaderValue, Message, MessageParser};

use super::structured::is_wsp;
use super::{
    ContentType, DEPTH_MAX, Entity, Header, MimeError, Multipart, PARTS_MAX, TransferEncoding,
};
use crate::address::Address;

/// Whether `mail-parser` sees the same From, root Content-Type and Content-Transfer-Encoding, and, in a
/// multipart/signed, the same first part.
pub fn agrees_with_reader(entity: &Entity) -> bool {
    let is_signed = match entity.header.content_type() {
        Ok(found) => found.is_some_and(|content_type| content_type.is("multipart", "signed")),
        Err(_) => return false,
    };
    if is_signed { tree_agrees(entity) } else { header_agrees(&entity.header) }
}

/// Walks all entities below a multipart/signed, with an explicit stack.
fn tree_agrees(root: &Entity) -> bool {
    let mut todo: Vec<(Bytes, usize)> = vec![(root.bytes.clone(), 0)];
    let mut entities = 0_usize;
    while let Some((bytes, depth)) = todo.pop() {
        entities = entities.saturating_add(1);
        if entities > PARTS_MAX || depth > DEPTH_MAX {
            return false;
        }
        match children(bytes) {
            Ok(Some(parts)) => {
                todo.extend(parts.into_iter().map(|part| (part, depth.saturating_add(1))));
            }
            Ok(None) | Err(_) => return false,
        }
    }
    true
}

/// The entities directly inside; `None` where programs may read this one differently.
fn children(bytes: Bytes) -> Result<Option<Vec<Bytes>>, MimeError> {
    let entity = Entity::parse(bytes)?;
    let ended = entity.header.bytes().ends_with(b"\r\n\r\n") || entity.header.bytes() == "\r\n";
    if !ended || !header_agrees(&entity.header) {
        return Ok(None);
    }
    let Some(content_type) = entity.header.content_type()? else {
        return Ok(Some(Vec::new()));
    };
    if content_type.kind == "multipart" {
        let split = Multipart::split(&entity.body, &content_type.boundary()?)?;
        let sound = split.closed && !split.ambiguous && !split.parts.is_empty();
        return Ok(sound.then_some(split.parts));
    }
    let is_message = content_type.kind == "message"
        && matches!(content_type.subtype.as_str(), "rfc822" | "global")
        && !is_encoded(&entity.header);
    Ok(Some(if is_message { vec![entity.body] } else { Vec::new() }))
}

/// Whether both read the fields that matter alike.
fn header_agrees(header: &Header) -> bool {
    // White space before the first field ends the section for some.
    let indented = header.bytes().first().is_some_and(|&b| is_wsp(b));
    if indented || !header.fields().all(|field| has_plain_line_ends(field.raw())) {
        return false;
    }
    match MessageParser::new().parse_headers(header.bytes()) {
        Some(theirs) => {
            from_agrees(header, &theirs)
                && type_agrees(header, &theirs)
                && encoding_agrees(header, &theirs)
        }
        // It saw no field at all.
        None => WATCHED_FIELDS.into_iter().all(|name| header.count(name) == 0),
    }
}

fn from_agrees(header: &Header, theirs: &Message<'_>) -> bool {
    let mut fields = values(theirs, HeaderName::From);
    let (field, second) = (fields.next(), fields.next());
    if second.is_some() || header.count("From") != usize::from(field.is_some()) {
        return false;
    }
    let Ok(ours) = header.from_mailboxes() else {
        return false;
    };
    match field {
        Some(HeaderValue::Address(list)) => mailboxes(list).is_some_and(|found| found == ours),
        Some(_) => ours.is_empty(),
        None => true,
    }
}

/// Their mailboxes as ours; `None` if one of them is none for us.
fn mailboxes(list: &TheirAddress<'_>) -> Option<Vec<Address>> {
    list.iter().map(|found| Address::parse(found.address()?).ok()).collect()
}

fn type_agrees(header: &Header, theirs: &Message<'_>) -> bool {
    let mut fields = values(theirs, HeaderName::ContentType);
    let (field, second) = (fields.next(), fields.next());
    if second.is_some() || header.count("Content-Type") != usize::from(field.is_some()) {
        return false;
    }
    match (header.content_type(), field) {
        (Ok(Some(ours)), Some(HeaderValue::ContentType(found))) => same_type(&ours, found),
        (Ok(None), None) => true,
        _ => false,
    }
}

fn same_type(ours: &ContentType, theirs: &mail_parser::ContentType<'_>) -> bool {
    ours.is_regular()
        && theirs.ctype().eq_ignore_ascii_case(&ours.kind)
        && theirs.subtype().is_some_and(|found| found.eq_ignore_ascii_case(&ours.subtype))
        && (ours.kind != "multipart"
            || ours.parameter("boundary").as_deref() == theirs.attribute("boundary"))
}

fn encoding_agrees(header: &Header, theirs: &Message<'_>) -> bool {
    let name = "Content-Transfer-Encoding";
    let mut fields = values(theirs, HeaderName::ContentTransferEncoding);
    let (field, second) = (fields.next(), fields.next());
    if second.is_some() || header.count(name) != usize::from(field.is_some()) {
        return false;
    }
    let is = |wanted: &str| {
        field.and_then(HeaderValue::as_text).is_some_and(|found| found.eq_ignore_ascii_case(wanted))
    };
    match header.transfer_encoding() {
        TransferEncoding::Base64 => is("base64"),
        TransferEncoding::QuotedPrintable => is("quoted-printable"),
        _ => !is("base64") && !is("quoted-printable"),
    }
}

fn is_encoded(header: &Header) -> bool {
    matches!(
        header.transfer_encoding(),
        TransferEncoding::Base64 | TransferEncoding::QuotedPrintable
    )
}

fn values<'a>(
    theirs: &'a Message<'_>,
    name: HeaderName<'static>,
) -> impl Iterator<Item = &'a HeaderValue<'a>> {
    theirs.headers().iter().filter(move |found| found.name == name).map(|found| &found.value)
}

/// No CR or LF but in pairs, and no NUL.
fn has_plain_line_ends(field: &[u8]) -> bool {
    let pairs = memchr::memmem::find_iter(field, b"\r\n").count();
    memchr::memchr(0, field).is_none()
        && memchr::memchr_iter(b'\r', field).count() == pairs
        && memchr::memchr_iter(b'\n', field).count() == pairs
}

/// What must be read alike.
const WATCHED_FIELDS: [&str; 3] = ["Content-Transfer-Encoding", "Content-Type", "From"];
