//! Lines between the relay and its key stores, which carry TLS and break as long as they are told to: cut, held up, slowed,
//! truncated, and with one bit turned over, at any octets of either direction.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use super::carriage;
use super::ledger::{Hit, Side};
use super::trouble::{Lines, Trouble};
use super::world::World;

/// A line to `target`; where it begins.
pub(super) fn lay(world: &Arc<World>, lines: Lines, target: SocketAddr) -> SocketAddr {
    let (listener, address) = carriage::listen();
    let world = Arc::clone(world);
    carriage::lay(listener, target, move |client, server| {
        let pass = |from: &TcpStream, to: &TcpStream| pass(&world, lines, from, to);
        carriage::both_ways(client, server, pass, pass);
    });
    address
}

fn pass(world: &World, lines: Lines, mut from: &TcpStream, mut to: &TcpStream) -> Option<()> {
    let mut buffer = [0; 8 * 1024];
    loop {
        let count = from.read(&mut buffer).ok().filter(|count| *count > 0)?;
        let octets = &mut buffer[..count];
        // Some are spared, so that answers are hit, of which the questions came through.
        match world.orders.standing(lines).filter(|_| world.chance.one_in(TROUBLE_ONE_IN)) {
            None => to.write_all(octets).ok()?,
            Some(trouble) => {
                world.orders.obey(lines);
                let kind = format!("{lines} line {trouble:?}");
                world.ledger.struck(Side::Stores, &kind, Hit::Anybody);
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

/// Of the pieces that a line carries.
const TROUBLE_ONE_IN: u64 = 3;

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// What comes back over a line in this trouble from who repeats what he hears, and how much was sent in pieces.
    fn repeated(trouble: Trouble) -> (Vec<u8>, usize) {
        let (listener, target) = carriage::listen();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut octets = [0; PIECE.len()];
            while let Ok(count) = stream.read(&mut octets) {
                if count == 0 || stream.write_all(&octets[..count]).is_err() {
                    break;
                }
            }
        });
        let world = Arc::new(World::new(1));
        let mut client = TcpStream::connect(lay(&world, Lines::Database, target)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        world.orders.give(Lines::Database, trouble, Instant::now() + Duration::from_secs(60));
        let (mut back, mut piece, mut sent) = (Vec::new(), [0; PIECE.len()], 0);
        while world.orders.obeyed().is_empty() && client.write_all(PIECE).is_ok() {
            sent += PIECE.len();
            let count = client.read(&mut piece).unwrap_or_default();
            back.extend_from_slice(&piece[..count]);
        }
        world.orders.withdraw();
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut back);
        (back, sent)
    }

    #[test]
    fn each_trouble_does_to_what_a_line_carries_what_its_name_says() {
        for (trouble, is_whole, is_right) in [
            (Trouble::Cut, false, true),
            (Trouble::Held, true, true),
            (Trouble::Garbled, true, false),
            (Trouble::Slow, true, true),
            (Trouble::Truncated, false, true),
        ] {
            let (back, sent) = repeated(trouble);
            assert_eq!(back.len() == sent, is_whole, "{trouble:?}: {} of {sent}", back.len());
            let mut pairs = back.iter().zip(PIECE.iter().cycle());
            assert_eq!(pairs.all(|(one, other)| one == other), is_right, "{trouble:?}");
        }
    }

    const PIECE: &[u8] = b"a question";
}
