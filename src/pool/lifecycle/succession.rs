//! How a pool is made, and what it takes over from the one in whose place it comes when the configuration
//! changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_load_balancing::Backends;
use tokio::sync::watch;

use crate::base::units::PoolName;
use crate::discovery;
use crate::pool::admission::Bounds;
use crate::pool::config::Spec;
use crate::pool::health::connectors::Connectors;
use crate::pool::health::probe::Probe;
use crate::pool::lifecycle::predecessor::Predecessor;
use crate::pool::live::Pool;
use crate::pool::selection::balancer::Rhythm;
use crate::pool::selection::policy;
use crate::retry;

impl Pool {
    /// Builds the pool; nothing goes out before its [`crate::pool::Keeper`] runs it.
    ///
    /// # Errors
    /// When a health check cannot be built, which a checked configuration rules out.
    pub fn build(name: PoolName, spec: &Spec, connectors: &Connectors, now: Instant) -> pingora::Result<Self> {
        Self::assemble(name, spec, None, (connectors, now))
    }

    fn assemble(
        name: PoolName,
        spec: &Spec,
        before: Option<&Self>,
        (connectors, now): (&Connectors, Instant),
    ) -> pingora::Result<Self> {
        let mut template = spec.template.clone();
        // The seed is part of what connections are kept by.
        if let (Some(new), Some(old)) =
            (&mut template.proxy_protocol, before.and_then(|before| before.template.proxy_protocol.as_ref()))
        {
            new.clone_from(old);
        }
        let in_flight = before.map(|before| Arc::clone(&before.in_flight)).unwrap_or_default();
        let budget = before.map_or_else(|| Arc::new(retry::Budget::new(now)), |before| Arc::clone(&before.budget));
        let bounds = Bounds::new(name.clone(), &spec.bounds, before.map(|before| &before.bounds));
        let predecessor =
            before.map(|before| Predecessor::new(&before.discovery, &before.predecessor, spec)).unwrap_or_default();
        let discovery = predecessor.discovery(&name, spec, &in_flight, &bounds);
        let discovery = Arc::new(match before {
            Some(before) => discovery.succeeding(&before.discovery),
            None => discovery,
        });
        let mut backends = Backends::new(Box::new(discovery::Shared(Arc::clone(&discovery))));
        let progress = Arc::new(watch::Sender::new(false));
        let mut rhythm =
            Rhythm { update: discovery.interval(), health_check: None, backup_threshold: spec.backup_threshold };
        let mut retry_after = Duration::from_secs(1);
        if let Some(check) = &spec.health_check {
            rhythm.health_check = Some(check.rhythm.beat());
            retry_after = check.rhythm.unhealthy_interval;
            let probe =
                Probe::new(name.clone(), check.clone(), (&spec.template, connectors.clone()), Arc::clone(&progress))?;
            backends.set_health_check(Box::new(probe));
        }
        Ok(Self {
            name,
            spec: spec.clone(),
            template,
            retry_after,
            predecessor,
            discovery,
            balancer: policy::build(&spec.balance, backends, rhythm),
            in_flight,
            budget,
            progress,
            bounds,
        })
    }

    /// Builds the pool in the place of `before`: backends that stay keep what is known about them and what
    /// they are working on, names their last good answer. `before` is not touched until a [`crate::pool::Keeper`] runs
    /// its successor.
    ///
    /// # Errors
    /// As [`Pool::build`].
    pub fn succeed(before: &Self, spec: &Spec, connectors: &Connectors, now: Instant) -> pingora::Result<Self> {
        Self::assemble(before.name.clone(), spec, Some(before), (connectors, now))
    }

    /// From now on this pool's rules hold for what it has from the one before.
    #[expect(clippy::disallowed_methods, reason = "deadlines and windows begin when the pool does")]
    pub(in crate::pool) fn take_over(&self) {
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
