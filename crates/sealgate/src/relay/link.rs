//! One connection to one hop: octets of the core's SMTP client, out and in.

use std::io;

use bytes::BytesMut;
use sealgate_core::smtp::client::{Client, Event};
use tokio::time::Instant;

use super::stream::{Stream, Written};
use super::transport::Passage;

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) stream: Stream,
    pub(super) client: Client,
    pub(super) input: BytesMut,
    /// When it was made.
    pub(super) opened: Instant,
    /// Its hop has no other host or address.
    pub(super) is_only: bool,
    /// The server spoke before the content was all sent: no dot may follow, and no other message.
    pub(super) interrupted: bool,
    /// Questions at RCPT that it has answered, and those of them that it refused.
    pub(super) asked: Asked,
    /// TLS was offered and did not come about: what is refused over it need not be refused within TLS.
    pub(super) fell_back: bool,
    /// What it is, for the log.
    pub(super) passage: Passage,
}

/// How often a server was asked about recipients over one connection: it has limits of its own for that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) questions: usize,
    pub(super) refusals: usize,
}

impl Link {
    /// Whether it can be used again.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.client.is_idle() && self.input.is_empty() && self.stream.is_quiet()
    }

    /// Writes what is to be written and waits for the first octets of what the server says.
    pub(super) async fn hear(&mut self) -> io::Result<()> {
        self.write().await?;
        if self.input.is_empty() && self.stream.read(&mut self.input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// The next event; writes what is to be written and reads as needed.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        loop {
            self.write().await?;
            match self.client.advance(&mut self.input) {
                Event::NeedInput if !self.client.output().is_empty() => {}
                Event::NeedInput => {
                    if self.stream.read(&mut self.input).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                event => return Ok(event),
            }
        }
    }

    /// Writes the output, unless the server interrupts: what it said is then the next event.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        if self.client.output().is_empty() {
            return Ok(());
        }
        let Self { stream, client, input, interrupted, .. } = self;
        while stream.write_all_watching(client.output(), input).await? == Written::Interrupted {
            if client.is_sending_content() {
                client.output().clear();
                *interrupted = true;
                break;
            }
            if input.len() > EARLY_BYTES_MAX {
                return Err(io::Error::other("the server talks and does not listen"));
            }
        }
        Ok(())
    }
}

/// Replies that may come before all commands are written: a thousand recipients' and more.
const EARLY_BYTES_MAX: usize = 1 << 20;
