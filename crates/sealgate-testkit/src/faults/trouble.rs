//! What goes wrong on a line, and the orders by which it goes wrong on all lines of one kind at once.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::ledger::{Connection, Side};

/// What goes wrong on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Both directions end after so many octets of the one.
    Cut,
    /// So many milliseconds of silence.
    Held,
    /// One bit: to mail, one of a reply's code.
    Garbled,
    /// An octet at a time, for a while.
    Slow,
    /// The one direction ends, the other one stays.
    Truncated,
}

impl Trouble {
    /// All of them, for a point after the other.
    pub(super) const ALL: [Self; 5] =
        [Self::Cut, Self::Held, Self::Garbled, Self::Slow, Self::Truncated];

    /// Passes these octets on as the trouble has it, the first `at` of them where the line ends; `None` where it does. Who calls
    /// has garbled what is to be garbled, for he knows what he carries.
    pub(super) fn befall(
        self,
        octets: &[u8],
        at: usize,
        from: &TcpStream,
        mut to: &TcpStream,
        chance: &Chance,
    ) -> Option<()> {
        match self {
            Self::Cut => {
                to.write_all(&octets[..at]).ok()?;
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                None
            }
            Self::Garbled => to.write_all(octets).ok(),
            Self::Held => {
                sleep(Duration::from_millis(100 + chance.below(900)));
                to.write_all(octets).ok()
            }
            Self::Slow => {
                for octet in octets.iter().take(SLOW_OCTETS) {
                    to.write_all(&[*octet]).ok()?;
                    sleep(Duration::from_millis(10));
                }
                to.write_all(octets.get(SLOW_OCTETS..).unwrap_or_default()).ok()
            }
            Self::Truncated => to.write_all(&octets[..at]).ok().and(None),
        }
    }
}

/// Lines that break together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lines {
    /// From the clients.
    Upstream,
    /// To the sinks.
    Downstream,
    /// To PostgreSQL.
    Database,
    /// To OpenLDAP.
    Directory,
    /// To the key server.
    KeyServer,
    /// To the name server.
    Names,
}

impl Lines {
    /// Those that carry mail.
    pub(super) const MAIL: [Self; 2] = [Self::Upstream, Self::Downstream];
    /// Those to key stores that are servers.
    pub(super) const STORES: [Self; 3] = [Self::Database, Self::Directory, Self::KeyServer];

    /// The mail lines to which this connection belongs.
    pub(super) fn of(connection: Connection) -> Self {
        match connection.side() {
            Side::Upstream => Self::Upstream,
            _ => Self::Downstream,
        }
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
            Self::Database => "database",
            Self::Directory => "directory",
            Self::KeyServer => "key server",
            Self::Names => "names",
        })
    }
}

/// What all lines of one kind are to do with what they carry.
#[derive(Debug, Default)]
pub(super) struct Orders {
    books: Mutex<OrderBooks>,
}

#[derive(Debug, Default)]
struct OrderBooks {
    /// How many were given.
    given: u64,
    latest: Option<Order>,
    /// How many of them some line obeyed.
    obeyed: BTreeMap<Lines, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Order {
    lines: Lines,
    trouble: Trouble,
    until: Instant,
    was_obeyed: bool,
}

impl Orders {
    /// Gives one, for the connections that there are and those that begin before this time.
    pub(super) fn give(&self, lines: Lines, trouble: Trouble, until: Instant) {
        let mut books = self.books.lock().unwrap();
        books.given += 1;
        books.latest = Some(Order { lines, trouble, until, was_obeyed: false });
    }

    /// Takes the latest back.
    pub(super) fn withdraw(&self) {
        self.books.lock().unwrap().latest = None;
    }

    /// What a line, which has heard so many, has not been told yet.
    pub(super) fn due(&self, lines: Lines, heard: &mut u64) -> Option<Trouble> {
        let books = self.books.lock().unwrap();
        let is_new = std::mem::replace(heard, books.given) != books.given;
        is_new.then(|| books.standing(lines)).flatten()
    }

    /// What a line is to do as long as the order lasts.
    pub(super) fn standing(&self, lines: Lines) -> Option<Trouble> {
        self.books.lock().unwrap().standing(lines)
    }

    /// One of these lines did as it was told by [`Self::due`] or [`Self::standing`].
    pub(super) fn obey(&self, lines: Lines) {
        let books = &mut *self.books.lock().unwrap();
        let Some(order) = books.latest.as_mut().filter(|order| order.lines == lines) else {
            return;
        };
        if !std::mem::replace(&mut order.was_obeyed, true) {
            *books.obeyed.entry(lines).or_default() += 1;
        }
    }

    /// How many some line obeyed, by their lines.
    pub(super) fn obeyed(&self) -> BTreeMap<Lines, u64> {
        self.books.lock().unwrap().obeyed.clone()
    }
}

impl OrderBooks {
    fn standing(&self, lines: Lines) -> Option<Trouble> {
        let order = self.latest?;
        (order.lines == lines && Instant::now() <= order.until).then_some(order.trouble)
    }
}

/// At one octet in ten milliseconds.
const SLOW_OCTETS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_hears_once_of_an_order_of_its_kind_as_long_as_it_lasts() {
        let orders = Orders::default();
        let (mut one, mut other, mut opposite) = (0, 0, 0);
        let long = Instant::now() + Duration::from_secs(60);
        orders.give(Lines::Upstream, Trouble::Cut, long);
        for heard in [&mut one, &mut other] {
            assert_eq!(orders.due(Lines::Upstream, heard), Some(Trouble::Cut));
            assert_eq!(orders.due(Lines::Upstream, heard), None);
        }
        assert_eq!(orders.due(Lines::Downstream, &mut opposite), None);
        orders.give(Lines::Downstream, Trouble::Slow, long);
        assert_eq!(orders.due(Lines::Upstream, &mut one), None);
        assert_eq!(orders.due(Lines::Downstream, &mut opposite), Some(Trouble::Slow));
        orders.give(Lines::Upstream, Trouble::Held, Instant::now());
        sleep(Duration::from_millis(1));
        assert_eq!(orders.due(Lines::Upstream, &mut other), None, "it is over");
        orders.give(Lines::Upstream, Trouble::Held, long);
        orders.withdraw();
        assert_eq!(orders.due(Lines::Upstream, &mut other), None, "it was taken back");
    }

    #[test]
    fn an_order_stands_and_counts_once_however_often_it_is_obeyed() {
        let orders = Orders::default();
        orders.give(Lines::Names, Trouble::Garbled, Instant::now() + Duration::from_secs(60));
        assert_eq!(orders.standing(Lines::Database), None);
        orders.obey(Lines::Database);
        assert!(orders.obeyed().is_empty());
        for _ in 0..2 {
            assert_eq!(orders.standing(Lines::Names), Some(Trouble::Garbled));
            orders.obey(Lines::Names);
        }
        assert_eq!(orders.obeyed(), BTreeMap::from([(Lines::Names, 1)]));
    }
}
