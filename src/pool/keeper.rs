//! The background service that keeps every pool's discovery and health up to date.
//!
//! Pingora's services are fixed once the server runs, but a load balancer's own loop may be spawned
//! at any time; so one service runs the loops of all pools.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Pool;

/// The longest that a start waits for first health checks; listeners open anyway after it.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// Runs the pools and says when they have settled.
pub struct Keeper {
    pools: Vec<Arc<Pool>>,
    settled: watch::Sender<bool>,
}

impl Keeper {
    /// A keeper of `pools`.
    #[must_use]
    pub fn new(pools: Vec<Arc<Pool>>) -> Self {
        Self { pools, settled: watch::Sender::new(false) }
    }

    /// Becomes true once each pool has a backend that is up, or has checked them all.
    #[must_use]
    pub fn settled(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut running = JoinSet::new();
        for pool in &self.pools {
            let (pool, shutdown) = (Arc::clone(pool), shutdown.clone());
            running.spawn(async move { pool.run(shutdown).await });
        }
        let all_settled = async {
            for pool in &self.pools {
                pool.settled().await;
            }
        };
        // Whether it was in time does not matter: a pool without backends must not keep the rest closed.
        tokio::time::timeout(SETTLE_LIMIT, all_settled).await.ok();
        self.settled.send_replace(true);
        while running.join_next().await.is_some() {}
    }
}
