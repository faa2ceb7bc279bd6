//! The threads that connections are served on. Each has its own events, so that a request that comes, the use of its key, its
//! audit line and its answer stay on one thread: changing threads costs a good part of what an RSA signature does.
//!
//! There are as many as processors: all that a lane does is compute, and what comes meanwhile is found without sleeping in
//! between. More of them wake each other up and gain nothing. A disk that does not take audit lines holds up every use of a
//! key, which is what the audit promises.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};

/// The lanes; they last as long as the process.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    /// Counted by those who hold it: the connections, and the lane.
    connections: Arc<()>,
}

impl Lanes {
    /// Starts their threads.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start() -> io::Result<Self> {
        let lane = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let wait = move || runtime.block_on(std::future::pending::<()>());
            thread::Builder::new().name(format!("lane {number}")).spawn(wait)?;
            Ok(Lane { runtime: handle, connections: Arc::default() })
        };
        Ok(Self { lanes: (0..count()).map(lane).collect::<io::Result<_>>()? })
    }

    /// Serves a connection on the lane that has the fewest; its stream must be made there, from one of std.
    pub(super) fn serve(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let fewest = self.lanes.iter().min_by_key(|lane| Arc::strong_count(&lane.connections));
        let Some(lane) = fewest else { return };
        let counted = Arc::clone(&lane.connections);
        lane.runtime.spawn(async move {
            connection.await;
            drop(counted);
        });
    }
}

fn count() -> usize {
    thread::available_parallelism().map_or(LANES_MIN, usize::from).max(LANES_MIN)
}

/// One listing of everything does not hold up all others.
const LANES_MIN: usize = 2;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn connections_spread_and_one_that_blocks_holds_up_no_other() {
        let lanes = Lanes::start().unwrap();
        let (said, heard) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let first = said.clone();
        lanes.serve(async move {
            first.send(thread::current().id()).unwrap();
            // Blocks the thread, as a disk may.
            let _ = wait.recv();
        });
        let mut threads = BTreeSet::from([format!("{:?}", heard.recv().unwrap())]);
        for _ in 1..count() {
            let said = said.clone();
            lanes.serve(async move {
                tokio::task::yield_now().await;
                said.send(thread::current().id()).unwrap();
                std::future::pending::<()>().await;
            });
            threads.insert(format!("{:?}", heard.recv().unwrap()));
        }
        assert_eq!(threads.len(), count(), "two connections on one lane while others had none");
        go.send(()).unwrap();
    }
}
