//! `sealgate crl`: revocation lists, imported (`sealgate anchor import`) or in files that the configuration names.

use clap::Subcommand;
use serde_json::{Value, json};

use super::session::Session;
use super::{Failure, Globals, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Crl {
    /// List the revocation lists in use
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take imported lists out of the database; of an issuer without a list nothing is checked
    Remove {
        /// The fingerprint that `list` shows; or an issuer, for all lists of his
        #[arg(value_name = "SHA256|ISSUER")]
        list: String,
    },
}

impl Crl {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| match self {
            Self::List { json } => list(session, json).await,
            Self::Remove { list } => {
                let removed =
                    session.stores.administration().remove_revocation_lists(&list).await?;
                output::line(&format!("{}: {removed} removed", output::printable(&list)))
            }
        })
    }
}

async fn list(session: &Session, json: bool) -> Result<(), Failure> {
    let lists = session.stores.administration().revocation_lists().await?;
    if json {
        let rows = lists.iter().map(|list| {
            json!({
                "sha256": list.sha256,
                "issuer": list.scope.issuer,
                "authority_key": list.scope.authority_key,
                "covers": list.scope.covers(),
                "delta": list.scope.is_delta,
                "number": list.number,
                "this_update": output::time(list.this_update),
                "next_update": list.next_update.map(output::time),
                "file": list.file,
            })
        });
        return output::json(&Value::Array(rows.collect()));
    }
    let rows: Vec<_> = lists
        .iter()
        .map(|list| {
            let file = list.file.as_ref().map(|path| path.display().to_string());
            [
                list.sha256.clone(),
                output::date(list.this_update),
                list.next_update.map_or_else(|| "never current".to_owned(), output::date),
                file.unwrap_or_else(|| "database".to_owned()),
                output::printable(&list.scope.covers()),
                output::printable(&list.scope.issuer),
            ]
        })
        .collect();
    output::table(["SHA256", "ISSUED", "ENDS", "WHERE", "COVERS", "ISSUER"], &rows)
}
