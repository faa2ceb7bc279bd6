//! `sealgate completions`: shell completions, for packages.

use clap::Args;

use super::{Failure, output};

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(self, mut command: clap::Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "sealgate", &mut script);
        output::write(&script)
    }
}
