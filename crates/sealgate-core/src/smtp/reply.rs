//! SMTP replies as octets (RFC 5321 §4.2): written with their enhanced status (RFC 2034), and read with bounds.
//!
//! What is read is made printable ASCII at once, so that a reply can be passed on and logged without another check.

use std::fmt;

use bytes::{Buf, BytesMut};

use crate::refusal::Reply;

/// Writes a reply, one line for each of its lines.
pub fn write(reply: &Reply, out: &mut BytesMut) {
    let last = reply.lines.len().saturating_sub(1);
    if reply.lines.is_empty() {
        write_line(reply, b' ', "", out);
    }
    for (index, text) in reply.lines.iter().enumerate() {
        write_line(reply, if index == last { b' ' } else { b'-' }, text, out);
    }
}

/// Reads replies out of a stream, whatever way it is cut.
#[derive(Debug, Default)]
pub struct ReplyReader {
    code: Option<u16>,
    enhanced: Option<(u8, u16, u16)>,
    lines: Vec<String>,
}

impl ReplyReader {
    /// Takes the next whole reply out of `input`; `None` when it has not all come yet.
    ///
    /// # Errors
    /// [`NotSmtp`] when what came is no reply, or passes a limit.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, NotSmtp> {
        while let Some(end) = memchr::memchr(b'\n', input) {
            let line = input.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let last = self.take_line(line)?;
            input.advance(end.saturating_add(1));
            if last {
                let code = self.code.take().ok_or(NotSmtp)?;
                let enhanced = self.enhanced.take();
                return Ok(Some(Reply { code, enhanced, lines: std::mem::take(&mut self.lines) }));
            }
        }
        // The line may have come but for its last octet.
        let begun = input.strip_suffix(b"\r").unwrap_or(input);
        if begun.len() > LINE_BYTES_MAX { Err(NotSmtp) } else { Ok(None) }
    }

    /// Takes one line without its end; `true` when it is the last of its reply.
    fn take_line(&mut self, line: &[u8]) -> Result<bool, NotSmtp> {
        if line.len() > LINE_BYTES_MAX || self.lines.len() >= LINES_MAX {
            return Err(NotSmtp);
        }
        let (digits, rest) = line.split_at_checked(3).ok_or(NotSmtp)?;
        let code = digits
            .iter()
            .try_fold(0_u16, |code, b| {
                b.is_ascii_digit().then(|| code * 10 + u16::from(b.wrapping_sub(b'0')))
            })
            .filter(|code| (200..600).contains(code))
            .ok_or(NotSmtp)?;
        if self.code.is_some_and(|earlier| earlier != code) {
            return Err(NotSmtp);
        }
        self.code = Some(code);
        let (last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(NotSmtp),
        };
        let text = printable(text);
        match split_enhanced(&text, code) {
            Some((enhanced, rest)) => {
                self.enhanced.get_or_insert(enhanced);
                self.lines.push(rest.to_owned());
            }
            None => self.lines.push(text),
        }
        Ok(last)
    }
}

/// What came is no SMTP reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSmtp;

impl fmt::Display for NotSmtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is not SMTP")
    }
}

impl std::error::Error for NotSmtp {}

fn write_line(reply: &Reply, separator: u8, text: &str, out: &mut BytesMut) {
    let mut code = [b'0'; 3];
    let mut rest = reply.code;
    for digit in code.iter_mut().rev() {
        *digit = b'0'.wrapping_add(u8::try_from(rest % 10).unwrap_or_default());
        rest /= 10;
    }
    out.extend_from_slice(&code);
    out.extend_from_slice(&[separator]);
    if reply.enhanced.is_some() {
        out.extend_from_slice(reply.enhanced_text().as_bytes());
        out.extend_from_slice(b" ");
    }
    let clean = |b: &u8| if (b' '..=b'~').contains(b) { *b } else { b'?' };
    out.extend(text.as_bytes().iter().take(TEXT_BYTES_MAX).map(clean));
    out.extend_from_slice(b"\r\n");
}

/// Text that can end no line and hide nothing in a terminal.
fn printable(text: &[u8]) -> String {
    let clean = |b: &u8| char::from(if (b' '..=b'~').contains(b) { *b } else { b'?' });
    text.iter().take(TEXT_BYTES_MAX).map(clean).collect()
}

/// `5.7.1 text` (RFC 2034 §4): only where the class agrees with the code (RFC 3463 §2).
fn split_enhanced(text: &str, code: u16) -> Option<((u8, u16, u16), &str)> {
    let (status, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut parts = status.split('.');
    let mut number = |digits_max: usize| {
        let part = parts.next()?;
        let fits = part.len() <= digits_max && part.bytes().all(|b| b.is_ascii_digit());
        if fits { part.parse::<u16>().ok() } else { None }
    };
    let class = u8::try_from(number(1)?).ok()?;
    let (subject, detail) = (number(3)?, number(3)?);
    let agrees = parts.next().is_none() && u16::from(class) == code / 100;
    agrees.then_some(((class, subject, detail), rest))
}

/// RFC 5321 §4.5.3.1.5 has 512; some servers write more.
const LINE_BYTES_MAX: usize = 2048;
/// Longest text of a line that is kept or written, so that code, status and text fit RFC 5321 §4.5.3.1.5.
const TEXT_BYTES_MAX: usize = 490;
/// Lines of one reply; the longest real EHLO replies have about 30.
const LINES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Reply>, NotSmtp> {
        ReplyReader::default().next(&mut BytesMut::from(text))
    }

    #[test]
    fn replies_are_read_with_their_status() {
        let reply = read("550-5.7.1 not\r\n550 5.7.1 here\r\n").unwrap().unwrap();
        assert_eq!(reply.code, 550);
        assert_eq!(reply.enhanced, Some((5, 7, 1)));
        assert_eq!(reply.lines, ["not", "here"]);
        assert_eq!(read("250\r\n").unwrap().unwrap().lines, [""]);
        assert_eq!(read("250 1.2.3.4 is you\r\n").unwrap().unwrap().enhanced, None);
        assert_eq!(read("450 5.7.1 x\r\n").unwrap().unwrap().enhanced, None);
    }

    #[test]
    fn a_reply_may_come_octet_by_octet() {
        let mut reader = ReplyReader::default();
        let mut input = BytesMut::new();
        let text = b"250-a\r\n250-5\r\n250 2.0.0 b\r\n";
        for (index, b) in text.iter().enumerate() {
            input.extend_from_slice(&[*b]);
            let reply = reader.next(&mut input).unwrap();
            assert_eq!(reply.is_some(), index + 1 == text.len());
        }
    }

    #[test]
    fn garbage_is_told_from_replies() {
        for text in [
            "hello\r\n",
            "25\r\n",
            "250x\r\n",
            "199 a\r\n",
            "600 a\r\n",
            "250-a\r\n251 b\r\n",
            "\r\n",
            "SSH-2.0-OpenSSH_9\r\n",
        ] {
            assert_eq!(read(text), Err(NotSmtp), "{text:?}");
        }
        assert_eq!(read(&"2".repeat(LINE_BYTES_MAX + 1)), Err(NotSmtp));
        let longest = format!("250 {}", "x".repeat(LINE_BYTES_MAX - 4));
        assert_eq!(read(&longest), Ok(None));
        assert_eq!(read(&format!("{longest}\r")), Ok(None), "its end may come in two pieces");
        assert!(matches!(read(&format!("{longest}\r\n")), Ok(Some(_))));
        assert_eq!(read(&format!("{longest}x\r\n")), Err(NotSmtp));
        assert_eq!(read(&"250-a\r\n".repeat(LINES_MAX + 1)), Err(NotSmtp));
        assert_eq!(read(&"250-a\r\n".repeat(LINES_MAX)), Ok(None));
    }

    #[test]
    fn what_is_written_is_read_again_and_cannot_break_a_line() {
        let reply = Reply {
            code: 421,
            enhanced: Some((4, 3, 2)),
            lines: vec!["one".to_owned(), "two\r\n250 ok\u{7f}".to_owned()],
        };
        let mut out = BytesMut::new();
        write(&reply, &mut out);
        assert_eq!(&out[..], b"421-4.3.2 one\r\n421 4.3.2 two??250 ok?\r\n");
        let read = ReplyReader::default().next(&mut out).unwrap().unwrap();
        assert_eq!((read.code, read.enhanced), (421, Some((4, 3, 2))));
    }
}
