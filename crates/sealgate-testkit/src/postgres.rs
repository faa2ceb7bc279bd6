//! PostgreSQL: a server of its own in a temporary directory, on a unix socket and on loopback, with TLS.
//!
//! On the socket everybody is believed to be who he says; on loopback [`USER`] needs [`PASSWORD`]. It listens on
//! 127.0.0.2 too, which its certificate does not name. What is committed outlives the server, not the machine.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tempfile::TempDir;

use crate::pki::Pki;
use crate::process::{self, Running};

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    /// Where it listens.
    pub address: SocketAddr,
    /// The authority that vouches for its TLS certificate (for `localhost` and 127.0.0.1), PEM.
    pub root: PathBuf,
    server: Mutex<Option<Running>>,
    account: Option<(u32, u32)>,
    dir: TempDir,
    _pki: Pki,
}

impl Postgres {
    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        let dir = process::open_temp_dir("postgres");
        let pki = Pki::new("Database Authority");
        let postgres = Self {
            address: process::loopback(process::free_port()),
            root: pki.root.clone(),
            server: Mutex::new(None),
            account: account(),
            dir,
            _pki: pki,
        };
        postgres.make_cluster();
        postgres.make_certificate();
        postgres.resume();
        postgres.sql("postgres", &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"));
        postgres
    }

    /// The server that the tests of one process share; it ends with the last of them that holds it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let postgres = Arc::new(Self::start());
            *shared = Arc::downgrade(&postgres);
            postgres
        })
    }

    /// Makes an empty database that belongs to [`USER`], and gives its name.
    pub fn create_database(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("sealgate_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        name
    }

    /// The URL of a database over loopback, with the password in it.
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.address, database)
    }

    /// The same through whatever leads there from this address.
    pub fn url_at(&self, address: SocketAddr, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@{address}/{database}")
    }

    /// The URL of a database over the unix socket, without a password.
    pub fn socket_url(&self, database: &str) -> String {
        let (port, socket) = (self.address.port(), self.dir.path().display());
        format!("postgres:///{database}?host={socket}&port={port}&user={USER}")
    }

    /// Runs SQL as the superuser and gives what it says, a line a row, columns separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(program("psql"));
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set"]);
        command.args(["ON_ERROR_STOP=1", "--username", "postgres", "--dbname", database]);
        command.arg("--host").arg(self.dir.path());
        command.args(["--port", &self.address.port().to_string(), "--command", sql]);
        let said = process::run(&mut command, b"").expect_ok(sql);
        String::from_utf8(said).unwrap().trim_end().to_owned()
    }

    /// Starts the server again, at the same address; returns when it answers.
    pub fn resume(&self) {
        let mut command = self.command("postgres");
        let log = fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        command.arg("-D").arg(self.data()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let before = self.server.lock().unwrap().replace(Running::start("postgres", &mut command));
        assert!(before.is_none(), "the server runs already");
        let ready = process::holds_within(process::PATIENCE, || {
            let mut ask = Command::new(program("pg_isready"));
            ask.arg("--quiet").arg("--host").arg(self.dir.path());
            ask.args(["--port", &self.address.port().to_string()]);
            process::run(&mut ask, b"").ok()
        });
        assert!(ready, "PostgreSQL does not start:\n{}", self.log());
    }

    /// Stops the server: clients are disconnected, data is written.
    pub fn stop(&self) {
        self.end("INT");
    }

    /// Stops it in the midst of what it does: as after a crash, its next start recovers.
    pub fn kill(&self) {
        self.end("QUIT");
    }

    /// SIGKILL for the server process and all its children, as when the machine runs out of memory.
    pub fn crash(&self) {
        // Stopped first, so that it starts no child meanwhile.
        let id = self.server.lock().unwrap().as_ref().expect("the server does not run").id();
        self.signal_all("STOP");
        let path = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(path).unwrap();
        self.signal_all("KILL");
        let mut server = self.server.lock().unwrap().take().expect("the server does not run");
        server.child().wait().unwrap();
        let children = children.split_whitespace().map(|child| child.parse().unwrap());
        let mut children: Vec<u32> = children.collect();
        process::await_that("the server's children are gone", || {
            children.retain(|child| process::is_running(*child));
            children.is_empty()
        });
    }

    /// Sends the server process and all its children a signal: `STOP` and `CONT` make it silent.
    pub fn signal_all(&self, signal: &str) {
        let id = self.server.lock().unwrap().as_ref().expect("the server does not run").id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        // A child may end before the signal comes; the server does not.
        let script = format!(
            "kill -{signal} {id} && for child in {children}; do kill -{signal} $child 2> /dev/null || :; done"
        );
        process::run(Command::new("sh").args(["-c", &script]), b"").expect_ok(&script);
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn end(&self, signal: &str) {
        let mut server = self.server.lock().unwrap().take().expect("the server does not run");
        server.signal(signal);
        let ended = process::holds_within(STOP_PATIENCE, || server.ended().is_some());
        assert!(ended, "PostgreSQL does not end on SIG{signal}:\n{}", self.log());
    }

    fn make_cluster(&self) {
        fs::create_dir(self.data()).unwrap();
        self.hand_over(self.dir.path());
        self.hand_over(&self.data());
        let mut command = self.command("initdb");
        command.arg("-D").arg(self.data()).args(["--username", "postgres", "--auth-local"]);
        command.args(["trust", "--auth-host", "scram-sha-256", "--no-sync", "--no-instructions"]);
        command.args(["--encoding", "UTF8", "--locale", "C.UTF-8"]);
        process::run(&mut command, b"").expect_ok("initdb");
        let settings = format!(
            "listen_addresses = '127.0.0.1, 127.0.0.2'\nport = {}\nunix_socket_directories = '{}'\n\
             fsync = off\nfull_page_writes = off\n\
             max_connections = 60\nshared_buffers = 32MB\nssl = on\n",
            self.address.port(),
            self.dir.path().display()
        );
        let path = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + &settings).unwrap();
    }

    /// `server.key` and `server.crt` where the server looks for them.
    fn make_certificate(&self) {
        let (key, certificate) = (self.data().join("server.key"), self.data().join("server.crt"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-nodes", "-days", "365", "-subj", "/CN=localhost", "-addext"]);
        command.args(["subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext"]);
        command.args(["basicConstraints=critical,CA:FALSE", "-CA"]).arg(&self.root).arg("-CAkey");
        command.arg(self.root.with_extension("key")).arg("-keyout").arg(&key);
        command.arg("-out").arg(&certificate);
        process::run(&mut command, b"").expect_ok("openssl req");
        process::set_mode(&key, 0o600);
        self.hand_over(&key);
    }

    /// Gives a file to the account that the server runs under.
    fn hand_over(&self, path: &Path) {
        if let Some((user, group)) = self.account {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    /// A program of the server, under its account, in a directory that it may be in.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.current_dir(self.dir.path());
        if let Some((user, group)) = self.account {
            // Other groups are dropped with this, too.
            command.uid(user).gid(group);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let server = self.server.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(running) = server.take() {
            // On SIGTERM it would wait for its clients.
            running.signal("QUIT");
        }
    }
}

/// User and group of `postgres` where the tests run as root, which the server refuses.
fn account() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<_> = line.expect("an account `postgres`").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// A program of the newest PostgreSQL that Debian has installed.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("this test needs PostgreSQL");
    let found = versions.map(|entry| entry.unwrap().path().join("bin").join(name));
    found.filter(|path| path.exists()).max().unwrap_or_else(|| panic!("no {name} here"))
}

/// The role that owns the databases.
pub const USER: &str = "sealgate";

/// Its password over loopback.
pub const PASSWORD: &str = "geheim";

/// How long the server may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
