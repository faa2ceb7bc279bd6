//! One connection, plain or within TLS, with the two ways of writing that the relay needs.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// None any more.
    Closed,
    /// Without TLS.
    Plain(TcpStream),
    /// Within TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// Within this process.
    #[cfg(test)]
    Memory(super::schedules::End),
}

/// Why [`Stream::write_all_watching`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything is written.
    All,
    /// The other side said something meanwhile; it is in the input. Not everything is written.
    Interrupted,
}

impl Stream {
    /// Reads what there is, at least one octet; 0 is the end.
    pub(crate) async fn read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        make_room(input);
        let octets = self.read_buf(input).await?;
        grow(input);
        Ok(octets)
    }

    /// Writes `output` and empties it. Given up in the middle, it leaves what is not written yet.
    pub(crate) async fn write(&mut self, output: &mut BytesMut) -> io::Result<()> {
        if !output.is_empty() {
            self.write_all_buf(output).await?;
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes a queue of slices, gathered into few system calls. While the other side takes nothing, it is listened to:
    /// a server may refuse in the middle of the content and read no further.
    pub(crate) async fn write_all_watching(
        &mut self,
        output: &mut VecDeque<Bytes>,
        input: &mut BytesMut,
    ) -> io::Result<Written> {
        std::future::poll_fn(|context| {
            while !output.is_empty() {
                match self.poll_write_queue(context, output) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return self.poll_interruption(context, input),
                }
            }
            let flushed = Pin::new(&mut *self).poll_flush(context);
            flushed.map(|result| result.map(|()| Written::All))
        })
        .await
    }

    /// Whether an idle connection is still of use: nothing has come, not even an end.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut octet = [0_u8; 1];
        let mut buffer = ReadBuf::new(&mut octet);
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(self).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// Takes the TCP connection out for a TLS handshake; `None` within TLS already.
    pub(crate) fn take_plain(&mut self) -> Option<TcpStream> {
        match std::mem::replace(self, Self::Closed) {
            Self::Plain(tcp) => Some(tcp),
            Self::Closed | Self::Tls(_) => None,
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// Protocol version and cipher suite.
    pub(crate) fn tls_description(&self) -> Option<String> {
        let Self::Tls(tls) = self else { return None };
        let (_, connection) = tls.get_ref();
        let version = connection.protocol_version()?;
        let suite = connection.negotiated_cipher_suite()?;
        Some(format!("{version:?} {:?}", suite.suite()))
    }

    /// What the other side showed in the handshake, its own certificate first; none without TLS.
    pub(crate) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        let Self::Tls(tls) = self else { return None };
        tls.get_ref().1.peer_certificates()
    }

    fn poll_write_queue(
        &mut self,
        context: &mut Context<'_>,
        output: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, octets) in slices.iter_mut().zip(output.iter()) {
            *slot = IoSlice::new(octets);
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        let written = match Pin::new(self).poll_write_vectored(context, slices) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        drop_written(output, written);
        Poll::Ready(Ok(()))
    }

    fn poll_interruption(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<Written>> {
        let mut octets = [0_u8; INTERRUPTION_BYTES];
        let mut buffer = ReadBuf::new(&mut octets);
        match Pin::new(self).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            Poll::Ready(Ok(())) => {
                input.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(Written::Interrupted))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// An empty buffer for a connection on which short texts come.
pub(super) fn small_input() -> BytesMut {
    BytesMut::with_capacity(READ_BYTES_MIN)
}

/// Makes room for a read; where everything was taken out, the whole buffer is used again.
fn make_room(input: &mut BytesMut) {
    let is_reused = input.is_empty()
        && (input.try_reclaim(READ_BYTES_MAX) || input.try_reclaim(READ_BYTES_FIRST));
    if !is_reused {
        input.reserve(READ_BYTES_MIN);
    }
}

/// Makes a buffer that a read has filled a larger one. Large messages come in few system calls then, and thousands of
/// connections on which little is said take little memory.
fn grow(input: &mut BytesMut) {
    let length = input.len();
    let wanted = if length < READ_BYTES_FIRST { READ_BYTES_FIRST } else { READ_BYTES_MAX };
    if length == input.capacity() && length < wanted {
        input.reserve(wanted - length);
    }
}

/// Gives back a buffer that messages were read with, for a time in which hardly anything comes. What was pipelined stays.
pub(super) fn let_go(input: &mut BytesMut) {
    if input.len() < READ_BYTES_MIN {
        let mut small = small_input();
        small.extend_from_slice(input);
        *input = small;
    }
}

fn drop_written(output: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = output.front_mut() {
        if written < first.len() {
            first.advance(written);
            return;
        }
        written -= first.len();
        output.pop_front();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Closed => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(test)]
            Self::Memory(end) => Pin::new(end).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Self::Plain(stream) => Pin::new(stream).poll_write(context, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, octets),
            #[cfg(test)]
            Self::Memory(end) => Pin::new(end).poll_write(context, octets),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            #[cfg(test)]
            Self::Memory(end) => Pin::new(end).poll_write_vectored(context, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Closed => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(test)]
            Self::Memory(end) => Pin::new(end).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Closed => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(test)]
            Self::Memory(end) => Pin::new(end).poll_shutdown(context),
        }
    }
}

/// Room for a mail with little in it, and more than one record of TLS holds (RFC 8446 §5.1).
pub(super) const READ_BYTES_FIRST: usize = 20 << 10;
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// Slices of one gathered write.
const SLICES_MAX: usize = 64;
/// A refusal in the middle of the content is short.
const INTERRUPTION_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a read of so many octets does, all of which are taken out at once, in one way or the other.
    fn read_and_take(input: &mut BytesMut, octets: usize, clear: bool) {
        make_room(input);
        assert!(input.capacity() - input.len() >= READ_BYTES_MIN);
        let octets = octets.min(input.capacity() - input.len());
        input.extend_from_slice(&vec![b'x'; octets]);
        grow(input);
        if clear {
            input.clear();
        } else {
            input.advance(input.len());
        }
    }

    #[test]
    fn a_buffer_grows_when_a_read_fills_it_and_not_by_what_comes_one_after_another() {
        for clear in [true, false] {
            let mut input = BytesMut::with_capacity(READ_BYTES_FIRST);
            (0..100).for_each(|_| read_and_take(&mut input, 16_384, clear));
            make_room(&mut input);
            assert_eq!(input.capacity(), READ_BYTES_FIRST);
            let_go(&mut input);
            read_and_take(&mut input, 1 << 20, clear);
            make_room(&mut input);
            assert_eq!(input.capacity(), READ_BYTES_FIRST);
            for _ in 0..100 {
                read_and_take(&mut input, 1 << 20, clear);
                make_room(&mut input);
                assert_eq!(input.capacity(), READ_BYTES_MAX);
            }
        }
    }

    #[test]
    fn a_line_that_is_not_whole_yet_keeps_its_place() {
        let mut input = small_input();
        for octet in 0..=u8::MAX {
            make_room(&mut input);
            input.extend_from_slice(&[octet; 100]);
            grow(&mut input);
        }
        assert_eq!(input.len(), 25_600);
        assert!(input.chunks(100).zip(0..=u8::MAX).all(|(line, octet)| line == [octet; 100]));
        assert!(input.capacity() <= READ_BYTES_MAX, "{}", input.capacity());
        input.advance(25_500);
        let_go(&mut input);
        assert_eq!((&input[..], input.capacity()), (&[u8::MAX; 100][..], READ_BYTES_MIN));
    }
}
