//! Which certificate a key at a server belongs to: the one that its Certificate Link names, unless another key claims it
//! too, else the one that it is proven to be the other half of, by one use of it with parameters of ours. A key that
//! belongs to none is an error: as an absence it would let mail out unsigned, and in unread.

use std::collections::HashMap;
use std::sync::Arc;

use sealgate_core::keys::{Certificate, Fingerprint, KeyKind, KeyTransport, SoftwareKey};

use super::keeper::{Fault, Found, KeyFacts, There, unusable};
use super::key_use::{Act, NotDone};
use super::names::Names;
use super::{KmipGet, usage_of};
use crate::kmip::enumeration::{CryptographicAlgorithm, Operation, ResultReason, State, usage};
use crate::secret_key_store::KeyPurpose;
use crate::secret_key_store::proof::{DecryptingProof, KNOWN_TEXT, SigningProof};

/// A key and its certificate.
pub(super) struct Pair {
    pub(super) id: String,
    pub(super) facts: KeyFacts,
    pub(super) certificate: Arc<Certificate>,
    /// The key itself, where only that could tell.
    pub(super) fetched: Option<SoftwareKey>,
}

/// A key, and the certificate that its link names.
struct Claim {
    id: String,
    facts: KeyFacts,
    linked: Option<Arc<Certificate>>,
}

impl Claim {
    /// What only signed and was revoked.
    fn is_done_with(&self) -> bool {
        let signs_only =
            |certificate: &Arc<Certificate>| KeyPurpose::of(certificate) == Some(KeyPurpose::Sign);
        self.linked.as_ref().is_some_and(signs_only)
            && !self.facts.is_active()
            && self.facts.state != Some(State::PreActive)
    }
}

/// What a use of a key says about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is the certificate's key.
    Right,
    /// It is another.
    Wrong,
    /// The server does not do it with this key.
    Refused,
}

/// All keys of an owner with their certificates. Of keys that are the same the first that is in use is taken.
pub(super) fn pair(
    there: &There<'_>,
    names: &Names,
    owner: &str,
    ids: Vec<String>,
    certificates: &[Found],
) -> Result<Vec<Pair>, Fault> {
    let claims = claims(there, names, owner, ids, certificates)?;
    let mut links: HashMap<Fingerprint, usize> = HashMap::new();
    for linked in claims.iter().filter_map(|claim| claim.linked.as_ref()) {
        let count = links.entry(linked.fingerprint()).or_default();
        *count = count.saturating_add(1);
    }
    let mut pairs: Vec<Pair> = Vec::with_capacity(claims.len());
    for Claim { id, facts, linked } in claims {
        // A link may be wrong: where two keys claim a certificate each must show whether it is its key.
        let is_contested = linked.as_ref().is_some_and(|linked| {
            links.get(&linked.fingerprint()).is_some_and(|count| *count > 1)
                || pairs.iter().any(|pair| pair.certificate.der() == linked.der())
        });
        let (certificate, fetched) = match linked {
            Some(certificate) if !is_contested => (Some(certificate), None),
            _ => by_proof(there, owner, &id, &facts, certificates)?,
        };
        let Some(certificate) = certificate else {
            let why = format!(
                "this key of {owner} has no certificate at the server: register that under its owner's name, or \
                 destroy the key"
            );
            return Err(unusable(&id, why));
        };
        let same = pairs.iter_mut().find(|pair| pair.certificate.der() == certificate.der());
        let pair = Pair { id, facts, certificate, fetched };
        match same {
            None => pairs.push(pair),
            Some(same) if pair.facts.is_active() && !same.facts.is_active() => *same = pair,
            Some(_) => {}
        }
    }
    // What was revoked and turned out to sign only is done with too. What is not in use yet waits where another signs;
    // where none does, that is an error when it is tried.
    let signs = |pair: &Pair| pair.facts.is_active() && pair.certificate.may_sign();
    let is_signed_for = pairs.iter().any(signs);
    pairs.retain(|pair| {
        KeyPurpose::of(&pair.certificate) != Some(KeyPurpose::Sign)
            || pair.facts.is_active()
            || (pair.facts.state == Some(State::PreActive) && !is_signed_for)
    });
    Ok(pairs)
}

/// What is known of the keys, without those that are done with; those that have no link come first.
fn claims(
    there: &There<'_>,
    names: &Names,
    owner: &str,
    ids: Vec<String>,
    certificates: &[Found],
) -> Result<Vec<Claim>, Fault> {
    let mut claims = Vec::with_capacity(ids.len());
    for id in ids {
        let facts = there.facts(&id)?;
        names.confirm(owner, &id, &facts)?;
        let link = facts.link.clone();
        let linked = link.map(|link| linked(there, link, certificates)).transpose()?;
        claims.push(Claim { id, facts, linked });
    }
    claims.retain(|claim| !claim.is_done_with());
    claims.sort_by_key(|claim| claim.linked.is_some());
    Ok(claims)
}

fn linked(
    there: &There<'_>,
    link: String,
    certificates: &[Found],
) -> Result<Arc<Certificate>, Fault> {
    match certificates.iter().find(|found| found.id == link) {
        Some(found) => Ok(Arc::clone(&found.certificate)),
        // Under another name, or none.
        None => there.certificate(link).map(|found| found.certificate),
    }
}

type Proven = (Option<Arc<Certificate>>, Option<SoftwareKey>);

fn by_proof(
    there: &There<'_>,
    owner: &str,
    id: &str,
    facts: &KeyFacts,
    certificates: &[Found],
) -> Result<Proven, Fault> {
    let mut is_refused = false;
    for found in certificates.iter().filter(|found| fits(facts, &found.certificate)) {
        match prove(there, owner, id, facts, &found.certificate)? {
            Proof::Right => return Ok((Some(Arc::clone(&found.certificate)), None)),
            Proof::Wrong => {}
            Proof::Refused => is_refused = true,
        }
    }
    if !is_refused || there.keeper.get != KmipGet::IfNeeded {
        return Ok((None, None));
    }
    let key = there.fetch(id)?;
    let is_its = |found: &&Found| found.certificate.public_key_bytes() == key.public_key_bytes();
    let found = certificates.iter().find(is_its);
    Ok((found.map(|found| Arc::clone(&found.certificate)), Some(key)))
}

fn fits(facts: &KeyFacts, certificate: &Certificate) -> bool {
    let purpose = KeyPurpose::of(certificate);
    let serves = |mask| purpose.is_some_and(|purpose| usage_of(purpose) & mask != 0);
    let is_rsa = matches!(certificate.key_kind(), KeyKind::Rsa { .. });
    let is_of_kind = |algorithm| (algorithm == CryptographicAlgorithm::Rsa) == is_rsa;
    !certificate.is_authority()
        && facts.mask.is_none_or(serves)
        && facts.algorithm.is_none_or(is_of_kind)
}

/// Uses a key as its mask says, and looks whether it is a certificate's.
pub(super) fn prove(
    there: &There<'_>,
    address: &str,
    id: &str,
    facts: &KeyFacts,
    certificate: &Certificate,
) -> Result<Proof, Fault> {
    let does = |bit: i32| facts.mask.is_none_or(|mask| mask & bit != 0);
    for (bit, operation) in [(usage::SIGN, Operation::Sign), (usage::DECRYPT, Operation::Decrypt)] {
        if does(bit) {
            let proof = prove_by(there, address, id, operation, certificate)?;
            if proof != Proof::Refused {
                return Ok(proof);
            }
        }
    }
    Ok(Proof::Refused)
}

/// Whether the server decrypts now, with this key, what came to us in the same way as a mail's key did.
pub(super) fn decrypts_like(
    there: &There<'_>,
    [address, id]: [&str; 2],
    transport: &KeyTransport<'_>,
    certificate: &Certificate,
) -> Result<bool, Fault> {
    let Some(proof) = DecryptingProof::like(transport, certificate) else { return Ok(false) };
    Ok(by_decrypting(there, [address, id], &proof)? == Proof::Right)
}

/// The same by one operation.
pub(super) fn prove_by(
    there: &There<'_>,
    address: &str,
    id: &str,
    operation: Operation,
    certificate: &Certificate,
) -> Result<Proof, Fault> {
    if operation == Operation::Sign {
        return by_signing(there, address, id, certificate);
    }
    // There are servers that do no PKCS #1 v1.5.
    let proofs = [DecryptingProof::new(certificate), DecryptingProof::oaep_sha256(certificate)];
    for proof in proofs.into_iter().flatten() {
        let found = by_decrypting(there, [address, id], &proof)?;
        if found != Proof::Refused {
            return Ok(found);
        }
    }
    Ok(Proof::Refused)
}

fn by_signing(
    there: &There<'_>,
    address: &str,
    id: &str,
    certificate: &Certificate,
) -> Result<Proof, Fault> {
    let Some(proof) = SigningProof::new(certificate) else { return Ok(Proof::Refused) };
    match Act::Sign(proof.scheme, KNOWN_TEXT).at(there, id, address) {
        Ok(signature) if proof.is_met_by(certificate, &signature) => Ok(Proof::Right),
        Ok(_) => Ok(Proof::Wrong),
        // A key of another kind fails too.
        Err(NotDone::Refused(failure)) if failure.reason == ResultReason::CryptographicFailure => {
            Ok(Proof::Refused)
        }
        Err(other) => not_done(other),
    }
}

fn by_decrypting(
    there: &There<'_>,
    [address, id]: [&str; 2],
    proof: &DecryptingProof,
) -> Result<Proof, Fault> {
    match Act::Unwrap(&proof.transport()).at(there, id, address) {
        Ok(plain) if proof.is_met_by(&plain) => Ok(Proof::Right),
        Ok(_) => Ok(Proof::Wrong),
        // The padding of another key's ciphertext is wrong.
        Err(NotDone::Refused(failure)) if failure.reason == ResultReason::CryptographicFailure => {
            Ok(Proof::Wrong)
        }
        Err(other) => not_done(other),
    }
}

fn not_done(why: NotDone) -> Result<Proof, Fault> {
    match why {
        NotDone::Fault(fault) => Err(fault),
        NotDone::Refused(failure) if is_of_the_moment(failure.reason) => {
            Err(Fault::Said(super::keeper::unavailable(failure.to_string())))
        }
        NotDone::Never(_) | NotDone::Refused(_) => Ok(Proof::Refused),
    }
}

/// Whether a server may answer otherwise when it is asked again.
pub(super) fn is_of_the_moment(reason: ResultReason) -> bool {
    matches!(
        reason,
        ResultReason::GeneralFailure
            | ResultReason::ItemNotFound
            | ResultReason::AuthenticationNotSuccessful
    )
}
