//! Why a command did not do what was asked, with its exit status.

use std::fmt;
use std::io::Write as _;

use sealgate_core::refusal::Reply;
use sealgate_keys::StoreError;

use crate::config::ConfigError;

/// A failed command. Its text is one line that says what, which file, and what to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Configuration, database or master key cannot be used.
    Configuration(String),
    /// What was given is not usable: a wrong password, no certificate, an address without a key.
    Data(String),
    /// The message is refused; the reply tells whether for good.
    Refused(Reply),
    /// Nothing to add: standard output has said it.
    Said(u8),
    /// A server that is needed is away.
    Unavailable(String),
    /// The command line makes no sense.
    Usage(String),
}

impl Failure {
    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Configuration(_) => CONFIGURATION,
            Self::Data(_) => DATA,
            Self::Refused(reply) if reply.is_permanent() => DATA,
            Self::Refused(_) => TEMPORARY,
            Self::Said(status) => *status,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::Usage(_) => USAGE,
        }
    }

    /// Writes the line to standard error.
    pub(crate) fn report(&self) {
        let line = self.to_string();
        if !line.is_empty() {
            // Nobody to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Data(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(line)
            | Self::Data(line)
            | Self::Unavailable(line)
            | Self::Usage(line) => write!(f, "sealgate: {line}"),
            Self::Refused(reply) => reply.fmt(f),
            Self::Said(_) => Ok(()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Input(line) | StoreError::NotFound(line) | StoreError::Exists(line) => {
                Self::Data(line)
            }
            StoreError::Authority(_) => Self::Data(error.to_string()),
            StoreError::Database { .. } | StoreError::Unavailable { .. } => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Configuration(error.to_string()),
        }
    }
}

/// sysexits.h EX_USAGE.
pub(crate) const USAGE: u8 = 64;
/// sysexits.h EX_DATAERR.
pub(crate) const DATA: u8 = 65;
/// sysexits.h EX_UNAVAILABLE.
pub(crate) const UNAVAILABLE: u8 = 69;
/// sysexits.h EX_TEMPFAIL.
pub(crate) const TEMPORARY: u8 = 75;
/// sysexits.h EX_CONFIG.
pub(crate) const CONFIGURATION: u8 = 78;
