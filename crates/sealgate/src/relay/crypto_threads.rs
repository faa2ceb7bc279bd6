//! Bounded threads for what computes (K11): as many at once as there are processors, the others wait, but not for ever.
//!
//! What is short is done where it is, one at a time, because for a small message two changes of threads are a tenth of
//! the work: whatever it costs after all, another thread of the runtime goes on serving the connections.
//!
//! A panic in one message ends that message: it is caught at the thread's border and counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealgate_core::refusal::{Refusal, Reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The threads.
#[derive(Clone, Debug)]
pub(crate) struct CryptoThreads {
    permits: Arc<Semaphore>,
    /// Whose turn it is to compute on a thread of the runtime; none where the runtime has one thread only.
    turn: Option<Arc<Mutex<()>>>,
}

impl CryptoThreads {
    /// One for each processor. Where keys are remote most threads only wait, and a keeper that hangs must not hold up
    /// all other mail (O12): then many.
    pub(crate) fn new(keys_are_remote: bool) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = if keys_are_remote { WAITING_THREADS } else { 2 };
        let permits = Arc::new(Semaphore::new(processors.max(threads)));
        Self { permits, turn: (processors > 1).then(Arc::default) }
    }

    /// After a reload keys may be remote that were not before; never fewer threads than there were.
    pub(crate) fn make_room(&self, keys_are_remote: bool, were_remote: bool) {
        if keys_are_remote && !were_remote {
            self.permits.add_permits(WAITING_THREADS);
        }
    }

    /// Runs `work` on one of them, or here where it is short, this is nobody else's turn and nobody waits.
    ///
    /// # Errors
    /// 451 4.3.2 after `wait_max` in the queue; [`Refusal::Internal`] after a panic.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        is_short: bool,
        wait_max: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        if is_short
            && let Some(Ok(_turn)) = self.turn.as_ref().map(|turn| turn.try_lock())
            && let Ok(_permit) = self.permits.try_acquire()
        {
            return caught(work);
        }
        let permit = self.permit(wait_max).await?;
        let outcome = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        outcome.await.map_err(|_| panicked())
    }

    async fn permit(&self, wait_max: Duration) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = tokio::time::timeout(wait_max, Arc::clone(&self.permits).acquire_owned());
        let Ok(Ok(permit)) = permit.await else {
            metrics::counter!("sealgate_crypto_overload_total").increment(1);
            let text = "no crypto thread was free in time, try again later";
            return Err(Refusal::NextHop(Reply::new(451, (4, 3, 2), text)));
        };
        Ok(permit)
    }
}

/// Enough to wait for a remote key at some hundred messages a second; tokio has 512 to lend.
const WAITING_THREADS: usize = 64;

/// Runs `work` on the caller's thread, for those that have threads of their own for what computes.
///
/// # Errors
/// [`Refusal::Internal`] after a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| panicked())
}

fn panicked() -> Refusal {
    metrics::counter!("sealgate_panics_total").increment(1);
    Refusal::Internal
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a machine with as many processors.
    fn threads(processors: usize) -> CryptoThreads {
        let turn = (processors > 1).then(Arc::default);
        CryptoThreads { permits: Arc::new(Semaphore::new(processors)), turn }
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_nothing_more() {
        let threads = threads(2);
        for is_short in [false, true].repeat(20) {
            // Unwinds as a panic does, without the hook's message in the test's output.
            let panic = || std::panic::resume_unwind(Box::new("on purpose"));
            let refusal = threads.run(is_short, PATIENCE, panic).await;
            assert_eq!(refusal, Err::<(), _>(Refusal::Internal));
            assert_eq!(caught(panic), Err::<(), _>(Refusal::Internal));
        }
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(threads.run(false, PATIENCE, || 7).await, Ok(7));
        assert_eq!(threads.run(true, PATIENCE, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn what_is_short_is_done_here_where_another_thread_serves_the_connections() {
        let here = std::thread::current().id();
        let is_here = || std::thread::current().id();
        let two = threads(2);
        assert_eq!(two.run(true, PATIENCE, is_here).await, Ok(here));
        assert_ne!(two.run(false, PATIENCE, is_here).await, Ok(here));
        assert_ne!(threads(1).run(true, PATIENCE, is_here).await, Ok(here));
        let turn = Arc::clone(two.turn.as_ref().unwrap());
        let (taken, is_taken) = tokio::sync::oneshot::channel();
        let (give_back, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let _turn = turn.lock().unwrap();
            taken.send(()).unwrap();
            wait.recv().unwrap();
        });
        is_taken.await.unwrap();
        assert_ne!(two.run(true, PATIENCE, is_here).await, Ok(here));
        give_back.send(()).unwrap();
        other.join().unwrap();
        assert_eq!(two.run(true, PATIENCE, is_here).await, Ok(here));
    }

    #[tokio::test]
    async fn who_waits_too_long_is_put_off() {
        let threads = threads(2);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let busy = threads.permits.available_permits();
        let mut running = Vec::new();
        for _ in 0..busy {
            let (threads, wait) = (threads.clone(), Arc::clone(&wait));
            running.push(tokio::spawn(async move {
                let hold = move || wait.lock().unwrap().recv().is_ok();
                threads.run(false, Duration::from_secs(60), hold).await
            }));
        }
        while threads.permits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for is_short in [false, true] {
            let refusal = threads.run(is_short, Duration::from_millis(20), || ()).await;
            assert!(refusal.unwrap_err().to_string().starts_with("451 4.3.2 "), "{is_short}");
        }
        for _ in 0..busy {
            go.send(()).unwrap();
        }
        for task in running {
            assert_eq!(task.await.unwrap(), Ok(true));
        }
    }

    const PATIENCE: Duration = Duration::from_secs(60);
}
