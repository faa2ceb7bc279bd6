//! What is wrong with a configuration, in one line.

use std::fmt;
use std::path::PathBuf;

use super::place::USUAL_PLACES;

/// A configuration that cannot be used.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// It parses, and contradicts itself.
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong and what to do.
        message: String,
    },
    /// There is none that is taken without being named.
    NotFound {
        /// Why one that is there is not.
        passed_over: Option<String>,
    },
    /// It cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { path, line, message } => {
                write!(f, "{}:{line}: {message}", path.display())
            }
            Self::NotFound { passed_over: Some(why) } => write!(f, "no configuration: {why}"),
            Self::NotFound { passed_over: None } => write!(
                f,
                "no configuration: neither {} exists; make one with `sealgate init --domain \
                 DOMAIN` or name one with --config FILE",
                USUAL_PLACES.join(" nor ")
            ),
            Self::Unreadable { path, error } => {
                write!(f, "{}: {error}; name another with --config FILE", path.display())
            }
        }
    }
}

impl std::error::Error for ConfigError {}
