//! `[key_server]`: where our own key management server listens, and who may use which keys for what.
//!
//! In: the table of the file. Out: a [`KeyServerConfig`] that contradicts itself nowhere. What one table can tell by itself is
//! checked while it is read, so that an error carries the table's line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sealgate_core::policy::Pattern;

use super::TlsFiles;
use super::file_v1::{Parsed, PatternText};

/// Our own key management server.
#[derive(Clone, Debug)]
pub(crate) struct KeyServerConfig {
    /// KMIP over TLS.
    pub(crate) tls: Option<KeyServerTls>,
    /// KMIP over a unix socket.
    pub(crate) socket: Option<PathBuf>,
    /// Whether keys may be handed out at all.
    pub(crate) get: bool,
    /// Uses of one key by one relay.
    pub(crate) uses_per_minute: u32,
    /// The same of a domain's key, which serves everybody there.
    pub(crate) domain_uses_per_minute: u32,
    /// The audit trail, besides the log.
    pub(crate) audit: Option<PathBuf>,
    /// Who may use which keys for what.
    pub(crate) relays: Vec<RelayEntry>,
}

/// KMIP over TLS.
#[derive(Clone, Debug)]
pub(crate) struct KeyServerTls {
    /// Where.
    pub(crate) listen: SocketAddr,
    /// Certificate and key.
    pub(crate) files: TlsFiles,
    /// Authorities of the clients' certificates.
    pub(crate) client_ca: PathBuf,
}

/// One `[[key_server.relay]]`.
#[derive(Clone, Debug)]
pub(crate) struct RelayEntry {
    /// How it is known.
    pub(crate) identity: Identity,
    /// Whose keys it may use.
    pub(crate) keys: Vec<Pattern>,
    /// What it may do with them.
    pub(crate) operations: Vec<KeyOperation>,
    /// Whether each use of a key must say for which address it is.
    pub(crate) require_address: bool,
}

/// How a client is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Common name or DNS name of its certificate, in lower case.
    Name(String),
    /// The user id at the other end of the unix socket.
    Uid(u32),
}

/// What a client may do with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyOperation {
    /// Decrypt with them.
    Decrypt,
    /// Remove them.
    Destroy,
    /// Take them out.
    Get,
    /// Bring new ones.
    Register,
    /// Sign with them.
    Sign,
}

/// The table as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    listen: Option<SocketAddr>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    socket: Option<PathBuf>,
    #[serde(default)]
    get: bool,
    #[serde(default = "uses_per_minute")]
    uses_per_minute: u32,
    domain_uses_per_minute: Option<u32>,
    audit: Option<PathBuf>,
    #[serde(default, rename = "relay")]
    relays: Vec<CheckedRelay>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RelayTable {
    identity: Option<String>,
    uid: Option<u32>,
    keys: Vec<Parsed<PatternText>>,
    operations: Vec<KeyOperation>,
    /// Clients that are not sealgate do not say it: only for those it is turned off.
    #[serde(default = "require_address")]
    require_address: bool,
}

#[derive(serde::Deserialize)]
#[serde(try_from = "RelayTable")]
struct CheckedRelay(RelayEntry);

/// The table, checked; paths as they are written.
#[derive(serde::Deserialize)]
#[serde(try_from = "Table")]
pub(super) struct KeyServerTable(KeyServerConfig);

impl TryFrom<RelayTable> for CheckedRelay {
    type Error = &'static str;

    fn try_from(table: RelayTable) -> Result<Self, Self::Error> {
        let identity = match (table.identity, table.uid) {
            (Some(name), None) if !name.is_empty() => Identity::Name(name.to_ascii_lowercase()),
            (None, Some(uid)) => Identity::Uid(uid),
            _ => return Err("a relay of [key_server] has either an `identity` or a `uid`"),
        };
        if table.keys.is_empty() {
            return Err("`keys` is empty: write keys = [\"*@your.domain\"]");
        }
        if table.operations.is_empty() {
            return Err("`operations` is empty: write operations = [\"sign\", \"decrypt\"]");
        }
        let RelayTable { keys, operations, require_address, .. } = table;
        let keys = keys.into_iter().map(|pattern| pattern.0.0).collect();
        Ok(Self(RelayEntry { identity, keys, operations, require_address }))
    }
}

impl TryFrom<Table> for KeyServerTable {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let tls = match (table.listen, table.certificate, table.key, table.client_ca) {
            (Some(listen), Some(certificate), Some(key), Some(client_ca)) => {
                Some(KeyServerTls { listen, files: TlsFiles { certificate, key }, client_ca })
            }
            (Some(_), ..) => {
                return Err(
                    "[key_server] listen needs all of `certificate`, `key` and `client_ca`",
                );
            }
            (None, None, None, None) => None,
            (None, ..) => return Err("[key_server] has TLS files and no `listen`"),
        };
        if tls.is_none() && table.socket.is_none() {
            return Err("[key_server] needs `listen`, or `socket`, or both");
        }
        let of_domains = table
            .domain_uses_per_minute
            .unwrap_or_else(|| table.uses_per_minute.saturating_mul(MAILBOXES_AT_ONCE));
        if table.uses_per_minute == 0 || of_domains == 0 {
            return Err("[key_server] uses_per_minute is 0, which lets nothing through");
        }
        let relays: Vec<RelayEntry> = table.relays.into_iter().map(|relay| relay.0).collect();
        if relays.is_empty() {
            return Err("nobody may use the key server: add [[key_server.relay]]");
        }
        for (index, relay) in relays.iter().enumerate() {
            let (listens, text) = match relay.identity {
                Identity::Name(_) => (tls.is_some(), "a relay has an `identity`: add `listen`"),
                Identity::Uid(_) => (table.socket.is_some(), "a relay has a `uid`: add `socket`"),
            };
            if !listens {
                return Err(text);
            }
            if relays.iter().skip(index.saturating_add(1)).any(|b| b.identity == relay.identity) {
                return Err("two relays of [key_server] have the same `identity` or `uid`");
            }
        }
        Ok(Self(KeyServerConfig {
            tls,
            socket: table.socket,
            get: table.get,
            uses_per_minute: table.uses_per_minute,
            domain_uses_per_minute: of_domains,
            audit: table.audit,
            relays,
        }))
    }
}

impl KeyServerTable {
    /// With every relative path starting at `directory`.
    pub(super) fn into_config(self, directory: &Path) -> KeyServerConfig {
        let Self(config) = self;
        let tls = config.tls.map(|tls| KeyServerTls {
            listen: tls.listen,
            files: TlsFiles {
                certificate: directory.join(tls.files.certificate),
                key: directory.join(tls.files.key),
            },
            client_ca: directory.join(tls.client_ca),
        });
        KeyServerConfig {
            tls,
            socket: config.socket.map(|path| directory.join(path)),
            audit: config.audit.map(|path| directory.join(path)),
            ..config
        }
    }
}

/// Every sealgate relay says it.
fn require_address() -> bool {
    true
}

/// Ten a second, far above what one mailbox sends.
fn uses_per_minute() -> u32 {
    600
}

/// A domain's key may be used as often as those of so many mailboxes.
const MAILBOXES_AT_ONCE: u32 = 10;

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError, file_v1};
    use super::*;

    const HEAD: &str = "version = 1\ndomains = [\"nec.example\"]\n";
    const RELAY: &str = "[[key_server.relay]]\nuid = 991\nkeys = [\"*@nec.example\"]\n\
                         operations = [\"sign\", \"decrypt\"]\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        file_v1::parse(text, Path::new("sealgate.toml"), Path::new("/etc/sealgate"))
    }

    #[test]
    fn a_key_server_is_read() {
        let text =
            format!("{HEAD}[key_server]\nsocket = \"keys.sock\"\naudit = \"audit.log\"\n{RELAY}");
        let server = parse(&text).unwrap().key_server.unwrap();
        assert_eq!(server.socket.as_deref(), Some(Path::new("/etc/sealgate/keys.sock")));
        assert_eq!(server.audit.as_deref(), Some(Path::new("/etc/sealgate/audit.log")));
        assert_eq!((server.get, server.uses_per_minute), (false, 600));
        assert_eq!(server.domain_uses_per_minute, 6000);
        let own = text.replace("audit =", "domain_uses_per_minute = 70\naudit =");
        assert_eq!(parse(&own).unwrap().key_server.unwrap().domain_uses_per_minute, 70);
        let [relay] = server.relays.as_slice() else { panic!("{server:?}") };
        assert_eq!(relay.identity, Identity::Uid(991));
        assert_eq!(relay.operations, [KeyOperation::Sign, KeyOperation::Decrypt]);
        assert!(relay.require_address);
        assert!(parse(HEAD).unwrap().key_server.is_none());
        let lax = parse(&format!("{text}require_address = false\n")).unwrap().key_server.unwrap();
        assert!(!lax.relays[0].require_address);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        let tls = "listen = \"127.0.0.1:0\"\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n";
        let socket = "socket = \"s\"\n";
        let named = RELAY.replace("uid = 991", "identity = \"Gate1\"");
        for (text, line, said) in [
            (format!("get = true\n{RELAY}"), 3, "`listen`, or `socket`"),
            (format!("listen = \"127.0.0.1:0\"\n{RELAY}"), 3, "`client_ca`"),
            (format!("{socket}key = \"k\"\n{RELAY}"), 3, "no `listen`"),
            (socket.to_owned(), 3, "[[key_server.relay]]"),
            (format!("{socket}uses_per_minute = 0\n{RELAY}"), 3, "uses_per_minute"),
            (format!("{socket}domain_uses_per_minute = 0\n{RELAY}"), 3, "uses_per_minute"),
            (format!("{socket}{named}"), 3, "add `listen`"),
            (format!("{tls}{RELAY}"), 3, "add `socket`"),
            (format!("{socket}{RELAY}{RELAY}"), 3, "same"),
            (format!("{socket}{}", RELAY.replace("uid = 991\n", "")), 5, "either"),
            (
                format!("{socket}{}", RELAY.replace("uid = 991", "uid = 991\nidentity = \"a\"")),
                5,
                "either",
            ),
            (format!("{socket}{}", RELAY.replace("\"*@nec.example\"", "")), 5, "`keys`"),
            (format!("{socket}{}", RELAY.replace("*@nec.example", "@")), 7, "no address pattern"),
            (format!("{socket}{}", RELAY.replace("\"sign\", \"decrypt\"", "")), 5, "`operations`"),
            (format!("{socket}{}", RELAY.replace("\"sign\"", "\"stamp\"")), 8, "stamp"),
        ] {
            match parse(&format!("{HEAD}[key_server]\n{text}")) {
                Err(ConfigError::Invalid { line: at, message, .. }) => {
                    assert!(message.contains(said), "{text}: {message}");
                    assert_eq!(at, line, "{text}: {message}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(parse(&format!("{HEAD}[key_server]\n{tls}{named}")).is_ok());
    }
}
