//! Runs the discovery and the health checks of one pool.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_core::server::ShutdownWatch;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::base::event::Event;
use crate::discovery::source::api::Registry;
use crate::pool::health::runner;
use crate::pool::live::Pool;

/// The longest wait for the first lists of sources, so that a source that is down does not delay the pool.
const FIRST_LISTS: Duration = Duration::from_secs(3);
/// How often a backend whose registration has ended is examined.
const DRAIN_POLL: Duration = Duration::from_millis(50);

impl Pool {
    /// Runs discovery and health checks until shutdown.
    pub async fn run(&self, shutdown: ShutdownWatch) {
        let mut shutdown_started = shutdown.clone();
        let work = async {
            tokio::join!(self.keep_lists(), self.begin(shutdown), self.keep_registrations(), self.events.run())
        };
        tokio::select! {
            _ = shutdown_started.changed() => {}
            _ = work => {}
        }
    }

    async fn begin(&self, shutdown: ShutdownWatch) {
        let attempts = async {
            for kept in self.discovery.sources().iter() {
                kept.attempted().await;
            }
        };
        timeout(FIRST_LISTS, attempts).await.ok();
        // From here on no change of a list is missed.
        let changes = self.discovery.sources().iter().map(|kept| kept.changes()).collect();
        // Pingora's loop does not report when its first discovery ends, so discovery runs once before the loop.
        // `Discovery` never fails: it keeps the last good result.
        self.balancer.update().await.ok();
        self.take_over_state();
        self.progress.send_replace(true);
        // Pingora's loop returns immediately if it has no name to resolve and no check to run. `join!` keeps the others running in
        // that case.
        let detection = self.admission.watch(|| self.candidates());
        tokio::join!(self.balancer.run(shutdown), detection, self.follow_lists(changes), self.check_health());
    }

    async fn check_health(&self) {
        if let Some(probe) = &self.probe {
            runner::run(Arc::clone(probe), || self.discovery.attached(), &self.members_changed).await;
        }
    }

    /// Keeps the lists of the sources current. Each has its own task, because a list may be large.
    async fn keep_lists(&self) {
        let mut tasks = JoinSet::new();
        for kept in self.discovery.sources().iter() {
            let kept = Arc::clone(kept);
            tasks.spawn(async move { kept.run().await });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Applies each change of a list. It runs in one task with Pingora's loop, so that two discoveries never overlap
    /// between the lists and their effect.
    async fn follow_lists(&self, lists: Vec<watch::Receiver<u64>>) {
        let changed = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        for mut list in lists {
            let changed = Arc::clone(&changed);
            tasks.spawn(async move {
                while list.changed().await.is_ok() {
                    changed.notify_one();
                }
            });
        }
        loop {
            changed.notified().await;
            self.balancer.update_all().await.ok();
            self.members_changed.notify_one();
            self.progress.send_modify(|_| ());
        }
    }

    /// Ends registrations that are not renewed, and forgets them once their backends have no requests in flight.
    #[expect(clippy::disallowed_methods, reason = "the loop is where the times of registrations come from")]
    async fn keep_registrations(&self) {
        let Some(registry) = self.discovery.sources().registry() else { return };
        loop {
            let now = Instant::now();
            for backend in registry.expire(now) {
                Event::BackendDeregistered { pool: self.name.clone(), backend, expired: true }.announce();
            }
            registry.forget_ended(self.spec.removal_timeout, now, |address| {
                self.discovery.value(address).is_some_and(|endpoint| endpoint.in_flight() > 0)
            });
            tokio::select! {
                () = next_expiry(registry) => {}
                () = registry.written() => {}
                () = sleep(DRAIN_POLL), if registry.is_draining() => {}
            }
        }
    }
}

async fn next_expiry(registry: &Registry) {
    match registry.next_expiry() {
        Some(expiry) => sleep_until(expiry.into()).await,
        None => pending().await,
    }
}
