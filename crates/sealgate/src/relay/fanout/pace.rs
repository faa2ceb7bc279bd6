//! Large contents to several hops: few at once, so that within the time that there is some arrive whole.
//!
//! Copies that share a narrow line all at once pass the limit together; nobody has the message then, and the next attempt begins
//! anew, until it bounces. So one goes first, and for each that gets through quickly, or takes half of the time, one more
//! goes at the same time. What has arrived is remembered, and the next attempt goes on from there. Does not itself know of messages or connections.

use std::sync::atomic::{AtomicUsize, Ordering};

use sealgate_core::refusal::Refusal;
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant, timeout_at};

use super::super::deliver::too_late;

/// The turns of a transaction's contents.
#[derive(Debug)]
pub(super) struct Pace {
    /// How many more may be on their way; none where together they are small.
    places: Option<Semaphore>,
    waiting: AtomicUsize,
    deadline: Instant,
}

impl Pace {
    /// For contents of so many octets each, all of them to be sent before the deadline.
    pub(super) fn new(sizes_bytes: impl Iterator<Item = usize>, deadline: Instant) -> Self {
        let (mut count, mut total_bytes) = (0_usize, 0_usize);
        for bytes in sizes_bytes {
            count = count.saturating_add(1);
            total_bytes = total_bytes.saturating_add(bytes);
        }
        let is_large = count > 1 && total_bytes > AT_ONCE_BYTES_MAX;
        let places = is_large.then(|| Semaphore::new(1));
        Self { places, waiting: AtomicUsize::new(0), deadline }
    }

    /// Whether they take turns.
    pub(super) fn is_large(&self) -> bool {
        self.places.is_some()
    }

    /// Sends one content when its turn has come. Where half of the time that was left then is over and others wait, one of them goes
    /// beside it: a server that reads no further must not keep the mail from all of them, and one that is slow is not cut off, for it
    /// would be as slow at the next attempt.
    pub(super) async fn send(
        &self,
        content: impl Future<Output = Result<(), Refusal>>,
    ) -> Result<(), Refusal> {
        let Some(places) = &self.places else {
            return timeout_at(self.deadline, content).await.unwrap_or_else(|_| Err(too_late()));
        };
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let place = timeout_at(self.deadline, places.acquire()).await;
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        let Ok(Ok(_place)) = place else { return Err(too_late()) };
        let begun = Instant::now();
        let mut until = begun + self.remaining() / 2;
        let mut content = std::pin::pin!(content);
        loop {
            if let Ok(sent) = timeout_at(until, content.as_mut()).await {
                sent?;
                break;
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Err(too_late());
            }
            until = if self.waiting.load(Ordering::Acquire) > 0 {
                places.add_permits(1);
                self.deadline
            } else {
                self.deadline.min(now + WAITING_SEEN_EVERY)
            };
        }
        // Were the line what held it up, twice as many would take twice as long; that must fit into the next one's half.
        if begun.elapsed().saturating_mul(2) <= self.remaining() / 2 {
            places.add_permits(1);
        }
        Ok(())
    }

    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// So much goes at once over any line: one Mbit/s takes it in 67 s.
const AT_ONCE_BYTES_MAX: usize = 8 << 20;
/// How soon one that has used up its half makes room for who comes to wait.
const WAITING_SEEN_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::join::join;
    use super::*;

    const TIME: Duration = Duration::from_secs(240);

    fn pace(count: usize) -> Pace {
        Pace::new(std::iter::repeat_n(AT_ONCE_BYTES_MAX, count), Instant::now() + TIME)
    }

    /// Contents that take so many seconds each, if they are let.
    async fn sent(secs: &[u64]) -> (Vec<bool>, Duration) {
        let (pace, begun) = (pace(secs.len()), Instant::now());
        let contents = secs.iter().map(|secs| {
            pace.send(async {
                tokio::time::sleep(Duration::from_secs(*secs)).await;
                Ok(())
            })
        });
        let sent = join(contents).await.iter().map(Result::is_ok).collect();
        (sent, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn small_contents_and_a_single_one_take_no_turns() {
        let soon = Instant::now() + TIME;
        assert!(!Pace::new([AT_ONCE_BYTES_MAX / 2; 2].into_iter(), soon).is_large());
        assert!(!Pace::new([AT_ONCE_BYTES_MAX * 9].into_iter(), soon).is_large());
        assert!(pace(2).is_large());
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_makes_room_for_who_waits() {
        let (arrived, _) = sent(&[1000, 20, 1000, 20]).await;
        assert_eq!(arrived, [false, true, false, true]);
        let (arrived, took) = sent(&[200]).await;
        assert_eq!((arrived, took), (vec![true], Duration::from_secs(200)), "nobody waits");
    }

    /// The order is the same at each attempt: of those that could arrive, one does.
    #[tokio::test(start_paused = true)]
    async fn who_is_slow_makes_room_and_goes_on() {
        let (arrived, _) = sent(&[130, 130]).await;
        assert_eq!(arrived, [true, false]);
        let (arrived, _) = sent(&[1000, 70, 70]).await;
        assert_eq!(arrived, [false, true, false]);
        let (arrived, _) = sent(&[170, 110]).await;
        assert_eq!(arrived, [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_wide_line_more_and_more_go_at_once_and_on_a_narrow_one_each_gets_through() {
        let (arrived, took) = sent(&[10; 16]).await;
        assert_eq!((arrived, took), (vec![true; 16], Duration::from_secs(50)));
        let (arrived, took) = sent(&[55; 4]).await;
        assert_eq!((arrived, took), (vec![true; 4], Duration::from_secs(220)));
    }
}
