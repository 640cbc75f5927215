//! The background service that runs discovery and health checks of all pools.
//!
//! Pingora cannot add a service while the server runs, but the loop of a load balancer may be spawned and
//! aborted at any time. So one service runs the loops of all pools, and starts and stops them after a reload.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::base::units::PoolName;
use crate::pool::live::Pool;

/// The longest wait for new pools to settle. After it they become active in any case.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// The running pools, one per name. Cheap to clone; all clones share the same list.
#[derive(Clone)]
pub struct RunningPools(watch::Sender<Vec<Arc<Pool>>>);

impl RunningPools {
    /// Starts the new pools among `pools`, and waits at most 5 s until they have settled. A pool replaces the
    /// running pool with the same name. Pools that are no longer configured keep running.
    pub async fn start(&self, pools: &[Arc<Pool>]) {
        let before = self.0.borrow().clone();
        let both: Vec<_> = pools.iter().cloned().chain(without(&before, pools)).collect();
        self.0.send_replace(both);
        let before = by_name(&before);
        let is_new = |pool: &&Arc<Pool>| before.get(pool.name()).is_none_or(|old| !Arc::ptr_eq(old, pool));
        let new: Vec<_> = pools.iter().filter(is_new).cloned().collect();
        settle(&new).await;
    }

    /// Removes all pools except `pools`. The removed pools stop their discovery and health checks, and their
    /// requests in flight are aborted after the removal timeout.
    pub fn retain(&self, pools: Vec<Arc<Pool>>, now: Instant) {
        let before = self.0.send_replace(pools.clone());
        without(&before, &pools).for_each(|pool| pool.remove(now));
    }
}

/// An index by name, because there may be a thousand pools.
fn by_name(pools: &[Arc<Pool>]) -> HashMap<&PoolName, &Arc<Pool>> {
    pools.iter().map(|pool| (pool.name(), pool)).collect()
}

/// The pools of `before` whose names are not in `pools`.
fn without<'a>(before: &'a [Arc<Pool>], pools: &'a [Arc<Pool>]) -> impl Iterator<Item = Arc<Pool>> + 'a {
    let names = by_name(pools);
    before.iter().filter(move |old| !names.contains_key(old.name())).cloned()
}

/// Waits until the pools have settled, or [`SETTLE_LIMIT`] has passed: a pool whose health checks do not finish
/// must not delay the others.
async fn settle(pools: &[Arc<Pool>]) {
    let all_settled = async {
        for pool in pools {
            pool.settled().await;
        }
    };
    tokio::time::timeout(SETTLE_LIMIT, all_settled).await.ok();
}

/// The background service that runs all pools.
pub struct PoolService {
    running: RunningPools,
    settled: watch::Sender<bool>,
}

impl PoolService {
    /// A service that starts with `pools`.
    #[must_use]
    pub fn new(pools: Vec<Arc<Pool>>) -> Self {
        Self { running: RunningPools(watch::Sender::new(pools)), settled: watch::Sender::new(false) }
    }

    /// Becomes true once every pool has settled: it has a backend that is up, or has checked all its backends.
    #[must_use]
    pub fn settled(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }

    /// A handle to change the running pools.
    #[must_use]
    pub fn running(&self) -> RunningPools {
        self.running.clone()
    }
}

#[async_trait]
impl BackgroundService for PoolService {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut wanted = self.running.0.subscribe();
        let first = wanted.borrow_and_update().clone();
        let mut loops = Loops { running: HashMap::new(), tasks: JoinSet::new(), shutdown: shutdown.clone() };
        loops.reconfigure(&first);
        let settling = async {
            settle(&first).await;
            self.settled.send_replace(true);
        };
        let following = async {
            while wanted.changed().await.is_ok() {
                let pools = wanted.borrow_and_update().clone();
                loops.reconfigure(&pools);
            }
        };
        let mut shutdown = shutdown;
        tokio::select! {
            _ = async { tokio::join!(settling, following) } => {}
            _ = shutdown.wait_for(|started| *started) => {}
        }
    }
}

/// The running loops.
struct Loops {
    running: HashMap<PoolName, (Arc<Pool>, AbortHandle)>,
    tasks: JoinSet<()>,
    shutdown: ShutdownWatch,
}

impl Loops {
    /// Stops the loops of pools that are not in `pools`, and starts the loops of new ones. The loop of a
    /// replacement also checks the backends that it shares with the replaced pool.
    fn reconfigure(&mut self, pools: &[Arc<Pool>]) {
        let names = by_name(pools);
        let wanted = |pool: &Arc<Pool>| names.get(pool.name()).is_some_and(|wanted| Arc::ptr_eq(wanted, pool));
        self.running.retain(|_, (pool, task)| {
            let stays = wanted(pool);
            if !stays {
                task.abort();
            }
            stays
        });
        for pool in pools {
            if !self.running.contains_key(pool.name()) {
                let (running, shutdown) = (Arc::clone(pool), self.shutdown.clone());
                let task = self.tasks.spawn(async move { running.run(shutdown).await });
                self.running.insert(pool.name().clone(), (Arc::clone(pool), task));
            }
        }
        // Frees the finished tasks.
        while self.tasks.try_join_next().is_some() {}
    }
}
