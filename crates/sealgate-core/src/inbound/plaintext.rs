//! What a layer had inside, as an entity: signed, encrypted, or noise.

use bytes::Bytes;

use crate::mime::{self, Entity, Field};

/// What an encryption that proves its content whole had inside; `None` where that is no entity.
pub(super) fn of_authenticated(content: &Bytes) -> Option<Entity> {
    let entity = entity_of(content.clone())
        .filter(|entity| is_empty_section(entity) || has_fields(entity))?;
    // In whatever charset the text is, whoever made it an entity of his own kind sees its body.
    let text = || entity_of_text(content);
    if says_what_it_is(&entity) { Some(entity) } else { text().or(Some(entity)) }
}

/// What one that does not had inside. D14 asks for printable fields where nothing but the form tells plaintext from noise.
pub(super) fn of_unauthenticated(content: Bytes) -> Option<Entity> {
    entity_of(content).filter(is_well_formed)
}

/// What a signature holds; `None` where it is neither an entity nor text.
pub(super) fn of_signed(content: &Bytes) -> Option<Entity> {
    entity_of(content.clone()).filter(says_what_it_is).or_else(|| entity_of_text(content))
}

/// A plaintext as an entity. Where its header section does not have CRLF its author took the line ends of his
/// system (RFC 8551 §3.1.1 forbids it, many do it); otherwise not one octet is changed, since a signature may
/// cover it.
fn entity_of(plaintext: Bytes) -> Option<Entity> {
    let first_line_end = memchr::memchr2(b'\r', b'\n', &plaintext);
    let has_crlf = first_line_end
        .is_none_or(|at| plaintext.get(at..).is_some_and(|rest| rest.starts_with(b"\r\n")));
    let content = if has_crlf { plaintext } else { mime::canonical_line_ends(plaintext) };
    Entity::parse(content).ok()
}

/// Whether what a layer had inside is MIME, and not text that its author did not make an entity (`openssl smime -sign` without
/// `-text`): nothing of that may be taken for a header section, which is not shown.
fn says_what_it_is(entity: &Entity) -> bool {
    let is_of_mime = |field: Field<'_>| field.is_content() || field.is("MIME-Version");
    is_empty_section(entity) || has_fields(entity) && entity.header.fields().any(is_of_mime)
}

/// Whether it says twice what it is, of which readers choose differently.
pub(super) fn repeats_content_fields(entity: &Entity) -> bool {
    let deciding = ["Content-Type", "Content-Transfer-Encoding", "Content-Disposition"];
    deciding.into_iter().any(|name| entity.header.count(name) > 1)
}

/// An entity of no fields, which is text (RFC 2045 §5.2).
fn is_empty_section(entity: &Entity) -> bool {
    entity.header.bytes() == "\r\n"
}

fn entity_of_text(text: &[u8]) -> Option<Entity> {
    let is_text = |&byte: &u8| byte >= b' ' || matches!(byte, b'\t' | b'\r' | b'\n' | 0x0c);
    if std::str::from_utf8(text).is_err() || !text.iter().all(is_text) {
        return None;
    }
    let entity = [b"Content-Type: text/plain; charset=utf-8\r\n\r\n", text].concat();
    Entity::parse(mime::canonical_line_ends(Bytes::from(entity))).ok()
}

/// Whether a plaintext is an entity at all: one field or more, and nothing among them that is none.
fn has_fields(entity: &Entity) -> bool {
    let mut fields = entity.header.fields().peekable();
    fields.peek().is_some() && !fields.any(|field| field.is_malformed())
}

/// An entity with nothing but printable fields.
pub(super) fn is_well_formed(entity: &Entity) -> bool {
    has_fields(entity) && entity.header.is_printable()
}
