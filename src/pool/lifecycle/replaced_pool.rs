//! The state that a pool takes over from the pool that it replaces.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::PoolName;
use crate::discovery::{Discovery, Member};
use crate::pool::admission::Admission;
use crate::pool::config::Spec;
use crate::pool::endpoint::{BackendSettings, Endpoint, PoolShared};
use crate::pool::operator::overrides::ConfiguredSettings;
use crate::pool::operator::saved::Pending;

/// The state of the replaced pool.
#[derive(Default)]
pub(in crate::pool) struct ReplacedPool {
    /// Its backends, and older removed backends that still have requests in flight.
    endpoints: Vec<Arc<Endpoint>>,
    /// The addresses that are no longer configured.
    missing: BTreeSet<BackendAddress>,
    /// Restored overrides of backends that were not found yet.
    pub(in crate::pool) pending: Pending,
}

impl ReplacedPool {
    /// The state for a pool with the backends of `spec`. The replaced pool has the discovery `before`, and itself
    /// took over the state `older`.
    pub(in crate::pool) fn new(before: &Discovery<Arc<Endpoint>>, older: &Self, spec: &Spec) -> Self {
        let mut endpoints = before.attached();
        let still_in_use = |endpoint: &&Arc<Endpoint>| {
            endpoint.in_flight() > 0 && !endpoints.iter().any(|known| Arc::ptr_eq(known, endpoint))
        };
        let removed: Vec<_> = older.endpoints.iter().filter(still_in_use).cloned().collect();
        endpoints.extend(removed);
        Self { endpoints, missing: before.missing_in(&spec.members), pending: older.pending.clone() }
    }

    /// The discovery of the pool's backends. Backends that already existed keep their state.
    #[expect(clippy::disallowed_methods, reason = "a backend's own clock starts when discovery finds it")]
    pub(in crate::pool) fn discovery(
        &self,
        name: &PoolName,
        spec: &Spec,
        in_flight: &Arc<AtomicU32>,
        admission: &Admission,
    ) -> Discovery<Arc<Endpoint>> {
        let known: HashMap<BackendAddress, Arc<Endpoint>> =
            self.endpoints.iter().map(|endpoint| (endpoint.address(), Arc::clone(endpoint))).collect();
        let shared = PoolShared {
            in_flight: Arc::clone(in_flight),
            trigger: Arc::clone(admission.monitor().trigger()),
            changed: Arc::clone(admission.changed()),
        };
        let (checked, set_circuit) = (spec.health_check.is_some(), admission.circuits());
        let (pool, pending) = (name.clone(), self.pending.clone());
        let attach = move |address, member: &Member| {
            let configured = ConfiguredSettings { backup: member.backup, drain: member.drain, weight: member.weight };
            let settings = BackendSettings { configured, checked };
            let now = Instant::now();
            let endpoint = match known.get(&address) {
                Some(endpoint) => {
                    if endpoint.reconfigure(settings, now).is_some() {
                        Event::OverrideEnded { pool: pool.clone(), backend: address }.announce();
                    }
                    Arc::clone(endpoint)
                }
                None => Arc::new(Endpoint::new(address, settings, shared.clone(), now)),
            };
            pending.apply_to(&endpoint, now);
            endpoint.notify_change();
            set_circuit(&endpoint, now);
            endpoint
        };
        Discovery::new(name.clone(), spec.members.clone(), attach)
    }

    /// Removes the backends that are no longer configured. A backend in `current` stays: a name may resolve to
    /// the address of a removed member.
    pub(in crate::pool) fn remove_missing(
        &self,
        current: &[Arc<Endpoint>],
        pool: &PoolName,
        limit: Duration,
        now: Instant,
    ) {
        let stays = |old: &Arc<Endpoint>| current.iter().any(|endpoint| Arc::ptr_eq(endpoint, old));
        let missing = self.endpoints.iter().filter(|endpoint| self.missing.contains(&endpoint.address()));
        missing.filter(|endpoint| !stays(endpoint)).for_each(|endpoint| endpoint.remove(pool, limit, now));
    }
}
