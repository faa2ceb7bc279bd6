//! Between a directory server and the library that reads it. The library reads elements within elements by recursion and
//! gathers a message of any length: one message could end the process.
//!
//! In: what the server sends. Out: the same, as long as it is messages (RFC 4511 §5.1) of at most [`MESSAGE_BYTES_MAX`]
//! with elements at most [`DEPTH_MAX`] deep; of any other not an octet. All searches share the connection, and who may
//! write an entry must not end it for the others: in place of an entry that is unfit stands one without content, which
//! [`super::search`] takes for one that cannot be read. Any other unfit message ends the connection. What we send passes
//! as it is.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
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
        if let Some(element) = Element::read(received)? {
            if element.whole > MESSAGE_BYTES_MAX {
                if element.whole > PASSED_OVER_BYTES_MAX {
                    return Err(too_large());
                }
                // Enough of it to tell whose it is; it has far more.
                if received.len() >= START_BYTES {
                    let stand_in = stand_in(received).ok_or_else(too_large)?;
                    pass_over(server, received, element.whole).await?;
                    return Ok(Some(stand_in));
                }
            } else if received.len() >= element.whole {
                let message = received.split_to(element.whole).freeze();
                return match check_depth(&message) {
                    Ok(()) => Ok(Some(message)),
                    Err(error) => stand_in(&message).map(Some).ok_or(error),
                };
            }
        }
        if server.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

/// The message of an entry without content, where this is the start of one with an entry.
fn stand_in(message: &[u8]) -> Option<Bytes> {
    let [SEQUENCE, ..] = message else { return None };
    let header = Element::read(message).ok()??.header;
    let [INTEGER, length @ 1..=4, rest @ ..] = message.get(header..)? else { return None };
    let (number, operation) = rest.split_at_checked(usize::from(*length))?;
    if operation.first() != Some(&SEARCH_RESULT_ENTRY) {
        return None;
    }
    let whole = length.checked_add(4)?;
    let parts = [&[SEQUENCE, whole, INTEGER, *length], number, &[SEARCH_RESULT_ENTRY, 0]];
    Some(parts.concat().into())
}

/// Drops so many octets, of which the first were received.
async fn pass_over(
    server: &mut (impl AsyncRead + Unpin),
    received: &mut BytesMut,
    mut octets: usize,
) -> io::Result<()> {
    loop {
        let here = octets.min(received.len());
        received.advance(here);
        octets = octets.saturating_sub(here);
        if octets == 0 {
            return Ok(());
        }
        received.reserve(READ_BYTES);
        if server.read_buf(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
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

fn too_large() -> io::Error {
    unfit("it sends a message that is too large")
}

fn unfit(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Twice what the values of one entry may have that are looked at.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// A message that is not kept is read to its end where it has no more.
const PASSED_OVER_BYTES_MAX: usize = 64 << 20;
/// Header, message number and the operation's tag are less.
const START_BYTES: usize = 16;
/// Read at once of a message that is passed over.
const READ_BYTES: usize = 64 << 10;
/// The value of an attribute is five elements deep.
const DEPTH_MAX: usize = 16;
/// X.690 §8.1.2.5.
const CONSTRUCTED: u8 = 0x20;
/// An LDAPMessage (RFC 4511 §4.1.1) and its messageID.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// RFC 4511 §4.5.2: [APPLICATION 4].
const SEARCH_RESULT_ENTRY: u8 = 0x64;

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

    #[tokio::test]
    async fn the_length_of_a_message_is_bounded_at_the_limit() {
        let next = async |octets: &[u8]| {
            let mut octets = octets;
            next_message(&mut octets, &mut BytesMut::new()).await
        };
        // Of no search.
        let of = |length: usize| {
            let header = u32::try_from(length).unwrap().to_be_bytes();
            let content = [&[0x02, 0x01, 0x01, 0x04][..], &vec![0; length - 4]].concat();
            [&[0x30, 0x84], &header[..], &content].concat()
        };
        let most = next(&of(MESSAGE_BYTES_MAX - 6)).await;
        assert!(!most.is_err_and(|error| error.to_string().contains("too large")));
        let over = next(&of(MESSAGE_BYTES_MAX - 5)).await;
        assert!(over.is_err_and(|error| error.to_string().contains("too large")));
        let short = next(&[0x30, 0x01, 0x05, 0x30]).await;
        assert!(short.is_err(), "no element in it");
        assert!(next(&[0x30]).await.unwrap().is_none());
        assert!(next(&[0x30, 0x82, 0x01]).await.unwrap().is_none());
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

    /// A SearchResultEntry in a message of this number; its content need not be sound.
    fn entry(number: u8, content: &[u8]) -> Vec<u8> {
        let of = |tag: u8, content: &[u8]| {
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x84], &length[..], content].concat()
        };
        of(0x30, &[&[0x02, 0x01, number], &of(SEARCH_RESULT_ENTRY, content)[..]].concat())
    }

    #[tokio::test]
    async fn an_entry_that_is_unfit_fails_its_own_search_and_no_other() {
        let large = vec![0x04; MESSAGE_BYTES_MAX];
        let good = entry(9, &[0x04, 0x01, b'x', 0x30, 0x00]);
        for content in [&large[..], &nested(DEPTH_MAX + 1), &[0x04, 0x05, b'x'], &[0x80; 3]] {
            let sent = [entry(7, content), good.clone()].concat();
            let (mut server, mut received) = (&sent[..], BytesMut::new());
            let first = next_message(&mut server, &mut received).await.unwrap().unwrap();
            assert_eq!(first, [0x30, 0x05, 0x02, 0x01, 0x07, SEARCH_RESULT_ENTRY, 0x00][..]);
            let second = next_message(&mut server, &mut received).await.unwrap().unwrap();
            assert_eq!(second, good, "what comes behind it passes");
            assert!(next_message(&mut server, &mut received).await.unwrap().is_none());
        }
        // Of no search, and larger than is read past.
        let mut done = entry(7, &nested(DEPTH_MAX + 1));
        done[9] = 0x65;
        let endless = [0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01, SEARCH_RESULT_ENTRY];
        // Cut off while it is read past.
        let cut = &entry(7, &large)[..MESSAGE_BYTES_MAX];
        for mut unfit in [&done[..], &endless, cut] {
            let outcome = next_message(&mut unfit, &mut BytesMut::new()).await;
            assert!(!matches!(outcome, Ok(Some(_))), "{outcome:?}");
        }
    }
}
