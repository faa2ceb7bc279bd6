//! `sealgate secret-key`: our secret keys. What is shown is never the secret.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use sealgate_core::keys::Certificate;
use sealgate_keys::administration::Moved;
use sealgate_keys::authority::Algorithm;
use sealgate_keys::import::Material;
use sealgate_keys::owner::Owner;
use sealgate_keys::secret_key_store::{SecretKeyEntry, SecretKeyStoreKind};
use serde_json::{Value, json};

use super::session::Session;
use super::{Failure, Globals, files, output};

#[derive(Debug, Subcommand)]
pub(crate) enum SecretKey {
    /// Make a signing and an encryption key with certificates of the organisation's authority
    Generate {
        /// A mail address, or @DOMAIN for a key of the whole domain
        #[arg(value_name = "ADDR")]
        owner: Owner,
        /// The kind of keys
        #[arg(long, value_enum, default_value_t = AlgorithmName::Rsa3072)]
        algorithm: AlgorithmName,
    },
    /// Import keys with their certificates: PKCS#12, or PEM or DER in one or several files
    Import {
        /// A mail address, or @DOMAIN
        #[arg(value_name = "ADDR")]
        owner: Owner,
        /// PKCS#12, PEM or DER
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A file whose first line is the password
        #[arg(long, value_name = "F")]
        password_file: Option<PathBuf>,
    },
    /// List our keys
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the keys of an address
    Show {
        /// A mail address, or @DOMAIN
        #[arg(value_name = "ADDR")]
        owner: Owner,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the certificates of an address as PEM, for correspondents
    Certificate {
        /// A mail address, or @DOMAIN
        #[arg(value_name = "ADDR")]
        owner: Owner,
    },
    /// Move embedded keys to a store that the configuration describes: all, or those of one address
    Move {
        /// A mail address, or @DOMAIN; without it every key
        #[arg(value_name = "ADDR")]
        owner: Option<Owner>,
        /// Where to; without it the store outside that the configuration describes
        #[arg(long, value_enum)]
        to: Option<StoreName>,
    },
    /// Remove all keys of an address; mail encrypted to them stays unreadable
    Remove {
        /// A mail address, or @DOMAIN
        #[arg(value_name = "ADDR")]
        owner: Owner,
    },
}

/// `--to`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StoreName {
    /// The key management server of [secret_keys.kmip]
    Kmip,
    /// The token of [secret_keys.pkcs11]
    Pkcs11,
}

impl From<StoreName> for SecretKeyStoreKind {
    fn from(name: StoreName) -> Self {
        match name {
            StoreName::Kmip => Self::Kmip,
            StoreName::Pkcs11 => Self::Pkcs11,
        }
    }
}

/// `--algorithm`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum AlgorithmName {
    Rsa3072,
    Rsa2048,
    Rsa4096,
    P256,
    P384,
    Ed25519,
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::Ed25519 => Self::Ed25519,
            AlgorithmName::P256 => Self::P256,
            AlgorithmName::P384 => Self::P384,
            AlgorithmName::Rsa2048 => Self::Rsa2048,
            AlgorithmName::Rsa3072 => Self::Rsa3072,
            AlgorithmName::Rsa4096 => Self::Rsa4096,
        }
    }
}

impl SecretKey {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| match self {
            Self::Generate { owner, algorithm } => generate(session, &owner, algorithm).await,
            Self::Import { owner, files, password_file } => {
                import(session, &owner, &files, password_file.as_deref()).await
            }
            Self::List { json } => list(session, json).await,
            Self::Show { owner, json } => show(session, &owner, json).await,
            Self::Certificate { owner } => certificate(session, &owner).await,
            Self::Move { owner, to } => {
                move_keys(session, owner.as_ref(), destination(session, to)?).await
            }
            Self::Remove { owner } => {
                let removed = session.stores.administration().remove_secret_keys(&owner).await?;
                output::line(&format!("{owner}: {removed} removed"))?;
                if session.config.stores.secret_keys == SecretKeyStoreKind::Embedded {
                    wipe(session).await;
                }
                Ok(())
            }
        })
    }
}

async fn generate(
    session: &Session,
    owner: &Owner,
    algorithm: AlgorithmName,
) -> Result<(), Failure> {
    is_ours(session, owner)?;
    let administration = session.stores.administration();
    let made = administration.generate_secret_keys(owner, algorithm.into()).await?;
    made.iter().try_for_each(|certificate| announce(owner, certificate))
}

async fn import(
    session: &Session,
    owner: &Owner,
    paths: &[PathBuf],
    password_file: Option<&Path>,
) -> Result<(), Failure> {
    is_ours(session, owner)?;
    let password = password_file.map(files::read_password).transpose()?;
    let mut material = Material::default();
    for path in paths {
        let password = password.as_ref().map(|password| password.as_str());
        material.append(files::read_material(path, password)?);
    }
    let named = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let keys = material.into_keys().map_err(|error| files::of_file(named, &error))?;
    let imported = session.stores.administration().import_secret_keys(owner, keys).await;
    let imported = imported.map_err(|error| files::store_refusal(named, error))?;
    imported.iter().try_for_each(|certificate| announce(owner, certificate))
}

async fn list(session: &Session, json: bool) -> Result<(), Failure> {
    let entries = session.stores.administration().secret_keys(None).await?;
    if json {
        return output::json(&Value::Array(entries.iter().map(entry_json).collect()));
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            [
                output::printable(&entry.owner),
                purpose(entry),
                output::key_kind(entry.certificate.key_kind()),
                output::date(entry.certificate.not_after()),
                entry.certificate.fingerprint().to_string(),
            ]
        })
        .collect();
    output::table(["ADDRESS", "PURPOSE", "KEY", "ENDS", "SHA256"], &rows)
}

async fn show(session: &Session, owner: &Owner, json: bool) -> Result<(), Failure> {
    let entries = entries_of(session, owner).await?;
    if json {
        return output::json(&Value::Array(entries.iter().map(entry_json).collect()));
    }
    for entry in &entries {
        output::line(&format!("{}  {}", output::printable(&entry.owner), purpose(entry)))?;
        output::write(output::certificate_text(&entry.certificate).as_bytes())?;
    }
    Ok(())
}

async fn certificate(session: &Session, owner: &Owner) -> Result<(), Failure> {
    let mut entries = entries_of(session, owner).await?;
    // It is for correspondents, who would encrypt to it.
    entries.retain(|entry| entry.is_active);
    if entries.is_empty() {
        let why = format!("{owner}: all keys were revoked; see `sealgate secret-key list`");
        return Err(Failure::Data(why));
    }
    for entry in &entries {
        output::write(output::certificate_pem(&entry.certificate).as_bytes())?;
    }
    Ok(())
}

/// `--to`, or what the configuration leaves no doubt of.
fn destination(session: &Session, to: Option<StoreName>) -> Result<SecretKeyStoreKind, Failure> {
    let stores = &session.config.stores;
    match (to, stores.secret_keys, &stores.kmip, &stores.pkcs11) {
        (Some(to), ..) => Ok(to.into()),
        (None, used @ (SecretKeyStoreKind::Kmip | SecretKeyStoreKind::Pkcs11), ..) => Ok(used),
        (None, SecretKeyStoreKind::Embedded, Some(_), None) => Ok(SecretKeyStoreKind::Kmip),
        (None, SecretKeyStoreKind::Embedded, None, Some(_)) => Ok(SecretKeyStoreKind::Pkcs11),
        (None, SecretKeyStoreKind::Embedded, ..) => {
            let line = "say where to: `--to kmip` or `--to pkcs11`, described in [secret_keys.kmip] or [secret_keys.pkcs11]";
            Err(Failure::Usage(line.to_owned()))
        }
    }
}

async fn move_keys(
    session: &Session,
    owner: Option<&Owner>,
    to: SecretKeyStoreKind,
) -> Result<(), Failure> {
    let administration = session.stores.administration();
    // Told at once: a move of many keys may be cut off.
    let mut is_any_gone = false;
    let tell = |moved: Moved| {
        is_any_gone = true;
        let owner = output::printable(&moved.owner);
        let _ = output::line(&format!("{owner}  {}", moved.certificate.fingerprint()));
    };
    let outcome = administration.move_secret_keys(to, owner, tell).await;
    // Some may have gone before one that could not.
    if is_any_gone {
        wipe(session).await;
    }
    let count = outcome?;
    output::line(&format!(
        "{count} moved; mail of their owners waits until [secret_keys] store is changed"
    ))
}

/// What was removed is no more to be found in the database's files, or the administrator hears of it.
async fn wipe(session: &Session) {
    if let Some(remains) = session.stores.administration().wipe_removed_keys().await {
        output::warning(&remains);
    }
}

async fn entries_of(session: &Session, owner: &Owner) -> Result<Vec<SecretKeyEntry>, Failure> {
    let entries = session.stores.administration().secret_keys(Some(owner)).await?;
    if entries.is_empty() {
        return Err(Failure::Data(format!(
            "{owner}: no secret key; make one with `sealgate secret-key generate {owner}`"
        )));
    }
    Ok(entries)
}

/// Keys are held for our own people only.
fn is_ours(session: &Session, owner: &Owner) -> Result<(), Failure> {
    if session.config.domains.contains(owner.domain()) {
        return Ok(());
    }
    Err(Failure::Data(format!(
        "{owner}: {} is not among `domains` in {}; add it there, or correct the address",
        owner.domain(),
        session.config.path.display()
    )))
}

fn announce(owner: &Owner, certificate: &Certificate) -> Result<(), Failure> {
    let purpose = match (certificate.may_sign(), certificate.may_encrypt()) {
        (true, true) => "sign and encrypt",
        (true, false) => "sign",
        _ => "encrypt",
    };
    let kind = output::key_kind(certificate.key_kind());
    let end = output::date(certificate.not_after());
    let sha256 = certificate.fingerprint();
    output::line(&format!("{owner}  {purpose}  {kind}  until {end}  {sha256}"))
}

fn purpose(entry: &SecretKeyEntry) -> String {
    if entry.is_active { entry.purpose.clone() } else { format!("{} (revoked)", entry.purpose) }
}

fn entry_json(entry: &SecretKeyEntry) -> Value {
    let mut value = output::certificate_json(&entry.certificate);
    if let Value::Object(members) = &mut value {
        members.insert("address".to_owned(), json!(entry.owner));
        members.insert("purpose".to_owned(), json!(entry.purpose));
        members.insert("revoked".to_owned(), json!(!entry.is_active));
    }
    value
}
