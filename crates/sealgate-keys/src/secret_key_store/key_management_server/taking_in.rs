//! Taking in a key: its certificate, those of its issuers, the key with a link to its certificate, and a proof that it is
//! usable there. What was cut off in the middle is gone on with: a certificate without its key gets the key, a key that was
//! not activated is activated.

use std::sync::Arc;

use sealgate_core::keys::{Certificate, KeyKind};
use zeroize::Zeroizing;

use super::handle::{self, KmipKey};
use super::keeper::{Fault, Found, KeyFacts, There, odd, refused};
use super::pairing::{self, Pair, Proof};
use super::{KeyManagementServer, KmipGet, usage_of};
use crate::error::StoreError;
use crate::kmip::attribute::Attribute;
use crate::kmip::client::{CallError, Session};
use crate::kmip::enumeration::{CryptographicAlgorithm, KeyFormat, ResultReason, State};
use crate::kmip::object::{Object, PrivateKey};
use crate::kmip::request::Request;
use crate::kmip::response::Response;
use crate::secret_key_store::NewSecretKey;

/// One key that is being taken in.
struct TakingIn<'a> {
    store: &'a KeyManagementServer,
    there: &'a There<'a>,
    session: Session,
    key: &'a NewSecretKey,
    /// What was made so far, to be undone.
    made: Vec<String>,
}

impl KeyManagementServer {
    /// Takes in a key at the first server that can be reached; what fails after that fails, or the key would be in two
    /// servers by halves.
    pub(super) fn insert_one(&self, key: &NewSecretKey) -> Result<(), StoreError> {
        self.keeper.on_a_server(|there| {
            let known = self.names.certificates(there, &key.owner)?;
            self.insert_at(there, key, &known).map_err(|fault| Fault::Said(fault.into_error()))
        })
    }

    fn insert_at(
        &self,
        there: &There<'_>,
        key: &NewSecretKey,
        known: &[Found],
    ) -> Result<(), Fault> {
        let is_its = |found: &&Found| found.certificate.der() == key.certificate.der();
        let registered = known.iter().find(is_its);
        if let Some(found) = registered
            && let Some((id, facts)) = self.holder(there, key, found)?
        {
            if facts.state != Some(State::PreActive) {
                let what = format!("{}: this key is at the key management server", key.owner);
                return Err(StoreError::Exists(what).into());
            }
            let activated = there.visit.call(&Request::Activate { id: id.clone() });
            activated.map_err(|error| refused(&key.owner, error))?;
            return self.prove(there, key, id);
        }
        let session = there.visit.session().map_err(|error| refused(&key.owner, error))?;
        let mut taking_in = TakingIn { store: self, there, session, key, made: Vec::new() };
        let certificate = registered.map(|found| found.id.clone());
        let done = taking_in.register(certificate, known).and_then(|id| self.prove(there, key, id));
        // Where the server went away nothing can be undone; the next time goes on from there.
        if let Err(Fault::Said(_)) = &done {
            taking_in.made.iter().rev().for_each(|id| there.destroy(id));
        }
        done
    }

    /// The key that a certificate's registration led to, if it did.
    fn holder(
        &self,
        there: &There<'_>,
        key: &NewSecretKey,
        found: &Found,
    ) -> Result<Option<(String, KeyFacts)>, Fault> {
        for id in self.names.keys(there, &key.owner)? {
            let facts = there.facts(&id)?;
            let is_it = match &facts.link {
                Some(link) => *link == found.id,
                None => self.is_same(there, key, &id, &facts)?,
            };
            if is_it {
                return Ok(Some((id, facts)));
            }
        }
        Ok(None)
    }

    fn is_same(
        &self,
        there: &There<'_>,
        key: &NewSecretKey,
        id: &str,
        facts: &KeyFacts,
    ) -> Result<bool, Fault> {
        let proof = pairing::prove(there, &key.owner, id, facts, &key.certificate)?;
        if proof == Proof::Refused && self.keeper.get == KmipGet::IfNeeded {
            let fetched = there.fetch(id)?;
            return Ok(fetched.public_key_bytes() == key.certificate.public_key_bytes());
        }
        Ok(proof == Proof::Right)
    }

    fn prove(&self, there: &There<'_>, key: &NewSecretKey, id: String) -> Result<(), Fault> {
        let certificate = Arc::clone(&key.certificate);
        let pair = Pair { facts: there.facts(&id)?, id, certificate, fetched: None };
        let whose = [key.owner.as_str(); 2];
        let handle = KmipKey::new(&self.keeper, &self.names, whose, there.visit.index(), pair);
        handle::prove(&handle, there, key).map_err(Fault::Said)
    }
}

impl TakingIn<'_> {
    /// Registers what is missing, and activates the key.
    fn register(&mut self, certificate: Option<String>, known: &[Found]) -> Result<String, Fault> {
        let key = self.key;
        let name = self.store.names.of_certificate(&key.owner);
        // Our own key server takes a key only with the certificate before it.
        let certificate = match certificate {
            Some(id) => id,
            None => self.one(certificate_object(&key.certificate), vec![name.clone()])?,
        };
        for issuer in &key.chain {
            if !known.iter().any(|found| found.certificate.der() == issuer.der()) {
                self.one(certificate_object(issuer), vec![name.clone()])?;
            }
        }
        let id = self.private_key(certificate)?;
        let activated = self.session.call(&Request::Activate { id: id.clone() });
        activated.map_err(|error| refused(&key.owner, error))?;
        Ok(id)
    }

    /// The key with a link to its certificate; without, at a server that takes no links.
    fn private_key(&mut self, certificate: String) -> Result<String, Fault> {
        let key = self.key;
        let mut attributes = vec![
            self.store.names.of_key(&key.owner),
            Attribute::UsageMask(usage_of(key.purpose)),
            Attribute::CertificateLink(certificate),
        ];
        let request = Request::Register { object: key_object(key), attributes: attributes.clone() };
        match self.session.call(&request) {
            Ok(Response::Done { id }) => {
                self.made.push(id.clone());
                Ok(id)
            }
            Ok(other) => Err(odd(&other)),
            Err(CallError::Refused(failure)) if takes_no_link(failure.reason) => {
                tracing::debug!(%failure, "registered without a link to its certificate");
                attributes.pop();
                // Some servers end a connection over an attribute that they cannot read.
                let session = self.there.visit.session();
                self.session = session.map_err(|error| refused(&key.owner, error))?;
                self.one(key_object(key), attributes)
            }
            Err(error) => Err(refused(&key.owner, error)),
        }
    }

    fn one(&mut self, object: Object, attributes: Vec<Attribute>) -> Result<String, Fault> {
        match self.session.call(&Request::Register { object, attributes }) {
            Ok(Response::Done { id }) => {
                self.made.push(id.clone());
                Ok(id)
            }
            Ok(other) => Err(odd(&other)),
            Err(error) => Err(refused(&self.key.owner, error)),
        }
    }
}

/// What a server may say of an attribute that it does not have. Our own takes links, and says none of these without
/// another reason, which the second attempt meets too where it is not about certificates that wait in the connection.
fn takes_no_link(reason: ResultReason) -> bool {
    matches!(
        reason,
        ResultReason::FeatureNotSupported
            | ResultReason::GeneralFailure
            | ResultReason::IllegalOperation
            | ResultReason::InvalidField
            | ResultReason::InvalidMessage
    )
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
