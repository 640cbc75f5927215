//! The members of a pool: configured backends, and those that sources found, each with the state of its address.
//!
//! It implements Pingora's [`ServiceDiscovery`], so the load balancer's background service runs it. A name that does not
//! resolve does not stop it: the last good result stays in use, and the failure is reported once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use parking_lot::Mutex;
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;

use super::config::Sources;
use super::identity::identity;
use super::labels::Labels;
use super::source::{Found, SourceName};
use super::target::{RESOLVE_INTERVAL, Target};
use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::{PoolName, Zone};

/// A configured backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Address, or name and port.
    pub target: Target,
    /// Share of the traffic relative to the other members; 0 gets none.
    pub weight: u32,
    /// Takes traffic only when too few primary backends are available.
    pub backup: bool,
    /// Gets no new requests.
    pub drain: bool,
    /// Its zone; `None` if it has none.
    pub zone: Option<Zone>,
}

/// Where a backend comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration names it.
    Configured(Target),
    /// A source found it.
    Source(SourceName),
}

/// A backend at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Where it comes from.
    pub origin: Origin,
    /// Its settings. Those of a source have its address as the target.
    pub member: Member,
    /// Its labels.
    pub labels: Labels,
}

/// Attaches state to the address of a backend.
pub trait Attach: Send + Sync + 'static {
    /// The state.
    type Value: Clone + Send + Sync + 'static;

    /// The state of a backend that is new, or whose settings have changed. `known` is its state so far.
    fn attach(&self, address: BackendAddress, member: &Member, known: Option<Self::Value>) -> Self::Value;

    /// The backend is not in the pool any more.
    fn detach(&self, value: &Self::Value);

    /// Whether a backend that is not in the pool any more is still in use.
    fn is_in_use(&self, value: &Self::Value) -> bool;
}

/// The backends of the last discovery.
struct Attached<T> {
    /// Each backend, and its place in the order of the configuration.
    by_address: HashMap<BackendAddress, (usize, Discovered, T)>,
    /// Backends that have left, as long as they are in use.
    left: HashMap<BackendAddress, T>,
}

/// Finds the members of one pool, and attaches the same value to the same address each time.
///
/// Pingora replaces the extensions of a backend whenever the set changes. Keeping the value by address preserves
/// health and counters.
pub struct Discovery<A: Attach> {
    pool: PoolName,
    members: Vec<Member>,
    sources: Sources,
    /// The largest sum of weights.
    weights_max: u32,
    attach: A,
    attached: Mutex<Attached<A::Value>>,
    last_good: Mutex<HashMap<Target, Vec<BackendAddress>>>,
    unresolved: Mutex<BTreeSet<Target>>,
}

impl<A: Attach> Discovery<A> {
    /// Discovery for `pool`. The weights of backends that sources found are reduced if the sum of all weights would be
    /// larger than `weights_max`.
    pub fn new(pool: PoolName, (members, sources): (Vec<Member>, Sources), weights_max: u32, attach: A) -> Self {
        Self {
            pool,
            members,
            sources,
            weights_max,
            attach,
            attached: Mutex::new(Attached { by_address: HashMap::new(), left: HashMap::new() }),
            last_good: Mutex::default(),
            unresolved: Mutex::default(),
        }
    }

    /// The discovery that replaces `before`: names keep their last good result.
    #[must_use]
    pub fn with_results_of(self, before: &Self) -> Self {
        let stays = |target: &Target| self.members.iter().any(|member| member.target == *target);
        let last_good = before.last_good.lock().clone().into_iter().filter(|(target, _)| stays(target)).collect();
        *self.last_good.lock() = last_good;
        let unresolved = before.unresolved.lock().iter().filter(|target| stays(target)).cloned().collect();
        *self.unresolved.lock() = unresolved;
        self
    }

    /// The interval of resolution; `None` if no member is a name.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.members.iter().any(|member| member.target.is_name()).then_some(RESOLVE_INTERVAL)
    }

    /// What attaches values.
    #[must_use]
    pub fn attach(&self) -> &A {
        &self.attach
    }

    /// The sources.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The values attached to the addresses found last.
    #[must_use]
    pub fn attached(&self) -> Vec<A::Value> {
        self.attached.lock().by_address.values().map(|(_, _, value)| value.clone()).collect()
    }

    /// Looks at the values attached to the addresses found last, under a lock.
    pub fn with_attached<R>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &A::Value>) -> R) -> R {
        look(&mut self.attached.lock().by_address.values().map(|(_, _, value)| value))
    }

    /// The value attached to one address.
    #[must_use]
    pub fn value(&self, address: BackendAddress) -> Option<A::Value> {
        self.attached.lock().by_address.get(&address).map(|(_, _, value)| value.clone())
    }

    /// The values attached to the addresses found last, and those of backends that have left and are still in use.
    #[must_use]
    pub fn in_use(&self) -> Vec<A::Value> {
        let attached = self.attached.lock();
        let left = attached.left.values().filter(|value| self.attach.is_in_use(value));
        attached.by_address.values().map(|(_, _, value)| value).chain(left).cloned().collect()
    }

    /// The backends found last, in the order of the configuration.
    #[must_use]
    pub fn listed(&self) -> Vec<(Discovered, A::Value)> {
        let mut listed: Vec<_> = self.attached.lock().by_address.iter().map(|(a, b)| (*a, b.clone())).collect();
        listed.sort_by_key(|(address, (place, _, _))| (*place, *address));
        listed.into_iter().map(|(_, (_, discovered, value))| (discovered, value)).collect()
    }

    /// The backend at one address.
    #[must_use]
    pub fn listed_at(&self, address: BackendAddress) -> Option<(Discovered, A::Value)> {
        self.attached.lock().by_address.get(&address).map(|(_, discovered, value)| (discovered.clone(), value.clone()))
    }

    async fn addresses(&self, target: &Target) -> Vec<BackendAddress> {
        match target.resolve().await {
            Ok(addresses) => {
                if self.unresolved.lock().remove(target) {
                    Event::NameResolved { pool: self.pool.clone(), name: target.to_string() }.announce();
                }
                self.last_good.lock().insert(target.clone(), addresses.clone());
                addresses
            }
            Err(reason) => {
                if self.unresolved.lock().insert(target.clone()) {
                    Event::NameUnresolved { pool: self.pool.clone(), name: target.to_string(), reason }.announce();
                }
                self.last_good.lock().get(target).cloned().unwrap_or_default()
            }
        }
    }

    /// Every backend with its place, without those that occur earlier.
    async fn all(&self) -> Vec<(BackendAddress, usize, Discovered)> {
        let mut all = Vec::with_capacity(self.members.len());
        for (place, member) in self.members.iter().enumerate() {
            for address in self.addresses(&member.target).await {
                let origin = Origin::Configured(member.target.clone());
                all.push((address, place, Discovered { origin, member: member.clone(), labels: Labels::default() }));
            }
        }
        let configured: u64 = all.iter().map(|(_, _, found)| u64::from(found.member.weight)).sum();
        let lists: Vec<_> = self.sources.iter().map(|kept| (kept.name().clone(), kept.current())).collect();
        let weights = Weights::new(&lists, u64::from(self.weights_max).saturating_sub(configured));
        for (index, (name, list)) in lists.into_iter().enumerate() {
            let place = self.members.len() + index;
            all.extend(list.into_iter().map(|found| {
                let Found { address, weight, backup, drain, zone, labels } = found;
                let target = Target::Address(address);
                let member = Member { target, weight: weights.reduce(weight), backup, drain, zone };
                (address, place, Discovered { origin: Origin::Source(name.clone()), member, labels })
            }));
        }
        let mut seen = BTreeSet::new();
        all.retain(|(address, _, _)| seen.insert(*address));
        all
    }

    /// Attaches values to `all`, and detaches those of other backends.
    fn replace(&self, all: Vec<(BackendAddress, usize, Discovered)>) -> BTreeSet<Backend> {
        let mut attached = self.attached.lock();
        let mut before = std::mem::take(&mut attached.by_address);
        attached.left.retain(|_, value| self.attach.is_in_use(value));
        let mut backends = BTreeSet::new();
        for (address, place, discovered) in all {
            let value = match before.remove(&address) {
                Some((_, known, value)) if known.member.has_settings_of(&discovered.member) => value,
                known => {
                    let known = known.map(|(_, _, value)| value).or_else(|| attached.left.remove(&address));
                    self.attach.attach(address, &discovered.member, known)
                }
            };
            let mut ext = Extensions::new();
            ext.insert(value.clone());
            // A weight is at most 1,000, so it fits into any usize.
            backends.insert(Backend { addr: identity(address), weight: discovered.member.weight as usize, ext });
            attached.by_address.insert(address, (place, discovered, value));
        }
        for (address, (_, _, value)) in before {
            self.attach.detach(&value);
            attached.left.insert(address, value);
        }
        backends
    }
}

impl Member {
    /// Whether both have the same settings, whatever names them.
    fn has_settings_of(&self, other: &Self) -> bool {
        (self.weight, self.backup, self.drain, &self.zone) == (other.weight, other.backup, other.drain, &other.zone)
    }
}

/// Reduces weights in proportion, so that their sum has a limit.
struct Weights {
    sum: u64,
    most: u64,
}

impl Weights {
    fn new(lists: &[(SourceName, Vec<Found>)], most: u64) -> Self {
        let sum = lists.iter().flat_map(|(_, list)| list).map(|found| u64::from(found.weight)).sum();
        Self { sum, most }
    }

    /// The reduced weight. A weight above 0 stays above 0.
    fn reduce(&self, weight: u32) -> u32 {
        if self.sum <= self.most || weight == 0 {
            return weight;
        }
        u32::try_from((u64::from(weight) * self.most / self.sum).max(1)).unwrap_or(u32::MAX)
    }
}

#[async_trait]
impl<A: Attach> ServiceDiscovery for Discovery<A> {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        // From the lists to the end nothing is awaited, so a newer list is never replaced by an older one.
        Ok((self.replace(self.all().await), HashMap::new()))
    }
}

/// A shared discovery: the load balancer runs it, and the pool reads the attached values.
pub struct SharedDiscovery<A: Attach>(pub Arc<Discovery<A>>);

#[async_trait]
impl<A: Attach> ServiceDiscovery for SharedDiscovery<A> {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        self.0.discover().await
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
