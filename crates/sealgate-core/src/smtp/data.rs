//! Message content on the wire (RFC 5321 §4.1.1.4, §4.5.2): dot-unstuffing, dot-stuffing, and the end of data.
//!
//! In: octets cut anywhere. Out: the message with CRLF line ends and nothing else. **Only CRLF.CRLF ends a message**; a
//! bare CR, a bare LF or a NUL is a [`Violation`], after which the connection must be closed, because what
//! follows may be smuggled commands (CVE-2023-51764 and its kin).

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

use crate::refusal::Reply;

/// Takes content off the wire.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    dots: bool,
    line_start_dot: Finder<'static>,
    /// Octets of the unfinished line that were passed on.
    line_bytes: usize,
    line_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// After CR, which is held back.
    AfterCr,
    /// After a dot at the start of a line, which is dropped.
    AfterDot,
    /// After a dot at the start of a line and CR.
    AfterDotCr,
    /// At the start of a line.
    LineStart,
    /// Inside a line.
    Text,
}

/// How far decoding came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The end of data, after so many octets of the input.
    End(usize),
    /// All input is used up and the end has not come.
    More,
}

/// Content that no mail may have (RFC 5321 §2.3.8, §4.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// CR without LF.
    BareCr,
    /// LF without CR.
    BareLf,
    /// A line beyond the limit.
    LineTooLong,
    /// A NUL octet.
    Nul,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BareCr => "bare carriage return",
            Self::BareLf => "bare line feed",
            Self::LineTooLong => "line too long",
            Self::Nul => "NUL octet",
        })
    }
}

impl From<Violation> for Reply {
    fn from(violation: Violation) -> Self {
        let status = match violation {
            Violation::LineTooLong => (5, 6, 0),
            Violation::BareCr | Violation::BareLf | Violation::Nul => (5, 5, 2),
        };
        Self::new(550, status, format!("message refused: {violation}"))
    }
}

impl Decoder {
    /// For DATA: unstuffs dots and finds the end.
    pub fn for_data(line_bytes_max: usize) -> Self {
        Self {
            state: State::LineStart,
            dots: true,
            line_start_dot: Finder::new(b"\r\n."),
            line_bytes: 0,
            line_bytes_max,
        }
    }

    /// For the chunks of BDAT (RFC 3030): the same checks, no dots, no end.
    pub fn for_chunks(line_bytes_max: usize) -> Self {
        Self { dots: false, ..Self::for_data(line_bytes_max) }
    }

    /// Decodes `input` into `content`.
    ///
    /// # Errors
    /// A [`Violation`]: the message must be discarded and the connection closed.
    pub fn decode(&mut self, input: &[u8], content: &mut Content) -> Result<Progress, Violation> {
        let mut rest = input;
        while let Some((&first, after)) = rest.split_first() {
            match (self.state, first) {
                (State::LineStart, b'.') if self.dots => {
                    self.state = State::AfterDot;
                    rest = after;
                }
                (State::LineStart | State::Text, _) => rest = self.text(rest, content)?,
                (State::AfterDot, b'\r') => {
                    self.state = State::AfterDotCr;
                    rest = after;
                }
                (State::AfterDot, _) => self.state = State::Text,
                (State::AfterDotCr, b'\n') => {
                    return Ok(Progress::End(input.len().saturating_sub(after.len())));
                }
                (State::AfterCr, b'\n') => {
                    self.end_of_line(content)?;
                    rest = after;
                }
                (State::AfterCr, _) if self.line_bytes >= self.line_bytes_max => {
                    return Err(Violation::LineTooLong);
                }
                (State::AfterCr | State::AfterDotCr, _) => return Err(Violation::BareCr),
            }
        }
        Ok(Progress::More)
    }

    /// At the end of the last chunk: a message that does not end in CRLF gets one, because DATA downstream could not
    /// say it otherwise.
    ///
    /// # Errors
    /// [`Violation::BareCr`] when a CR is left over.
    pub fn finish_chunks(&mut self, content: &mut Content) -> Result<(), Violation> {
        match self.state {
            State::AfterCr => Err(Violation::BareCr),
            State::Text => self.end_of_line(content),
            State::AfterDot | State::AfterDotCr | State::LineStart => Ok(()),
        }
    }

    fn end_of_line(&mut self, content: &mut Content) -> Result<(), Violation> {
        if self.line_bytes.saturating_add(2) > self.line_bytes_max {
            return Err(Violation::LineTooLong);
        }
        content.push(b"\r\n");
        self.state = State::LineStart;
        self.line_bytes = 0;
        Ok(())
    }

    /// Passes on whole runs: up to the next line that starts with a dot, or all there is.
    fn text<'a>(&mut self, rest: &'a [u8], content: &mut Content) -> Result<&'a [u8], Violation> {
        let dot = if self.dots { self.line_start_dot.find(rest) } else { None };
        let (run, after) = dot
            .and_then(|at| rest.split_at_checked(at.saturating_add(2)))
            .unwrap_or((rest, Default::default()));
        let (run, state) = match run {
            [run @ .., b'\r'] => (run, State::AfterCr),
            [.., b'\n'] => (run, State::LineStart),
            _ => (run, State::Text),
        };
        if !is_clean(run) || !self.lines_fit(run) {
            return Err(self.first_violation(run));
        }
        content.push(run);
        self.state = state;
        Ok(after)
    }

    /// Whether every line is within the limit, its CRLF included; looks at few octets of a normal message.
    fn lines_fit(&mut self, run: &[u8]) -> bool {
        let (mut rest, mut begun) = (run, self.line_bytes);
        while let Some((window, _)) =
            rest.split_at_checked(self.line_bytes_max.saturating_sub(begun).saturating_add(1))
        {
            // The first octet over the limit may not be reached without a line end before it.
            let within = window.split_last().map_or(window, |(_, within)| within);
            let Some(end) = memchr::memrchr(b'\n', within) else { return false };
            rest = rest.get(end.saturating_add(1)..).unwrap_or_default();
            begun = 0;
        }
        let line_bytes = match memchr::memrchr(b'\n', rest) {
            Some(end) => rest.len().saturating_sub(end).saturating_sub(1),
            None => begun.saturating_add(rest.len()),
        };
        self.line_bytes = line_bytes;
        true
    }

    /// The slow look that finds which violation comes first.
    fn first_violation(&self, run: &[u8]) -> Violation {
        let (mut before, mut line_bytes) = (0_u8, self.line_bytes);
        for &b in run {
            line_bytes = line_bytes.saturating_add(1);
            match (before, b) {
                (b'\r', b'\n') => {}
                (b'\r', _) => return Violation::BareCr,
                (_, 0) => return Violation::Nul,
                (_, b'\n') => return Violation::BareLf,
                _ => {}
            }
            if line_bytes > self.line_bytes_max {
                return Violation::LineTooLong;
            }
            if b == b'\n' {
                line_bytes = 0;
            }
            before = b;
        }
        Violation::BareCr
    }
}

/// The message so far, within its limit.
#[derive(Debug)]
pub struct Content {
    bytes: BytesMut,
    /// What SIZE said (RFC 1870) and a sixteenth more, within the limit; 0 where it said nothing.
    promised: u64,
    received: u64,
    bytes_max: u64,
    discarded: bool,
}

impl Content {
    /// An empty message; `promised` is what SIZE said.
    pub fn new(bytes_max: u64, promised: Option<u64>) -> Self {
        // An estimate (RFC 1870 §5): there are senders that count a line's end as one octet.
        let promised = promised.map_or(0, |size| size.saturating_add(size / 16)).min(bytes_max);
        let capacity = usize::try_from(promised.min(PREALLOCATED_BYTES_MAX)).unwrap_or_default();
        let bytes = BytesMut::with_capacity(capacity);
        Self { bytes, promised, received: 0, bytes_max, discarded: false }
    }

    /// Appends, unless the message is discarded already or becomes too large by it.
    fn push(&mut self, octets: &[u8]) {
        self.received =
            self.received.saturating_add(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        if self.received > self.bytes_max {
            self.discard();
        }
        if !self.discarded {
            self.make_room(octets.len());
            self.bytes.extend_from_slice(octets);
        }
    }

    /// Counts octets that nobody looks at.
    pub fn skip(&mut self, octets: usize) {
        self.received = self.received.saturating_add(u64::try_from(octets).unwrap_or(u64::MAX));
    }

    /// The buffer doubles, but not beyond what was promised: a large message ends in a buffer of its size.
    fn make_room(&mut self, octets: usize) {
        let needed = self.bytes.len().saturating_add(octets);
        if needed <= self.bytes.capacity() {
            return;
        }
        let [promised, limit] = [self.promised, self.bytes_max]
            .map(|octets| usize::try_from(octets).unwrap_or(usize::MAX));
        let capacity = if promised >= needed {
            promised.min(needed.saturating_mul(2))
        } else {
            // `needed` is within the limit.
            needed.checked_next_power_of_two().unwrap_or(needed).min(limit)
        };
        let mut larger = BytesMut::with_capacity(capacity);
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
    }

    /// Frees what is held; what comes is counted only.
    pub fn discard(&mut self) {
        self.discarded = true;
        self.bytes = BytesMut::new();
    }

    /// Octets in memory.
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Octets received, discarded ones too.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the limit was passed.
    pub fn is_too_large(&self) -> bool {
        self.received > self.bytes_max
    }

    /// The message, unless it was discarded.
    pub fn finish(self) -> Option<Bytes> {
        if self.discarded {
            None
        } else if self.bytes.capacity() / 2 > self.bytes.len() {
            // What was set aside at first was far too much.
            Some(Bytes::copy_from_slice(&self.bytes))
        } else {
            Some(self.bytes.freeze())
        }
    }
}

/// Puts content on the wire: appends slices of the segments and the dots between them, without the final dot.
///
/// A message that is not empty and does not end in CRLF gets one.
pub fn stuff(segments: &[Bytes], out: &mut VecDeque<Bytes>) {
    let line_start_dot = Finder::new(b"\r\n.");
    let mut tail = [b'\r', b'\n'];
    let mut empty = true;
    for segment in segments {
        stuff_segment(segment, tail, &line_start_dot, out);
        for &b in segment.get(segment.len().saturating_sub(2)..).unwrap_or_default() {
            tail = [tail[1], b];
            empty = false;
        }
    }
    if !empty && tail != [b'\r', b'\n'] {
        out.push_back(Bytes::from_static(b"\r\n"));
    }
}

/// `tail` is the last two octets before the segment; both ends of data look like a line end.
fn stuff_segment(
    segment: &Bytes,
    tail: [u8; 2],
    line_start_dot: &Finder<'_>,
    out: &mut VecDeque<Bytes>,
) {
    let dot = Bytes::from_static(b".");
    if tail == *b"\r\n" && segment.starts_with(b".") {
        out.push_back(dot.clone());
    }
    let mut start = 0;
    if tail[1] == b'\r' && segment.starts_with(b"\n.") {
        out.push_back(segment.slice(..1));
        out.push_back(dot.clone());
        start = 1;
    }
    for at in line_start_dot.find_iter(segment) {
        let end = at.saturating_add(2);
        out.push_back(segment.slice(start..end));
        out.push_back(dot.clone());
        start = end;
    }
    if start < segment.len() {
        out.push_back(segment.slice(start..));
    }
}

/// No NUL, and CR and LF only as pairs; what came before the run did not end in CR. Written so that the compiler makes vector instructions of it.
fn is_clean(run: &[u8]) -> bool {
    let Some((first, rest)) = run.split_first() else { return true };
    let unpaired = run.iter().zip(rest).fold(0_u8, |found, (before, b)| {
        found | u8::from((*before == b'\r') != (*b == b'\n')) | u8::from(*b == 0)
    });
    unpaired == 0 && !matches!(first, b'\n' | 0) && !run.ends_with(b"\r")
}

/// Memory is not set aside for more than this on a mere promise of SIZE.
const PREALLOCATED_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests;
