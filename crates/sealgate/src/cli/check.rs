//! `sealgate check`: whether the relay would run well: configuration, stores, certificates, next hops.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use sealgate_core::keys::{Certificate, Timestamp};
use sealgate_keys::administration::{Administration, RevocationList};
use sealgate_keys::import::Material;
use sealgate_keys::master_key::MasterKey;
use sealgate_keys::public_key_store::PublicKeyState;
use sealgate_keys::public_key_store::directory_server::LdapBind;
use sealgate_keys::secret_key_store::SecretKeyStoreKind;
use sealgate_keys::secret_source::SecretSource;
use sealgate_keys::stores::Stores;
use serde_json::json;

use super::session::{block_on, now};
use super::{Failure, Globals, failure, output};
use crate::config::{Config, TlsFiles};
use crate::relay::tls;
use crate::{key_files, key_management_server};

mod servers;

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
    /// It is well, and should be better.
    warns: bool,
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
                .map(|row| {
                    let Finding { what, ok, warns, detail, .. } = row;
                    json!({ "check": what, "ok": ok, "warning": warns, "detail": detail })
                })
                .collect();
            let ok = findings.iter().all(|finding| finding.ok);
            return output::json(&json!({ "ok": ok, "checks": rows }));
        }
        let rows: Vec<_> = findings
            .iter()
            .map(|row| {
                let verdict = match (row.ok, row.warns) {
                    (false, _) => "FAILED",
                    (true, true) => "warning",
                    (true, false) => "ok",
                };
                [row.what.to_owned(), verdict.to_owned(), output::printable(&row.detail)]
            })
            .collect();
        output::table(["CHECK", "RESULT", "DETAIL"], &rows)
    }
}

impl Finding {
    fn good(what: &'static str, detail: String) -> Self {
        Self { what, ok: true, warns: false, status: 0, detail }
    }

    fn bad(what: &'static str, status: u8, detail: String) -> Self {
        Self { what, ok: false, warns: false, status, detail }
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
    check_tls(config, findings);
    if let Some(dkim) = &config.dkim {
        findings.push(match crate::domain_key::signer(dkim) {
            Ok(_) => Finding::good("dkim key", dkim.key.display().to_string()),
            Err(why) => Finding::failed("dkim key", &Failure::Configuration(why)),
        });
    }
    findings.extend(check_key_files(config));
    if config.key_server.is_some() {
        findings.push(check_key_server(config));
    }
    let goes_out = config.inside.lmtp.is_some() || config.inside.smtp.is_some();
    let comes_in = config.outside.smtp.is_some();
    if goes_out || comes_in || config.key_server.is_none() {
        servers::check(config, findings).await;
    }
    if !goes_out && !comes_in && config.key_server.is_none() {
        let detail = "no listener: give [inside] lmtp or smtp, or [outside] smtp".to_owned();
        findings.push(Finding::bad("listeners", failure::CONFIGURATION, detail));
    }
}

/// Whether others may read a private key, where the configuration names a file with one.
fn check_key_files(config: &Config) -> Option<Finding> {
    const WHAT: &str = "private key files";
    let files = key_files::of(config);
    let open: Vec<_> = files.iter().filter_map(|path| key_files::advice(path)).collect();
    if files.is_empty() {
        return None;
    }
    if open.is_empty() {
        return Some(Finding::good(WHAT, format!("{}, none open to others", files.len())));
    }
    Some(Finding { warns: true, ..Finding::good(WHAT, named(open)) })
}

/// What the key server reads and opens at its start.
fn check_key_server(config: &Config) -> Finding {
    const WHAT: &str = "key server";
    let settings = match key_management_server::Settings::new(config.clone()) {
        Ok(settings) => settings,
        Err(why) => return Finding::bad(WHAT, failure::CONFIGURATION, why),
    };
    if let Err(why) = settings.look_at_audit() {
        return Finding::bad(WHAT, failure::CONFIGURATION, why);
    }
    match settings.look_at_socket() {
        Ok(()) => Finding::good(WHAT, format!("{} relays are entitled", settings.relays())),
        Err(error) => Finding::bad(WHAT, failure::UNAVAILABLE, error.to_string()),
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
    findings.push(check_own_authority(&administration).await);
    findings.push(match stores.trust().await {
        Ok(trust) => check_revocation_lists(&administration, trust.unreadable_crls().len()).await,
        Err(error) => Finding::failed(REVOCATION_LISTS, &Failure::from(error)),
    });
    match administration.anchors().await {
        Ok(anchors) => {
            findings
                .push(Finding::good("anchors", format!("{}, our own among them", anchors.len())));
            let what = "anchors' validity";
            // Those of ours that have a successor end in peace.
            let former = administration.own_authorities().await.unwrap_or_default();
            let former: Vec<_> = former.iter().skip(1).map(|one| one.fingerprint()).collect();
            let in_use = anchors.iter().filter(|anchor| !former.contains(&anchor.fingerprint()));
            findings.push(ending(what, in_use.map(|a| (a.subject().to_owned(), &**a))));
        }
        Err(error) => findings.push(Finding::failed("anchors", &Failure::from(error))),
    }
    match administration.secret_keys(None).await {
        Ok(keys) => {
            // The newest of an owner and purpose counts: older and revoked ones are kept for reading old mail.
            let mut seen = Vec::new();
            let newest: Vec<_> = keys
                .iter()
                .filter(|key| key.is_active)
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

/// Whether it will go on issuing for long enough to have its successor known everywhere.
async fn check_own_authority(administration: &Administration<'_>) -> Finding {
    const OWN_AUTHORITY: &str = "own authority";
    let certificate = match administration.authority_certificate().await {
        Ok(certificate) => certificate,
        Err(error) => return Finding::failed(OWN_AUTHORITY, &Failure::from(error)),
    };
    let until = Administration::issues_until(&certificate);
    let detail = format!("issues until {}", output::date(until));
    if until.0.saturating_sub(now().0) > RENEWAL_SECS {
        return Finding::good(OWN_AUTHORITY, detail);
    }
    let remedy = "make its successor with `sealgate ca renew`, and give that to correspondents";
    Finding::bad(OWN_AUTHORITY, failure::CONFIGURATION, format!("{detail}: {remedy}"))
}

/// Lists none of whose scope is current: signatures of those whom they are about are `temperror`, and encryption to them
/// waits.
async fn check_revocation_lists(administration: &Administration<'_>, unreadable: usize) -> Finding {
    let lists = match administration.revocation_lists().await {
        Ok(lists) => lists,
        Err(error) => return Finding::failed(REVOCATION_LISTS, &Failure::from(error)),
    };
    let now = now();
    let is_current = |list: &RevocationList| {
        list.this_update <= now && list.next_update.is_some_and(|next| now < next)
    };
    // A list of changes settles nothing by itself, and may lapse where what it changes is current.
    let has_current = |list: &RevocationList| {
        let base = list.scope.base();
        lists.iter().any(|one| one.scope == base && is_current(one))
    };
    let lapsed = lists.iter().filter(|list| !has_current(list)).map(|list| {
        let end = match list.next_update {
            _ if list.scope.is_delta => {
                "changes a list that is not there, or not current".to_owned()
            }
            None => "has no nextUpdate and is never current".to_owned(),
            Some(end) if list.this_update <= now => format!("lapsed {}", output::date(end)),
            Some(_) => format!("begins {}", output::date(list.this_update)),
        };
        let remedy = match &list.file {
            Some(path) => format!("put a newer one into {}", path.display()),
            None => "import a newer one, or take it out with `sealgate crl remove`".to_owned(),
        };
        match list.scope.covers() {
            covers if covers == "all" => format!("{} {end}: {remedy}", list.scope.issuer),
            covers => format!("{} ({covers}) {end}: {remedy}", list.scope.issuer),
        }
    });
    let mut lapsed: Vec<_> = lapsed.collect();
    if unreadable > 0 {
        lapsed.insert(0, format!("{unreadable} cannot be read and check nothing"));
    }
    if lapsed.is_empty() {
        let detail =
            format!("{}, by their dates a current one for each issuer and part", lists.len());
        return Finding::good(REVOCATION_LISTS, detail);
    }
    Finding::bad(REVOCATION_LISTS, failure::CONFIGURATION, named(lapsed))
}

/// The first few of them.
fn named(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(NAMED_MAX);
    all.truncate(NAMED_MAX);
    let mut detail = all.join("; ");
    if more > 0 {
        detail.push_str(&format!("; and {more} more"));
    }
    detail
}

/// Certificates that have ended or will soon.
fn ending<'a>(
    what: &'static str,
    certificates: impl Iterator<Item = (String, &'a Certificate)>,
) -> Finding {
    let soon = Timestamp(now().0.saturating_add(WARNING_SECS));
    let mut count = 0_usize;
    let mut ending = Vec::new();
    for (name, certificate) in certificates {
        count = count.saturating_add(1);
        if certificate.not_after() < soon {
            ending.push(format!("{name} ends {}", output::date(certificate.not_after())));
        }
    }
    if ending.is_empty() {
        return Finding::good(what, format!("{count}, none ends within 30 days"));
    }
    Finding::bad(what, failure::CONFIGURATION, named(ending))
}

/// Certificates with which we show ourselves on connections, as a server and as a client.
fn check_tls(config: &Config, findings: &mut Vec<Finding>) {
    if let Some(files) = &config.tls {
        findings.push(check_pair("tls certificate", &files.certificate, &files.key));
        if let Some(ca) = &config.inside.client_ca {
            findings.push(match tls::authenticating_server(files, ca) {
                Ok(_) => Finding::good("inside client_ca", "clients show a certificate".to_owned()),
                Err(why) => Finding::bad("inside client_ca", failure::CONFIGURATION, why),
            });
        }
    }
    if let Some(tls) = config.key_server.as_ref().and_then(|server| server.tls.as_ref()) {
        let TlsFiles { certificate, key } = &tls.files;
        findings.push(check_pair("key server certificate", certificate, key));
    }
    let kmip = config.stores.kmip.as_ref().and_then(|kmip| kmip.tls.as_ref());
    if let Some(files) = kmip {
        findings.push(check_pair("kmip client certificate", &files.certificate, &files.key));
    }
    let bind = config.stores.ldap.as_ref().map(|ldap| &ldap.bind);
    if let Some(LdapBind::Certificate { certificate, key }) = bind {
        findings.push(check_pair("ldap client certificate", certificate, key));
    }
}

/// Whether the key is the certificate's, and no certificate of the chain ends soon.
fn check_pair(what: &'static str, certificate: &Path, key: &Path) -> Finding {
    let files = TlsFiles { certificate: certificate.to_owned(), key: key.to_owned() };
    if let Err(why) = tls::server(&files) {
        return Finding::bad(what, failure::CONFIGURATION, why);
    }
    let path = certificate.display();
    let read = || {
        let bytes = std::fs::read(certificate).map_err(|error| error.to_string())?;
        Material::read(&bytes, None).map_err(|error| error.to_string())
    };
    let certificates = match read() {
        Ok(material) => material.certificates,
        Err(why) => return Finding::bad(what, failure::CONFIGURATION, format!("{path}: {why}")),
    };
    let named = |one: &Arc<Certificate>| one.subject().to_owned();
    let mut finding = ending(what, certificates.iter().map(|one| (named(one), &**one)));
    finding.detail = format!("{path}: {}", finding.detail);
    finding
}

/// REQUIREMENTS G15.
const WARNING_SECS: i64 = 30 * 24 * 3600;
/// How long before its end an authority's successor is asked for: correspondents take time to import it.
const RENEWAL_SECS: i64 = 180 * 24 * 3600;
const REVOCATION_LISTS: &str = "revocation lists";
/// Names in one row.
const NAMED_MAX: usize = 5;
