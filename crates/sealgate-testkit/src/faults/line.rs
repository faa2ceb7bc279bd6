//! Lines between two mail parties that break: cut, slowed to an octet at a time, truncated, held up, and with one bit of a
//! reply's code turned over. Content is left as it is: what garbles it is the next party's affair to find.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use super::carriage;
use super::ledger::{Connection, Side};
use super::trouble::{Lines, Trouble};
use super::world::World;

#[derive(Clone, Copy, Debug)]
struct Plan {
    trouble: Trouble,
    toward_server: bool,
    after_octets: usize,
}

/// A line from somewhere to `target`; where it begins.
pub(super) fn lay(world: &Arc<World>, side: Side, target: SocketAddr) -> SocketAddr {
    let (listener, address) = carriage::listen();
    lay_from(listener, world, side, target);
    address
}

/// A line from here to `target`.
pub(super) fn lay_from(listener: TcpListener, world: &Arc<World>, side: Side, target: SocketAddr) {
    let world = Arc::clone(world);
    carriage::lay(listener, target, move |client, server| {
        carry(&world, side, client, server);
    });
}

fn carry(world: &Arc<World>, side: Side, client: &TcpStream, server: &TcpStream) -> Option<()> {
    let plan = world.chance.strikes(TROUBLE_ONE_IN).then(|| choose(world));
    // Each party knows whose transaction its own connection carries, within TLS as well.
    let connection = match side {
        Side::Upstream => Connection::of_server(side, client),
        _ => Connection::of_client(side, server),
    };
    let connection = connection.ok()?;
    world.ledger.carries(connection, None);
    let [mut there, mut back] =
        [true, false].map(|toward_server| Carrier::new(world, connection, plan, toward_server));
    carriage::both_ways(
        client,
        server,
        |from, to| there.pass(from, to),
        |from, to| back.pass(from, to),
    );
    Some(())
}

fn choose(world: &World) -> Plan {
    let trouble = world.chance.pick(&Trouble::ALL);
    // Replies are short, content is not.
    let toward_server = trouble != Trouble::Garbled && world.chance.one_in(2);
    let bound = if toward_server { 6000 } else { 700 };
    let after_octets = usize::try_from(world.chance.below(bound)).unwrap();
    Plan { trouble, toward_server, after_octets }
}

/// One direction of one connection.
struct Carrier {
    world: Arc<World>,
    /// As the ledger knows it.
    connection: Connection,
    plan: Option<Plan>,
    toward_server: bool,
    /// How many orders this direction has heard of.
    heard: u64,
    /// What of a client's transaction has passed.
    progress: Progress,
}

/// How far a client has come, as its line sees it.
#[derive(Debug, Default)]
struct Progress {
    /// The last octets.
    end: Vec<u8>,
    has_dot: bool,
    /// From there on nothing is seen.
    is_within_tls: bool,
}

impl Progress {
    fn pass(&mut self, octets: &[u8]) {
        self.is_within_tls |= octets == b"STARTTLS\r\n";
        self.end.extend_from_slice(octets);
        self.end.drain(..self.end.len().saturating_sub(DOT.len()));
        self.has_dot |= self.end == DOT;
    }

    /// Whether nothing that was passed can have been a whole message.
    fn is_short(&self) -> bool {
        !self.is_within_tls && !self.has_dot
    }
}

impl Carrier {
    fn new(
        world: &Arc<World>,
        connection: Connection,
        plan: Option<Plan>,
        toward_server: bool,
    ) -> Self {
        let plan = plan.filter(|plan| plan.toward_server == toward_server);
        Self {
            world: Arc::clone(world),
            connection,
            plan,
            toward_server,
            heard: 0,
            progress: Progress::default(),
        }
    }

    fn pass(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> Option<()> {
        let mut passed = 0;
        let mut buffer = [0; 8 * 1024];
        loop {
            let count = from.read(&mut buffer).ok().filter(|count| *count > 0)?;
            let octets = &mut buffer[..count];
            // Whose transaction a sink had before is over; whose it has now, it says when it has read this.
            if self.connection.side() == Side::Downstream && octets.starts_with(b"MAIL ") {
                self.world.ledger.carries(self.connection, None);
            }
            let ordered = self.world.orders.due(Lines::of(self.connection), &mut self.heard);
            // Content is left as it is, whoever orders it.
            let ordered = ordered.filter(|one| *one != Trouble::Garbled || !self.toward_server);
            let toward_server = self.toward_server;
            let now = |trouble| Plan { trouble, toward_server, after_octets: passed };
            let chance = self.plan.filter(|plan| passed + count > plan.after_octets);
            let is_ordered = ordered.is_some();
            let due = ordered.map(now).or(chance);
            passed += count;
            match due {
                None => to.write_all(octets).ok()?,
                Some(plan) => {
                    let at = plan.after_octets - (passed - count).min(plan.after_octets);
                    let struck = self.strike((plan.trouble, is_ordered), octets, at, from, to);
                    let ends = matches!(plan.trouble, Trouble::Cut | Trouble::Truncated);
                    let is_client_s =
                        self.toward_server && self.connection.side() == Side::Upstream;
                    if ends && is_client_s && self.progress.is_short() {
                        self.world.ledger.cut_short(self.connection);
                    }
                    struck?;
                }
            }
            self.progress.pass(octets);
        }
    }

    fn strike(
        &mut self,
        (trouble, is_ordered): (Trouble, bool),
        octets: &mut [u8],
        at: usize,
        from: &TcpStream,
        mut to: &TcpStream,
    ) -> Option<()> {
        if trouble == Trouble::Garbled && !self.garble(octets) {
            return to.write_all(octets).ok();
        }
        self.plan = None;
        if is_ordered {
            self.world.orders.obey(Lines::of(self.connection));
        }
        self.world.ledger.struck_connection(self.connection, &format!("line {trouble:?}"));
        trouble.befall(octets, at, from, to, &self.world.chance)
    }

    /// Turns over one bit of one digit of a reply's code; no single bit makes a 250 of anything else.
    fn garble(&self, octets: &mut [u8]) -> bool {
        if !octets.starts_with(b"2") && !octets.starts_with(b"4") && !octets.starts_with(b"5") {
            return false;
        }
        let digit = usize::try_from(self.world.chance.below(3)).unwrap();
        let bit = self.world.chance.below(5);
        let Some(octet) = octets.get_mut(digit) else { return false };
        *octet ^= 1 << bit;
        !octets.starts_with(b"250")
    }
}

/// The end of a message (RFC 5321 §4.1.1.4).
const DOT: &[u8] = b"\r\n.\r\n";
/// How many connections are spared.
const TROUBLE_ONE_IN: u64 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_sees_a_dot_that_comes_in_pieces_and_none_within_tls() {
        for (pieces, is_short) in [
            (&["DATA\r\n", "x\r\n"][..], true),
            (&["x\r\n.", "\r\n"], false),
            (&["x\r\n.\r\n", "QUIT\r\n"], false),
            (&["x\r\n..\r\n"], true),
            (&["EHLO x\r\n", "STARTTLS\r\n", "\x16"], false),
        ] {
            let mut progress = Progress::default();
            pieces.iter().for_each(|piece| progress.pass(piece.as_bytes()));
            assert_eq!(progress.is_short(), is_short, "{pieces:?}");
        }
    }
}
