//! The lexical parts that structured header fields share: RFC 5322 §3.2, RFC 2045 §5.1.
//!
//! In: a field value, unfolded. Out: tokens, quoted strings, comments skipped. High bytes are taken as text and left to
//! the caller. Control characters are refused before the first token is read.

use std::borrow::Cow;

use super::MimeError;

/// Removes the CRLF of each fold (RFC 5322 §2.2.3) and refuses control characters other than tab.
pub(super) fn unfold(value: &[u8]) -> Result<Cow<'_, [u8]>, MimeError> {
    let unfolded = remove_folds(value);
    if unfolded.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(MimeError::Malformed("a control character in a header field"));
    }
    Ok(unfolded)
}

/// Removes each CRLF that white space follows.
pub(super) fn remove_folds(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        let (line, tail) = rest.split_at(at);
        let after = tail.get(2..).unwrap_or_default();
        out.extend_from_slice(line);
        if !after.first().is_some_and(|&b| is_wsp(b)) {
            out.extend_from_slice(b"\r\n");
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// Space or tab.
pub(super) fn is_wsp(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// A reader over one unfolded value.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self { rest: value }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn advance(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Advances over `byte` if it is next.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The longest run of bytes that satisfy `wanted`.
    pub(super) fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&b| !wanted(b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Skips white space and comments (RFC 5322 §3.2.2), nested ones too.
    pub(super) fn skip_cfws(&mut self) -> Result<(), MimeError> {
        loop {
            self.take_while(is_wsp);
            if !self.eat(b'(') {
                return Ok(());
            }
            self.skip_comment()?;
        }
    }

    /// The content of a quoted string (RFC 5322 §3.2.4) with quoted pairs resolved; the opening quote is next.
    pub(super) fn quoted_string(&mut self) -> Result<Vec<u8>, MimeError> {
        if !self.eat(b'"') {
            return Err(MimeError::Malformed("a quoted string"));
        }
        let mut content = Vec::new();
        loop {
            content.extend_from_slice(self.take_while(|b| b != b'"' && b != b'\\'));
            match self.advance() {
                Some(b'"') => return Ok(content),
                Some(_) => content.push(self.advance().ok_or(UNCLOSED_QUOTE)?),
                None => return Err(UNCLOSED_QUOTE),
            }
        }
    }

    /// After the opening parenthesis, to behind the closing one. A counter, because comments nest (no recursion).
    fn skip_comment(&mut self) -> Result<(), MimeError> {
        let mut depth = 1_usize;
        loop {
            self.take_while(|b| !matches!(b, b'(' | b')' | b'\\'));
            match self.advance() {
                Some(b'(') => depth = depth.saturating_add(1),
                Some(b')') => depth = depth.saturating_sub(1),
                Some(_) => {
                    self.advance();
                }
                None => return Err(MimeError::Malformed("a comment without its end")),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

const UNCLOSED_QUOTE: MimeError = MimeError::Malformed("a quoted string without its end");
