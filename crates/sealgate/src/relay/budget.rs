//! What is in use of what is bounded: memory of messages in flight (K10) and connections (K9).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sealgate_core::report::Direction;
use sealgate_core::step::Room;

/// Memory for messages in flight, over all sessions.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    used_bytes: AtomicUsize,
}

impl Memory {
    /// Octets in use.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }
}

/// A part of the memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Reservation {
    /// Nothing yet.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory), bytes: 0 }
    }

    /// Makes the reservation this large; `false` where that passes the budget, and nothing changes.
    pub(crate) fn resize(&mut self, bytes: usize, budget_bytes: usize) -> bool {
        if bytes <= self.bytes {
            self.memory.used_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return true;
        }
        let more = bytes - self.bytes;
        let fits = self.memory.used_bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more)
            <= budget_bytes;
        if fits {
            self.bytes = bytes;
        } else {
            self.memory.used_bytes.fetch_sub(more, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Memory for the copies of one message: no more than half of the budget, so that one message to many leaves room for
/// others.
#[derive(Debug)]
pub(crate) struct CopiesRoom {
    reservation: Mutex<Reservation>,
    budget_bytes: usize,
}

impl CopiesRoom {
    /// Nothing yet.
    pub(crate) fn new(memory: &Arc<Memory>, budget_bytes: usize) -> Self {
        Self { reservation: Mutex::new(Reservation::new(memory)), budget_bytes }
    }
}

impl Room for CopiesRoom {
    fn take(&self, bytes: usize) -> bool {
        let mut reservation = self.reservation.lock().unwrap_or_else(PoisonError::into_inner);
        let all = reservation.bytes.saturating_add(bytes);
        all <= self.budget_bytes / 2 && reservation.resize(all, self.budget_bytes)
    }
}

/// Connections of both sides, counted apart: however many come from the Internet, the mail server finds room.
#[derive(Debug, Default)]
pub(crate) struct Entrances {
    inside: Arc<Connections>,
    outside: Arc<Connections>,
}

impl Entrances {
    /// Those whose messages go this way.
    pub(crate) fn of(&self, direction: Direction) -> &Arc<Connections> {
        match direction {
            Direction::Inbound => &self.outside,
            Direction::Outbound => &self.inside,
        }
    }

    /// Open connections.
    pub(crate) fn total(&self) -> usize {
        self.inside.total().saturating_add(self.outside.total())
    }
}

/// Connections of one side, in all and of each address.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<HashMap<IpAddr, usize>>,
    total: AtomicUsize,
}

impl Connections {
    /// Counts a connection; `None` where a limit is reached.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        per_address_max: usize,
        total_max: usize,
    ) -> Option<Connection> {
        let network = network_of(peer);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&network).copied().unwrap_or_default();
        if count < per_address_max && self.total.load(Ordering::Relaxed) < total_max {
            open.insert(network, count + 1);
            self.total.fetch_add(1, Ordering::Relaxed);
            return Some(Connection { connections: Arc::clone(self), network });
        }
        None
    }

    fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    connections: Arc<Connections>,
    network: IpAddr,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
        self.connections.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What counts as one client: an IPv4 address, or a /64 of IPv6 (K9).
pub(super) fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_given_back() {
        let memory = Arc::new(Memory::default());
        let mut one = Reservation::new(&memory);
        let mut two = Reservation::new(&memory);
        assert!(one.resize(60, 100));
        assert!(!two.resize(41, 100));
        assert!(two.resize(40, 100));
        assert!(one.resize(10, 100));
        assert_eq!(memory.used_bytes(), 50);
        drop(two);
        assert_eq!(memory.used_bytes(), 10);
    }

    #[test]
    fn the_copies_of_one_message_take_half_of_the_memory_and_what_is_free() {
        let memory = Arc::new(Memory::default());
        let one = CopiesRoom::new(&memory, 100);
        assert!(one.take(30) && !one.take(21) && one.take(20), "half");
        let mut others = Reservation::new(&memory);
        assert!(others.resize(40, 100));
        let two = CopiesRoom::new(&memory, 100);
        assert!(!two.take(11) && two.take(10), "what is free");
        drop((one, two));
        assert_eq!(memory.used_bytes(), 40);
    }

    #[test]
    fn a_crowd_outside_takes_no_place_inside() {
        let entrances = Entrances::default();
        let admit = |direction| entrances.of(direction).admit("192.0.2.1".parse().unwrap(), 2, 2);
        let _outside = [(); 2].map(|()| admit(Direction::Inbound).unwrap());
        assert!(admit(Direction::Inbound).is_none());
        let _inside = [(); 2].map(|()| admit(Direction::Outbound).unwrap());
        assert!(admit(Direction::Outbound).is_none());
        assert_eq!(entrances.total(), 4);
    }

    #[test]
    fn connections_are_counted_by_address_and_by_64_bits_of_ipv6() {
        let connections = Arc::new(Connections::default());
        let admit = |peer: &str| connections.admit(peer.parse().unwrap(), 2, 5);
        let one = admit("192.0.2.1");
        let _two = admit("::ffff:192.0.2.1");
        assert!(admit("192.0.2.1").is_none());
        drop(one);
        let _again = admit("192.0.2.1").unwrap();
        let _six = (admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap());
        assert!(admit("2001:db8::3").is_none());
        let _other = admit("2001:db8:0:1::").unwrap();
        assert!(admit("192.0.2.9").is_none(), "five in all");
        assert_eq!(connections.total(), 5);
    }
}
