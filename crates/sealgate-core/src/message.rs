//! A message as received: header section and body over one shared buffer, every byte kept.

use bytes::Bytes;

/// A message (RFC 5322) whose line ends are CRLF: the SMTP engine lets nothing else through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    body_offset: usize,
}

impl Message {
    /// Splits a message at the first empty line. A message without one is all header section.
    pub fn new(bytes: Bytes) -> Self {
        let body_offset = if bytes.starts_with(b"\r\n") {
            2
        } else {
            memchr::memmem::find(&bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at.saturating_add(4))
        };
        Self { bytes, body_offset }
    }

    /// The whole message.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The header section with the empty line that ends it.
    pub fn header_section(&self) -> Bytes {
        self.bytes.slice(..self.body_offset)
    }

    /// What follows the empty line.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(self.body_offset..)
    }
}
