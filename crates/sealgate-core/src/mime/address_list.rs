//! Address lists of header fields (RFC 5322 §3.4, groups in From by RFC 6854).
//!
//! In: a field value as received. Out: mailboxes. [`parse`] is exact or fails, because a secret key may be used on its
//! answer; [`collect`] takes what it can read. Obsolete forms (routes, comments inside an address) are
//! refused: programs read them differently. Encoded words (RFC 2047) are never decoded, so no address hides in one.

use super::structured::{Cursor, is_wsp, unfold};
use super::{ADDRESSES_MAX, MimeError};
use crate::address::Address;

/// All mailboxes of a list.
pub(super) fn parse(value: &[u8]) -> Result<Vec<Address>, MimeError> {
    let (addresses, others) = read(value)?;
    if others.is_empty() { Ok(addresses) } else { Err(NO_MAILBOX) }
}

/// All mailboxes that a list names, or that some program may take it to name.
pub(super) fn named(value: &[u8]) -> Result<Vec<Address>, MimeError> {
    let (mut addresses, others) = read(value)?;
    addresses.extend(others);
    Ok(addresses)
}

/// The mailboxes of a list; and those that stand in it outside of quotes where a display name does.
fn read(value: &[u8]) -> Result<(Vec<Address>, Vec<Address>), MimeError> {
    let value = unfold(value)?;
    let mut cursor = Cursor::new(&value);
    let (mut addresses, mut others) = (Vec::new(), Vec::new());
    let mut in_group = false;
    loop {
        let (element, separator) = next_element(&mut cursor)?;
        if separator == Some(b':') {
            if in_group || element.angle.is_some() {
                return Err(NO_LIST);
            }
            in_group = true;
            continue;
        }
        // Empty elements are obsolete syntax that changes nothing (RFC 5322 §4.4).
        if !element.is_empty() {
            if addresses.len() >= ADDRESSES_MAX {
                return Err(MimeError::OverLimit("the mailboxes of an address field"));
            }
            let mailbox = element.mailbox()?;
            others.extend(element.others_than(&mailbox));
            addresses.push(mailbox);
        }
        match separator {
            Some(b';') if in_group => in_group = false,
            Some(b';') => return Err(NO_LIST),
            Some(_) => {}
            None if in_group => return Err(NO_LIST),
            None => return Ok((addresses, others)),
        }
    }
}

/// The mailboxes that can be read, added to `addresses` up to [`ADDRESSES_MAX`].
pub(super) fn collect(value: &[u8], addresses: &mut Vec<Address>) {
    let Ok(value) = unfold(value) else {
        return;
    };
    let mut cursor = Cursor::new(&value);
    while addresses.len() < ADDRESSES_MAX {
        let Ok((element, separator)) = next_element(&mut cursor) else {
            return;
        };
        if separator != Some(b':')
            && let Ok(address) = element.mailbox()
        {
            addresses.push(address);
        }
        if separator.is_none() {
            return;
        }
    }
}

/// What stands between two separators of a list.
#[derive(Debug, Default)]
struct Element {
    /// What is outside of angle brackets, comments dropped: the words of a phrase, or an addr-spec.
    text: Vec<u8>,
    /// What is inside of angle brackets.
    angle: Option<Vec<u8>>,
    /// Whether white space or a comment stands between two pieces of `text`.
    spaced: bool,
    /// `text` without its quoted strings.
    bare: Vec<u8>,
    /// Words of it that have an @ in them.
    naked: Vec<Vec<u8>>,
}

impl Element {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.angle.is_none()
    }

    fn mailbox(&self) -> Result<Address, MimeError> {
        let spec = match &self.angle {
            Some(angle) => angle,
            None if self.spaced => return Err(NO_MAILBOX),
            None => &self.text,
        };
        let spec = std::str::from_utf8(spec).map_err(|_| NO_MAILBOX)?;
        // Some programs decode an encoded word even here, where RFC 2047 §5 forbids it.
        if spec.contains("=?") {
            return Err(NO_MAILBOX);
        }
        Address::parse_foreign(spec).map_err(|_| NO_MAILBOX)
    }

    /// Mailboxes other than this one that it names outside of quotes: of `alice@nec.example <mallory@evil.example>` some take the
    /// first for the author (Python).
    fn others_than(&self, address: &Address) -> Vec<Address> {
        if self.angle.is_none() || self.naked.is_empty() {
            return Vec::new();
        }
        let named = |text: &Vec<u8>| Address::parse_foreign(std::str::from_utf8(text).ok()?).ok();
        let words = self.naked.iter().chain([&self.bare]);
        words.filter_map(named).filter(|named| named != address).collect()
    }
}

/// Reads up to a separator (`,` `:` `;`) and returns it; `None` at the end of the list.
fn next_element(cursor: &mut Cursor<'_>) -> Result<(Element, Option<u8>), MimeError> {
    let mut element = Element::default();
    let mut gap = false;
    loop {
        match cursor.peek() {
            None => return Ok((element, None)),
            Some(separator @ (b',' | b':' | b';')) => {
                cursor.advance();
                return Ok((element, Some(separator)));
            }
            Some(b'(' | b' ' | b'\t') => {
                cursor.skip_cfws()?;
                gap = true;
                continue;
            }
            // After the angle address nothing but comments may follow.
            Some(_) if element.angle.is_some() => return Err(NO_MAILBOX),
            Some(b'<') => element.angle = Some(angle_address(cursor)?),
            Some(next) => {
                element.spaced |= gap && !element.text.is_empty();
                let start = element.text.len();
                text_piece(cursor, next, &mut element.text)?;
                if next != b'"' {
                    let piece = element.text.get(start..).unwrap_or_default();
                    element.bare.extend_from_slice(piece);
                    if piece.contains(&b'@') {
                        element.naked.push(piece.to_vec());
                    }
                }
            }
        }
        gap = false;
    }
}

/// One quoted string, domain literal or run of atom characters of the text outside of angle brackets.
fn text_piece(cursor: &mut Cursor<'_>, next: u8, text: &mut Vec<u8>) -> Result<(), MimeError> {
    match next {
        b'"' => quoted_piece(cursor, text),
        b'[' => literal_piece(cursor, text),
        b'>' | b')' | b'\\' | b']' => Err(NO_MAILBOX),
        _ => {
            text.extend_from_slice(
                cursor.take_while(|b| !is_wsp(b) && !b"()<>[]:;,\\\"".contains(&b)),
            );
            Ok(())
        }
    }
}

/// The addr-spec between angle brackets; white space and comments only around it.
fn angle_address(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, MimeError> {
    cursor.advance();
    cursor.skip_cfws()?;
    let mut spec = Vec::new();
    loop {
        match cursor.peek() {
            Some(b'>') => {
                cursor.advance();
                return Ok(spec);
            }
            Some(b'(' | b' ' | b'\t') => {
                cursor.skip_cfws()?;
                if cursor.peek() != Some(b'>') {
                    return Err(NO_MAILBOX);
                }
            }
            // Routes (RFC 5322 §4.4) have these; they are refused.
            None | Some(b',' | b':' | b';' | b'<') => return Err(NO_MAILBOX),
            Some(next) => text_piece(cursor, next, &mut spec)?,
        }
    }
}

/// A quoted string, kept in quotes: as a word of a phrase or as a local part.
fn quoted_piece(cursor: &mut Cursor<'_>, text: &mut Vec<u8>) -> Result<(), MimeError> {
    let content = cursor.quoted_string()?;
    text.push(b'"');
    for byte in content {
        if byte == b'"' || byte == b'\\' {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text.push(b'"');
    Ok(())
}

fn literal_piece(cursor: &mut Cursor<'_>, text: &mut Vec<u8>) -> Result<(), MimeError> {
    let literal = cursor.take_while(|b| b != b']' && b != b'\\');
    text.extend_from_slice(literal);
    if !cursor.eat(b']') {
        return Err(NO_MAILBOX);
    }
    text.push(b']');
    Ok(())
}

const NO_LIST: MimeError = MimeError::Malformed("an address list");
const NO_MAILBOX: MimeError = MimeError::Malformed("a mailbox");

#[cfg(test)]
mod tests;
