//! `sealgate key-server`, as its users run it: with the configuration and the stores of a [`crate::gate::Gate`].

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::process::{self, Running};

/// A running key server.
#[derive(Debug)]
pub struct KeyServer {
    running: Running,
    log: PathBuf,
    /// `key-server=` of the ready line.
    pub address: Option<SocketAddr>,
    /// `key-server-socket=` of the ready line.
    pub socket: Option<PathBuf>,
}

impl KeyServer {
    /// Starts it with this configuration and waits for its ready line. The program is `env!("CARGO_BIN_EXE_sealgate")` of
    /// the test.
    pub fn start(binary: &str, configuration: &Path) -> Self {
        let directory = configuration.parent().expect("a directory");
        let log = directory.join("key-server.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(binary);
        command.current_dir(directory).arg("key-server").arg("--config").arg(configuration);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut running = Running::start("sealgate key-server", &mut command);
        let lines = BufReader::new(running.child().stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        // Reads on after the ready line, so that the server never meets a full or closed pipe.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let line = receiver.recv_timeout(process::PATIENCE).unwrap_or_else(|_| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            panic!("no ready line from sealgate key-server:\n{said}")
        });
        let (address, socket) = parse_ready(&line);
        Self { running, log, address, socket }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Sends it a signal, `HUP`.
    pub fn signal(&self, signal: &str) {
        self.running.signal(signal);
    }

    /// SIGTERM, and its exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.running.stop(STOP_PATIENCE)
    }

    /// SIGKILL: it leaves what it leaves.
    pub fn kill(mut self) {
        self.running.child().kill().unwrap();
        self.running.child().wait().unwrap();
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The audit lines of its log.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(|line: &serde_json::Value| line["event"] == "key-use").collect()
    }

    /// SIGHUP, and waits until the configuration is taken, or refused.
    pub fn reload(&self) {
        let times = || self.log().matches("configuration").count();
        let before = times();
        self.signal("HUP");
        process::await_that("the key server reloads", || times() > before);
    }
}

fn parse_ready(line: &str) -> (Option<SocketAddr>, Option<PathBuf>) {
    let value =
        |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    assert!(line.starts_with("ready "), "{line}");
    (
        value("key-server").map(|text| text.parse().expect("an address")),
        value("key-server-socket").map(PathBuf::from),
    )
}

/// How long it may drain.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_ready_line() {
        let (address, socket) = parse_ready("ready key-server=[::1]:5696 key-server-socket=/run/k");
        assert_eq!(address, Some("[::1]:5696".parse().unwrap()));
        assert_eq!(socket.as_deref(), Some(Path::new("/run/k")));
        assert_eq!(parse_ready("ready key-server-socket=/run/k").0, None);
    }
}
