//! The handle of a key at a key management server: it asks a server to sign and to decrypt.
//!
//! The key itself is fetched only where the server has no such operation, or does not do it with this key whatever is
//! asked: parameters that a mail's sender chose never decide that. What is fetched is used only while the server says that
//! the key is in use.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sealgate_core::keys::{
    Certificate, KeyError, KeyTransport, SecretKey, SignatureScheme, SoftwareKey,
};
use zeroize::Zeroizing;

use super::keeper::{Fault, Keeper, KeyFacts, There, unusable};
use super::key_use::{Act, NotDone};
use super::pairing::{self, Pair, Proof, is_of_the_moment};
use super::{KmipGet, Names};
use crate::error::StoreError;
use crate::kmip::enumeration::{Operation, ResultReason, State};
use crate::secret_key_store::NewSecretKey;
use crate::secret_key_store::proof::{self, KNOWN_TEXT};

/// The handle.
pub(super) struct KmipKey {
    keeper: Arc<Keeper>,
    names: Arc<Names>,
    /// Whose key it is.
    owner: String,
    /// For whom it is used: an originator, or a recipient; the owner where nobody is named.
    address: String,
    certificate: Arc<Certificate>,
    /// The key at each server that was asked.
    places: Mutex<HashMap<usize, Arc<Place>>>,
    is_gone: AtomicBool,
}

/// The key at one server.
struct Place {
    id: String,
    /// Where the key is in its life, and when the server said so.
    state: Mutex<Option<(Instant, Option<State>)>>,
    /// The key itself, where the server cannot use it.
    fetched: OnceLock<SoftwareKey>,
    /// Whether the server signs, or decrypts, with this key at all.
    signs: OnceLock<bool>,
    decrypts: OnceLock<bool>,
}

/// Why there is no result.
enum Trouble {
    /// This server is away: another may be asked.
    Away(String),
    Key(KeyError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Away(why) => Self::Away(why),
            Fault::Said(error) => Self::Key(KeyError::Unavailable(error.to_string())),
        }
    }
}

impl fmt::Debug for KmipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmipKey({} for {})", self.owner, self.address)
    }
}

impl Place {
    fn new(id: String, facts: KeyFacts, fetched: Option<SoftwareKey>) -> Self {
        Self {
            id,
            state: Mutex::new(Some((Instant::now(), facts.state))),
            fetched: fetched.map_or_else(OnceLock::new, OnceLock::from),
            signs: OnceLock::new(),
            decrypts: OnceLock::new(),
        }
    }

    /// What the server said not longer than [`STATE_AGE_MAX`] ago.
    fn recent_state(&self) -> Option<Option<State>> {
        let (at, state) = (*self.known_state())?;
        (at.elapsed() < STATE_AGE_MAX).then_some(state)
    }

    fn known_state(&self) -> MutexGuard<'_, Option<(Instant, Option<State>)>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KmipKey {
    /// The handle of a key that was found at a server.
    pub(super) fn new(
        keeper: &Arc<Keeper>,
        names: &Arc<Names>,
        [owner, address]: [&str; 2],
        server: usize,
        pair: Pair,
    ) -> Self {
        let Pair { id, facts, certificate, fetched } = pair;
        let place = Arc::new(Place::new(id, facts, fetched));
        Self {
            keeper: Arc::clone(keeper),
            names: Arc::clone(names),
            owner: owner.to_owned(),
            address: address.to_owned(),
            certificate,
            places: Mutex::new(HashMap::from([(server, place)])),
            is_gone: AtomicBool::new(false),
        }
    }

    /// Lets the first server that can be reached do it.
    fn act(&self, act: Act<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let mut reasons = self.keeper.client.why_away();
        for at in self.keeper.client.in_order() {
            if let Some(done) = self.act_at_hand(at.index(), act) {
                return done;
            }
            let there = self.keeper.visit(at).map_err(Trouble::from);
            match there.and_then(|there| self.act_on(&there, act)) {
                Ok(result) => return Ok(result),
                Err(Trouble::Away(why)) => reasons.push(why),
                Err(Trouble::Key(error)) => return Err(error),
            }
        }
        Err(KeyError::Unavailable(reasons.join("; ")))
    }

    /// With the key itself, where it was fetched and is known to be in use: nobody is asked, nor waited for.
    fn act_at_hand(
        &self,
        server: usize,
        act: Act<'_>,
    ) -> Option<Result<Zeroizing<Vec<u8>>, KeyError>> {
        let place = Arc::clone(self.places().get(&server)?);
        let key = place.fetched.get()?;
        let state = place.recent_state()?;
        let may = self.keeper.get != KmipGet::Never && may_act(state, act);
        may.then(|| act.locally(key))
    }

    /// Lets this server do it.
    fn act_on(&self, there: &There<'_>, act: Act<'_>) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        self.act_at(there, &*self.place(there)?, act)
    }

    /// The key at this server; its identifier at another means nothing here.
    fn place(&self, there: &There<'_>) -> Result<Arc<Place>, Trouble> {
        let server = there.visit.index();
        if let Some(place) = self.places().get(&server) {
            return Ok(Arc::clone(place));
        }
        let pairs = self.names.find(there, &self.owner)?;
        let is_its = |pair: &Pair| pair.certificate.der() == self.certificate.der();
        let Some(pair) = pairs.into_iter().find(is_its) else {
            // There may be a newer one.
            self.is_gone.store(true, Ordering::Relaxed);
            let why = format!("server {server} has no key of {} for this certificate", self.owner);
            return Err(Trouble::Key(KeyError::Unavailable(why)));
        };
        let place = Arc::new(Place::new(pair.id, pair.facts, pair.fetched));
        self.places().insert(server, Arc::clone(&place));
        Ok(place)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<usize, Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act_at(
        &self,
        there: &There<'_>,
        place: &Place,
        act: Act<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        if place.fetched.get().is_some() {
            return self.act_here(there, place, act, "it was fetched");
        }
        match self.ask(there, place, act)? {
            Ok(result) => Ok(result),
            Err(NotDone::Fault(fault)) => Err(fault.into()),
            Err(NotDone::Never(why)) => self.act_here(there, place, act, &why),
            Err(NotDone::Refused(failure)) => match failure.reason {
                ResultReason::CryptographicFailure => Err(Trouble::Key(KeyError::Failed)),
                reason if is_of_the_moment(reason) => {
                    if reason == ResultReason::ItemNotFound {
                        // It may be back under another identifier when the mail is tried again, or another in its place.
                        self.places().remove(&there.visit.index());
                        self.is_gone.store(true, Ordering::Relaxed);
                    }
                    Err(Trouble::Key(KeyError::Unavailable(failure.to_string())))
                }
                reason => {
                    // It may have been revoked meanwhile.
                    *place.known_state() = None;
                    self.require_in_use(there, place, act)?;
                    if !self.does(there, place, act.operation())? {
                        return self.act_here(there, place, act, &failure.to_string());
                    }
                    // It does such things, so these parameters are at fault, which are in the mail when it is decrypted.
                    let in_mail = act.operation() == Operation::Decrypt
                        && matches!(
                            reason,
                            ResultReason::InvalidField | ResultReason::FeatureNotSupported
                        );
                    let error = if in_mail {
                        KeyError::Failed
                    } else {
                        KeyError::Unavailable(failure.to_string())
                    };
                    Err(Trouble::Key(error))
                }
            },
        }
    }

    /// Asks the server, and where its answer may mean the ciphertext, once more, since what was of the moment may be over then.
    /// Only what fails twice, while the server decrypts one of ours after each time, is a bad ciphertext. (After the first time
    /// alone that may have been the one use more that a server with a rate limit had to give.)
    fn ask(
        &self,
        there: &There<'_>,
        place: &Place,
        act: Act<'_>,
    ) -> Result<Result<Zeroizing<Vec<u8>>, NotDone>, Trouble> {
        let attempt = || act.at(there, &place.id, &self.address);
        let is_ambiguous = |answer: &Result<_, NotDone>| {
            answer.as_ref().is_err_and(NotDone::may_mean_the_ciphertext)
        };
        let first = attempt();
        let Act::Unwrap(transport) = act else { return Ok(first) };
        if !is_ambiguous(&first) || !self.decrypts_like(there, place, transport)? {
            return Ok(first);
        }
        let second = attempt();
        if !is_ambiguous(&second) {
            return Ok(second);
        }
        let error = if self.decrypts_like(there, place, transport)? {
            KeyError::Failed
        } else {
            KeyError::Unavailable("the server decrypts only now and then".to_owned())
        };
        Err(Trouble::Key(error))
    }

    /// Whether it is the ciphertext that the server cannot decrypt: it decrypts one of ours. Some servers have one answer for
    /// that and for whatever else goes wrong; nobody may learn from our reply which it was.
    fn decrypts_like(
        &self,
        there: &There<'_>,
        place: &Place,
        transport: &KeyTransport<'_>,
    ) -> Result<bool, Trouble> {
        let at = [self.address.as_str(), &place.id];
        Ok(pairing::decrypts_like(there, at, transport, &self.certificate)?)
    }

    /// Whether the server does such a thing with this key, asked with parameters of ours.
    fn does(
        &self,
        there: &There<'_>,
        place: &Place,
        operation: Operation,
    ) -> Result<bool, Trouble> {
        let known = if operation == Operation::Sign { &place.signs } else { &place.decrypts };
        if let Some(known) = known.get() {
            return Ok(*known);
        }
        let (address, id) = (&self.address, &place.id);
        let proof = pairing::prove_by(there, address, id, operation, &self.certificate)?;
        Ok(*known.get_or_init(|| proof != Proof::Refused))
    }

    /// With the key itself, where it may be fetched and is in use.
    fn act_here(
        &self,
        there: &There<'_>,
        place: &Place,
        act: Act<'_>,
        why: &str,
    ) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let unavailable = |why: String| Trouble::Key(KeyError::Unavailable(why));
        if self.keeper.get == KmipGet::Never {
            return Err(unavailable(why.to_owned()));
        }
        self.require_in_use(there, place, act)?;
        let key = match place.fetched.get() {
            Some(key) => key,
            None => {
                let key = there.fetch(&place.id)?;
                if key.public_key_bytes() != self.certificate.public_key_bytes() {
                    return Err(unusable(&place.id, "not the key of its certificate").into());
                }
                place.fetched.get_or_init(|| key)
            }
        };
        act.locally(key).map_err(Trouble::Key)
    }

    /// Refuses what a revoked key does not do; there may be a newer one then.
    fn require_in_use(
        &self,
        there: &There<'_>,
        place: &Place,
        act: Act<'_>,
    ) -> Result<(), Trouble> {
        let state = Self::state(there, place)?;
        if may_act(state, act) {
            return Ok(());
        }
        self.is_gone.store(true, Ordering::Relaxed);
        let state = state.map(|state| format!("{state:?}")).unwrap_or_default();
        let why = format!("object {}: not in use any more: {state}", place.id);
        Err(Trouble::Key(KeyError::Unavailable(why)))
    }

    /// Where the key is in its life, not longer ago than [`STATE_AGE_MAX`].
    fn state(there: &There<'_>, place: &Place) -> Result<Option<State>, Fault> {
        if let Some(state) = place.recent_state() {
            return Ok(state);
        }
        let state = there.facts(&place.id)?.state;
        *place.known_state() = Some((Instant::now(), state));
        Ok(state)
    }
}

impl SecretKey for KmipKey {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.act(Act::Sign(scheme, message)).map(|signature| signature.to_vec())
    }

    fn unwrap(&self, transport: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.act(Act::Unwrap(transport))
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

/// Whether a key in this state may do this itself (KMIP 1.4 §3.22).
fn may_act(state: Option<State>, act: Act<'_>) -> bool {
    match state {
        None | Some(State::Active) => true,
        // What is old may still be read.
        Some(State::Deactivated | State::Compromised) => act.operation() == Operation::Decrypt,
        Some(_) => false,
    }
}

/// Whether a key that was just taken in is, at this server, the one that it should be.
pub(super) fn prove(
    handle: &KmipKey,
    there: &There<'_>,
    key: &NewSecretKey,
) -> Result<(), StoreError> {
    let act = |act: Act<'_>| {
        handle.act_on(there, act).map_err(|trouble| match trouble {
            Trouble::Away(why) => why,
            Trouble::Key(error) => error.to_string(),
        })
    };
    let sign = |scheme| act(Act::Sign(scheme, KNOWN_TEXT)).map(|signature| signature.to_vec());
    let unwrap = |transport: &KeyTransport<'_>| act(Act::Unwrap(transport)).map(Some);
    proof::prove_by(key.purpose, &key.certificate, sign, unwrap, proof::in_words).map_err(|why| {
        StoreError::Input(format!("{}: the key management server: {why}", key.owner))
    })
}

/// How long a key that was revoked at the server may be used on here, where it was fetched.
const STATE_AGE_MAX: Duration = Duration::from_secs(10);
