//! Whether another reader sees the same message as we do (REQUIREMENTS N5).
//!
//! In: an entity. Out: yes or no. A signature counts only where what was verified is what a mail program shows, and
//! `mail-parser` stands for those programs. Header sections are given to it as they are. Bodies are not: reading a
//! large body twice would cost more than verifying it. Instead a multipart/signed must be built so that no reader known
//! to us can part it elsewhere: every multipart inside closed, no boundary anywhere but at the start of a line, every
//! header section ended. `tests/mime_reader.rs` holds this against `mail-parser` reading the whole.

use std::sync::LazyLock;

use bytes::Bytes;
use mail_parser::{Address as TheirAddress, HeaderName, HeaderValue, Message, MessageParser};

use super::header::DECODING_STEPS_MAX;
use super::structured::is_wsp;
use super::{
    ContentType, DEPTH_MAX, Entity, Field, Header, MimeError, Multipart, PARTS_MAX,
    TransferEncoding,
};
use crate::address::Address;

/// Whether `mail-parser` sees the same From, root Content-Type and Content-Transfer-Encoding, and, in a
/// multipart/signed, the same first part.
pub fn agrees_with_reader(entity: &Entity) -> bool {
    let is_signed = match entity.header.content_type() {
        Ok(found) => found.is_some_and(|content_type| content_type.is("multipart", "signed")),
        Err(_) => return false,
    };
    if is_signed {
        authors_agree(&entity.header) && tree_agrees(entity)
    } else {
        root_agrees_with_reader(entity)
    }
}

/// The same of the root's own fields alone, whatever stands further down.
pub fn root_agrees_with_reader(entity: &Entity) -> bool {
    authors_agree(&entity.header) && structure_agrees(&entity.header)
}

fn authors_agree(header: &Header) -> bool {
    match read(header) {
        Read::TooMuch => false,
        Read::Found(theirs) => from_agrees(header, &theirs),
        Read::Nothing => header.count("From") == 0,
    }
}

/// Walks all entities below a multipart/signed, with an explicit stack.
fn tree_agrees(root: &Entity) -> bool {
    let mut todo = vec![Node { bytes: root.bytes.clone(), depth: 0, parent: Parent::Other }];
    let mut entities = 0_usize;
    let mut steps = 0_usize;
    while let Some(node) = todo.pop() {
        entities = entities.saturating_add(1);
        if entities > PARTS_MAX || node.depth > DEPTH_MAX {
            return false;
        }
        match children(node, &mut steps) {
            Ok(Some(nodes)) => todo.extend(nodes),
            Ok(None) | Err(_) => return false,
        }
    }
    true
}

/// An entity on the way.
struct Node {
    bytes: Bytes,
    depth: usize,
    parent: Parent,
}

/// What an entity stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parent {
    Digest,
    Message,
    Other,
}

/// The entities directly inside; `None` where programs may read this one differently.
fn children(node: Node, steps: &mut usize) -> Result<Option<Vec<Node>>, MimeError> {
    let depth = node.depth.saturating_add(1);
    let nodes = |parts: Vec<Bytes>, parent| {
        Some(parts.into_iter().map(|bytes| Node { bytes, depth, parent }).collect())
    };
    let entity = Entity::parse(node.bytes)?;
    *steps = steps.saturating_add(entity.header.decoding_steps(&DECODED));
    if *steps > TREE_STEPS_MAX {
        return Ok(None);
    }
    let ended = entity.header.bytes().ends_with(b"\r\n\r\n") || entity.header.bytes() == "\r\n";
    if !ended || !structure_agrees(&entity.header) {
        return Ok(None);
    }
    let found = entity.header.content_type()?;
    if let Some(content_type) = found.as_ref().filter(|found| found.kind == "multipart") {
        let split = Multipart::split(&entity.body, &content_type.boundary()?)?;
        // An encoded multipart is forbidden (RFC 2045 §6.4), and decoded by some.
        let sound = split.closed
            && !split.ambiguous
            && !split.parts.is_empty()
            && entity.header.transfer_encoding().is_identity();
        let is_digest = content_type.subtype == "digest";
        let parent = if is_digest { Parent::Digest } else { Parent::Other };
        return Ok(if sound { nodes(split.parts, parent) } else { None });
    }
    let is_message = found.map_or(node.parent == Parent::Digest, |found| {
        found.kind == "message" && matches!(found.subtype.as_str(), "rfc822" | "global")
    });
    match (is_message && !is_encoded(&entity.header), node.parent) {
        // Some readers lose count of the ends where a message is all of a message.
        (true, Parent::Message) => Ok(None),
        (true, _) => Ok(nodes(vec![entity.body], Parent::Message)),
        (false, _) => Ok(Some(Vec::new())),
    }
}

/// Whether both read alike where the entity ends and what is inside.
fn structure_agrees(header: &Header) -> bool {
    // White space before the first field, and a line that is no field, end the section for some (Postfix, Python).
    let odd = |field: Field<'_>| {
        field.is_malformed() || field.has_space_before_colon() || !has_plain_line_ends(field.raw())
    };
    if header.bytes().first().is_some_and(|&b| is_wsp(b)) || header.fields().any(odd) {
        return false;
    }
    match read(header) {
        Read::TooMuch => false,
        Read::Found(theirs) => {
            fields_agree(header, &theirs)
                && type_agrees(header, &theirs)
                && encoding_agrees(header, &theirs)
        }
        Read::Nothing => {
            header.count("Content-Type") == 0 && header.count("Content-Transfer-Encoding") == 0
        }
    }
}

/// What the reader makes of a header section.
enum Read<'a> {
    Found(Message<'a>),
    /// It saw no field at all.
    Nothing,
    /// It was not asked: it would be busy for too long.
    TooMuch,
}

fn read(header: &Header) -> Read<'_> {
    if header.decoding_steps(&DECODED) > DECODING_STEPS_MAX {
        return Read::TooMuch;
    }
    READER.parse_headers(header.bytes()).map_or(Read::Nothing, Read::Found)
}

/// Whether they see each field begin and end where we do: a value that makes a reader run over the end of its field can
/// make it run over the end of the header section.
fn fields_agree(header: &Header, theirs: &Message<'_>) -> bool {
    let mut found = theirs.headers().iter();
    let mut start = 0_usize;
    header.fields().all(|field| {
        let end = start.saturating_add(field.raw().len());
        let same = found.next().is_some_and(|their| {
            usize::try_from(their.offset_field()) == Ok(start)
                && usize::try_from(their.offset_end()) == Ok(end)
        });
        start = end;
        same
    }) && found.next().is_none()
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
    list.iter().map(|found| Address::parse_foreign(found.address()?).ok()).collect()
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
    theirs.ctype().eq_ignore_ascii_case(&ours.kind)
        && theirs.subtype().is_some_and(|found| found.eq_ignore_ascii_case(&ours.subtype))
        && (ours.kind != "message" || ours.is_regular())
        && (ours.kind != "multipart"
            || ours.is_regular()
                && ours.parameter("boundary").as_deref() == theirs.attribute("boundary"))
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

/// Fields whose encoded words the reader decodes.
const DECODED: [&str; 3] = ["From", "Content-Type", "Content-Transfer-Encoding"];
/// Of all entities together: a thousand attachments, each with a long name in twenty encoded words.
const TREE_STEPS_MAX: usize = 32 * 1024 * 1024;

/// It reads the fields that matter and takes the others as they are: its reading of dates runs over the end of a field
/// that ends in a zone of one letter, which says nothing about other readers.
static READER: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new()
        .header_address(HeaderName::From)
        .header_content_type(HeaderName::ContentType)
        .header_text(HeaderName::ContentTransferEncoding)
        .default_header_raw()
});
