//! Bounded threads for what computes (K11): as many at once as there are processors, the others wait, but not for ever.
//!
//! A panic in one message ends that message: it is caught at the thread's border and counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use sealgate_core::refusal::{Refusal, Reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The threads.
#[derive(Clone, Debug)]
pub(crate) struct CryptoThreads {
    permits: Arc<Semaphore>,
}

impl CryptoThreads {
    /// One for each processor. Where keys are remote most threads only wait, and a keeper that hangs must not hold up
    /// all other mail (O12): then many.
    pub(crate) fn new(keys_are_remote: bool) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = if keys_are_remote { WAITING_THREADS } else { 2 };
        Self { permits: Arc::new(Semaphore::new(processors.max(threads))) }
    }

    /// After a reload keys may be remote that were not before; never fewer threads than there were.
    pub(crate) fn make_room(&self, keys_are_remote: bool, were_remote: bool) {
        if keys_are_remote && !were_remote {
            self.permits.add_permits(WAITING_THREADS);
        }
    }

    /// Runs `work` on one of them.
    ///
    /// # Errors
    /// 451 4.3.2 after `wait_max` in the queue; [`Refusal::Internal`] after a panic.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        wait_max: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
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

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_nothing_more() {
        let threads = CryptoThreads::new(false);
        for _ in 0..20 {
            // Unwinds as a panic does, without the hook's message in the test's output.
            let panic = || std::panic::resume_unwind(Box::new("on purpose"));
            let refusal = threads.run(Duration::from_secs(5), panic).await;
            assert_eq!(refusal, Err::<(), _>(Refusal::Internal));
            assert_eq!(caught(panic), Err::<(), _>(Refusal::Internal));
        }
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(threads.run(Duration::from_secs(5), || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn who_waits_too_long_is_put_off() {
        let threads = CryptoThreads::new(false);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let busy = threads.permits.available_permits();
        let mut running = Vec::new();
        for _ in 0..busy {
            let (threads, wait) = (threads.clone(), Arc::clone(&wait));
            running.push(tokio::spawn(async move {
                let hold = move || wait.lock().unwrap().recv().is_ok();
                threads.run(Duration::from_secs(60), hold).await
            }));
        }
        while threads.permits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refusal = threads.run(Duration::from_millis(20), || ()).await.unwrap_err();
        assert!(refusal.to_string().starts_with("451 4.3.2 "));
        for _ in 0..busy {
            go.send(()).unwrap();
        }
        for task in running {
            assert_eq!(task.await.unwrap(), Ok(true));
        }
    }
}
