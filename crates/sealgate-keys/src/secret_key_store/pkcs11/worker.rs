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
            state.threads += usize::from(begin(&self.shared));
        }
        if state.threads == 0 {
            // Nobody would ever do it.
            state.jobs.pop_back();
            return None;
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
        lock(&self.shared.state).is_closing = true;
        self.shared.wake.notify_all();
    }
}

/// One thread more; whether there is one.
fn begin(shared: &Arc<Shared>) -> bool {
    let mut threads = lock(&THREADS);
    if threads.are_ending {
        return false;
    }
    let its = Arc::clone(shared);
    // It is present once it runs: one that does not begin must not be counted out, under the caller's lock at that.
    let serve = move || Present { shared: its, is_counted: true }.serve();
    let begun = thread::Builder::new().name("pkcs11".to_owned()).spawn(serve);
    let Ok(thread) = begun else { return false };
    threads.all.retain(|(_, thread)| !thread.is_finished());
    threads.all.push((Arc::downgrade(shared), thread));
    true
}

/// Ends the threads of all tokens of this process, and begins no other; whether all were gone by then, with what is kept for
/// them. What they have not begun is left.
pub(super) fn end_all(until: Instant) -> bool {
    let all = {
        let mut threads = lock(&THREADS);
        threads.are_ending = true;
        std::mem::take(&mut threads.all)
    };
    for shared in all.iter().filter_map(|(shared, _)| shared.upgrade()) {
        let mut state = lock(&shared.state);
        state.is_closing = true;
        state.jobs.clear();
        shared.wake.notify_all();
    }
    let mut left = Vec::new();
    for (shared, thread) in all {
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            // One that panicked is gone too.
            let _ = thread.join();
        } else {
            left.push((shared, thread));
        }
    }
    let are_gone = left.is_empty();
    lock(&THREADS).all.append(&mut left);
    are_gone
}

/// A thread, counted until it ends in whatever way.
struct Present {
    shared: Arc<Shared>,
    is_counted: bool,
}

impl Present {
    fn serve(mut self) {
        let connection = Arc::clone(&self.shared.connection);
        let mut own = None;
        while let Some(job) = self.next(own.is_some()) {
            if Instant::now() < job.deadline {
                (job.work)(&connection, &mut own);
            }
        }
        connection.leave(own);
    }

    fn next(&mut self, has_session: bool) -> Option<Job> {
        let mut state = lock(&self.shared.state);
        loop {
            // Fewer sessions than threads: one without would only fail what another can do. Under the lock, so that one stays.
            if !has_session && state.threads > self.shared.connection.sessions_max() {
                state.threads -= 1;
                self.is_counted = false;
                if !state.jobs.is_empty() {
                    // It may have been woken for this.
                    self.shared.wake.notify_one();
                }
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_closing {
                return None;
            }
            state.idle += 1;
            state = self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        if self.is_counted {
            lock(&self.shared.state).threads -= 1;
        }
    }
}

/// Those of all tokens of this process.
struct Threads {
    all: Vec<(Weak<Shared>, JoinHandle<()>)>,
    are_ending: bool,
}

static THREADS: Mutex<Threads> = Mutex::new(Threads { all: Vec::new(), are_ending: false });

/// Calls that wait for a thread; the relay's own threads are fewer.
const JOBS_MAX: usize = 4096;
