//! A live pool: its backends, the balancing policy and admission.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use fastrand::Rng;
use http::request::Parts;
use tokio::sync::{Notify, watch};

use crate::base::units::PoolName;
use crate::http::rejection::Rejection;
use crate::pool::admission::Admission;
use crate::pool::config::Spec;
use crate::pool::endpoint::Endpoint;
use crate::pool::health::probe::Probe;
use crate::pool::lease::Lease;
use crate::pool::lifecycle::replaced_pool::{PoolDiscovery, ReplacedPool};
use crate::pool::operator::event_limit::EventLimit;
use crate::pool::peer::Template;
use crate::pool::selection::balancer::Balancer;
use crate::pool::selection::choice::SelectionRequest;
use crate::pool::selection::key::Key;
use crate::retry;

/// The shortest time between two looks at all backends, so that thousands of first checks do not cause as many looks.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// A live pool.
pub struct Pool {
    pub(in crate::pool) name: PoolName,
    pub(in crate::pool) spec: Spec,
    pub(in crate::pool) template: Template,
    /// Retry-After for a pool without a healthy backend.
    pub(in crate::pool) retry_after: Duration,
    pub(in crate::pool) replaced: ReplacedPool,
    pub(in crate::pool) discovery: Arc<PoolDiscovery>,
    pub(in crate::pool) balancer: Arc<dyn Balancer>,
    pub(in crate::pool) in_flight: Arc<AtomicU32>,
    pub(in crate::pool) budget: Arc<retry::Budget>,
    /// The health check; `None` without one.
    pub(in crate::pool) probe: Option<Arc<Probe>>,
    /// Notified when a list of a source has changed the backends.
    pub(in crate::pool) members_changed: Notify,
    /// Announces events about single backends.
    pub(in crate::pool) events: Arc<EventLimit>,
    /// Whether the first discovery has finished; notified after each health check.
    pub(in crate::pool) progress: Arc<watch::Sender<bool>>,
    pub(in crate::pool) admission: Admission,
}

impl Pool {
    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// The checked configuration.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// How to connect to the backends.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The rejection of a request for which no backend can be picked.
    #[must_use]
    pub fn no_backend(&self) -> Rejection {
        self.admission.unavailable_reason(&self.candidates(), self.retry_after)
    }

    /// The key of a request for the balancing policy; [`Key::NONE`] for policies without keys.
    #[must_use]
    pub fn key(&self, client: IpAddr, request: &Parts) -> Key {
        self.spec.balance.key.as_ref().map_or(Key::NONE, |source| source.key(client, request))
    }

    /// Reserves a backend for the first attempt of a request. Waits in the queue until the pool has room for the
    /// request, and returns the lease from `choose`.
    ///
    /// # Errors
    /// The rejection, if no backend is available, the queue is full, or the queue timeout expires.
    pub async fn reserve(&self, choose: impl FnMut() -> Option<Lease>) -> Result<Lease, Rejection> {
        self.admission.reserve(choose, || self.candidates(), self.retry_after).await
    }

    /// Picks an available backend that this request has not attempted, and counts the request in flight there.
    /// An ejected backend is picked only if every other backend is unavailable or already attempted. If another
    /// backend is only at its limit of requests in flight, the request waits for that one.
    #[must_use]
    pub fn pick(&self, key: Key, attempted: &[Arc<Endpoint>], now: Instant) -> Option<Lease> {
        let not_ejected = |endpoint: &Endpoint| self.accepts_traffic(endpoint);
        let even_ejected = |endpoint: &Endpoint| self.admission.allow(endpoint);
        let choose = |admits: &dyn Fn(&Endpoint) -> bool| {
            let slow_start = self.spec.slow_start;
            let mut request =
                SelectionRequest { key, now, attempted, random: Rng::new(), slow_start, admits, traffic_share: 1.0 };
            self.balancer.choose(&mut request)
        };
        let choose_ejected = || match self.admission.is_worth_waiting(|| self.candidates(), attempted) {
            true => None,
            false => choose(&even_ejected),
        };
        let endpoint = choose(&not_ejected).or_else(choose_ejected)?;
        self.admission.lease(&endpoint)
    }

    /// Requests in flight at all backends of this pool, for this process.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The retry budget, shared by all routes to this pool.
    #[must_use]
    pub fn budget(&self) -> &retry::Budget {
        &self.budget
    }

    /// The adaptive limit of requests in flight; `None` if it is off.
    #[must_use]
    pub fn adaptive_limit(&self) -> Option<u32> {
        self.admission.adaptive_limit()
    }

    /// Whether requests may wait for a backend.
    #[must_use]
    pub fn has_queue(&self) -> bool {
        self.admission.has_queue()
    }

    /// Waits until the first discovery has finished, and a backend is up or all backends have been checked once.
    pub async fn settled(&self) {
        let mut progress = self.progress.subscribe();
        loop {
            if *progress.borrow_and_update() && self.is_settled() {
                return;
            }
            if progress.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    /// Whether a backend with a weight above 0 is up, or the health of all of them is known.
    fn is_settled(&self) -> bool {
        self.discovery.with_attached(|backends| {
            let mut all_known = true;
            for endpoint in backends.filter(|endpoint| endpoint.weight() > 0) {
                if endpoint.is_up() {
                    return true;
                }
                all_known &= endpoint.is_health_known();
            }
            all_known
        })
    }

    /// Every backend with a weight above 0.
    #[must_use]
    pub fn candidates(&self) -> Vec<Arc<Endpoint>> {
        self.discovery.with_attached(|backends| backends.filter(|endpoint| endpoint.weight() > 0).cloned().collect())
    }

    /// Whether a backend is not ejected, and its limits and circuit breaker admit a request.
    pub(in crate::pool) fn accepts_traffic(&self, endpoint: &Endpoint) -> bool {
        !endpoint.passive_health().is_ejected() && self.admission.allow(endpoint)
    }

    /// The number of queued requests; `None` without a limit on requests in flight.
    #[must_use]
    pub fn queued_requests(&self) -> Option<usize> {
        self.admission.waiting()
    }

    /// Prepares the policy again with the current weights of the backends.
    ///
    /// During a reload, the old and the new pool share endpoints. An operator may change a weight after the new
    /// pool was prepared. Therefore both the reload and the operator override call this after their change.
    pub fn update_weights(&self) {
        self.balancer.update_weights();
    }
}
