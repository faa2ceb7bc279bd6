//! Between a directory server and the library that reads it. The library reads elements within elements by recursion and
//! gathers a message of any length: one message could end the process.
//!
//! In: what the server sends. Out: the same, as long as it is messages (RFC 4511 §5.1) of at most [`MESSAGE_BYTES_MAX`]
//! with elements at most [`DEPTH_MAX`] deep; of any other not an octet. What we send passes as it is.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, split};
use tokio::net::UnixStream;

/// A stream for the library, behind which the server is; it ends with the server's.
///
/// # Errors
/// The system's, where it has no sockets left.
pub(super) fn guarded<S>(server: S) -> io::Result<std::os::unix::net::UnixStream>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (ours, library) = UnixStream::pair()?;
    tokio::spawn(async move {
        if let Err(error) = pump(server, ours).await {
            tracing::warn!(%error, "the connection to a directory server ended");
        }
    });
    library.into_std()
}

/// Until either side ends.
async fn pump(server: impl AsyncRead + AsyncWrite, library: UnixStream) -> io::Result<()> {
    let (mut from_server, mut to_server) = split(server);
    let (mut from_library, mut to_library) = library.into_split();
    let ours = async {
        copy(&mut from_library, &mut to_server).await?;
        to_server.shutdown().await
    };
    let theirs = async {
        let mut received = BytesMut::new();
        while let Some(message) = next_message(&mut from_server, &mut received).await? {
            to_library.write_all(&message).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = ours => ended,
        ended = theirs => ended,
    }
}

/// The next whole message; `None` at the end. What came behind it stays in `received`.
///
/// # Errors
/// Of kind `InvalidData` where it is none that the library may see.
pub(super) async fn next_message(
    server: &mut (impl AsyncRead + Unpin),
    received: &mut BytesMut,
) -> io::Result<Option<Bytes>> {
    loop {
        if let Some(length) = whole_length(received)? {
            let message = received.split_to(length).freeze();
            check_depth(&message)?;
            return Ok(Some(message));
        }
        if server.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

/// The octets of the message that begins here; `None` where more must come.
fn whole_length(octets: &[u8]) -> io::Result<Option<usize>> {
    let Some(element) = Element::read(octets)? else { return Ok(None) };
    if element.whole > MESSAGE_BYTES_MAX {
        return Err(unfit("it sends a message that is too large"));
    }
    Ok((octets.len() >= element.whole).then_some(element.whole))
}

/// Goes through all elements without recursion; every one must end where it is enclosed.
pub(super) fn check_depth(message: &[u8]) -> io::Result<()> {
    let mut enclosing = Vec::with_capacity(DEPTH_MAX);
    let mut at = 0_usize;
    while let Some(rest) = message.get(at..).filter(|rest| !rest.is_empty()) {
        let malformed = || unfit("it sends a message that is no LDAP");
        let element = Element::read(rest)?.ok_or_else(malformed)?;
        let end = at.saturating_add(element.whole);
        let enclosed_by = enclosing.last().copied().unwrap_or(message.len());
        if end > enclosed_by {
            return Err(malformed());
        }
        if element.is_constructed {
            if enclosing.len() == DEPTH_MAX {
                return Err(unfit("it sends a message that is nested too deep"));
            }
            enclosing.push(end);
            at = at.saturating_add(element.header);
        } else {
            at = end;
        }
        while enclosing.last() == Some(&at) {
            enclosing.pop();
        }
    }
    Ok(())
}

/// An element of BER as LDAP has it: one octet of tag, a definite length (RFC 4511 §5.1).
struct Element {
    is_constructed: bool,
    /// Octets before the content.
    header: usize,
    /// Octets in all.
    whole: usize,
}

impl Element {
    /// `None` where more must come to tell.
    fn read(octets: &[u8]) -> io::Result<Option<Self>> {
        let [tag, first, rest @ ..] = octets else { return Ok(None) };
        let (digits, content) = match *first {
            short @ 0..=0x7f => (0, usize::from(short)),
            0x81..=0x84 => {
                let digits = usize::from(first & 0x0f);
                let Some(length) = rest.get(..digits) else { return Ok(None) };
                (digits, length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)))
            }
            _ => return Err(unfit("it sends a message that is no LDAP")),
        };
        let header = digits.saturating_add(2);
        let is_constructed = tag & CONSTRUCTED != 0;
        Ok(Some(Self { is_constructed, header, whole: header.saturating_add(content) }))
    }
}

fn unfit(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Twice what the values of one entry may have that are looked at.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// The value of an attribute is five elements deep.
const DEPTH_MAX: usize = 16;
/// X.690 §8.1.2.5.
const CONSTRUCTED: u8 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    /// So many sequences, each in the one before.
    fn nested(depth: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        for _ in 0..depth {
            let length = u32::try_from(octets.len()).unwrap().to_be_bytes();
            octets = [&[0x30, 0x84], &length[..], &octets].concat();
        }
        octets
    }

    #[test]
    fn depth_is_bounded_at_the_limit() {
        assert!(check_depth(&nested(DEPTH_MAX)).is_ok());
        assert!(check_depth(&nested(DEPTH_MAX + 1)).is_err());
        // Beside each other is not within each other.
        let beside = [0x30, 0x00].repeat(100);
        let whole = [&[0x30, 0x81, 200][..], &beside].concat();
        assert!(check_depth(&whole).is_ok());
    }

    #[test]
    fn every_element_ends_where_it_is_enclosed() {
        for malformed in [
            &[0x30, 0x02, 0x04, 0x01][..],
            &[0x30, 0x01, 0x04],
            &[0x30, 0x80, 0x00, 0x00],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
            &[0x30, 0x04, 0x30, 0x01, 0x05, 0x00],
        ] {
            assert!(check_depth(malformed).is_err(), "{malformed:x?}");
        }
    }

    #[test]
    fn the_length_of_a_message_is_bounded_at_the_limit() {
        let of = |length: usize| {
            let length = u32::try_from(length).unwrap().to_be_bytes();
            whole_length(&[&[0x30, 0x84], &length[..]].concat())
        };
        assert!(matches!(of(MESSAGE_BYTES_MAX - 6), Ok(None)));
        assert!(of(MESSAGE_BYTES_MAX - 5).is_err());
        assert_eq!(whole_length(&[0x30, 0x01, 0x05, 0x30]).unwrap(), Some(3));
        assert_eq!(whole_length(&[0x30]).unwrap(), None);
        assert_eq!(whole_length(&[0x30, 0x82, 0x01]).unwrap(), None);
    }

    #[tokio::test]
    async fn messages_pass_however_they_are_cut_until_one_is_unfit() {
        let (server, mut far) = tokio::io::duplex(7);
        let mut library = UnixStream::from_std(guarded(server).unwrap()).unwrap();
        let good = [0x30, 0x05, 0x02, 0x01, 0x01, 0x78, 0x00];
        let sent = [&good[..], &good, &nested(DEPTH_MAX + 1)].concat();
        let writing = tokio::spawn(async move {
            let _ = far.write_all(&sent).await;
            far
        });
        let mut passed = Vec::new();
        library.read_to_end(&mut passed).await.unwrap();
        assert_eq!(passed, [good, good].concat());
        drop(writing.await.unwrap());
    }
}
