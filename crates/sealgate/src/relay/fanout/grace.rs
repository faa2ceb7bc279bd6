//! How long those who are ready wait for the others.
//!
//! A server that has said 354 waits for content, and its patience ends; nobody else has its connection meanwhile. So once somebody
//! is ready, the others have a quarter of their time each time that one more of them is. Who is late has another turn without them.

use std::future::pending;

use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};

/// Of the copies that are brought to their servers' 354 together.
#[derive(Debug)]
pub(super) struct Grace {
    lasts: Duration,
    ends: watch::Sender<Option<Instant>>,
}

impl Grace {
    /// Where all must be ready by then anyway.
    pub(super) fn new(ready_by: Instant) -> Self {
        let lasts = ready_by.saturating_duration_since(Instant::now()) / 4;
        Self { lasts, ends: watch::Sender::new(None) }
    }

    /// Waits for one; what `waits` came to wait for the others. `None` where the others no longer wait for it.
    pub(super) async fn of<T>(
        &self,
        one: impl Future<Output = T>,
        waits: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let mut ends = self.ends.subscribe();
        let mut one = std::pin::pin!(one);
        loop {
            let end = *ends.borrow_and_update();
            let over = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                done = &mut one => {
                    if end.is_some() || waits(&done) {
                        self.ends.send_replace(Some(Instant::now() + self.lasts));
                    }
                    return Some(done);
                }
                Ok(()) = ends.changed() => {}
                () = over => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::join::join;
    use super::*;

    /// Which of those who take so many seconds, and are admitted or not, are not waited for any longer; and when all is over.
    async fn given_up(all: &[(u64, bool)]) -> (Vec<bool>, u64) {
        let begun = Instant::now();
        let grace = Grace::new(begun + Duration::from_secs(120));
        let each = all.iter().map(|(secs, is_admitted)| {
            grace.of(tokio::time::sleep(Duration::from_secs(*secs)), |()| *is_admitted)
        });
        let given_up = join(each).await.iter().map(Option::is_none).collect();
        (given_up, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_ones_are_not_waited_for_long_by_those_who_are_ready() {
        let (given_up_of, elapsed) = given_up(&[(1, true), (90, true), (20, true)]).await;
        assert_eq!((given_up_of, elapsed), (vec![false, true, false], 50));
        let (given_up_of, elapsed) =
            given_up(&[(1, true), (90, true), (65, true), (40, true)]).await;
        assert_eq!((given_up_of, elapsed), (vec![false, true, true, true], 31));
        let (given_up_of, elapsed) = given_up(&[(1, false), (110, true)]).await;
        assert_eq!((given_up_of, elapsed), (vec![false, false], 110), "nobody waits");
    }
}
