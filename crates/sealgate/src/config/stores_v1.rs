//! Where keys are, as version 1 of the configuration file writes it: `[secret_keys]`, `[public_keys]` and a table for
//! every store outside this process.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealgate_core::address::Domain;
use sealgate_core::hex;
use sealgate_keys::kmip;
use sealgate_keys::kmip::client::{CONNECTIONS_MAX, KmipServer};
use sealgate_keys::owner::Owner;
use sealgate_keys::public_key_store::PublicKeyStoreKind;
use sealgate_keys::public_key_store::directory_server::{LdapBind, LdapConfig};
use sealgate_keys::secret_key_store::SecretKeyStoreKind;
use sealgate_keys::secret_key_store::key_management_server::{KmipConfig, KmipGet, KmipTls};
use sealgate_keys::secret_key_store::pkcs11::{Pkcs11Config, Pkcs11Key};
use sealgate_keys::secret_source::SecretSource;

use super::file_v1::{FromText, Parsed, is_file_name};
use super::limits::SECONDS_MAX;
use super::server::split_port;

/// `[secret_keys]`.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SecretKeysTable {
    store: SecretKeyStoreName,
    kmip: Option<KmipTable>,
    pkcs11: Option<Pkcs11Table>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SecretKeyStoreName {
    #[default]
    Embedded,
    Kmip,
    Pkcs11,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KmipTable {
    servers: Vec<Parsed<KmipServer>>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    key_name: Option<Parsed<NameTemplate>>,
    certificate_name: Option<Parsed<NameTemplate>>,
    #[serde(default)]
    get: GetName,
    #[serde(default = "timeout_secs")]
    timeout_secs: u64,
    #[serde(default = "connections")]
    connections: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum GetName {
    #[default]
    IfNeeded,
    Never,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pkcs11Table {
    module: PathBuf,
    token: String,
    pin_file: Option<PathBuf>,
    pin_credential: Option<String>,
    label: Option<Parsed<NameTemplate>>,
    #[serde(default)]
    key: Vec<Pkcs11KeyTable>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pkcs11KeyTable {
    address: Parsed<Owner>,
    label: Option<String>,
    id: Option<Parsed<Hexadecimal>>,
    certificate: Option<PathBuf>,
}

/// `[public_keys]`.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PublicKeysTable {
    stores: Vec<PublicKeyStoreName>,
    ldap: Option<LdapTable>,
}

impl Default for PublicKeysTable {
    fn default() -> Self {
        Self { stores: vec![PublicKeyStoreName::Embedded], ldap: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PublicKeyStoreName {
    Embedded,
    Ldap,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LdapTable {
    servers: Vec<String>,
    #[serde(default)]
    starttls: bool,
    ca: Option<PathBuf>,
    bind_dn: Option<String>,
    password_file: Option<PathBuf>,
    password_credential: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    base: String,
    filter: Option<Parsed<NameTemplate>>,
    #[serde(default = "entries_max")]
    entries_max: usize,
    #[serde(default = "timeout_secs")]
    timeout_secs: u64,
}

/// A key and what is wrong with it.
type Contradiction = Option<(&'static str, &'static str, &'static str)>;

impl SecretKeysTable {
    /// What no single value can tell: table, key, and what to do.
    pub(super) fn contradiction(&self) -> Contradiction {
        match (self.store, &self.kmip, &self.pkcs11) {
            (SecretKeyStoreName::Kmip, None, _) => {
                let message = "say where the key management server is: add [secret_keys.kmip]";
                return Some(("secret_keys", "store", message));
            }
            (SecretKeyStoreName::Pkcs11, _, None) => {
                let message = "say which token: add [secret_keys.pkcs11]";
                return Some(("secret_keys", "store", message));
            }
            _ => {}
        }
        let kmip = self.kmip.as_ref().and_then(KmipTable::contradiction);
        kmip.or_else(|| self.pkcs11.as_ref().and_then(Pkcs11Table::contradiction))
    }

    pub(super) fn kind(&self) -> SecretKeyStoreKind {
        match self.store {
            SecretKeyStoreName::Embedded => SecretKeyStoreKind::Embedded,
            SecretKeyStoreName::Kmip => SecretKeyStoreKind::Kmip,
            SecretKeyStoreName::Pkcs11 => SecretKeyStoreKind::Pkcs11,
        }
    }

    /// The two stores that are described, whichever is in use: `secret-key move` fills one before it is.
    pub(super) fn into_stores(
        self,
        directory: &Path,
    ) -> (Option<KmipConfig>, Option<Pkcs11Config>) {
        let kmip = self.kmip.map(|table| table.into_config(directory));
        let pkcs11 = self.pkcs11.map(|table| table.into_config(directory));
        (kmip, pkcs11)
    }
}

impl KmipTable {
    fn contradiction(&self) -> Contradiction {
        const TABLE: &str = "secret_keys.kmip";
        let over_tls = self.servers.iter().any(|server| matches!(server.0, KmipServer::Tls { .. }));
        let files = [&self.ca, &self.certificate, &self.key];
        if self.servers.is_empty() {
            Some((TABLE, "servers", "`servers` is empty: write [\"HOST:5696\"] or [\"unix:FILE\"]"))
        } else if over_tls && files.iter().any(|file| file.is_none()) {
            let message = "servers over TLS need all of `ca`, `certificate` and `key`";
            Some((TABLE, "servers", message))
        } else if !(1..=SECONDS_MAX).contains(&self.timeout_secs) {
            Some((TABLE, "timeout_secs", "`timeout_secs` is not from 1 to 86400"))
        } else if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            Some((TABLE, "connections", "`connections` is a number from 1 to 24"))
        } else {
            None
        }
    }

    fn into_config(self, directory: &Path) -> KmipConfig {
        let name = |given: Option<Parsed<NameTemplate>>, usual: &str| {
            given.map_or_else(|| usual.to_owned(), |name| name.0.0)
        };
        let within = |server| match server {
            KmipServer::Unix(path) => KmipServer::Unix(directory.join(path)),
            tls @ KmipServer::Tls { .. } => tls,
        };
        let tls = match (self.ca, self.certificate, self.key) {
            (Some(ca), Some(certificate), Some(key)) => Some(KmipTls {
                ca: directory.join(ca),
                certificate: directory.join(certificate),
                key: directory.join(key),
            }),
            _ => None,
        };
        KmipConfig {
            servers: self.servers.into_iter().map(|server| within(server.0)).collect(),
            tls,
            key_name: name(self.key_name, kmip::KEY_NAME),
            certificate_name: name(self.certificate_name, kmip::CERTIFICATE_NAME),
            get: match self.get {
                GetName::IfNeeded => KmipGet::IfNeeded,
                GetName::Never => KmipGet::Never,
            },
            timeout: Duration::from_secs(self.timeout_secs),
            connections: self.connections,
        }
    }
}

impl Pkcs11Table {
    fn contradiction(&self) -> Contradiction {
        const TABLE: &str = "secret_keys.pkcs11";
        if let Some(found) = secret_contradiction(&self.pin_file, &self.pin_credential) {
            return Some((TABLE, "pin_file", found));
        }
        if self.pin_file.is_none() && self.pin_credential.is_none() {
            return Some((TABLE, "module", "say where the PIN is: `pin_file` or `pin_credential`"));
        }
        let unnamed = |key: &Pkcs11KeyTable| key.label.is_none() && key.id.is_none();
        if self.key.iter().any(unnamed) {
            let message = "every [[secret_keys.pkcs11.key]] has a `label` or an `id`";
            return Some((TABLE, "module", message));
        }
        None
    }

    fn into_config(self, directory: &Path) -> Pkcs11Config {
        let key = |key: Pkcs11KeyTable| Pkcs11Key {
            owner: key.address.0.lookup_key(),
            label: key.label,
            id: key.id.map(|id| id.0.0),
            certificate: key.certificate.map(|file| directory.join(file)),
        };
        let pin = secret_source(self.pin_file, self.pin_credential, directory);
        Pkcs11Config {
            module: directory.join(self.module),
            token: self.token,
            pin: pin.unwrap_or_else(|| SecretSource::File(directory.join("pin"))),
            label: self.label.map_or_else(|| ADDRESS.to_owned(), |label| label.0.0),
            keys: self.key.into_iter().map(key).collect(),
        }
    }
}

impl PublicKeysTable {
    /// What no single value can tell: table, key, and what to do.
    pub(super) fn contradiction(&self) -> Contradiction {
        if self.stores.is_empty() {
            let message = "`stores` is empty: write stores = [\"embedded\"]";
            return Some(("public_keys", "stores", message));
        }
        if self.stores.contains(&PublicKeyStoreName::Ldap) && self.ldap.is_none() {
            let message = "say where the directory server is: add [public_keys.ldap]";
            return Some(("public_keys", "stores", message));
        }
        self.ldap.as_ref().and_then(LdapTable::contradiction)
    }

    pub(super) fn kinds(&self) -> Vec<PublicKeyStoreKind> {
        let kind = |name: &PublicKeyStoreName| match name {
            PublicKeyStoreName::Embedded => PublicKeyStoreKind::Embedded,
            PublicKeyStoreName::Ldap => PublicKeyStoreKind::Ldap,
        };
        self.stores.iter().map(kind).collect()
    }

    pub(super) fn into_ldap(self, directory: &Path) -> Option<LdapConfig> {
        self.ldap.map(|table| table.into_config(directory))
    }
}

impl LdapTable {
    fn contradiction(&self) -> Contradiction {
        const TABLE: &str = "public_keys.ldap";
        let has_password = self.password_file.is_some() || self.password_credential.is_some();
        if self.servers.is_empty() {
            Some((TABLE, "servers", "`servers` is empty: write [\"ldaps://HOST\"]"))
        } else if let Some(found) =
            secret_contradiction(&self.password_file, &self.password_credential)
        {
            Some((TABLE, "password_file", found))
        } else if self.bind_dn.is_some() != has_password {
            let message = "`bind_dn` and `password_file` or `password_credential` go together";
            Some((TABLE, "bind_dn", message))
        } else if self.certificate.is_some() != self.key.is_some() {
            Some((TABLE, "certificate", "`certificate` and `key` go together"))
        } else if self.certificate.is_some() && self.bind_dn.is_some() {
            Some((TABLE, "bind_dn", "`bind_dn` and `certificate` exclude each other: keep one"))
        } else if !(1..=SECONDS_MAX).contains(&self.timeout_secs) {
            Some((TABLE, "timeout_secs", "`timeout_secs` is not from 1 to 86400"))
        } else if self.entries_max == 0 {
            Some((TABLE, "entries_max", "`entries_max` is 0, which lets nothing through"))
        } else {
            None
        }
    }

    fn into_config(self, directory: &Path) -> LdapConfig {
        let password = secret_source(self.password_file, self.password_credential, directory);
        let bind = match (self.bind_dn, password, self.certificate, self.key) {
            (Some(name), Some(password), ..) => LdapBind::Simple { name, password },
            (_, _, Some(certificate), Some(key)) => LdapBind::Certificate {
                certificate: directory.join(certificate),
                key: directory.join(key),
            },
            _ => LdapBind::Anonymous,
        };
        LdapConfig {
            servers: self.servers,
            starttls: self.starttls,
            ca: self.ca.map(|file| directory.join(file)),
            bind,
            base: self.base,
            filter: self.filter.map_or_else(|| FILTER.to_owned(), |filter| filter.0.0),
            entries_max: self.entries_max,
            timeout: Duration::from_secs(self.timeout_secs),
        }
    }
}

fn secret_contradiction(
    file: &Option<PathBuf>,
    credential: &Option<String>,
) -> Option<&'static str> {
    if file.is_some() && credential.is_some() {
        Some("a file and a credential exclude each other: keep one")
    } else if credential.as_deref().is_some_and(|name| !is_file_name(name)) {
        Some("a credential is a name without slashes")
    } else {
        None
    }
}

pub(super) fn secret_source(
    file: Option<PathBuf>,
    credential: Option<String>,
    directory: &Path,
) -> Option<SecretSource> {
    match (credential, file) {
        (Some(name), _) => Some(SecretSource::Credential(name)),
        (None, file) => file.map(|file| SecretSource::File(directory.join(file))),
    }
}

/// A name in which `{address}` stands for the owner.
struct NameTemplate(String);

impl FromText for NameTemplate {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.contains(ADDRESS) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{text}`: write {ADDRESS} where the address belongs"))
    }
}

impl FromText for Owner {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl FromText for KmipServer {
    fn from_text(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no server: write HOST:PORT or unix:FILE");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(PathBuf::from(path))) };
        }
        let (host, port) = split_port(text).ok_or_else(bad)?;
        let port = port.map(|digits| digits.parse().map_err(|_| bad())).transpose()?;
        if host.parse::<IpAddr>().is_err() && Domain::parse(host).is_err() {
            return Err(bad());
        }
        Ok(Self::Tls { host: host.to_owned(), port: port.unwrap_or(kmip::PORT) })
    }
}

/// Octets as digits; colons between them are allowed.
struct Hexadecimal(Vec<u8>);

impl FromText for Hexadecimal {
    fn from_text(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not hexadecimal");
        let octets = hex::read(&text.replace(':', "")).filter(|octets| !octets.is_empty());
        octets.map(Self).ok_or_else(bad)
    }
}

fn timeout_secs() -> u64 {
    5
}

fn connections() -> usize {
    CONNECTIONS_MAX
}

fn entries_max() -> usize {
    16
}

const ADDRESS: &str = "{address}";
const FILTER: &str = "(mail={address})";
