//! The background service that keeps every pool's discovery and health up to date.
//!
//! Pingora's services are fixed once the server runs, but a load balancer's own loop may be spawned
//! and ended at any time; so one service runs the loops of all pools, and follows when they change.

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

/// The longest that new pools are waited for; they go live anyway after it.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// The pools that are kept up to date, one of each name. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Kept(watch::Sender<Vec<Arc<Pool>>>);

impl Kept {
    /// Keeps `pools` besides those that no longer belong to the configuration, and waits until the new
    /// ones have settled, or for 5 s. A pool takes the place of the one with its name.
    pub async fn begin(&self, pools: &[Arc<Pool>]) {
        let before = self.0.borrow().clone();
        let both: Vec<_> = pools.iter().cloned().chain(without(&before, pools)).collect();
        self.0.send_replace(both);
        let before = by_name(&before);
        let is_new = |pool: &&Arc<Pool>| before.get(pool.name()).is_none_or(|old| !Arc::ptr_eq(old, pool));
        let new: Vec<_> = pools.iter().filter(is_new).cloned().collect();
        settle(&new).await;
    }

    /// Keeps `pools` only; checks of others end, and their requests in time.
    pub fn only(&self, pools: Vec<Arc<Pool>>, now: Instant) {
        let before = self.0.send_replace(pools.clone());
        without(&before, &pools).for_each(|pool| pool.remove(now));
    }
}

/// There may be a thousand.
fn by_name(pools: &[Arc<Pool>]) -> HashMap<&PoolName, &Arc<Pool>> {
    pools.iter().map(|pool| (pool.name(), pool)).collect()
}

/// Those of `before` in whose place none of `pools` comes.
fn without<'a>(before: &'a [Arc<Pool>], pools: &'a [Arc<Pool>]) -> impl Iterator<Item = Arc<Pool>> + 'a {
    let names = by_name(pools);
    before.iter().filter(move |old| !names.contains_key(old.name())).cloned()
}

/// Whether it was in time does not matter: a pool without backends must not keep the rest closed.
async fn settle(pools: &[Arc<Pool>]) {
    let all_settled = async {
        for pool in pools {
            pool.settled().await;
        }
    };
    tokio::time::timeout(SETTLE_LIMIT, all_settled).await.ok();
}

/// Runs the pools and says when they have settled.
pub struct Keeper {
    kept: Kept,
    settled: watch::Sender<bool>,
}

impl Keeper {
    /// A keeper of `pools` at first.
    #[must_use]
    pub fn new(pools: Vec<Arc<Pool>>) -> Self {
        Self { kept: Kept(watch::Sender::new(pools)), settled: watch::Sender::new(false) }
    }

    /// Becomes true once each pool has a backend that is up, or has checked them all.
    #[must_use]
    pub fn settled(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }

    /// Says which pools are to be kept from now on.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept.clone()
    }
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut wanted = self.kept.0.subscribe();
        let first = wanted.borrow_and_update().clone();
        let mut loops = Loops { running: HashMap::new(), tasks: JoinSet::new(), shutdown: shutdown.clone() };
        loops.follow(&first);
        let settling = async {
            settle(&first).await;
            self.settled.send_replace(true);
        };
        let following = async {
            while wanted.changed().await.is_ok() {
                let pools = wanted.borrow_and_update().clone();
                loops.follow(&pools);
            }
        };
        let mut ended = shutdown;
        tokio::select! {
            _ = async { tokio::join!(settling, following) } => {}
            _ = ended.wait_for(|shutdown| *shutdown) => {}
        }
    }
}

/// The loops that run.
struct Loops {
    running: HashMap<PoolName, (Arc<Pool>, AbortHandle)>,
    tasks: JoinSet<()>,
    shutdown: ShutdownWatch,
}

impl Loops {
    /// Ends the loops of pools that are not in `pools`, and starts those that are new. A successor's loop
    /// looks after the backends that its pool has in common with the one before.
    fn follow(&mut self, pools: &[Arc<Pool>]) {
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
                let (looked_after, shutdown) = (Arc::clone(pool), self.shutdown.clone());
                let task = self.tasks.spawn(async move { looked_after.run(shutdown).await });
                self.running.insert(pool.name().clone(), (Arc::clone(pool), task));
            }
        }
        // Those that have ended are let go.
        while self.tasks.try_join_next().is_some() {}
    }
}
