//! The result on top of inbound mail: Authentication-Results (RFC 8601, RFC 7281) and X-Sealgate-*; and what looks like
//! them on entry.

use crate::address::Domain;
use crate::mime::Field;
use crate::report::{ID_FIELD, Layer, Report, Signer};

/// Whose results are believed inside (RFC 8601 §5).
#[derive(Clone, Copy, Debug)]
pub(super) struct Believed<'a> {
    /// Our authserv-id.
    pub(super) authserv_id: &'a str,
    /// Hosts of these domains, which are behind us: what they find out they say later. Empty where a host before us may have
    /// said it.
    pub(super) domains: &'a [Domain],
}

/// Whether a field claims to be ours (REQUIREMENTS E2, E3): any X-Sealgate field, and Authentication-Results of
/// somebody who is believed inside or in a form that a reader may take for it.
pub(super) fn looks_like_ours(field: &Field<'_>, believed: Believed<'_>) -> bool {
    if field.name_starts_with(OURS) {
        return true;
    }
    if !field.is("Authentication-Results") {
        return false;
    }
    let value = field.value_unfolded();
    // Some decode an encoded word even here, where none may stand (RFC 2047 §5).
    value.contains("=?")
        || claimed_authserv_id(&value).is_none_or(|claimed| believed.names(&claimed))
}

/// The fields to put on top, each line ended by CRLF and below 998 octets; with or without the recipient whose key opened it.
pub(super) fn write(report: &Report, authserv_id: &str, names_recipient: bool) -> Vec<u8> {
    let mut text =
        format!("Authentication-Results: {};\r\n\t{}", plain(authserv_id), results(report));
    text.push_str(&format!("\r\n{ID_FIELD}: {}\r\n", plain(&report.id)));
    text.push_str(&format!("X-Sealgate-Verdict: {}", report.verdict.as_str()));
    if let Some(reason) = report.reason {
        text.push_str(&format!("; reason={}", reason.as_str()));
    }
    text.push_str("\r\n");
    for layer in &report.layers {
        text.push_str(&layer_field(layer, names_recipient));
    }
    text.into_bytes()
}

/// What follows the authserv-id, here and in an ARC set: our verdict, and what the sender's domain says.
pub(super) fn results(report: &Report) -> String {
    let mut text = format!("smime={}", report.verdict.as_str());
    if let Some(reason) = report.reason {
        text.push_str(&format!(" reason={}", reason.as_str()));
    }
    if let Some(signer) = author_signer(report) {
        text.push_str(&format!("\r\n\tbody.smime-identifier={}", quoted(&signer.address)));
        text.push_str(&format!("\r\n\tbody.smime-serial={}", plain(&signer.serial)));
        text.push_str(&format!("\r\n\tbody.smime-issuer={}", quoted(&signer.issuer)));
    }
    for one in &report.authentication {
        text.push_str(&format!(";\r\n\t{}={}", one.method, one.result));
        for (property, value) in &one.properties {
            text.push_str(&format!("\r\n\t{property}={}", address_or_quoted(value)));
        }
    }
    text
}

/// Who signed what the verdict is on.
fn author_signer(report: &Report) -> Option<&Signer> {
    let layer = match report.author_layer {
        Some(index) => report.layers.get(index),
        None => report.layers.last(),
    };
    match layer? {
        Layer::Signed { signer, .. } => signer.as_ref(),
        Layer::Encrypted { .. } => None,
    }
}

fn layer_field(layer: &Layer, names_recipient: bool) -> String {
    match layer {
        Layer::Encrypted { content, key, recipient, .. } => {
            let recipient = match names_recipient {
                true => format!(";\r\n\trecipient={}", quoted(recipient)),
                false => String::new(),
            };
            format!(
                "X-Sealgate-Layer: encrypted; format=smime; content={}; key={}{recipient}\r\n",
                plain(content),
                plain(key),
            )
        }
        Layer::Signed { status, signer, digest, signature, .. } => {
            let status = match status {
                crate::report::SignatureStatus::Falsified => "falsified",
                crate::report::SignatureStatus::Unverifiable => "unverifiable",
                crate::report::SignatureStatus::Valid => "valid",
            };
            let mut text = format!(
                "X-Sealgate-Layer: signed; format=smime; status={status}; digest={}; signature={}",
                plain(digest),
                plain(signature)
            );
            if let Some(signer) = signer {
                text.push_str(&format!(
                    ";\r\n\tsigner={};\r\n\tsubject={};\r\n\tissuer={};\r\n\tserial={};\r\n\tsha256={}",
                    quoted(&signer.address),
                    quoted(&signer.subject),
                    quoted(&signer.issuer),
                    plain(&signer.serial),
                    signer.sha256
                ));
            }
            text.push_str("\r\n");
            text
        }
    }
}

/// A quoted-string (RFC 5322 §3.2.4) that no certificate can break out of: printable ASCII, bounded.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().take(VALUE_CHARS_MAX) {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

/// A domain or an address as it is (RFC 8601 §2.2), anything else quoted.
fn address_or_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '+');
    if !text.is_empty() && text.len() <= VALUE_CHARS_MAX && text.chars().all(is_plain) {
        return text.to_owned();
    }
    quoted(text)
}

/// A token: everything else becomes `_`.
fn plain(text: &str) -> String {
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    text.chars().take(VALUE_CHARS_MAX).map(|c| if is_token(c) { c } else { '_' }).collect()
}

/// The authserv-id of a value: comments and white space skipped, quotes taken off (RFC 8601 §2.2). `None` where it has
/// none, or one that is neither token nor quoted, or a version that is not 1 (E2).
fn claimed_authserv_id(value: &str) -> Option<String> {
    let bare = without_comments(value);
    let first = bare.split(';').next()?.trim();
    let (id, rest) = match first.strip_prefix('"') {
        Some(inside) => inside.split_once('"')?,
        None => {
            let (id, rest) = first.split_once(char::is_whitespace).unwrap_or((first, ""));
            // RFC 2045 §5.1, and letters of all scripts (RFC 8616 §4).
            let is_token = |c: char| c.is_alphanumeric() || "!#$%&'*+-.^_`{|}~".contains(c);
            (id.chars().all(is_token).then_some(id)?, rest)
        }
    };
    let version = rest.trim();
    (!id.is_empty() && (version.is_empty() || version == "1")).then(|| id.to_owned())
}

fn without_comments(value: &str) -> String {
    let mut depth = 0_usize;
    let mut escaped = false;
    let mut quoted = false;
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        let was_escaped = std::mem::replace(&mut escaped, false);
        match c {
            '\\' if !was_escaped => escaped = true,
            '"' if !was_escaped && depth == 0 => {
                quoted = !quoted;
                out.push(c);
            }
            '(' if !was_escaped && !quoted => depth = depth.saturating_add(1),
            ')' if !was_escaped && !quoted && depth > 0 => {
                depth = depth.saturating_sub(1);
                out.push(' ');
            }
            _ if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

impl Believed<'_> {
    /// Case and IDNA make no difference.
    fn names(self, claimed: &str) -> bool {
        let claimed = folded(claimed);
        let is_of = |domain: &Domain| {
            let host = claimed.strip_suffix(&folded(domain.as_str()));
            host.is_some_and(|host| host.is_empty() || host.ends_with('.'))
        };
        claimed == folded(self.authserv_id) || self.domains.iter().any(is_of)
    }
}

fn folded(name: &str) -> String {
    let name = name.trim_end_matches('.');
    idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_ascii_lowercase())
}

/// Every field that sealgate asserts starts like this.
const OURS: &str = "X-Sealgate-";
/// Keeps every line below the 998 octets of RFC 5322 §2.1.1, escapes included.
const VALUE_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authserv_ids_are_found_through_comments_quotes_and_versions() {
        for (value, expected) in [
            (" gate.example; smime=pass", Some("gate.example")),
            (" (a (nested) comment) gate.example (x) ; none", Some("gate.example")),
            (" \"gate.example\" 1; none", Some("gate.example")),
            (" gate.example 2; none", None),
            ("", None),
        ] {
            assert_eq!(claimed_authserv_id(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn hosts_compare_folded() {
        let domains = [Domain::parse("bücher.example").unwrap()];
        let names = |domains: &[Domain], claimed: &str| {
            Believed { authserv_id: "gate.xn--bcher-kva.example", domains }.names(claimed)
        };
        assert!(names(&[], "GATE.Bücher.example."));
        for claimed in ["gate.xn--bcher-kva.example.org", "mail.bücher.example", "bücher.example"]
        {
            assert!(!names(&[], claimed), "{claimed}");
        }
        for claimed in ["MAIL.bücher.example", "mx.mail.xn--bcher-kva.example.", "bücher.example"]
        {
            assert!(names(&domains, claimed), "{claimed}");
        }
        for claimed in ["xbücher.example", "bücher.example.org", "example"] {
            assert!(!names(&domains, claimed), "{claimed}");
        }
    }

    #[test]
    fn a_certificate_cannot_inject_a_field() {
        let text = quoted("a\"\r\nX-Sealgate-Verdict: pass");
        assert!(!text.contains('\n') && !text.contains('\r'));
        assert!(text.starts_with("\"a\\\""));
    }
}
