//! Whom the relay hands mail to and asks for names: whether it would start with what the configuration says of them, and
//! whether they are there.
//!
//! What ends the relay at its start is a fault of the configuration, also where this configuration sends nothing there. A server
//! or a resolver that does not answer within [`PATIENCE`] is away.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use sealgate_core::address::Domain;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Finding;
use crate::cli::failure;
use crate::config::{Config, NextHop, Server};
use crate::relay::names::{NOT_ABLE, Names};
use crate::relay::tls::client::Clients;

pub(super) async fn check(config: &Config, findings: &mut Vec<Finding>) {
    if config.outside.smtp.is_some() {
        findings.push(check_server("mail server", &config.inside.mail_server).await);
    }
    if let Err(why) = Clients::new(config.outside.ca.as_deref()) {
        findings.push(Finding::bad("authorities", failure::CONFIGURATION, why));
    }
    let goes_out = config.inside.lmtp.is_some() || config.inside.smtp.is_some();
    match (Names::new(&config.dns), &config.outside.next_hop) {
        (Err(why), _) => findings.push(Finding::bad("resolvers", failure::CONFIGURATION, why)),
        (Ok(names), NextHop::Mx) if goes_out => {
            findings.push(check_resolvers(&names, config.domains.first()).await);
        }
        (Ok(_), NextHop::Fixed(server)) if goes_out => {
            findings.push(check_server("next hop", server).await);
        }
        (Ok(_), NextHop::Fixed(_) | NextHop::Mx) => {}
    }
}

/// Whether the resolvers answer, and as MX records need it.
async fn check_resolvers(names: &Names, domain: Option<&Domain>) -> Finding {
    let what = "next hop";
    let servers: Vec<_> = names.servers().iter().map(ToString::to_string).collect();
    if servers.is_empty() {
        let why = "mx: /etc/resolv.conf names no resolver, so mail waits: add one, or give [dns] resolvers";
        return Finding::bad(what, failure::UNAVAILABLE, why.to_owned());
    }
    let servers = servers.join(", ");
    let domain = domain.map_or(".", Domain::as_str);
    if timeout(PATIENCE, names.answer_about(domain)).await != Ok(true) {
        let secs = PATIENCE.as_secs();
        let why = format!(
            "mx: no answer in {secs} s from the resolvers ({servers}), so mail waits: see to them, or give others with \
             [dns] resolvers"
        );
        return Finding::bad(what, failure::UNAVAILABLE, why);
    }
    match timeout(PATIENCE, names.is_able_to_validate()).await {
        Ok(false) => Finding::bad(what, failure::CONFIGURATION, NOT_ABLE.to_owned()),
        Ok(true) | Err(_) => Finding::good(what, format!("mx, by the resolvers {servers}")),
    }
}

async fn check_server(what: &'static str, server: &Server) -> Finding {
    match timeout(PATIENCE, connect(server)).await {
        Ok(Ok(())) => Finding::good(what, server.to_string()),
        Ok(Err(error)) => Finding::bad(what, failure::UNAVAILABLE, format!("{server}: {error}")),
        Err(_) => {
            let secs = PATIENCE.as_secs();
            Finding::bad(what, failure::UNAVAILABLE, format!("{server}: no answer in {secs} s"))
        }
    }
}

async fn connect(server: &Server) -> std::io::Result<()> {
    let (host, port) = (server.host.clone(), server.port);
    let look_up = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    let addresses = tokio::task::spawn_blocking(look_up).await.map_err(std::io::Error::other)??;
    TcpStream::connect(addresses.as_slice()).await.map(drop)
}

const PATIENCE: Duration = Duration::from_secs(5);
