//! What is in use of what is bounded: memory of messages in flight (K10) and connections (K9).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealgate_core::report::Direction;
use sealgate_core::step::Room;

use crate::config::{Limits, MEMORY_FACTOR};

/// Memory for messages in flight, over all sessions.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    in_use: Mutex<InUse>,
}

/// Octets in use: in all, by the Internet's clients, and by each network of theirs.
#[derive(Debug, Default)]
struct InUse {
    bytes: usize,
    outside_bytes: usize,
    networks: HashMap<IpAddr, usize>,
}

/// Who holds memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Mail from inside.
    MailServer,
    /// Mail that a client from this network of the Internet sends: an IPv4 address, or a site with IPv6.
    Network(IpAddr),
}

/// How much memory may be in use. Clients of the Internet leave half of it to the mail server, and each network leaves as
/// much of the other half to the others as it takes, so that slow or silent content of one stops nobody else's mail. One
/// message of the greatest size has room in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    bytes: usize,
    outside_bytes: usize,
    message_bytes: usize,
}

impl From<&Limits> for Budget {
    fn from(limits: &Limits) -> Self {
        let bytes = limits.memory_bytes_max;
        let message_bytes = limits.message_bytes_max.saturating_mul(MEMORY_FACTOR);
        Self { bytes, outside_bytes: (bytes / 2).max(message_bytes).min(bytes), message_bytes }
    }
}

impl Holder {
    /// Whoever came in this way from this address.
    pub(crate) fn new(direction: Direction, peer: IpAddr) -> Self {
        match direction {
            Direction::Inbound => Self::Network(site_of(peer)),
            Direction::Outbound => Self::MailServer,
        }
    }
}

impl Memory {
    /// Octets in use.
    pub(crate) fn used_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, InUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InUse {
    fn has_room(&self, holder: Holder, more: usize, budget: &Budget) -> bool {
        let within = |used: usize, bytes_max| used.saturating_add(more) <= bytes_max;
        let Holder::Network(network) = holder else { return within(self.bytes, budget.bytes) };
        let left = budget.outside_bytes.saturating_sub(self.outside_bytes).saturating_sub(more);
        let of_network = self.networks.get(&network).copied().unwrap_or_default();
        within(self.bytes, budget.bytes)
            && within(self.outside_bytes, budget.outside_bytes)
            && within(of_network, left.max(budget.message_bytes))
    }

    fn take(&mut self, holder: Holder, more: usize) {
        self.bytes = self.bytes.saturating_add(more);
        if let Holder::Network(network) = holder {
            self.outside_bytes = self.outside_bytes.saturating_add(more);
            let of_network = self.networks.entry(network).or_default();
            *of_network = of_network.saturating_add(more);
        }
    }

    fn give_back(&mut self, holder: Holder, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let Holder::Network(network) = holder else { return };
        self.outside_bytes = self.outside_bytes.saturating_sub(bytes);
        if let Some(of_network) = self.networks.get_mut(&network) {
            *of_network = of_network.saturating_sub(bytes);
            if *of_network == 0 {
                self.networks.remove(&network);
            }
        }
    }
}

/// A part of the memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    memory: Arc<Memory>,
    holder: Holder,
    bytes: usize,
}

impl Reservation {
    /// Nothing yet.
    pub(crate) fn new(memory: &Arc<Memory>, holder: Holder) -> Self {
        Self { memory: Arc::clone(memory), holder, bytes: 0 }
    }

    /// Whether it could become larger by a message of this size now.
    pub(crate) fn has_room_for(&self, message_bytes: usize, budget: &Budget) -> bool {
        let more = message_bytes.saturating_mul(MEMORY_FACTOR);
        self.memory.lock().has_room(self.holder, more, budget)
    }

    /// Whether it is a client's of the Internet, and these hold more than half of what they may.
    pub(crate) fn is_scarce(&self, budget: &Budget) -> bool {
        let is_outside = matches!(self.holder, Holder::Network(_));
        is_outside && self.memory.lock().outside_bytes > budget.outside_bytes / 2
    }

    /// Makes it as large as a message that holds so many octets needs; `false` where that passes the budget, and nothing
    /// changes.
    pub(crate) fn resize_for(&mut self, message_bytes: usize, budget: &Budget) -> bool {
        self.resize(message_bytes.saturating_mul(MEMORY_FACTOR), budget)
    }

    fn resize(&mut self, bytes: usize, budget: &Budget) -> bool {
        if bytes <= self.bytes {
            self.shrink(bytes);
            return true;
        }
        let more = bytes - self.bytes;
        let mut in_use = self.memory.lock();
        let fits = in_use.has_room(self.holder, more, budget);
        if fits {
            in_use.take(self.holder, more);
            self.bytes = bytes;
        }
        fits
    }

    /// Gives all of it back.
    pub(crate) fn release(&mut self) {
        self.shrink(0);
    }

    fn shrink(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.memory.lock().give_back(self.holder, self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

/// Memory for the copies of one message: no more than half of the budget, so that one message to many leaves room for
/// others.
#[derive(Debug)]
pub(crate) struct CopiesRoom {
    reservation: Mutex<Reservation>,
    budget: Budget,
}

impl CopiesRoom {
    /// Nothing yet. Only mail from inside is copied.
    pub(crate) fn new(memory: &Arc<Memory>, budget: Budget) -> Self {
        Self { reservation: Mutex::new(Reservation::new(memory, Holder::MailServer)), budget }
    }
}

impl Room for CopiesRoom {
    fn take(&self, bytes: usize) -> bool {
        let mut reservation = self.reservation.lock().unwrap_or_else(PoisonError::into_inner);
        let all = reservation.bytes.saturating_add(bytes);
        all <= self.budget.bytes / 2 && reservation.resize(all, &self.budget)
    }
}

/// Connections of both sides, counted apart: however many come from the Internet, the mail server finds room.
#[derive(Debug, Default)]
pub(crate) struct Entrances {
    inside: Arc<Connections>,
    outside: Arc<Connections>,
    turned_away: Arc<Connections>,
}

impl Entrances {
    /// Those whose messages go this way.
    pub(crate) fn of(&self, direction: Direction) -> &Arc<Connections> {
        match direction {
            Direction::Inbound => &self.outside,
            Direction::Outbound => &self.inside,
        }
    }

    /// A place among those who are turned away and still heard; `None` where they are too many, in all or of this client.
    pub(crate) fn refuse(&self, peer: IpAddr) -> Option<Connection> {
        self.turned_away.admit(peer, TURNED_AWAY_PER_ADDRESS_MAX, TURNED_AWAY_MAX)
    }

    /// Open connections that were admitted.
    pub(crate) fn total(&self) -> usize {
        self.inside.total().saturating_add(self.outside.total())
    }
}

/// Connections of one side: in all, of each client, and of each IPv6 site.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<HashMap<Network, usize>>,
    total: AtomicUsize,
}

/// Addresses that begin alike, with how many bits do.
type Network = (IpAddr, u8);

impl Connections {
    /// Counts a connection; `None` where a limit is reached.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        per_address_max: usize,
        total_max: usize,
    ) -> Option<Connection> {
        let networks = networks_of(peer);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |(network, times): &(Network, usize)| {
            let count = open.get(network).copied().unwrap_or_default();
            count < per_address_max.saturating_mul(*times)
        };
        if !networks.iter().flatten().all(has_room)
            || self.total.load(Ordering::Relaxed) >= total_max
        {
            return None;
        }
        let networks = networks.map(|counted| counted.map(|(network, _)| network));
        for network in networks.iter().flatten() {
            *open.entry(*network).or_default() += 1;
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        Some(Connection { connections: Arc::clone(self), networks })
    }

    fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    connections: Arc<Connections>,
    networks: [Option<Network>; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        for network in self.networks.iter().flatten() {
            if let Some(count) = open.get_mut(network) {
                *count -= 1;
                if *count == 0 {
                    open.remove(network);
                }
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

/// What one customer has: an IPv4 address, or the /48 of IPv6 that a site is given (RFC 6177).
fn site_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0 << 80)),
        address @ IpAddr::V4(_) => address,
    }
}

/// What an address is counted in, with how many times the limit of one client that may have: himself and, of IPv6, his
/// site, or one customer would be as many clients as he likes.
fn networks_of(peer: IpAddr) -> [Option<(Network, usize)>; 2] {
    let client = network_of(peer);
    match client {
        IpAddr::V4(_) => [Some(((client, 32), 1)), None],
        IpAddr::V6(_) => [Some(((client, 64), 1)), Some(((site_of(client), 48), SITE_TIMES))],
    }
}

/// How many clients of one IPv6 site may have all the connections that one may have.
const SITE_TIMES: usize = 4;
/// Connections that were turned away and are not closed yet: each holds a descriptor.
const TURNED_AWAY_MAX: usize = 256;
const TURNED_AWAY_PER_ADDRESS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize, message_bytes: usize) -> Budget {
        Budget { bytes, outside_bytes: bytes / 2, message_bytes }
    }

    fn from(peer: &str) -> Holder {
        Holder::new(Direction::Inbound, peer.parse().unwrap())
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let memory = Arc::new(Memory::default());
        let budget = budget(100, 10);
        let [mut one, mut two] = [(); 2].map(|()| Reservation::new(&memory, Holder::MailServer));
        assert!(one.resize(60, &budget));
        assert!(!two.resize(41, &budget));
        assert!(two.resize(40, &budget));
        assert!(one.resize(10, &budget));
        assert_eq!(memory.used_bytes(), 50);
        drop(two);
        assert_eq!(memory.used_bytes(), 10);
    }

    #[test]
    fn the_copies_of_one_message_take_half_of_the_memory_and_what_is_free() {
        let memory = Arc::new(Memory::default());
        let one = CopiesRoom::new(&memory, budget(100, 10));
        assert!(one.take(30) && !one.take(21) && one.take(20), "half");
        let mut others = Reservation::new(&memory, Holder::MailServer);
        assert!(others.resize(40, &budget(100, 10)));
        let two = CopiesRoom::new(&memory, budget(100, 10));
        assert!(!two.take(11) && two.take(10), "what is free");
        drop((one, two));
        assert_eq!(memory.used_bytes(), 40);
    }

    #[test]
    fn whatever_the_internet_sends_leaves_half_of_the_memory_to_the_mail_server() {
        let memory = Arc::new(Memory::default());
        let budget = budget(1000, 30);
        let crowd = (0..40).map(|number| from(&format!("192.0.2.{number}")));
        let mut held: Vec<_> = crowd.map(|one| Reservation::new(&memory, one)).collect();
        let taken = held.iter_mut().filter_map(|one| one.resize(30, &budget).then_some(30));
        assert!((471..=500).contains(&taken.sum::<usize>()), "all of the other half");
        let mut inside = Reservation::new(&memory, Holder::MailServer);
        assert!(inside.resize(500, &budget));
        held.clear();
        assert!(inside.resize(1000, &budget), "which may have all");
        let mut outside = Reservation::new(&memory, from("192.0.2.1"));
        assert!(!outside.resize(1, &budget));
    }

    #[test]
    fn a_network_leaves_the_others_as_much_as_it_takes_and_each_has_room_for_a_message() {
        let memory = Arc::new(Memory::default());
        let budget = budget(2000, 150);
        let reserve = |peer| Reservation::new(&memory, from(peer));
        let mut greedy = [(); 2].map(|()| reserve("2001:db8::1"));
        assert!(greedy[0].resize(300, &budget) && greedy[1].resize(200, &budget));
        let mut same = reserve("2001:db8:0:7::2");
        assert!(!same.resize(1, &budget), "a half is left, of which none is for this network");
        let mut other = reserve("192.0.2.1");
        assert!(!other.resize(251, &budget) && other.resize(250, &budget));
        let mut third = reserve("192.0.2.2");
        assert!(!third.resize(151, &budget) && third.resize(150, &budget), "one message");
        assert!(!other.resize(251, &budget));
        drop((greedy, same, other, third));
        assert_eq!(memory.used_bytes(), 0);
        assert!(memory.lock().networks.is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_message_of_the_greatest_size_has_room_however_small_the_budget() {
        for (memory_bytes_max, outside_bytes) in [(300, 300), (500, 300), (800, 400)] {
            let limits = Limits { memory_bytes_max, message_bytes_max: 100, ..Limits::default() };
            let memory = Arc::new(Memory::default());
            let budget = Budget::from(&limits);
            assert_eq!(budget.outside_bytes, outside_bytes);
            assert!(Reservation::new(&memory, from("192.0.2.1")).resize_for(100, &budget));
        }
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
        let refused = (0..100).filter_map(|_| entrances.refuse("192.0.2.1".parse().unwrap()));
        let mut heard: Vec<_> = refused.collect();
        assert_eq!(heard.len(), TURNED_AWAY_PER_ADDRESS_MAX);
        let others = (0..255).filter_map(|one| entrances.refuse([192, 0, 3, one].into()));
        heard.extend(others);
        assert_eq!((heard.len(), entrances.total()), (TURNED_AWAY_MAX, 4));
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

    /// A /48 costs nothing, and has 65536 of what counts as one client.
    #[test]
    fn a_site_has_the_connections_of_four_clients() {
        let connections = Arc::new(Connections::default());
        let admit = |text: &str| connections.admit(text.parse().unwrap(), 2, 100);
        let held: Vec<_> =
            (0..8).map(|one| admit(&format!("2001:db8:0:{}::1", one / 2)).unwrap()).collect();
        assert!(admit("2001:db8:0:9::1").is_none());
        let _neighbour = admit("2001:db8:1::1").unwrap();
        drop(held);
        assert!(admit("2001:db8:0:9::1").is_some());
        assert_eq!(connections.open.lock().unwrap().len(), 2, "of the neighbour alone");
    }
}
