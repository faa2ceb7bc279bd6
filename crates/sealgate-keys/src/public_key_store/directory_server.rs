//! A directory server (LDAP, RFC 4511) as a public key store.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret_source::SecretSource;

/// Which servers, and how certificates are found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapConfig {
    /// `ldaps://HOST[:PORT]` or `ldap://HOST[:PORT]`, asked in order; the first that can be reached answers.
    pub servers: Vec<String>,
    /// Begin TLS on `ldap://` (RFC 4511 §4.14). Without it `ldap://` is for loopback only.
    pub starttls: bool,
    /// Authorities of the server's certificate, PEM; those of the system where none is given.
    pub ca: Option<PathBuf>,
    /// Who we are.
    pub bind: LdapBind,
    /// Where the search starts.
    pub base: String,
    /// RFC 4515; `{address}` stands for the escaped address.
    pub filter: String,
    /// Entries of one answer; more is an error.
    pub entries_max: usize,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// Who we are to a directory server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LdapBind {
    /// Nobody.
    Anonymous,
    /// The subject of our TLS client certificate (SASL EXTERNAL, RFC 4422 appendix A).
    Certificate {
        /// PEM: certificate and chain.
        certificate: PathBuf,
        /// PEM: its secret key.
        key: PathBuf,
    },
    /// A name and a password.
    Simple {
        /// Distinguished name.
        name: String,
        /// The password.
        password: SecretSource,
    },
}
