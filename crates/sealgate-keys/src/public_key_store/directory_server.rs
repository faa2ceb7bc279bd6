//! A directory server (LDAP, RFC 4511) as a public key store.
//!
//! In: an address. Out: the certificates that the directory has for it, as candidates: nothing here decides whether one
//! is trusted. A directory that is away or refuses is an error, and an answer that is not whole says so: neither is
//! ever taken for "no key" (REQUIREMENTS B6). Answers are cached by [`crate::stores`], not here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ldap3::Scope;
use ldap3::asn1::parse_tag;
use sealgate_core::address::Address;
use sealgate_core::keys::{Certificate, PublicKey, Timestamp};

use crate::error::StoreError;
use crate::learning::unix_now;
use crate::secret_source::SecretSource;

mod candidates;
mod connection;
mod entry;
mod filter;
mod guard;
mod login;
mod publish;
mod search;
mod server;
mod way;

use connection::Connections;
use entry::Entry;
use filter::FilterTemplate;
use login::Login;
use publish::Change;
use search::{Fault, Question};
use server::Server;

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
    /// RFC 4515; `{address}`, `{local}` and `{domain}` stand for the escaped address and its two sides.
    pub filter: String,
    /// Entries of one answer; more is an error.
    pub entries_max: usize,
    /// How long one answer may take, connecting and a second try included.
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

/// The certificates for an address in one entry as it comes over the wire (SearchResultEntry, RFC 4511 §4.5.2, in BER):
/// what [`DirectoryServer::find`] makes of each entry of an answer.
///
/// # Errors
/// [`StoreError::Unavailable`] where the octets are no entry.
pub fn candidates_in(entry: &[u8], address: &Address) -> Result<Vec<PublicKey>, StoreError> {
    let malformed = || StoreError::Unavailable {
        store: STORE.to_owned(),
        why: "an entry that is no LDAP".to_owned(),
    };
    guard::check_depth(entry).map_err(|_| malformed())?;
    let (_, tag) = parse_tag(entry).map_err(|_| malformed())?;
    Ok(candidates::of(address, &[Entry::read(tag).ok_or_else(malformed)?], now()).0)
}

/// What a directory has for an address.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Those that name the address, with whatever authorities stand beside them, none of them validated, the newest
    /// first and [`CERTIFICATES_MAX`] at most.
    pub keys: Vec<PublicKey>,
    /// Why it may have others, where the answer was not whole: it was cut off, the server refers to others, or something
    /// in it was left out. Where none of these keys can be used, this is the answer, and not "no key".
    pub not_whole: Option<StoreError>,
}

/// What publishing certificates came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// So many were added.
    Added(usize),
    /// The entry had all of them.
    AlreadyThere,
}

/// A directory server, or several that hold the same. Connects when first asked and again whenever that is needed.
pub struct DirectoryServer {
    connections: Arc<Connections>,
    base: Arc<str>,
    filter: FilterTemplate,
    entries_max: usize,
    time_limit: Duration,
}

impl DirectoryServer {
    /// Reads the files that the configuration names, except the password, and connects to nothing.
    ///
    /// # Errors
    /// [`StoreError::Input`] that names the key of `[public_keys.ldap]` that cannot be used.
    pub fn new(config: LdapConfig) -> Result<Self, StoreError> {
        if config.servers.is_empty() || config.servers.len() > SERVERS_MAX {
            return Err(fault("servers", format!("give 1 to {SERVERS_MAX} of them")));
        }
        let servers = config
            .servers
            .iter()
            .map(|text| Server::parse(text, config.starttls))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| fault("servers", why))?;
        if config.base.trim().is_empty() {
            return Err(fault("base", "say where the search starts, as in `dc=example,dc=org`"));
        }
        if config.entries_max == 0 || i32::try_from(config.entries_max).is_err() {
            return Err(fault("entries_max", "give at least 1"));
        }
        if config.timeout.is_zero() {
            return Err(fault("timeout_secs", "give at least 1"));
        }
        let filter = FilterTemplate::new(&config.filter).map_err(|why| fault("filter", why))?;
        let login = Login::new(&servers, config.ca.as_deref(), config.bind)?;
        Ok(Self {
            connections: Arc::new(Connections::new(servers, login, config.timeout)),
            base: config.base.into(),
            filter,
            entries_max: config.entries_max,
            time_limit: config.timeout,
        })
    }

    /// The certificates that the directory has for an address. None where no entry matches, or none that matches has one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the directory is away or refuses.
    pub async fn find(&self, address: &Address) -> Result<Candidates, StoreError> {
        let question = self.question(address);
        let connections = Arc::clone(&self.connections);
        let found = detached(async move {
            let ask = |ldap, until| search::entries(ldap, until, question.clone());
            connections.run(ask).await
        })
        .await?;
        let cut_off = found.not_whole();
        let (keys, left_out) = read_entries(address, found.entries).await?;
        let not_whole = cut_off.or(left_out).map(|why| {
            let store = STORE.to_owned();
            StoreError::Unavailable { store, why }
        });
        Ok(Candidates { keys, not_whole })
    }

    /// Adds those of these certificates that the address's entry does not have yet. Other values stay as they are.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] unless exactly one entry matches the filter; [`StoreError::Unavailable`] with the
    /// server's reason where it refuses.
    pub async fn publish(
        &self,
        address: &Address,
        certificates: &[Arc<Certificate>],
    ) -> Result<Published, StoreError> {
        let added = self.change(Change::Add, address, certificates).await?;
        Ok(if added == 0 { Published::AlreadyThere } else { Published::Added(added) })
    }

    /// Removes exactly these certificates from the address's entry; says how many were there.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn withdraw(
        &self,
        address: &Address,
        certificates: &[Arc<Certificate>],
    ) -> Result<usize, StoreError> {
        self.change(Change::Remove, address, certificates).await
    }

    /// Connects to every server anew, reads the base there and looks an address up that nobody has: one line for
    /// `sealgate check`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] that names each which does not answer as it must.
    pub async fn check(&self) -> Result<String, StoreError> {
        let nobody = Address::parse(NOBODY).map_err(|error| fault("filter", error))?;
        let (base, nobody) = (self.question_of_base(), self.question(&nobody));
        let connections = Arc::clone(&self.connections);
        detached(async move { connections.check(&base, &nobody).await }).await
    }

    /// Asks for something over the connection of look-ups: whether one of the servers answers, whatever it says.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where none does.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let question = self.question_of_base();
        let connections = Arc::clone(&self.connections);
        detached(async move {
            let ask = |ldap, until| {
                let question = question.clone();
                async move {
                    match search::entries(ldap, until, question).await {
                        // That the base itself cannot be read is no reason: what is below may be.
                        Ok(_) | Err(Fault::Answered(_)) => Ok(()),
                        Err(fault) => Err(fault),
                    }
                }
            };
            connections.run(ask).await
        })
        .await
    }

    async fn change(
        &self,
        change: Change,
        address: &Address,
        certificates: &[Arc<Certificate>],
    ) -> Result<usize, StoreError> {
        let question = self.question(address);
        let certificates: Arc<[Arc<Certificate>]> = certificates.into();
        let connections = Arc::clone(&self.connections);
        let address = address.clone();
        detached(async move {
            let make = |ldap, until| {
                let certificates = Arc::clone(&certificates);
                publish::apply(change, ldap, until, question.clone(), certificates)
            };
            connections.run(make).await?.map_err(|found| found.error(&address))
        })
        .await
    }

    /// For the base alone, and none of its attributes.
    fn question_of_base(&self) -> Question {
        let filter = "(objectClass=*)".to_owned();
        Question { scope: Scope::Base, attributes: NO_ATTRIBUTES, ..self.question_of(filter) }
    }

    fn question(&self, address: &Address) -> Question {
        self.question_of(self.filter.fill(address))
    }

    fn question_of(&self, filter: String) -> Question {
        Question {
            base: Arc::clone(&self.base),
            scope: Scope::Subtree,
            filter,
            attributes: entry::ATTRIBUTES,
            entries_max: self.entries_max,
            time_limit: self.time_limit,
        }
    }
}

impl fmt::Debug for DirectoryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryServer({})", self.connections.names())
    }
}

/// In a task of its own, so that a caller who gives up leaves nothing half done (a connection that hangs is replaced for
/// the next one), and a panic of the library over a malformed answer is an answer that cannot be used.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.unwrap_or_else(|_| {
        let why = "an answer that is no LDAP, or sealgate is shutting down".to_owned();
        Err(StoreError::Unavailable { store: STORE.to_owned(), why })
    })
}

/// Whoever may write an entry decides how much there is to parse and to verify: more than is usual is read on a thread for
/// that. What is usual waits for no such thread, which other stores may hold while they are away.
async fn read_entries(
    address: &Address,
    entries: Vec<Entry>,
) -> Result<(Vec<PublicKey>, Option<String>), StoreError> {
    if entries.iter().map(Entry::size).sum::<usize>() <= READ_AT_ONCE_BYTES_MAX {
        return Ok(candidates::of(address, &entries, now()));
    }
    let address = address.clone();
    let read = tokio::task::spawn_blocking(move || candidates::of(&address, &entries, now()));
    read.await.map_err(|error| StoreError::Unavailable {
        store: STORE.to_owned(),
        why: error.to_string(),
    })
}

fn now() -> Timestamp {
    Timestamp(unix_now())
}

fn fault(key: &str, why: impl fmt::Display) -> StoreError {
    StoreError::Input(format!("[{TABLE}] {key}: {why}"))
}

/// Where the configuration describes it.
const TABLE: &str = "public_keys.ldap";

/// What a server says, or what we say of one, made fit for one line of a log.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_CHARS_MAX)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// What errors call this store.
const STORE: &str = "directory server";
/// Servers of one directory.
const SERVERS_MAX: usize = 8;
/// Characters of a server's own words that are shown.
const REASON_CHARS_MAX: usize = 200;
/// Values that are read where they came in: some certificates.
const READ_AT_ONCE_BYTES_MAX: usize = 16 * 1024;
/// RFC 2606 §2: in a domain that will never be.
const NOBODY: &str = "nobody-has-this-address@sealgate.invalid";
/// RFC 4511 §4.5.1.8: the entry without attributes.
const NO_ATTRIBUTES: &[&str] = &["1.1"];

/// Certificates of one mailbox that are used.
pub const CERTIFICATES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LdapConfig {
        LdapConfig {
            servers: vec!["ldap://127.0.0.1:3890".to_owned()],
            starttls: false,
            ca: None,
            bind: LdapBind::Anonymous,
            base: "dc=nec,dc=example".to_owned(),
            filter: "(mail={address})".to_owned(),
            entries_max: 10,
            timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_with_its_key() {
        type Spoil = fn(&mut LdapConfig);
        let cases: [(&str, Spoil); 11] = [
            ("servers", |config| config.servers.clear()),
            ("servers", |config| config.servers = vec!["ldap://a".to_owned(); SERVERS_MAX + 1]),
            ("servers", |config| config.servers = vec!["ldap://ldap.example".to_owned()]),
            ("servers", |config| config.servers = vec!["http://localhost".to_owned()]),
            ("base", |config| config.base = " ".to_owned()),
            ("filter", |config| config.filter = "(mail=*)".to_owned()),
            ("entries_max", |config| config.entries_max = 0),
            ("timeout_secs", |config| config.timeout = Duration::ZERO),
            ("ca", |config| {
                config.servers = vec!["ldaps://localhost".to_owned()];
                config.ca = Some(PathBuf::from("/nowhere/ca.pem"));
            }),
            ("certificate", |config| {
                let [certificate, key] = ["/nowhere/a.pem", "/nowhere/a.key"].map(PathBuf::from);
                config.bind = LdapBind::Certificate { certificate, key };
            }),
            ("bind_dn", |config| {
                let password = SecretSource::File(PathBuf::from("/nowhere/password"));
                config.bind = LdapBind::Simple { name: String::new(), password };
            }),
        ];
        assert!(DirectoryServer::new(config()).is_ok());
        for (key, spoil) in cases {
            let mut config = config();
            spoil(&mut config);
            let text = DirectoryServer::new(config.clone()).unwrap_err().to_string();
            assert!(text.starts_with(&format!("[public_keys.ldap] {key}: ")), "{text}, {config:?}");
        }
    }

    #[test]
    fn foreign_words_stay_on_one_short_line() {
        assert_eq!(one_line("no\r\nsuch\u{1b}[0m"), "no  such [0m");
        assert_eq!(one_line(&"x".repeat(1000)).len(), REASON_CHARS_MAX);
    }
}
