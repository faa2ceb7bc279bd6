//! What is known of each next hop: how many of its connections are in use, and whether it is worth trying.
//!
//! Connections to one hop are bounded; who finds none free waits. A hop that failed [`FAILURES_MAX`] times on end is left alone
//! for a while, which doubles from [`PAUSE`] to [`PAUSE_MAX`] with each probe that fails; one attempt at a time probes it
//! (REQUIREMENTS O19). A refusal of a message is no failure: whoever refuses is there; and so is whoever a client was introduced
//! to, whatever comes of that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
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
    is_clients: AtomicBool,
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

    /// Waits for connections to several hops. While it waits for one, its places at others stand idle for no longer than
    /// [`HELD_IDLE_MAX`], and twice as long with each further try: then it gives them back and waits with empty hands. With full hands everybody waits in the same
    /// order, so that no two wait for each other.
    ///
    /// Each hop that is still busy at the deadline has 451 4.4.5.
    pub(crate) async fn reserve_all<'h>(
        &self,
        wanted: HashMap<&'h Hop, usize>,
        deadline: Instant,
    ) -> HashMap<&'h Hop, Result<Reservation, Refusal>> {
        let mut wanted: Vec<(&Hop, usize)> = wanted.into_iter().collect();
        wanted.sort();
        let mut late = BTreeSet::new();
        let mut first = None;
        let mut idle_max = HELD_IDLE_MAX;
        loop {
            let mut held = BTreeMap::new();
            let begin = first.and_then(|index: usize| Some((index, *wanted.get(index)?)));
            if let Some((index, (hop, count))) = begin {
                match self.reserve(hop, count, deadline).await {
                    Ok(places) => {
                        held.insert(index, places);
                    }
                    Err(_) => {
                        late.insert(index);
                    }
                }
            }
            first = self.reserve_rest(&wanted, (deadline, idle_max), &mut held, &mut late).await;
            idle_max = idle_max.saturating_mul(2);
            if first.is_none() {
                let all = wanted.into_iter().enumerate();
                let found = |(index, (hop, _))| (hop, held.remove(&index).ok_or_else(busy));
                return all.map(found).collect();
            }
        }
    }

    /// What is not held yet; comes back with the first hop that it would have to wait for too long.
    async fn reserve_rest(
        &self,
        wanted: &[(&Hop, usize)],
        (deadline, idle_max): (Instant, Duration),
        held: &mut BTreeMap<usize, Reservation>,
        late: &mut BTreeSet<usize>,
    ) -> Option<usize> {
        let soon = || deadline.min(Instant::now() + idle_max);
        let mut idle_until = (!held.is_empty()).then(soon);
        for (index, (hop, count)) in wanted.iter().enumerate() {
            if held.contains_key(&index) || late.contains(&index) {
                continue;
            }
            let is_out_of_order = held.keys().any(|other| *other > index);
            let until = match idle_until {
                _ if is_out_of_order => Instant::now(),
                Some(until) => until,
                None => deadline,
            };
            match self.reserve(hop, *count, until).await {
                Ok(places) => {
                    held.insert(index, places);
                    idle_until.get_or_insert_with(soon);
                }
                Err(_) if Instant::now() >= deadline => {
                    late.insert(index);
                }
                Err(_) => return Some(index),
            }
        }
        None
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
        Ok(Attempt { state, probe, is_clients: AtomicBool::new(false) })
    }

    /// Whether a hop is one that messages would be sent to without a probe.
    pub(crate) fn is_working(&self, hop: &Hop) -> bool {
        self.state(hop).health().until.is_none()
    }

    /// Whether that holds for all hops to the server, whatever messages demand of the way there.
    pub(crate) fn is_server_working(&self, hop: &Hop) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_server = known.iter().filter(|(other, _)| other.is_at_same_place(hop));
        of_server.all(|(_, state)| state.health().until.is_none())
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
    /// Whether everybody else waits for what it finds.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe
    }

    /// A client was introduced to a server of the hop, which is there then. What that one says from here on, or keeps to itself,
    /// may be meant for this client alone, who must not shut the hop for everybody.
    pub(crate) fn introduced(&self) {
        self.is_clients.store(true, Ordering::Relaxed);
    }

    /// The hop answered.
    pub(crate) fn succeeded(mut self) {
        self.probe = false;
        *self.state.health() = Health::default();
    }

    /// The hop could not be reached; without a verdict where a client was introduced.
    pub(crate) fn failed(mut self) {
        if *self.is_clients.get_mut() {
            return;
        }
        let probe = std::mem::take(&mut self.probe);
        let mut health = self.state.health();
        if probe {
            health.probing = false;
        } else if health.until.is_some() {
            // Begun before the hop was left alone: it says nothing new.
            return;
        }
        health.failures = health.failures.saturating_add(1);
        health.failed_at = Some(Instant::now());
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

/// How long places at one hop may wait for those at another, at first.
const HELD_IDLE_MAX: Duration = Duration::from_secs(1);
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
    use super::super::introduction::Introduction;
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
        assert!(!hops.is_working(&dead) && hops.is_working(&other));
        hops.attempt(&other).unwrap().failed();
        assert!(hops.attempt(&other).is_ok(), "one failure is none");
        let demand = Demand { requiretls: true, ..Demand::default() };
        let demanding = fixed(&"smtp://127.0.0.1:1".parse().unwrap(), demand);
        assert!(hops.is_working(&demanding) && !hops.is_server_working(&demanding));
        assert!(hops.is_server_working(&other));
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

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test(start_paused = true)]
    async fn who_failed_once_and_is_asked_no_more_is_forgotten() {
        let hops = Hops::new(1);
        fail(&hops, &hop(1), 1);
        tokio::time::advance(FORGET / 2).await;
        fail(&hops, &hop(2), 1);
        tokio::time::advance(FORGET / 2 + Duration::from_secs(1)).await;
        hops.sweep();
        let known: Vec<Hop> = hops.known.lock().unwrap().keys().cloned().collect();
        assert_eq!(known, [hop(2)]);
    }

    #[tokio::test]
    async fn a_place_does_not_stand_idle_while_another_is_waited_for() {
        let (hops, free, busy) = (Arc::new(Hops::new(1)), hop(1), hop(2));
        let taken = hops.reserve(&busy, 1, soon()).await.unwrap();
        let (waits, own) = (Arc::clone(&hops), [free.clone(), busy]);
        let waiting = tokio::spawn(async move {
            let both = own.iter().map(|hop| (hop, 1)).collect();
            waits.reserve_all(both, soon()).await.into_values().all(|place| place.is_ok())
        });
        // It has its place before anybody else asks for one.
        while hops.state(&free).connections.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let soon_enough = Instant::now() + 5 * HELD_IDLE_MAX;
        drop(hops.reserve(&free, 1, soon_enough).await.expect("the place was given back"));
        assert!(!waiting.is_finished());
        drop(taken);
        assert!(waiting.await.unwrap(), "and taken again");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn messages_that_want_the_same_places_in_any_order_do_not_wait_for_each_other() {
        let hops = Arc::new(Hops::new(1));
        let mut running = tokio::task::JoinSet::new();
        for turn in 0_u16..60 {
            let hops = Arc::clone(&hops);
            running.spawn(async move {
                let some = [turn, turn + 1, turn + 2].map(|number| hop(number % 4 + 1));
                let mut order: Vec<&Hop> = some.iter().collect();
                order.rotate_left(usize::from(turn % 3));
                let places =
                    hops.reserve_all(order.into_iter().map(|hop| (hop, 1)).collect(), soon()).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
                places.into_values().all(|place| place.is_ok())
            });
        }
        while let Some(all) = running.join_next().await {
            assert!(all.unwrap(), "a place was not to be had in time");
        }
    }

    #[tokio::test]
    async fn a_hop_that_stays_busy_costs_its_own_copy_only() {
        let (hops, free, busy) = (Hops::new(1), hop(2), hop(1));
        let _taken = hops.reserve(&busy, 1, soon()).await.unwrap();
        let soon = Instant::now() + Duration::from_millis(100);
        let mut places = hops.reserve_all(HashMap::from([(&free, 1), (&busy, 1)]), soon).await;
        assert!(places.remove(&free).unwrap().is_ok());
        let refusal = places.remove(&busy).unwrap().unwrap_err();
        assert!(refusal.to_string().starts_with("451 4.4.5 "), "{refusal}");
    }

    #[tokio::test]
    async fn a_server_is_one_hop_whoever_is_introduced_to_it() {
        let introducing = |client: &str| {
            let (client, server) = (client.parse().unwrap(), "192.0.2.25:25".parse().unwrap());
            Hop { introduction: Some(Introduction::Proxy { client, server }), ..hop(1) }
        };
        let (one, other) = (introducing("192.0.2.1:4025"), introducing("192.0.2.2:4025"));
        let hops = Hops::new(1);
        let place = hops.reserve(&one, 1, Instant::now()).await.unwrap();
        for same in [&other, &hop(1)] {
            let refused = hops.reserve(same, 1, Instant::now()).await;
            assert!(refused.is_err(), "a second place at {same:?}");
        }
        drop(place);
        fail(&hops, &one, FAILURES_MAX);
        for same in [&other, &hop(1)] {
            assert!(hops.attempt(same).is_err(), "not left alone: {same:?}");
        }
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
