//! An Exim of its own, which delivers one domain's mail by LMTP to its mailboxes and hands everything else to one next hop.

use std::net::SocketAddr;

use crate::aside::Aside;
use crate::process;
use crate::sink::Protocol;

/// A running Exim.
#[derive(Debug)]
pub struct Exim {
    /// Where it takes mail by SMTP.
    pub smtp: SocketAddr,
    aside: Aside,
}

impl Exim {
    /// Starts one for a domain, its mailboxes (LMTP) and the next hop of all other mail.
    pub fn start(
        domain: &str,
        mailboxes: SocketAddr,
        protocol: Protocol,
        next_hop: SocketAddr,
    ) -> Self {
        let smtp = process::loopback(process::free_port());
        let configuration = configuration(smtp, domain, mailboxes, protocol, next_hop);
        let arguments = ["-C", "/srv/configuration", "-bdf", "-q1s"];
        let aside = Aside::start("exim", smtp, &configuration, "usr/sbin/exim4", &arguments);
        Self { smtp, aside }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        ["output", "log/main", "log/panic"].map(|name| self.aside.file(name)).concat()
    }
}

fn configuration(
    smtp: SocketAddr,
    domain: &str,
    mailboxes: SocketAddr,
    protocol: Protocol,
    next_hop: SocketAddr,
) -> String {
    let protocol = match protocol {
        Protocol::Lmtp => "lmtp",
        Protocol::Smtp => "smtp",
    };
    format!(
        "\
primary_hostname = mail.{domain}
exim_path = /mnt/usr/sbin/exim4
spool_directory = /srv/spool
log_file_path = /srv/log/%s
pid_file_path = /srv/spool/pid
local_interfaces = {}
daemon_smtp_ports = {}
keep_environment =
tls_advertise_hosts =
acl_smtp_rcpt = everybody
begin acl
everybody:
  accept
begin routers
home:
  driver = manualroute
  domains = {domain}
  route_list = * {}
  self = send
  transport = home
out:
  driver = manualroute
  route_list = * {}
  self = send
  transport = out
begin transports
home:
  driver = smtp
  protocol = lmtp
  port = {}
  hosts_avoid_tls = *
out:
  driver = smtp
  protocol = {protocol}
  port = {}
  hosts_avoid_tls = *
begin retry
* * F,1h,1s
",
        smtp.ip(),
        smtp.port(),
        mailboxes.ip(),
        next_hop.ip(),
        mailboxes.port(),
        next_hop.port(),
    )
}
