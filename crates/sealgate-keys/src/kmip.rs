//! KMIP 1.2 to 1.4 (OASIS Key Management Interoperability Protocol), as far as keys for mail need it: the encoding
//! ([`ttlv`]), the messages ([`message`]) of both sides, and the names under which sealgate keeps keys.
//!
//! The client of a key management server and our own server share all of this, so that what one writes the other reads.

pub mod attribute;
pub mod client;
pub mod enumeration;
pub mod message;
pub mod object;
pub mod request;
pub mod response;
pub mod ttlv;

mod permits;
mod socket;
mod waiting;

/// Name of an owner's private keys at our own key management server, and by default at others.
pub const KEY_NAME: &str = "sealgate/{address}/key";
/// Name of an owner's certificates, those of the issuers among them.
pub const CERTIFICATE_NAME: &str = "sealgate/{address}/certificate";
/// Registered by IANA for KMIP over TLS.
pub const PORT: u16 = 5696;
/// What our own key server calls itself, and whose extension of messages a use of a key carries.
pub const VENDOR: &str = "sealgate";
