//! A Dovecot of its own: LMTP in, POP3 and IMAP out, mail in a temporary directory.
//!
//! Needs Debian's dovecot-imapd, dovecot-lmtpd and dovecot-pop3d, and root, because Dovecot changes users.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::fetch;
use crate::netns::Namespace;
use crate::process::{self, Running};

/// A running Dovecot.
#[derive(Debug)]
pub struct Dovecot {
    /// Where it takes mail.
    pub lmtp: SocketAddr,
    /// Where clients fetch it.
    pub pop3: SocketAddr,
    /// Where clients fetch it, too.
    pub imap: SocketAddr,
    // Before the directory, so that it ends before the directory goes.
    _running: Running,
    dir: TempDir,
}

impl Dovecot {
    /// Starts one with these mailboxes, full addresses; all have the password [`PASSWORD`].
    pub fn start(addresses: &[&str]) -> Self {
        let ports = [(); 3].map(|()| process::free_port());
        Self::launch(addresses, IpAddr::V4(Ipv4Addr::LOCALHOST), ports, None)
    }

    /// Starts one on a host of its own; clients find it at this address, at the usual ports.
    ///
    /// Only clients on hosts with a way there can fetch: [`Dovecot::stored`] tells what there is to fetch.
    pub fn start_within(host: &Namespace, listen: IpAddr, addresses: &[&str]) -> Self {
        Self::launch(addresses, listen, USUAL_PORTS, Some(host))
    }

    fn launch(
        addresses: &[&str],
        listen: IpAddr,
        ports: [u16; 3],
        host: Option<&Namespace>,
    ) -> Self {
        let dir = process::open_temp_dir("dovecot");
        let root = dir.path().to_str().unwrap().to_owned();
        let mail = dir.path().join("mail");
        fs::create_dir(&mail).unwrap();
        chown(&mail, Some(NOBODY), Some(NOGROUP)).unwrap();
        let mut users = String::new();
        for address in addresses {
            let home = format!("{root}/mail/{address}");
            writeln!(users, "{address}:{{PLAIN}}{PASSWORD}:{NOBODY}:{NOGROUP}::{home}::").unwrap();
        }
        fs::write(dir.path().join("users"), users).unwrap();
        let lmtp = process::loopback(ports[0]);
        let [pop3, imap] = [ports[1], ports[2]].map(|port| SocketAddr::new(listen, port));
        let path = dir.path().join("dovecot.conf");
        fs::write(&path, configuration(&root, listen, ports)).unwrap();
        let mut command = Command::new("dovecot");
        command.args(["-F", "-c"]).arg(&path);
        if let Some(host) = host {
            command = host.within(&command);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running::start("dovecot", &mut command);
        let dovecot = Self { lmtp, pop3, imap, _running: running, dir };
        for address in [lmtp, pop3, imap] {
            match host {
                Some(host) => host.await_listener("dovecot", address.port()),
                None => process::await_listener("dovecot", address),
            }
        }
        dovecot
    }

    /// The mail of a mailbox as a plain POP3 client fetches it.
    pub fn pop3_mail(&self, address: &str) -> Vec<Vec<u8>> {
        fetch::pop3(self.pop3, address, PASSWORD)
    }

    /// The mail of a mailbox as a plain IMAP client fetches it.
    pub fn imap_mail(&self, address: &str) -> Vec<Vec<u8>> {
        fetch::imap(self.imap, address, PASSWORD)
    }

    /// Waits until so many messages are in a mailbox.
    pub fn await_mail(&self, address: &str, count: usize) -> Vec<Vec<u8>> {
        let mut mail = Vec::new();
        let arrived = process::holds_within(process::PATIENCE, || {
            mail = self.pop3_mail(address);
            mail.len() >= count
        });
        assert!(arrived, "{} of {count} messages for {address}\n{}", mail.len(), self.log());
        mail
    }

    /// How many messages a mailbox holds, without a client.
    pub fn stored(&self, address: &str) -> usize {
        let mailbox = self.dir.path().join("mail").join(address).join("Maildir");
        ["new", "cur"]
            .map(|name| fs::read_dir(mailbox.join(name)).map_or(0, Iterator::count))
            .into_iter()
            .sum()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn configuration(root: &str, listen: IpAddr, [lmtp, pop3, imap]: [u16; 3]) -> String {
    format!(
        "\
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
listen = {listen}
protocols = lmtp pop3 imap
ssl = no
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
first_valid_gid = 1
# The address as it came, without a detail taken off.
recipient_delimiter =
lmtp_save_to_detail_mailbox = no
passdb {{
  driver = passwd-file
  args = {root}/users
}}
userdb {{
  driver = passwd-file
  args = {root}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"
    )
}

/// The password of every mailbox.
pub const PASSWORD: &str = "secret";

/// LMTP (RFC 2033 names none; 24 is any private mail system's), POP3 and IMAP.
const USUAL_PORTS: [u16; 3] = [24, 110, 143];

/// Debian's nobody and nogroup, who own the mail.
const NOBODY: u32 = 65534;
const NOGROUP: u32 = 65534;
