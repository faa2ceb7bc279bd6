//! The connection to one token: logged in once, found again by its label after it was away.
//!
//! Login is for the whole process; one session stays open so that it lasts. Sessions are closed by hand and only in
//! their own generation, because a module may give the same number again later.

use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::Pkcs11Config;
use super::fault::Fault;
use super::module::{Module, lock};
use crate::error::StoreError;

/// A token and how to come to it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) config: Pkcs11Config,
    module: Arc<Module>,
    standing: Mutex<Option<Standing>>,
    bound: Mutex<Bound>,
    /// Digests, a bit each, with which this token does no OAEP, so that it is unpadded here.
    pub(super) oaep_here: AtomicU8,
}

/// The login.
#[derive(Debug)]
struct Standing {
    generation: u64,
    slot: Slot,
    has_login: bool,
    /// What the token said that it is.
    model: String,
    anchor: Session,
    /// Sessions of threads.
    open: usize,
    /// Whether it has shown a secret key since.
    has_shown_keys: bool,
}

/// How many sessions threads may have.
#[derive(Debug)]
struct Bound {
    most: usize,
    /// So many were open when the token opened no more, and then.
    open_only: Option<(usize, Instant)>,
}

/// A thread's session.
#[derive(Debug)]
pub(super) struct OwnSession {
    generation: u64,
    session: Session,
}

/// What a session is opened for.
#[derive(Clone, Copy, Debug)]
enum Access {
    Read,
    Write,
}

/// A session to work with.
#[derive(Debug)]
pub(super) struct Here<'a> {
    pub(super) connection: &'a Connection,
    pub(super) session: &'a Session,
    /// Object handles are good as long as this is the same.
    pub(super) generation: u64,
    has_login: bool,
}

impl Connection {
    /// Loads the module; the token is looked for on first use.
    ///
    /// # Errors
    /// What the dynamic linker says.
    pub(super) fn new(config: Pkcs11Config) -> Result<Self, String> {
        let module = Module::load(&config.module)?;
        Ok(Self {
            config,
            module,
            standing: Mutex::default(),
            bound: Mutex::new(Bound { most: 1, open_only: None }),
            oaep_here: AtomicU8::new(0),
        })
    }

    /// How many sessions threads may have at once: one until the token has said how many it opens.
    pub(super) fn sessions_max(&self) -> usize {
        let bound = lock(&self.bound);
        match bound.open_only {
            Some((open, since)) if since.elapsed() < SHORT_OF_SESSIONS => open.min(bound.most),
            _ => bound.most,
        }
    }

    /// Does something with a session; where token or session turn out to be gone, starts anew and tries once more.
    pub(super) fn run<T>(
        &self,
        own: &mut Option<OwnSession>,
        work: impl Fn(&Here<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (generation, result) = self.attempt(own, Access::Read, &work);
        match result {
            Err(Fault::Away(why) | Fault::Gone(why)) => {
                tracing::debug!(token = self.config.token, why, "PKCS#11: starting anew");
                self.module.restart(generation)?;
                self.attempt(own, Access::Read, &work).1
            }
            other => other,
        }
    }

    /// Does something once with a session that may write; that the token is there is seen before.
    pub(super) fn change<T>(
        &self,
        own: &mut Option<OwnSession>,
        work: impl Fn(&Here<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.run(own, |here| here.confirm())?;
        // Its own session makes room for it: threads keep theirs, and where they have all that the token opens none
        // would become free.
        self.leave(own.take());
        let (_, result) = self.attempt(own, Access::Write, &work);
        self.leave(own.take());
        result
    }

    /// Closes a thread's session.
    pub(super) fn leave(&self, own: Option<OwnSession>) {
        let gate = self.module.enter();
        if let Some(own) = own.filter(|own| own.generation == gate.generation) {
            // The token may be gone; then so is the session.
            let _ = own.session.close();
            self.count(gate.generation, -1);
        }
    }

    fn attempt<T>(
        &self,
        own: &mut Option<OwnSession>,
        access: Access,
        work: &impl Fn(&Here<'_>) -> Result<T, Fault>,
    ) -> (u64, Result<T, Fault>) {
        let gate = self.module.enter();
        let generation = gate.generation;
        if !gate.is_initialized {
            return (generation, Err(Fault::Away("the module is not initialised".to_owned())));
        }
        let result = self.stand(generation).and_then(|(slot, has_login)| {
            if own.as_ref().is_none_or(|own| own.generation != generation) {
                // One of an older generation is gone.
                *own = None;
                let functions = self.module.functions();
                let session = match access {
                    Access::Read => functions.open_ro_session_no_drop(slot),
                    Access::Write => functions.open_rw_session_no_drop(slot),
                };
                let session = session.map_err(|error| self.no_session(error))?;
                *own = Some(OwnSession { generation, session });
                self.count(generation, 1);
            }
            let own = own.as_ref().ok_or_else(|| Fault::Away("no session".to_owned()))?;
            let session = &own.session;
            work(&Here { connection: self, session, generation, has_login })
        });
        if matches!(result, Err(Fault::Away(_) | Fault::Gone(_)))
            && let Some(own) = own.take().filter(|own| own.generation == generation)
        {
            let _ = own.session.close();
            self.count(generation, -1);
        }
        (generation, result)
    }

    /// A thread's session more, or less.
    fn count(&self, generation: u64, change: isize) {
        if let Some(standing) = lock(&self.standing).as_mut()
            && standing.generation == generation
        {
            standing.open = standing.open.saturating_add_signed(change);
        }
    }

    /// Why a session was not opened. Whatever the token says, it says nothing about what shall be done there: mail waits.
    fn no_session(&self, error: Error) -> Fault {
        if matches!(error, Error::Pkcs11(RvError::SessionCount, _)) {
            // Others use it too. Those that are open must do for a while; threads without one end when they look for work.
            let open = lock(&self.standing).as_ref().map_or(1, |standing| standing.open.max(1));
            lock(&self.bound).open_only = Some((open, Instant::now()));
        }
        self.unavailable(Fault::from(error))
    }

    /// A refusal of something other than the use of a key.
    pub(super) fn unavailable(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Refused(why) => {
                Fault::Store(StoreError::Unavailable { store: self.name(), why })
            }
            other => other,
        }
    }

    /// Slot of the token, logged in.
    fn stand(&self, generation: u64) -> Result<(Slot, bool), Fault> {
        self.log_in_once(generation).map_err(|fault| self.unavailable(fault))
    }

    fn log_in_once(&self, generation: u64) -> Result<(Slot, bool), Fault> {
        let mut standing = lock(&self.standing);
        if let Some(known) = standing.as_ref().filter(|known| known.generation == generation) {
            return Ok((known.slot, known.has_login));
        }
        *standing = None;
        let (slot, token) = self.find_token()?;
        self.limit_sessions(&token);
        let anchor = self.module.functions().open_ro_session_no_drop(slot)?;
        let has_login = token.login_required();
        if has_login && let Err(fault) = self.log_in(&anchor, &token) {
            // A failed login leaves nothing behind, or sessions would add up.
            let _ = anchor.close();
            return Err(fault);
        }
        let has_shown_keys = match shows_keys(&anchor) {
            Ok(shows) => shows,
            Err(error) => {
                let _ = anchor.close();
                return Err(error.into());
            }
        };
        let model = token.model().to_owned();
        let open = 0;
        *standing =
            Some(Standing { generation, slot, has_login, model, anchor, open, has_shown_keys });
        Ok((slot, has_login))
    }

    fn find_token(&self) -> Result<(Slot, TokenInfo), Fault> {
        let functions = self.module.functions();
        let mut labels = Vec::new();
        for slot in functions.get_slots_with_token()?.into_iter().take(SLOTS_MAX) {
            // A slot that cannot be asked is not ours, or is asked again after a restart.
            let Ok(token) = functions.get_token_info(slot) else { continue };
            if token.label() == self.config.token && token.token_initialized() {
                return Ok((slot, token));
            }
            if token.token_initialized() {
                labels.push(format!("`{}`", token.label()));
            }
        }
        let label = &self.config.token;
        let module = self.config.module.display();
        let others = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        Err(Fault::Away(format!("no token `{label}` at {module}; tokens there: {others}")))
    }

    /// One is for the login, and one is left to others.
    fn limit_sessions(&self, token: &TokenInfo) {
        let most = match token.max_session_count() {
            Limit::Max(most) => usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(2),
            Limit::Infinite | Limit::Unavailable => SESSIONS_MAX,
        };
        *lock(&self.bound) = Bound { most: most.clamp(1, SESSIONS_MAX), open_only: None };
    }

    /// A PIN that was refused is not tried again: a few tries lock the token. What other processes tried is known only by the
    /// token's flags: after a wrong PIN somebody who knows the right one must have logged in before a new process tries.
    fn log_in(&self, session: &Session, token: &TokenInfo) -> Result<(), Fault> {
        let source = &self.config.pin;
        let pin = source.read_line().map_err(Fault::Store)?;
        let label = &self.config.token;
        let refuse = |why: &str| Fault::Store(source.error(&format!("token `{label}`: {why}")));
        if self.module.is_refused_pin(label, &pin) {
            return Err(refuse(PIN_REFUSED));
        }
        if token.user_pin_locked() {
            return Err(refuse("its user PIN is locked: unlock it with the vendor's tool"));
        }
        if token.user_pin_final_try() {
            return Err(refuse(
                "one try is left before the PIN is locked, and sealgate does not take it: log in \
                 once with the vendor's tool",
            ));
        }
        if token.user_pin_count_low() && !self.module.has_tried_pin(label) {
            return Err(refuse(
                "a wrong PIN was given to it since its last login, and sealgate does not risk a lock: \
                 see that the PIN there is right and log in once with the vendor's tool",
            ));
        }
        match session.login(UserType::User, Some(&AuthPin::new(pin.as_str().into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.module.accept_pin(label, &pin);
                Ok(())
            }
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
                _,
            )) => {
                self.module.refuse_pin(label, &pin);
                Err(refuse(PIN_REFUSED))
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                self.module.refuse_pin(label, &pin);
                Err(refuse("its user PIN is locked: unlock it with the vendor's tool"))
            }
            Err(error) => Err(Fault::from(error)),
        }
    }

    /// Its name for messages.
    pub(super) fn name(&self) -> String {
        format!("PKCS#11 token {}", self.config.token)
    }

    /// What to say where the token's answer is late.
    pub(super) fn late(&self) -> Fault {
        Fault::Store(StoreError::Unavailable {
            store: self.name(),
            why: "no answer in time".to_owned(),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let standing = self.standing.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(standing) = standing else { return };
        // Who has the module alone starts it anew, which closes all sessions. It may hang there, and must not hold us.
        if let Some(gate) = self.module.try_enter()
            && gate.generation == standing.generation
        {
            let _ = standing.anchor.close();
        }
    }
}

impl Here<'_> {
    /// Sees that the session is logged in still: without it a token shows no secret keys and says no error.
    pub(super) fn confirm(&self) -> Result<(), Fault> {
        let state = self.session.get_session_info()?.session_state();
        let is_user = matches!(state, SessionState::RoUser | SessionState::RwUser);
        if is_user || !self.has_login {
            return Ok(());
        }
        Err(Fault::Away("the login is gone".to_owned()))
    }

    /// Sees that the token shows a secret key still, where it has shown one since the login. A module whose token is away may
    /// know the session and show nothing, and say no error: that is not "no key".
    pub(super) fn confirm_keys(&self) -> Result<(), Fault> {
        let shows = shows_keys(self.session)?;
        let mut standing = lock(&self.connection.standing);
        match standing.as_mut().filter(|standing| standing.generation == self.generation) {
            Some(standing) if !shows && standing.has_shown_keys => {
                Err(Fault::Gone("the token shows no secret key any more".to_owned()))
            }
            Some(standing) => {
                standing.has_shown_keys |= shows;
                Ok(())
            }
            None => Err(Fault::Away("the login is gone".to_owned())),
        }
    }

    /// Whether the token itself answers: some modules know the session's state without it.
    pub(super) fn answers(&self) -> bool {
        match self.session.generate_random_vec(1) {
            Ok(_) => true,
            // It has none to give, and says so.
            Err(Error::Pkcs11(RvError::RandomNoRng | RvError::FunctionNotSupported, _)) => true,
            Err(_) => false,
        }
    }

    /// What the token said that it is when it was found. It is not asked again: one that signs may not be able to say, as SoftHSM's
    /// after a login where it cannot write.
    pub(super) fn model(&self) -> String {
        let standing = lock(&self.connection.standing);
        standing.as_ref().map_or_else(String::new, |standing| standing.model.clone())
    }
}

/// Whether a session sees any secret key.
fn shows_keys(session: &Session) -> Result<bool, Error> {
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
    session.iter_objects(&template)?.next().transpose().map(|found| found.is_some())
}

const PIN_REFUSED: &str = "it refused this PIN, and sealgate does not try it again, because a few \
                           wrong tries lock a token: write the right PIN there";

/// Threads of one token, a session each.
const SESSIONS_MAX: usize = 32;

/// A token that opened no more sessions is asked for more after this.
const SHORT_OF_SESSIONS: Duration = Duration::from_secs(600);

/// Slots that are looked at.
const SLOTS_MAX: usize = 256;
