//! Tables, JSON and times on standard output.

use std::io::Write as _;

use sealgate_core::keys::{Certificate, KeyKind, Timestamp};
use serde_json::{Value, json};

use super::Failure;

/// Writes to standard output; a reader that went away ends the command in silence.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Said(0),
        _ => Failure::Unavailable(format!("standard output: {error}")),
    })
}

/// Writes a message to standard output; a reader that went away before its end has not got it.
pub(crate) fn write_message(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| Failure::Unavailable(format!("standard output: {error}")))
}

/// Writes a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a line to standard error, about what was done and is not all well.
pub(crate) fn warning(text: &str) {
    // Nobody to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "sealgate: warning: {}", printable(text));
}

/// Writes a JSON value, for people too.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Writes rows under their heads, columns aligned.
pub(crate) fn table<const COLUMNS: usize>(
    heads: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> Result<(), Failure> {
    let mut widths = heads.map(|head| head.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for cells in std::iter::once(heads.map(str::to_owned)).chain(rows.iter().cloned()) {
        let mut printed = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            printed.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(printed.trim_end());
        text.push('\n');
    }
    write(text.as_bytes())
}

/// `2026-11-23T07:00:00Z`.
pub(crate) fn time(timestamp: Timestamp) -> String {
    jiff::Timestamp::from_second(timestamp.0)
        .map_or_else(|_| timestamp.0.to_string(), |time| time.to_string())
}

/// `2026-11-23`.
pub(crate) fn date(timestamp: Timestamp) -> String {
    time(timestamp).chars().take(10).collect()
}

/// `rsa-3072`, `p256`, ...
pub(crate) fn key_kind(kind: KeyKind) -> String {
    match kind {
        KeyKind::Ed25519 => "ed25519".to_owned(),
        KeyKind::P256 => "p256".to_owned(),
        KeyKind::P384 => "p384".to_owned(),
        KeyKind::P521 => "p521".to_owned(),
        KeyKind::Rsa { bits } => format!("rsa{bits}"),
        KeyKind::X25519 => "x25519".to_owned(),
        _ => "unsupported".to_owned(),
    }
}

/// The facts of a certificate that `list` and `show` give.
pub(crate) fn certificate_json(certificate: &Certificate) -> Value {
    let addresses: Vec<_> = certificate.addresses().iter().map(ToString::to_string).collect();
    json!({
        "subject": certificate.subject(),
        "issuer": certificate.issuer(),
        "serial": certificate.serial(),
        "addresses": addresses,
        "key": key_kind(certificate.key_kind()),
        "not_before": time(certificate.not_before()),
        "not_after": time(certificate.not_after()),
        "sha256": certificate.fingerprint().to_string(),
    })
}

/// The same as lines for people.
pub(crate) fn certificate_text(certificate: &Certificate) -> String {
    let addresses: Vec<_> = certificate.addresses().iter().map(ToString::to_string).collect();
    format!(
        "  subject    {}\n  issuer     {}\n  serial     {}\n  addresses  {}\n  key        {}\n  \
         valid      {} to {}\n  sha256     {}\n",
        printable(certificate.subject()),
        printable(certificate.issuer()),
        certificate.serial(),
        printable(&addresses.join(", ")),
        key_kind(certificate.key_kind()),
        time(certificate.not_before()),
        time(certificate.not_after()),
        certificate.fingerprint(),
    )
}

/// Foreign text on a terminal: no control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// PEM (RFC 7468 §5).
pub(crate) fn certificate_pem(certificate: &Certificate) -> String {
    pem("CERTIFICATE", certificate.der())
}

/// PEM (RFC 7468 §6).
pub(crate) fn crl_pem(der: &[u8]) -> String {
    pem("X509 CRL", der)
}

fn pem(label: &str, der: &[u8]) -> String {
    let digits = base64(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_COLUMNS));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// RFC 7468 §2.
const PEM_COLUMNS: usize = 64;
