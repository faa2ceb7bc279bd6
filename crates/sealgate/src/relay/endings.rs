//! What of ours ends soon (REQUIREMENTS G15). The relay looks once a day and says so in its log; `sealgate check` looks when it is
//! asked, by the same limits.
//!
//! In: own keys' certificates, the own authority, and the certificates with which we show ourselves on connections. Out: a warning
//! for each, `sealgate_own_certificate_days_left_min` and `sealgate_own_certificates_ended`. Of many keys the first few are named and the rest are counted.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sealgate_core::keys::{Certificate, Timestamp};
use sealgate_keys::StoreError;
use sealgate_keys::administration::Administration;
use sealgate_keys::import::Material;
use sealgate_keys::public_key_store::directory_server::LdapBind;

use super::Relay;
use super::wall_clock::Time;
use crate::config::{Config, TlsFiles};

/// Certificate and key of one side of our connections.
pub(crate) struct Shown {
    pub(crate) what: &'static str,
    pub(crate) files: TlsFiles,
}

/// What the relay shows on its connections, as a server and as a client.
pub(crate) fn shown(config: &Config) -> Vec<Shown> {
    let tls = config.tls.clone().map(|files| Shown { what: "tls certificate", files });
    let kmip = config.stores.kmip.as_ref().and_then(|kmip| kmip.tls.as_ref());
    let kmip = kmip.map(|tls| {
        let files = TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone() };
        Shown { what: "kmip client certificate", files }
    });
    let ldap = match config.stores.ldap.as_ref().map(|ldap| &ldap.bind) {
        Some(LdapBind::Certificate { certificate, key }) => {
            let files = TlsFiles { certificate: certificate.clone(), key: key.clone() };
            Some(Shown { what: "ldap client certificate", files })
        }
        _ => None,
    };
    tls.into_iter().chain(kmip).chain(ldap).collect()
}

/// The certificates of a file.
///
/// # Errors
/// A line that says what is wrong with it.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Arc<Certificate>>, String> {
    let read = || {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        Material::read(&bytes, None).map_err(|error| error.to_string())
    };
    let material = read().map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(material.certificates)
}

/// What ends before this ends soon.
pub(crate) fn soon(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_add(WARNING_SECS))
}

/// Whether an authority that issues until then needs its successor made: to have that known everywhere takes time.
pub(crate) fn needs_successor(issues_until: Timestamp, now: Timestamp) -> bool {
    issues_until.0.saturating_sub(now.0) <= RENEWAL_SECS
}

/// Looks soon after the start and once a day, apart from everything else: a store may take its time.
pub(super) async fn watch(relay: Weak<Relay>) {
    let (mut wait, mut again) = (FIRST_LOOK_AFTER, LOOK_AGAIN);
    let mut known = Known::default();
    loop {
        tokio::time::sleep(wait).await;
        let Some(relay) = relay.upgrade() else { return };
        if look(&relay, &mut known).await {
            (wait, again) = (LOOK_EVERY, LOOK_AGAIN);
        } else {
            // What can never be looked at is no alarm every hour.
            (wait, again) = (again, again.saturating_mul(2).min(LOOK_EVERY));
        }
    }
}

/// The first end among own keys, of the own authority and among what is shown on connections, as they were when last looked at:
/// a store that is away for once is no all-clear.
type Known = [Option<Timestamp>; 3];

/// Whether everything could be looked at.
async fn look(relay: &Relay, known: &mut Known) -> bool {
    let Time { now, is_doubtful, .. } = relay.clock.look();
    // What a clock says that has jumped is no reason to alarm, or not to.
    if is_doubtful {
        return false;
    }
    let administration = relay.stores.administration();
    let config = relay.settings().config.clone();
    let looks = [
        secret_keys(&administration, now).await,
        own_authority(&administration, now).await,
        connections(config, now).await,
    ];
    let is_complete = looks.iter().all(Result::is_ok);
    for (known, look) in known.iter_mut().zip(looks) {
        match look {
            Ok(end) => *known = end,
            Err(why) => tracing::warn!(why, "not looked at for certificates that end soon"),
        }
    }
    // As far as could be looked: an alarm must not wait for a store that is never to be had.
    if let Some(first) = known.iter().flatten().min() {
        let days = first.0.saturating_sub(now.0).div_euclid(DAY_SECS);
        let days = i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX });
        metrics::gauge!("sealgate_own_certificate_days_left_min").set(f64::from(days));
    }
    is_complete
}

/// Says which keys' certificates end soon, and returns the first end.
async fn secret_keys(
    administration: &Administration<'_>,
    now: Timestamp,
) -> Result<Option<Timestamp>, String> {
    let soon = soon(now);
    let keys = administration.ending_secret_keys(now, soon, LINES_MAX).await;
    let keys = keys.map_err(|error| error.to_string())?;
    let mut said = 0;
    for key in keys.first.iter().filter(|key| key.not_after < soon) {
        said += 1;
        tracing::warn!(
            owner = key.owner,
            purpose = key.purpose,
            ends = day(key.not_after),
            "a certificate of ours ends: make its successor with `sealgate secret-key generate`, or import one. Where nobody needs it any more it stays for old mail"
        );
    }
    let more = keys.ending.saturating_sub(said);
    if more > 0 {
        tracing::warn!(
            more,
            "and so many more certificates of ours end: `sealgate secret-key list`"
        );
    }
    let ended = u32::try_from(keys.ended).unwrap_or(u32::MAX);
    metrics::gauge!("sealgate_own_certificates_ended").set(f64::from(ended));
    Ok(keys.first.first().map(|key| key.not_after))
}

async fn own_authority(
    administration: &Administration<'_>,
    now: Timestamp,
) -> Result<Option<Timestamp>, String> {
    let authority = match administration.authority_certificate().await {
        Ok(authority) => authority,
        Err(StoreError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let until = Administration::issues_until(&authority);
    if needs_successor(until, now) {
        tracing::warn!(
            owner = authority.subject(),
            issues_until = day(until),
            ends = day(authority.not_after()),
            "our own authority ends: make its successor with `sealgate ca renew`, and give that to correspondents"
        );
    }
    Ok(Some(authority.not_after()))
}

async fn connections(config: Config, now: Timestamp) -> Result<Option<Timestamp>, String> {
    let read = move || {
        let mut found = Vec::new();
        for Shown { what, files } in shown(&config) {
            for certificate in certificates(&files.certificate)? {
                found.push((what, files.certificate.clone(), certificate));
            }
        }
        Ok::<_, String>(found)
    };
    let found = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())??;
    for (what, path, certificate) in &found {
        if certificate.not_after() < soon(now) {
            tracing::warn!(
                owner = certificate.subject(),
                file = %path.display(),
                ends = day(certificate.not_after()),
                "{what} ends: put another one into its file and reload"
            );
        }
    }
    Ok(found.iter().map(|(_, _, certificate)| certificate.not_after()).min())
}

/// `2026-11-23`.
fn day(timestamp: Timestamp) -> String {
    jiff::Timestamp::from_second(timestamp.0)
        .map_or_else(|_| timestamp.0.to_string(), |time| time.strftime("%F").to_string())
}

const DAY_SECS: i64 = 24 * 3600;
/// REQUIREMENTS G15.
const WARNING_SECS: i64 = 30 * DAY_SECS;
/// How long before its end an authority's successor is asked for: correspondents take time to import it.
const RENEWAL_SECS: i64 = 180 * DAY_SECS;
/// Keys that have a line of their own at each look.
const LINES_MAX: usize = 20;
const FIRST_LOOK_AFTER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);
/// After one that was not complete: a store was away, or the clock in doubt.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
