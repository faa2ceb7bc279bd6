//! A name server with one zone, unsigned: `example.`, with the records of the test.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

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
        let configuration = format!(
            "server:\n  ip-address: {}@{}\n  username: \"\"\n  zonesdir: \"{dir}\"\n  pidfile: \"\"\n  \
             zonelistfile: \"{dir}/list\"\n  xfrdfile: \"{dir}/xfrd\"\n  xfrdir: \"{dir}\"\n  \
             database: \"\"\nremote-control:\n  control-enable: no\nzone:\n  name: example.\n  \
             zonefile: example.zone\n",
            address.ip(),
            address.port(),
            dir = root.display()
        );
        let file = root.join("nsd.conf");
        fs::write(&file, configuration).unwrap();
        let output = fs::File::create(root.join("output")).unwrap();
        let mut command = Command::new("nsd");
        command.arg("-d").arg("-c").arg(&file).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let running = Running::start("nsd", &mut command);
        process::await_listener("nsd", address);
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
