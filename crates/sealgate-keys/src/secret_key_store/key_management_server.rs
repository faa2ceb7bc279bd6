//! A key management server (KMIP) as a secret key store.

use std::path::PathBuf;
use std::time::Duration;

/// Which servers, and how keys are found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmipConfig {
    /// Asked in order; the first that can be reached answers.
    pub servers: Vec<KmipServer>,
    /// Whom a TLS server's certificate must chain to, and who we are to it; not needed for unix sockets.
    pub tls: Option<KmipTls>,
    /// Name of an owner's private keys; `{address}` stands for the owner.
    pub key_name: String,
    /// Name of an owner's certificates, those of the issuers among them.
    pub certificate_name: String,
    /// Whether a key may be fetched that the server cannot use itself.
    pub get: KmipGet,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KmipServer {
    /// TLS.
    Tls {
        /// Name or address, an IPv6 address without brackets.
        host: String,
        /// TCP port, 5696 as a rule.
        port: u16,
    },
    /// A unix socket of `sealgate key-server` on this host.
    Unix(PathBuf),
}

/// PEM files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmipTls {
    /// Authorities of the server's certificate.
    pub ca: PathBuf,
    /// Our certificate and chain.
    pub certificate: PathBuf,
    /// Its secret key.
    pub key: PathBuf,
}

/// Whether a secret key may leave the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KmipGet {
    /// Where the server cannot sign or decrypt itself.
    IfNeeded,
    /// Never: such keys are an error.
    Never,
}
