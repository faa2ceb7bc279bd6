//! Splits a multipart body at its boundary (RFC 2046 §5.1.1), byte for byte.
//!
//! In: a body and its boundary. Out: slices. The CRLF before a delimiter belongs to the delimiter. A line
//! that only begins with the delimiter, the delimiter inside of a line, and one after the closing one are read
//! differently by different programs: such a body is marked ambiguous, and nobody gives it a cryptographic status.

use bytes::Bytes;
use memchr::memmem::Finder;

use super::structured::is_wsp;
use super::{MimeError, PARTS_MAX};

/// A multipart body in pieces.
#[derive(Clone, Debug)]
pub struct Multipart {
    /// Before the first delimiter, without the CRLF that belongs to it.
    pub preamble: Bytes,
    /// The parts, header sections included.
    pub parts: Vec<Bytes>,
    /// After the line of the closing delimiter.
    pub epilogue: Bytes,
    /// Whether there is a closing delimiter.
    pub closed: bool,
    /// Whether programs are known to split such a body in different ways.
    pub ambiguous: bool,
}

impl Multipart {
    /// Splits a body. No delimiter at all gives no parts and all of the body as preamble.
    ///
    /// # Errors
    /// [`MimeError::OverLimit`] for more than [`PARTS_MAX`] parts.
    pub fn split(body: &Bytes, boundary: &str) -> Result<Self, MimeError> {
        let mut found = Self {
            preamble: body.clone(),
            parts: Vec::new(),
            epilogue: Bytes::new(),
            closed: false,
            ambiguous: false,
        };
        let mut open_part: Option<usize> = None;
        let mut lines = Delimiters::new(body, boundary);
        while let Some(line) = lines.next() {
            if line.kind == Kind::Ambiguous || found.closed {
                found.ambiguous = true;
                continue;
            }
            match open_part {
                None => found.preamble = body.slice(..line.start),
                // Where two delimiters share one CRLF the part between them is empty.
                Some(start) => found.push(body.slice(start..line.start.max(start)))?,
            }
            if line.kind == Kind::Close {
                found.closed = true;
                found.epilogue = body.slice(line.end..);
                open_part = None;
            } else {
                open_part = Some(line.end);
            }
        }
        if let Some(start) = open_part {
            found.push(body.slice(start..))?;
        }
        Ok(found)
    }

    fn push(&mut self, part: Bytes) -> Result<(), MimeError> {
        if self.parts.len() >= PARTS_MAX {
            return Err(MimeError::OverLimit("the parts of a multipart"));
        }
        self.parts.push(part);
        Ok(())
    }
}

/// Where the delimiter stands in a body.
struct Delimiters<'a> {
    body: &'a [u8],
    finder: Finder<'static>,
    at: usize,
}

/// One such place: from the CRLF before the line to behind the CRLF at its end.
struct Line {
    start: usize,
    end: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ambiguous,
    Close,
    Open,
}

impl<'a> Delimiters<'a> {
    fn new(body: &'a [u8], boundary: &str) -> Self {
        let finder = Finder::new(format!("--{boundary}").as_bytes()).into_owned();
        Self { body, finder, at: 0 }
    }

    fn next(&mut self) -> Option<Line> {
        let found = self.at.saturating_add(self.finder.find(self.body.get(self.at..)?)?);
        let after = found.saturating_add(self.finder.needle().len());
        let tail = self.body.get(after..).unwrap_or_default();
        let before = self.body.get(..found).unwrap_or_default();
        let starts_line = before.is_empty() || before.ends_with(b"\r\n");
        if !starts_line {
            self.at = after;
            return Some(Line { start: found, end: after, kind: Kind::Ambiguous });
        }
        // Only now: a look for the line's end at every occurrence would be quadratic in a hostile body.
        let line_len = memchr::memmem::find(tail, b"\r\n");
        let line_tail = tail.get(..line_len.unwrap_or(tail.len())).unwrap_or_default();
        let end = after.saturating_add(line_len.map_or(tail.len(), |len| len.saturating_add(2)));
        self.at = end;
        Some(Line { start: found.saturating_sub(2), end, kind: kind_of(line_tail) })
    }
}

/// What follows the boundary on its line: nothing or `--`, then padding (RFC 2046 §5.1.1 transport-padding).
fn kind_of(line_tail: &[u8]) -> Kind {
    let (kind, padding) = match line_tail.strip_prefix(b"--") {
        Some(padding) => (Kind::Close, padding),
        None => (Kind::Open, line_tail),
    };
    if padding.iter().all(|&b| is_wsp(b)) { kind } else { Kind::Ambiguous }
}

#[cfg(test)]
mod tests;
