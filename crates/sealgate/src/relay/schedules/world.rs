//! The world of one schedule: chance, time, the books, the servers that can be reached, and the trace. It belongs to the thread
//! that runs the schedule, so that everything in it reaches it without being told where it is.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::books::Books;
use super::chance::Chance;
use super::line::Line;
use super::pipe::{self, End};
use super::server::{self, ServerPlan};
use crate::relay::Relay;

/// Everything of a schedule that is not the relay.
#[derive(Debug)]
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) books: Books,
    pub(super) servers: Vec<ServerPlan>,
    /// Kept where somebody is going to read it.
    pub(super) trace: Option<Vec<String>>,
    pub(super) began: Instant,
    /// From then on nothing goes wrong any more.
    pub(super) calm_at: Instant,
    /// Where real time passes.
    pub(super) threads: Handle,
    pub(super) relay: Arc<Relay>,
    /// Of the relay.
    pub(super) sessions: Vec<JoinHandle<()>>,
    pub(super) connections: usize,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Begins a schedule on this thread.
pub(super) fn begin(world: World) {
    WORLD.set(Some(world));
}

/// Ends it.
pub(super) fn end() -> World {
    WORLD.take().expect("a schedule is running")
}

/// Whether this thread runs a schedule.
pub(crate) fn are_running() -> bool {
    WORLD.with_borrow(Option::is_some)
}

/// Looks at the world, and changes it.
pub(super) fn with<T>(look: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| look(world.as_mut().expect("a schedule is running")))
}

/// Lets chance decide.
pub(super) fn draw<T>(decide: impl FnOnce(&mut Chance) -> T) -> T {
    with(|world| decide(&mut world.chance))
}

/// Writes into the books.
pub(super) fn books<T>(write: impl FnOnce(&mut Books) -> T) -> T {
    with(|world| write(&mut world.books))
}

/// Writes a line of the trace.
pub(crate) fn note(line: impl FnOnce() -> String) {
    with(|world| {
        let began = world.began;
        if let Some(trace) = &mut world.trace {
            let ms = began.elapsed().as_millis();
            trace.push(format!("{:>5}.{:03} {}", ms / 1000, ms % 1000, masked(&line())));
        }
    });
}

/// Without what is another in each run: the ids of transactions and the time of day.
fn masked(line: &str) -> String {
    let varies = |word: &str| {
        let is_id = word.len() == ID_CHARS
            && word.bytes().all(|octet| octet.is_ascii_uppercase() || octet.is_ascii_digit());
        is_id || (word.len() > 20 && word.ends_with('Z'))
    };
    let words = line.split_inclusive([' ', '=', ')']);
    let shown = |word: &str| {
        let bare = word.trim_end_matches([' ', '=', ')']);
        if varies(bare) { word.replace(bare, "*") } else { word.to_owned() }
    };
    words.map(shown).collect()
}

/// What is wrong with the relay.
pub(super) fn complain(problem: String) {
    note(|| format!("WRONG: {problem}"));
    books(|books| books.problems.push(problem));
}

/// Whether nothing goes wrong any more.
pub(super) fn is_calm() -> bool {
    with(|world| Instant::now() >= world.calm_at)
}

/// A connection of the relay to one of the servers.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<End> {
    let found = with(|world| {
        world.connections += 1;
        let plan = world.servers.iter().find(|plan| plan.address == address).cloned();
        plan.map(|plan| (plan, world.connections))
    });
    let Some((plan, number)) = found else { return Err(io::ErrorKind::HostUnreachable.into()) };
    let trouble = plan.trouble();
    if draw(|chance| chance.per_mille(trouble)) {
        note(|| format!("{address} is not reached"));
        if draw(|chance| chance.per_mille(300)) {
            std::future::pending::<()>().await;
        }
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let (ours, theirs) = pipe::pair(plan.room);
    tokio::spawn(server::serve(Line::new(theirs, plan.slow), plan, number));
    Ok(ours)
}

/// What other threads work at. It is waited for on this thread, in real time, while virtual time stands still: so no timer
/// of the schedule goes off meanwhile, and nothing else of it happens before that is done, whatever the machine does.
pub(crate) async fn off_the_clock<F: Future>(work: F) -> F::Output {
    let threads = WORLD.with_borrow(|world| world.as_ref().map(|world| world.threads.clone()));
    let Some(threads) = threads else { return work.await };
    // The budget of tokio's tasks is not given back before this one yields, which it does not.
    let mut work = pin!(tokio::task::unconstrained(work));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    std::future::poll_fn(|_| {
        let _real_time = threads.enter();
        loop {
            if let Poll::Ready(output) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
            std::thread::park();
        }
    })
    .await
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Milliseconds as chance has them: mostly none, now and then minutes.
pub(super) fn delay(trouble: u64) -> Duration {
    let ms = draw(|chance| match chance.below(1000) {
        long if long < trouble / 4 => chance.below(700_000),
        seconds if seconds < trouble => chance.below(20_000),
        short if short < trouble * 2 => chance.below(500),
        _ => 0,
    });
    Duration::from_millis(ms)
}

/// As in the ids of transactions.
const ID_CHARS: usize = 11;
/// What the relay believes the date to be: fields that are always of one length.
pub(crate) const DATE: &str = "Fri, 13 Nov 2026 12:00:00 +0000";
