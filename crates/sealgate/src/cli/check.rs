//! `sealgate check`: whether the relay would run well: configuration, stores, certificates, next hops.

use std::sync::Arc;

use clap::Args;
use sealgate_core::keys::Certificate;
use sealgate_core::trust::TrustStore;
use sealgate_keys::administration::{Administration, RevocationList};
use sealgate_keys::master_key::MasterKey;
use sealgate_keys::public_key_store::{PublicKeyEntry, PublicKeyState};
use sealgate_keys::secret_key_store::SecretKeyStoreKind;
use sealgate_keys::secret_key_store::ending::EndingKey;
use sealgate_keys::secret_source::SecretSource;
use sealgate_keys::stores::Stores;
use serde_json::json;

use super::public_key::is_revoked;
use super::session::{block_on, now};
use super::{Failure, Globals, failure, output};
use crate::config::{Config, TlsFiles};
use crate::relay::endings::{self, Shown};
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
            findings.push(match stores.administration().check_database().await {
                Ok(()) => Finding::good("database", config.stores.database.to_string()),
                Err(error) => Finding::failed("database", &Failure::from(error)),
            });
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
    let count = open.len();
    Some(Finding { warns: true, ..Finding::good(WHAT, named(open, count)) })
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
    findings.push(check_own_certificates(&administration).await);
    match administration.public_keys(None).await {
        Ok(keys) => {
            // They come in the order of their owners.
            let owners = keys.chunk_by(|one, next| one.owner == next.owner);
            let trust = stores.trust().await.ok();
            let is_used = |key: &PublicKeyEntry, of_one| is_in_use(key, of_one, trust.as_deref());
            let in_use =
                owners.flat_map(|of_one| of_one.iter().filter(move |key| is_used(key, of_one)));
            let in_use = in_use.map(|key| (key.owner.clone(), &*key.certificate));
            findings.push(ending("public keys", in_use));
        }
        Err(error) => findings.push(Finding::failed("public keys", &Failure::from(error))),
    }
}

/// Whether a correspondent's certificate is imported, and none of his others that are serves for all that it does, and longer.
fn is_in_use(key: &PublicKeyEntry, of_one: &[PublicKeyEntry], trust: Option<&TrustStore>) -> bool {
    let is_pinned = |one: &PublicKeyEntry| one.state == PublicKeyState::Pinned;
    let old = &key.certificate;
    let succeeds = |one: &PublicKeyEntry| {
        let new = &one.certificate;
        is_pinned(one)
            && new.not_before() <= now()
            && new.not_after() > old.not_after()
            && (new.may_encrypt() || !old.may_encrypt())
            && (new.may_sign() || !old.may_sign())
            && !trust.is_some_and(|trust| is_revoked(one, trust))
    };
    is_pinned(key) && !of_one.iter().any(succeeds)
}

async fn check_own_certificates(administration: &Administration<'_>) -> Finding {
    const OWN_CERTIFICATES: &str = "own certificates";
    let (now, soon) = (now(), endings::soon(now()));
    let keys = match administration.ending_secret_keys(now, soon, NAMED_MAX).await {
        Ok(keys) => keys,
        Err(error) => return Finding::failed(OWN_CERTIFICATES, &Failure::from(error)),
    };
    let name = |key: &EndingKey| {
        format!("{} ({}) ends {}", key.owner, key.purpose, output::date(key.not_after))
    };
    let first = keys.first.iter().filter(|key| key.not_after < soon).map(name).collect();
    let ending = usize::try_from(keys.ending).unwrap_or(usize::MAX);
    verdict(OWN_CERTIFICATES, usize::try_from(keys.count).unwrap_or(usize::MAX), first, ending)
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
    if !endings::needs_successor(until, now()) {
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
    let count = lapsed.len();
    if lapsed.is_empty() {
        let detail =
            format!("{}, by their dates a current one for each issuer and part", lists.len());
        return Finding::good(REVOCATION_LISTS, detail);
    }
    Finding::bad(REVOCATION_LISTS, failure::CONFIGURATION, named(lapsed, count))
}

/// The first few of so many.
fn named(mut first: Vec<String>, count: usize) -> String {
    first.truncate(NAMED_MAX);
    let more = count.saturating_sub(first.len());
    let mut detail = first.join("; ");
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
    let soon = endings::soon(now());
    let mut count = 0_usize;
    let mut ending = Vec::new();
    for (name, certificate) in certificates {
        count = count.saturating_add(1);
        if certificate.not_after() < soon {
            ending.push(format!("{name} ends {}", output::date(certificate.not_after())));
        }
    }
    let all = ending.len();
    verdict(what, count, ending, all)
}

/// On so many certificates, of which so many end soon, the first of them by name.
fn verdict(what: &'static str, count: usize, first: Vec<String>, ending: usize) -> Finding {
    if ending == 0 {
        return Finding::good(what, format!("{count}, none ends within 30 days"));
    }
    Finding::bad(what, failure::CONFIGURATION, named(first, ending))
}

/// Certificates with which we show ourselves on connections, as a server and as a client.
fn check_tls(config: &Config, findings: &mut Vec<Finding>) {
    for Shown { what, files } in endings::shown(config) {
        findings.push(check_pair(what, &files));
    }
    if let (Some(files), Some(ca)) = (&config.tls, &config.inside.client_ca) {
        findings.push(match tls::authenticating_server(files, ca) {
            Ok(_) => Finding::good("inside client_ca", "clients show a certificate".to_owned()),
            Err(why) => Finding::bad("inside client_ca", failure::CONFIGURATION, why),
        });
    }
    if let Some(tls) = config.key_server.as_ref().and_then(|server| server.tls.as_ref()) {
        findings.push(check_pair("key server certificate", &tls.files));
    }
}

/// Whether the key is the certificate's, and no certificate of the chain ends soon.
fn check_pair(what: &'static str, files: &TlsFiles) -> Finding {
    if let Err(why) = tls::server(files) {
        return Finding::bad(what, failure::CONFIGURATION, why);
    }
    let certificates = match endings::certificates(&files.certificate) {
        Ok(certificates) => certificates,
        Err(why) => return Finding::bad(what, failure::CONFIGURATION, why),
    };
    let named = |one: &Arc<Certificate>| one.subject().to_owned();
    let mut finding = ending(what, certificates.iter().map(|one| (named(one), &**one)));
    finding.detail = format!("{}: {}", files.certificate.display(), finding.detail);
    finding
}

const REVOCATION_LISTS: &str = "revocation lists";
/// Names in one row.
const NAMED_MAX: usize = 5;
