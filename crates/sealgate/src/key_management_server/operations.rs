//! What a client may ask for: one request of a batch in, its answer or failure out, with the audit line that belongs to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealgate_core::keys::Certificate;
use sealgate_keys::StoreError;
use sealgate_keys::key_ring::{KeyEntry, OwnedCertificate, Searched};
use sealgate_keys::kmip::enumeration::{Operation, QueryFunction, ResultReason, RevocationReason};
use sealgate_keys::kmip::message::Version;
use sealgate_keys::kmip::request::Request;
use sealgate_keys::kmip::response::{Failure, Response};
use sealgate_keys::secret_key_store::{KeyPurpose, KeyState};

use super::audit::Event;
use super::entitlement::Client;
use super::register::Pending;
use super::{KeyServer, Settings, objects};
use crate::config::KeyOperation;

/// One request's surroundings.
pub(super) struct Desk<'a> {
    pub(super) server: &'a Arc<KeyServer>,
    pub(super) settings: &'a Settings,
    pub(super) client: &'a Client,
    /// Certificates that wait for their key.
    pub(super) pending: &'a mut Pending,
    /// Whether many rows were looked at: the connection's pace pays for it.
    pub(super) scanned: AtomicBool,
}

/// An object that the client may know of.
pub(super) enum Found {
    Certificate(OwnedCertificate),
    Key(Arc<KeyEntry>),
}

impl Desk<'_> {
    /// Answers one request.
    pub(super) async fn answer(&mut self, request: Request) -> Result<Response, Failure> {
        match request {
            Request::Activate { id } => self.activate(id).await,
            Request::Decrypt(used) => self.decrypt(used).await,
            Request::Destroy { id } => self.destroy(id).await,
            Request::DiscoverVersions => Ok(Response::Versions(Version::SPOKEN.to_vec())),
            Request::Get { id, format } => self.get(id, format).await,
            Request::GetAttributes { id, names } => self.attributes(id, &names).await,
            Request::Locate { attributes, maximum } => self.locate(&attributes, maximum).await,
            Request::Query(functions) => Ok(query(&functions)),
            Request::Register { object, attributes } => self.register(object, &attributes).await,
            Request::Revoke { id, reason } => self.revoke(id, reason).await,
            Request::Sign(used) => self.sign(used).await,
            Request::Unsupported(operation) => {
                let text = format!("operation {:#x} is not done here", u32::from(operation));
                Err(failure(ResultReason::OperationNotSupported, text))
            }
        }
    }

    /// The object of this name, if the client may know of it. What it may not know of and what is not there look alike.
    pub(super) async fn find(&self, operation: &str, id: &str) -> Result<Found, Failure> {
        let ring = &self.server.ring;
        let is_for = |owner: &str| self.client.is_for(owner);
        if let Some(sha256) = id.strip_prefix(objects::CERTIFICATE_PREFIX) {
            let found = ring.certificate(sha256, is_for).await;
            let Searched { found, scanned } = found.map_err(|error| store_failure(&error))?;
            self.scanned.fetch_or(scanned, Ordering::AcqRel);
            return match found {
                Some(certificate) => Ok(Found::Certificate(certificate)),
                None => Err(self.not_found(operation, id, "", NO_SUCH_OBJECT)),
            };
        }
        let entry = ring.entry(id).await.map_err(|error| store_failure(&error))?;
        match entry {
            Some(entry) if is_for(&entry.owner) => Ok(Found::Key(entry)),
            Some(entry) => Err(self.not_found(operation, id, &entry.owner, NOT_ENTITLED)),
            None => Err(self.not_found(operation, id, "", NO_SUCH_OBJECT)),
        }
    }

    pub(super) fn not_found(
        &self,
        operation: &str,
        id: &str,
        owner: &str,
        reason: &str,
    ) -> Failure {
        let event = Event { operation, key: id, owner, outcome: REFUSED, reason, ..self.event() };
        self.refuse(event, ResultReason::ItemNotFound, "no such object")
    }

    /// An event with who it was.
    pub(super) fn event(&self) -> Event<'_> {
        Event { client: &self.client.name, peer: &self.client.peer, ..Event::default() }
    }

    /// Whether the client may do this with anything; else an audited refusal.
    pub(super) fn entitled(
        &self,
        operation: KeyOperation,
        name: &str,
        entry: &KeyEntry,
    ) -> Result<(), Failure> {
        if self.client.may(operation) {
            return Ok(());
        }
        let sha256 = entry.certificate.fingerprint().to_string();
        let event = Event {
            operation: name,
            outcome: REFUSED,
            reason: "not among the relay's operations",
            ..self.event_of(entry, &sha256)
        };
        Err(self.refuse(event, ResultReason::PermissionDenied, "you may not do this"))
    }

    /// An event with whose key it is.
    pub(super) fn event_of<'a>(&'a self, entry: &'a KeyEntry, sha256: &'a str) -> Event<'a> {
        event_of(self.client, entry, sha256)
    }

    /// Writes a refusal down and makes the answer of it.
    pub(super) fn refuse(&self, event: Event<'_>, reason: ResultReason, text: &str) -> Failure {
        match self.record(&event) {
            Ok(()) => failure(reason, text),
            Err(failure) => failure,
        }
    }

    /// Writes an event down.
    ///
    /// # Errors
    /// The failure to answer with, where it cannot be.
    pub(super) fn record(&self, event: &Event<'_>) -> Result<(), Failure> {
        let key = event.key.get(..IDENTIFIER_BYTES_MAX).unwrap_or(event.key);
        let event = Event { key: if key.is_ascii() { key } else { "?" }, ..event.clone() };
        self.server.audit.record(&event).map_err(|_| not_audited())
    }

    /// Writes down how a change ended, which has happened, or not, whatever becomes of the line.
    ///
    /// # Errors
    /// The failure to answer with: not one that says that nothing is done.
    pub(super) fn record_end(&self, event: &Event<'_>) -> Result<(), Failure> {
        self.record(event).map_err(|_| ended_unaudited(event))
    }

    async fn activate(&self, id: String) -> Result<Response, Failure> {
        if !self.pending.holds(&id)
            && let Found::Key(entry) = self.find("activate", &id).await?
            && entry.state != KeyState::Active
        {
            let text = "this key was revoked, for good";
            return Err(failure(ResultReason::IllegalOperation, text));
        }
        Ok(Response::Done { id })
    }

    /// From now on the key signs no more (KMIP 1.4 §4.20). A certificate's revocation is its issuer's affair: nothing is marked.
    async fn revoke(&self, id: String, reason: RevocationReason) -> Result<Response, Failure> {
        if self.pending.holds(&id) {
            return Ok(Response::Done { id });
        }
        let Found::Key(entry) = self.find("revoke", &id).await? else {
            return Ok(Response::Done { id });
        };
        self.entitled(KeyOperation::Destroy, "revoke", &entry)?;
        let state = match reason {
            RevocationReason::KeyCompromise | RevocationReason::CaCompromise => {
                KeyState::Compromised
            }
            _ => KeyState::Deactivated,
        };
        let sha256 = entry.certificate.fingerprint().to_string();
        let event = |outcome| Event {
            operation: "revoke",
            outcome,
            reason: state.as_str(),
            ..self.event_of(&entry, &sha256)
        };
        self.record(&event("begun"))?;
        let revoked = self.server.ring.revoke(&id, state).await;
        self.record_end(&event(if revoked.is_ok() { DONE } else { FAILED }))?;
        // Revoked as badly already: it is as it is wanted.
        revoked.map_err(|error| store_failure(&error))?;
        Ok(Response::Done { id })
    }

    async fn destroy(&mut self, id: String) -> Result<Response, Failure> {
        if self.pending.remove(&id) {
            return Ok(Response::Done { id });
        }
        let Found::Key(entry) = self.find("destroy", &id).await? else {
            let text = "a certificate goes with its private key: destroy that";
            return Err(failure(ResultReason::IllegalOperation, text));
        };
        self.entitled(KeyOperation::Destroy, "destroy", &entry)?;
        let sha256 = entry.certificate.fingerprint().to_string();
        let event =
            |outcome| Event { operation: "destroy", outcome, ..self.event_of(&entry, &sha256) };
        self.record(&event("begun"))?;
        let removed = self.server.ring.remove(&id).await;
        let done = matches!(removed, Ok(true));
        self.record_end(&event(if done { DONE } else { FAILED }))?;
        match removed {
            Ok(true) => Ok(Response::Done { id }),
            Ok(false) => Err(failure(ResultReason::ItemNotFound, "no such object")),
            Err(error) => Err(store_failure(&error)),
        }
    }
}

fn query(functions: &[QueryFunction]) -> Response {
    let asked = |function| functions.contains(&function);
    Response::Query {
        operations: if asked(QueryFunction::Operations) { OPERATIONS.to_vec() } else { Vec::new() },
        vendor: asked(QueryFunction::ServerInformation).then(|| "sealgate".to_owned()),
    }
}

/// An answer that says no.
pub(super) fn failure(reason: ResultReason, message: impl Into<String>) -> Failure {
    Failure { reason, message: message.into() }
}

/// The store cannot; what exactly is in the log, and no client's affair.
pub(super) fn store_failure(error: &StoreError) -> Failure {
    tracing::error!(%error, "the key store failed");
    failure(ResultReason::GeneralFailure, "the key store failed, try again later")
}

/// An event with who it was and whose key it is.
pub(super) fn event_of<'a>(client: &'a Client, entry: &'a KeyEntry, sha256: &'a str) -> Event<'a> {
    Event {
        client: &client.name,
        peer: &client.peer,
        owner: &entry.owner,
        key: &entry.id,
        certificate: sha256,
        purpose: entry.purpose.as_str(),
        ..Event::default()
    }
}

/// What is not written down must not happen.
pub(super) fn not_audited() -> Failure {
    failure(ResultReason::GeneralFailure, "the audit cannot be written, nothing is done")
}

/// The change is made, or has failed, and the line that says so is missing.
fn ended_unaudited(event: &Event<'_>) -> Failure {
    let text = if event.outcome == DONE {
        "this is done, but the audit of it could not be written: do not repeat it"
    } else {
        "this has failed, and the audit of it could not be written"
    };
    failure(ResultReason::GeneralFailure, format!("{}: {text}", event.operation))
}

/// Whether a key is for this, by its purpose and its certificate's key usage.
pub(super) fn serves(entry: &KeyEntry, wanted: KeyPurpose) -> bool {
    let allowed = |certificate: &Certificate| match wanted {
        KeyPurpose::Encrypt => certificate.may_encrypt(),
        KeyPurpose::Sign => certificate.may_sign(),
        KeyPurpose::Both => certificate.may_sign() && certificate.may_encrypt(),
    };
    entry.purpose.serves(wanted) && allowed(&entry.certificate)
}

/// Outcomes of the audit.
pub(super) const DONE: &str = "done";
pub(super) const FAILED: &str = "failed";
pub(super) const REFUSED: &str = "refused";
/// An operation of the audit.
pub(super) const LOCATE: &str = "locate";
/// Reasons of the audit.
pub(super) const NOT_ENTITLED: &str = "not this relay's owner";
const NO_SUCH_OBJECT: &str = "no such object";
/// Identifiers of ours are shorter.
const IDENTIFIER_BYTES_MAX: usize = 128;
const OPERATIONS: [Operation; 11] = [
    Operation::Activate,
    Operation::Decrypt,
    Operation::Destroy,
    Operation::DiscoverVersions,
    Operation::Get,
    Operation::GetAttributes,
    Operation::Locate,
    Operation::Query,
    Operation::Register,
    Operation::Revoke,
    Operation::Sign,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_made_is_never_called_undone() {
        let event = |outcome| Event { operation: "destroy", outcome, ..Event::default() };
        let done = ended_unaudited(&event(DONE)).message;
        assert!(done.contains("this is done") && !done.contains("nothing is done"), "{done}");
        let failed = ended_unaudited(&event(FAILED)).message;
        assert!(failed.contains("has failed"), "{failed}");
    }
}
