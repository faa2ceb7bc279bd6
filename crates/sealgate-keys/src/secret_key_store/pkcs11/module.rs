//! The vendors' shared objects in this process: each loaded once and never unloaded, initialised again after trouble.
//!
//! `C_Initialize` and `C_Finalize` are for the whole process, so that every token of a module shares them: calls into
//! the module hold the gate open for reading, and only with nobody inside is it initialised again. Each time begins a
//! new generation; sessions and objects of an older one are worthless.

use std::path::{Path, PathBuf};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
    mpsc,
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::fault::Fault;
use super::worker;

/// A loaded module.
pub(super) struct Module {
    path: PathBuf,
    functions: Pkcs11,
    gate: RwLock<Gate>,
    tried_pins: Mutex<Vec<TriedPin>>,
}

/// Since when the module is as it is.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Counts initialisations.
    pub(super) generation: u64,
    /// Whether it may be called.
    pub(super) is_initialized: bool,
    tried: Option<Instant>,
    /// Nobody uses it any more.
    has_ended: bool,
}

/// The last PIN that a token was given by this process.
struct TriedPin {
    token: String,
    digest: Vec<u8>,
    was_right: bool,
}

/// Ends all modules of this process and the threads that use them; to be called before that ends. Whether all is ended: the
/// modules' own destructors may run then. While a thread of ours is inside a module, or just ends, they crash. What hangs is
/// waited for no longer than some seconds.
pub fn end_modules() -> bool {
    let (sender, receiver) = mpsc::channel();
    let end = move || {
        let threads = worker::end_all(Instant::now() + ALONE_PATIENCE);
        // One after the other: two of them may be two ways to one library. For the same reason none is finalized, and the first
        // that does not end is the last, while a thread may be in any of them.
        let modules: Vec<Arc<Module>> = lock(&LOADED).clone();
        threads && modules.iter().all(|module| module.end())
    };
    // A module may keep things for the thread that finalizes it, too: all is ended once that one is gone. It is waited for by
    // another, because a join has no time limit.
    let wait = move || {
        let ended = named("pkcs11-end", end).is_ok_and(|thread| thread.join().unwrap_or(false));
        // Nobody waits any more: no matter.
        let _ = sender.send(ended);
    };
    named("pkcs11-wait", wait).is_ok() && receiver.recv_timeout(ENDING_MAX).is_ok_and(|ended| ended)
}

fn named<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

impl Module {
    /// Loads it, or finds it loaded.
    ///
    /// # Errors
    /// What the dynamic linker says.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, String> {
        let mut loaded = lock(&LOADED);
        if let Some(module) = loaded.iter().find(|module| module.path == path) {
            return Ok(Arc::clone(module));
        }
        let functions = Pkcs11::new(path).map_err(|why| why.to_string())?;
        let module = Arc::new(Self {
            path: path.to_owned(),
            functions,
            gate: RwLock::default(),
            tried_pins: Mutex::default(),
        });
        loaded.push(Arc::clone(&module));
        Ok(module)
    }

    /// Its functions; called only by those who [`enter`](Self::enter)ed.
    pub(super) fn functions(&self) -> &Pkcs11 {
        &self.functions
    }

    /// Keeps it from being initialised again meanwhile.
    pub(super) fn enter(&self) -> RwLockReadGuard<'_, Gate> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`enter`](Self::enter), where it is not being initialised just now.
    pub(super) fn try_enter(&self) -> Option<RwLockReadGuard<'_, Gate>> {
        match self.gate.try_read() {
            Ok(gate) => Some(gate),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Initialises it again, unless somebody else did since that generation.
    ///
    /// # Errors
    /// [`Fault::Away`] where the module does not start, was tried a moment ago, or calls hang inside it.
    pub(super) fn restart(&self, failed: u64) -> Result<(), Fault> {
        let Some(mut gate) = self.enter_alone(failed)? else { return Ok(()) };
        if gate.has_ended {
            return Err(Fault::Away("this process ends".to_owned()));
        }
        if gate.tried.is_some_and(|tried| tried.elapsed() < RESTART_PAUSE) {
            return Err(Fault::Away("away, tried a moment ago".to_owned()));
        }
        gate.tried = Some(Instant::now());
        if gate.is_initialized {
            // What it says does not matter: its device may be gone.
            let _ = self.functions.clone().finalize();
        }
        gate.is_initialized = false;
        gate.generation += 1;
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        match self.functions.initialize(arguments) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                gate.is_initialized = true;
                Ok(())
            }
            Err(error) => Err(Fault::from(error)),
        }
    }

    /// Whether nobody is inside any more; sessions are closed by that.
    fn end(&self) -> bool {
        let generation = self.enter().generation;
        // Somebody else is at it, or in it.
        let Ok(Some(mut gate)) = self.enter_alone(generation) else { return false };
        if gate.is_initialized {
            // What it says does not matter any more.
            let _ = self.functions.clone().finalize();
        }
        *gate = Gate { generation: gate.generation + 1, has_ended: true, ..Gate::default() };
        true
    }

    /// Without queueing: a call that hangs inside would else lock everybody out. `None` where somebody else was first.
    fn enter_alone(&self, failed: u64) -> Result<Option<RwLockWriteGuard<'_, Gate>>, Fault> {
        let end = Instant::now() + ALONE_PATIENCE;
        loop {
            if self.enter().generation != failed {
                return Ok(None);
            }
            let gate = match self.gate.try_write() {
                Ok(gate) => gate,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Fault::Away(
                        "other calls into the module do not return".to_owned(),
                    ));
                }
            };
            return Ok((gate.generation == failed).then_some(gate));
        }
    }

    /// Whether the token refused this PIN before.
    pub(super) fn is_refused_pin(&self, token: &str, pin: &str) -> bool {
        let digest = digest(pin);
        lock(&self.tried_pins)
            .iter()
            .any(|tried| tried.token == token && !tried.was_right && tried.digest == digest)
    }

    /// Whether this process knows what became of a PIN that it gave to the token.
    pub(super) fn has_tried_pin(&self, token: &str) -> bool {
        lock(&self.tried_pins).iter().any(|tried| tried.token == token)
    }

    /// Remembers that the token refused this PIN, until it is given another one.
    pub(super) fn refuse_pin(&self, token: &str, pin: &str) {
        self.remember_pin(token, pin, false);
    }

    /// Remembers that the token took this PIN.
    pub(super) fn accept_pin(&self, token: &str, pin: &str) {
        self.remember_pin(token, pin, true);
    }

    fn remember_pin(&self, token: &str, pin: &str, was_right: bool) {
        let mut tried = lock(&self.tried_pins);
        tried.retain(|known| known.token != token);
        tried.push(TriedPin { token: token.to_owned(), digest: digest(pin), was_right });
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({})", self.path.display())
    }
}

/// A lock whose holder panicked guards nothing half-done here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(pin: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pin.as_bytes()).as_ref().to_vec()
}

/// Never emptied: many modules do not survive being unloaded.
static LOADED: Mutex<Vec<Arc<Module>>> = Mutex::new(Vec::new());

/// A module that is away is asked no more often than this.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// How long the calls inside may take to come out before a restart, or the end, waits for them no longer.
const ALONE_PATIENCE: Duration = Duration::from_secs(3);

/// How long the end of all modules may take.
const ENDING_MAX: Duration = Duration::from_secs(8);
