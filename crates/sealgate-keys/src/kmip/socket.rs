//! A blocking socket whose reads and writes all end at one deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::waiting::Waiting;
use crate::tcp;

/// TCP or unix.
#[derive(Debug)]
pub(super) struct Socket {
    inner: Inner,
    deadline: Instant,
    /// What the system was last told, for reading and for writing: telling it again is not free.
    told: [Option<Duration>; 2],
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to the first address that answers.
    pub(super) fn tcp(addresses: &[SocketAddr], deadline: Instant) -> io::Result<Self> {
        let stream = tcp::connect_blocking(addresses, deadline)?;
        Ok(Self::new(Inner::Tcp(stream), deadline))
    }

    /// Connects to a unix socket, which waits while the server's backlog is full.
    pub(super) fn unix(path: &Path, waiting: &Waiting, deadline: Instant) -> io::Result<Self> {
        let path = path.to_owned();
        let stream = waiting.until(deadline, move || UnixStream::connect(path))?;
        Ok(Self::new(Inner::Unix(stream), deadline))
    }

    fn new(inner: Inner, deadline: Instant) -> Self {
        Self { inner, deadline, told: [None; 2] }
    }

    /// From now on everything ends at this time, or [`STEP`] later.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = Some(in_steps(remaining(self.deadline)?));
        let [told, _] = &mut self.told;
        if *told != timeout {
            match &self.inner {
                Inner::Tcp(stream) => stream.set_read_timeout(timeout)?,
                Inner::Unix(stream) => stream.set_read_timeout(timeout)?,
            }
            *told = timeout;
        }
        let read = match &mut self.inner {
            Inner::Tcp(stream) => stream.read(buffer),
            Inner::Unix(stream) => stream.read(buffer),
        };
        read.map_err(timed_out)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = Some(in_steps(remaining(self.deadline)?));
        let [_, told] = &mut self.told;
        if *told != timeout {
            match &self.inner {
                Inner::Tcp(stream) => stream.set_write_timeout(timeout)?,
                Inner::Unix(stream) => stream.set_write_timeout(timeout)?,
            }
            *told = timeout;
        }
        let written = match &mut self.inner {
            Inner::Tcp(stream) => stream.write(bytes),
            Inner::Unix(stream) => stream.write(bytes),
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

/// Rounded up, so that one exchange after another has the same.
fn in_steps(time: Duration) -> Duration {
    let steps = time.as_millis().div_ceil(STEP.as_millis());
    STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

/// A socket's own timeout shows as "would block".
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { no_answer() } else { error }
}

pub(super) fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// How late a deadline may be noticed.
const STEP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_answered_ends_at_the_deadline_or_a_step_later() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let started = Instant::now();
        let mut socket = Socket::new(Inner::Unix(ours), started + Duration::from_millis(130));
        let error = socket.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= Duration::from_millis(130));
        assert_eq!(socket.told, [Some(Duration::from_millis(200)), None]);
        assert_eq!(socket.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(in_steps(Duration::from_millis(1)), STEP);
        assert_eq!(in_steps(STEP), STEP);
    }
}
