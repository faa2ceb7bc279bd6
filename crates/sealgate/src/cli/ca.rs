//! `sealgate ca`: the organisation's own authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use sealgate_core::keys::Certificate;
use sealgate_keys::administration::RevocationReason;
use sealgate_keys::owner::Owner;

use super::session::Session;
use super::{Failure, Globals, files, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Print its certificate as PEM, for correspondents to import
    Certificate,
    /// Make its successor, which issues from now on; what it issued stays good
    Renew,
    /// Revoke certificates that it issued: they neither sign nor are encrypted to, here and with correspondents who have the list
    Revoke {
        #[command(flatten)]
        which: Which,
        /// Why
        #[arg(long, value_enum)]
        reason: ReasonName,
    },
    /// Print its revocation list as PEM, for correspondents to import
    Crl,
}

/// What to revoke.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// All certificates of the keys that are held for a mail address or @DOMAIN
    #[arg(value_name = "ADDR")]
    owner: Option<Owner>,
    /// Those in a file, PEM or DER
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

/// `--reason` (RFC 5280 §5.3.1).
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ReasonName {
    /// Somebody else may have the key: what it signs is refused
    KeyCompromise,
    /// The owner has left, or has another address
    AffiliationChanged,
    /// Another certificate has taken its place
    Superseded,
    /// It is needed no more
    CessationOfOperation,
}

impl From<ReasonName> for RevocationReason {
    fn from(name: ReasonName) -> Self {
        match name {
            ReasonName::KeyCompromise => Self::KeyCompromise,
            ReasonName::AffiliationChanged => Self::AffiliationChanged,
            ReasonName::Superseded => Self::Superseded,
            ReasonName::CessationOfOperation => Self::CessationOfOperation,
        }
    }
}

impl Ca {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| match self {
            Self::Certificate => {
                let certificate = session.stores.administration().authority_certificate().await?;
                output::write(output::certificate_pem(&certificate).as_bytes())
            }
            Self::Renew => renew(session).await,
            Self::Revoke { which, reason } => revoke(session, &which, reason.into()).await,
            Self::Crl => {
                let lists = session.stores.administration().own_revocation_lists().await?;
                lists.iter().try_for_each(|der| output::write(output::crl_pem(der).as_bytes()))
            }
        })
    }
}

async fn renew(session: &Session) -> Result<(), Failure> {
    let Some(domain) = session.config.domains.first() else {
        return Err(Failure::Configuration("name a domain of yours in `domains`".to_owned()));
    };
    let made = session.stores.administration().renew_authority(domain).await?;
    let (end, subject) = (output::date(made.not_after()), output::printable(made.subject()));
    output::line(&format!("authority      {subject}  until {end}  {}", made.fingerprint()))?;
    output::line(
        "next: give its certificate to your correspondents (`sealgate ca certificate`, and where anything was ever revoked \
         `sealgate ca crl`), and only then make new keys; the one before stays trusted",
    )
}

async fn revoke(session: &Session, which: &Which, reason: RevocationReason) -> Result<(), Failure> {
    let administration = session.stores.administration();
    let certificates = match (&which.owner, &which.certificate) {
        (Some(owner), _) => held_for(session, owner).await?,
        (None, Some(path)) => in_file(path)?,
        (None, None) => Vec::new(),
    };
    let revoked = administration.revoke(&certificates, reason).await?;
    for certificate in &certificates {
        let subject = output::printable(certificate.subject());
        output::line(&format!("{}  {subject}", certificate.fingerprint()))?;
    }
    if revoked == 0 {
        return output::line("revoked before");
    }
    output::line(&format!(
        "{revoked} revoked; next: give the list to your correspondents (`sealgate ca crl`), take what a directory has of them out \
         there, and make new keys for who needs some (`sealgate secret-key generate`)"
    ))
}

/// Those that our own authority issued; others' are another's to revoke.
async fn held_for(session: &Session, owner: &Owner) -> Result<Vec<Arc<Certificate>>, Failure> {
    let administration = session.stores.administration();
    let entries = administration.secret_keys(Some(owner)).await?;
    let held = entries.into_iter().map(|entry| entry.certificate).collect();
    let issued = administration.issued_by_us(held).await?;
    if issued.is_empty() {
        return Err(Failure::Data(format!(
            "{owner}: no key with a certificate of our own authority; one whose key was removed is revoked with --certificate FILE"
        )));
    }
    Ok(issued)
}

fn in_file(path: &Path) -> Result<Vec<Arc<Certificate>>, Failure> {
    let certificates = files::read_material(path, None)?.certificates;
    if certificates.is_empty() {
        return Err(files::of_file(path, &"no certificate in it"));
    }
    Ok(certificates)
}
