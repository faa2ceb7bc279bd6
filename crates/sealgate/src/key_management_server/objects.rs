//! What a client may see: keys and certificates found by name, their attributes, and certificates and, where that is
//! allowed, keys themselves.
//!
//! A row of the embedded store is a Private Key whose identifier is the row's; its certificate and those of its chain are
//! Certificates, named by their SHA-256.

use std::collections::HashSet;

use sealgate_core::keys::{Certificate, KeyKind};
use sealgate_keys::StoreError;
use sealgate_keys::key_ring::KeyEntry;
use sealgate_keys::kmip::attribute::Attribute;
use sealgate_keys::kmip::enumeration::{
    CryptographicAlgorithm, KeyFormat, ObjectType, ResultReason, State, usage,
};
use sealgate_keys::kmip::object::{Object, PrivateKey};
use sealgate_keys::kmip::response::{Failure, Response};
use sealgate_keys::kmip::{CERTIFICATE_NAME, KEY_NAME};
use sealgate_keys::owner::Owner;
use sealgate_keys::secret_key_store::{KeyPurpose, KeyState};

use super::audit::Event;
use super::operations::{DONE, Desk, Found, LOCATE, NOT_ENTITLED, REFUSED, failure, store_failure};
use crate::config::KeyOperation;

impl Desk<'_> {
    /// Objects that have all these attributes, of those that the client may know of.
    pub(super) async fn locate(
        &self,
        wanted: &[Attribute],
        maximum: Option<i32>,
    ) -> Result<Response, Failure> {
        // Who asks for no more than this many gets no more; to all others a list that is cut off would be a wrong answer.
        let asked = maximum.map(|maximum| usize::try_from(maximum).unwrap_or_default());
        let asked = asked.filter(|asked| *asked <= LOCATED_MAX);
        let name = wanted.iter().find_map(|attribute| match attribute {
            Attribute::Name(name) => Some(name.as_str()),
            _ => None,
        });
        let entries = match name {
            None => {
                let is_for = |owner: &str| self.client.is_for(owner);
                self.server.ring.list(is_for, LOCATED_MAX.saturating_add(1)).await
            }
            Some(name) => {
                let Some(owner) = owner_of(name) else { return Ok(Response::Located(Vec::new())) };
                let owner = owner.lookup_key();
                if !self.client.is_for(&owner) {
                    let (operation, outcome, reason) = (LOCATE, REFUSED, NOT_ENTITLED);
                    let event = Event { operation, owner: &owner, outcome, reason, ..self.event() };
                    self.record(&event)?;
                    return Ok(Response::Located(Vec::new()));
                }
                self.server.ring.of_owner(&owner).await
            }
        };
        let entries = entries.map_err(|error| match error {
            StoreError::Input(text) => failure(ResultReason::InvalidField, text),
            other => store_failure(&other),
        })?;
        let mut seen = HashSet::new();
        let mut ids = Vec::new();
        for (id, attributes) in entries.iter().flat_map(objects_of) {
            if asked.is_some_and(|asked| ids.len() >= asked) {
                return Ok(Response::Located(ids));
            }
            if wanted.iter().all(|one| has(&attributes, one)) && seen.insert(id.clone()) {
                ids.push(id);
            }
        }
        if ids.len() > LOCATED_MAX || entries.len() > LOCATED_MAX {
            let text = format!("more than {LOCATED_MAX} objects: ask for those of a Name");
            return Err(failure(ResultReason::InvalidField, text));
        }
        Ok(Response::Located(ids))
    }

    /// Attributes of an object.
    pub(super) async fn attributes(
        &self,
        id: String,
        names: &[String],
    ) -> Result<Response, Failure> {
        let mut attributes = match self.find("get-attributes", &id).await? {
            Found::Certificate(found) => attributes_of_certificate(&found.owner),
            Found::Key(entry) => attributes_of_key(&entry),
        };
        // Who names none wants all, but PyKMIP's client breaks off at a Link: it is for those who ask for it.
        attributes.retain(|attribute| {
            let is_link = matches!(attribute, Attribute::CertificateLink(_));
            names.iter().any(|name| name == attribute.name()) || (names.is_empty() && !is_link)
        });
        Ok(Response::Attributes { id, attributes })
    }

    /// The object itself: certificates always, keys where the server and the client's entitlement say so.
    pub(super) async fn get(
        &self,
        id: String,
        format: Option<KeyFormat>,
    ) -> Result<Response, Failure> {
        let entry = match self.find("get", &id).await? {
            Found::Certificate(found) => {
                let object = Object::Certificate(found.certificate.der().to_vec());
                return Ok(Response::Got { id, object });
            }
            Found::Key(entry) => entry,
        };
        self.entitled(KeyOperation::Get, "get", &entry)?;
        let sha256 = entry.certificate.fingerprint().to_string();
        let event = |outcome, reason| Event {
            operation: "get",
            outcome,
            reason,
            ..self.event_of(&entry, &sha256)
        };
        if !self.settings.config.get {
            let event = event(REFUSED, "the key server hands out no keys");
            let text = "keys do not leave this server";
            return Err(self.refuse(event, ResultReason::PermissionDenied, text));
        }
        if format.is_some_and(|format| format != KeyFormat::Pkcs8) {
            let text = "keys are handed out as PKCS#8 only";
            return Err(failure(ResultReason::KeyFormatTypeNotSupported, text));
        }
        self.take_use(&entry, "get")?;
        self.record(&event(DONE, ""))?;
        let material = self.server.ring.pkcs8(&id).await.map_err(|error| store_failure(&error))?;
        let Some(material) = material else {
            return Err(failure(ResultReason::ItemNotFound, "no such object"));
        };
        let (algorithm, bits) = algorithm_of(&entry.certificate);
        let key = PrivateKey {
            format: KeyFormat::Pkcs8,
            algorithm: Some(algorithm),
            bits: Some(bits),
            material,
        };
        Ok(Response::Got { id, object: Object::PrivateKey(key) })
    }
}

/// Whose objects a name means; `None` where it is no name of ours.
pub(super) fn owner_of(name: &str) -> Option<Owner> {
    [KEY_NAME, CERTIFICATE_NAME].iter().find_map(|template| {
        let (before, after) = template.split_once(ADDRESS)?;
        name.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
    })
}

/// A certificate's identifier.
pub(super) fn certificate_id(certificate: &Certificate) -> String {
    format!("{CERTIFICATE_PREFIX}{}", certificate.fingerprint())
}

/// The key, its certificate and its chain: identifiers and attributes.
fn objects_of(entry: &KeyEntry) -> Vec<(String, Vec<Attribute>)> {
    let mut objects = vec![(entry.id.clone(), attributes_of_key(entry))];
    for certificate in std::iter::once(&entry.certificate).chain(&entry.chain) {
        objects.push((certificate_id(certificate), attributes_of_certificate(&entry.owner)));
    }
    objects
}

fn attributes_of_key(entry: &KeyEntry) -> Vec<Attribute> {
    let (algorithm, bits) = algorithm_of(&entry.certificate);
    let mask = match entry.purpose {
        KeyPurpose::Both => usage::SIGN | usage::DECRYPT,
        KeyPurpose::Encrypt => usage::DECRYPT,
        KeyPurpose::Sign => usage::SIGN,
    };
    vec![
        Attribute::Name(KEY_NAME.replace(ADDRESS, &entry.owner)),
        Attribute::ObjectType(ObjectType::PrivateKey),
        Attribute::State(match entry.state {
            KeyState::Active => State::Active,
            KeyState::Compromised => State::Compromised,
            KeyState::Deactivated => State::Deactivated,
        }),
        Attribute::Algorithm(algorithm),
        Attribute::Length(bits),
        Attribute::UsageMask(mask),
        Attribute::CertificateLink(certificate_id(&entry.certificate)),
    ]
}

fn attributes_of_certificate(owner: &str) -> Vec<Attribute> {
    vec![
        Attribute::Name(CERTIFICATE_NAME.replace(ADDRESS, owner)),
        Attribute::ObjectType(ObjectType::Certificate),
        Attribute::State(State::Active),
    ]
}

fn algorithm_of(certificate: &Certificate) -> (CryptographicAlgorithm, i32) {
    match certificate.key_kind() {
        KeyKind::Rsa { bits } => {
            (CryptographicAlgorithm::Rsa, i32::try_from(bits).unwrap_or_default())
        }
        KeyKind::P384 => (CryptographicAlgorithm::Ec, 384),
        KeyKind::P521 => (CryptographicAlgorithm::Ec, 521),
        _ => (CryptographicAlgorithm::Ec, 256),
    }
}

/// Whether an object has what is wanted: of a mask every bit, of all else the same value. A name is compared by whom
/// it means, because addresses are.
fn has(attributes: &[Attribute], wanted: &Attribute) -> bool {
    attributes.iter().any(|attribute| match (attribute, wanted) {
        (Attribute::UsageMask(mask), Attribute::UsageMask(bits)) => mask & bits == *bits,
        (Attribute::Name(name), Attribute::Name(wanted)) => name.eq_ignore_ascii_case(wanted),
        _ => attribute == wanted,
    })
}

/// Before the SHA-256 of a certificate.
pub(super) const CERTIFICATE_PREFIX: &str = "certificate-";
/// In the templates of names.
const ADDRESS: &str = "{address}";
/// Identifiers in one answer, which keeps it below the size of a message.
const LOCATED_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_objects_they_are() {
        for (name, owner) in [
            ("sealgate/Alice@NEC.example/key", Some("alice@nec.example")),
            ("sealgate/@nec.example/certificate", Some("@nec.example")),
            ("sealgate/alice@nec.example", None),
            ("other/alice@nec.example/key", None),
            ("sealgate//key", None),
        ] {
            assert_eq!(owner_of(name).map(|owner| owner.lookup_key()).as_deref(), owner, "{name}");
        }
    }

    #[test]
    fn wanted_attributes_are_compared_by_what_they_mean() {
        let key = [Attribute::UsageMask(usage::SIGN | usage::DECRYPT), Attribute::Length(256)];
        assert!(has(&key, &Attribute::UsageMask(usage::SIGN)));
        assert!(!has(&key, &Attribute::UsageMask(usage::SIGN | 0x2)));
        assert!(has(&key, &Attribute::Length(256)) && !has(&key, &Attribute::Length(384)));
        assert!(!has(&key, &Attribute::Other("x".to_owned())));
    }
}
