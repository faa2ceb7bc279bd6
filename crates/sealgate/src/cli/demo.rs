//! `sealgate demo`: two organisations on this machine, A1 to B10 before your eyes.

use clap::Args;

use crate::cli::Failure;
use crate::demo;

/// The arguments.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave both organisations running and say how to send mail to them
    #[arg(long)]
    keep: bool,
}

impl Demo {
    /// Runs it; it prints as it goes.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        demo::run(self.keep, &mut std::io::stdout()).map_err(Failure::Unavailable)
    }
}
