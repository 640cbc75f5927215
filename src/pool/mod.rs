//! A pool: the backends that serve the same requests, one of which is picked for each attempt.
//!
//! Selection is Pingora's `LoadBalancer<RoundRobin>`, or another policy in its place; Pingora's background
//! service keeps discovery and health up to date. State that Pingora has no place for (requests in flight,
//! latency, ejection) is in [`Endpoint`], which is attached to each backend.
//!
//! - [`config`]: the `pools` block. [`endpoint`]: one backend. [`lease`]: one attempt at a backend.
//! - [`peer`], [`proxy_protocol`]: how l7lb connects to a backend.
//! - [`health`]: active health checks. [`passive_health`]: outlier detection on real traffic.
//! - [`admission`]: limits on requests in flight, queues and circuit breakers.
//! - [`selection`]: balancing policies, affinity and the selection preview.
//! - [`operator`]: operator overrides, and what operators see.
//! - [`lifecycle`]: how a pool starts, takes over state from the pool before it, and stops.

pub mod config;
pub mod endpoint;
mod latency;
pub mod lease;
pub mod peer;
pub mod proxy_protocol;

pub mod health;
pub mod passive_health;
pub mod admission;
pub mod selection;
pub mod operator;
pub mod lifecycle;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use fastrand::Rng;
use http::request::Parts;
use pingora_core::server::ShutdownWatch;
use tokio::sync::watch;

use admission::Bounds;
pub use config::{BackendConfig, Config, Spec};
pub use endpoint::{Endpoint, Health, Shared, Standing};
pub use health::connectors::Connectors;
pub use lease::Lease;
pub use lifecycle::keeper::{Keeper, Kept};
use lifecycle::succession::Predecessor;
pub use operator::operation::{Found, Refused};
use peer::Template;
use selection::balancer::Balancer;
use selection::policy::Ask;
pub use selection::policy::Key;
pub use selection::preference::Preferred;

use crate::base::units::PoolName;
use crate::discovery::Discovery;
use crate::http::rejection::Rejection;
use crate::retry;

/// A live pool.
pub struct Pool {
    name: PoolName,
    spec: Spec,
    template: Template,
    /// When a pool without a healthy backend may have one again.
    retry_after: Duration,
    predecessor: Predecessor,
    discovery: Arc<Discovery<Arc<Endpoint>>>,
    balancer: Arc<dyn Balancer>,
    in_flight: Arc<AtomicU32>,
    budget: Arc<retry::Budget>,
    /// Whether the first discovery is done; touched after each finished check.
    progress: Arc<watch::Sender<bool>>,
    bounds: Bounds,
}

impl Pool {
    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// What the pool was built from.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// How the backends are reached.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Why none of the backends may be asked.
    #[must_use]
    pub fn no_backend(&self) -> Rejection {
        self.bounds.why_none(&self.candidates(), self.retry_after)
    }

    /// What the pool's policy knows a request by; [`Key::NONE`] for policies that do not care.
    #[must_use]
    pub fn key(&self, client: IpAddr, request: &Parts) -> Key {
        self.spec.balance.key.as_ref().map_or(Key::NONE, |source| source.key(client, request))
    }

    /// A backend for a request's first try, as `choose` picks it once the pool has room for one more
    /// request.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn reserve(&self, choose: impl FnMut() -> Option<Lease>) -> Result<Lease, Rejection> {
        self.bounds.reserve(choose, || self.candidates(), self.retry_after).await
    }

    /// Picks a backend that is available and was not tried before, and counts the request there. One that
    /// only its traffic condemned is picked where nobody else is left, not even one who is busy.
    #[must_use]
    pub fn pick(&self, key: Key, tried: &[Arc<Endpoint>], now: Instant) -> Option<Lease> {
        let well = |endpoint: &Endpoint| self.is_well(endpoint);
        let anybody = |endpoint: &Endpoint| self.bounds.allow(endpoint);
        let choose = |admits: &dyn Fn(&Endpoint) -> bool| {
            let mut ask = Ask { key, now, tried, random: Rng::new(), slow_start: self.spec.slow_start, admits };
            self.balancer.choose(&mut ask)
        };
        let ejected = || match self.bounds.is_worth_waiting(|| self.candidates(), tried) {
            true => None,
            false => choose(&anybody),
        };
        let endpoint = choose(&well).or_else(ejected)?;
        self.bounds.lease(&endpoint)
    }

    /// How many requests the pool is working on for this process.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Its retries, shared by all routes to it.
    #[must_use]
    pub fn budget(&self) -> &retry::Budget {
        &self.budget
    }

    /// Finds the backends and keeps them and their health up to date until shutdown.
    pub async fn run(&self, shutdown: ShutdownWatch) {
        // The load balancer's loop says nothing of its first discovery, hence one before it. An
        // error cannot come from our discovery, which keeps the last good answer instead.
        self.balancer.update().await.ok();
        self.take_over();
        self.progress.send_replace(true);
        let mut over = shutdown.clone();
        // The load balancer's loop ends at once where there is nothing to look up and nothing to check.
        let work = async { tokio::join!(self.balancer.run(shutdown), self.bounds.watch(|| self.candidates())) };
        tokio::select! {
            _ = over.changed() => {}
            _ = work => {}
        }
    }

    /// Waits until a backend is up, or all that were found have been checked once.
    pub async fn settled(&self) {
        let mut progress = self.progress.subscribe();
        loop {
            let candidates = self.candidates();
            let all_known = candidates.iter().all(|endpoint| endpoint.is_known());
            if *progress.borrow_and_update() && (all_known || candidates.iter().any(|endpoint| endpoint.is_up())) {
                return;
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }
}
