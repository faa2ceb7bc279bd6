//! A key management server (KMIP) as a secret key store.
//!
//! Keys and certificates are found by name. A private key belongs to the certificate that its Certificate Link names,
//! else to the one with its public key, which shows when the key is fetched, else to the only one that fits its use.
//! Where the server signs and decrypts itself the key never leaves it; where it cannot, the key is fetched, if the
//! configuration allows it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sealgate_core::keys::{Certificate, KeyKind, SoftwareKey};
use zeroize::Zeroizing;

use super::{KeyPurpose, NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry};
use crate::error::StoreError;
use crate::import::private_key;
use crate::kmip::attribute::{self, Attribute};
use crate::kmip::client::{CallError, Client, KmipServer};
use crate::kmip::enumeration::{
    CryptographicAlgorithm, KeyFormat, ObjectType, Operation, QueryFunction, ResultReason,
    RevocationReason, State, usage,
};
use crate::kmip::object::{Object, PrivateKey};
use crate::kmip::request::Request;
use crate::kmip::response::Response;
use crate::tls::{self, ClientIdentity};

mod handle;

use handle::KmipKey;

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
    config: KmipConfig,
    server: Arc<Keeper>,
}

/// What the handles share.
#[derive(Debug)]
struct Keeper {
    client: Client,
    get: KmipGet,
    /// What the server can do; asked once.
    operations: OnceLock<Vec<Operation>>,
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
        let client = Client::new(config.servers.clone(), tls, config.timeout);
        let operations = OnceLock::new();
        let server = Arc::new(Keeper { client, get: config.get, operations });
        Ok(Self { config, server })
    }

    fn key_name(&self, owner: &str) -> Attribute {
        Attribute::Name(self.config.key_name.replace(ADDRESS, owner))
    }

    fn certificate_name(&self, owner: &str) -> Attribute {
        Attribute::Name(self.config.certificate_name.replace(ADDRESS, owner))
    }

    fn keys_of(&self, owner: &str) -> Result<Vec<String>, StoreError> {
        self.server
            .locate(vec![Attribute::ObjectType(ObjectType::PrivateKey), self.key_name(owner)])
    }

    fn certificates_of(&self, owner: &str) -> Result<Vec<Found>, StoreError> {
        let ids = self.server.locate(vec![
            Attribute::ObjectType(ObjectType::Certificate),
            self.certificate_name(owner),
        ])?;
        ids.into_iter().map(|id| self.server.certificate(id)).collect()
    }

    /// The handle of one key, and the certificate that it belongs to.
    fn key(&self, id: String, certificates: &[Found]) -> Result<Option<RemoteKey>, StoreError> {
        let names = [attribute::LINK, attribute::STATE, attribute::USAGE_MASK];
        let names = names.map(str::to_owned).to_vec();
        let answer = self.server.ask(Request::GetAttributes { id: id.clone(), names })?;
        let Response::Attributes { attributes, .. } = answer else {
            return Err(self.server.odd(&answer));
        };
        let is_revoked = attributes.iter().any(|attribute| {
            matches!(attribute, Attribute::State(State::Compromised | State::Deactivated))
        });
        let mut fetched = None;
        let certificate = match paired(&attributes, certificates) {
            Some(certificate) => certificate,
            None if self.config.get == KmipGet::IfNeeded => {
                let key = self.server.fetch(&id)?;
                let found = certificates
                    .iter()
                    .find(|found| found.certificate.public_key_bytes() == key.public_key_bytes());
                fetched = Some(key);
                let Some(found) = found else { return Ok(None) };
                Arc::clone(&found.certificate)
            }
            None => return Ok(None),
        };
        // Where it decrypts it serves for what is old.
        if is_revoked && !certificate.may_encrypt() {
            return Ok(None);
        }
        let chain = certificates.iter().map(|found| &found.certificate);
        let chain = chain.filter(|other| other.is_authority()).map(Arc::clone).collect();
        let server = Arc::clone(&self.server);
        let secret = Arc::new(KmipKey::new(server, id, Arc::clone(&certificate), fetched));
        Ok(Some(RemoteKey { certificate, chain, secret }))
    }

    fn insert_one(&self, key: &NewSecretKey) -> Result<(), StoreError> {
        let known = self.certificates_of(&key.owner)?;
        let holds = |certificate: &Certificate| {
            known.iter().any(|found| found.certificate.der() == certificate.der())
        };
        if holds(&key.certificate) {
            let what = format!("{}: this key is at the key management server already", key.owner);
            return Err(StoreError::Exists(what));
        }
        let mut session = self.server.client.session().map_err(|error| self.server.away(&error))?;
        let mut register = |object, attributes| {
            let answer = session.call(&Request::Register { object, attributes });
            match answer.map_err(|error| self.server.refused(&key.owner, &error))? {
                Response::Done { id } => Ok(id),
                other => Err(self.server.odd(&other)),
            }
        };
        // Our own key server takes a key only with the certificate before it.
        let name = self.certificate_name(&key.owner);
        let mut made = Vec::new();
        let outcome = (|| {
            made.push(register(certificate_object(&key.certificate), vec![name.clone()])?);
            for issuer in key.chain.iter().filter(|issuer| !holds(issuer)) {
                made.push(register(certificate_object(issuer), vec![name.clone()])?);
            }
            let attributes =
                vec![self.key_name(&key.owner), Attribute::UsageMask(usage_of(key.purpose))];
            let id = register(key_object(key), attributes)?;
            made.push(id.clone());
            Ok(id)
        })();
        let proven = outcome.and_then(|id: String| {
            let activate = session.call(&Request::Activate { id: id.clone() });
            activate.map_err(|error| self.server.refused(&key.owner, &error))?;
            let server = Arc::clone(&self.server);
            handle::prove(&KmipKey::new(server, id, Arc::clone(&key.certificate), None), key)
        });
        if proven.is_err() {
            for id in made.iter().rev() {
                self.server.destroy(id);
            }
        }
        proven
    }
}

impl RemoteStore for KeyManagementServer {
    fn find(&self, owner: &str) -> Result<Vec<RemoteKey>, StoreError> {
        let ids = self.keys_of(owner)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let certificates = self.certificates_of(owner)?;
        let mut keys = Vec::new();
        for id in ids {
            match self.key(id.clone(), &certificates)? {
                Some(key) => keys.push(key),
                None => tracing::warn!(
                    owner,
                    id,
                    "a key at the key management server has no certificate there"
                ),
            }
        }
        Ok(keys)
    }

    fn list(&self) -> Result<Vec<SecretKeyEntry>, StoreError> {
        let ids = self.server.locate(vec![Attribute::ObjectType(ObjectType::PrivateKey)])?;
        let mut owners = Vec::new();
        for id in ids {
            let names = vec![attribute::NAME.to_owned()];
            let answer = self.server.ask(Request::GetAttributes { id, names })?;
            let Response::Attributes { attributes, .. } = answer else {
                return Err(self.server.odd(&answer));
            };
            owners.extend(attributes.iter().filter_map(|one| self.owner_in(one)));
        }
        owners.sort_unstable();
        owners.dedup();
        let mut entries = Vec::new();
        for owner in owners {
            entries.extend(self.find(&owner)?.iter().map(|key| key.entry(&owner)));
        }
        Ok(entries)
    }

    fn insert(&self, keys: &[NewSecretKey]) -> Result<(), StoreError> {
        keys.iter().try_for_each(|key| self.insert_one(key))
    }

    fn remove(&self, owner: &str) -> Result<u64, StoreError> {
        let keys = self.keys_of(owner)?;
        for id in &keys {
            // Only what is revoked can be destroyed; what was never active need not be.
            let _ = self.server.client.call(revocation(id));
            let destroyed = self.server.client.call(Request::Destroy { id: id.clone() });
            destroyed.map_err(|error| self.server.refused(owner, &error))?;
        }
        // Our own key server forgets certificates with their key.
        self.certificates_of(owner)?.iter().for_each(|found| self.server.destroy(&found.id));
        Ok(u64::try_from(keys.len()).unwrap_or(u64::MAX))
    }

    fn check(&self) -> Result<String, StoreError> {
        let functions = vec![QueryFunction::Operations, QueryFunction::ServerInformation];
        let answer = self.server.ask(Request::Query(functions))?;
        let Response::Query { operations, vendor } = answer else {
            return Err(self.server.odd(&answer));
        };
        let has = |operation| if operations.contains(&operation) { "yes" } else { "no" };
        Ok(format!(
            "{} at {}; signs itself: {}, decrypts itself: {}",
            vendor.unwrap_or_else(|| "a key management server".to_owned()),
            self.server.client.names(),
            has(Operation::Sign),
            has(Operation::Decrypt)
        ))
    }
}

/// Before an object is destroyed.
fn revocation(id: &str) -> Request {
    Request::Revoke { id: id.to_owned(), reason: RevocationReason::CessationOfOperation }
}

impl KeyManagementServer {
    /// The owner in a name made after our template.
    fn owner_in(&self, attribute: &Attribute) -> Option<String> {
        let Attribute::Name(name) = attribute else { return None };
        let (before, after) = self.config.key_name.split_once(ADDRESS)?;
        let owner = name.strip_prefix(before)?.strip_suffix(after)?;
        owner.parse::<crate::owner::Owner>().ok().map(|owner| owner.lookup_key())
    }
}

impl Keeper {
    fn ask(&self, request: Request) -> Result<Response, StoreError> {
        self.client.call(request).map_err(|error| self.away(&error))
    }

    fn locate(&self, attributes: Vec<Attribute>) -> Result<Vec<String>, StoreError> {
        match self.ask(Request::Locate { attributes, maximum: Some(LOCATED_MAX) })? {
            Response::Located(ids) => Ok(ids),
            other => Err(self.odd(&other)),
        }
    }

    fn certificate(&self, id: String) -> Result<Found, StoreError> {
        let answer = self.ask(Request::Get { id: id.clone(), format: None })?;
        let Response::Got { object: Object::Certificate(der), .. } = &answer else {
            return Err(self.odd(&answer));
        };
        let certificate = Certificate::from_der(der).map_err(|error| self.unusable(&id, error))?;
        Ok(Found { id, certificate: Arc::new(certificate) })
    }

    /// The key itself.
    fn fetch(&self, id: &str) -> Result<SoftwareKey, StoreError> {
        let answer = self.ask(Request::Get { id: id.to_owned(), format: None })?;
        let Response::Got { object: Object::PrivateKey(key), .. } = &answer else {
            return Err(self.odd(&answer));
        };
        let pkcs8 = private_key::from_der(&key.material);
        let parsed = pkcs8.and_then(|pkcs8| SoftwareKey::from_pkcs8(&pkcs8).ok());
        parsed.ok_or_else(|| self.unusable(id, "no private key that we can read"))
    }

    /// What the server can do itself.
    fn can(&self, operation: Operation) -> Result<bool, CallError> {
        if let Some(operations) = self.operations.get() {
            return Ok(operations.contains(&operation));
        }
        let answer = self.client.call(Request::Query(vec![QueryFunction::Operations]))?;
        let Response::Query { operations, .. } = answer else { return Ok(false) };
        Ok(self.operations.get_or_init(|| operations).contains(&operation))
    }

    /// Where it cannot be destroyed it stays, which does no harm.
    fn destroy(&self, id: &str) {
        let _ = self.client.call(revocation(id));
        if let Err(error) = self.client.call(Request::Destroy { id: id.to_owned() }) {
            tracing::debug!(%error, id, "an object stays at the key management server");
        }
    }

    fn away(&self, error: &CallError) -> StoreError {
        self.unavailable(error.to_string())
    }

    fn odd(&self, answer: &Response) -> StoreError {
        self.unavailable(format!("an odd answer: {answer:?}"))
    }

    fn unusable(&self, id: &str, why: impl std::fmt::Display) -> StoreError {
        self.unavailable(format!("object {id}: {why}"))
    }

    fn unavailable(&self, why: String) -> StoreError {
        StoreError::Unavailable { store: "key management server".to_owned(), why }
    }

    /// What a server says against taking in or giving up a key.
    fn refused(&self, owner: &str, error: &CallError) -> StoreError {
        match error {
            CallError::Refused(failure) if failure.reason != ResultReason::GeneralFailure => {
                StoreError::Input(format!("{owner}: the key management server refuses: {failure}"))
            }
            other => self.away(other),
        }
    }
}

/// A certificate at the server.
struct Found {
    id: String,
    certificate: Arc<Certificate>,
}

/// The certificate that a key's attributes tell.
fn paired(attributes: &[Attribute], certificates: &[Found]) -> Option<Arc<Certificate>> {
    let link = attributes.iter().find_map(|attribute| match attribute {
        Attribute::CertificateLink(id) => Some(id),
        _ => None,
    });
    if let Some(link) = link {
        let found = certificates.iter().find(|found| found.id == *link)?;
        return Some(Arc::clone(&found.certificate));
    }
    let mask = attributes.iter().find_map(|attribute| match attribute {
        Attribute::UsageMask(mask) => Some(*mask),
        _ => None,
    });
    let fits = |certificate: &Certificate| {
        !certificate.is_authority()
            && mask.is_none_or(|mask| {
                KeyPurpose::of(certificate).is_some_and(|purpose| usage_of(purpose) & mask != 0)
            })
    };
    let mut fitting = certificates.iter().filter(|found| fits(&found.certificate));
    let only = fitting.next().filter(|_| fitting.next().is_none())?;
    Some(Arc::clone(&only.certificate))
}

fn certificate_object(certificate: &Certificate) -> Object {
    Object::Certificate(certificate.der().to_vec())
}

fn key_object(key: &NewSecretKey) -> Object {
    let (algorithm, bits) = match key.certificate.key_kind() {
        KeyKind::Rsa { bits } => (Some(CryptographicAlgorithm::Rsa), i32::try_from(bits).ok()),
        KeyKind::P256 => (Some(CryptographicAlgorithm::Ec), Some(256)),
        KeyKind::P384 => (Some(CryptographicAlgorithm::Ec), Some(384)),
        KeyKind::P521 => (Some(CryptographicAlgorithm::Ec), Some(521)),
        _ => (Some(CryptographicAlgorithm::Ec), Some(256)),
    };
    let material = Zeroizing::new(key.pkcs8.to_vec());
    Object::PrivateKey(PrivateKey { format: KeyFormat::Pkcs8, algorithm, bits, material })
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

/// In the templates of names.
const ADDRESS: &str = "{address}";
/// Objects of one answer.
const LOCATED_MAX: i32 = 10_000;
