//! Pingora's load balancer with any policy.
//!
//! Pingora's `LoadBalancer<S>` owns discovery, health checks and the loop that runs them, and builds its `S`
//! again whenever discovery finds other backends. [`Selection`] turns a [`Policy`] into such an `S`. A pool
//! with `balance: round_robin` is a `LoadBalancer<RoundRobin>`.
//!
//! Requests do not use `LoadBalancer::select_with`: it hashes each backend twice and copies the chosen one,
//! about 2,200 instructions. Instead a selection publishes its prepared state when it is built, and requests
//! read that. Both ways share the same state, so they see the same sequence. Pingora's readiness is not used,
//! because [`Endpoint`] has the health from the same checks.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use fastrand::Rng;
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use crate::pool::endpoint::Endpoint;
use crate::pool::selection::choice::{Member, Policy, PreviewMember, SelectionRequest};
use crate::pool::selection::group::Threshold;
use crate::pool::selection::key::Key;

/// The intervals of the load balancer's loop.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::pool) struct LoopIntervals {
    /// Interval of discovery; `None` to discover once.
    pub(in crate::pool) update: Option<Duration>,
    /// Interval at which due health checks are started.
    pub(in crate::pool) health_check: Option<Duration>,
    /// How many primary backends must be available; below this number backups take traffic too.
    pub(in crate::pool) backup_threshold: Threshold,
}

/// A load balancer with any policy.
#[async_trait]
pub trait Balancer: Send + Sync {
    /// The backend for a request; `None` if none accepts it.
    fn choose(&self, ask: &mut SelectionRequest<'_>) -> Option<Arc<Endpoint>>;
    /// Reads the weights of the backends again.
    fn reweigh(&self);
    /// The members, with the number of `draws` that each would get. Does not advance the policy.
    fn preview(&self, ask: &mut SelectionRequest<'_>, draws: usize) -> Vec<PreviewMember>;
    /// Runs discovery once.
    async fn update(&self) -> pingora::Result<()>;
    /// Runs discovery and health checks until shutdown.
    async fn run(&self, shutdown: ShutdownWatch);
}

/// Members and the policy prepared for them.
struct Tier<P> {
    members: Box<[Member]>,
    policy: P,
}

impl<P: Policy> Tier<P> {
    fn new(config: &P::Config, members: Vec<Member>) -> Self {
        Self { policy: P::build(config, &members), members: members.into() }
    }

    fn choose(&self, ask: &mut SelectionRequest<'_>) -> Option<usize> {
        self.policy.choose(&self.members, ask).or_else(|| {
            // If all are in slow start, slow start has no effect.
            let slow_start = std::mem::take(&mut ask.slow_start);
            let chosen = if slow_start.is_zero() { None } else { self.policy.choose(&self.members, ask) };
            ask.slow_start = slow_start;
            chosen
        })
    }

    fn endpoint(&self, ask: &mut SelectionRequest<'_>) -> Option<Arc<Endpoint>> {
        let index = self.choose(ask)?;
        self.members.get(index).map(|member| Arc::clone(&member.endpoint))
    }
}

/// The state that requests read.
struct Prepared<P> {
    /// The primary backends; `None` if there are no backups.
    primaries: Option<Tier<P>>,
    all: Tier<P>,
}

impl<P: Policy> Prepared<P> {
    fn new(config: &P::Config, backends: &[Backend]) -> Self {
        Self::of(config, backends.iter().filter_map(member).collect())
    }

    fn of(config: &P::Config, members: Vec<Member>) -> Self {
        let primaries: Vec<Member> = members.iter().filter(|member| !member.endpoint.is_backup()).cloned().collect();
        let primaries = (primaries.len() < members.len()).then(|| Tier::new(config, primaries));
        Self { primaries, all: Tier::new(config, members) }
    }

    fn choose(&self, ask: &mut SelectionRequest<'_>, threshold: Threshold) -> Option<Arc<Endpoint>> {
        let primary = self.primaries.as_ref().and_then(|primaries| {
            let needed = threshold.of(primaries.members.len());
            let available = primaries.members.iter().filter(|member| member.endpoint.is_available());
            if available.take(needed).count() < needed { None } else { primaries.endpoint(ask) }
        });
        // A request that has attempted every primary may still use a backup.
        primary.or_else(|| self.all.endpoint(ask))
    }
}

/// A backend that takes traffic.
fn member(backend: &Backend) -> Option<Member> {
    let endpoint = Arc::clone(backend.ext.get::<Arc<Endpoint>>()?);
    let weight = endpoint.weight();
    (weight > 0).then_some(Member { endpoint, weight })
}

/// The input of [`Selection::build_with_config`].
pub struct Settings<P: Policy>(Arc<Published<P>>);

/// The published state, and the backends it was built for.
struct Published<P: Policy> {
    policy: P::Config,
    live: ArcSwap<Prepared<P>>,
    /// Locked during preparation, so that a later state is also published later.
    backends: Mutex<Box<[Backend]>>,
}

impl<P: Policy> Published<P> {
    fn new() -> Self {
        let policy = P::Config::default();
        let live = ArcSwap::from_pointee(Prepared::new(&policy, &[]));
        Self { policy, live, backends: Mutex::default() }
    }

    /// Prepares for `backends`, or again for the last ones.
    fn prepare(&self, backends: Option<&[Backend]>) -> Arc<Prepared<P>> {
        let mut last = self.backends.lock();
        if let Some(backends) = backends {
            *last = backends.into();
        }
        let prepared = Arc::new(Prepared::new(&self.policy, &last));
        self.live.store(Arc::clone(&prepared));
        prepared
    }
}

/// The backends that take traffic, in the order of [`Prepared`].
fn weighty(backends: Box<[Backend]>) -> Box<[Backend]> {
    backends.into_iter().filter(|backend| member(backend).is_some()).collect()
}

/// A policy as a selection for Pingora.
pub struct Selection<P: Policy> {
    backends: Box<[Backend]>,
    prepared: Arc<Prepared<P>>,
}

impl<P: Policy> BackendSelection for Selection<P> {
    type Iter = Order<P>;
    type Config = Settings<P>;

    fn build_with_config(backends: &BTreeSet<Backend>, settings: &Settings<P>) -> Self {
        let all: Box<[Backend]> = backends.iter().cloned().collect();
        let prepared = settings.0.prepare(Some(&all));
        Self { backends: weighty(all), prepared }
    }

    fn build(backends: &BTreeSet<Backend>) -> Self {
        let backends: Box<[Backend]> = backends.iter().cloned().collect();
        let prepared = Arc::new(Prepared::new(&P::Config::default(), &backends));
        Self { backends: weighty(backends), prepared }
    }

    #[expect(clippy::disallowed_methods, reason = "Pingora's trait has no clock to pass in")]
    fn iter(self: &Arc<Self>, key: &[u8]) -> Order<P> {
        let key = if key.is_empty() { Key::NONE } else { Key::of(key) };
        let now = Instant::now();
        let mut ask = SelectionRequest {
            key,
            now,
            attempted: &[],
            random: Rng::new(),
            slow_start: Duration::ZERO,
            admits: &|_| true,
        };
        let first = self.prepared.all.choose(&mut ask).unwrap_or_default();
        Order { selection: Arc::clone(self), first, given: 0, policy: PhantomData }
    }
}

/// The chosen backend, then the others.
pub struct Order<P: Policy> {
    selection: Arc<Selection<P>>,
    first: usize,
    given: usize,
    policy: PhantomData<P>,
}

impl<P: Policy> BackendIter for Order<P> {
    fn next(&mut self) -> Option<&Backend> {
        let backends = &self.selection.backends;
        if self.given >= backends.len() {
            return None;
        }
        self.given += 1;
        backends.get((self.first + self.given - 1) % backends.len())
    }
}

/// A load balancer of Pingora, and the state that its selection publishes.
pub(in crate::pool) struct PolicyBalancer<P: Policy> {
    balancer: LoadBalancer<Selection<P>>,
    published: Arc<Published<P>>,
    backup_threshold: Threshold,
}

impl<P: Policy> PolicyBalancer<P> {
    pub(in crate::pool) fn new(backends: Backends, intervals: LoopIntervals) -> Self {
        let published = Arc::new(Published::new());
        let settings = Settings(Arc::clone(&published));
        let mut balancer = LoadBalancer::from_backends_with_config(backends, Some(settings));
        balancer.update_frequency = intervals.update;
        balancer.health_check_frequency = intervals.health_check;
        balancer.parallel_health_check = true;
        Self { balancer, published, backup_threshold: intervals.backup_threshold }
    }
}

#[async_trait]
impl<P: Policy> Balancer for PolicyBalancer<P> {
    fn choose(&self, ask: &mut SelectionRequest<'_>) -> Option<Arc<Endpoint>> {
        self.published.live.load().choose(ask, self.backup_threshold)
    }

    fn reweigh(&self) {
        self.published.prepare(None);
    }

    fn preview(&self, ask: &mut SelectionRequest<'_>, draws: usize) -> Vec<PreviewMember> {
        let copy = Prepared::<P>::of(&P::Config::default(), self.published.live.load().all.members.to_vec());
        let preview_member = |member: &Member| PreviewMember {
            endpoint: Arc::clone(&member.endpoint),
            weight: member.weight,
            score: copy.all.policy.score(member, ask.now),
            chosen: 0,
        };
        let mut members: Vec<PreviewMember> = copy.all.members.iter().map(preview_member).collect();
        for _ in 0..draws {
            let Some(chosen) = copy.choose(ask, self.backup_threshold) else { break };
            let chosen = members.iter_mut().find(|preview_member| Arc::ptr_eq(&preview_member.endpoint, &chosen));
            chosen.into_iter().for_each(|preview_member| preview_member.chosen += 1);
        }
        members
    }

    async fn update(&self) -> pingora::Result<()> {
        self.balancer.update().await
    }

    async fn run(&self, shutdown: ShutdownWatch) {
        self.balancer.run(shutdown, None).await;
    }
}
