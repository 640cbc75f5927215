//! The state that a pool takes over from the pool that it replaces, and what discovery attaches to an address.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::PoolName;
use crate::discovery::{Attach, Discovery, Member, Sources};
use crate::pool::admission::Admission;
use crate::pool::config::{Spec, WEIGHTS_MAX};
use crate::pool::endpoint::{BackendSettings, Endpoint, PoolShared};
use crate::pool::operator::overrides::ConfiguredSettings;
use crate::pool::operator::saved::Pending;

/// The discovery of a pool.
pub(in crate::pool) type PoolDiscovery = Discovery<AttachEndpoint>;

/// The state of the replaced pool.
#[derive(Default)]
pub(in crate::pool) struct ReplacedPool {
    /// Its backends, and older removed backends that still have requests in flight.
    endpoints: Vec<Arc<Endpoint>>,
    /// Restored overrides of backends that were not found yet.
    pub(in crate::pool) pending: Pending,
}

impl ReplacedPool {
    /// The state of a replaced pool with the discovery `before`, which itself took over the state `older`.
    pub(in crate::pool) fn new(before: &PoolDiscovery, older: &Self) -> Self {
        let mut endpoints = before.in_use();
        let still_in_use = |endpoint: &&Arc<Endpoint>| {
            endpoint.in_flight() > 0 && !endpoints.iter().any(|known| Arc::ptr_eq(known, endpoint))
        };
        let removed: Vec<_> = older.endpoints.iter().filter(still_in_use).cloned().collect();
        endpoints.extend(removed);
        Self { endpoints, pending: older.pending.clone() }
    }

    /// The discovery of the pool's backends. Backends that already existed keep their state.
    pub(in crate::pool) fn discovery(
        &self,
        name: &PoolName,
        (spec, sources): (&Spec, Sources),
        shared: PoolShared,
        admission: &Admission,
    ) -> PoolDiscovery {
        let attach = AttachEndpoint {
            pool: name.clone(),
            known: self.endpoints.iter().map(|endpoint| (endpoint.address(), Arc::clone(endpoint))).collect(),
            shared,
            checked: spec.health_check.is_some(),
            set_circuit: Box::new(admission.circuits()),
            pending: self.pending.clone(),
            removal_timeout: spec.removal_timeout,
            begun: AtomicBool::new(false),
        };
        Discovery::new(name.clone(), (spec.members.clone(), sources), WEIGHTS_MAX, attach)
    }

    /// Removes the backends that are not in `current`.
    pub(in crate::pool) fn remove_missing(
        &self,
        current: &[Arc<Endpoint>],
        pool: &PoolName,
        limit: Duration,
        now: Instant,
    ) {
        let stays: HashMap<BackendAddress, &Arc<Endpoint>> =
            current.iter().map(|endpoint| (endpoint.address(), endpoint)).collect();
        let missing = |old: &&Arc<Endpoint>| !stays.get(&old.address()).is_some_and(|kept| Arc::ptr_eq(kept, old));
        self.endpoints.iter().filter(missing).for_each(|endpoint| endpoint.remove(pool, limit, now));
    }
}

/// Sets the circuit breaker of a backend.
type SetCircuit = dyn Fn(&Endpoint, Instant) + Send + Sync;

/// Attaches the state of a backend to its address.
pub(in crate::pool) struct AttachEndpoint {
    pool: PoolName,
    /// The backends of the replaced pool.
    known: HashMap<BackendAddress, Arc<Endpoint>>,
    shared: PoolShared,
    checked: bool,
    set_circuit: Box<SetCircuit>,
    pending: Pending,
    removal_timeout: Duration,
    /// Whether the pool serves requests, so that a new backend begins with slow start.
    begun: AtomicBool,
}

impl AttachEndpoint {
    /// From now on a new backend begins with slow start.
    pub(in crate::pool) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }
}

impl Attach for AttachEndpoint {
    type Value = Arc<Endpoint>;

    #[expect(clippy::disallowed_methods, reason = "a backend's own clock starts when discovery finds it")]
    fn attach(&self, address: BackendAddress, member: &Member, known: Option<Arc<Endpoint>>) -> Arc<Endpoint> {
        let configured = ConfiguredSettings { backup: member.backup, drain: member.drain, weight: member.weight };
        let settings = BackendSettings { configured, checked: self.checked, zone: member.zone.clone() };
        let now = Instant::now();
        let endpoint = match known.as_ref().or_else(|| self.known.get(&address)) {
            Some(endpoint) => {
                if endpoint.reconfigure(settings, now).is_some() {
                    Event::OverrideEnded { pool: self.pool.clone(), backend: address }.announce();
                }
                Arc::clone(endpoint)
            }
            None => {
                let endpoint = Arc::new(Endpoint::new(address, settings, self.shared.clone(), now));
                if self.begun.load(Ordering::Relaxed) {
                    endpoint.join(now);
                }
                endpoint
            }
        };
        self.pending.apply_to(&endpoint, now);
        endpoint.notify_change();
        (self.set_circuit)(&endpoint, now);
        endpoint
    }

    #[expect(clippy::disallowed_methods, reason = "the removal timeout begins when discovery no longer finds it")]
    fn detach(&self, endpoint: &Arc<Endpoint>) {
        endpoint.remove(&self.pool, self.removal_timeout, Instant::now());
        endpoint.notify_change();
    }

    fn is_in_use(&self, endpoint: &Arc<Endpoint>) -> bool {
        endpoint.in_flight() > 0
    }
}
