//! sealgate itself, as its users run it: `init` in a temporary directory, an edited configuration, `relay`.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Namespace;
use crate::process::{self, Ran, Running};

/// One sealgate: its directory, and its relay while that runs.
#[derive(Debug)]
pub struct Gate {
    binary: PathBuf,
    relay: Option<Relay>,
    environment: Vec<(String, OsString)>,
    dir: TempDir,
}

#[derive(Debug)]
struct Relay {
    running: Running,
    ready: Ready,
}

/// What the ready line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// `inside-lmtp=`
    pub inside_lmtp: Option<SocketAddr>,
    /// `inside-smtp=`
    pub inside_smtp: Option<SocketAddr>,
    /// `outside-smtp=`
    pub outside_smtp: Option<SocketAddr>,
    /// `observe=`
    pub observe: Option<SocketAddr>,
}

impl Gate {
    /// `sealgate init` for these domains; every listener on port 0 of loopback. The program is
    /// `env!("CARGO_BIN_EXE_sealgate")` of the test.
    pub fn init(binary: &str, domains: &[&str]) -> Self {
        Self::init_with(binary, domains, &[])
    }

    /// The same with further arguments, `["--database", url]`.
    pub fn init_with(binary: &str, domains: &[&str], arguments: &[&str]) -> Self {
        let dir = process::open_temp_dir("gate");
        let binary = PathBuf::from(binary);
        let gate = Self { binary, relay: None, environment: Vec::new(), dir };
        let mut command = Command::new(&gate.binary);
        command.current_dir(gate.dir()).args(["init", "--dir"]).arg(gate.dir()).args(arguments);
        for domain in domains {
            command.args(["--domain", domain]);
        }
        process::run(&mut command, b"").expect_ok("sealgate init");
        gate.configure(|config| {
            for (table, key) in [("inside", "lmtp"), ("inside", "smtp"), ("outside", "smtp")] {
                set(config, &[table, key], "127.0.0.1:0");
            }
            set(config, &["observe", "listen"], "127.0.0.1:0");
            // There is no DNS but in the tests that bring one.
            set(config, &["outside", "authenticate"], false);
        });
        gate
    }

    /// What its relay and commands find in their environment from now on, besides what the test has: a token's module
    /// reads it.
    pub fn set_environment(&mut self, environment: Vec<(String, OsString)>) {
        self.environment = environment;
    }

    /// Where its configuration and stores are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its configuration is.
    pub fn configuration(&self) -> PathBuf {
        self.dir().join("sealgate.toml")
    }

    /// Edits the configuration as data.
    pub fn configure(&self, edit: impl FnOnce(&mut toml::Table)) {
        let path = self.configuration();
        let mut table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        edit(&mut table);
        fs::write(&path, toml::to_string(&table).unwrap()).unwrap();
    }

    /// Sets one key of the configuration, `["policy", "order"]`, say.
    pub fn set(&self, path: &[&str], value: impl Into<toml::Value>) {
        self.configure(|config| set(config, path, value));
    }

    /// Runs a command of the program with this configuration.
    pub fn run(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.dir()).args(arguments).arg("--config").arg(self.configuration());
        command.envs(self.environment.clone());
        process::run(&mut command, stdin)
    }

    /// As [`Gate::run`], but a failure is one of the test.
    pub fn must(&self, arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
        self.run(arguments, stdin).expect_ok(&format!("sealgate {}", arguments.join(" ")))
    }

    /// Runs `seal` or `open` with `--report`; the run and the report, where one was written.
    pub fn process(&self, arguments: &[&str], stdin: &[u8]) -> (Ran, Option<serde_json::Value>) {
        let report = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        let mut all = arguments.to_vec();
        all.extend(["--report", report.path().to_str().unwrap()]);
        let ran = self.run(&all, stdin);
        let text = fs::read_to_string(report.path()).unwrap_or_default();
        (ran, serde_json::from_str(&text).ok())
    }

    /// Starts the relay and waits for its ready line.
    pub fn start(&mut self) -> Ready {
        self.launch(None)
    }

    /// The same on a host of its own, which the listeners' addresses must be of.
    pub fn start_within(&mut self, host: &Namespace) -> Ready {
        self.launch(Some(host))
    }

    fn launch(&mut self, host: Option<&Namespace>) -> Ready {
        assert!(self.relay.is_none(), "the relay runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(&self.binary);
        command.arg("relay").arg("--config").arg(self.configuration());
        if let Some(host) = host {
            command = host.within(&command);
        }
        command.current_dir(self.dir()).envs(self.environment.clone());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut running = Running::start("sealgate relay", &mut command);
        let lines = BufReader::new(running.child().stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        // Reads on after the ready line, so that the relay never meets a full or closed pipe.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.starts_with("ready ") {
                    let _ = sender.send(line);
                }
            }
        });
        let line = receiver
            .recv_timeout(process::PATIENCE)
            .unwrap_or_else(|_| panic!("no ready line from sealgate relay:\n{}", self.log()));
        let ready = parse_ready(&line);
        self.relay = Some(Relay { running, ready });
        ready
    }

    /// What the ready line of the running relay said.
    pub fn ready(&self) -> Ready {
        self.relay.as_ref().expect("the relay does not run").ready
    }

    /// What the running relay answers to a GET: status line, header and body.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.ready().observe.unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// What `/readyz` says: 200 or 503, and the line.
    pub fn readiness(&self) -> (u16, String) {
        let text = self.get("/readyz");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim_end().to_owned())
    }

    /// The process id of the running relay.
    pub fn id(&self) -> u32 {
        self.relay.as_ref().expect("the relay does not run").running.id()
    }

    /// Sends the relay a signal, `HUP`.
    pub fn signal(&self, signal: &str) {
        self.relay.as_ref().expect("the relay does not run").running.signal(signal);
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.relay.take().expect("the relay does not run").running.stop(STOP_PATIENCE)
    }

    /// The relay's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The log lines that are JSON.
    pub fn log_lines(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Our own authority's certificate, in a file.
    pub fn authority(&self) -> PathBuf {
        let path = self.dir().join("authority.pem");
        fs::write(&path, self.must(&["ca", "certificate"], b"")).unwrap();
        path
    }

    /// Makes a key for an address with our own authority, and gives its certificate in a file.
    pub fn generate_key(&self, address: &str, algorithm: &str) -> PathBuf {
        self.must(&["secret-key", "generate", address, "--algorithm", algorithm], b"");
        self.certificate(address)
    }

    /// The certificate (or certificates) of an address of ours, in a file.
    pub fn certificate(&self, address: &str) -> PathBuf {
        let path = self.dir().join(format!("{address}.pem"));
        fs::write(&path, self.must(&["secret-key", "certificate", address], b"")).unwrap();
        path
    }

    /// Makes the other one known here: its authority and the certificates of these addresses.
    pub fn trust(&self, other: &Self, addresses: &[&str]) {
        self.must(&["anchor", "import", other.authority().to_str().unwrap()], b"");
        for address in addresses {
            let certificate = other.certificate(address);
            self.must(&["public-key", "import", certificate.to_str().unwrap()], b"");
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("relay.log")
    }
}

/// Sets one key of a configuration; tables on the way are made.
pub fn set(config: &mut toml::Table, path: &[&str], value: impl Into<toml::Value>) {
    let (last, tables) = path.split_last().expect("a key");
    let mut table = config;
    for name in tables {
        table = table
            .entry((*name).to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .expect("a table");
    }
    table.insert((*last).to_owned(), value.into());
}

fn parse_ready(line: &str) -> Ready {
    let address = |name: &str| {
        line.split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .map(|text| text.parse().unwrap_or_else(|_| panic!("no address: {text:?}")))
    };
    Ready {
        inside_lmtp: address("inside-lmtp"),
        inside_smtp: address("inside-smtp"),
        outside_smtp: address("outside-smtp"),
        observe: address("observe"),
    }
}

/// How long a relay may drain.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_ready_line() {
        let ready = parse_ready("ready inside-lmtp=127.0.0.1:2024 outside-smtp=[::1]:25");
        assert_eq!(ready.inside_lmtp, Some("127.0.0.1:2024".parse().unwrap()));
        assert_eq!(ready.outside_smtp, Some("[::1]:25".parse().unwrap()));
        assert_eq!(ready.observe, None);
    }

    #[test]
    fn sets_keys_and_makes_tables() {
        let mut config = toml::Table::new();
        set(&mut config, &["policy", "order"], "triple");
        set(&mut config, &["domains"], vec!["a.example"]);
        assert_eq!(config["policy"]["order"].as_str(), Some("triple"));
    }
}
