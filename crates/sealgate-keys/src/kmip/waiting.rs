//! Calls of the system that know no deadline, made on threads of their own: a thread that is still in one when time is up
//! is left behind, and no more than [`LEFT_MAX`] are.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use super::socket::{no_answer, remaining};

/// The threads of one server that have not returned yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    count: Arc<AtomicUsize>,
}

impl Waiting {
    /// What `work` returns, or a time-out.
    pub(super) fn until<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let patience = remaining(deadline)?;
        let one = One::begin(&self.count)?;
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("kmip-connect".to_owned()).spawn(move || {
            let _ = sender.send(work());
            drop(one);
        })?;
        receiver.recv_timeout(patience).map_err(|_| no_answer())?
    }
}

/// One thread.
struct One {
    count: Arc<AtomicUsize>,
}

impl One {
    fn begin(count: &Arc<AtomicUsize>) -> io::Result<Self> {
        let more = |now: usize| (now < LEFT_MAX).then(|| now.saturating_add(1));
        let begun = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        begun.map_err(|_| io::Error::other("too many attempts still wait for it"))?;
        Ok(Self { count: Arc::clone(count) })
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Threads of one server that wait at the same time.
pub(super) const LEFT_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_does_not_return_is_left_behind_and_counted() {
        let waiting = Waiting::default();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        for _ in 0..LEFT_MAX {
            let held = Arc::clone(&held);
            let deadline = Instant::now() + Duration::from_millis(1);
            let result = waiting.until(deadline, move || {
                let _ = held.lock().unwrap().recv();
                Ok(())
            });
            assert!(result.is_err());
        }
        let soon = || Instant::now() + Duration::from_secs(30);
        let refused = waiting.until(soon(), || Ok(())).unwrap_err();
        assert!(refused.to_string().contains("too many"), "{refused}");
        drop(release);
        let end = soon();
        while waiting.until(soon(), || Ok(())).is_err() {
            assert!(Instant::now() < end, "still counted");
        }
    }
}
