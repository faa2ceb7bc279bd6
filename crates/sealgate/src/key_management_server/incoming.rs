//! Whole KMIP requests out of a connection, each with one read as a rule.

use std::io;

use sealgate_keys::kmip::ttlv::{HEADER_BYTES, message_bytes};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::{Zeroize, Zeroizing};

/// What was read and belongs to no message that was taken yet. A request may carry a secret key.
pub(super) struct Incoming {
    bytes: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl Incoming {
    /// Nothing so far.
    pub(super) fn new() -> Self {
        Self { bytes: Zeroizing::new(vec![0; READ_BYTES]), filled: 0 }
    }

    /// Waits for the beginning of a message; whether there is one before the end. May be cancelled.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn begin<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<bool> {
        Ok(self.filled > 0 || self.read(stream).await? > 0)
    }

    /// The message that has begun.
    ///
    /// # Errors
    /// What comes is no KMIP request, too long, or ends too early.
    pub(super) async fn message<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> io::Result<Zeroizing<Vec<u8>>> {
        while self.filled < HEADER_BYTES {
            if self.read(stream).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let header = self.bytes.first_chunk().ok_or_else(no_request)?;
        if !header.starts_with(&REQUEST_MESSAGE) {
            return Err(no_request());
        }
        let length = message_bytes(header).map_err(io::Error::other)?;
        let mut message = Zeroizing::new(vec![0; length]);
        let here = self.filled.min(length);
        let (start, rest) = message.split_at_mut(here);
        self.take(start);
        stream.read_exact(rest).await?;
        Ok(message)
    }

    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        let free = self.bytes.get_mut(self.filled..).unwrap_or_default();
        let read = stream.read(free).await?;
        self.filled = self.filled.saturating_add(read);
        Ok(read)
    }

    /// Moves the first octets out; those after them stay, and nothing else does.
    fn take(&mut self, out: &mut [u8]) {
        let (taken, _) = self.bytes.split_at(out.len());
        out.copy_from_slice(taken);
        self.bytes.copy_within(out.len()..self.filled, 0);
        let left = self.filled.saturating_sub(out.len());
        if let Some(stale) = self.bytes.get_mut(left..self.filled) {
            stale.zeroize();
        }
        self.filled = left;
    }
}

fn no_request() -> io::Error {
    io::Error::other("no KMIP request")
}

/// Tag and type of a request (KMIP 1.4 §9.1).
const REQUEST_MESSAGE: [u8; 4] = [0x42, 0x00, 0x78, 0x01];
/// A request to sign or to decrypt is shorter.
const READ_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with so many octets after its header.
    fn message(length: u32) -> Vec<u8> {
        let body = (0..length).map(|at| at.to_le_bytes()[0]);
        [&REQUEST_MESSAGE[..], &length.to_be_bytes()].concat().into_iter().chain(body).collect()
    }

    async fn all(mut stream: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let (mut incoming, mut messages) = (Incoming::new(), Vec::new());
        while incoming.begin(&mut stream).await? {
            messages.push(incoming.message(&mut stream).await?.to_vec());
            let stale = incoming.bytes.get(incoming.filled..).unwrap();
            assert!(stale.iter().all(|octet| *octet == 0), "octets of a message stay");
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn messages_come_whole_however_they_are_cut() {
        let sent = [message(0), message(16), message(3000), message(1016), message(8)];
        assert_eq!(all(&sent.concat()).await.unwrap(), sent);
        let (mut client, mut server) = tokio::io::duplex(7);
        let bytes = sent.concat();
        tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client, &bytes).await;
        });
        let mut incoming = Incoming::new();
        for expected in &sent {
            assert!(incoming.begin(&mut server).await.unwrap());
            assert_eq!(*incoming.message(&mut server).await.unwrap(), *expected);
        }
        assert!(!incoming.begin(&mut server).await.unwrap());
    }

    #[tokio::test]
    async fn what_is_no_request_or_ends_early_is_an_error() {
        assert!(all(b"GET / HTTP/1.1\r\n").await.is_err());
        assert!(all(message(16).split_last().unwrap().1).await.is_err());
        assert!(all(&REQUEST_MESSAGE).await.is_err());
        assert!(all(b"").await.unwrap().is_empty());
    }
}
