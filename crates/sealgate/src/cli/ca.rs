//! `sealgate ca`: the organisation's own authority.

use clap::Subcommand;

use super::session::Session;
use super::{Failure, Globals, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Print its certificate as PEM, for correspondents to import
    Certificate,
}

impl Ca {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        let Self::Certificate = self;
        Session::run(globals, async |session| {
            let certificate = session.stores.administration().authority_certificate().await?;
            output::write(output::certificate_pem(&certificate).as_bytes())
        })
    }
}
