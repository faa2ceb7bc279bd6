//! A blocking socket whose reads and writes all end at one deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::waiting::Waiting;

/// TCP or unix.
#[derive(Debug)]
pub(super) struct Socket {
    inner: Inner,
    deadline: Instant,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to the first address that answers.
    pub(super) fn tcp(
        addresses: impl Iterator<Item = SocketAddr>,
        deadline: Instant,
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address for this name");
        for address in addresses {
            match TcpStream::connect_timeout(&address, remaining(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self { inner: Inner::Tcp(stream), deadline });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to a unix socket, which waits while the server's backlog is full.
    pub(super) fn unix(path: &Path, waiting: &Waiting, deadline: Instant) -> io::Result<Self> {
        let path = path.to_owned();
        let stream = waiting.until(deadline, move || UnixStream::connect(path))?;
        Ok(Self { inner: Inner::Unix(stream), deadline })
    }

    /// From now on everything ends at this time.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = Some(remaining(self.deadline)?);
        let read = match &mut self.inner {
            Inner::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.read(buffer)
            }
            Inner::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.read(buffer)
            }
        };
        read.map_err(timed_out)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = Some(remaining(self.deadline)?);
        let written = match &mut self.inner {
            Inner::Tcp(stream) => {
                stream.set_write_timeout(timeout)?;
                stream.write(bytes)
            }
            Inner::Unix(stream) => {
                stream.set_write_timeout(timeout)?;
                stream.write(bytes)
            }
        };
        written.map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(no_answer()) } else { Ok(remaining) }
}

/// A socket's own timeout shows as "would block".
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { no_answer() } else { error }
}

pub(super) fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}
