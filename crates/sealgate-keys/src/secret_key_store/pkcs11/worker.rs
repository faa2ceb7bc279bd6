//! Threads that call into a module, so that a call that hangs holds none of the relay's threads for long.
//!
//! There are as many as calls at once, up to a limit; each keeps a session of its own. A thread that hangs is lost
//! until its call returns, and counts. Before the process ends all of them do ([`end_all`]): a module keeps things for each
//! thread, and frees them when the thread ends.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::connection::{Connection, OwnSession};
use super::module::lock;

/// The threads of one token.
pub(super) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Arc<Connection>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closing: bool,
}

struct Job {
    /// After that nobody waits for it any more.
    deadline: Instant,
    work: Work,
}

/// What a thread does with the connection and a session that it keeps.
type Work = Box<dyn FnOnce(&Connection, &mut Option<OwnSession>) + Send>;

impl Workers {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { connection, state, wake: Condvar::new() }) }
    }

    /// Does something on a thread with a session; `None` where it takes longer than this.
    pub(super) fn call<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Connection, &mut Option<OwnSession>) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let work = Box::new(move |connection: &Connection, own: &mut Option<OwnSession>| {
            // Nobody waits any more: no matter.
            let _ = sender.send(work(connection, own));
        });
        self.submit(Job { deadline: Instant::now() + patience, work })?;
        receiver.recv_timeout(patience).ok()
    }

    fn submit(&self, job: Job) -> Option<()> {
        let mut state = lock(&self.shared.state);
        if state.is_closing || state.jobs.len() >= JOBS_MAX {
            return None;
        }
        state.jobs.push_back(job);
        if state.idle < state.jobs.len() && state.threads < self.shared.connection.sessions_max() {
            let shared = Arc::clone(&self.shared);
            let name = "pkcs11".to_owned();
            let serve = move || Present(shared).serve();
            if let Ok(thread) = thread::Builder::new().name(name).spawn(serve) {
                state.threads += 1;
                remember(&self.shared, thread);
            }
        }
        self.shared.wake.notify_one();
        Some(())
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workers({})", lock(&self.shared.state).threads)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn close(&self) {
        lock(&self.state).is_closing = true;
        self.wake.notify_all();
    }
}

/// Ends the threads of all tokens of this process, and waits for them so long.
pub(super) fn end_all(until: Instant) {
    let all = std::mem::take(&mut *lock(&ALL));
    for (shared, _) in &all {
        if let Some(shared) = shared.upgrade() {
            shared.close();
        }
    }
    wait_for(all.into_iter().map(|(_, thread)| thread).collect(), until);
}

/// Waits for threads to be gone with all that is kept for them.
pub(super) fn wait_for(threads: Vec<JoinHandle<()>>, until: Instant) {
    for thread in threads {
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            // One that panicked is gone too.
            let _ = thread.join();
        }
    }
}

/// For [`end_all`]; those that have ended are forgotten.
fn remember(shared: &Arc<Shared>, thread: JoinHandle<()>) {
    let mut all = lock(&ALL);
    all.retain(|(_, thread)| !thread.is_finished());
    all.push((Arc::downgrade(shared), thread));
}

/// A thread, counted until it ends in whatever way.
struct Present(Arc<Shared>);

impl Present {
    fn serve(&self) {
        let connection = &self.0.connection;
        let mut own = None;
        while let Some(job) = self.next() {
            if Instant::now() < job.deadline {
                (job.work)(connection, &mut own);
            }
        }
        connection.leave(own);
    }

    fn next(&self) -> Option<Job> {
        let mut state = lock(&self.0.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_closing {
                return None;
            }
            state.idle += 1;
            state = self.0.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        lock(&self.0.state).threads -= 1;
    }
}

/// The threads of all tokens.
static ALL: Mutex<Vec<(Weak<Shared>, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// Calls that wait for a thread; the relay's own threads are fewer.
const JOBS_MAX: usize = 4096;
