//! PyKMIP's own client (`ProxyKmipClient`), which brings a key to a key management server, uses it and destroys it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::pki::Identity;
use crate::process::{self, Ran};

/// PEM files of the client.
#[derive(Clone, Copy, Debug)]
pub struct ClientFiles<'a> {
    /// Authority of the server's certificate.
    pub ca: &'a Path,
    /// The client's certificate.
    pub certificate: &'a Path,
    /// Its key.
    pub key: &'a Path,
}

/// Registers a person's certificate and RSA key, activates, locates, reads, signs, tries to get, revokes and destroys. What
/// came of it is JSON on standard output.
pub fn run(server: SocketAddr, files: ClientFiles<'_>, person: &Identity) -> Ran {
    let dir = process::open_temp_dir("pykmip-client");
    let script = dir.path().join("client.py");
    std::fs::write(&script, include_str!("pykmip_client.py")).unwrap();
    let mut command = Command::new(PYTHON);
    command.arg(&script).arg(server.ip().to_string()).arg(server.port().to_string());
    command.args([files.ca, files.certificate, files.key]);
    command.arg(&person.address).args([&person.certificate, &person.key]);
    process::run(&mut command, b"")
}

/// Of the environment that `cargo xtask test` makes, in which PyKMIP is.
pub(crate) const PYTHON: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/pykmip/bin/python");
