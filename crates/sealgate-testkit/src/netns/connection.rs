//! A TCP connection of a client on another host, for dialogues that a test leads line by line.
//!
//! A Rust thread cannot enter a namespace without unsafe code, so socat connects there and passes bytes.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

use super::Namespace;
use crate::process::Running;

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    server: String,
    reader: BufReader<ChildStdout>,
    writer: ChildStdin,
    _running: Running,
}

impl Namespace {
    /// Connects from this host to `HOST:PORT`; silence ends the connection after a minute.
    pub fn connect(&self, server: &str) -> Connection {
        let mut command = self.command("socat");
        command.args(["-T", "60", "STDIO", &format!("TCP:{server}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start("socat", &mut command);
        let reader = BufReader::new(running.child().stdout.take().unwrap());
        let writer = running.child().stdin.take().unwrap();
        Connection { server: server.to_owned(), reader, writer, _running: running }
    }
}

impl Connection {
    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
        self.writer.flush().unwrap();
    }

    /// The next line with its end.
    pub fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\n"), "{} closed the connection", self.server);
        line
    }

    /// The next line, which must begin like this, without its end.
    pub fn expect(&mut self, start: &str) -> String {
        let line = String::from_utf8_lossy(&self.line()).trim_end().to_owned();
        assert!(line.starts_with(start), "{}: {line:?} instead of {start:?}", self.server);
        line
    }

    /// Sends a command line and takes its one-line answer.
    pub fn command(&mut self, line: &str, start: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.expect(start)
    }
}
