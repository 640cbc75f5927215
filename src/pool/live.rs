//! A live pool: its backends, the policy that picks one, and what admits requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use fastrand::Rng;
use http::request::Parts;
use pingora_core::server::ShutdownWatch;
use tokio::sync::watch;

use crate::base::units::PoolName;
use crate::discovery::Discovery;
use crate::http::rejection::Rejection;
use crate::pool::admission::Bounds;
use crate::pool::config::Spec;
use crate::pool::endpoint::Endpoint;
use crate::pool::lease::Lease;
use crate::pool::lifecycle::predecessor::Predecessor;
use crate::pool::peer::Template;
use crate::pool::selection::balancer::Balancer;
use crate::pool::selection::choice::Ask;
use crate::pool::selection::key::Key;
use crate::retry;

/// A live pool.
pub struct Pool {
    pub(in crate::pool) name: PoolName,
    pub(in crate::pool) spec: Spec,
    pub(in crate::pool) template: Template,
    /// When a pool without a healthy backend may have one again.
    pub(in crate::pool) retry_after: Duration,
    pub(in crate::pool) predecessor: Predecessor,
    pub(in crate::pool) discovery: Arc<Discovery<Arc<Endpoint>>>,
    pub(in crate::pool) balancer: Arc<dyn Balancer>,
    pub(in crate::pool) in_flight: Arc<AtomicU32>,
    pub(in crate::pool) budget: Arc<retry::Budget>,
    /// Whether the first discovery is done; touched after each finished check.
    pub(in crate::pool) progress: Arc<watch::Sender<bool>>,
    pub(in crate::pool) bounds: Bounds,
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

    /// Every backend that is to have traffic, with what is known about it.
    #[must_use]
    pub fn candidates(&self) -> Vec<Arc<Endpoint>> {
        let mut found = self.discovery.attached();
        found.retain(|endpoint| endpoint.weight() > 0);
        found
    }

    /// Whether a backend may have a request as far as its traffic goes.
    pub(in crate::pool) fn is_well(&self, endpoint: &Endpoint) -> bool {
        !endpoint.observed().is_ejected() && self.bounds.allow(endpoint)
    }

    /// How many requests wait for a place; `None` where there is no limit to wait for.
    #[must_use]
    pub fn waiting(&self) -> Option<usize> {
        self.bounds.waiting()
    }

    /// Has the policy prepared anew for the weights that the backends have now. A pool that is about to come in
    /// the place of this one has the same backends, but was prepared before they were changed; so this is for
    /// whoever puts it there and for whoever changes them, each after they have done it.
    pub fn reweigh(&self) {
        self.balancer.reweigh();
    }
}
