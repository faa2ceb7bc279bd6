//! BER into DER, as far as CMS needs it (X.690 §8.1.3, §10.1, §10.2).
//!
//! In: one BER element. Out: the same element with definite minimal lengths, constructed OCTET
//! STRINGs collapsed to primitive ones, among them the IMPLICIT `[0]` of EncryptedContentInfo (RFC
//! 5652 §6.1). What is DER already is passed on without a copy. One loop, an explicit stack, no
//! recursion; every octet is moved at most once a level.
//!
//! It does not sort sets, and it changes nothing inside certificates, CRLs and signed or
//! authenticated attributes: those bytes stay as they came, because a signature covers them. It
//! does not look into primitive elements.

use std::borrow::Cow;

use super::CmsError;
use super::element::{
    CONSTRUCTED, CONSTRUCTED_0, CONSTRUCTED_1, Header, OCTET_STRING, OID, PRIMITIVE_0, SEQUENCE,
    SET, push_length,
};

/// Makes one BER element DER.
pub fn to_der(bytes: &[u8]) -> Result<Cow<'_, [u8]>, CmsError> {
    let mut scan = Transcoder::new(bytes, None);
    scan.run()?;
    if scan.is_der {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut rewrite = Transcoder::new(bytes, Some(Vec::with_capacity(bytes.len())));
    rewrite.run()?;
    rewrite.out.map(Cow::Owned).ok_or(CmsError::Malformed)
}

/// The walk over the input; without `out` it only looks whether there is anything to change.
struct Transcoder<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Frame>,
    out: Option<Vec<u8>>,
    is_der: bool,
}

/// An open constructed element.
#[derive(Clone, Copy)]
struct Frame {
    tag: u8,
    /// Where its content ends in the input; none if indefinite.
    end: Option<usize>,
    mode: Mode,
    /// How many children were begun, and the tags of the first two.
    children: usize,
    first_tags: [u8; 2],
    /// Where its length octets stand in the output, and how many were set aside.
    length_at: usize,
    length_bytes: usize,
}

/// How a constructed element is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Header with a definite length, children each in their own mode.
    Plain,
    /// A string whose segments are put together under one primitive header.
    String,
    /// A segment that is constructed itself: no header at all.
    Segment,
    /// Copied as it came, only its end is looked for.
    Verbatim,
}

impl<'a> Transcoder<'a> {
    fn new(input: &'a [u8], out: Option<Vec<u8>>) -> Self {
        Self { input, at: 0, stack: Vec::new(), out, is_der: true }
    }

    fn run(&mut self) -> Result<(), CmsError> {
        self.open()?;
        while let Some(frame) = self.stack.last().copied() {
            match frame.end {
                Some(end) if self.at == end => self.close(frame)?,
                Some(end) if self.at > end => return Err(CmsError::Malformed),
                None if self.input.get(self.at..).is_some_and(|rest| rest.starts_with(&[0, 0])) => {
                    if frame.mode == Mode::Verbatim {
                        self.copy(self.at, self.at + 2);
                    }
                    self.at += 2;
                    self.close(frame)?;
                }
                _ => self.open()?,
            }
        }
        if self.at == self.input.len() { Ok(()) } else { Err(CmsError::Malformed) }
    }

    /// Reads the header at the cursor, and a primitive element whole.
    fn open(&mut self) -> Result<(), CmsError> {
        let rest = self.input.get(self.at..).ok_or(CmsError::Malformed)?;
        let header = Header::read(rest).ok_or(CmsError::Malformed)?;
        // An end-of-contents outside an indefinite element.
        if header.tag == 0 {
            return Err(CmsError::Malformed);
        }
        let body = self.at + header.bytes;
        let end = match header.length {
            Some(length) => Some(body.checked_add(length).ok_or(CmsError::Malformed)?),
            None => None,
        };
        let limit = self.stack.iter().rev().find_map(|frame| frame.end).unwrap_or(self.input.len());
        if end.unwrap_or(body) > limit {
            return Err(CmsError::Malformed);
        }
        let mode = self.mode(&header)?;
        self.note_child(header.tag);
        if header.tag & CONSTRUCTED != 0 {
            return self.push(&header, body, end, mode);
        }
        let end = end.ok_or(CmsError::Malformed)?;
        match mode {
            Mode::Verbatim => self.copy(self.at, end),
            Mode::String | Mode::Segment => self.copy(body, end),
            Mode::Plain => {
                self.is_der &= header.length_is_minimal;
                self.copy(self.at, self.at + header.tag_bytes);
                if let Some(out) = &mut self.out {
                    push_length(out, end - body);
                }
                self.copy(body, end);
            }
        }
        self.at = end;
        Ok(())
    }

    fn push(
        &mut self,
        header: &Header,
        body: usize,
        end: Option<usize>,
        mode: Mode,
    ) -> Result<(), CmsError> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(CmsError::OverLimit);
        }
        if mode != Mode::Verbatim {
            self.is_der &= header.length_is_minimal && mode == Mode::Plain;
        }
        let mut frame = Frame {
            tag: header.tag,
            end,
            mode,
            children: 0,
            first_tags: [0; 2],
            length_at: 0,
            length_bytes: 0,
        };
        match mode {
            Mode::Verbatim => self.copy(self.at, body),
            Mode::Segment => {}
            Mode::Plain | Mode::String => {
                // The output is not longer than the input, so this guess is mostly right and
                // nothing has to move.
                let guess = end.unwrap_or(self.input.len()).saturating_sub(body);
                if let Some(out) = &mut self.out {
                    let tag =
                        if mode == Mode::String { header.tag & !CONSTRUCTED } else { header.tag };
                    out.push(tag);
                    let more = self.input.get(self.at + 1..self.at + header.tag_bytes);
                    out.extend_from_slice(more.unwrap_or_default());
                    frame.length_at = out.len();
                    push_length(out, guess);
                    frame.length_bytes = out.len() - frame.length_at;
                }
            }
        }
        self.stack.push(frame);
        self.at = body;
        Ok(())
    }

    /// The end of a constructed element: its length is known now.
    fn close(&mut self, frame: Frame) -> Result<(), CmsError> {
        self.stack.pop();
        if !matches!(frame.mode, Mode::Plain | Mode::String) {
            return Ok(());
        }
        let Some(out) = &mut self.out else { return Ok(()) };
        let body = frame.length_at + frame.length_bytes;
        let length = out.len().checked_sub(body).ok_or(CmsError::Malformed)?;
        let mut octets = Vec::with_capacity(9);
        push_length(&mut octets, length);
        out.splice(frame.length_at..body, octets);
        Ok(())
    }

    /// How the element with this header is to be written, from where it stands.
    fn mode(&self, header: &Header) -> Result<Mode, CmsError> {
        let is_octets = header.tag == OCTET_STRING | CONSTRUCTED;
        let Some(parent) = self.stack.last() else {
            return Ok(if is_octets { Mode::String } else { Mode::Plain });
        };
        match parent.mode {
            Mode::Verbatim => return Ok(Mode::Verbatim),
            Mode::String | Mode::Segment => {
                // Segments are OCTET STRINGs whatever the outer tag is (X.690 §8.14.3 with §8.7.3).
                return match header.tag {
                    OCTET_STRING => Ok(Mode::Segment),
                    tag if tag == OCTET_STRING | CONSTRUCTED => Ok(Mode::Segment),
                    _ => Err(CmsError::Malformed),
                };
            }
            Mode::Plain => {}
        }
        if self.is_inside_signed_bytes(parent) {
            return Ok(Mode::Verbatim);
        }
        if is_octets || (header.tag == CONSTRUCTED_0 && self.is_encrypted_content(parent)) {
            return Ok(Mode::String);
        }
        Ok(Mode::Plain)
    }

    /// Whether children of `parent` are covered by a signature as they are: certificates and CRLs
    /// of SignedData, authAttrs of AuthEnvelopedData (all directly in ContentInfo.content's
    /// SEQUENCE), and signedAttrs of a SignerInfo.
    fn is_inside_signed_bytes(&self, parent: &Frame) -> bool {
        let tag_at = |depth: usize| self.stack.get(depth).map(|frame| frame.tag);
        match self.stack.len() {
            4 => matches!(parent.tag, CONSTRUCTED_0 | CONSTRUCTED_1) && tag_at(2) == Some(SEQUENCE),
            6 => {
                parent.tag == CONSTRUCTED_0 && tag_at(4) == Some(SEQUENCE) && tag_at(3) == Some(SET)
            }
            _ => false,
        }
    }

    /// Whether a `[0]` in `parent` is EncryptedContentInfo.encryptedContent: the third member after
    /// an OID and a SEQUENCE, where SignedData's eContent is the second.
    fn is_encrypted_content(&self, parent: &Frame) -> bool {
        self.stack.len() == 4
            && parent.tag == SEQUENCE
            && parent.children == 2
            && parent.first_tags == [OID, SEQUENCE]
    }

    fn note_child(&mut self, tag: u8) {
        if let Some(parent) = self.stack.last_mut() {
            if let Some(slot) = parent.first_tags.get_mut(parent.children) {
                *slot = tag;
            }
            parent.children = parent.children.saturating_add(1);
        }
    }

    fn copy(&mut self, from: usize, to: usize) {
        if let Some(out) = &mut self.out {
            out.extend_from_slice(self.input.get(from..to).unwrap_or_default());
        }
    }
}

/// How deep elements may be nested (REQUIREMENTS K4).
pub(crate) const DEPTH_MAX: usize = 32;

const _: () = assert!(PRIMITIVE_0 == CONSTRUCTED_0 & !CONSTRUCTED);

#[cfg(test)]
mod tests;
