//! PyKMIP's server: a key management server that is not ours. It signs and does not decrypt with private keys.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::pki::Pki;
use crate::process::{self, Running};
use crate::pykmip_client::PYTHON;

/// The server, with its data and its authority; the data stays while it is away.
#[derive(Debug)]
pub struct PyKmipServer {
    /// The authority of its certificate and its clients'.
    pub pki: Pki,
    /// TCP port on loopback.
    pub port: u16,
    dir: TempDir,
    running: Option<Running>,
}

impl PyKmipServer {
    /// Starts one without a key.
    pub fn start() -> Self {
        let pki = Pki::new("Keys");
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
        // Its cipher suites and rustls's have only ones with ECDSA in common.
        let (certificate, key) = pki.issue_for_tls("server", "/CN=localhost", "serverAuth", names);
        let dir = process::open_temp_dir("pykmip");
        let port = process::free_port();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(dir.path().join("policy")).unwrap();
        let configuration = format!(
            "[server]\nhostname=127.0.0.1\nport={port}\ncertificate_path={}\nkey_path={}\nca_path={}\n\
             auth_suite=TLS1.2\npolicy_path={}\nenable_tls_client_auth=True\nlogging_level=INFO\n\
             database_path={}\n",
            certificate.display(),
            key.display(),
            pki.root.display(),
            path("policy"),
            path("keys.db")
        );
        fs::write(dir.path().join("server.conf"), configuration).unwrap();
        let mut server = Self { pki, port, dir, running: None };
        server.start_again();
        server
    }

    /// Starts it again with what it had.
    pub fn start_again(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let output = fs::OpenOptions::new().create(true).append(true).open(path("output")).unwrap();
        let mut command = Command::new(PYTHON);
        command.args(["-c", "from kmip.services.server.server import main; main()"]);
        command.arg("-f").arg(path("server.conf")).arg("-l").arg(path("log"));
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        // A process of its own keeps its policies, and outlives it.
        self.running = Some(Running::start_with_children("PyKMIP", &mut command));
        let is_up = || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        assert!(process::holds_within(process::PATIENCE, is_up), "{}", self.log());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.running.take().expect("it runs").kill();
    }

    /// Certificate and key of a client of this name.
    pub fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        self.pki.issue_for_tls(name, &format!("/CN={name}"), "clientAuth", "")
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        ["output", "log"]
            .map(|name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default())
            .concat()
    }
}

impl Drop for PyKmipServer {
    fn drop(&mut self) {
        // On SIGTERM it waits for a while for clients that do not come.
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_killed_server_is_left() {
        let mut server = PyKmipServer::start();
        let id = server.running.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let children: Vec<u32> =
            children.split_whitespace().map(|child| child.parse().unwrap()).collect();
        assert!(!children.is_empty(), "it has no children any more: is the group needed?");
        server.kill();
        process::await_that("its children are gone", || {
            !children.iter().any(|child| process::is_running(*child))
        });
        server.start_again();
    }
}
