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
    /// Take an imported list out of the database; of its issuer's certificates nothing is checked then
    Remove {
        /// The issuer that `list` shows
        issuer: String,
    },
}

impl Crl {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| match self {
            Self::List { json } => list(session, json).await,
            Self::Remove { issuer } => {
                Ok(session.stores.administration().remove_revocation_list(&issuer).await?)
            }
        })
    }
}

async fn list(session: &Session, json: bool) -> Result<(), Failure> {
    let lists = session.stores.administration().revocation_lists().await?;
    if json {
        let rows = lists.iter().map(|list| {
            json!({
                "issuer": list.issuer,
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
                output::date(list.this_update),
                list.next_update.map_or_else(|| "never current".to_owned(), output::date),
                file.unwrap_or_else(|| "database".to_owned()),
                output::printable(&list.issuer),
            ]
        })
        .collect();
    output::table(["ISSUED", "ENDS", "WHERE", "ISSUER"], &rows)
}
