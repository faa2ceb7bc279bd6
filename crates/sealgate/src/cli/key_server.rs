//! `sealgate key-server`: our own key management server in the foreground.

use std::path::PathBuf;

use clap::Args;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use sealgate_keys::key_ring::KeyRing;

use super::{Failure, Globals, output};
use crate::key_management_server::{KeyServer, Settings, audit};
use crate::observe;

/// Run the key management server in the foreground; SIGTERM drains, SIGHUP reloads
#[derive(Debug, Args)]
pub(crate) struct KeyServerCommand {
    /// Only look whether a line of this audit file was changed or taken out
    #[arg(long, value_name = "FILE")]
    verify_audit: Option<PathBuf>,
}

impl KeyServerCommand {
    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// What is wrong with the configuration, the keys or the audit file, or where cannot be listened.
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        if let Some(path) = self.verify_audit {
            let lines = audit::verify(&path).map_err(Failure::Data)?;
            return output::line(&format!(
                "{}: {lines} lines, none changed or taken out",
                path.display()
            ));
        }
        let config = globals.load()?;
        observe::start(config.observe.log, globals.verbose);
        forbid_dumps();
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

/// No core file, and no other process of this user may read our memory: there are keys in it (REQUIREMENTS L5). Before the
/// first key is read.
fn forbid_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    if let Err(error) = limited.and(set_dumpable_behavior(DumpableBehavior::NotDumpable)) {
        tracing::warn!(%error, "core dumps cannot be forbidden");
    }
}
