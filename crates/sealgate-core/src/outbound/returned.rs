//! What a notification returns of a mail that we opened: its header section, and no content (REQUIREMENTS B17, J3).
//!
//! RET=HDRS asks for that (RFC 3461 §4.3), and a mail server without DSN never hears it: it returns the whole mail. Whoever captured a
//! ciphertext could send it anew to a mailbox that is full, and would be sent its plaintext.

use bytes::Bytes;

use crate::message::Message;
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

/// The part that takes the place of one that holds an opened mail.
fn cut_if_opened(part: &Bytes) -> Option<Vec<u8>> {
    let part = Entity::parse(part.clone()).ok()?;
    let kind = part.header.content_type().ok()??;
    if !is_message(&kind) {
        return None;
    }
    let returned = Message::new(decode_body(&part).ok()?);
    let header = returned.header_section();
    if !was_opened(&header) {
        return None;
    }
    // RFC 6522 §4, and RFC 6533 §3 for what is not ASCII.
    let fields: &[u8] = if header.is_ascii() {
        b"Content-Type: text/rfc822-headers\r\n\r\n"
    } else {
        b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    };
    Some([fields, &header].concat())
}

fn is_message(kind: &ContentType) -> bool {
    kind.is("message", "rfc822") || kind.is("message", "global")
}

/// Whether our own field says so, which nobody else's mail has. The section is not parsed: on its way through the mail server it may have
/// come over a limit.
fn was_opened(header: &[u8]) -> bool {
    let header = header.to_ascii_lowercase();
    header.split(|&b| b == b'\n').any(|line| line.starts_with(OPENED))
}

/// How the field of an opened layer begins, in lower case.
const OPENED: &[u8] = b"x-sealgate-layer: encrypted";
