//! A name server for the domains outside, which is silent, fails or answers late at times (RFC 1035 §4.1).
//!
//! Each domain has one mail exchanger, `mx.` before its name, at a loopback address of its own, because mail
//! exchangers listen on port 25 and nowhere else.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::Duration;

use super::ledger::Side;
use super::world::World;

/// One domain's exchanger.
#[derive(Debug)]
pub(super) struct Exchanger {
    pub(super) domain: String,
    pub(super) listener: TcpListener,
    address: Ipv4Addr,
}

impl Exchanger {
    /// A free loopback address for each of these domains.
    pub(super) fn for_each(domains: &[&str]) -> Vec<Self> {
        let mut next = Ipv4Addr::new(127, 64, 0, 1).to_bits() + (std::process::id() % 0xffff) * 16;
        domains
            .iter()
            .map(|domain| {
                for _ in 0..ADDRESSES_TRIED {
                    next += 1;
                    let address = Ipv4Addr::from_bits(next);
                    if let Ok(listener) = TcpListener::bind((address, SMTP_PORT)) {
                        return Self { domain: (*domain).to_owned(), listener, address };
                    }
                }
                panic!("no loopback address with a free port 25: this needs root");
            })
            .collect()
    }
}

/// Starts the name server; where it listens.
pub(super) fn serve(world: &Arc<World>, exchangers: &[Exchanger]) -> SocketAddr {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let known: Vec<(String, Ipv4Addr)> =
        exchangers.iter().map(|exchanger| (exchanger.domain.clone(), exchanger.address)).collect();
    let world = Arc::clone(world);
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((count, client)) = socket.recv_from(&mut buffer) {
            let strikes = world.chance.strikes(TROUBLE_ONE_IN);
            let trouble = if strikes { world.chance.below(3) + 1 } else { 0 };
            let Some(mut answer) = answer(&buffer[..count], &known) else { continue };
            if let Some(kind) =
                ["", "silent", "fails", "late"].get(usize::try_from(trouble).unwrap())
                && strikes
            {
                world.ledger.struck(Side::Names, &format!("name server {kind}"), None);
            }
            match trouble {
                1 => continue,
                2 => answer[3] = (answer[3] & 0xf0) | SERVER_FAILURE,
                3 => sleep(Duration::from_millis(world.chance.below(1500))),
                _ => {}
            }
            let _ = socket.send_to(&answer, client);
        }
    });
    address
}

/// The answer to a query with one question.
fn answer(query: &[u8], known: &[(String, Ipv4Addr)]) -> Option<Vec<u8>> {
    let mut at = HEADER_OCTETS;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(HEADER_OCTETS..at + 4)?;
    let name = labels.join(".");
    let host = name.strip_prefix("mx.");
    let address = |domain: &str| known.iter().find(|(name, _)| name == domain).map(|(_, at)| *at);
    let data = match (kind, host) {
        // "mx", and the question's name after it.
        (MX, None) if address(&name).is_some() => Some(vec![0, 10, 2, b'm', b'x', 0xc0, 12]),
        (A, Some(domain)) => address(domain).map(|address| address.octets().to_vec()),
        _ => None,
    };
    // A response, authoritative, with recursion.
    let mut out =
        vec![query[0], query[1], 0x85, 0x80, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0];
    out.extend_from_slice(question);
    if let Some(data) = data {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, TIME_TO_LIVE, 0]);
        out.push(u8::try_from(data.len()).unwrap());
        out.extend_from_slice(&data);
    }
    Some(out)
}

/// How many queries are spared.
const TROUBLE_ONE_IN: u64 = 12;
/// Of a message (RFC 1035 §4.1.1).
const HEADER_OCTETS: usize = 12;
/// Record types (RFC 1035 §3.2.2).
const A: u16 = 1;
const MX: u16 = 15;
/// RCODE 2.
const SERVER_FAILURE: u8 = 2;
/// In seconds: asked for again and again.
const TIME_TO_LIVE: u8 = 1;
/// RFC 5321 §4.5.4.2.
const SMTP_PORT: u16 = 25;
/// Before somebody else's must be asked to end.
const ADDRESSES_TRIED: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchanger_and_its_address_are_found_and_nothing_else() {
        let known = [("abc.example".to_owned(), Ipv4Addr::new(127, 1, 2, 3))];
        let ask = |name: &str, kind: u16| {
            let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in name.split('.') {
                query.push(u8::try_from(label.len()).unwrap());
                query.extend_from_slice(label.as_bytes());
            }
            query.push(0);
            query.extend_from_slice(&kind.to_be_bytes());
            query.extend_from_slice(&[0, 1]);
            answer(&query, &known).unwrap()
        };
        assert!(ask("ABC.example", MX).ends_with(&[0, 10, 2, b'm', b'x', 0xc0, 12]));
        assert!(ask("mx.abc.example", A).ends_with(&[0, 4, 127, 1, 2, 3]));
        for (name, kind) in [("mx.abc.example", 28), ("def.example", MX), ("mx.def.example", A)] {
            assert_eq!(ask(name, kind)[7], 0, "{name}");
        }
    }
}
