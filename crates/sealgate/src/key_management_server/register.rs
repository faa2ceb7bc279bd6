//! Taking in keys: certificates first, which wait in the connection, then the private key that belongs to one of them.

use std::sync::Arc;

use sealgate_core::keys::Certificate;
use sealgate_keys::StoreError;
use sealgate_keys::kmip::attribute::Attribute;
use sealgate_keys::kmip::enumeration::{KeyFormat, ResultReason};
use sealgate_keys::kmip::object::Object;
use sealgate_keys::kmip::response::{Failure, Response};
use sealgate_keys::owner::Owner;
use zeroize::Zeroizing;

use super::audit::Event;
use super::objects::{certificate_id, owner_of};
use super::operations::{DONE, Desk, FAILED, NOT_ENTITLED, REFUSED, failure, store_failure};
use crate::config::KeyOperation;

/// Certificates that wait for their key.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: Vec<(Owner, Arc<Certificate>)>,
}

impl Pending {
    /// Whether one of this identifier waits.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.waiting.iter().any(|(_, certificate)| certificate_id(certificate) == id)
    }

    /// Forgets one; says whether it was there.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(_, certificate)| certificate_id(certificate) != id);
        self.waiting.len() < before
    }

    fn of(&self, owner: &Owner) -> Vec<Arc<Certificate>> {
        let mine = self.waiting.iter().filter(|(whose, _)| whose == owner);
        mine.map(|(_, certificate)| Arc::clone(certificate)).collect()
    }
}

impl Desk<'_> {
    /// Takes in an object.
    pub(super) async fn register(
        &mut self,
        object: Object,
        attributes: &[Attribute],
    ) -> Result<Response, Failure> {
        let owner = self.owner_in(attributes)?;
        match object {
            Object::Certificate(der) => self.register_certificate(owner, &der),
            Object::PrivateKey(key) => match key.format {
                KeyFormat::Pkcs8 | KeyFormat::Pkcs1 | KeyFormat::EcPrivateKey => {
                    self.register_key(owner, key.material).await
                }
                KeyFormat::Other(_) => {
                    let text = "give the private key as PKCS#8, PKCS#1 or ECPrivateKey";
                    Err(failure(ResultReason::KeyFormatTypeNotSupported, text))
                }
            },
        }
    }

    /// Whose the object is to be, where the client may bring it.
    fn owner_in(&self, attributes: &[Attribute]) -> Result<Owner, Failure> {
        let name = attributes.iter().find_map(|attribute| match attribute {
            Attribute::Name(name) => Some(name.as_str()),
            _ => None,
        });
        let Some(owner) = name.and_then(owner_of) else {
            let text = "give it the Name sealgate/ADDRESS/key or sealgate/ADDRESS/certificate";
            return Err(failure(ResultReason::InvalidField, text));
        };
        let key = owner.lookup_key();
        let reason = if !self.client.is_for(&key) {
            NOT_ENTITLED
        } else if !self.client.may(KeyOperation::Register) {
            "not among the relay's operations"
        } else {
            return Ok(owner);
        };
        let operation = "register";
        let event = Event { operation, owner: &key, outcome: REFUSED, reason, ..self.event() };
        Err(self.refuse(event, ResultReason::PermissionDenied, "you may not do this"))
    }

    fn register_certificate(&mut self, owner: Owner, der: &[u8]) -> Result<Response, Failure> {
        let certificate = Certificate::from_der(der)
            .map_err(|error| failure(ResultReason::InvalidField, error.to_string()))?;
        let id = certificate_id(&certificate);
        let certificate = Arc::new(certificate);
        if !self.pending.of(&owner).iter().any(|known| known.der() == certificate.der()) {
            if self.pending.waiting.len() >= PENDING_MAX {
                let text =
                    format!("{PENDING_MAX} certificates wait for their keys: register those");
                return Err(failure(ResultReason::InvalidField, text));
            }
            self.pending.waiting.push((owner, certificate));
        }
        Ok(Response::Done { id })
    }

    async fn register_key(
        &mut self,
        owner: Owner,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Response, Failure> {
        let owner_key = owner.lookup_key();
        let event =
            |outcome| Event { operation: "register", owner: &owner_key, outcome, ..self.event() };
        self.record(&event("begun"))?;
        let inserted = self.server.ring.insert(&owner, &key, &self.pending.of(&owner)).await;
        let entry = match inserted {
            Ok(entry) => entry,
            Err(error) => {
                self.record_end(&event(FAILED))?;
                return Err(match error {
                    StoreError::Exists(text) => failure(ResultReason::IllegalOperation, text),
                    StoreError::Input(text) => failure(ResultReason::InvalidField, text),
                    other => store_failure(&other),
                });
            }
        };
        let sha256 = entry.certificate.fingerprint().to_string();
        let (operation, outcome) = ("register", DONE);
        self.record_end(&Event { operation, outcome, ..self.event_of(&entry, &sha256) })?;
        // Issuers may serve the owner's next key too.
        self.pending.remove(&certificate_id(&entry.certificate));
        Ok(Response::Done { id: entry.id })
    }
}

/// Of one connection.
const PENDING_MAX: usize = 16;
