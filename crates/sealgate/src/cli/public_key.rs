//! `sealgate public-key`: correspondents' certificates.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use sealgate_core::address::Address;
use sealgate_core::keys::Certificate;
use sealgate_core::trust::{Purpose, Trust, TrustStore};
use sealgate_keys::StoreError;
use sealgate_keys::owner::Owner;
use sealgate_keys::public_key_store::directory_server::Published;
use sealgate_keys::public_key_store::{PublicKeyEntry, PublicKeyState};
use serde_json::{Value, json};

use super::session::{Session, now};
use super::{Failure, Globals, files, output};

#[derive(Debug, Subcommand)]
pub(crate) enum PublicKey {
    /// Import certificates: PEM, DER or certs-only PKCS#7
    Import {
        /// Whose they are, a mail address or @DOMAIN; without it the certificate says
        #[arg(long = "address", value_name = "ADDR")]
        owner: Option<Owner>,
        /// PEM, DER or PKCS#7
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List correspondents' certificates; candidates were learned from mail and are not used yet
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is known of an address
    Show {
        /// A mail address, or @DOMAIN
        #[arg(value_name = "ADDR")]
        owner: Owner,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Use what was learned from an address's mail
    Accept {
        /// A mail address
        #[arg(value_name = "ADDR")]
        owner: Owner,
        /// Only the certificate with this fingerprint
        #[arg(value_parser = fingerprint)]
        sha256: Option<String>,
    },
    /// Publish certificates of ours at the directory server: of every mailbox, or of one
    Publish {
        /// A mail address
        #[arg(value_name = "ADDR")]
        owner: Option<Owner>,
    },
    /// Forget an address, or one certificate of it
    Remove {
        /// A mail address, or @DOMAIN
        #[arg(value_name = "ADDR")]
        owner: Owner,
        /// Only the certificate with this fingerprint
        #[arg(value_parser = fingerprint)]
        sha256: Option<String>,
    },
}

impl PublicKey {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| {
            let administration = session.stores.administration();
            match self {
                Self::Import { owner, files } => import(session, owner.as_ref(), &files).await,
                Self::List { json } => list(session, json).await,
                Self::Show { owner, json } => show(session, &owner, json).await,
                Self::Accept { owner, sha256 } => {
                    let accepted =
                        administration.accept_public_keys(&owner, sha256.as_deref()).await?;
                    output::line(&format!("{owner}: {accepted} accepted"))
                }
                Self::Publish { owner } => publish(session, owner.as_ref()).await,
                Self::Remove { owner, sha256 } => {
                    let removed =
                        administration.remove_public_keys(&owner, sha256.as_deref()).await?;
                    output::line(&format!("{owner}: {removed} removed"))
                }
            }
        })
    }
}

/// A fingerprint as the database writes it.
fn fingerprint(text: &str) -> Result<String, String> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    if digits.len() == SHA256_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err("a fingerprint is 64 hexadecimal digits; `public-key list` shows it".to_owned())
}

/// Every file is imported or refused for itself; the first refusal is the outcome.
async fn publish(session: &Session, owner: Option<&Owner>) -> Result<(), Failure> {
    let mut failed = None;
    let mut write = Ok(());
    let tell = |address: &Address, outcome: Result<Published, StoreError>| {
        let text = match outcome {
            Ok(Published::Added(count)) => format!("{address}: {count} added"),
            Ok(Published::AlreadyThere) => format!("{address}: there already"),
            Err(error) => {
                let text = format!("{address}: {error}");
                failed = Some(Failure::from(error));
                text
            }
        };
        if write.is_ok() {
            write = output::line(&output::printable(&text));
        }
    };
    session.stores.administration().publish_public_keys(owner, tell).await?;
    write?;
    failed.map_or(Ok(()), |failure| Err(Failure::Said(failure.status())))
}

async fn import(
    session: &Session,
    owner: Option<&Owner>,
    paths: &[PathBuf],
) -> Result<(), Failure> {
    let progress = progress_bar(paths.len());
    let mut first_failure = None;
    for path in paths {
        if let Err(failure) = import_file(session, owner, path, &progress).await {
            match &first_failure {
                None => first_failure = Some(failure),
                Some(_) => progress.suspend(|| failure.report()),
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    first_failure.map_or(Ok(()), Err)
}

async fn import_file(
    session: &Session,
    owner: Option<&Owner>,
    path: &Path,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let material = files::read_material(path, None)?;
    let is_alone = material.certificates.len() == 1;
    let (authorities, leaves): (Vec<_>, Vec<_>) = material
        .certificates
        .into_iter()
        .partition(|one| one.is_authority() && !(is_alone && is_own_authority(one)));
    if leaves.is_empty() {
        let why = "no certificate of a correspondent in it; authorities go to `sealgate anchor \
                   import`";
        return Err(files::of_file(path, &why));
    }
    let mut all_owners: Vec<Owner> = Vec::new();
    for certificate in &leaves {
        let owners = owners_of(owner, certificate)
            .ok_or_else(|| files::of_file(path, &"no address in it: give one with --address"))?;
        for owner in owners {
            let administration = session.stores.administration();
            let imported =
                administration.import_public_key(&owner, certificate, &authorities).await;
            imported.map_err(|error| files::store_refusal(path, error))?;
            let line = format!("{owner}  {}", certificate.fingerprint());
            progress.suspend(|| output::line(&line))?;
            if !all_owners.contains(&owner) {
                all_owners.push(owner);
            }
        }
    }
    for owner in &all_owners {
        if !can_be_encrypted_to(session, owner).await? {
            let why = "nothing can be encrypted to any certificate imported for this address: its key or key usage only \
                       allows signatures. Import the one for encryption too";
            progress.suspend(|| output::warning(&format!("{owner}: {why}")));
        }
    }
    Ok(())
}

/// Whether the administrator has chosen a certificate of this owner that is for encryption: many people have two.
async fn can_be_encrypted_to(session: &Session, owner: &Owner) -> Result<bool, Failure> {
    let entries = session.stores.administration().public_keys(Some(owner)).await?;
    let is_for_it = |entry: &PublicKeyEntry| {
        entry.state == PublicKeyState::Pinned && entry.certificate.may_encrypt()
    };
    Ok(entries.iter().any(is_for_it))
}

/// Whether an authority's certificate is a correspondent's all the same: `openssl req -x509` says of everybody that he is one, and
/// not what the key is for.
fn is_own_authority(certificate: &Certificate) -> bool {
    certificate.is_self_issued()
        && !certificate.says_it_issues()
        && (certificate.may_sign() || certificate.may_encrypt())
}

/// Whose a certificate is: as the administrator says, else all its addresses.
fn owners_of(given: Option<&Owner>, certificate: &Arc<Certificate>) -> Option<Vec<Owner>> {
    if let Some(owner) = given {
        return Some(vec![owner.clone()]);
    }
    let owners: Vec<_> = certificate.addresses().iter().map(Owner::from).collect();
    (!owners.is_empty()).then_some(owners)
}

fn progress_bar(files: usize) -> ProgressBar {
    if files < PROGRESS_FILES_MIN || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {eta} left");
    let bar = ProgressBar::new(u64::try_from(files).unwrap_or(u64::MAX));
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

async fn list(session: &Session, json: bool) -> Result<(), Failure> {
    let entries = session.stores.administration().public_keys(None).await?;
    let trust = session.stores.trust().await?;
    if json {
        let rows = entries.iter().map(|entry| entry_json(entry, &trust));
        return output::json(&Value::Array(rows.collect()));
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            [
                output::printable(&entry.owner),
                state(entry, &trust),
                output::key_kind(entry.certificate.key_kind()),
                output::date(entry.certificate.not_after()),
                entry.certificate.fingerprint().to_string(),
            ]
        })
        .collect();
    output::table(["ADDRESS", "STATE", "KEY", "ENDS", "SHA256"], &rows)
}

async fn show(session: &Session, owner: &Owner, json: bool) -> Result<(), Failure> {
    let entries = session.stores.administration().public_keys(Some(owner)).await?;
    if entries.is_empty() {
        return Err(Failure::Data(format!(
            "{owner}: no public key; import one with `sealgate public-key import FILE`"
        )));
    }
    let trust = session.stores.trust().await?;
    if json {
        let rows = entries.iter().map(|entry| entry_json(entry, &trust));
        return output::json(&Value::Array(rows.collect()));
    }
    for entry in &entries {
        let reads = capabilities(entry);
        let reads = if reads.is_empty() { "nothing known".to_owned() } else { reads.join(", ") };
        let owner = output::printable(&entry.owner);
        output::line(&format!("{owner}  {}", state(entry, &trust)))?;
        output::write(output::certificate_text(&entry.certificate).as_bytes())?;
        output::line(&format!("  reads      {reads}"))?;
    }
    Ok(())
}

/// What the correspondent reads: learned, else what the certificate says.
fn capabilities(entry: &PublicKeyEntry) -> Vec<&'static str> {
    let known = entry.capabilities.or_else(|| entry.certificate.capabilities());
    let Some(known) = known else { return Vec::new() };
    let all = [
        (known.aes_256_gcm, "aes-256-gcm"),
        (known.aes_128_gcm, "aes-128-gcm"),
        (known.aes_256_cbc, "aes-256-cbc"),
        (known.rsa_oaep, "rsa-oaep"),
    ];
    all.into_iter().filter(|(reads, _)| *reads).map(|(_, name)| name).collect()
}

fn state(entry: &PublicKeyEntry, trust: &TrustStore) -> String {
    let state = entry.state.as_str();
    if is_revoked(entry, trust) { format!("{state} (revoked)") } else { state.to_owned() }
}

/// Whether a list that is in force names it: nothing is encrypted to it then.
pub(super) fn is_revoked(entry: &PublicKeyEntry, trust: &TrustStore) -> bool {
    let PublicKeyEntry { certificate, intermediates, .. } = entry;
    let found = trust.judge_pinned(certificate, intermediates, Purpose::Encrypt, now());
    matches!(found, Trust::Revoked { .. })
}

fn entry_json(entry: &PublicKeyEntry, trust: &TrustStore) -> Value {
    let mut value = output::certificate_json(&entry.certificate);
    if let Value::Object(members) = &mut value {
        members.insert("address".to_owned(), json!(entry.owner));
        members.insert("state".to_owned(), json!(entry.state.as_str()));
        members.insert("revoked".to_owned(), json!(is_revoked(entry, trust)));
        members.insert("reads".to_owned(), json!(capabilities(entry)));
    }
    value
}

const SHA256_DIGITS: usize = 64;
/// For fewer files a bar is noise.
const PROGRESS_FILES_MIN: usize = 10;
