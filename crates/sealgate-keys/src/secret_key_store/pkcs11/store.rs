//! The store itself: looks keys up, takes new ones in and destroys them, on threads of the token.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cryptoki::error::Error;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use sealgate_core::keys::Certificate;
use zeroize::Zeroizing;

use super::connection::{Connection, Here, OwnSession};
use super::fault::Fault;
use super::objects::{
    Found, OBJECTS_MAX, PLACEHOLDER, Selector, confirm_label, facts, find_keys, first, label_of,
    owner_of, search, secret_keys,
};
use super::operation::TokenKey;
use super::worker::Workers;
use super::{Pkcs11Config, new_key, proof};
use crate::error::StoreError;
use crate::secret_key_store::{KeyPurpose, NewSecretKey, RemoteKey, RemoteStore, SecretKeyEntry};

/// A token as a store of secret keys.
#[derive(Debug)]
pub struct Token {
    store: Arc<Store>,
}

/// What the store and its keys share.
#[derive(Debug)]
pub(super) struct Store {
    connection: Arc<Connection>,
    workers: Workers,
}

impl Token {
    /// Loads the token's module. The token itself is looked for when it is used first, so that it may be away now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the module cannot be loaded, [`StoreError::Input`] where the label template has
    /// no `{address}` or a key has neither label nor id.
    pub fn open(config: Pkcs11Config) -> Result<Self, StoreError> {
        if !config.label.is_empty() && !config.label.contains(PLACEHOLDER) {
            let template = &config.label;
            let why =
                format!("PKCS#11 label template `{template}`: `{PLACEHOLDER}` is missing in it");
            return Err(StoreError::Input(why));
        }
        if let Some(key) = config.keys.iter().find(|key| key.label.is_none() && key.id.is_none()) {
            let why = format!("PKCS#11 key of {}: give its label or its id", key.owner);
            return Err(StoreError::Input(why));
        }
        let name = format!("PKCS#11 module {}", config.module.display());
        let connection =
            Connection::new(config).map_err(|why| StoreError::Unavailable { store: name, why })?;
        let connection = Arc::new(connection);
        let workers = Workers::new(Arc::clone(&connection));
        Ok(Self { store: Arc::new(Store { connection, workers }) })
    }

    /// On a thread of the token.
    fn call<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Connection, &mut Option<OwnSession>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let name = self.store.connection.name();
        self.store.call(patience, work).map_err(|fault| fault.into_store_error(&name))
    }

    fn config(&self) -> &Pkcs11Config {
        &self.store.connection.config
    }

    fn key(&self, found: Found) -> RemoteKey {
        let secret = TokenKey {
            store: Arc::clone(&self.store),
            name: found.name,
            kind: found.certificate.key_kind(),
            certificate: Arc::clone(&found.certificate),
            object: Arc::new(Mutex::new(Some((found.generation, found.object)))),
            is_gone: AtomicBool::new(false),
        };
        let (certificate, chain) = (found.certificate, found.chain);
        RemoteKey { certificate, chain, secret: Arc::new(secret), is_active: true }
    }
}

impl Store {
    pub(super) fn call<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Connection, &mut Option<OwnSession>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let answer = self.workers.call(patience, work);
        answer.unwrap_or_else(|| Err(self.connection.late()))
    }
}

impl RemoteStore for Token {
    fn find(&self, owner: &str) -> Result<Vec<RemoteKey>, StoreError> {
        let selectors = Selector::of_owner(self.config(), owner);
        let found = self.call(CALL_PATIENCE, move |connection, own| {
            connection.run(own, |here| find_keys(here, &selectors))
        })?;
        Ok(found.into_iter().map(|found| self.key(found)).collect())
    }

    fn list(&self) -> Result<Vec<SecretKeyEntry>, StoreError> {
        self.call(LONG_PATIENCE, |connection, own| connection.run(own, list))
    }

    fn insert(&self, keys: &[NewSecretKey]) -> Result<(), StoreError> {
        for key in keys {
            let new = New::prepare(self.config(), key)?;
            self.call(LONG_PATIENCE, move |connection, own| {
                connection.change(own, |here| insert(here, &new))
            })?;
        }
        Ok(())
    }

    fn remove(&self, owner: &str) -> Result<u64, StoreError> {
        let Some(label) = label_of(self.config(), owner) else { return Ok(0) };
        self.call(LONG_PATIENCE, move |connection, own| {
            connection.change(own, |here| remove(here, &label))
        })
    }

    fn ping(&self) -> Result<(), StoreError> {
        self.call(CALL_PATIENCE, |connection, own| {
            connection.run(own, |here| {
                // What a use of a key begins with, and no more.
                here.confirm()?;
                here.confirm_keys()?;
                match here.answers() {
                    true => Ok(()),
                    false => Err(Fault::Away("the token does not answer".to_owned())),
                }
            })
        })
    }

    fn check(&self) -> Result<String, StoreError> {
        self.call(LONG_PATIENCE, |connection, own| {
            connection.run(own, |here| {
                here.confirm()?;
                for owner in owners(here)? {
                    find_keys(here, &Selector::of_owner(&here.connection.config, &owner))?;
                }
                let keys = secret_keys(here, &[], OBJECTS_MAX)?.len();
                let label = &here.connection.config.token;
                Ok(format!("token `{label}`, model {}, secret keys: {keys}", here.model()))
            })
        })
    }
}

/// Those who have keys, by their labels and by the configuration.
fn owners(here: &Here<'_>) -> Result<BTreeSet<String>, Fault> {
    here.confirm_keys()?;
    let config = &here.connection.config;
    let mut owners: BTreeSet<String> = config.keys.iter().map(|key| key.owner.clone()).collect();
    for object in secret_keys(here, &[], OBJECTS_MAX)? {
        let facts = facts(here, object)?;
        owners.extend(
            std::str::from_utf8(&facts.label).ok().and_then(|label| owner_of(config, label)),
        );
    }
    Ok(owners)
}

/// Without the owners of keys that cannot be used, whom [`Token::check`] names: they are not to hide all others.
fn list(here: &Here<'_>) -> Result<Vec<SecretKeyEntry>, Fault> {
    here.confirm()?;
    let mut entries = Vec::new();
    for owner in owners(here)? {
        let keys = match find_keys(here, &Selector::of_owner(&here.connection.config, &owner)) {
            Err(Fault::Incapable(why)) => {
                tracing::warn!(owner, why, "left out: mail that needs this key waits");
                continue;
            }
            keys => keys?,
        };
        for found in keys {
            let purpose = KeyPurpose::of(&found.certificate).map_or("", KeyPurpose::as_str);
            entries.push(SecretKeyEntry {
                owner: owner.clone(),
                purpose: purpose.to_owned(),
                certificate: found.certificate,
                chain: found.chain,
                is_active: true,
            });
        }
    }
    Ok(entries)
}

/// A key to be taken in, on its way to the token's thread.
struct New {
    owner: String,
    label: String,
    purpose: KeyPurpose,
    pkcs8: Zeroizing<Vec<u8>>,
    certificate: Arc<Certificate>,
    chain: Vec<Arc<Certificate>>,
}

impl New {
    fn prepare(config: &Pkcs11Config, key: &NewSecretKey) -> Result<Self, StoreError> {
        let label = label_of(config, &key.owner).ok_or_else(|| {
            let why =
                format!("the PKCS#11 store has no label template: set one with `{PLACEHOLDER}`");
            StoreError::Input(why)
        })?;
        Ok(Self {
            owner: key.owner.clone(),
            label,
            purpose: key.purpose,
            pkcs8: key.pkcs8.clone(),
            certificate: Arc::clone(&key.certificate),
            chain: key.chain.clone(),
        })
    }
}

/// Objects that are destroyed again unless all went well.
struct Made<'a> {
    here: &'a Here<'a>,
    objects: Vec<ObjectHandle>,
}

impl Made<'_> {
    fn create(&mut self, template: &[Attribute]) -> Result<ObjectHandle, Error> {
        let object = self.here.session.create_object(template)?;
        self.objects.push(object);
        Ok(object)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for object in self.objects.drain(..) {
            if let Err(error) = self.here.session.destroy_object(object) {
                tracing::error!(%error, "an object of a failed import stays in the token");
            }
        }
    }
}

fn insert(here: &Here<'_>, new: &New) -> Result<(), Fault> {
    let id = new_key::id_of(&new.certificate);
    let by_name = [Attribute::Label(new.label.as_bytes().to_vec()), Attribute::Id(id.clone())];
    if !first(here, ObjectClass::PRIVATE_KEY, &by_name, 1)?.is_empty() {
        let why = format!("{}: the token has this secret key already", new.owner);
        return Err(Fault::Store(StoreError::Exists(why)));
    }
    let refuse = |why: &str| Fault::Store(StoreError::Input(format!("{}: {why}", new.owner)));
    let mut template = new_key::secret_key(&new.pkcs8, new.purpose, &new.label, &id)
        .ok_or_else(|| refuse("tokens take RSA, P-256, P-384, P-521 and Ed25519 keys only"))?;
    let mut made = Made { here, objects: Vec::new() };
    let created = made.create(&template);
    new_key::wipe(&mut template);
    let object = created.map_err(|error| match Fault::from(error) {
        Fault::Incapable(why) | Fault::Refused(why) => {
            refuse(&format!("the token does not take this key ({why})"))
        }
        other => other,
    })?;
    for certificate in std::iter::once(&new.certificate).chain(&new.chain) {
        let label = Attribute::Label(new.label.as_bytes().to_vec());
        let same = [label, Attribute::Value(certificate.der().to_vec())];
        if !first(here, ObjectClass::CERTIFICATE, &same, 1)?.is_empty() {
            continue;
        }
        let template = new_key::certificate(certificate, &new.label)
            .ok_or_else(|| refuse("a certificate cannot be written as a token's object"))?;
        made.create(&template)?;
    }
    let found =
        find_keys(here, &[Selector::of_label(&new.label)]).map_err(|fault| match fault {
            Fault::Incapable(why) => refuse(&format!(
                "the token took the key and does not use it as its certificate says ({why})"
            )),
            other => other,
        })?;
    let is_found = found.iter().any(|found| found.certificate == new.certificate);
    if !is_found {
        return Err(refuse("the token took the key and does not use it as its certificate says"));
    }
    proof::is_fit(here, object, new.purpose, &new.certificate).map_err(|fault| match fault {
        Fault::Refused(why) => {
            refuse(&format!("the token took the key and does not use it ({why})"))
        }
        other => other,
    })?;
    made.objects.clear();
    Ok(())
}

fn remove(here: &Here<'_>, label: &str) -> Result<u64, Fault> {
    let by_label = [Attribute::Label(label.as_bytes().to_vec())];
    let keys = secret_keys(here, &by_label, OBJECTS_MAX)?;
    let mut objects = keys.clone();
    for class in [ObjectClass::PUBLIC_KEY, ObjectClass::CERTIFICATE] {
        objects.extend(search(here, class, &by_label, OBJECTS_MAX)?);
    }
    confirm_label(here, &objects, label)?;
    objects.into_iter().try_for_each(|object| here.session.destroy_object(object))?;
    Ok(u64::try_from(keys.len()).unwrap_or(u64::MAX))
}

/// How long a look-up or one use of a key may take, with starting anew; then the token is away.
pub(super) const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// How long the administrator's commands may take: they go over all keys, or write.
const LONG_PATIENCE: Duration = Duration::from_secs(60);
