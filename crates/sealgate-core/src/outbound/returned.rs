//! What a notification returns of a mail that we opened: its header section, and no content (REQUIREMENTS B17, J3).
//!
//! RET=HDRS asks for that (RFC 3461 §4.3), and a mail server without DSN never hears it: it returns the whole mail. Whoever captured a
//! ciphertext could send it anew to a mailbox that is full, and would be sent its plaintext.

use bytes::Bytes;

use crate::mime::{ContentType, Entity, Field, Multipart, decode_body};
use crate::outbound::outer_fields;
use crate::policy::Policy;

/// The report (RFC 6522) with the header section in place of each mail that we opened; `None` where it returns no such mail.
pub(super) fn without_opened_content(report: &Entity, policy: &Policy) -> Option<Entity> {
    let kind = report.header.content_type().ok()??;
    if !kind.is("multipart", "report") {
        return None;
    }
    let boundary = kind.boundary().ok()?;
    let parts = Multipart::split(&report.body, &boundary).ok()?;
    let cut: Vec<_> = parts.parts.iter().map(cut_if_opened).collect();
    if cut.iter().all(Option::is_none) {
        return None;
    }
    // The mail server's own signature is over the content that is gone.
    let is_broken = |field: &Field<'_>| outer_fields::is_own_dkim_signature(field, &policy.domains);
    let mut bytes = report.header.without(is_broken);
    bytes.extend_from_slice(&parts.preamble);
    for (part, cut) in parts.parts.iter().zip(cut) {
        bytes.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        bytes.extend_from_slice(cut.as_deref().unwrap_or(part));
    }
    bytes.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    bytes.extend_from_slice(&parts.epilogue);
    Entity::parse(Bytes::from(bytes)).ok()
}

/// The part that takes the place of one that holds an opened mail, or what cannot be read and may be one.
fn cut_if_opened(part: &Bytes) -> Option<Vec<u8>> {
    let part = Entity::parse(part.clone()).ok()?;
    let kind = part.header.content_type().ok()??;
    if !is_message(&kind) {
        return None;
    }
    let Ok(returned) = decode_body(&part) else { return Some(HEADERS.to_vec()) };
    let header = header_section(&returned);
    if !was_opened(header) {
        return None;
    }
    let fields = if header.is_ascii() { HEADERS } else { GLOBAL_HEADERS };
    Some([fields, header].concat())
}

fn is_message(kind: &ContentType) -> bool {
    kind.is("message", "rfc822") || kind.is("message", "global")
}

/// Up to the first empty line, whatever ends the lines: what was encoded may have other ends than mail on the wire.
fn header_section(message: &[u8]) -> &[u8] {
    let mut end = 0_usize;
    for line in message.split_inclusive(|&b| b == b'\n') {
        if line.trim_ascii().is_empty() {
            break;
        }
        end = end.saturating_add(line.len());
    }
    message.get(..end).unwrap_or_default()
}

/// Whether our own field says so, which nobody else's mail has. The section is not parsed: on its way through the mail server it may have
/// come over a limit, and the field may have been folded anew.
fn was_opened(header: &[u8]) -> bool {
    let mut of_layer = false;
    header.split(|&b| b == b'\n').any(|line| {
        let is_continued = line.first().is_some_and(|&b| b == b' ' || b == b'\t');
        let value = match line.split_at_checked(LAYER.len()) {
            _ if is_continued => line,
            Some((name, value)) if name.eq_ignore_ascii_case(LAYER) => value,
            _ => b"",
        };
        of_layer = if is_continued { of_layer } else { !value.is_empty() };
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii_start();
        of_layer && value.get(..OPENED.len()).is_some_and(|word| word.eq_ignore_ascii_case(OPENED))
    })
}

/// The field of a layer, and how it begins where that was opened.
const LAYER: &[u8] = b"X-Sealgate-Layer";
const OPENED: &[u8] = b"encrypted";
/// RFC 6522 §4.
const HEADERS: &[u8] = b"Content-Type: text/rfc822-headers\r\n\r\n";
/// RFC 6533 §3, for what is not ASCII.
const GLOBAL_HEADERS: &[u8] =
    b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
