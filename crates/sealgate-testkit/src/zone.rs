//! A name server with one zone, unsigned: `example.`, with the records of the test.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;

use crate::nsd;
use crate::process::{self, Running};

/// A running NSD.
#[derive(Debug)]
pub struct Zone {
    /// Where it answers, over UDP and TCP.
    pub address: SocketAddr,
    _running: Running,
    _dir: TempDir,
}

impl Zone {
    /// Serves these records of `example.`, each a line of a zone file; [`txt`] makes some.
    pub fn start(records: &[String]) -> Self {
        let dir = process::open_temp_dir("zone");
        let root = dir.path();
        let address = process::loopback(process::free_port());
        let soa = "@ IN SOA ns root 1 3600 600 86400 1\n@ IN NS ns\nns IN A 127.0.0.1\n";
        let zone = format!("$ORIGIN example.\n$TTL 60\n{soa}{}\n", records.join("\n"));
        fs::write(root.join("example.zone"), zone).unwrap();
        let mut configuration = nsd::configuration(root, address);
        configuration.push_str("zone:\n  name: example.\n  zonefile: example.zone\n");
        fs::write(root.join(nsd::CONFIGURATION), configuration).unwrap();
        let running = nsd::run(root, address);
        Self { address, _running: running, _dir: dir }
    }
}

/// A TXT record, in strings of at most 255 octets.
pub fn txt(name: &str, value: &str) -> String {
    let strings: Vec<String> = value
        .as_bytes()
        .chunks(250)
        .map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece)))
        .collect();
    format!("{name} IN TXT {}", strings.join(" "))
}
