//! An OpenSMTPD of its own, which delivers one domain's mail by LMTP to its mailboxes and hands everything else to one next hop.

use std::net::SocketAddr;

use crate::aside::Aside;
use crate::process;
use crate::sink::Protocol;

/// A running OpenSMTPD.
#[derive(Debug)]
pub struct OpenSmtpd {
    /// Where it takes mail by SMTP.
    pub smtp: SocketAddr,
    aside: Aside,
}

impl OpenSmtpd {
    /// Starts one for a domain, its mailboxes (LMTP) and the next hop of all other mail.
    pub fn start(
        domain: &str,
        mailboxes: SocketAddr,
        protocol: Protocol,
        next_hop: SocketAddr,
    ) -> Self {
        let smtp = process::loopback(process::free_port());
        let scheme = match protocol {
            Protocol::Lmtp => "lmtp",
            Protocol::Smtp => "smtp+notls",
        };
        let configuration = format!(
            "\
listen on {} port {} hostname mail.{domain}
action \"home\" relay host \"lmtp://{mailboxes}\"
action \"out\" relay host \"{scheme}://{next_hop}\"
match from any for domain \"{domain}\" action \"home\"
match from any for any action \"out\"
",
            smtp.ip(),
            smtp.port(),
        );
        let arguments = ["-d", "-f", "/srv/configuration"];
        let aside = Aside::start("opensmtpd", smtp, &configuration, "usr/sbin/smtpd", &arguments);
        Self { smtp, aside }
    }

    /// Asks for what waits in the queue to be tried now, by whatever way was given up for a while.
    pub fn flush(&self) {
        self.aside.run("/run/smtpctl", &["schedule", "all"]);
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.aside.file("output")
    }
}
