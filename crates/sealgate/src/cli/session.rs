//! What commands that use the stores share: a small runtime, the configuration, the open stores.

use std::future::Future;

use sealgate_core::keys::Timestamp;
use sealgate_keys::stores::Stores;

use super::{Failure, Globals};
use crate::config::Config;

/// Configuration and stores of one command.
pub(crate) struct Session {
    pub(crate) config: Config,
    pub(crate) stores: Stores,
}

impl Session {
    /// Loads the configuration, opens the stores, runs a command's work on them and closes them.
    pub(crate) fn run<T>(
        globals: &Globals,
        work: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let config = globals.load()?;
        block_on(async {
            let stores = Stores::open(&config.stores).await?;
            let session = Self { config, stores };
            let outcome = work(&session).await;
            session.stores.close().await;
            outcome
        })
    }
}

/// Runs a future on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::Unavailable(format!("no event loop: {error}")))?;
    runtime.block_on(work)
}

/// The time on the clock.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_second())
}
