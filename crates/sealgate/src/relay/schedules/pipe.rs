//! A connection within this process: two octet streams with bounded room, which can be closed and reset, and which know how
//! much of them was read.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a connection. Dropped, it closes both directions.
#[derive(Debug)]
pub(crate) struct End {
    incoming: Arc<Direction>,
    outgoing: Arc<Direction>,
}

/// A place in what was written, to find out later whether the other side has read that far.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    direction: Arc<Direction>,
    position: u64,
}

#[derive(Debug)]
struct Direction(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    octets: VecDeque<u8>,
    room: usize,
    written: u64,
    read: u64,
    /// Nothing more is written.
    closed: bool,
    /// Nobody reads any more.
    deaf: bool,
    /// What was on its way is lost.
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A connection; `room` is what may be on its way from the first end to the second and back.
pub(super) fn pair(room: (usize, usize)) -> (End, End) {
    let direction = |room| Arc::new(Direction(Mutex::new(State { room, ..State::default() })));
    let (there, back) = (direction(room.0), direction(room.1));
    let first = End { incoming: Arc::clone(&back), outgoing: Arc::clone(&there) };
    (first, End { incoming: there, outgoing: back })
}

impl End {
    /// Everything written so far.
    pub(super) fn mark(&self) -> Mark {
        let position = self.outgoing.lock().written;
        Mark { direction: Arc::clone(&self.outgoing), position }
    }

    /// Breaks the connection: what the other side has not read yet is lost.
    pub(super) fn reset(self) {
        for direction in [&self.incoming, &self.outgoing] {
            let mut state = direction.lock();
            state.reset = true;
            state.octets.clear();
            state.wake();
        }
    }
}

impl Mark {
    /// Whether the other side has read up to here.
    pub(super) fn is_heard(&self) -> bool {
        self.direction.lock().read >= self.position
    }
}

impl Direction {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn wake(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.outgoing.lock();
        state.closed = true;
        state.wake();
        drop(state);
        let mut state = self.incoming.lock();
        state.deaf = true;
        state.wake();
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.incoming.lock();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = state.octets.len().min(buffer.remaining());
        if count == 0 && !state.closed && buffer.remaining() > 0 {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (first, second) = state.octets.as_slices();
        let from_first = first.len().min(count);
        buffer.put_slice(&first[..from_first]);
        buffer.put_slice(&second[..count - from_first]);
        state.octets.drain(..count);
        state.read += u64::try_from(count).unwrap();
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.outgoing.lock();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if state.deaf || state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = octets.len().min(state.room.saturating_sub(state.octets.len()));
        if count == 0 && !octets.is_empty() {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.octets.extend(&octets[..count]);
        state.written += u64::try_from(count).unwrap();
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.outgoing.lock();
        state.closed = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }
}
