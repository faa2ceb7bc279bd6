//! Lines over a connection, as both scripted sides read and write them.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use super::pipe::{End, Mark};
use super::world::is_calm;

/// The connection is of no use any more.
#[derive(Debug)]
pub(super) struct Over;

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Line {
    end: Option<End>,
    pub(super) input: BytesMut,
    /// What one read takes at most, and the pause before it.
    slow: Option<(usize, Duration)>,
    /// Octets that may still be written before the connection is cut.
    pub(super) cut_after: Option<usize>,
}

impl Line {
    /// Over this end.
    pub(super) fn new(end: End, slow: Option<(usize, Duration)>) -> Self {
        Self { end: Some(end), input: BytesMut::new(), slow, cut_after: None }
    }

    /// Reads more into the input.
    pub(super) async fn more(&mut self) -> Result<(), Over> {
        let (most, pause) = self.slow.unwrap_or((READ_BYTES_MAX, Duration::ZERO));
        if !pause.is_zero() && !is_calm() {
            sleep(pause).await;
        }
        let end = self.end.as_mut().ok_or(Over)?;
        let mut limited = end.take(u64::try_from(most).unwrap());
        self.input.reserve(most);
        match limited.read_buf(&mut self.input).await {
            Ok(octets) if octets > 0 => Ok(()),
            Ok(_) | Err(_) => Err(Over),
        }
    }

    /// One line, without its CRLF.
    pub(super) async fn line(&mut self) -> Result<String, Over> {
        loop {
            if let Some(at) = self.input.iter().position(|octet| *octet == b'\n') {
                let line = self.input.split_to(at);
                self.input.advance(1);
                return Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
            }
            self.more().await?;
        }
    }

    /// Writes all of it, or cuts the connection where that is planned.
    pub(super) async fn write(&mut self, octets: &[u8]) -> Result<(), Over> {
        let end = self.end.as_mut().ok_or(Over)?;
        let whole = self.cut_after.is_none_or(|left| left >= octets.len());
        let part = if whole { octets } else { &octets[..self.cut_after.unwrap()] };
        let written = end.write_all(part).await;
        self.cut_after = self.cut_after.map(|left| left.saturating_sub(octets.len()));
        if written.is_err() {
            return Err(Over);
        }
        if !whole {
            self.hang_up(part.len().is_multiple_of(2));
            return Err(Over);
        }
        Ok(())
    }

    /// Everything written so far.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.end.as_ref().map(End::mark)
    }

    /// Whether this side has ended it.
    pub(super) fn is_cut(&self) -> bool {
        self.end.is_none()
    }

    /// Closes, or breaks the connection.
    pub(super) fn hang_up(&mut self, reset: bool) {
        match self.end.take() {
            Some(end) if reset => end.reset(),
            Some(_) | None => {}
        }
    }

    /// Says nothing any more, until the other side has enough.
    pub(super) async fn fall_silent(&mut self) -> Over {
        while self.more().await.is_ok() {
            self.input.clear();
        }
        Over
    }
}

const READ_BYTES_MAX: usize = 16 << 10;
