//! What is known of each next hop: how many of its connections are in use, and whether it is worth trying.
//!
//! Connections to one hop are bounded; who finds none free waits. A hop that failed [`FAILURES_MAX`] times on end is left alone
//! for a while, which doubles from [`PAUSE`] to [`PAUSE_MAX`] with each probe that fails; one attempt at a time probes it
//! (REQUIREMENTS O19). A refusal of a message is no failure: whoever refuses is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealgate_core::refusal::{Refusal, Reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::route::Hop;

/// All next hops in use.
#[derive(Debug)]
pub(crate) struct Hops {
    connections_max: u32,
    known: Mutex<HashMap<Hop, Arc<State>>>,
}

#[derive(Debug)]
struct State {
    connections: Arc<Semaphore>,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    /// How often it was left alone since it last worked.
    pauses: u32,
    /// Left alone until then.
    until: Option<Instant>,
    failed_at: Option<Instant>,
    probing: bool,
}

/// The right to so many connections to one hop.
#[derive(Debug)]
pub(crate) struct Reservation(OwnedSemaphorePermit);

impl Reservation {
    /// Takes one out of it; `None` once none is left.
    pub(crate) fn split_one(&mut self) -> Option<Self> {
        self.0.split(1).map(Self)
    }
}

/// One attempt to reach a hop. Dropped without a verdict it counts as none.
#[derive(Debug)]
pub(crate) struct Attempt {
    state: Arc<State>,
    probe: bool,
}

impl Hops {
    /// With a limit of connections to one hop.
    pub(crate) fn new(connections_max: usize) -> Self {
        let connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX).max(1);
        Self { connections_max, known: Mutex::default() }
    }

    /// Connections to one hop at once.
    pub(crate) fn connections_max(&self) -> usize {
        usize::try_from(self.connections_max).unwrap_or(usize::MAX)
    }

    /// Waits for so many connections, all at once, so that nobody holds some and waits for more.
    ///
    /// # Errors
    /// 451 4.4.5 after the deadline.
    pub(crate) async fn reserve(
        &self,
        hop: &Hop,
        count: usize,
        deadline: Instant,
    ) -> Result<Reservation, Refusal> {
        let count = u32::try_from(count).unwrap_or(u32::MAX).clamp(1, self.connections_max);
        let connections = Arc::clone(&self.state(hop).connections);
        match tokio::time::timeout_at(deadline, connections.acquire_many_owned(count)).await {
            Ok(Ok(permit)) => Ok(Reservation(permit)),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// Asks whether to try a hop now.
    ///
    /// # Errors
    /// [`Refusal::NextHopUnreachable`] while it is left alone, or another attempt probes it.
    pub(crate) fn attempt(&self, hop: &Hop) -> Result<Attempt, Refusal> {
        let state = self.state(hop);
        let probe = {
            let mut health = state.health();
            match health.until {
                None => false,
                Some(until) if health.probing || Instant::now() < until => {
                    metrics::counter!("sealgate_next_hop_left_alone_total").increment(1);
                    return Err(Refusal::NextHopUnreachable);
                }
                Some(_) => {
                    health.probing = true;
                    true
                }
            }
        };
        Ok(Attempt { state, probe })
    }

    /// Forgets hops that work and are not in use; to be called now and then.
    pub(crate) fn sweep(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, state| {
            let worked = state.health().failures == 0;
            let forgotten = state.health().failed_at.is_some_and(|at| at.elapsed() > FORGET);
            Arc::strong_count(state) > 1
                || state.connections.available_permits() < self.connections_max()
                || !(worked || forgotten)
        });
    }

    /// Of the server, whoever is introduced to it.
    fn state(&self, hop: &Hop) -> Arc<State> {
        let hop = Hop { introduction: None, ..hop.clone() };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = known.get(&hop) {
            return Arc::clone(state);
        }
        let state = Arc::new(State {
            connections: Arc::new(Semaphore::new(self.connections_max())),
            health: Mutex::default(),
        });
        known.insert(hop, Arc::clone(&state));
        state
    }
}

impl State {
    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// The hop answered.
    pub(crate) fn succeeded(mut self) {
        self.probe = false;
        *self.state.health() = Health::default();
    }

    /// The hop could not be reached.
    pub(crate) fn failed(mut self) {
        let probe = std::mem::take(&mut self.probe);
        let mut health = self.state.health();
        if probe {
            health.probing = false;
        } else if health.until.is_some() {
            // Begun before the hop was left alone: it says nothing new.
            return;
        }
        health.failures = health.failures.saturating_add(1);
        if probe || health.failures >= FAILURES_MAX {
            let pause = PAUSE.saturating_mul(1 << health.pauses.min(DOUBLINGS_MAX)).min(PAUSE_MAX);
            health.pauses = health.pauses.saturating_add(1);
            health.until = Some(Instant::now() + pause);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.probe {
            self.state.health().probing = false;
        }
    }
}

/// RFC 3463 §3.5: mail system congestion.
fn busy() -> Refusal {
    let text = "too many connections to the next hop in use, try again later";
    Refusal::NextHop(Reply::new(451, (4, 4, 5), text))
}

/// Failures on end after which a hop is left alone.
const FAILURES_MAX: u32 = 3;
/// How long it is left alone first.
const PAUSE: Duration = Duration::from_secs(1);
/// Mail servers come back for deferred mail after minutes: no probe comes later than that for one that works again.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const DOUBLINGS_MAX: u32 = 6;
/// After this a failure of long ago is forgotten.
const FORGET: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::super::route::fixed;
    use super::super::transport::Demand;
    use super::*;

    fn hop(port: u16) -> Hop {
        fixed(&format!("smtp://127.0.0.1:{port}").parse().unwrap(), Demand::default())
    }

    fn fail(hops: &Hops, hop: &Hop, times: u32) {
        (0..times).for_each(|_| hops.attempt(hop).unwrap().failed());
    }

    /// As if the pause were over.
    fn let_pause_pass(hops: &Hops, hop: &Hop) {
        hops.state(hop).health().until = Some(Instant::now());
    }

    fn pause_secs(hops: &Hops, hop: &Hop) -> u64 {
        let until = hops.state(hop).health().until.unwrap();
        (until - Instant::now() + Duration::from_millis(500)).as_secs()
    }

    #[test]
    fn a_hop_that_fails_again_and_again_is_left_alone() {
        let (hops, dead, other) = (Hops::new(1), hop(1), hop(2));
        fail(&hops, &dead, FAILURES_MAX - 1);
        hops.attempt(&dead).unwrap().succeeded();
        fail(&hops, &dead, FAILURES_MAX);
        assert_eq!(hops.attempt(&dead).unwrap_err(), Refusal::NextHopUnreachable);
        hops.attempt(&other).unwrap().failed();
        assert!(hops.attempt(&other).is_ok(), "one failure is none");
    }

    #[test]
    fn one_attempt_probes_and_the_pause_grows_to_its_limit() {
        let (hops, dead) = (Hops::new(1), hop(1));
        fail(&hops, &dead, FAILURES_MAX);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(pause_secs(&hops, &dead), expected);
            let_pause_pass(&hops, &dead);
            let probe = hops.attempt(&dead).unwrap();
            assert!(hops.attempt(&dead).is_err(), "a second probe");
            probe.failed();
        }
        let_pause_pass(&hops, &dead);
        drop(hops.attempt(&dead).unwrap());
        hops.attempt(&dead).expect("a probe without verdict is none").succeeded();
        fail(&hops, &dead, 1);
        assert!(hops.attempt(&dead).is_ok(), "all forgiven");
    }

    #[test]
    fn failures_of_attempts_that_began_before_do_not_lengthen_the_pause() {
        let (hops, dead) = (Hops::new(1), hop(1));
        let begun: Vec<Attempt> = (0..50).map(|_| hops.attempt(&dead).unwrap()).collect();
        begun.into_iter().for_each(Attempt::failed);
        assert_eq!(pause_secs(&hops, &dead), 1);
    }

    #[tokio::test]
    async fn connections_are_bounded_and_the_wait_for_one_ends() {
        let (hops, one) = (Hops::new(2), hop(1));
        let soon = || Instant::now() + Duration::from_millis(50);
        let mut two = hops.reserve(&one, 2, soon()).await.unwrap();
        let refusal = hops.reserve(&one, 1, soon()).await.unwrap_err();
        assert!(refusal.to_string().starts_with("451 4.4.5 "), "{refusal}");
        assert!(hops.reserve(&hop(2), 1, soon()).await.is_ok(), "another hop is free");
        drop(two.split_one());
        let third = hops.reserve(&one, 1, soon()).await.unwrap();
        assert!(hops.reserve(&one, 1, soon()).await.is_err());
        drop((two, third));
        assert!(hops.reserve(&one, 100, soon()).await.is_ok(), "never more than there are");
    }

    #[tokio::test]
    async fn hops_that_work_and_rest_are_forgotten() {
        let hops = Hops::new(1);
        hops.attempt(&hop(1)).unwrap().succeeded();
        fail(&hops, &hop(2), FAILURES_MAX);
        let used = hops.reserve(&hop(3), 1, Instant::now()).await.unwrap();
        hops.sweep();
        assert_eq!(hops.known.lock().unwrap().len(), 2);
        drop(used);
        hops.sweep();
        assert_eq!(hops.known.lock().unwrap().len(), 1);
    }
}
