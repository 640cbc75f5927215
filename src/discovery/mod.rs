//! Discovery of the backends of a pool: fixed addresses, or names that are resolved periodically.
//!
//! Discovery implements Pingora's [`ServiceDiscovery`], so the load balancer's background service runs it. A
//! name that does not resolve does not stop it: the last good result stays in use, and the failure is reported
//! once.

mod target;

use std::collections::{BTreeSet, HashMap};
use std::os::unix::net::SocketAddr as UnixAddress;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use parking_lot::Mutex;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;

pub use target::Target;

use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::PoolName;

/// The interval of resolution. The system resolver does not return a time to live.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);

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
}

/// Creates the value attached to a new address.
type Attach<T> = dyn Fn(BackendAddress, &Member) -> T + Send + Sync;

/// Finds the members of one pool, and attaches the same `T` to the same address each time.
///
/// Pingora replaces the extensions of a backend whenever the set changes. Keeping `T` by address preserves
/// health and counters.
pub struct Discovery<T> {
    pool: PoolName,
    members: Vec<Member>,
    attach: Box<Attach<T>>,
    attached: Mutex<HashMap<BackendAddress, T>>,
    last_good: Mutex<HashMap<Target, Vec<BackendAddress>>>,
    unresolved: Mutex<BTreeSet<Target>>,
}

impl<T: Clone + Send + Sync + 'static> Discovery<T> {
    /// Discovery for `pool`; `attach` creates the value for a new address.
    pub fn new(
        pool: PoolName,
        members: Vec<Member>,
        attach: impl Fn(BackendAddress, &Member) -> T + Send + Sync + 'static,
    ) -> Self {
        Self {
            pool,
            members,
            attach: Box::new(attach),
            attached: Mutex::default(),
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

    /// The addresses found for targets that are no longer in `members`.
    #[must_use]
    pub fn missing_in(&self, members: &[Member]) -> BTreeSet<BackendAddress> {
        let stays = |target: &Target| members.iter().any(|member| member.target == *target);
        let found = self.last_good.lock();
        found.iter().filter(|(target, _)| !stays(target)).flat_map(|(_, addresses)| addresses).copied().collect()
    }

    /// The interval of discovery; `None` if every member is an address.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.members.iter().any(|member| member.target.is_name()).then_some(RESOLVE_INTERVAL)
    }

    /// The member that an address was found for: its position in the configuration and its target.
    #[must_use]
    pub fn origin(&self, address: BackendAddress) -> Option<(usize, Target)> {
        let found = self.last_good.lock();
        let names = |target: &Target| match target {
            Target::Address(own) => *own == address,
            Target::Name { .. } => found.get(target).is_some_and(|addresses| addresses.contains(&address)),
        };
        let member = self.members.iter().enumerate().find(|(_, member)| names(&member.target));
        member.map(|(index, member)| (index, member.target.clone()))
    }

    /// The values attached to the addresses found last.
    #[must_use]
    pub fn attached(&self) -> Vec<T> {
        self.attached.lock().values().cloned().collect()
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

    fn backend(&self, address: BackendAddress, member: &Member, before: &HashMap<BackendAddress, T>) -> (Backend, T) {
        let attached = before.get(&address).cloned().unwrap_or_else(|| (self.attach)(address, member));
        let mut ext = Extensions::new();
        ext.insert(attached.clone());
        // The configuration check limits a weight to 1,000, so it fits into any usize.
        (Backend { addr: identity(address), weight: member.weight as usize, ext }, attached)
    }
}

/// The address that identifies a backend for Pingora. Pingora does not support abstract sockets, so their name is
/// a path here; `pool::peer` connects to them.
fn identity(address: BackendAddress) -> PingoraAddress {
    match address {
        BackendAddress::Inet(address) => PingoraAddress::Inet(address),
        BackendAddress::Unix(path) => match UnixAddress::from_pathname(path.as_str()) {
            Ok(path) => PingoraAddress::Unix(path),
            // A checked path is short enough and has no NUL, so this does not happen.
            Err(_) => PingoraAddress::Inet(([0, 0, 0, 0], 0).into()),
        },
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> ServiceDiscovery for Discovery<T> {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let mut found = Vec::with_capacity(self.members.len());
        for member in &self.members {
            found.extend(self.addresses(&member.target).await.into_iter().map(|address| (address, member)));
        }
        let mut attached = self.attached.lock();
        let mut seen = HashMap::with_capacity(found.len());
        let mut backends = BTreeSet::new();
        for (address, member) in found {
            if seen.contains_key(&address) {
                continue;
            }
            let (backend, value) = self.backend(address, member, &attached);
            backends.insert(backend);
            seen.insert(address, value);
        }
        *attached = seen;
        Ok((backends, HashMap::new()))
    }
}

/// A shared discovery: the load balancer runs it, and the pool reads the attached values.
pub struct SharedDiscovery<T>(pub Arc<Discovery<T>>);

#[async_trait]
impl<T: Clone + Send + Sync + 'static> ServiceDiscovery for SharedDiscovery<T> {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        self.0.discover().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(target: &str, weight: u32) -> Member {
        Member { target: target.parse().unwrap(), weight, backup: false, drain: false }
    }

    #[tokio::test]
    async fn address_keeps_its_attached_value() {
        let discovery =
            Discovery::new("p".into(), vec![member("127.0.0.1:1", 1), member("127.0.0.1:2", 2)], |address, _| {
                Arc::new(address)
            });
        let (first, _) = discovery.discover().await.unwrap();
        let (second, _) = discovery.discover().await.unwrap();
        let attached = |set: &BTreeSet<Backend>| -> Vec<Arc<BackendAddress>> {
            set.iter().map(|b| Arc::clone(b.ext.get::<Arc<BackendAddress>>().unwrap())).collect()
        };
        assert_eq!(first.len(), 2);
        assert!(attached(&first).iter().zip(&attached(&second)).all(|(a, b)| Arc::ptr_eq(a, b)));
        assert_eq!(discovery.interval(), None);
    }

    #[tokio::test]
    async fn replacing_discovery_takes_over_common_addresses() {
        let before = Discovery::new(
            "p".into(),
            vec![member("127.0.0.1:1", 1), member("127.0.0.1:2", 1)],
            |address, _: &Member| Arc::new(address),
        );
        before.discover().await.unwrap();
        let name: Target = "does-not-exist.invalid:80".parse().unwrap();
        before.last_good.lock().insert(name, vec!["127.0.0.9:80".parse().unwrap()]);
        let members = vec![member("127.0.0.1:2", 5), member("127.0.0.1:3", 1), member("does-not-exist.invalid:80", 1)];
        let after =
            Discovery::new("p".into(), members, |address, _: &Member| Arc::new(address)).with_results_of(&before);
        let (found, _) = after.discover().await.unwrap();
        assert_eq!(found.len(), 3, "a name keeps its last good result");
        assert_eq!(after.attached().len(), 3, "removed addresses are dropped");
    }

    #[tokio::test]
    async fn unknown_name_is_not_an_error_and_weight_zero_is_found() {
        let members = vec![member("does-not-exist.invalid:80", 1), member("127.0.0.1:2", 1), member("127.0.0.1:3", 0)];
        let discovery = Discovery::new("p".into(), members, |address, _| address);
        let (found, _) = discovery.discover().await.unwrap();
        assert_eq!(found.iter().map(|b| b.addr.to_string()).collect::<Vec<_>>(), ["127.0.0.1:2", "127.0.0.1:3"]);
        let name = discovery.members[0].target.clone();
        discovery.last_good.lock().insert(name.clone(), vec!["127.0.0.9:80".parse().unwrap()]);
        assert_eq!(discovery.origin("127.0.0.9:80".parse().unwrap()), Some((0, name)));
        assert_eq!(discovery.origin("127.0.0.1:3".parse().unwrap()).map(|(index, _)| index), Some(2));
        assert_eq!(discovery.origin("127.0.0.1:4".parse().unwrap()), None);
        assert_eq!(discovery.interval(), Some(RESOLVE_INTERVAL));
        assert_eq!(discovery.unresolved.lock().len(), 1);
    }

    #[tokio::test]
    async fn last_good_result_is_kept_when_the_resolver_fails() {
        let target: Target = "does-not-exist.invalid:80".parse().unwrap();
        let discovery = Discovery::new("p".into(), vec![member("does-not-exist.invalid:80", 1)], |address, _| address);
        discovery.last_good.lock().insert(target, vec!["127.0.0.9:80".parse().unwrap()]);
        let (found, _) = discovery.discover().await.unwrap();
        assert_eq!(found.len(), 1);
    }
}
