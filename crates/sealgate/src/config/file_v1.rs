//! The configuration file, version 1, as it is written: TOML tables with defaults, turned into a [`Config`].
//!
//! Every value is parsed into its type while the file is read, so that an error carries the value's line. Unknown keys
//! are refused. What no single value can tell (a listener without a need, a key without its certificate) is checked
//! in [`parse`] afterwards.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sealgate_core::address::Domain;
use sealgate_core::policy::{
    Content, Decision, Encrypt, Falsified, LinkTls, Order, Overrides, Pattern, Policy, RsaPkcs1,
    Rule, Sign, SignerMismatch, UnauthenticatedEncryption,
};
use sealgate_keys::database::DatabaseUrl;
use sealgate_keys::secret_source::SecretSource;
use sealgate_keys::stores::StoresConfig;
use serde::de::{Deserialize, Deserializer, Error};

use super::key_server::KeyServerTable;
use super::stores_v1::{PublicKeysTable, SecretKeysTable, secret_source};
use super::{
    ClientAddress, Config, ConfigError, Dkim, Dmarc, Dns, DoneRecord, Inside, Limits, LogFormat,
    Network, NextHop, Observe, Outside, Resolvers, Server, TlsFiles,
};

/// Reads a file's text; relative paths in it start at `directory`.
pub(super) fn parse(text: &str, path: &Path, directory: &Path) -> Result<Config, ConfigError> {
    let invalid = |line: usize, message: String| ConfigError::Invalid {
        path: path.to_owned(),
        line,
        message,
    };
    let version = toml::from_str::<VersionOnly>(text);
    let version = version.map_err(|error| invalid(line_of(text, &error), one_line(&error)))?;
    if version.version != Some(VERSION) {
        let line = line_of_key(text, "", "version");
        return Err(invalid(
            line,
            format!("write `version = {VERSION}`: this sealgate reads no other"),
        ));
    }
    let file: File =
        toml::from_str(text).map_err(|error| invalid(line_of(text, &error), one_line(&error)))?;
    if let Some((table, key, message)) = file.contradiction() {
        return Err(invalid(line_of_key(text, table, key), message));
    }
    Ok(file.into_config(path, directory))
}

/// Read first, so that a file of another version is called that and not full of unknown keys.
#[derive(serde::Deserialize)]
struct VersionOnly {
    version: Option<u32>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: u32,
    domains: Vec<Parsed<Domain>>,
    hostname: Option<Parsed<Domain>>,
    #[serde(default)]
    inside: InsideTable,
    #[serde(default)]
    outside: OutsideTable,
    tls: Option<TlsTable>,
    dkim: Option<DkimTable>,
    #[serde(default)]
    database: DatabaseTable,
    #[serde(default)]
    master_key: MasterKeyTable,
    #[serde(default)]
    secret_keys: SecretKeysTable,
    #[serde(default)]
    public_keys: PublicKeysTable,
    key_server: Option<KeyServerTable>,
    #[serde(default)]
    trust: TrustTable,
    #[serde(default)]
    policy: DecisionTable,
    #[serde(default)]
    rule: Vec<RuleTable>,
    #[serde(default)]
    delivery: DeliveryTable,
    #[serde(default)]
    dns: DnsTable,
    #[serde(default)]
    observe: ObserveTable,
    #[serde(default)]
    limits: Limits,
}

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct InsideTable {
    lmtp: Option<SocketAddr>,
    smtp: Option<SocketAddr>,
    allow: Vec<Parsed<Network>>,
    client_ca: Option<PathBuf>,
    mail_server: Option<Parsed<Server>>,
    client_address: ClientAddress,
    check_recipients: bool,
    reply_pause_ms: u64,
}

impl Default for InsideTable {
    fn default() -> Self {
        let allow = LOOPBACK.iter().filter_map(|text| text.parse().ok()).map(Parsed).collect();
        Self {
            lmtp: None,
            smtp: None,
            allow,
            client_ca: None,
            mail_server: None,
            client_address: ClientAddress::None,
            check_recipients: true,
            reply_pause_ms: 0,
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OutsideTable {
    smtp: Option<SocketAddr>,
    next_hop: Option<Parsed<NextHop>>,
    authenticate: bool,
    dmarc: Dmarc,
    ca: Option<PathBuf>,
}

impl Default for OutsideTable {
    fn default() -> Self {
        Self { smtp: None, next_hop: None, authenticate: true, dmarc: Dmarc::Report, ca: None }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct DkimTable {
    selector: String,
    key: PathBuf,
    domains: Option<Vec<Parsed<Domain>>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DatabaseTable {
    url: Option<Parsed<DatabaseUrl>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MasterKeyTable {
    file: Option<PathBuf>,
    credential: Option<String>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TrustTable {
    crls: Vec<PathBuf>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DecisionTable {
    sign: Option<Sign>,
    encrypt: Option<Encrypt>,
    order: Option<Order>,
    content: Option<Content>,
    tls: Option<LinkTls>,
    falsified: Option<Falsified>,
    unauthenticated_encryption: Option<UnauthenticatedEncryption>,
    signer_mismatch: Option<SignerMismatch>,
    rsa_pkcs1: Option<RsaPkcs1>,
    expect_signed: Option<bool>,
}

impl DecisionTable {
    fn overrides(&self) -> Overrides {
        Overrides {
            sign: self.sign,
            encrypt: self.encrypt,
            order: self.order,
            content: self.content,
            tls: self.tls,
            falsified: self.falsified,
            unauthenticated_encryption: self.unauthenticated_encryption,
            signer_mismatch: self.signer_mismatch,
            rsa_pkcs1: self.rsa_pkcs1,
            expect_signed: self.expect_signed,
        }
    }
}

/// One `[[rule]]`. The fields of [`DecisionTable`] stand here again: `flatten` and `deny_unknown_fields` exclude
/// each other.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleTable {
    from: Vec<Parsed<PatternText>>,
    to: Vec<Parsed<PatternText>>,
    sign: Option<Sign>,
    encrypt: Option<Encrypt>,
    order: Option<Order>,
    content: Option<Content>,
    tls: Option<LinkTls>,
    falsified: Option<Falsified>,
    unauthenticated_encryption: Option<UnauthenticatedEncryption>,
    signer_mismatch: Option<SignerMismatch>,
    rsa_pkcs1: Option<RsaPkcs1>,
    expect_signed: Option<bool>,
}

impl RuleTable {
    fn into_rule(self) -> Rule {
        let patterns = |list: Vec<Parsed<PatternText>>| list.into_iter().map(|p| p.0.0).collect();
        let table = DecisionTable {
            sign: self.sign,
            encrypt: self.encrypt,
            order: self.order,
            content: self.content,
            tls: self.tls,
            falsified: self.falsified,
            unauthenticated_encryption: self.unauthenticated_encryption,
            signer_mismatch: self.signer_mismatch,
            rsa_pkcs1: self.rsa_pkcs1,
            expect_signed: self.expect_signed,
        };
        Rule { from: patterns(self.from), to: patterns(self.to), overrides: table.overrides() }
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeliveryTable {
    done_record: DoneRecord,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DnsTable {
    resolvers: ResolversValue,
    dnssec: DnssecWord,
    trust_anchor: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DnssecWord {
    #[default]
    Validate,
    Off,
}

#[derive(Default, serde::Deserialize)]
#[serde(untagged, expecting = "write \"system\" or a list like [\"127.0.0.1:53\"]")]
enum ResolversValue {
    #[default]
    #[serde(skip)]
    Unset,
    Word(SystemWord),
    Servers(Vec<SocketAddr>),
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SystemWord {
    System,
}

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ObserveTable {
    listen: Option<SocketAddr>,
    log: LogFormat,
}

impl Default for ObserveTable {
    fn default() -> Self {
        Self { listen: None, log: LogFormat::Json }
    }
}

impl File {
    /// What no single value can tell: the table and key to name, and what to do.
    fn contradiction(&self) -> Option<(&'static str, &'static str, String)> {
        let limit = self.limits.mistake();
        let no_servers =
            matches!(&self.dns.resolvers, ResolversValue::Servers(list) if list.is_empty());
        let (table, key, message) = if self.domains.is_empty() {
            ("", "domains", "`domains` is empty: name at least one domain of yours")
        } else if self.master_key.file.is_some() && self.master_key.credential.is_some() {
            let message = "`file` and `credential` exclude each other: keep one";
            ("master_key", "credential", message)
        } else if self.master_key.credential.as_deref().is_some_and(|name| !is_file_name(name)) {
            ("master_key", "credential", "`credential` is a name without slashes")
        } else if let Some(found) = self.secret_keys.contradiction() {
            found
        } else if let Some(found) = self.public_keys.contradiction() {
            found
        } else if self.outside.dmarc == Dmarc::Refuse && !self.outside.authenticate {
            ("outside", "dmarc", "`dmarc = \"refuse\"` needs `authenticate = true`")
        } else if self.dns.trust_anchor.is_some() && self.dns.dnssec == DnssecWord::Off {
            let message = "`trust_anchor` is of no use with `dnssec = \"off\"`: keep one";
            ("dns", "trust_anchor", message)
        } else if self.inside.client_ca.is_some() && self.tls.is_none() {
            ("inside", "client_ca", "`client_ca` needs a certificate of ours: add [tls]")
        } else if no_servers {
            ("dns", "resolvers", "`resolvers` is empty: write \"system\"")
        } else if self.outside.smtp.is_some() && self.inside.mail_server.is_none() {
            let message = "this takes mail for your mail server: say where that is with [inside] \
                           mail_server = \"smtp://HOST:PORT\"";
            ("outside", "smtp", message)
        } else if let Some(found) = self.takes_its_own_mail() {
            return Some(found);
        } else if self.observe.listen.is_some_and(|at| !at.ip().to_canonical().is_loopback()) {
            let message = "`listen` needs a loopback address, such as 127.0.0.1:9725: metrics are for this machine only";
            ("observe", "listen", message)
        } else if let Some((name, message)) = limit {
            return Some(("limits", name, message));
        } else {
            return None;
        };
        Some((table, key, message.to_owned()))
    }

    /// A server to hand mail to that is an entrance of our own: all that goes there would come back.
    fn takes_its_own_mail(&self) -> Option<(&'static str, &'static str, String)> {
        let next_hop = match &self.outside.next_hop {
            Some(Parsed(NextHop::Fixed(server))) => Some(server),
            _ => None,
        };
        let servers = [
            ("inside", "mail_server", self.inside.mail_server.as_ref().map(|server| &server.0)),
            ("outside", "next_hop", next_hop),
        ];
        let entrances = [
            ("[inside] lmtp", self.inside.lmtp),
            ("[inside] smtp", self.inside.smtp),
            ("[outside] smtp", self.outside.smtp),
        ];
        servers.into_iter().find_map(|(table, key, server)| {
            let server = server?;
            let is_there = |open: Option<SocketAddr>| open.is_some_and(|open| server.is_at(open));
            let (entrance, _) = entrances.into_iter().find(|(_, open)| is_there(*open))?;
            let message = format!(
                "this is where sealgate itself takes mail ({entrance}), which would come back without end: name the \
                 port of another server"
            );
            Some((table, key, message))
        })
    }

    fn into_config(self, path: &Path, directory: &Path) -> Config {
        let domains: Vec<Domain> = self.domains.into_iter().map(|domain| domain.0).collect();
        let hostname = self.hostname.map(|host| host.0).or_else(|| domains.first().cloned());
        let url = self.database.url.map_or_else(DatabaseUrl::default, |url| url.0);
        let limits = self.limits;
        let secret_keys = self.secret_keys.kind();
        let (kmip, pkcs11) = self.secret_keys.into_stores(directory);
        let stores = StoresConfig {
            database: url.within(directory),
            master_key: secret_source(self.master_key.file, self.master_key.credential, directory)
                .unwrap_or_else(|| SecretSource::File(directory.join("master.key"))),
            domains: domains.clone(),
            secret_keys,
            kmip,
            pkcs11,
            public_keys: self.public_keys.kinds(),
            ldap: self.public_keys.into_ldap(directory),
            crls: self.trust.crls.iter().map(|file| directory.join(file)).collect(),
            lookup_timeout: limits.lookup_timeout(),
            ..StoresConfig::default()
        };
        let policy = Policy {
            domains: domains.clone(),
            defaults: self.policy.overrides().over(Decision::default()),
            rules: self.rule.into_iter().map(RuleTable::into_rule).collect(),
        };
        Config {
            path: path.to_owned(),
            hostname: hostname.map_or_else(String::new, |host| host.as_str().to_owned()),
            inside: self.inside.into_inside(directory),
            outside: Outside {
                smtp: self.outside.smtp,
                next_hop: self.outside.next_hop.map_or(NextHop::Mx, |hop| hop.0),
                authenticate: self.outside.authenticate,
                dmarc: self.outside.dmarc,
                ca: self.outside.ca.map(|file| directory.join(file)),
            },
            dkim: self.dkim.map(|dkim| Dkim {
                selector: dkim.selector,
                key: directory.join(dkim.key),
                domains: dkim.domains.map_or_else(
                    || domains.clone(),
                    |own| own.into_iter().map(|domain| domain.0).collect(),
                ),
            }),
            tls: self.tls.map(|tls| TlsFiles {
                certificate: directory.join(tls.certificate),
                key: directory.join(tls.key),
            }),
            key_server: self.key_server.map(|table| table.into_config(directory)),
            stores,
            policy: Arc::new(policy),
            done_record: self.delivery.done_record,
            dns: self.dns.into_dns(directory),
            observe: Observe { listen: self.observe.listen, log: self.observe.log },
            limits,
            domains,
        }
    }
}

impl DnsTable {
    fn into_dns(self, directory: &Path) -> Dns {
        Dns {
            resolvers: match self.resolvers {
                ResolversValue::Servers(list) => Resolvers::Servers(list),
                ResolversValue::Unset | ResolversValue::Word(SystemWord::System) => {
                    Resolvers::System
                }
            },
            dnssec: self.dnssec == DnssecWord::Validate,
            trust_anchor: self.trust_anchor.map(|file| directory.join(file)),
        }
    }
}

impl InsideTable {
    fn into_inside(self, directory: &Path) -> Inside {
        Inside {
            lmtp: self.lmtp,
            smtp: self.smtp,
            allow: self.allow.into_iter().map(|network| network.0).collect(),
            client_ca: self.client_ca.map(|file| directory.join(file)),
            mail_server: self.mail_server.map_or_else(
                || Server { lmtp: false, host: "127.0.0.1".to_owned(), port: 25 },
                |server| server.0,
            ),
            client_address: self.client_address,
            check_recipients: self.check_recipients,
            reply_pause: Duration::from_millis(self.reply_pause_ms.min(REPLY_PAUSE_MS_MAX)),
        }
    }
}

/// A value that its own type parses from a string, so that the error has the value's place.
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T> Deserialize<'de> for Parsed<T>
where
    T: FromText,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::from_text(&text).map(Self).map_err(D::Error::custom)
    }
}

/// `FromStr` with a sentence as its error.
pub(super) trait FromText: Sized {
    fn from_text(text: &str) -> Result<Self, String>;
}

impl FromText for Domain {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|_| format!("`{text}` is no domain name"))
    }
}

pub(super) struct PatternText(pub(super) Pattern);

impl FromText for PatternText {
    fn from_text(text: &str) -> Result<Self, String> {
        Pattern::parse(text).map(Self)
    }
}

impl FromText for Network {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_str(text)
    }
}

impl FromText for NextHop {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_str(text)
    }
}

impl FromText for Server {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_str(text)
    }
}

impl FromText for DatabaseUrl {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_str(text)
    }
}

pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains('/')
}

/// The line of an error, from 1.
fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let offset = error.span().map_or(0, |span| span.start);
    text.get(..offset).map_or(1, |before| before.matches('\n').count().saturating_add(1))
}

/// The line where a table's key is set, or the first.
fn line_of_key(text: &str, table: &str, key: &str) -> usize {
    let sets =
        |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
    let mut current = "";
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            current = name.trim();
        } else if current == table && sets(line) {
            return index.saturating_add(1);
        }
    }
    1
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().split('\n').map(str::trim).collect::<Vec<_>>().join("; ")
}

const VERSION: u32 = 1;
/// Who may hand us plain mail where nothing is said.
const LOOPBACK: [&str; 2] = ["127.0.0.1/32", "::1/128"];
/// A pause between replies must stay far below the client's 10 minutes (RFC 5321 §4.5.3.2.6).
const REPLY_PAUSE_MS_MAX: u64 = 5000;
