//! Lines between the relay and its key stores, within TLS, which break when they are told to: cut, held up, slowed,
//! truncated, and with one bit turned over, of the handshake as well.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::ledger::{Hit, Side};
use super::trouble::{Lines, Trouble};
use super::world::World;

/// A line to `target`; where it begins.
pub(super) fn lay(world: &Arc<World>, lines: Lines, target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let world = Arc::clone(world);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let world = Arc::clone(&world);
            thread::spawn(move || carry(&world, lines, &client, target));
        }
    });
    address
}

/// Where the store is away, the connection ends.
fn carry(world: &Arc<World>, lines: Lines, client: &TcpStream, target: SocketAddr) -> Option<()> {
    let server = TcpStream::connect(target).ok()?;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let back = {
        let world = Arc::clone(world);
        let (server, client) = (server.try_clone().ok()?, client.try_clone().ok()?);
        thread::spawn(move || run(&world, lines, &server, &client))
    };
    run(world, lines, client, &server);
    back.join().ok()
}

fn run(world: &World, lines: Lines, from: &TcpStream, to: &TcpStream) {
    pass(world, lines, from, to);
    let _ = to.shutdown(Shutdown::Write);
}

fn pass(world: &World, lines: Lines, mut from: &TcpStream, mut to: &TcpStream) -> Option<()> {
    let mut heard = 0;
    let mut buffer = [0; 8 * 1024];
    loop {
        let count = from.read(&mut buffer).ok().filter(|count| *count > 0)?;
        let octets = &mut buffer[..count];
        match world.orders.due(lines, &mut heard) {
            None => to.write_all(octets).ok()?,
            Some(trouble) => {
                world.ledger.struck(Side::Stores, &kind(lines, trouble), Hit::Anybody);
                let below = |bound: usize| world.chance.below(u64::try_from(bound).unwrap());
                if trouble == Trouble::Garbled {
                    octets[usize::try_from(below(count)).unwrap()] ^= 1 << below(8);
                }
                let at = usize::try_from(below(count)).unwrap();
                trouble.befall(octets, at, from, to, &world.chance)?;
            }
        }
    }
}

/// `Database line Cut`
fn kind(lines: Lines, trouble: Trouble) -> String {
    format!("{lines:?} line {trouble:?}")
}
