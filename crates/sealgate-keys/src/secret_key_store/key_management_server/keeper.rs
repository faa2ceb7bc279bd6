//! The servers as the store sees them: questions to one of them, and what it is known to do.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sealgate_core::keys::{Certificate, SoftwareKey};

use super::KmipGet;
use crate::error::StoreError;
use crate::import::private_key;
use crate::kmip;
use crate::kmip::attribute::{self, Attribute};
use crate::kmip::client::{At, CallError, Client, Visit};
use crate::kmip::enumeration::{
    CryptographicAlgorithm, Operation, QueryFunction, ResultReason, RevocationReason, State,
};
use crate::kmip::object::Object;
use crate::kmip::request::Request;
use crate::kmip::response::Response;

/// What the handles share.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) get: KmipGet,
    /// What each server can do.
    abilities: Mutex<Vec<Known>>,
}

/// Abilities of one server, as long as it did not go away meanwhile: another may have come back.
#[derive(Debug)]
struct Known {
    server: usize,
    times_away: u64,
    abilities: Arc<Abilities>,
}

/// What a server says that it can do.
#[derive(Debug)]
pub(super) struct Abilities {
    pub(super) operations: Vec<Operation>,
    vendor: Option<String>,
}

impl Abilities {
    pub(super) fn has(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    /// Whether it is sealgate's own, which looks for whom a key is used, and says Cryptographic Failure of every ciphertext that it
    /// cannot decrypt.
    pub(super) fn is_ours(&self) -> bool {
        self.vendor.as_deref() == Some(kmip::VENDOR)
    }
}

/// Why a server gave nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be reached: another may.
    Away(String),
    /// It has answered, and that is that.
    Said(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Said(error)
    }
}

impl Fault {
    /// The error, whoever is asked.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Away(why) => unavailable(why),
            Self::Said(error) => error,
        }
    }
}

/// A certificate at the server.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) certificate: Arc<Certificate>,
}

/// What a server says of a key.
#[derive(Debug, Default)]
pub(super) struct KeyFacts {
    /// Its Certificate Link.
    pub(super) link: Option<String>,
    /// Its Cryptographic Usage Mask.
    pub(super) mask: Option<i32>,
    /// What kind of key it is; a server may not say.
    pub(super) algorithm: Option<CryptographicAlgorithm>,
    /// Where it is in its life; a server may not say.
    pub(super) state: Option<State>,
    /// Its names; a server may not say.
    pub(super) names: Vec<String>,
}

impl KeyFacts {
    /// Whether it may be used for what is new.
    pub(super) fn is_active(&self) -> bool {
        self.state.is_none_or(|state| state == State::Active)
    }
}

impl Keeper {
    pub(super) fn new(client: Client, get: KmipGet) -> Self {
        Self { client, get, abilities: Mutex::default() }
    }

    /// Lets the first server that can be reached do it. What one server answers is no reason to ask the next.
    pub(super) fn on_a_server<T>(
        &self,
        work: impl Fn(&There<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut reasons = self.client.why_away();
        for at in self.client.in_order() {
            match self.visit(at).and_then(|there| work(&there)) {
                Ok(result) => return Ok(result),
                Err(Fault::Away(why)) => reasons.push(why),
                Err(Fault::Said(error)) => return Err(error),
            }
        }
        Err(unavailable(reasons.join("; ")))
    }

    /// As soon as it is one's turn there.
    pub(super) fn visit<'a>(&'a self, at: At<'a>) -> Result<There<'a>, Fault> {
        match at.visit() {
            Ok(visit) => Ok(There { keeper: self, visit }),
            Err(error) => Err(Fault::Away(error.to_string())),
        }
    }

    fn known(&self, at: &Visit<'_>) -> Option<Arc<Abilities>> {
        let known = self.abilities.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |one: &&Known| one.server == at.index() && one.times_away == at.times_away();
        known.iter().find(is).map(|one| Arc::clone(&one.abilities))
    }

    fn learn(&self, server: usize, times_away: u64, abilities: &Arc<Abilities>) {
        let mut known = self.abilities.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| one.server != server);
        known.push(Known { server, times_away, abilities: Arc::clone(abilities) });
    }
}

/// One server. Identifiers and abilities are its own.
#[derive(Debug)]
pub(super) struct There<'a> {
    pub(super) keeper: &'a Keeper,
    pub(super) visit: Visit<'a>,
}

impl There<'_> {
    pub(super) fn ask(&self, request: &Request) -> Result<Response, Fault> {
        self.visit.call(request).map_err(|error| match error {
            CallError::Refused(failure) => Fault::Said(unavailable(failure.to_string())),
            CallError::Unavailable(why) => Fault::Away(why),
        })
    }

    pub(super) fn locate(&self, attributes: Vec<Attribute>) -> Result<Vec<String>, Fault> {
        // One more than we take: a list that was cut off is no answer.
        let maximum = i32::try_from(LOCATED_MAX.saturating_add(1)).ok();
        match self.ask(&Request::Locate { attributes, maximum })? {
            Response::Located(ids) if ids.len() > LOCATED_MAX => {
                let why = format!("more than {LOCATED_MAX} objects under one name");
                Err(Fault::Said(unavailable(why)))
            }
            Response::Located(ids) => Ok(ids),
            other => Err(odd(&other)),
        }
    }

    pub(super) fn certificate(&self, id: String) -> Result<Found, Fault> {
        let answer = self.ask(&Request::Get { id: id.clone(), format: None })?;
        let Response::Got { object: Object::Certificate(der), .. } = &answer else {
            return Err(odd(&answer));
        };
        let certificate = Certificate::from_der(der).map_err(|error| unusable(&id, error))?;
        Ok(Found { id, certificate: Arc::new(certificate) })
    }

    pub(super) fn facts(&self, id: &str) -> Result<KeyFacts, Fault> {
        let names = [
            attribute::LINK,
            attribute::USAGE_MASK,
            attribute::STATE,
            attribute::ALGORITHM,
            attribute::NAME,
        ];
        let mut facts = KeyFacts::default();
        for attribute in self.attributes(id, &names)? {
            match attribute {
                Attribute::CertificateLink(link) => facts.link = Some(link),
                Attribute::Algorithm(algorithm) => facts.algorithm = Some(algorithm),
                Attribute::UsageMask(mask) => facts.mask = Some(mask),
                Attribute::State(state) => facts.state = Some(state),
                Attribute::Name(name) => facts.names.push(name),
                _ => {}
            }
        }
        Ok(facts)
    }

    pub(super) fn attributes(&self, id: &str, names: &[&str]) -> Result<Vec<Attribute>, Fault> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        match self.ask(&Request::GetAttributes { id: id.to_owned(), names })? {
            Response::Attributes { attributes, .. } => Ok(attributes),
            other => Err(odd(&other)),
        }
    }

    /// The key itself.
    pub(super) fn fetch(&self, id: &str) -> Result<SoftwareKey, Fault> {
        let answer = self.ask(&Request::Get { id: id.to_owned(), format: None })?;
        let Response::Got { object: Object::PrivateKey(key), .. } = &answer else {
            return Err(odd(&answer));
        };
        let pkcs8 = private_key::from_der(&key.material);
        let parsed = pkcs8.and_then(|pkcs8| SoftwareKey::from_pkcs8(&pkcs8).ok());
        parsed.ok_or_else(|| unusable(id, "no private key that we can read"))
    }

    /// What this server can do; asked once, and again after it was away.
    pub(super) fn abilities(&self) -> Result<Arc<Abilities>, Fault> {
        if let Some(known) = self.keeper.known(&self.visit) {
            return Ok(known);
        }
        let times_away = self.visit.times_away();
        let functions = vec![QueryFunction::Operations, QueryFunction::ServerInformation];
        let answer = self.ask(&Request::Query(functions))?;
        let Response::Query { operations, vendor } = answer else { return Err(odd(&answer)) };
        let abilities = Arc::new(Abilities { operations, vendor });
        self.keeper.learn(self.visit.index(), times_away, &abilities);
        Ok(abilities)
    }

    /// Where it cannot be destroyed it stays, which does no harm.
    pub(super) fn destroy(&self, id: &str) {
        let _ = self.visit.call(&revocation(id));
        if let Err(error) = self.visit.call(&Request::Destroy { id: id.to_owned() }) {
            tracing::debug!(%error, id, "an object stays at the key management server");
        }
    }
}

/// Before an object is destroyed.
pub(super) fn revocation(id: &str) -> Request {
    Request::Revoke { id: id.to_owned(), reason: RevocationReason::CessationOfOperation }
}

pub(super) fn odd(answer: &Response) -> Fault {
    Fault::Said(unavailable(format!("an odd answer: {answer:?}")))
}

pub(super) fn unusable(id: &str, why: impl fmt::Display) -> Fault {
    Fault::Said(unavailable(format!("object {id}: {why}")))
}

pub(super) fn unavailable(why: String) -> StoreError {
    StoreError::Unavailable { store: "key management server".to_owned(), why }
}

/// What a server says against taking in or giving up a key.
pub(super) fn refused(owner: &str, error: CallError) -> Fault {
    match error {
        CallError::Refused(failure) if failure.reason != ResultReason::GeneralFailure => {
            let text = format!("{owner}: the key management server refuses: {failure}");
            Fault::Said(StoreError::Input(text))
        }
        CallError::Refused(failure) => Fault::Said(unavailable(failure.to_string())),
        CallError::Unavailable(why) => Fault::Away(why),
    }
}

/// Objects of one answer.
const LOCATED_MAX: usize = 10_000;
