//! `sealgate relay`: run the proxy in the foreground.

use clap::Args;
use sealgate_keys::stores::Stores;

use super::{Failure, Globals};
use crate::relay::{Relay, Settings, StartError};
use crate::{key_files, observe};

/// Run the proxy in the foreground; SIGTERM drains, SIGHUP reloads
#[derive(Debug, Args)]
pub(crate) struct RelayCommand {}

impl RelayCommand {
    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// What is wrong with the configuration or the stores, or which address cannot be listened on.
    pub(crate) fn run(self, globals: &Globals) -> Result<(), Failure> {
        let config = globals.load()?;
        observe::start(config.observe.log, globals.verbose);
        key_files::warn(&config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Unavailable(format!("no threads to run on: {error}")))?;
        let outcome = runtime.block_on(async {
            let stores = Stores::open(&config.stores).await?;
            let settings = Settings::new(config).map_err(Failure::Configuration)?;
            let relay = Relay::new(settings, stores).map_err(Failure::Configuration)?;
            relay.run().await.map_err(|error| match error {
                StartError::Configuration(what) => Failure::Configuration(what),
                StartError::System(error) => Failure::Unavailable(error.to_string()),
            })
        });
        // Sessions that the drain had to cut off end here, before their final dots.
        runtime.shutdown_background();
        outcome
    }
}
