//! The configuration as the program uses it: validated, with every default filled in and every path absolute.
//!
//! In: a TOML file of version 1 ([`file_v1`]). Out: a [`Config`], or one [`ConfigError`] with file and line. It reads
//! the file and nothing else: whether what it names exists is for the stores, the relay and `check` to find out.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealgate_core::address::Domain;
use sealgate_core::policy::Policy;
use sealgate_keys::stores::StoresConfig;

mod error;
mod file_v1;
mod key_server;
mod limits;
mod network;
pub(crate) mod place;
mod server;
mod stores_v1;

pub(crate) use error::ConfigError;
pub(crate) use key_server::{Identity, KeyOperation, KeyServerConfig, RelayEntry};
pub(crate) use limits::{Limits, MEMORY_FACTOR};
pub(crate) use network::Network;
pub(crate) use server::{NextHop, Server};

/// Everything that an administrator decides.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file it came from.
    pub(crate) path: PathBuf,
    /// Ours, at least one.
    pub(crate) domains: Vec<Domain>,
    /// EHLO name and authserv-id.
    pub(crate) hostname: String,
    /// Between us and the mail server.
    pub(crate) inside: Inside,
    /// Between us and the Internet.
    pub(crate) outside: Outside,
    /// STARTTLS is offered where this is given.
    pub(crate) tls: Option<TlsFiles>,
    /// Database, master key, CRLs.
    pub(crate) stores: StoresConfig,
    /// Who must be signed for and encrypted to.
    pub(crate) policy: Arc<Policy>,
    /// When it is written down who has a message already.
    pub(crate) done_record: DoneRecord,
    /// How names are looked up.
    pub(crate) dns: Dns,
    /// Metrics, health and logs.
    pub(crate) observe: Observe,
    /// What our domains sign with, where they do.
    pub(crate) dkim: Option<Dkim>,
    /// Our own key management server, where it is described.
    pub(crate) key_server: Option<KeyServerConfig>,
    /// REQUIREMENTS K.
    pub(crate) limits: Limits,
}

impl Config {
    /// Reads and validates a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and what to do.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        Self::read(&text, path)
    }

    /// Reads and validates the text of a configuration file.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with file, line and what to do.
    pub(crate) fn read(text: &str, path: &Path) -> Result<Self, ConfigError> {
        file_v1::parse(text, path, &absolute_directory(path))
    }
}

/// Between us and the mail server.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    /// Where plain mail is taken by LMTP.
    pub(crate) lmtp: Option<SocketAddr>,
    /// Where plain mail is taken by SMTP.
    pub(crate) smtp: Option<SocketAddr>,
    /// Who may hand us plain mail.
    pub(crate) allow: Vec<Network>,
    /// Authorities, as a PEM file, of the clients who may: they show a certificate in TLS. `None`: TLS and certificates are not asked
    /// for.
    pub(crate) client_ca: Option<PathBuf>,
    /// Where opened mail goes.
    pub(crate) mail_server: Server,
    /// How the mail server learns who the Internet client was.
    pub(crate) client_address: ClientAddress,
    /// Whether the mail server is asked at RCPT.
    pub(crate) check_recipients: bool,
    /// Pause between LMTP replies, for clients that mishandle replies that arrive together.
    pub(crate) reply_pause: Duration,
}

/// How the mail server learns who the Internet client was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientAddress {
    /// It does not.
    None,
    /// HAProxy's PROXY header, version 2.
    Proxy,
    /// Postfix's XCLIENT.
    Xclient,
}

/// When it is written down who has a message already, so that a second attempt skips them (REQUIREMENTS O10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DoneRecord {
    /// Where some recipients have it and some do not, or the client did not hear the reply.
    #[default]
    Partial,
    /// Before every reply, so that a crash makes no duplicates either.
    Always,
}

/// Between us and the Internet.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    /// Where sealed mail is taken.
    pub(crate) smtp: Option<SocketAddr>,
    /// Where sealed mail goes.
    pub(crate) next_hop: NextHop,
    /// Whether SPF, DKIM, DMARC and ARC are looked at.
    pub(crate) authenticate: bool,
    /// What a failed DMARC leads to.
    pub(crate) dmarc: Dmarc,
    /// PEM file of the authorities of the Internet's servers, where they are not the system's.
    pub(crate) ca: Option<PathBuf>,
}

/// What follows where DMARC fails and the author's domain asks for refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dmarc {
    /// It stands in Authentication-Results.
    Report,
    /// The mail is refused.
    Refuse,
}

/// What our domains sign with: DKIM on what leaves, ARC on what comes in and is opened.
#[derive(Clone, Debug)]
pub(crate) struct Dkim {
    /// The public key stands in DNS at SELECTOR._domainkey.DOMAIN.
    pub(crate) selector: String,
    /// PEM file of the secret key, RSA or Ed25519.
    pub(crate) key: PathBuf,
    /// For which domains.
    pub(crate) domains: Vec<Domain>,
}

/// PEM files of the TLS server.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    /// Certificate and chain.
    pub(crate) certificate: PathBuf,
    /// Its secret key.
    pub(crate) key: PathBuf,
}

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dns {
    /// Whom to ask.
    pub(crate) resolvers: Resolvers,
    /// Whether answers about the Internet's mail servers are validated (RFC 4035 §5).
    pub(crate) dnssec: bool,
    /// File with the DNSKEY records of a root other than the real one.
    pub(crate) trust_anchor: Option<PathBuf>,
}

/// Whom to ask for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolvers {
    /// What /etc/resolv.conf says.
    System,
    /// These, over UDP and TCP.
    Servers(Vec<SocketAddr>),
}

/// Metrics, health and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observe {
    /// Where /metrics, /livez and /readyz are served.
    pub(crate) listen: Option<SocketAddr>,
    /// How log lines look.
    pub(crate) log: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The absolute directory that a file is in; relative paths in a configuration start there.
fn absolute_directory(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

#[cfg(test)]
mod tests;
