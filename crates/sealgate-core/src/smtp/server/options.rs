//! What a server offers and bears.

use crate::address::Domain;
use crate::smtp::Protocol;

/// What a server offers and bears.
#[derive(Clone, Debug)]
pub struct Options {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The name in the greeting.
    pub hostname: Domain,
    /// The domain of `<postmaster>`.
    pub postmaster_domain: Domain,
    /// STARTTLS.
    pub starttls: StartTls,
    /// Whether SMTPUTF8 is offered.
    pub smtputf8: bool,
    /// Whether REQUIRETLS is offered, within TLS only (RFC 8689 §2).
    pub requiretls: bool,
    /// Whether DSN is offered.
    pub dsn: bool,
    /// The limits.
    pub limits: Limits,
}

/// What a server does about STARTTLS (RFC 3207).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// It is not offered.
    Absent,
    /// It is offered.
    Offered,
    /// Mail is taken within TLS only (§4).
    Required,
}

/// Bounds of a session (REQUIREMENTS K1, K9).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message.
    pub message_bytes_max: u64,
    /// Longest line of content, CRLF included. RFC 5321 §4.5.3.1.6 has 1000; more is taken because much software
    /// writes more, and what goes out is re-encoded.
    pub line_bytes_max: usize,
    /// Recipients of one message.
    pub recipients_max: usize,
    /// Commands between two messages, admitted recipients apart.
    pub commands_max: u32,
    /// Wrong commands of a session.
    pub errors_max: u32,
    /// Whether recipients who are refused for good count as wrong commands: where anybody may ask, that is guessing.
    pub refusals_are_errors: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 50 << 20,
            line_bytes_max: 64 << 10,
            recipients_max: 1000,
            commands_max: 1000,
            errors_max: 20,
            refusals_are_errors: false,
        }
    }
}
