//! `sealgate key-server`: our own key management server in the foreground.

use std::path::{Path, PathBuf};

use clap::Args;
use sealgate_keys::key_ring::KeyRing;

use super::{Failure, Globals, output};
use crate::key_management_server::audit::{self, Verified};
use crate::key_management_server::{KeyServer, Settings};
use crate::{key_files, observe};

/// Run the key management server in the foreground; SIGTERM drains, SIGHUP reloads
#[derive(Debug, Args)]
pub(crate) struct KeyServerCommand {
    /// Only look whether a line of this audit file was changed, or taken out between others
    #[arg(long, value_name = "FILE")]
    verify_audit: Option<PathBuf>,
    /// The last digest that an earlier look printed: shows whether lines were cut off since
    #[arg(long, value_name = "DIGEST", requires = "verify_audit")]
    expect: Option<String>,
}

impl KeyServerCommand {
    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// What is wrong with the configuration, the keys or the audit file, or where cannot be listened.
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        if let Some(path) = self.verify_audit {
            return verify(&path, self.expect.as_deref());
        }
        let config = globals.load()?;
        observe::start(config.observe.log, globals.verbose);
        key_files::warn(&config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Unavailable(format!("no threads to run on: {error}")))?;
        let outcome = runtime.block_on(async {
            let stores = config.stores.clone();
            let settings = Settings::new(config).map_err(Failure::Configuration)?;
            let ring = KeyRing::open(&stores).await?;
            let server = KeyServer::new(settings, ring).map_err(Failure::Configuration)?;
            let ended = server.run().await;
            ended.map_err(|error| Failure::Unavailable(error.to_string()))
        });
        runtime.shutdown_background();
        outcome
    }
}

fn verify(path: &Path, expect: Option<&str>) -> Result<(), Failure> {
    let found = audit::verify(path, expect).map_err(Failure::Data)?;
    let Verified { lines, follows, last } = found;
    output::line(&format!("{}: {lines} lines, each follows the one before it", path.display()))?;
    if lines > 0 {
        output::line(&format!("the first follows {follows}\nthe last is {last}"))?;
    }
    if expect.is_some() {
        return output::line("the expected digest is among them");
    }
    let text = "what was cut off before the first or behind the last does not show: keep the last digest elsewhere, \
                and give it to the next look as --expect";
    output::line(text)
}
