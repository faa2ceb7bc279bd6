//! Lines between a client and its provider, as slow, as long and as bad as real ones.
//!
//! Rate, delay and loss are the kernel's (`tc`, netem) where it has netem. Where it has not, the rate still is the
//! kernel's (`tc`, tbf), and delay and loss come from here: the line is two TUN devices, whose packets socat hands to
//! this process and takes back. Both ways packets are lost, not connections: TCP repairs what it can.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{End, lacking};
use crate::process::{self, Running};

/// A kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is called.
    pub name: &'static str,
    /// From the client to the network.
    pub up: Shape,
    /// From the network to the client.
    pub down: Shape,
    /// The largest packet.
    pub mtu_bytes: u32,
}

/// One direction of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How much it carries.
    pub bits_per_second: u32,
    /// How long a bit is on its way.
    pub delay: Duration,
    /// How many of a hundred packets are lost.
    pub loss_percent: u32,
}

impl Shape {
    const fn new(bits_per_second: u32, delay_ms: u64, loss_percent: u32) -> Self {
        Self { bits_per_second, delay: Duration::from_millis(delay_ms), loss_percent }
    }
}

/// A telephone line with modems (ITU-T V.34).
pub const PUBLIC_LINE: Line = Line {
    name: "public line",
    up: Shape::new(33_600, 150, 0),
    down: Shape::new(33_600, 150, 0),
    mtu_bytes: 576,
};

/// A portable telephone's packet network.
pub const RADIO_NETWORK: Line = Line {
    name: "radio network",
    up: Shape::new(9_600, 600, 2),
    down: Shape::new(9_600, 600, 2),
    mtu_bytes: 576,
};

/// Cable television: much down, little up.
pub const CATV: Line = Line {
    name: "CATV",
    up: Shape::new(512_000, 20, 0),
    down: Shape::new(10_000_000, 20, 0),
    mtu_bytes: 1500,
};

/// A line in use.
#[derive(Debug)]
pub struct Connected {
    line: Line,
    // None where the kernel does it all.
    model: Option<Model>,
}

impl Line {
    /// Lays it between a client and its provider.
    pub fn connect(self, client: &End<'_>, provider: &End<'_>) -> Connected {
        let netem = client.host.ran("tc qdisc add dev lo root netem delay 1ms").ok();
        if netem {
            client.host.must("tc qdisc del dev lo root");
        }
        let model = if netem {
            super::join(client, provider);
            None
        } else {
            Some(Model::start(self, client, provider))
        };
        for (end, shape) in [(client, self.up), (provider, self.down)] {
            if netem {
                end.host.must(&format!(
                    "ip link set dev {} mtu {} gso_max_segs 1",
                    end.interface, self.mtu_bytes
                ));
            } else {
                end.bring_up(Some(self.mtu_bytes));
            }
            let discipline = if netem { shape.netem() } else { shape.tbf() };
            end.host.must(&format!("tc qdisc add dev {} root {discipline}", end.interface));
        }
        Connected { line: self, model }
    }
}

impl Shape {
    fn netem(self) -> String {
        let Self { bits_per_second, delay, loss_percent } = self;
        let loss = if loss_percent == 0 { String::new() } else { format!(" loss {loss_percent}%") };
        format!("netem limit 1000 delay {}ms{loss} rate {bits_per_second}bit", delay.as_millis())
    }

    fn tbf(self) -> String {
        let rate = self.bits_per_second;
        // A hundredth of a second's worth, but never less than the largest packet.
        let burst = (rate / 8 / 100).max(BURST_BYTES_MIN);
        format!("tbf rate {rate}bit burst {burst} limit {QUEUE_BYTES}")
    }
}

impl Connected {
    /// What kind it is.
    pub fn line(&self) -> Line {
        self.line
    }

    /// What it is and who shapes it, and what it carried, where that was counted here.
    pub fn describe(&self) -> String {
        let Line { name, up, down, .. } = self.line;
        let shaper = self.model.as_ref().map_or_else(
            || "shaped by tc netem".to_owned(),
            |model| {
                let [carried, lost] = model.counts();
                format!(
                    "rate by tc tbf, delay and loss by the test bed (this kernel has no netem): {carried} packets, \
                     {lost} of them lost"
                )
            },
        );
        format!(
            "{name}: up {} bit/s, down {} bit/s, {} ms each way, {} % loss; {shaper}",
            up.bits_per_second,
            down.bits_per_second,
            up.delay.as_millis(),
            up.loss_percent
        )
    }
}

/// The line's far middle: delays and loses what goes from one TUN device to the other.
#[derive(Debug)]
struct Model {
    directions: [Arc<Counts>; 2],
    // Before the directory that their sockets are in.
    _ends: [Running; 2],
    wake: [PathBuf; 2],
    _dir: TempDir,
}

#[derive(Debug, Default)]
struct Counts {
    carried: AtomicU64,
    lost: AtomicU64,
}

impl Model {
    fn start(line: Line, client: &End<'_>, provider: &End<'_>) -> Self {
        let dir = process::open_temp_dir("line");
        let [near, far, near_end, far_end] =
            ["near", "far", "near-end", "far-end"].map(|name| dir.path().join(name));
        let [near_socket, far_socket] = [&near, &far].map(|path| UnixDatagram::bind(path).unwrap());
        let ends = [(client, &near, &near_end), (provider, &far, &far_end)]
            .map(|(end, peer, own)| open_device(end, peer, own));
        let up = carry(&near_socket, &far_socket, far_end, line.up);
        let down = carry(&far_socket, &near_socket, near_end, line.down);
        Self { directions: [up, down], _ends: ends, wake: [near, far], _dir: dir }
    }

    fn counts(&self) -> [u64; 2] {
        let sum = |count: fn(&Counts) -> &AtomicU64| {
            self.directions.iter().map(|counts| count(counts).load(Ordering::Relaxed)).sum()
        };
        [sum(|counts| &counts.carried), sum(|counts| &counts.lost)]
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // No packet is empty: this ends the threads.
        if let Ok(socket) = UnixDatagram::unbound() {
            for path in &self.wake {
                let _ = socket.send_to(&[], path);
            }
        }
    }
}

/// A TUN device whose packets come as datagrams to `peer` and go as datagrams to `own`.
fn open_device(end: &End<'_>, peer: &Path, own: &Path) -> Running {
    let mut command = end.host.network_command("socat");
    command.arg(format!("TUN,tun-type=tun,tun-name={},iff-no-pi", end.interface));
    command.arg(format!("UNIX-SENDTO:{},bind={}", peer.display(), own.display()));
    let mut running = Running::start("socat", command.stdin(Stdio::null()).stdout(Stdio::null()));
    let mut ended = false;
    process::await_that(&format!("TUN device {}", end.interface), || {
        ended = running.ended().is_some();
        ended || (own.exists() && end.host.has_interface(end.interface))
    });
    if ended {
        lacking("no TUN device", "socat has ended; is there /dev/net/tun, and the package socat?");
    }
    running
}

fn carry(from: &UnixDatagram, to: &UnixDatagram, target: PathBuf, shape: Shape) -> Arc<Counts> {
    let counts = Arc::new(Counts::default());
    let (from, to, shared) =
        (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&counts));
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut packet = [0; PACKET_BYTES_MAX];
        while let Ok(length @ 1..) = from.recv(&mut packet) {
            let number = shared.carried.fetch_add(1, Ordering::Relaxed);
            if is_lost(number, shape.loss_percent) {
                shared.lost.fetch_add(1, Ordering::Relaxed);
            } else if sender
                .send((Instant::now() + shape.delay, packet[..length].to_vec()))
                .is_err()
            {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, packet) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // The other end may be gone already, as a telephone's may.
            let _ = to.send_to(&packet, &target);
        }
    });
    counts
}

/// Spread evenly, so that every run loses the same: of a hundred packets as many as said.
fn is_lost(number: u64, loss_percent: u32) -> bool {
    let loss = u64::from(loss_percent);
    (number * loss + 50) % 100 < loss
}

/// Room for the largest packet with its header.
const BURST_BYTES_MIN: u32 = 1600;

/// What waits for a slow line before the kernel drops it.
const QUEUE_BYTES: u32 = 64 * 1024;

/// More than the largest MTU.
const PACKET_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loses_as_many_packets_as_said() {
        for percent in [0, 1, 2, 10] {
            let lost = (0..1000).filter(|number| is_lost(*number, percent)).count();
            assert_eq!(lost, usize::try_from(percent).unwrap() * 10, "{percent} %");
        }
        assert!((0..50).any(|number| is_lost(number, 2)), "the first fifty packets know it");
    }

    #[test]
    fn words_of_tc() {
        assert_eq!(RADIO_NETWORK.up.netem(), "netem limit 1000 delay 600ms loss 2% rate 9600bit");
        assert_eq!(PUBLIC_LINE.up.netem(), "netem limit 1000 delay 150ms rate 33600bit");
        assert_eq!(PUBLIC_LINE.up.tbf(), "tbf rate 33600bit burst 1600 limit 65536");
        assert_eq!(CATV.down.tbf(), "tbf rate 10000000bit burst 12500 limit 65536");
    }
}
