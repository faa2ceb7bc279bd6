//! SMTP (RFC 5321) and LMTP (RFC 2033), both sides, bytes in and events out.
//!
//! [`server::Server`] and [`client::Client`] are state machines: the caller owns the sockets, the read buffer and the
//! clock, calls `advance` with what it has read, writes what is in `output`, and answers events. Neither knows
//! cryptography, policy or TLS: they say when TLS must start and are told when it has.
//!
//! Extensions: PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), DSN (RFC 3461),
//! ENHANCEDSTATUSCODES (RFC 2034), STARTTLS (RFC 3207), CHUNKING (RFC 3030, without BINARYMIME; as a server).

pub mod client;
pub mod command;
pub mod data;
pub mod reply;
pub mod server;

/// Which of the two protocols is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 2033: one reply per recipient after the content.
    Lmtp,
    /// RFC 5321.
    Smtp,
}
