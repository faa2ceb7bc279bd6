//! `sealgate backup`: a copy of the database, taken while it is in use.

use std::path::PathBuf;

use clap::Args;

use super::session::Session;
use super::{Failure, Globals, output};

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Where the copy goes; a file that is not there yet
    file: PathBuf,
}

impl Backup {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| {
            session.stores.administration().back_up(&self.file).await?;
            let (file, key) = (self.file.display(), &session.config.stores.master_key);
            output::line(&format!("{file}  (keep a copy of the master key, {key}, somewhere else)"))
        })
    }
}
