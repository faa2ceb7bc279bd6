//! A recursive resolver between a program and the tests' own DNS, as most hosts have one.
//!
//! Needs Debian's unbound package.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::nsd::Nsd;
use crate::process::{self, Running};

/// A running resolver.
#[derive(Debug)]
pub struct Unbound {
    /// Where it answers, over UDP and TCP.
    pub address: SocketAddr,
    _running: Running,
    _dir: TempDir,
}

impl Unbound {
    /// Starts one that asks this DNS; whether it validates the answers itself.
    pub fn start(dns: &Nsd, is_validating: bool) -> Self {
        let dir = process::open_temp_dir("unbound");
        let address = process::loopback(process::free_port());
        let modules = if is_validating { "validator iterator" } else { "iterator" };
        let configuration = format!(
            "server:\n  interface: {}\n  port: {}\n  directory: \"{dir}\"\n  chroot: \"\"\n  \
             username: \"\"\n  pidfile: \"{dir}/pid\"\n  do-daemonize: no\n  use-syslog: no\n  \
             num-threads: 1\n  do-not-query-localhost: no\n  module-config: \"{modules}\"\n  \
             trust-anchor-file: \"{}\"\nremote-control:\n  control-enable: no\n\
             forward-zone:\n  name: \".\"\n  forward-addr: {}@{}\n",
            address.ip(),
            address.port(),
            dns.trust_anchor().display(),
            dns.address.ip(),
            dns.address.port(),
            dir = dir.path().display(),
        );
        let path = dir.path().join("unbound.conf");
        fs::write(&path, configuration).unwrap();
        let output = fs::File::create(dir.path().join("output")).unwrap();
        let mut command = Command::new("/usr/sbin/unbound");
        command.arg("-d").arg("-c").arg(&path).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let running = Running::start("unbound", &mut command);
        process::await_listener("unbound", address);
        Self { address, _running: running, _dir: dir }
    }
}
