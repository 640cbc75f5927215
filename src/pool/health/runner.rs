//! Runs the health checks of a pool when they are due, a limited number at the same time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::task::{Id, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::base::backend_address::BackendAddress;
use crate::pool::endpoint::Endpoint;
use crate::pool::health::probe::Probe;

/// Checks at the same time, in a pool of up to four times as many backends.
const AT_ONCE_MIN: usize = 256;
/// In a larger pool, one of this many backends is checked at the same time. If all backends hang, a round of checks takes
/// this many timeouts.
const AT_ONCE_PART: usize = 4;

/// The checks of a pool that run or wait.
struct Checks {
    probe: Arc<Probe>,
    /// Due checks that have not started.
    waiting: VecDeque<Arc<Endpoint>>,
    /// The running checks; dropping them ends them.
    running: JoinSet<()>,
    /// The backend of each running check.
    by_task: HashMap<Id, BackendAddress>,
    /// The backends whose checks run or wait.
    taken: HashSet<BackendAddress>,
    /// The most running checks.
    most: usize,
}

impl Checks {
    /// Adds the checks that are due at `now`.
    fn examine(&mut self, backends: &[Arc<Endpoint>], now: Instant) {
        self.most = AT_ONCE_MIN.max(backends.len() / AT_ONCE_PART);
        for endpoint in backends {
            if self.probe.is_due(endpoint, now) && self.taken.insert(endpoint.address()) {
                self.waiting.push_back(Arc::clone(endpoint));
            }
        }
    }

    /// Starts waiting checks, as far as the limit allows.
    fn start(&mut self) {
        while self.running.len() < self.most {
            let Some(endpoint) = self.waiting.pop_front() else { return };
            let (probe, address) = (Arc::clone(&self.probe), endpoint.address());
            let task = self.running.spawn(async move { probe.check(&endpoint).await });
            self.by_task.insert(task.id(), address);
        }
    }

    /// Waits for the end of a check; forever if none runs.
    async fn finished(&mut self) {
        let id = match self.running.join_next_with_id().await {
            None => return std::future::pending().await,
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                // The backend keeps its health, and is checked again.
                log::error!("a health check has failed: {error}");
                error.id()
            }
        };
        if let Some(address) = self.by_task.remove(&id) {
            self.taken.remove(&address);
        }
    }
}

/// Runs the checks of the backends until it is dropped.
#[expect(clippy::disallowed_methods, reason = "the pool's background task is where check times come from")]
pub(in crate::pool) async fn run(probe: Arc<Probe>, backends: impl Fn() -> Vec<Arc<Endpoint>>) {
    let mut ticks = interval(probe.tick_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks = Checks {
        probe,
        waiting: VecDeque::new(),
        running: JoinSet::new(),
        by_task: HashMap::new(),
        taken: HashSet::new(),
        most: AT_ONCE_MIN,
    };
    loop {
        tokio::select! {
            _ = ticks.tick() => checks.examine(&backends(), Instant::now()),
            () = checks.finished() => {}
        }
        checks.start();
    }
}
