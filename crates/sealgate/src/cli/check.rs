//! `sealgate check`: whether the relay would run well: configuration, stores, certificates, next hops.

use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use sealgate_core::keys::{Certificate, Timestamp};
use sealgate_keys::master_key::MasterKey;
use sealgate_keys::public_key_store::PublicKeyState;
use sealgate_keys::secret_key_store::SecretKeyStoreKind;
use sealgate_keys::secret_source::SecretSource;
use sealgate_keys::stores::Stores;
use serde_json::json;
use tokio::net::TcpStream;

use super::session::{block_on, now};
use super::{Failure, Globals, failure, output};
use crate::config::{Config, NextHop, Server};
use crate::relay::names::{NOT_ABLE, Names};
use crate::relay::tls::client::Clients;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// One row of the table.
struct Finding {
    what: &'static str,
    ok: bool,
    /// A fault in the configuration counts before a server that is away.
    status: u8,
    detail: String,
}

impl Check {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        let mut findings = Vec::new();
        match globals.load() {
            Ok(config) => {
                findings.push(Finding::good("configuration", config.path.display().to_string()));
                block_on(async {
                    check_all(&config, &mut findings).await;
                    Ok(())
                })?;
            }
            Err(failure) => findings.push(Finding::failed("configuration", &failure)),
        }
        self.show(&findings)?;
        let worst = findings.iter().filter(|finding| !finding.ok).map(|f| f.status).max();
        worst.map_or(Ok(()), |status| Err(Failure::Said(status)))
    }

    fn show(&self, findings: &[Finding]) -> Result<(), Failure> {
        if self.json {
            let rows: Vec<_> = findings
                .iter()
                .map(|row| json!({ "check": row.what, "ok": row.ok, "detail": row.detail }))
                .collect();
            let ok = findings.iter().all(|finding| finding.ok);
            return output::json(&json!({ "ok": ok, "checks": rows }));
        }
        let rows: Vec<_> = findings
            .iter()
            .map(|row| {
                let verdict = if row.ok { "ok" } else { "FAILED" };
                [row.what.to_owned(), verdict.to_owned(), output::printable(&row.detail)]
            })
            .collect();
        output::table(["CHECK", "RESULT", "DETAIL"], &rows)
    }
}

impl Finding {
    fn good(what: &'static str, detail: String) -> Self {
        Self { what, ok: true, status: 0, detail }
    }

    fn bad(what: &'static str, status: u8, detail: String) -> Self {
        Self { what, ok: false, status, detail }
    }

    fn failed(what: &'static str, failure: &Failure) -> Self {
        let line = failure.to_string();
        let line = line.strip_prefix("sealgate: ").unwrap_or(&line).to_owned();
        Self::bad(what, failure.status(), line)
    }
}

async fn check_all(config: &Config, findings: &mut Vec<Finding>) {
    match MasterKey::read(&config.stores.master_key) {
        // Without embedded secret keys the relay does not need it.
        _ if config.stores.secret_keys != SecretKeyStoreKind::Embedded => {}
        Ok(_) => findings.push(Finding::good("master key", master_key(&config.stores.master_key))),
        Err(error) => findings.push(Finding::failed("master key", &Failure::from(error))),
    }
    match Stores::open(&config.stores).await {
        Ok(stores) => {
            findings.push(Finding::good("database", config.stores.database.to_string()));
            check_stores(&stores, findings).await;
            stores.close().await;
        }
        Err(error) => findings.push(Finding::failed("database", &Failure::from(error))),
    }
    if let Some(tls) = &config.tls {
        findings.push(check_readable("tls certificate", &tls.certificate));
        findings.push(check_readable("tls key", &tls.key));
    }
    if let Some(dkim) = &config.dkim {
        findings.push(match crate::domain_key::signer(dkim) {
            Ok(_) => Finding::good("dkim key", dkim.key.display().to_string()),
            Err(why) => Finding::failed("dkim key", &Failure::Configuration(why)),
        });
    }
    if config.outside.smtp.is_some() {
        findings.push(check_server("mail server", &config.inside.mail_server).await);
    }
    let goes_out = config.inside.lmtp.is_some() || config.inside.smtp.is_some();
    match &config.outside.next_hop {
        NextHop::Fixed(server) if goes_out => {
            findings.push(check_server("next hop", server).await);
        }
        NextHop::Mx if goes_out => findings.extend(check_dns(config).await),
        NextHop::Fixed(_) | NextHop::Mx => {}
    }
    if !goes_out && config.outside.smtp.is_none() && config.key_server.is_none() {
        let detail = "no listener: give [inside] lmtp or smtp, or [outside] smtp".to_owned();
        findings.push(Finding::bad("listeners", failure::CONFIGURATION, detail));
    }
}

/// Where the master key is, and what a rotation left or `--prepare` made.
fn master_key(source: &SecretSource) -> String {
    let successor = source.successor();
    match &successor {
        SecretSource::File(path) if path.exists() => {
            format!("{source}; {successor} is ready: `sealgate master-key rotate` puts it in place")
        }
        _ => source.to_string(),
    }
}

async fn check_stores(stores: &Stores, findings: &mut Vec<Finding>) {
    let administration = stores.administration();
    match administration.check_secret_keys().await {
        Ok(detail) => findings.push(Finding::good("secret keys", detail)),
        Err(error) => findings.push(Finding::failed("secret keys", &Failure::from(error))),
    }
    match administration.check_directory().await {
        Ok(None) => {}
        Ok(Some(detail)) => findings.push(Finding::good("directory server", detail)),
        Err(error) => findings.push(Finding::failed("directory server", &Failure::from(error))),
    }
    if let Err(error) = stores.trust().await {
        findings.push(Finding::failed("revocation lists", &Failure::from(error)));
    }
    match administration.anchors().await {
        Ok(anchors) => {
            findings
                .push(Finding::good("anchors", format!("{}, our own among them", anchors.len())));
            let what = "anchors' validity";
            findings.push(ending(what, anchors.iter().map(|a| (a.subject().to_owned(), &**a))));
        }
        Err(error) => findings.push(Finding::failed("anchors", &Failure::from(error))),
    }
    match administration.secret_keys(None).await {
        Ok(keys) => {
            // The newest of an owner and purpose counts: older ones are kept for reading old mail.
            let mut seen = Vec::new();
            let newest: Vec<_> = keys
                .iter()
                .filter(|key| {
                    let slot = (key.owner.as_str(), key.purpose.as_str());
                    !seen.contains(&slot) && {
                        seen.push(slot);
                        true
                    }
                })
                .map(|key| (format!("{} ({})", key.owner, key.purpose), &*key.certificate))
                .collect();
            findings.push(ending("own certificates", newest.into_iter()));
        }
        Err(error) => findings.push(Finding::failed("own certificates", &Failure::from(error))),
    }
    match administration.public_keys(None).await {
        Ok(keys) => {
            let pinned = keys
                .iter()
                .filter(|key| key.state == PublicKeyState::Pinned)
                .map(|key| (key.owner.clone(), &*key.certificate));
            findings.push(ending("public keys", pinned));
        }
        Err(error) => findings.push(Finding::failed("public keys", &Failure::from(error))),
    }
}

/// Certificates that have ended or will soon.
fn ending<'a>(
    what: &'static str,
    certificates: impl Iterator<Item = (String, &'a Certificate)>,
) -> Finding {
    let soon = Timestamp(now().0.saturating_add(WARNING_SECS));
    let mut count = 0_usize;
    let mut named = Vec::new();
    for (name, certificate) in certificates {
        count = count.saturating_add(1);
        if certificate.not_after() < soon {
            named.push(format!("{name} ends {}", output::date(certificate.not_after())));
        }
    }
    if named.is_empty() {
        return Finding::good(what, format!("{count}, none ends within 30 days"));
    }
    let more = named.len().saturating_sub(NAMED_MAX);
    named.truncate(NAMED_MAX);
    let mut detail = named.join("; ");
    if more > 0 {
        detail.push_str(&format!("; and {more} more"));
    }
    Finding::bad(what, failure::CONFIGURATION, detail)
}

fn check_readable(what: &'static str, path: &Path) -> Finding {
    match std::fs::File::open(path) {
        Ok(_) => Finding::good(what, path.display().to_string()),
        Err(error) => {
            Finding::bad(what, failure::CONFIGURATION, format!("{}: {error}", path.display()))
        }
    }
}

/// What is wrong with the way to MX records; a machine that is offline at the moment is not.
async fn check_dns(config: &Config) -> Option<Finding> {
    let ca = config.outside.ca.as_deref();
    let names = match Clients::new(ca).and_then(|_| Names::new(&config.dns)) {
        Ok(names) => names,
        Err(why) => return Some(Finding::bad("next hop", failure::CONFIGURATION, why)),
    };
    let able = tokio::time::timeout(CONNECT_TIMEOUT, names.is_able_to_validate()).await;
    let finding = || Finding::bad("next hop", failure::CONFIGURATION, NOT_ABLE.to_owned());
    (able == Ok(false)).then(finding)
}

async fn check_server(what: &'static str, server: &Server) -> Finding {
    match tokio::time::timeout(CONNECT_TIMEOUT, connect(server)).await {
        Ok(Ok(())) => Finding::good(what, server.to_string()),
        Ok(Err(error)) => Finding::bad(what, failure::UNAVAILABLE, format!("{server}: {error}")),
        Err(_) => {
            let secs = CONNECT_TIMEOUT.as_secs();
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// REQUIREMENTS G15.
const WARNING_SECS: i64 = 30 * 24 * 3600;
/// Names in one row.
const NAMED_MAX: usize = 5;
