//! Adapts any of our policies to Pingora's load balancer.
//!
//! Pingora's `LoadBalancer<S>` owns discovery, health checks and the loop that runs them. It builds its selection
//! `S` again whenever discovery finds different backends. [`Selection`] turns a [`Policy`] into such an `S`. A pool
//! with `balance: round_robin` uses a `LoadBalancer<RoundRobin>`.
//!
//! Requests do not use `LoadBalancer::select_with`: it hashes each backend twice and copies the chosen one,
//! about 2,200 instructions. Instead, a selection publishes its prepared state when it is built, and requests read
//! that state. `select_with` uses the same state, so both give the same sequence. Pingora's readiness is not used,
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

use crate::base::units::Zone;
use crate::pool::endpoint::Endpoint;
use crate::pool::selection::choice::{Member, Policy, PreviewMember, SelectionRequest};
use crate::pool::selection::group::Threshold;
use crate::pool::selection::key::Key;
use crate::pool::selection::prepared_group::PreparedGroup;
use crate::pool::selection::zone_groups::ZoneGroups;
use crate::pool::selection::zone_preference::ZonePreference;

/// The settings of the load balancer.
#[derive(Clone, Debug, Default)]
pub(in crate::pool) struct BalancerSettings {
    /// Interval of discovery; `None` to discover once.
    pub(in crate::pool) update: Option<Duration>,
    /// Interval at which Pingora's loop starts due health checks; `None` if it checks none.
    pub(in crate::pool) health_check: Option<Duration>,
    /// How many primary backends must be available. Below it, backups take traffic too.
    pub(in crate::pool) backup_threshold: Threshold,
    /// The zone of this process, whose backends are preferred; `None` without a preference.
    pub(in crate::pool) zone: Option<Zone>,
}

/// A load balancer with any policy.
#[async_trait]
pub trait Balancer: Send + Sync {
    /// The backend for a request; `None` if none accepts it.
    fn choose(&self, request: &mut SelectionRequest<'_>) -> Option<Arc<Endpoint>>;
    /// Reads the weights of the backends again.
    fn update_weights(&self);
    /// Chooses `draws` times on a copy; returns how often each member was chosen. The state of the policy does not
    /// change.
    fn preview(&self, request: &mut SelectionRequest<'_>, draws: usize) -> Vec<PreviewMember>;
    /// Which share of the requests each zone gets; `None` without a zone preference.
    fn zone_preference(&self, now: Instant, slow_start: Duration) -> Option<ZonePreference>;
    /// Runs discovery once.
    async fn update(&self) -> pingora::Result<()>;
    /// Runs discovery once, and prepares the policy also if only other settings than addresses and weights have changed,
    /// which Pingora does not notice.
    async fn update_all(&self) -> pingora::Result<()>;
    /// Runs discovery of names, and Pingora's health checks, until shutdown.
    async fn run(&self, shutdown: ShutdownWatch);
}

/// The members and the prepared policy from which requests are served.
struct SelectionState<P> {
    /// The primary backends; `None` if there are no backups.
    primaries: Option<PreparedGroup<P>>,
    /// The primary backends by zone; `None` without a zone preference.
    zones: Option<ZoneGroups<P>>,
    all: PreparedGroup<P>,
}

impl<P: Policy> SelectionState<P> {
    fn new(config: &P::Config, zone: Option<&Zone>, backends: &[Backend]) -> Self {
        Self::of(config, zone, backends.iter().filter_map(member).collect())
    }

    fn of(config: &P::Config, zone: Option<&Zone>, members: Vec<Member>) -> Self {
        let primaries: Vec<Member> = members.iter().filter(|member| !member.endpoint.is_backup()).cloned().collect();
        let primaries = (primaries.len() < members.len()).then(|| PreparedGroup::new(config, primaries));
        let zones = ZoneGroups::new(config, zone, &members);
        Self { primaries, zones, all: PreparedGroup::new(config, members) }
    }

    fn choose(&self, request: &mut SelectionRequest<'_>, threshold: Threshold) -> Option<Arc<Endpoint>> {
        if self.has_enough_primaries(threshold) {
            // A request that no backend of its zone accepts, because it attempted all of them or because they are at
            // their limits, uses any other primary.
            let zone = self.zones.as_ref().and_then(|zones| zones.endpoint(request));
            let primary = zone.or_else(|| self.primaries.as_ref()?.endpoint(request));
            if primary.is_some() {
                return primary;
            }
        }
        // A request that has attempted every primary may still use a backup.
        self.all.endpoint(request)
    }

    /// Whether backups get no traffic.
    fn has_enough_primaries(&self, threshold: Threshold) -> bool {
        self.primaries.as_ref().is_none_or(|primaries| {
            let needed = threshold.of(primaries.members.len());
            let available = primaries.members.iter().filter(|member| member.endpoint.is_available());
            available.take(needed).count() >= needed
        })
    }
}

/// The backend as a member; `None` if its weight is 0.
fn member(backend: &Backend) -> Option<Member> {
    let endpoint = Arc::clone(backend.ext.get::<Arc<Endpoint>>()?);
    let weight = endpoint.weight();
    (weight > 0).then_some(Member { endpoint, weight })
}

/// Pingora's `Config` of a [`Selection`]: where it publishes its state.
pub struct PublishedState<P: Policy>(Arc<Published<P>>);

/// The published state, and the backends it was built for.
struct Published<P: Policy> {
    policy: P::Config,
    zone: Option<Zone>,
    current: ArcSwap<SelectionState<P>>,
    /// Locked during preparation, so that states are published in the order in which they were prepared.
    backends: Mutex<Box<[Backend]>>,
}

impl<P: Policy> Published<P> {
    fn new(zone: Option<Zone>) -> Self {
        let policy = P::Config::default();
        let current = ArcSwap::from_pointee(SelectionState::new(&policy, None, &[]));
        Self { policy, zone, current, backends: Mutex::default() }
    }

    /// Prepares and publishes the policy for `backends`; if `None`, for the previous backends with current weights.
    fn prepare(&self, backends: Option<&[Backend]>) -> Arc<SelectionState<P>> {
        let mut last = self.backends.lock();
        if let Some(backends) = backends {
            *last = backends.into();
        }
        let prepared = Arc::new(SelectionState::new(&self.policy, self.zone.as_ref(), &last));
        self.current.store(Arc::clone(&prepared));
        prepared
    }
}

/// The backends with a weight above 0, in the order of [`SelectionState`].
fn with_weight(backends: Box<[Backend]>) -> Box<[Backend]> {
    backends.into_iter().filter(|backend| member(backend).is_some()).collect()
}

/// A policy as a Pingora selection.
pub struct Selection<P: Policy> {
    backends: Box<[Backend]>,
    prepared: Arc<SelectionState<P>>,
}

impl<P: Policy> BackendSelection for Selection<P> {
    type Iter = SelectionIter<P>;
    type Config = PublishedState<P>;

    fn build_with_config(backends: &BTreeSet<Backend>, settings: &PublishedState<P>) -> Self {
        let all: Box<[Backend]> = backends.iter().cloned().collect();
        let prepared = settings.0.prepare(Some(&all));
        Self { backends: with_weight(all), prepared }
    }

    fn build(backends: &BTreeSet<Backend>) -> Self {
        let backends: Box<[Backend]> = backends.iter().cloned().collect();
        let prepared = Arc::new(SelectionState::new(&P::Config::default(), None, &backends));
        Self { backends: with_weight(backends), prepared }
    }

    #[expect(clippy::disallowed_methods, reason = "Pingora's trait has no clock to pass in")]
    fn iter(self: &Arc<Self>, key: &[u8]) -> SelectionIter<P> {
        let key = if key.is_empty() { Key::NONE } else { Key::of(key) };
        let now = Instant::now();
        let mut request = SelectionRequest {
            key,
            now,
            attempted: &[],
            random: Rng::new(),
            slow_start: Duration::ZERO,
            admits: &|_| true,
            traffic_share: 1.0,
        };
        let first = self.prepared.all.choose(&mut request).unwrap_or_default();
        SelectionIter { selection: Arc::clone(self), first, returned: 0, policy: PhantomData }
    }
}

/// The chosen backend, then the others.
pub struct SelectionIter<P: Policy> {
    selection: Arc<Selection<P>>,
    first: usize,
    returned: usize,
    policy: PhantomData<P>,
}

impl<P: Policy> BackendIter for SelectionIter<P> {
    fn next(&mut self) -> Option<&Backend> {
        let backends = &self.selection.backends;
        if self.returned >= backends.len() {
            return None;
        }
        self.returned += 1;
        backends.get((self.first + self.returned - 1) % backends.len())
    }
}

/// A Pingora load balancer, and the state that its selection publishes.
pub(in crate::pool) struct PolicyBalancer<P: Policy> {
    balancer: LoadBalancer<Selection<P>>,
    published: Arc<Published<P>>,
    backup_threshold: Threshold,
}

impl<P: Policy> PolicyBalancer<P> {
    pub(in crate::pool) fn new(backends: Backends, settings: BalancerSettings) -> Self {
        let published = Arc::new(Published::new(settings.zone));
        let published_settings = PublishedState(Arc::clone(&published));
        let mut balancer = LoadBalancer::from_backends_with_config(backends, Some(published_settings));
        balancer.update_frequency = settings.update;
        balancer.health_check_frequency = settings.health_check;
        balancer.parallel_health_check = true;
        Self { balancer, published, backup_threshold: settings.backup_threshold }
    }
}

#[async_trait]
impl<P: Policy> Balancer for PolicyBalancer<P> {
    fn choose(&self, request: &mut SelectionRequest<'_>) -> Option<Arc<Endpoint>> {
        self.published.current.load().choose(request, self.backup_threshold)
    }

    fn update_weights(&self) {
        self.published.prepare(None);
    }

    fn preview(&self, request: &mut SelectionRequest<'_>, draws: usize) -> Vec<PreviewMember> {
        let members = self.published.current.load().all.members.to_vec();
        let copy = SelectionState::<P>::of(&P::Config::default(), self.published.zone.as_ref(), members);
        let preview_member = |member: &Member| PreviewMember {
            endpoint: Arc::clone(&member.endpoint),
            weight: member.weight,
            score: copy.all.policy.score(member, request.now),
            chosen: 0,
        };
        let mut members: Vec<PreviewMember> = copy.all.members.iter().map(preview_member).collect();
        for _ in 0..draws {
            let Some(chosen) = copy.choose(request, self.backup_threshold) else { break };
            let chosen = members.iter_mut().find(|preview_member| Arc::ptr_eq(&preview_member.endpoint, &chosen));
            chosen.into_iter().for_each(|preview_member| preview_member.chosen += 1);
        }
        members
    }

    fn zone_preference(&self, now: Instant, slow_start: Duration) -> Option<ZonePreference> {
        self.published.current.load().zones.as_ref()?.preference(now, slow_start)
    }

    async fn update(&self) -> pingora::Result<()> {
        self.balancer.update().await
    }

    async fn update_all(&self) -> pingora::Result<()> {
        let before = self.published.current.load_full();
        self.balancer.update().await?;
        if Arc::ptr_eq(&before, &self.published.current.load()) {
            self.update_weights();
        }
        Ok(())
    }

    async fn run(&self, shutdown: ShutdownWatch) {
        // Discovery has run once. Without names, a list says when to run it again.
        if self.balancer.update_frequency.is_some() || self.balancer.health_check_frequency.is_some() {
            self.balancer.run(shutdown, None).await;
        }
    }
}
