//! Child processes: started in the foreground, stopped by their process id, never by name.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A child that is stopped with SIGTERM, and SIGKILL if that does not help, when the value is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    /// Whether signals go to the child's process group, which is its own.
    with_children: bool,
}

impl Running {
    /// Starts a command; its streams are the caller's affair.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { child, name: name.to_owned(), with_children: false }
    }

    /// The same for a command whose own children do not end with it: every signal goes to all of them.
    pub fn start_with_children(name: &str, command: &mut Command) -> Self {
        let mut running = Self::start(name, command.process_group(0));
        running.with_children = true;
        running
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status, if it has ended already.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal, `TERM` or `HUP`.
    pub fn signal(&self, signal: &str) {
        if self.with_children {
            let script = format!("kill -{signal} -{}", self.id());
            run(Command::new("sh").args(["-c", &script]), b"");
        } else {
            send_signal(self.id(), signal);
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.child.wait().unwrap();
    }

    /// SIGTERM and the exit status; panics when the child is still there after the time.
    pub fn stop(&mut self, patience: Duration) -> ExitStatus {
        if self.ended().is_none() {
            self.signal("TERM");
        }
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < end, "{} does not end on SIGTERM", self.name);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        self.signal("TERM");
        let end = Instant::now() + STOP_PATIENCE;
        while Instant::now() < end {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.signal("KILL");
        let _ = self.child.wait();
    }
}

/// Ends a daemon that is not our child: SIGTERM, and SIGKILL if that does not help.
pub fn end(id: u32, name: &str) {
    let gone = || !Path::new(&format!("/proc/{id}")).exists();
    for signal in ["TERM", "KILL"] {
        send_signal(id, signal);
        if holds_within(STOP_PATIENCE, gone) {
            return;
        }
    }
    println!("{name}, process {id}, does not end");
}

/// Whether it is there and no zombie: nobody waits for a killed server's children where nothing reaps orphans.
pub(crate) fn is_running(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// No libc here, because our crates forbid unsafe code: the shell's own kill does it.
pub(crate) fn send_signal(id: u32, signal: &str) {
    let script = format!("kill -{signal} {id}");
    let status = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
    assert!(status.is_ok(), "no shell to send SIG{signal} to {id}");
}

/// How many descriptors a process may have from now on; those that it has stay open. A process that has more gets none.
pub fn limit_descriptors(id: u32, count: u64) {
    let mut command = Command::new("prlimit");
    // The soft limit only: what was taken can be given back.
    command.args(["--pid", &id.to_string(), &format!("--nofile={count}:")]);
    // A process that has ended meanwhile is no failure of this.
    let _ = run(&mut command, b"");
}

/// How many descriptors a process has.
pub fn descriptors(id: u32) -> u64 {
    let entries = std::fs::read_dir(format!("/proc/{id}/fd"));
    entries.map_or(0, |entries| u64::try_from(entries.count()).unwrap())
}

/// What a command that ran to its end gave.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code; 255 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error as text.
    pub stderr: String,
}

impl Ran {
    /// Whether it ended with 0.
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    /// Standard output; panics with standard error when the command failed.
    pub fn expect_ok(self, what: &str) -> Vec<u8> {
        assert!(self.ok(), "{what}: exit {}: {}", self.code, self.stderr);
        self.stdout
    }
}

/// Runs a command to its end with these bytes on standard input.
pub fn run(command: &mut Command, stdin: &[u8]) -> Ran {
    let name = format!("{:?}", command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let mut pipe = child.stdin.take().unwrap();
    let input = stdin.to_vec();
    // A child that does not read its input to the end closes the pipe: no failure of ours.
    let writer = thread::spawn(move || {
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran {
        code: output.status.code().unwrap_or(255),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A temporary directory that servers which drop their privileges can enter.
pub fn open_temp_dir(name: &str) -> TempDir {
    let dir = tempfile::Builder::new().prefix(&format!("sealgate-{name}-")).tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    dir
}

/// Sets the permissions of a file or directory.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A loopback port that was free a moment ago and that this process hands out only once. It is none that the system gives to
/// outgoing connections: another process's connection does not take it before, or between two runs of, a server.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap();
    let given = given.get_or_insert_with(HashSet::new);
    loop {
        let random = RandomState::new().build_hasher().finish() % u64::from(PORTS.1 - PORTS.0);
        let port = PORTS.0 + u16::try_from(random).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return port;
        }
    }
}

/// A loopback address with this port.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Waits until something accepts connections there.
pub fn await_listener(name: &str, address: SocketAddr) {
    await_that(&format!("{name} listens on {address}"), || {
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
    });
}

/// Whether a process listens at this Unix socket. Its file alone says less: it is there before anybody listens
/// (`/proc/net/unix` of this thread's network namespace, flag `SO_ACCEPTCON`).
pub fn listens_at(socket: &Path) -> bool {
    // Whatever other processes call their sockets.
    let sockets = std::fs::read("/proc/thread-self/net/unix").unwrap();
    String::from_utf8_lossy(&sockets).lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        fields.nth(3) == Some("00010000") && fields.nth(3).map(Path::new) == Some(socket)
    })
}

/// Waits until a condition holds; panics after [`PATIENCE`].
pub fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, &mut condition), "waited {PATIENCE:?} in vain: {what}");
}

/// Whether a condition comes to hold within the time.
pub fn holds_within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Above the services' ports and below those of outgoing connections (ip_local_port_range(7)).
const PORTS: (u16, u16) = (10_000, 32_768);

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a child may take to end before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
