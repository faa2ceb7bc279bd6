//! The DNS of a run: a signed root and the zones of the domains outside, served by NSD, which is killed and silenced,
//! behind a line that breaks (`resolver`).
//!
//! Each domain has exchangers of its own at loopback addresses of their own, because mail exchangers listen on port 25
//! and nowhere else. Every zone that has them is signed: whatever DNS does, no mail goes to anybody else, and none is bounced.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::ledger::Side;
use super::stores;
use super::world::{DOMAINS_OUTSIDE, World};
use crate::dns_line::UNSIGNED_ZONE;
use crate::nsd::{Nsd, Zone};
use crate::process;

/// The name server.
#[derive(Debug)]
pub(super) struct Names {
    server: Nsd,
}

/// One domain's exchangers.
#[derive(Debug)]
pub(super) struct Exchangers {
    pub(super) domain: &'static str,
    /// Where they are, in the order of their preference.
    pub(super) listeners: Vec<TcpListener>,
    /// They have TLSA records: mail may come within TLS only.
    pub(super) dane: bool,
}

impl Exchangers {
    /// Those of every domain outside: the first one's has two, the last one's go by DANE.
    pub(super) fn for_each_domain() -> Vec<Self> {
        let mut next = Ipv4Addr::new(127, 64, 0, 1).to_bits() + (std::process::id() % 0xffff) * 16;
        let count = |index| if index == 0 { 2 } else { 1 };
        let last = DOMAINS_OUTSIDE.len() - 1;
        let domains = DOMAINS_OUTSIDE.iter().enumerate();
        domains
            .map(|(index, domain)| Self {
                domain,
                listeners: (0..count(index)).map(|_| listen(&mut next)).collect(),
                dane: index == last,
            })
            .collect()
    }

    /// Signed with NSEC, or with NSEC3 where DANE is not.
    fn zone(&self, index: usize, certificate: &Path) -> Zone {
        let records = self.listeners.iter().enumerate().map(|(number, listener)| {
            let address = listener.local_addr().unwrap().ip();
            format!("@ MX {number}0 mx{number}\nmx{number} A {address}\n")
        });
        let mut records: String = records.collect();
        if self.dane {
            records += &format!("_25._tcp.mx0 TLSA 3 0 1 {}\n", fingerprint(certificate));
        }
        match index % 2 {
            0 => Zone::signed(self.domain, &records),
            _ => Zone::hashed(self.domain, &records),
        }
    }
}

impl Names {
    /// Starts the name server. The certificate is that of all exchangers.
    pub(super) fn start(exchangers: &[Exchangers], certificate: &Path) -> Self {
        let zones = exchangers.iter().enumerate();
        let mut zones: Vec<Zone> = zones.map(|(index, one)| one.zone(index, certificate)).collect();
        zones.push(Zone::unsigned(UNSIGNED_ZONE, ""));
        Self { server: Nsd::start_with_ttl(&zones, TTL_SECS) }
    }

    /// Where it answers.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What the relay believes.
    pub(super) fn trust_anchor(&self) -> PathBuf {
        self.server.trust_anchor()
    }

    /// Something befalls it and is over when this returns.
    pub(super) fn strike(&mut self, world: &Arc<World>) {
        stores::strike_server(
            world,
            (Side::Names, "name server"),
            &mut self.server,
            [Nsd::kill, Nsd::start_again],
            [|it| it.signal("STOP"), |it| it.signal("CONT")],
        );
    }
}

/// A free loopback address.
fn listen(next: &mut u32) -> TcpListener {
    for _ in 0..ADDRESSES_TRIED {
        *next += 1;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::from_bits(*next), SMTP_PORT)) {
            return listener;
        }
    }
    panic!("no loopback address with a free port 25: this needs root");
}

/// Of the whole certificate, as a TLSA record of the kind `3 0 1` has it (RFC 6698 §2.1).
fn fingerprint(certificate: &Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(certificate);
    let out = process::run(&mut command, b"").expect_ok("openssl x509");
    let text = String::from_utf8(out).unwrap();
    text.rsplit('=').next().unwrap().trim().replace(':', "")
}

/// Asked for again and again.
const TTL_SECS: u32 = 2;
/// RFC 5321 §4.5.4.2.
const SMTP_PORT: u16 = 25;
/// Before somebody else's must be asked to end.
const ADDRESSES_TRIED: usize = 4000;
