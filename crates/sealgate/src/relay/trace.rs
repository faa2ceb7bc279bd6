//! Trace of a message: its id, its one new Received field (RFC 5321 §4.4), and the detection of loops (§6.3).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sealgate_core::message::Message;
use sealgate_core::refusal::Refusal;

/// A transaction's id: unique on this machine, sortable by time, and safe in a header and a reply.
pub(crate) fn transaction_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
        Some(now.max(last.saturating_add(1)))
    });
    let mut number = now.max(last.unwrap_or(now).saturating_add(1));
    let mut digits = [0_u8; ID_DIGITS];
    for digit in digits.iter_mut().rev() {
        let index = usize::try_from(number % 32).unwrap_or_default();
        *digit = ALPHABET.get(index).copied().unwrap_or(b'0');
        number /= 32;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// How a message came in.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The name that the client gave.
    pub(crate) hello: String,
    /// Its address.
    pub(crate) peer: IpAddr,
    /// `ESMTP`, `ESMTPS`, `SMTP`, `LMTP`, ... (RFC 3848).
    pub(crate) protocol: &'static str,
    /// TLS version and cipher.
    pub(crate) tls: Option<String>,
}

/// The trace field with its CRLF. Recipients are not in it: a Bcc must not show (RFC 5321 §7.2).
pub(crate) fn received_field(origin: &Origin, hostname: &str, id: &str) -> Vec<u8> {
    let peer = match origin.peer.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    let tls = origin.tls.as_ref().map(|tls| format!("\r\n\t(using {tls})")).unwrap_or_default();
    let hello = comment_safe(&origin.hello);
    let protocol = origin.protocol;
    let date = date();
    format!(
        "Received: from {hello} ({peer}){tls}\r\n\tby {hostname} {OUR_COMMENT} with {protocol} \
         id {id};\r\n\t{date}\r\n"
    )
    .into_bytes()
}

/// The time as header fields have it (RFC 5322 §3.3).
pub(crate) fn date() -> String {
    #[cfg(test)]
    if super::schedules::are_running() {
        return super::schedules::DATE.to_owned();
    }
    let date = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&date).unwrap_or_default()
}

/// # Errors
/// [`Refusal::Loop`] for more than `hops_max` Received fields, or ours more than [`OWN_HOPS_MAX`] times.
pub(crate) fn check_loop(
    message: &Message,
    hostname: &str,
    hops_max: usize,
) -> Result<(), Refusal> {
    let header = message.header_section();
    let own = format!("by {hostname} {OUR_COMMENT}").into_bytes();
    let (mut hops, mut own_hops, mut inside) = (0_usize, 0_usize, false);
    for line in header.split(|b| *b == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.get(..RECEIVED.len()).unwrap_or_default();
            inside = name.eq_ignore_ascii_case(RECEIVED);
            hops += usize::from(inside);
        }
        if inside && line.windows(own.len()).any(|window| window.eq_ignore_ascii_case(&own)) {
            own_hops += 1;
        }
    }
    if hops > hops_max || own_hops > OWN_HOPS_MAX { Err(Refusal::Loop) } else { Ok(()) }
}

/// A hello name that ends no comment and no line.
fn comment_safe(name: &str) -> String {
    let safe =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    name.chars().map(|c| if safe(c) { c } else { '?' }).collect()
}

const RECEIVED: &[u8] = b"Received:";
/// Marks our own trace fields.
const OUR_COMMENT: &str = "(sealgate)";
/// REQUIREMENTS A10.
const OWN_HOPS_MAX: usize = 3;
/// Crockford's base 32: no I, L, O, U to misread.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Microseconds since 1970 fit 11 digits until the year 3000.
const ID_DIGITS: usize = 11;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn ids_are_unique() {
        let ids: std::collections::HashSet<String> =
            (0..10_000).map(|_| transaction_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == ID_DIGITS));
    }

    #[test]
    fn the_field_says_from_where_and_how() {
        let origin = Origin {
            hello: "a(b)\r\n.example".to_owned(),
            peer: "2001:db8::1".parse().unwrap(),
            protocol: "ESMTPS",
            tls: Some("TLSv1_3 X".to_owned()),
        };
        let field = String::from_utf8(received_field(&origin, "gate.nec.example", "ID1")).unwrap();
        assert!(
            field.starts_with(
                "Received: from a?b???.example ([IPv6:2001:db8::1])\r\n\t(using TLSv1_3 X)\r\n\t\
             by gate.nec.example (sealgate) with ESMTPS id ID1;\r\n\t"
            ),
            "{field}"
        );
        assert!(field.ends_with("+0000\r\n"), "{field}");
        assert!(field.lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn loops_are_found_at_their_limits() {
        let check = |fields: String| {
            let message =
                Message::new(Bytes::from(format!("{fields}Subject: x\r\n\r\nReceived: body\r\n")));
            check_loop(&message, "gate.nec.example", 100).is_ok()
        };
        assert!(check("received: from a\r\n\tby b\r\n".repeat(100)));
        assert!(!check("received: from a\r\n\tby b\r\n".repeat(101)));
        let own = "Received: from a\r\n\tby gate.nec.example (sealgate) with SMTP id 1\r\n";
        assert!(check(own.repeat(3)));
        assert!(!check(own.repeat(4)));
        let others = "X-Received: a\r\n\tby gate.nec.example (sealgate) with SMTP id 1\r\n";
        assert!(check(others.repeat(4)));
    }
}
