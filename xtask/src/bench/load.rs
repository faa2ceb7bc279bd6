//! The two ends of the line: Postfix's own `smtp-source` and `smtp-sink`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use sealgate_testkit::process::{self, Running};
use tempfile::NamedTempFile;

use super::subject::{RECIPIENT, SENDER};

/// A running smtp-sink.
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    _running: Running,
}

impl Sink {
    pub(super) fn start() -> Result<Self, String> {
        let address = process::loopback(process::free_port());
        let mut command = Command::new("smtp-sink");
        // It refuses to run as root.
        command.args(["-u", "nobody", &address.to_string(), BACKLOG]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let running = Running::start("smtp-sink", &mut command);
        process::await_listener("smtp-sink", address);
        Ok(Self { address, _running: running })
    }
}

/// One message to send many times to one server.
pub(super) struct Load {
    file: NamedTempFile,
    to: SocketAddr,
    sessions: usize,
}

impl Load {
    pub(super) fn new(message: &[u8], to: SocketAddr, sessions: usize) -> Result<Self, String> {
        let text = String::from_utf8_lossy(message).replace("\r\n", "\n");
        let mut file = NamedTempFile::new().map_err(|why| format!("temporary file: {why}"))?;
        file.write_all(text.as_bytes()).map_err(|why| format!("temporary file: {why}"))?;
        Ok(Self { file, to, sessions })
    }

    /// Sends it so many times and waits for the last reply; anything but a positive reply is an error.
    pub(super) fn send(&self, count: usize) -> Result<(), String> {
        let mut command = Command::new("smtp-source");
        command.args([
            "-s",
            &self.sessions.to_string(),
            "-m",
            &count.to_string(),
            "-C",
            CONNECT_ATTEMPTS,
        ]);
        command.args(["-M", "source.example", "-f", SENDER, "-t", RECIPIENT, "-F"]);
        command.arg(self.file.path()).arg(format!("inet:{}", self.to));
        let ran = process::run(&mut command, b"");
        // smtp-source warns and goes on after some failures: any word of it spoils the run.
        if ran.ok() && ran.stderr.is_empty() {
            Ok(())
        } else {
            Err(format!("smtp-source: exit {}: {}", ran.code, ran.stderr))
        }
    }
}

/// Sessions at a time, each a new connection for one message, where nothing else is said.
pub(super) const SESSIONS: usize = 20;
/// Of smtp-sink.
const BACKLOG: &str = "1000";
/// Where a listen queue is full for a moment.
const CONNECT_ATTEMPTS: &str = "10";
