//! A Postfix of its own: configuration, queue and log in a temporary directory, on a free loopback port.
//!
//! Needs Debian's postfix package and root, because Postfix's master does. It delivers the organisation's own mail by
//! LMTP to its mailboxes and hands everything else to one next hop.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::netns::Namespace;
use crate::process;

/// A running Postfix.
#[derive(Debug)]
pub struct Postfix {
    /// Where it takes mail by SMTP.
    pub smtp: SocketAddr,
    master: Option<u32>,
    dir: TempDir,
}

/// What one Postfix is for.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// Its name.
    pub hostname: &'a str,
    /// The domains whose mail stays here; empty for a plain relay.
    pub domains: &'a [&'a str],
    /// Where the mail of these domains goes by LMTP.
    pub mailboxes: Option<SocketAddr>,
    /// Where everything else goes, a transport: `lmtp:inet:127.0.0.1:2024`, `smtp:[127.0.0.1]:25`.
    pub next_hop: String,
    /// Further lines of main.cf.
    pub more: &'a str,
    /// Further lines of master.cf.
    pub more_services: &'a str,
}

impl Postfix {
    /// Starts one.
    pub fn start(settings: &Settings<'_>) -> Self {
        Self::launch(process::loopback(process::free_port()), settings, None)
    }

    /// Starts one on a host of its own, where it takes mail at this address.
    pub fn start_within(host: &Namespace, smtp: SocketAddr, settings: &Settings<'_>) -> Self {
        Self::launch(smtp, settings, Some(host))
    }

    fn launch(smtp: SocketAddr, settings: &Settings<'_>, host: Option<&Namespace>) -> Self {
        let dir = process::open_temp_dir("postfix");
        let root = dir.path();
        for name in ["etc", "spool", "lib"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let owner = Command::new("chown").arg("postfix").arg(root.join("lib")).status();
        assert!(owner.is_ok_and(|status| status.success()), "no user postfix: is it installed?");
        let etc = root.join("etc");
        let root_text = root.to_str().unwrap();
        fs::write(etc.join("main.cf"), main_cf(root_text, settings)).unwrap();
        let services = master_cf(smtp) + settings.more_services;
        fs::write(etc.join("master.cf"), services).unwrap();
        for name in ["postfix-files", "dynamicmaps.cf", "postfix-script", "post-install"] {
            let _ = symlink(format!("/etc/postfix/{name}"), etc.join(name));
        }
        let mut command = Command::new("postfix");
        command.arg("-c").arg(&etc).arg("start");
        if let Some(host) = host {
            command = host.within(&command);
        }
        let output = fs::File::create(root.join("output")).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let status = command.status().unwrap_or_else(|error| panic!("postfix: {error}"));
        // The master is a daemon of its own; its process id is in its own queue directory.
        let master = fs::read_to_string(root.join("spool/pid/master.pid")).unwrap_or_default();
        let postfix = Self { smtp, master: master.trim().parse().ok(), dir };
        assert!(status.success(), "postfix start: {status}\n{}", postfix.log());
        match host {
            Some(host) => host.await_listener("postfix", smtp.port()),
            None => process::await_listener("postfix", smtp),
        }
        postfix
    }

    /// The process id of its master.
    pub fn id(&self) -> u32 {
        self.master.expect("a master")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        ["output", "log"]
            .map(|name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default())
            .concat()
    }

    /// Asks for what waits in the queue to be tried now.
    pub fn flush(&self) {
        let etc = self.dir.path().join("etc");
        let status = Command::new("postqueue").arg("-c").arg(etc).arg("-f").status();
        assert!(status.is_ok_and(|status| status.success()), "postqueue -f");
    }

    /// How many messages are in its queue.
    pub fn queue_length(&self) -> usize {
        ["incoming", "active", "deferred", "maildrop", "hold"]
            .iter()
            .map(|name| count_files(&self.dir.path().join("spool").join(name)))
            .sum()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Some(master) = self.master {
            process::end(master, "postfix");
        }
    }
}

fn count_files(dir: &std::path::Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 })
        .sum()
}

fn main_cf(root: &str, settings: &Settings<'_>) -> String {
    let hostname = settings.hostname;
    let domains = settings.domains.join(", ");
    let next_hop = &settings.next_hop;
    let mailboxes = settings.mailboxes.map_or_else(
        || "error:no mailboxes here".to_owned(),
        |address| format!("lmtp:inet:{address}"),
    );
    let more = settings.more;
    format!(
        "\
compatibility_level = 3.6
queue_directory = {root}/spool
data_directory = {root}/lib
maillog_file = {root}/log
maillog_file_prefixes = {root}
maillog_file_permissions = 0644
myhostname = {hostname}
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = {domains}
virtual_transport = {mailboxes}
default_transport = {next_hop}
relay_transport = {next_hop}
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
smtpd_client_connection_rate_limit = 0
smtp_dns_support_level = disabled
smtp_tls_security_level = none
biff = no
message_size_limit = 104857600
mailbox_size_limit = 0
queue_run_delay = 2s
minimal_backoff_time = 2s
maximal_backoff_time = 4s
{more}
"
    )
}

fn master_cf(smtp: SocketAddr) -> String {
    format!(
        "\
{smtp} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 2 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"
    )
}
