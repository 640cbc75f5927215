//! Pingora's load balancer under any policy.
//!
//! Pingora's `LoadBalancer<S>` stays the owner of discovery, of health checks and of the loop that
//! runs them, and it builds its `S` anew whenever discovery finds other backends. [`Selection`] makes
//! such an `S` of a [`Policy`]. A pool with `balance: round_robin` is a `LoadBalancer<RoundRobin>`.
//!
//! Requests do not go through `LoadBalancer::select_with`: it hashes each backend twice and copies
//! the chosen one, about 2,200 instructions. A selection publishes what it has prepared as it is built,
//! and requests read that; it is the same state, so both ways of asking see the same turns. Pingora's
//! own idea of readiness is not asked, since [`Endpoint`] has it from the same checks.

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
use crate::pool::selection::choice::{Ask, Member, Policy, Prospect};
use crate::pool::selection::group::Threshold;
use crate::pool::selection::key::Key;

/// How often the load balancer's loop does what.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::pool) struct Rhythm {
    /// Discovery; `None` for once.
    pub(in crate::pool) update: Option<Duration>,
    /// Looking whether a health check is due.
    pub(in crate::pool) health_check: Option<Duration>,
    /// How many primaries must be available for backups to rest.
    pub(in crate::pool) backup_threshold: Threshold,
}

/// A load balancer, whatever its policy.
#[async_trait]
pub trait Balancer: Send + Sync {
    /// The backend for a request; `None` where none may take it.
    fn choose(&self, ask: &mut Ask<'_>) -> Option<Arc<Endpoint>>;
    /// Takes the weights of its backends from them anew.
    fn reweigh(&self);
    /// The members, with how many of so many choices fall to each; nobody's turn is taken.
    fn outlook(&self, ask: &mut Ask<'_>, draws: usize) -> Vec<Prospect>;
    /// Discovers once.
    async fn update(&self) -> pingora::Result<()>;
    /// Discovers and checks until shutdown.
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

    fn choose(&self, ask: &mut Ask<'_>) -> Option<usize> {
        self.policy.choose(&self.members, ask).or_else(|| {
            // Where all are fresh, none is too fresh.
            let slow_start = std::mem::take(&mut ask.slow_start);
            let chosen = if slow_start.is_zero() { None } else { self.policy.choose(&self.members, ask) };
            ask.slow_start = slow_start;
            chosen
        })
    }

    fn endpoint(&self, ask: &mut Ask<'_>) -> Option<Arc<Endpoint>> {
        let index = self.choose(ask)?;
        self.members.get(index).map(|member| Arc::clone(&member.endpoint))
    }
}

/// What requests read.
struct Prepared<P> {
    /// The primaries; `None` where there are no backups, so that all are.
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

    fn choose(&self, ask: &mut Ask<'_>, threshold: Threshold) -> Option<Arc<Endpoint>> {
        let primary = self.primaries.as_ref().and_then(|primaries| {
            let needed = threshold.of(primaries.members.len());
            let available = primaries.members.iter().filter(|member| member.endpoint.is_available());
            if available.take(needed).count() < needed { None } else { primaries.endpoint(ask) }
        });
        // A request that has tried every primary is not refused while a backup is there.
        primary.or_else(|| self.all.endpoint(ask))
    }
}

/// A backend that takes traffic.
fn member(backend: &Backend) -> Option<Member> {
    let endpoint = Arc::clone(backend.ext.get::<Arc<Endpoint>>()?);
    let weight = endpoint.weight();
    (weight > 0).then_some(Member { endpoint, weight })
}

/// What a selection is built with.
pub struct Settings<P: Policy>(Arc<Published<P>>);

/// What a selection publishes, and who it was built for.
struct Published<P: Policy> {
    policy: P::Config,
    live: ArcSwap<Prepared<P>>,
    /// Held while something is prepared, so that what comes later is also seen later.
    backends: Mutex<Box<[Backend]>>,
}

impl<P: Policy> Published<P> {
    fn new() -> Self {
        let policy = P::Config::default();
        let live = ArcSwap::from_pointee(Prepared::new(&policy, &[]));
        Self { policy, live, backends: Mutex::default() }
    }

    /// Prepares for `backends`, or anew for those that it was prepared for last.
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

/// Those that take traffic, as [`Prepared`] has them.
fn weighty(backends: Box<[Backend]>) -> Box<[Backend]> {
    backends.into_iter().filter(|backend| member(backend).is_some()).collect()
}

/// A policy as a selection of Pingora's.
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
        let mut ask = Ask { key, now, tried: &[], random: Rng::new(), slow_start: Duration::ZERO, admits: &|_| true };
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

/// A load balancer of Pingora's, and what its selection has published.
pub(in crate::pool) struct Balanced<P: Policy> {
    balancer: LoadBalancer<Selection<P>>,
    published: Arc<Published<P>>,
    backup_threshold: Threshold,
}

impl<P: Policy> Balanced<P> {
    pub(in crate::pool) fn new(backends: Backends, rhythm: Rhythm) -> Self {
        let published = Arc::new(Published::new());
        let settings = Settings(Arc::clone(&published));
        let mut balancer = LoadBalancer::from_backends_with_config(backends, Some(settings));
        balancer.update_frequency = rhythm.update;
        balancer.health_check_frequency = rhythm.health_check;
        balancer.parallel_health_check = true;
        Self { balancer, published, backup_threshold: rhythm.backup_threshold }
    }
}

#[async_trait]
impl<P: Policy> Balancer for Balanced<P> {
    fn choose(&self, ask: &mut Ask<'_>) -> Option<Arc<Endpoint>> {
        self.published.live.load().choose(ask, self.backup_threshold)
    }

    fn reweigh(&self) {
        self.published.prepare(None);
    }

    fn outlook(&self, ask: &mut Ask<'_>, draws: usize) -> Vec<Prospect> {
        let copy = Prepared::<P>::of(&P::Config::default(), self.published.live.load().all.members.to_vec());
        let prospect = |member: &Member| Prospect {
            endpoint: Arc::clone(&member.endpoint),
            weight: member.weight,
            score: copy.all.policy.score(member, ask.now),
            chosen: 0,
        };
        let mut prospects: Vec<Prospect> = copy.all.members.iter().map(prospect).collect();
        for _ in 0..draws {
            let Some(chosen) = copy.choose(ask, self.backup_threshold) else { break };
            let chosen = prospects.iter_mut().find(|prospect| Arc::ptr_eq(&prospect.endpoint, &chosen));
            chosen.into_iter().for_each(|prospect| prospect.chosen += 1);
        }
        prospects
    }

    async fn update(&self) -> pingora::Result<()> {
        self.balancer.update().await
    }

    async fn run(&self, shutdown: ShutdownWatch) {
        self.balancer.run(shutdown, None).await;
    }
}
