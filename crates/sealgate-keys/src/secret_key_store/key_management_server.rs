//! A key management server (KMIP) as a secret key store.
//!
//! Keys and certificates are found by name. A private key belongs to the certificate that its Certificate Link names, else
//! to the one that it is proven to be the key of; a key that belongs to none is an error. Where the server signs and
//! decrypts itself the key never leaves it; where it cannot, the key is fetched, if the configuration allows it. Of several
//! servers the first that can be reached answers; identifiers and abilities are each server's own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{KeyPurpose, NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry};
use crate::error::StoreError;
use crate::kmip::attribute::{self, Attribute};
use crate::kmip::client::{Client, KmipServer};
use crate::kmip::enumeration::{ObjectType, Operation, QueryFunction, usage};
use crate::kmip::request::Request;
use crate::kmip::response::Response;
use crate::tls::{self, ClientIdentity};

mod handle;
mod keeper;
mod key_use;
mod names;
mod pairing;
mod taking_in;

use handle::KmipKey;
use keeper::{Fault, Keeper, There};
use names::Names;
use pairing::Pair;

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
    /// Visits to one server at the same time, from 1 to [`CONNECTIONS_MAX`](crate::kmip::client::CONNECTIONS_MAX); the others
    /// wait for their turns.
    pub connections: usize,
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

/// The store.
#[derive(Debug)]
pub struct KeyManagementServer {
    keeper: Arc<Keeper>,
    names: Arc<Names>,
    is_on_this_host: bool,
}

impl KeyManagementServer {
    /// The store; connects with the first question.
    ///
    /// # Errors
    /// [`StoreError::Input`] where a TLS file cannot be used.
    pub fn new(config: KmipConfig) -> Result<Self, StoreError> {
        let files = |files: &KmipTls| {
            tls::client_config("secret_keys.kmip", Some(&files.ca), Some(identity_of(files)))
        };
        let tls = config.tls.as_ref().map(files).transpose()?;
        let is_unix = |server: &KmipServer| matches!(server, KmipServer::Unix(_));
        let is_on_this_host = config.servers.iter().all(is_unix);
        let client = Client::new(config.servers, tls, config.timeout, config.connections);
        Ok(Self {
            keeper: Arc::new(Keeper::new(client, config.get)),
            names: Arc::new(Names { key: config.key_name, certificate: config.certificate_name }),
            is_on_this_host,
        })
    }

    fn find_at(
        &self,
        there: &There<'_>,
        owner: &str,
        address: &str,
    ) -> Result<Vec<RemoteKey>, Fault> {
        let ids = self.names.keys(there, owner)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let certificates = self.names.certificates(there, owner)?;
        let chain = certificates.iter().map(|found| &found.certificate);
        let chain: Vec<_> = chain.filter(|one| one.is_authority()).map(Arc::clone).collect();
        let pairs = pairing::pair(there, &self.names, owner, ids, &certificates)?;
        let key = |pair: Pair| {
            let certificate = Arc::clone(&pair.certificate);
            let (whose, server) = ([owner, address], there.visit.index());
            let is_active = pair.facts.is_active();
            let secret = KmipKey::new(&self.keeper, &self.names, whose, server, pair);
            RemoteKey { certificate, chain: chain.clone(), secret: Arc::new(secret), is_active }
        };
        Ok(pairs.into_iter().map(key).collect())
    }

    fn owners(&self, there: &There<'_>) -> Result<Vec<String>, Fault> {
        let mut owners = Vec::new();
        for id in there.locate(vec![Attribute::ObjectType(ObjectType::PrivateKey)])? {
            let attributes = there.attributes(&id, &[attribute::NAME])?;
            owners.extend(attributes.iter().filter_map(|one| self.names.owner_in(one)));
        }
        owners.sort_unstable();
        owners.dedup();
        Ok(owners)
    }

    fn check_at(server: &KmipServer, there: &There<'_>) -> Result<String, Fault> {
        let answer = there.ask(&state_of_server())?;
        let Response::Query { operations, vendor } = answer else {
            return Err(keeper::odd(&answer));
        };
        let has = |operation| if operations.contains(&operation) { "yes" } else { "no" };
        Ok(format!(
            "{} at {server}, signs itself: {}, decrypts itself: {}",
            vendor.unwrap_or_else(|| "a key management server".to_owned()),
            has(Operation::Sign),
            has(Operation::Decrypt)
        ))
    }

    fn remove_at(&self, there: &There<'_>, owner: &str) -> Result<u64, Fault> {
        let keys = self.names.keys(there, owner)?;
        // All of them before the first is destroyed.
        keys.iter().try_for_each(|id| self.names.confirm(owner, id, &there.facts(id)?))?;
        for id in &keys {
            // Only what is revoked can be destroyed; what was never active need not be.
            let _ = there.visit.call(&keeper::revocation(id));
            let destroyed = there.visit.call(&Request::Destroy { id: id.clone() });
            destroyed.map_err(|error| keeper::refused(owner, error))?;
        }
        // Our own key server forgets certificates with their key.
        self.names.certificates(there, owner)?.iter().for_each(|found| there.destroy(&found.id));
        Ok(u64::try_from(keys.len()).unwrap_or(u64::MAX))
    }
}

impl RemoteStore for KeyManagementServer {
    fn is_on_this_host(&self) -> bool {
        self.is_on_this_host
    }

    fn find(&self, owner: &str) -> Result<Vec<RemoteKey>, StoreError> {
        self.find_for(owner, owner)
    }

    fn find_for(&self, owner: &str, address: &str) -> Result<Vec<RemoteKey>, StoreError> {
        self.keeper.on_a_server(|there| self.find_at(there, owner, address))
    }

    fn find_both(
        &self,
        mailbox: &str,
        domain: &str,
    ) -> Result<(Vec<RemoteKey>, Vec<RemoteKey>), StoreError> {
        // One visit: a look-up waits for its turn once.
        self.keeper.on_a_server(|there| {
            let of = |owner| self.find_at(there, owner, mailbox);
            Ok((of(mailbox)?, of(domain)?))
        })
    }

    fn list(&self) -> Result<Vec<SecretKeyEntry>, StoreError> {
        let mut entries = Vec::new();
        self.visit(&mut |entry| entries.push(entry))?;
        Ok(entries)
    }

    fn visit(&self, see: &mut dyn FnMut(SecretKeyEntry)) -> Result<(), StoreError> {
        for owner in self.keeper.on_a_server(|there| self.owners(there))? {
            self.find(&owner)?.iter().for_each(|key| see(key.entry(&owner)));
        }
        Ok(())
    }

    fn insert(&self, keys: &[NewSecretKey]) -> Result<(), StoreError> {
        keys.iter().try_for_each(|key| self.insert_one(key))
    }

    fn remove(&self, owner: &str) -> Result<u64, StoreError> {
        self.keeper.on_a_server(|there| self.remove_at(there, owner))
    }

    /// Asks every server: one that fails is a fault, although the others serve, and is missed only when they fail too.
    fn check(&self) -> Result<String, StoreError> {
        let (mut lines, mut failed) = (Vec::new(), Vec::new());
        for (server, at) in self.keeper.client.each() {
            match self.keeper.visit(at).and_then(|there| Self::check_at(server, &there)) {
                Ok(line) => lines.push(line),
                Err(Fault::Away(why)) => failed.push(why),
                Err(Fault::Said(StoreError::Unavailable { why, .. })) => {
                    failed.push(format!("{server}: {why}"));
                }
                Err(Fault::Said(error)) => failed.push(format!("{server}: {error}")),
            }
        }
        // What fails stands first, where it is seen.
        if failed.is_empty() {
            return Ok(lines.join("; "));
        }
        failed.append(&mut lines);
        Err(keeper::unavailable(failed.join("; ")))
    }

    fn ping(&self) -> Result<(), StoreError> {
        self.keeper.on_a_server(|there| there.ask(&state_of_server())).map(drop)
    }
}

/// What every server answers.
fn state_of_server() -> Request {
    Request::Query(vec![QueryFunction::Operations, QueryFunction::ServerInformation])
}

fn usage_of(purpose: KeyPurpose) -> i32 {
    match purpose {
        KeyPurpose::Both => usage::SIGN | usage::DECRYPT,
        KeyPurpose::Encrypt => usage::DECRYPT,
        KeyPurpose::Sign => usage::SIGN,
    }
}

fn identity_of(tls: &KmipTls) -> ClientIdentity<'_> {
    ClientIdentity { certificate: &tls.certificate, key: &tls.key }
}

#[cfg(test)]
mod tests;
