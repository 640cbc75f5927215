//! Backends in DNS: the addresses of a name, or its SRV records. The list is read again when its time to live ends.
//!
//! - `config`: the keys. `system`: resolvers and search domains of the system.
//! - `client`: questions to resolvers. `answer`: what messages say.

mod answer;
mod client;
mod config;
mod system;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;
use tokio::task::JoinSet;

use self::answer::Answer;
use self::client::Resolvers;
use self::config::Records;
use self::system::System;
use super::{Family, Found, Source, failed, list};
use crate::base::backend_address::BackendAddress;

pub use self::config::{Config, Spec};

/// The most targets of SRV records that are resolved at the same time.
const CONCURRENT: usize = 16;

/// A name whose addresses are the backends.
pub struct DnsSource {
    spec: Spec,
    /// Kept between lists, so that a resolver that does not respond is not asked first each time.
    resolvers: Mutex<Arc<Resolvers>>,
    /// The time to live of the last list, within its bounds.
    ttl: Mutex<Duration>,
}

impl DnsSource {
    /// The backends that `spec` names.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        let resolvers = Mutex::new(Arc::new(Resolvers::new(spec.resolvers.clone())));
        let ttl = Mutex::new(spec.minimum_ttl);
        Self { spec, resolvers, ttl }
    }

    async fn read(&self) -> Result<Answer<Found>, String> {
        let system = System::read().await;
        let resolvers = self.resolvers(&system)?;
        for name in system.candidates(&self.spec.name, self.spec.search) {
            // A failure ends the search: the name of another domain may be that of another service.
            let answer = match self.spec.records {
                Records::Address(port) => self.by_address(&resolvers, &name, port).await?,
                Records::Srv => self.by_service(&resolvers, &name).await?,
            };
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        if self.spec.accepts_empty { Ok(Answer { records: Vec::new(), ttl: None }) } else { Err(self.nothing()) }
    }

    fn nothing(&self) -> String {
        match self.spec.records {
            Records::Address(_) => "the name has no address".to_owned(),
            Records::Srv => "the name has no SRV record".to_owned(),
        }
    }

    /// The configured resolvers, or those of the system.
    fn resolvers(&self, system: &System) -> Result<Arc<Resolvers>, String> {
        let mut resolvers = self.resolvers.lock();
        if self.spec.resolvers.is_empty() && resolvers.servers() != system.resolvers {
            *resolvers = Arc::new(Resolvers::new(system.resolvers.clone()));
        }
        if resolvers.servers().is_empty() {
            return Err("/etc/resolv.conf has no resolver; `resolvers` may name one".to_owned());
        }
        Ok(Arc::clone(&resolvers))
    }

    /// The addresses of a name as backends. `None` if it has none.
    async fn by_address(&self, resolvers: &Resolvers, name: &Name, port: u16) -> Result<Option<Answer<Found>>, String> {
        let Answer { records, ttl } = addresses(resolvers, name, self.spec.family).await?;
        let found = |ip| Found::at(BackendAddress::from(std::net::SocketAddr::new(ip, port)));
        Ok((!records.is_empty()).then(|| Answer { records: records.into_iter().map(found).collect(), ttl }))
    }

    /// The SRV records of a name as backends. `None` if it has none.
    async fn by_service(&self, resolvers: &Arc<Resolvers>, name: &Name) -> Result<Option<Answer<Found>>, String> {
        let Answer { records, mut ttl } = answer::services(resolvers.records(name, RecordType::SRV).await?);
        if records.is_empty() {
            return Ok(None);
        }
        let mut found = BTreeMap::new();
        for (target, answer) in targets(resolvers, &records, self.spec.family).await? {
            ttl = answer::shorter(ttl, answer.ttl);
            found.insert(target, answer.records);
        }
        let records = answer::backends(records, &found);
        if records.is_empty() && !self.spec.accepts_empty {
            return Err("no target of the SRV records has an address".to_owned());
        }
        Ok(Some(Answer { records, ttl }))
    }
}

/// The addresses of a name. If the resolvers fail for one family, those of the other one are not a complete list.
async fn addresses(resolvers: &Resolvers, name: &Name, family: Family) -> Result<Answer<IpAddr>, String> {
    let (v4, v6) = (resolvers.records(name, RecordType::A), resolvers.records(name, RecordType::AAAA));
    let answer = match family {
        Family::Any => {
            let (v4, v6) = tokio::join!(v4, v6);
            v4?.and(v6?)
        }
        Family::Ipv4 => v4.await?,
        Family::Ipv6 => v6.await?,
    };
    Ok(answer::addresses(answer))
}

/// The addresses of the targets of services. A target without an address has an empty answer.
async fn targets(
    resolvers: &Arc<Resolvers>,
    services: &[SRV],
    family: Family,
) -> Result<Vec<(Name, Answer<IpAddr>)>, String> {
    let names: BTreeSet<Name> = services.iter().map(|service| service.target.clone()).collect();
    let (mut all, mut tasks) = (Vec::with_capacity(names.len()), JoinSet::new());
    for name in names {
        if tasks.len() >= CONCURRENT {
            all.extend(joined(tasks.join_next().await)?);
        }
        let resolvers = Arc::clone(resolvers);
        tasks.spawn(async move {
            let answer = addresses(&resolvers, &name, family).await?;
            Ok((name, answer))
        });
    }
    while !tasks.is_empty() {
        all.extend(joined(tasks.join_next().await)?);
    }
    Ok(all)
}

type Joined<T> = Option<Result<Result<T, String>, tokio::task::JoinError>>;

fn joined<T>(joined: Joined<T>) -> Result<Option<T>, String> {
    joined.map(|result| result.map_err(|e| e.to_string()).and_then(|result| result)).transpose()
}

#[async_trait]
impl ServiceDiscovery for DnsSource {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        match self.read().await {
            Ok(Answer { records, ttl }) => {
                let (minimum, max) = (self.spec.minimum_ttl, self.spec.max_ttl);
                *self.ttl.lock() = ttl.unwrap_or_default().clamp(minimum, max);
                Ok((list(records), HashMap::new()))
            }
            Err(reason) => failed(reason),
        }
    }
}

#[async_trait]
impl Source for DnsSource {
    async fn changed(&self) {
        let ttl = *self.ttl.lock();
        tokio::time::sleep(ttl).await;
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
