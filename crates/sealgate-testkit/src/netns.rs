//! Networks without the outside world: Linux network namespaces made by the test, joined by cables and shaped lines.
//!
//! In go names, addresses and lines; out come places where commands run. A namespace lives as long as the process that
//! holds it, and that ends when the test does, however it ends: nothing is left on the machine and no name can collide.
//! Needs root, util-linux, iproute2 and, for what is inside, socat and tcpdump.

pub mod capture;
pub mod connection;
pub mod line;
pub mod overheard;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::{self, Running};

/// A host with a network, an `/etc/hosts` and, where asked for, a view of the file system of its own.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    holder: Running,
    _dir: TempDir,
}

/// Where a cable or line ends: an interface of a namespace, and its address with its prefix, `10.0.0.1/30`.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The host.
    pub host: &'a Namespace,
    /// The interface's name, at most 15 bytes.
    pub interface: &'a str,
    /// The address with the length of its prefix.
    pub address: &'a str,
}

impl Namespace {
    /// A host that knows these names, lines of `/etc/hosts`.
    pub fn new(name: &str, hosts: &str) -> Self {
        Self::make(name, hosts, None)
    }

    /// A host that of all temporary directories sees its own only, so that no server's files are there.
    pub fn with_home(name: &str, hosts: &str, home: &Path) -> Self {
        Self::make(name, hosts, Some(home))
    }

    fn make(name: &str, hosts: &str, home: Option<&Path>) -> Self {
        let dir = process::open_temp_dir("netns");
        fs::write(dir.path().join("hosts"), format!("127.0.0.1 localhost\n{hosts}")).unwrap();
        fs::create_dir(dir.path().join("view")).unwrap();
        let errors = dir.path().join("errors");
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-ec", HOLD, "sh"]).arg(dir.path());
        command.arg(home.and_then(Path::parent).unwrap_or(Path::new("")));
        command.arg(home.and_then(Path::file_name).unwrap_or(OsStr::new("")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(fs::File::create(&errors).unwrap());
        let mut holder = Running::start("unshare", &mut command);
        let mut line = String::new();
        let stdout = holder.child().stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        if line != "ready\n" {
            lacking("no network namespace", &fs::read_to_string(&errors).unwrap_or_default());
        }
        Self { name: name.to_owned(), holder, _dir: dir }
    }

    /// A command that will run on this host, in the root directory: paths must be absolute.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.id().to_string(), "--"]).arg(program);
        command
    }

    /// A command on this host's network that sees the files of the test.
    fn network_command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.id().to_string(), "--", program]);
        command
    }

    /// The same command, on this host.
    pub fn within(&self, command: &Command) -> Command {
        let mut inside = self.command(command.get_program());
        inside.args(command.get_args());
        inside
    }

    /// Runs a command, words separated by spaces, that must not fail.
    pub fn must(&self, command: &str) -> String {
        let ran = self.ran(command);
        if !ran.ok() {
            lacking(&format!("{}: {command}", self.name), &ran.stderr);
        }
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Lets it pass on what is not for itself.
    pub fn forward(&self) {
        let mut command = self.command("sh");
        command.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        let ran = process::run(&mut command, b"");
        if !ran.ok() {
            lacking("no forwarding between networks", &ran.stderr);
        }
    }

    /// Waits until something listens on a TCP port here.
    pub fn await_listener(&self, name: &str, port: u16) {
        let table = format!("/proc/{}/net/tcp", self.id());
        process::await_that(&format!("{name} listens on port {port} of {}", self.name), || {
            listens(&fs::read_to_string(&table).unwrap_or_default(), port)
        });
    }

    fn has_interface(&self, name: &str) -> bool {
        let table = fs::read_to_string(format!("/proc/{}/net/dev", self.id())).unwrap_or_default();
        table.lines().any(|line| line.trim_start().starts_with(&format!("{name}:")))
    }

    fn ran(&self, command: &str) -> process::Ran {
        let mut words = command.split(' ');
        let mut command = self.command(words.next().unwrap());
        process::run(command.args(words), b"")
    }

    fn id(&self) -> u32 {
        self.holder.id()
    }
}

/// Joins two hosts with a cable.
pub fn join(one: &End<'_>, other: &End<'_>) {
    one.host.must(&format!(
        "ip link add {} type veth peer name {} netns {}",
        one.interface,
        other.interface,
        other.host.id()
    ));
    one.bring_up(None);
    other.bring_up(None);
}

impl End<'_> {
    /// Gives the interface its address, and packets of at most so many bytes, of which none is cut only later.
    fn bring_up(&self, mtu_bytes: Option<u32>) {
        let Self { host, interface, address } = self;
        host.must(&format!("ip address add {address} dev {interface}"));
        if let Some(mtu) = mtu_bytes {
            host.must(&format!("ip link set dev {interface} mtu {mtu} gso_max_segs 1"));
        }
        host.must(&format!("ip link set dev {interface} up"));
    }
}

/// Whether a `/proc/net/tcp` has a listening socket (state 0A) on this port.
fn listens(table: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some("0A")
    })
}

/// Ends the test where the machine cannot do what it needs.
fn lacking(what: &str, why: &str) -> ! {
    panic!(
        "{what}: {}\nThis test makes networks of its own. It works as root on a Linux machine or virtual machine, and \
         in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN, writable /proc/sys/net and /dev/net/tun (docker run \
         --privileged), with the packages util-linux, iproute2, socat and tcpdump, and a kernel with veth, \
         sch_tbf, and sch_netem or tun.",
        why.trim()
    );
}

/// Keeps a namespace until its input ends. IPv6 is off, because its neighbour discovery would use up slow lines.
const HOLD: &str = r#"
mount --bind "$1/hosts" /etc/hosts
if [ -n "$2" ]; then
    mount -t tmpfs view "$1/view"
    mkdir "$1/view/$3"
    mount --bind "$2/$3" "$1/view/$3"
    mount --rbind "$1/view" "$2"
fi
ip link set lo up
for interfaces in all default; do
    echo 1 2>/dev/null > "/proc/sys/net/ipv6/conf/$interfaces/disable_ipv6" || true
done
echo ready
exec cat > /dev/null
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_listeners_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st\n   0: 00000000:0063 00000000:0000 0A 0:0\n   \
                     1: 0100007F:0064 00000000:0000 01 0:0\n";
        assert!(listens(table, 99));
        assert!(!listens(table, 100), "a connection is no listener");
        assert!(!listens(table, 6));
    }
}
