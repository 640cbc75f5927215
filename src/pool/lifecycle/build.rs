//! Builds pools, and takes over state when a changed configuration replaces a pool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_load_balancing::Backends;
use tokio::sync::{Notify, watch};

use crate::base::units::PoolName;
use crate::discovery::{self, Sources};
use crate::pool::admission::Admission;
use crate::pool::config::Spec;
use crate::pool::endpoint::PoolShared;
use crate::pool::health::connectors::Connectors;
use crate::pool::health::probe::{PoolCheck, Probe};
use crate::pool::health::runner::FEW;
use crate::pool::lifecycle::replaced_pool::ReplacedPool;
use crate::pool::live::Pool;
use crate::pool::operator::event_limit::EventLimit;
use crate::pool::selection::balancer::BalancerSettings;
use crate::pool::selection::policy;
use crate::retry;

/// Whether Pingora's loop runs the health checks. It starts a task for each backend at each tick, whether a check is due or
/// not, which costs much in a pool of thousands of backends; a pool whose backends are discovered may become so large.
fn is_for_pingora(spec: &Spec) -> bool {
    spec.sources.is_empty() && spec.members.len() <= FEW
}

/// Gives the health checks to Pingora's loop, or returns them for the runner.
fn for_runner(
    probe: Arc<Probe>,
    spec: &Spec,
    settings: &mut BalancerSettings,
    backends: &mut Backends,
) -> Option<Arc<Probe>> {
    if !is_for_pingora(spec) {
        return Some(probe);
    }
    settings.health_check = Some(probe.tick_interval());
    backends.set_health_check(Box::new(PoolCheck::new(probe)));
    None
}

impl Pool {
    /// Builds the pool. It sends nothing before its [`crate::pool::PoolService`] runs it.
    ///
    /// # Errors
    /// If the health check cannot be built. The configuration check rules this out.
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
        // The key of a pooled connection depends on the seed, so idle connections stay usable with the same seed.
        if let (Some(new), Some(old)) =
            (&mut template.proxy_protocol, before.and_then(|before| before.template.proxy_protocol.as_ref()))
        {
            new.clone_from(old);
        }
        let in_flight = before.map(|before| Arc::clone(&before.in_flight)).unwrap_or_default();
        let budget = before.map_or_else(|| Arc::new(retry::Budget::new(now)), |before| Arc::clone(&before.budget));
        let admission = Admission::new(name.clone(), &spec.admission, before.map(|before| &before.admission));
        let replaced = before.map(|before| ReplacedPool::new(&before.discovery, &before.replaced)).unwrap_or_default();
        let sources = Sources::build(&name, &spec.sources, before.map(|before| before.discovery.sources()));
        let events =
            before.map_or_else(|| Arc::new(EventLimit::new(name.clone())), |before| Arc::clone(&before.events));
        let shared = PoolShared {
            in_flight: Arc::clone(&in_flight),
            trigger: Arc::clone(admission.monitor().trigger()),
            changed: Arc::clone(admission.changed()),
            events: Some(Arc::clone(&events)),
        };
        let discovery = replaced.discovery(&name, (spec, sources), shared, &admission);
        let discovery = Arc::new(match before {
            Some(before) => discovery.with_results_of(&before.discovery),
            None => discovery,
        });
        let mut backends = Backends::new(Box::new(discovery::SharedDiscovery(Arc::clone(&discovery))));
        let progress = Arc::new(watch::Sender::new(false));
        let mut settings = BalancerSettings {
            update: discovery.interval(),
            health_check: None,
            backup_threshold: spec.backup_threshold,
            zone: spec.local_zone.clone(),
        };
        let (mut retry_after, mut probe) = (Duration::from_secs(1), None);
        if let Some(check) = &spec.health_check {
            retry_after = check.timing.unhealthy_interval;
            let connect = (&spec.template, connectors.clone());
            let notified = (Arc::clone(&progress), Arc::clone(&events));
            let new = Probe::new(name.clone(), check.clone(), connect, notified)?;
            probe = for_runner(Arc::new(new), spec, &mut settings, &mut backends);
        }
        Ok(Self {
            name,
            spec: spec.clone(),
            template,
            retry_after,
            replaced,
            discovery,
            balancer: policy::build(&spec.balance, backends, settings),
            in_flight,
            budget,
            probe,
            members_changed: Notify::new(),
            events,
            progress,
            admission,
        })
    }

    /// Builds the pool that replaces `before`. Common backends keep their state and their requests in flight.
    /// Names keep their last good result. `before` does not change until a [`crate::pool::PoolService`] runs the new
    /// pool.
    ///
    /// # Errors
    /// As [`Pool::build`].
    pub fn build_replacement(
        before: &Self,
        spec: &Spec,
        connectors: &Connectors,
        now: Instant,
    ) -> pingora::Result<Self> {
        Self::assemble(before.name.clone(), spec, Some(before), (connectors, now))
    }

    /// Applies this pool's settings to the state taken over from the replaced pool, and removes the backends that
    /// are no longer configured.
    #[expect(clippy::disallowed_methods, reason = "deadlines and windows begin when the pool does")]
    pub(in crate::pool) fn take_over_state(&self) {
        let (backends, now) = (self.discovery.attached(), Instant::now());
        self.admission.begin(&backends, now);
        self.discovery.attach().begin();
        self.replaced.remove_missing(&backends, &self.name, self.spec.removal_timeout, now);
    }

    /// Removes the backends of a pool that is no longer configured. Their requests in flight are aborted after
    /// the removal timeout.
    pub fn remove(&self, now: Instant) {
        self.discovery
            .attached()
            .iter()
            .for_each(|endpoint| endpoint.remove(&self.name, self.spec.removal_timeout, now));
    }
}
