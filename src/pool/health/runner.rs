//! Runs the health checks of a pool when they are due, a limited number at the same time.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
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

/// Up to this many backends, it costs little to look at all of them at every tick.
pub(in crate::pool) const FEW: usize = 256;
/// Otherwise the time between two looks at all backends, which notice what changes a schedule from outside, such as an
/// operator who enables a backend. Discovery causes a look at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A check at a time.
struct Planned {
    at: Instant,
    endpoint: Arc<Endpoint>,
}

impl Ord for Planned {
    /// The earliest is the greatest, as a heap returns that first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Planned {}

/// The checks of a pool.
struct Checks {
    probe: Arc<Probe>,
    /// The next check of each backend that is not checked now.
    planned: BinaryHeap<Planned>,
    /// Due checks that have not started.
    waiting: VecDeque<Arc<Endpoint>>,
    /// The running checks; dropping them ends them.
    running: JoinSet<()>,
    /// The backend of each running check.
    by_task: HashMap<Id, Arc<Endpoint>>,
    /// The backends whose checks run or wait.
    taken: HashSet<BackendAddress>,
    /// The most running checks.
    most: usize,
    /// When to look at all backends again.
    next_look: Instant,
}

impl Checks {
    fn new(probe: Arc<Probe>, now: Instant) -> Self {
        Self {
            probe,
            planned: BinaryHeap::new(),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            by_task: HashMap::new(),
            taken: HashSet::new(),
            most: AT_ONCE_MIN,
            next_look: now,
        }
    }

    /// Plans the next check of each backend.
    fn look(&mut self, backends: Vec<Arc<Endpoint>>, now: Instant) {
        self.most = AT_ONCE_MIN.max(backends.len() / AT_ONCE_PART);
        self.next_look = if backends.len() > FEW { now + LOOK_INTERVAL } else { now };
        let (probe, taken) = (&self.probe, &self.taken);
        let free = backends.into_iter().filter(|endpoint| !taken.contains(&endpoint.address()));
        let plan = |endpoint: Arc<Endpoint>| Some(Planned { at: probe.next_check(&endpoint, now)?, endpoint });
        self.planned = free.filter_map(plan).collect();
    }

    /// Adds the checks that are due at `now`.
    fn examine(&mut self, now: Instant) {
        while self.planned.peek().is_some_and(|planned| planned.at <= now) {
            let Some(Planned { endpoint, .. }) = self.planned.pop() else { return };
            // An operator may have disabled it, or another pool may have checked it.
            match self.probe.next_check(&endpoint, now) {
                Some(at) if at > now => self.planned.push(Planned { at, endpoint }),
                Some(_) if self.taken.insert(endpoint.address()) => self.waiting.push_back(endpoint),
                _ => {}
            }
        }
    }

    /// Starts waiting checks, as far as the limit allows.
    fn start(&mut self) {
        while self.running.len() < self.most {
            let Some(endpoint) = self.waiting.pop_front() else { return };
            let (probe, checked) = (Arc::clone(&self.probe), Arc::clone(&endpoint));
            let task = self.running.spawn(async move { probe.check(&checked).await });
            self.by_task.insert(task.id(), endpoint);
        }
    }

    /// Waits for the end of a check, and plans the next one of its backend; forever if none runs.
    #[expect(clippy::disallowed_methods, reason = "the pool's background task is where check times come from")]
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
        let Some(endpoint) = self.by_task.remove(&id) else { return };
        self.taken.remove(&endpoint.address());
        if let Some(at) = self.probe.next_check(&endpoint, Instant::now()) {
            self.planned.push(Planned { at, endpoint });
        }
    }
}

/// Runs the checks of the backends until it is dropped. `changed` is notified when discovery has changed them.
#[expect(clippy::disallowed_methods, reason = "the pool's background task is where check times come from")]
pub(in crate::pool) async fn run(probe: Arc<Probe>, backends: impl Fn() -> Vec<Arc<Endpoint>>, changed: &Notify) {
    let mut ticks = interval(probe.tick_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks = Checks::new(probe, Instant::now());
    loop {
        let must_look = tokio::select! {
            _ = ticks.tick() => false,
            () = changed.notified() => true,
            () = checks.finished() => {
                checks.start();
                continue;
            }
        };
        let now = Instant::now();
        if must_look || checks.next_look <= now {
            checks.look(backends(), now);
        }
        checks.examine(now);
        checks.start();
    }
}
