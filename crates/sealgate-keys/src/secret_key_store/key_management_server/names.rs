//! Names of an owner's objects, and what is found under them at a server.

use super::keeper::{Fault, Found, KeyFacts, There, unusable};
use super::pairing::{self, Pair};
use crate::kmip::attribute::Attribute;
use crate::kmip::enumeration::ObjectType;
use crate::owner::Owner;

/// The templates.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) key: String,
    pub(super) certificate: String,
}

impl Names {
    pub(super) fn of_key(&self, owner: &str) -> Attribute {
        Attribute::Name(self.key_name(owner))
    }

    fn key_name(&self, owner: &str) -> String {
        self.key.replace(ADDRESS, owner)
    }

    pub(super) fn of_certificate(&self, owner: &str) -> Attribute {
        Attribute::Name(self.certificate.replace(ADDRESS, owner))
    }

    /// Identifiers of an owner's private keys.
    pub(super) fn keys(&self, there: &There<'_>, owner: &str) -> Result<Vec<String>, Fault> {
        there.locate(vec![Attribute::ObjectType(ObjectType::PrivateKey), self.of_key(owner)])
    }

    /// Sees that what was found under an owner's name has it. A server that found something else would have somebody sign
    /// with another's key; names are compared as addresses are, and a server that tells none is believed.
    pub(super) fn confirm(&self, owner: &str, id: &str, facts: &KeyFacts) -> Result<(), Fault> {
        let wanted = self.key_name(owner);
        if facts.names.is_empty() || facts.names.iter().any(|one| one.eq_ignore_ascii_case(&wanted))
        {
            return Ok(());
        }
        let names = facts.names.join("`, `");
        let why = format!("the server gave it for the name `{wanted}`, and its name is `{names}`");
        Err(unusable(id, why))
    }

    /// An owner's certificates, those of the issuers among them.
    pub(super) fn certificates(&self, there: &There<'_>, owner: &str) -> Result<Vec<Found>, Fault> {
        let ids = there.locate(vec![
            Attribute::ObjectType(ObjectType::Certificate),
            self.of_certificate(owner),
        ])?;
        ids.into_iter().map(|id| there.certificate(id)).collect()
    }

    /// An owner's keys with their certificates.
    pub(super) fn find(&self, there: &There<'_>, owner: &str) -> Result<Vec<Pair>, Fault> {
        let ids = self.keys(there, owner)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        pairing::pair(there, self, owner, ids, &self.certificates(there, owner)?)
    }

    /// The owner in a name made after our template.
    pub(super) fn owner_in(&self, attribute: &Attribute) -> Option<String> {
        let Attribute::Name(name) = attribute else { return None };
        let (before, after) = self.key.split_once(ADDRESS)?;
        let owner = name.strip_prefix(before)?.strip_suffix(after)?;
        owner.parse::<Owner>().ok().map(|owner| owner.lookup_key())
    }
}

/// In the templates of names.
const ADDRESS: &str = "{address}";
