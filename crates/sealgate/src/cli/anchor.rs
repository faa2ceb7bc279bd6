//! `sealgate anchor`: authorities whose certificates we trust, and their revocation lists.

use std::path::PathBuf;

use clap::Subcommand;
use sealgate_keys::administration::ListImport;
use serde_json::Value;

use super::session::Session;
use super::{Failure, Globals, files, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Anchor {
    /// Trust authorities: PEM, DER or certs-only PKCS#7; revocation lists in the files are taken in too
    Import {
        /// Certificates of authorities, or revocation lists
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the authorities that we trust, our own among them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Trust an authority no more
    Remove {
        /// The fingerprint that `list` shows
        sha256: String,
    },
}

impl Anchor {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| match self {
            Self::Import { files } => import(session, &files).await,
            Self::List { json } => list(session, json).await,
            Self::Remove { sha256 } => {
                let sha256 = sha256.replace(':', "").to_ascii_lowercase();
                Ok(session.stores.administration().remove_anchor(&sha256).await?)
            }
        })
    }
}

async fn import(session: &Session, paths: &[PathBuf]) -> Result<(), Failure> {
    let administration = session.stores.administration();
    // All files are read before anything is written: a mistake in one of them changes nothing.
    let mut read = Vec::new();
    for path in paths {
        let material = files::read_material(path, None)?;
        if let Some(leaf) = material.certificates.iter().find(|one| !one.may_be_anchor()) {
            let why = format!("{}: not an authority's certificate", leaf.subject());
            return Err(files::of_file(path, &why));
        }
        if material.certificates.is_empty() && material.crls.is_empty() {
            let why =
                "no authority's certificate and no revocation list in it: give PEM, DER or PKCS#7";
            return Err(files::of_file(path, &why));
        }
        read.push((path, material));
    }
    let all = read.iter().flat_map(|(_, material)| material.certificates.iter().cloned());
    let certificates: Vec<_> = all.collect();
    for (path, material) in &read {
        let checked = administration.check_crls(&material.crls, &certificates).await;
        checked.map_err(|error| files::store_refusal(path, error))?;
    }
    for (path, material) in &read {
        for certificate in &material.certificates {
            let imported = administration.import_anchor(certificate).await;
            imported.map_err(|error| files::store_refusal(path, error))?;
            let subject = output::printable(certificate.subject());
            output::line(&format!("{}  {subject}", certificate.fingerprint()))?;
        }
    }
    // After all certificates: those of the same call say who signed a list.
    for (path, material) in &read {
        for crl in &material.crls {
            let imported = administration.import_crl(crl).await;
            let imported = imported.map_err(|error| files::store_refusal(path, error))?;
            output::line(&format!("{}: {}", path.display(), told(&imported)))?;
        }
    }
    Ok(())
}

fn told(imported: &ListImport) -> String {
    match imported {
        ListImport::Held => "not newer than the revocation list held".to_owned(),
        ListImport::Older(sha256) => format!(
            "not taken: older, by its number or else by its date, than the revocation list held. Where the authority has begun \
             to count anew, take that one out first: `sealgate crl remove {sha256}`"
        ),
        ListImport::Taken => "revocation list taken".to_owned(),
        ListImport::TakenUnchecked => "warning: revocation list taken, but the key that signed it is not known: until \
             the certificate of that key is imported or comes with mail, what the list is about waits"
            .to_owned(),
    }
}

async fn list(session: &Session, json: bool) -> Result<(), Failure> {
    let anchors = session.stores.administration().anchors().await?;
    if json {
        let list = anchors.iter().map(|anchor| output::certificate_json(anchor)).collect();
        return output::json(&Value::Array(list));
    }
    let rows: Vec<_> = anchors
        .iter()
        .map(|anchor| {
            [
                anchor.fingerprint().to_string(),
                output::date(anchor.not_after()),
                output::printable(anchor.subject()),
            ]
        })
        .collect();
    output::table(["SHA256", "ENDS", "SUBJECT"], &rows)
}
