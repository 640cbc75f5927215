//! What a pool takes over from the one in whose place it comes when the configuration changes.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use super::administration::Written;
use super::bounds::Bounds;
use super::endpoint::{Endpoint, Shared, Standing};
use super::{Pool, Spec};
use crate::discovery::{Discovery, Member};
use crate::event::Event;
use crate::units::PoolName;

impl Spec {
    /// Whether both describe the very same pool: the same was written, and the files that it names hold
    /// the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.written == other.written && self.template.tls == other.template.tls
    }
}

impl Pool {
    /// Builds the pool in the place of `before`: backends that stay keep what is known about them and what
    /// they are working on, names their last good answer. `before` is not touched until a [`Keeper`] runs
    /// its successor.
    ///
    /// # Errors
    /// As [`Pool::build`].
    pub fn succeed(before: &Self, spec: &Spec, now: Instant) -> pingora::Result<Self> {
        Self::assemble(before.name.clone(), spec, Some(before), now)
    }

    /// From now on this pool's rules hold for what it has from the one before.
    #[expect(clippy::disallowed_methods, reason = "deadlines and windows begin when the pool does")]
    pub(super) fn take_over(&self) {
        let (backends, now) = (self.discovery.attached(), Instant::now());
        self.bounds.begin(&backends, now);
        self.predecessor.leave(&backends, &self.name, self.spec.removal_timeout, now);
    }

    /// The pool is no longer in the configuration, and nobody comes in its place.
    pub fn remove(&self, now: Instant) {
        self.discovery
            .attached()
            .iter()
            .for_each(|endpoint| endpoint.remove(&self.name, self.spec.removal_timeout, now));
    }
}

/// What comes from the pool before.
#[derive(Default)]
pub(super) struct Predecessor {
    /// Its backends, and those that were removed before it and still have requests.
    endpoints: Vec<Arc<Endpoint>>,
    /// Where those are that the configuration no longer has.
    missing: BTreeSet<SocketAddr>,
}

impl Predecessor {
    /// What `before` leaves to a pool with the backends of `spec`.
    pub(super) fn new(before: &Pool, spec: &Spec) -> Self {
        let mut endpoints = before.discovery.attached();
        let gone = |endpoint: &&Arc<Endpoint>| {
            endpoint.in_flight() > 0 && !endpoints.iter().any(|known| Arc::ptr_eq(known, endpoint))
        };
        let leaving: Vec<_> = before.predecessor.endpoints.iter().filter(gone).cloned().collect();
        endpoints.extend(leaving);
        Self { endpoints, missing: before.discovery.missing_in(&spec.members) }
    }

    /// The discovery of a pool's backends, each with its state; those that were there before keep theirs.
    #[expect(clippy::disallowed_methods, reason = "a backend's own clock starts when it is found")]
    pub(super) fn discovery(
        &self,
        name: &PoolName,
        spec: &Spec,
        in_flight: &Arc<AtomicU32>,
        bounds: &Bounds,
    ) -> Discovery<Arc<Endpoint>> {
        let known: HashMap<SocketAddr, Arc<Endpoint>> =
            self.endpoints.iter().map(|endpoint| (endpoint.address(), Arc::clone(endpoint))).collect();
        let shared = Shared {
            in_flight: Arc::clone(in_flight),
            alarm: Arc::clone(bounds.alarm()),
            changed: Arc::clone(bounds.changed()),
        };
        let (checked, give_circuit) = (spec.health_check.is_some(), bounds.circuits());
        let pool = name.clone();
        let attach = move |address, member: &Member| {
            let written = Written { backup: member.backup, drain: member.drain, weight: member.weight };
            let standing = Standing { written, checked };
            let now = Instant::now();
            let endpoint = match known.get(&address) {
                Some(endpoint) => {
                    if endpoint.follow(standing, now).is_some() {
                        Event::OverrideEnded { pool: pool.clone(), backend: address }.announce();
                    }
                    Arc::clone(endpoint)
                }
                None => Arc::new(Endpoint::new(address, standing, shared.clone(), now)),
            };
            endpoint.changed();
            give_circuit(&endpoint, now);
            endpoint
        };
        Discovery::new(name.clone(), spec.members.clone(), attach)
    }

    /// Lets those go that the configuration no longer has and that are not among `found` either.
    pub(super) fn leave(&self, found: &[Arc<Endpoint>], pool: &PoolName, limit: Duration, now: Instant) {
        let stays = |gone: &Arc<Endpoint>| found.iter().any(|endpoint| Arc::ptr_eq(endpoint, gone));
        let gone = self.endpoints.iter().filter(|endpoint| self.missing.contains(&endpoint.address()));
        gone.filter(|endpoint| !stays(endpoint)).for_each(|endpoint| endpoint.remove(pool, limit, now));
    }
}
