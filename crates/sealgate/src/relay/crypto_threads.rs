//! Bounded threads for what computes (K11): as many at once as there are processors, more where keys are used elsewhere; the others
//! wait, but not for ever.
//!
//! A thread that has done one piece of work takes the next that waits, so that where many wait nothing changes threads in between.
//! A panic in one message ends that message: it is caught at the thread's border and counted.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealgate_core::refusal::{Refusal, Reply};
use sealgate_keys::stores::KeyPlace;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The threads.
#[derive(Clone, Debug)]
pub(crate) struct CryptoThreads {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Ticket>,
    threads: usize,
    /// Started at once; more only for who has waited.
    threads_soon: usize,
    threads_max: usize,
}

impl CryptoThreads {
    pub(crate) fn new(key_place: KeyPlace) -> Self {
        let (threads_soon, threads_max) = room(key_place);
        let queue = Queue { waiting: VecDeque::new(), threads: 0, threads_soon, threads_max };
        Self { queue: Arc::new(Mutex::new(queue)) }
    }

    /// After a reload keys may be remote that were not before; never fewer threads than there were.
    pub(crate) fn make_room(&self, key_place: KeyPlace) {
        let (threads_soon, threads_max) = room(key_place);
        let mut queue = self.queue();
        queue.threads_soon = queue.threads_soon.max(threads_soon);
        queue.threads_max = queue.threads_max.max(threads_max);
    }

    /// Runs `work` on one of them. Dropped before a thread has taken it, it is not run at all.
    ///
    /// # Errors
    /// 451 4.3.2 after `wait_max` in the queue; [`Refusal::Internal`] after a panic.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        wait_max: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, mut answered) = oneshot::channel();
        let ticket = Ticket::new(move || drop(answer.send(caught(work))));
        let ours = Ours(ticket.clone());
        self.queue_up(ticket)?;
        let started = Instant::now();
        let mut patience = PATIENCE;
        loop {
            let left = wait_max.saturating_sub(started.elapsed());
            match tokio::time::timeout(patience.min(left), &mut answered).await {
                Ok(outcome) => return outcome.map_err(|_| Refusal::Internal)?,
                Err(_) if ours.0.is_gone() => {
                    return answered.await.map_err(|_| Refusal::Internal)?;
                }
                Err(_) if patience >= left && ours.0.take().is_some() => return Err(overloaded()),
                // Where the system gives no thread, those that there are may come to it.
                Err(_) => drop(self.start_one(|queue| queue.threads_max)),
            }
            patience = patience.saturating_mul(2);
        }
    }

    fn queue_up(&self, ticket: Ticket) -> Result<(), Refusal> {
        let mut queue = self.queue();
        // Who has gone is kept no longer than who queued up before.
        while queue.waiting.front().is_some_and(Ticket::is_gone) {
            queue.waiting.pop_front();
        }
        queue.waiting.push_back(ticket);
        drop(queue);
        self.start_one(|queue| queue.threads_soon)
    }

    /// Starts a thread where there are fewer than that.
    ///
    /// # Errors
    /// [`Refusal::Internal`] where the system gives none.
    fn start_one(&self, threads_max: impl Fn(&Queue) -> usize) -> Result<(), Refusal> {
        let mut queue = self.queue();
        if queue.threads >= threads_max(&queue) {
            return Ok(());
        }
        queue.threads = queue.threads.saturating_add(1);
        // Making a thread takes time that others need not wait for.
        drop(queue);
        let threads = self.clone();
        let start = move || drop(tokio::task::spawn_blocking(move || threads.work_off()));
        caught(start).inspect_err(|_| {
            let mut queue = self.queue();
            queue.threads = queue.threads.saturating_sub(1);
        })
    }

    fn work_off(&self) {
        while let Some(work) = self.next() {
            // What is left to panic is the drop of an answer that nobody waits for.
            let _ = caught(work);
        }
    }

    /// The next work; without any the thread ends, which is noted before another one can queue up.
    fn next(&self) -> Option<Work> {
        let mut queue = self.queue();
        while let Some(ticket) = queue.waiting.pop_front() {
            if let Some(work) = ticket.take() {
                return Some(work);
            }
        }
        queue.threads = queue.threads.saturating_sub(1);
        None
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many threads are started at once, and how many there may be. Those that compute are one for each processor. With a keeper
/// on this host a thread waits for half of its time: two. A keeper elsewhere leaves the processors idle: many. None that
/// hangs must hold up all other mail (O12): many more then, as they are needed.
fn room(key_place: KeyPlace) -> (usize, usize) {
    let processors = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let both = processors.saturating_mul(2);
    match key_place {
        KeyPlace::ThisProcess => (processors, processors),
        KeyPlace::ThisHost => (both, both.max(WAITING_THREADS)),
        KeyPlace::Elsewhere => (both.max(WAITING_THREADS), both.max(WAITING_THREADS)),
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Work that waits: a thread takes it to run it, or the one who waits takes it back.
#[derive(Clone)]
struct Ticket(Arc<Mutex<Option<Work>>>);

impl Ticket {
    fn new(work: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(work)))))
    }

    fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_gone(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Ticket")
    }
}

/// Nobody computes for one who has gone.
struct Ours(Ticket);

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

fn overloaded() -> Refusal {
    metrics::counter!("sealgate_crypto_overload_total").increment(1);
    let text = "no crypto thread was free in time, try again later";
    Refusal::NextHop(Reply::new(451, (4, 3, 2), text))
}

/// Who has waited so long gets a thread besides, if there may be one; after twice that time again another, and so on.
const PATIENCE: Duration = Duration::from_millis(20);
/// Enough to wait for a remote key at some hundred messages a second; tokio has 512 to lend.
const WAITING_THREADS: usize = 64;

/// Runs `work` on the caller's thread, for those that have threads of their own for what computes.
///
/// # Errors
/// [`Refusal::Internal`] after a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        metrics::counter!("sealgate_panics_total").increment(1);
        Refusal::Internal
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Barrier, mpsc};

    use tokio::task::JoinHandle;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_nothing_more() {
        let threads = CryptoThreads::new(KeyPlace::ThisProcess);
        for _ in 0..20 {
            // Unwinds as a panic does, without the hook's message in the test's output.
            let panic = || std::panic::resume_unwind(Box::new("on purpose"));
            let refusal = threads.run(Duration::from_secs(60), panic).await;
            assert_eq!(refusal, Err::<(), _>(Refusal::Internal));
            assert_eq!(caught(panic), Err::<(), _>(Refusal::Internal));
        }
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(threads.run(Duration::from_secs(60), || 7).await, Ok(7));
    }

    /// Work that holds every thread until something is sent to each.
    async fn all_busy(threads: &CryptoThreads) -> (mpsc::Sender<()>, Vec<JoinHandle<bool>>) {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let (begun, mut beginnings) = tokio::sync::mpsc::unbounded_channel();
        let mut running = Vec::new();
        let threads_max = threads.queue().threads_max;
        for _ in 0..threads_max {
            let (threads, wait, begun) = (threads.clone(), Arc::clone(&wait), begun.clone());
            running.push(tokio::spawn(async move {
                let hold = move || {
                    begun.send(()).unwrap();
                    drop(begun);
                    wait.lock().unwrap().recv().is_ok()
                };
                threads.run(Duration::from_secs(30), hold).await.unwrap()
            }));
        }
        drop(begun);
        for _ in 0..threads_max {
            beginnings.recv().await.unwrap();
        }
        (go, running)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_put_off_and_nothing_is_computed_for_who_has_gone() {
        let threads = CryptoThreads::new(KeyPlace::ThisProcess);
        let (go, running) = all_busy(&threads).await;
        let (computed, found) = mpsc::channel();
        let run = |who, secs_max| {
            let (threads, computed) = (threads.clone(), computed.clone());
            let note = move || computed.send(who).unwrap();
            async move { threads.run(Duration::from_secs(secs_max), note).await }
        };
        let mut put_off = Box::pin(run("put off", 60));
        let mut gone = Box::pin(run("gone", 3600));
        let mut patient = Box::pin(run("patient", 3600));
        for waiting in [&mut put_off, &mut gone, &mut patient] {
            assert_eq!(polled(waiting).await, None);
        }
        drop(gone);
        assert_eq!(threads.queue().threads, running.len());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(put_off.await.unwrap_err().to_string().starts_with("451 4.3.2 "));

        // What has begun is not put off, however long it takes.
        running.iter().for_each(|_| go.send(()).unwrap());
        for task in running {
            assert!(task.await.unwrap());
        }
        assert_eq!(patient.await, Ok(()));
        assert_eq!(found.try_iter().collect::<Vec<_>>(), ["patient"]);
    }

    /// Few go on where many would only take turns, until somebody waits.
    #[tokio::test(start_paused = true)]
    async fn with_a_keeper_on_this_host_who_has_waited_gets_a_thread_besides() {
        let threads = CryptoThreads::new(KeyPlace::ThisHost);
        let soon = threads.queue().threads_soon;
        let all = Arc::new(Barrier::new(soon + 1));
        let mut working = Vec::new();
        for _ in 0..=soon {
            let all = Arc::clone(&all);
            let wait = move || all.wait().is_leader();
            let mut work = Box::pin(threads.run(Duration::from_secs(60), wait));
            assert_eq!(polled(&mut work).await, None);
            working.push(work);
        }
        assert_eq!(threads.queue().threads, soon);
        tokio::time::advance(PATIENCE).await;
        let mut leaders = 0;
        // The last one first, for it is the one who starts the thread that all others wait for.
        for work in working.into_iter().rev() {
            leaders += usize::from(work.await.unwrap());
        }
        assert_eq!(leaders, 1);
    }

    #[tokio::test]
    async fn who_has_gone_is_not_kept() {
        let threads = CryptoThreads::new(KeyPlace::ThisProcess);
        let (go, running) = all_busy(&threads).await;
        for _ in 0..100 {
            let mut gone = Box::pin(threads.run(Duration::from_secs(60), || ()));
            assert_eq!(polled(&mut gone).await, None);
        }
        assert_eq!(threads.queue().waiting.len(), 1);
        running.iter().for_each(|_| go.send(()).unwrap());
    }

    /// What it gives when asked once.
    async fn polled<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! { biased; output = future => Some(output), () = async {} => None }
    }

    /// A keeper that hangs holds as many as there may be, and who waits gets the next one.
    #[tokio::test]
    async fn who_waits_for_remote_keys_gets_a_thread() {
        let from_the_start = CryptoThreads::new(KeyPlace::ThisHost);
        let after_a_reload = CryptoThreads::new(KeyPlace::ThisProcess);
        after_a_reload.make_room(KeyPlace::ThisHost);
        for threads in [from_the_start, after_a_reload] {
            let (go, running) = all_busy(&threads).await;
            assert!(running.len() >= WAITING_THREADS);
            running.iter().for_each(|_| go.send(()).unwrap());
            for task in running {
                assert!(task.await.unwrap());
            }
        }
    }

    /// A thread that has nothing to do is given back, and there is never one more than allowed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn threads_are_bounded_and_given_back() {
        static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
        static AT_ONCE_MAX: AtomicUsize = AtomicUsize::new(0);
        let threads = CryptoThreads::new(KeyPlace::ThisProcess);
        let one = |number: usize| {
            let threads = threads.clone();
            let work = move || {
                AT_ONCE_MAX.fetch_max(AT_ONCE.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::sleep(Duration::from_micros(50));
                AT_ONCE.fetch_sub(1, SeqCst);
                number
            };
            tokio::spawn(async move { threads.run(Duration::from_secs(60), work).await })
        };
        let tasks: Vec<_> = (0..2000).map(one).collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Ok(number));
        }
        let threads_max = threads.queue().threads_max;
        assert!(AT_ONCE_MAX.load(SeqCst) <= threads_max);
        let given_back = async {
            while threads.queue().threads > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), given_back).await.unwrap();
        assert!(threads.queue().waiting.is_empty());
    }
}
