//! A line between a program and its name server, over UDP and TCP (RFC 1035 §4.2), on which answers go wrong.
//!
//! In go the name server's address and what is to become of each answer; out comes the address to ask.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::Duration;

use crate::process::{free_port, loopback};

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// "There is no such name", without a proof.
    Denied,
    /// The same, with the word of an unsigned zone ([`UNSIGNED_ZONE`]) that has nothing to do with it; answers about keys and
    /// zone cuts are passed on, so that it is known for unsigned.
    DeniedByAnother,
    /// "There is nothing of that kind", without a proof.
    Emptied,
    /// The same, with the word of that unsigned zone.
    EmptiedByAnother,
    /// SERVFAIL.
    Failing,
    /// This bit is another, counted around and around the answer.
    Garbled(usize),
    /// So many milliseconds late.
    Late(u64),
    /// It never comes; over TCP the connection ends.
    Lost,
    /// The second half is missing.
    Short,
    /// "Ask again over TCP"; said over TCP it is nonsense.
    Truncated,
}

/// Lays the line; where to ask. It lasts as long as the process.
pub fn lay(
    target: SocketAddr,
    befalls: impl Fn(&[u8]) -> Option<Trouble> + Send + Sync + 'static,
) -> SocketAddr {
    let address = loopback(free_port());
    let socket = UdpSocket::bind(address).unwrap();
    let listener = TcpListener::bind(address).unwrap();
    let line = Line { target, befalls: Arc::new(befalls) };
    let tcp = line.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let line = tcp.clone();
            thread::spawn(move || line.carry_stream(stream));
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; MESSAGE_OCTETS_MAX];
        while let Ok((count, client)) = socket.recv_from(&mut buffer) {
            let (line, query) = (line.clone(), buffer[..count].to_vec());
            let socket = socket.try_clone().unwrap();
            thread::spawn(move || line.carry_datagram(&socket, client, &query));
        }
    });
    address
}

/// What becomes of an answer.
type Befalls = dyn Fn(&[u8]) -> Option<Trouble> + Send + Sync;

#[derive(Clone)]
struct Line {
    target: SocketAddr,
    befalls: Arc<Befalls>,
}

impl Line {
    fn carry_datagram(&self, socket: &UdpSocket, client: SocketAddr, query: &[u8]) -> Option<()> {
        let server = UdpSocket::bind(("127.0.0.1", 0)).ok()?;
        server.set_read_timeout(Some(PATIENCE)).ok()?;
        server.send_to(query, self.target).ok()?;
        let mut buffer = [0; MESSAGE_OCTETS_MAX];
        let count = server.recv(&mut buffer).ok()?;
        let answer = self.pass(&buffer[..count])?;
        socket.send_to(&answer, client).ok().map(drop)
    }

    /// Messages with their lengths before them. A lost one ends the connection.
    fn carry_stream(&self, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(self.target)?;
        client.set_read_timeout(Some(PATIENCE))?;
        server.set_read_timeout(Some(PATIENCE))?;
        loop {
            let query = read_message(&mut client)?;
            write_message(&mut server, &query)?;
            let Some(answer) = self.pass(&read_message(&mut server)?) else {
                return client.shutdown(Shutdown::Both);
            };
            write_message(&mut client, &answer)?;
        }
    }

    /// What becomes of an answer.
    fn pass(&self, answer: &[u8]) -> Option<Vec<u8>> {
        match (self.befalls)(answer) {
            None => Some(answer.to_vec()),
            Some(Trouble::Lost) => None,
            Some(Trouble::Late(milliseconds)) => {
                sleep(Duration::from_millis(milliseconds));
                Some(answer.to_vec())
            }
            Some(trouble) => spoil(answer, trouble),
        }
    }
}

/// An answer with this done to it.
fn spoil(answer: &[u8], trouble: Trouble) -> Option<Vec<u8>> {
    if answer.len() < HEADER_OCTETS {
        return None;
    }
    let mut spoiled = answer.to_vec();
    match trouble {
        Trouble::Denied => spoiled = without_records(answer, NO_SUCH_NAME),
        Trouble::Emptied => spoiled = without_records(answer, 0),
        Trouble::DeniedByAnother => spoiled = denied_by_another(answer, NO_SUCH_NAME),
        Trouble::EmptiedByAnother => spoiled = denied_by_another(answer, 0),
        Trouble::Failing => spoiled = without_records(answer, SERVER_FAILURE),
        Trouble::Garbled(bit) => spoiled[bit / 8 % answer.len()] ^= 1 << (bit % 8),
        Trouble::Short => spoiled.truncate(answer.len() / 2),
        Trouble::Truncated => {
            spoiled = without_records(answer, 0);
            spoiled[2] |= TRUNCATED;
        }
        Trouble::Late(_) | Trouble::Lost => {}
    }
    Some(spoiled)
}

/// A denial with another zone's start of authority.
fn denied_by_another(answer: &[u8], code: u8) -> Vec<u8> {
    let kind = answer.get(question_end(answer) - 4..).unwrap_or_default();
    if KEYS_AND_CUTS.iter().any(|one| kind.starts_with(&one.to_be_bytes())) {
        return answer.to_vec();
    }
    let mut all = without_records(answer, code);
    // One record in the authority section.
    all[9] = 1;
    for label in UNSIGNED_ZONE.split('.') {
        all.push(u8::try_from(label.len()).unwrap());
        all.extend_from_slice(label.as_bytes());
    }
    all.push(0);
    // SOA, IN, 60 seconds, 22 octets: the root twice for a host and a person, then numbers.
    all.extend_from_slice(&[0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
    all.extend_from_slice(&[0, 0, 0, 60].repeat(5));
    all
}

/// Header and question, with this response code.
fn without_records(answer: &[u8], code: u8) -> Vec<u8> {
    let mut all = answer[..question_end(answer)].to_vec();
    all[3] = (all[3] & 0xf0) | code;
    // Answers, authorities, additional records.
    all[6..HEADER_OCTETS].fill(0);
    all
}

/// Behind the name asked for, type and class.
fn question_end(answer: &[u8]) -> usize {
    let mut end = HEADER_OCTETS;
    while let Some(length) = answer.get(end).copied().filter(|length| *length > 0) {
        end += 1 + usize::from(length);
    }
    // The root's label, type and class.
    answer.len().min(end + 5)
}

fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let mut all = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    all.extend_from_slice(message);
    stream.write_all(&all)
}

/// A zone that the DNS must have, with an insecure delegation, for denials by another.
pub const UNSIGNED_ZONE: &str = "unsigned.example";
/// NS, SOA, DS and DNSKEY.
const KEYS_AND_CUTS: [u16; 4] = [2, 6, 43, 48];
/// How long the name server may take, and the relay until its next question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a datagram.
const MESSAGE_OCTETS_MAX: usize = 65_535;
/// Of a message (RFC 1035 §4.1.1).
const HEADER_OCTETS: usize = 12;
/// RCODE 2.
const SERVER_FAILURE: u8 = 2;
/// RCODE 3.
const NO_SUCH_NAME: u8 = 3;
/// TC, in the third octet.
const TRUNCATED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_spoiled_as_it_is_said() {
        // A question for the MX of a.b, and one record of four octets.
        let mut answer = vec![7, 9, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        answer.extend_from_slice(&[1, b'a', 1, b'b', 0, 0, 15, 0, 1]);
        answer.extend_from_slice(&[1, 2, 3, 4]);
        let question = &answer[..21];
        let denied = spoil(&answer, Trouble::Denied).unwrap();
        assert_eq!(denied.len(), question.len());
        assert_eq!((denied[3] & 0xf, &denied[6..12]), (3, &[0; 6][..]));
        assert_eq!(spoil(&answer, Trouble::Failing).unwrap()[3] & 0xf, 2);
        let truncated = spoil(&answer, Trouble::Truncated).unwrap();
        assert_eq!((truncated[2], truncated[3] & 0xf), (0x87, 0));
        assert_eq!(spoil(&answer, Trouble::Short).unwrap(), &answer[..12]);
        let foreign = spoil(&answer, Trouble::EmptiedByAnother).unwrap();
        assert_eq!((&foreign[6..12], foreign[3] & 0xf), (&[0, 0, 0, 1, 0, 0][..], 0));
        assert_eq!((&foreign[12..21], &foreign[21..30]), (&answer[12..21], &b"\x08unsigned"[..]));
        let garbled = spoil(&answer, Trouble::Garbled(8 * 24 + 1)).unwrap();
        assert_eq!((garbled[24], &garbled[..24]), (4 ^ 2, &answer[..24]));
    }
}
