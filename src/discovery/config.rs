//! The `discover:` list of a pool: its sources, and the rules for their lists.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::address_rules::AddressRules;
use super::kept::{Kept, Rules};
use super::source::api::Registry;
use super::source::{Source, SourceName, dns, docker, etcd, file, kubernetes};
use crate::base::backend_address::BackendAddress;
use crate::base::fault::{Faults, Place};
use crate::base::units::{Percent, Period, PoolName};

/// How long a list without more than half of the backends must persist.
const HOLD: Period = Period(Duration::from_secs(30));

/// Configuration of a source of backends: exactly one of the sources, and the rules for its list.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Backends that are registered through the control API.
    pub api: Option<ApiConfig>,
    /// The addresses of a name, or its SRV records.
    pub dns: Option<dns::Config>,
    /// Containers of a Docker Engine, selected by their labels.
    pub docker: Option<docker::Config>,
    /// Backends in a file, which is read when it changes.
    pub file: Option<file::Config>,
    /// Backends in etcd, one key for each.
    pub etcd: Option<etcd::config::Config>,
    /// The endpoints of a Kubernetes Service.
    pub kubernetes: Option<kubernetes::config::Config>,
    /// Networks that the addresses must belong to. Without it, every address is accepted that `deny` does not contain.
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<IpNet>,
    /// Networks that the addresses must not belong to.
    #[schemars(with = "Vec<String>")]
    pub deny: Vec<IpNet>,
    /// How long a list without more than half of the backends must persist before it applies. 30s by default; not for
    /// `api`.
    pub hold: Option<Period>,
    /// The largest share of the requests to the backends of the source that a list may move to other backends. A list
    /// that moves more applies once it has persisted for `hold`, or when an operator accepts it. No limit by default; not
    /// for `api`.
    pub max_moved: Option<Percent>,
    /// Whether an empty list applies, once it has persisted for `hold`. Otherwise the last backends stay. Not for `api`.
    pub accept_empty: bool,
}

/// Configuration of registrations through the control API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {}

/// The kind of a source, with its checked settings.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Api,
    Dns(dns::Spec),
    Docker(docker::Spec),
    File(file::Spec),
    Etcd(Box<etcd::config::Spec>),
    Kubernetes(Box<kubernetes::config::Spec>),
}

/// A checked source.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its name in events and commands.
    pub name: SourceName,
    kind: Kind,
    rules: Rules,
}

/// The sources of a pool, with their lists.
#[derive(Clone, Default)]
pub struct Sources {
    /// The specifications with their lists, in the order of the configuration.
    pub(super) kept: Vec<(Spec, Arc<Kept>)>,
    /// The registrations, if the pool has them.
    registry: Option<Arc<Registry>>,
}

impl Config {
    /// Whether its lists may have zones.
    #[must_use]
    pub fn knows_zones(&self) -> bool {
        self.api.is_some() || self.file.is_some() || self.etcd.is_some()
    }

    /// Checks one source.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        let mut kinds = Vec::new();
        kinds.extend(self.api.map(|_| (Kind::Api, "api".to_owned())));
        if let Some(dns) = &self.dns {
            let spec = dns.check(self.accept_empty, &place.key("dns"), faults);
            kinds.extend(spec.map(|spec| (Kind::Dns(spec), dns.source_name())));
        }
        if let Some(docker) = &self.docker {
            let spec = docker.check(&place.key("docker"), faults);
            kinds.extend(spec.map(|spec| {
                let name = spec.name();
                (Kind::Docker(spec), name)
            }));
        }
        if let Some(file) = &self.file {
            let spec = file.check(&place.key("file"), faults);
            kinds.extend(spec.map(|spec| (Kind::File(spec.clone()), format!("file {}", spec.path.display()))));
        }
        if let Some(etcd) = &self.etcd {
            let spec = etcd.check(&place.key("etcd"), faults);
            kinds.extend(spec.map(|spec| {
                let name = format!("etcd {}", spec.name());
                (Kind::Etcd(Box::new(spec)), name)
            }));
        }
        if let Some(kubernetes) = &self.kubernetes {
            let spec = kubernetes.check(&place.key("kubernetes"), faults);
            kinds.extend(spec.map(|spec| {
                let name = format!("kubernetes {}", spec.name());
                (Kind::Kubernetes(Box::new(spec)), name)
            }));
        }
        let sources = [
            ("api", self.api.is_some()),
            ("dns", self.dns.is_some()),
            ("docker", self.docker.is_some()),
            ("file", self.file.is_some()),
            ("etcd", self.etcd.is_some()),
            ("kubernetes", self.kubernetes.is_some()),
        ];
        let given = sources.iter().filter(|(_, is_given)| *is_given).count();
        if given != 1 {
            let problem = if given == 0 { "the source is missing" } else { "an item has one source" };
            let names = sources.map(|(name, _)| name).join(", ");
            faults.add(place.clone(), problem, format!("write one of {names} in each item"));
        }
        if self.api.is_some() && (self.hold.is_some() || self.accept_empty || self.max_moved.is_some()) {
            faults.add(place.clone(), "`hold`, `max_moved` and `accept_empty` do not apply to `api`", "remove them");
        }
        let (kind, name) = kinds.into_iter().next()?;
        let is_api = kind == Kind::Api;
        let addresses = AddressRules {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            accepts_unix: matches!(kind, Kind::Api | Kind::File(_)),
            own: Arc::default(),
        };
        let hold = if is_api { Duration::ZERO } else { self.hold.unwrap_or(HOLD).0 };
        let rules = Rules { addresses, hold, max_moved: self.max_moved, accepts_empty: is_api || self.accept_empty };
        Some(Spec { name: SourceName(name.into()), kind, rules })
    }
}

/// Checks the sources of a pool.
pub fn check(configs: &[Config], place: &Place, faults: &mut Faults) -> Vec<Spec> {
    let mut names = BTreeSet::new();
    let mut specs = Vec::with_capacity(configs.len());
    for (index, config) in configs.iter().enumerate() {
        let place = place.index(index);
        let Some(spec) = config.check(&place, faults) else { continue };
        if names.insert(spec.name.clone()) {
            specs.push(spec);
        } else {
            faults.add(place, format!("`{}` is in this list already", spec.name), "remove one of the two");
        }
    }
    specs
}

impl Spec {
    /// Whether backends are registered through the control API.
    #[must_use]
    pub fn is_api(&self) -> bool {
        self.kind == Kind::Api
    }

    /// Sets the listen addresses of l7lb, which no source may name.
    pub fn set_own_addresses(&mut self, own: &Arc<[SocketAddr]>) {
        self.rules.addresses.own = Arc::clone(own);
    }
}

impl Sources {
    /// The sources of `specs` for `pool`. Equal sources of `before` are used again, with their lists; registrations stay
    /// as long as the pool has them.
    #[must_use]
    pub fn build(pool: &PoolName, specs: &[Spec], before: Option<&Self>) -> Self {
        let before = before.cloned().unwrap_or_default();
        let api = specs.iter().any(Spec::is_api);
        let registry = api.then(|| before.registry.clone().unwrap_or_default());
        let kept = |spec: &Spec| {
            let known = before.kept.iter().find(|(known, _)| known == spec);
            let kept = known.map(|(_, kept)| Arc::clone(kept)).unwrap_or_else(|| {
                let source: Arc<dyn Source + Send + Sync> = match (&spec.kind, &registry) {
                    (Kind::Dns(dns), _) => Arc::new(dns::DnsSource::new(dns.clone())),
                    (Kind::Docker(docker), _) => Arc::new(docker::DockerSource::new(docker.clone(), pool)),
                    (Kind::File(file), _) => Arc::new(file::FileSource::new(file.clone())),
                    (Kind::Etcd(etcd), _) => Arc::new(etcd::EtcdSource::new((**etcd).clone())),
                    (Kind::Kubernetes(spec), _) => Arc::new(kubernetes::KubernetesSource::new((**spec).clone())),
                    (Kind::Api, registry) => registry.clone().unwrap_or_default(),
                };
                let new = Arc::new(Kept::new(pool.clone(), spec.name.clone(), spec.rules.clone(), source));
                // The same source with other rules starts from its last list.
                if let Some((_, old)) = before.kept.iter().find(|(known, _)| known.name == spec.name) {
                    new.restore(old.current(), old.status().listed);
                }
                new
            });
            (spec.clone(), kept)
        };
        Self { kept: specs.iter().map(kept).collect(), registry }
    }

    /// The registrations, if the pool has them.
    #[must_use]
    pub fn registry(&self) -> Option<&Arc<Registry>> {
        self.registry.as_ref()
    }

    /// Whether a registration of `address` would be accepted.
    ///
    /// # Errors
    /// Why it would not.
    pub fn check_registration(&self, address: BackendAddress) -> Result<(), String> {
        let api = self.kept.iter().find(|(spec, _)| spec.is_api());
        api.map_or(Ok(()), |(_, kept)| kept.check(address))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The lists of other systems: all but the registrations, which are state of l7lb itself.
    pub fn external(&self) -> impl Iterator<Item = &Arc<Kept>> {
        self.kept.iter().filter(|(spec, _)| !spec.is_api()).map(|(_, kept)| kept)
    }

    /// The lists, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kept>> {
        self.kept.iter().map(|(_, kept)| kept)
    }
}
