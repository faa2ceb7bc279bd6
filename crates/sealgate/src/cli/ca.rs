//! `sealgate ca`: the organisation's own authority.

use clap::Subcommand;

use super::session::Session;
use super::{Failure, Globals, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Print its certificate as PEM, for correspondents to import
    Certificate,
    /// Make its successor, which issues from now on; what it issued stays good
    Renew,
}

impl Ca {
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        Session::run(globals, async |session| match self {
            Self::Certificate => {
                let certificate = session.stores.administration().authority_certificate().await?;
                output::write(output::certificate_pem(&certificate).as_bytes())
            }
            Self::Renew => renew(session).await,
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
        "next: give its certificate to your correspondents (`sealgate ca certificate`), and only then make new keys; the \
         one before stays trusted",
    )
}
