//! A name server that knows no name: to every question over UDP it says "there is no such name" (RFC 1035 §4.1.1).
//!
//! Out comes the address to ask. It is for what wants resolvers that answer, and not for what they say.

use std::net::{SocketAddr, UdpSocket};
use std::thread;

/// Starts it; where to ask. It lasts as long as the process.
pub fn start() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut message = [0; MESSAGE_OCTETS_MAX];
        while let Ok((count, client)) = socket.recv_from(&mut message) {
            if count > FLAGS.end {
                for (octet, flags) in message[FLAGS].iter_mut().zip(NO_SUCH_NAME) {
                    *octet = flags;
                }
                let _ = socket.send_to(&message[..count], client);
            }
        }
    });
    address
}

const FLAGS: std::ops::Range<usize> = 2..4;
/// QR, RD, RA and RCODE 3; the question stands there as it came.
const NO_SUCH_NAME: [u8; 2] = [0x81, 0x83];
/// Questions are short.
const MESSAGE_OCTETS_MAX: usize = 4096;
