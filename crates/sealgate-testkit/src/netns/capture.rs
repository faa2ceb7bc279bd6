//! What crosses an interface, recorded by tcpdump and put together again to what each side of each connection said.
//!
//! Reads classic pcap files of Ethernet frames with IPv4 and TCP; other packets stay in the count alone.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::{Namespace, lacking};
use crate::process::{self, Running};

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    running: Running,
    dir: TempDir,
}

/// What was captured.
#[derive(Debug)]
pub struct Captured {
    /// How many packets.
    pub packets: usize,
    /// What each side of each connection sent, in the order of its sequence numbers.
    pub streams: Vec<Vec<u8>>,
}

impl Capture {
    /// Begins to record an interface.
    pub fn start(host: &Namespace, interface: &str) -> Self {
        let dir = process::open_temp_dir("capture");
        let mut command = host.command("tcpdump");
        // Every packet whole, into a file that root owns, with room for bursts.
        command.args(["-i", interface, "-n", "-U", "-s", "0", "-B", "16384", "-Z", "root", "-w"]);
        command.arg(dir.path().join("packets"));
        command.stderr(fs::File::create(dir.path().join("errors")).unwrap());
        let mut running = Running::start("tcpdump", &mut command);
        let mut capture = {
            let mut ended = false;
            process::await_that("tcpdump records", || {
                ended = running.ended().is_some();
                let length = fs::metadata(dir.path().join("packets")).map_or(0, |file| file.len());
                ended || length >= u64::try_from(FILE_HEADER_BYTES).unwrap()
            });
            Self { running, dir }
        };
        if capture.running.ended().is_some() {
            lacking("tcpdump does not run", &capture.errors());
        }
        capture
    }

    /// Ends the recording; panics where the kernel had to leave packets out.
    pub fn stop(mut self) -> Captured {
        self.running.stop(STOP_PATIENCE);
        let errors = self.errors();
        assert!(errors.contains("\n0 packets dropped by kernel"), "{errors}");
        read(&fs::read(self.path("packets")).unwrap())
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.path("errors")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// One direction of one connection: source and destination, address and port.
type Flow = [(Ipv4Addr, u16); 2];

fn read(file: &[u8]) -> Captured {
    let link_type = little_endian(&file[20..24]);
    assert_eq!((little_endian(&file[..4]), link_type), (PCAP_MAGIC, ETHERNET), "no such pcap file");
    let mut rest = &file[FILE_HEADER_BYTES..];
    let mut packets = 0;
    let mut flows: BTreeMap<(Flow, usize), BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    // The newest connection of each flow, and its first sequence number: ports are used again.
    let mut newest: BTreeMap<Flow, (usize, u32)> = BTreeMap::new();
    while rest.len() >= RECORD_HEADER_BYTES {
        let length = usize::try_from(little_endian(&rest[8..12])).unwrap();
        let frame = rest[RECORD_HEADER_BYTES..].get(..length).expect("a whole packet");
        rest = &rest[RECORD_HEADER_BYTES + length..];
        packets += 1;
        let Some(segment) = Segment::read(frame) else { continue };
        let connection = newest.entry(segment.flow).or_insert((0, segment.sequence));
        if segment.opens && connection.1 != segment.sequence {
            *connection = (connection.0 + 1, segment.sequence);
        }
        let offset = u64::from(segment.sequence.wrapping_sub(connection.1));
        let pieces = flows.entry((segment.flow, connection.0)).or_default();
        let piece = pieces.entry(offset).or_default();
        if piece.len() < segment.payload.len() {
            *piece = segment.payload.to_vec();
        }
    }
    Captured { packets, streams: flows.into_values().map(joined).collect() }
}

/// What was sent twice counts once.
fn joined(pieces: BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut end = 0;
    for (offset, piece) in pieces {
        let known = usize::try_from(end.max(offset) - offset).unwrap().min(piece.len());
        end = end.max(offset + u64::try_from(piece.len()).unwrap());
        stream.extend_from_slice(&piece[known..]);
    }
    stream
}

struct Segment<'a> {
    flow: Flow,
    sequence: u32,
    opens: bool,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.strip_prefix(frame.get(..12)?)?.strip_prefix(&IPV4)?;
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
        if packet.get(9) != Some(&TCP) {
            return None;
        }
        let address = |at: usize| -> Option<Ipv4Addr> {
            Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?))
        };
        // An Ethernet frame may be longer than its packet.
        let tcp = packet.get(header..total)?;
        let number = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            flow: [(address(12)?, number(0)?), (address(16)?, number(2)?)],
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            opens: tcp.get(13)? & SYN != 0,
            payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
        })
    }
}

fn little_endian(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET: u32 = 1;
const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;
const IPV4: [u8; 2] = [0x08, 0x00];
const TCP: u8 = 6;
const SYN: u8 = 2;

/// How long tcpdump may take to write what it has.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(40 + payload.len()).unwrap();
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&IPV4);
        frame.extend_from_slice(&[0x45, 0]);
        frame.extend_from_slice(&total.to_be_bytes());
        frame
            .extend_from_slice(&[0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 4, 0, 0, 25]);
        frame.extend_from_slice(&sequence.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(payload);
        let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
        [&[0; 8][..], &length, &length, &frame].concat()
    }

    #[test]
    fn puts_what_was_lost_and_sent_again_in_order() {
        let mut file = PCAP_MAGIC.to_le_bytes().to_vec();
        file.extend_from_slice(&[0; 16]);
        file.extend_from_slice(&ETHERNET.to_le_bytes());
        let start = u32::MAX - 3;
        for (offset, flags, payload) in
            [(0, SYN, ""), (1, 0, "confi"), (11, 0, "al\r\n"), (6, 0, "denti"), (6, 0, "dentia")]
        {
            file.extend(record(start.wrapping_add(offset), flags, payload.as_bytes()));
        }
        file.extend(record(7, SYN, b""));
        file.extend(record(8, 0, b"another"));
        let captured = read(&file);
        assert_eq!(captured.packets, 7);
        let texts: Vec<String> =
            captured.streams.iter().map(|s| String::from_utf8(s.clone()).unwrap()).collect();
        assert_eq!(texts, ["confidential\r\n", "another"]);
    }
}
