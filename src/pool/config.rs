//! The `pools:` block: its configuration, and the checked form.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::admission::{self, circuit, concurrency, gate};
use super::health;
use super::passive_health;
use super::peer::proxy_protocol::{self, ProxyProtocol};
use super::peer::{Protocol, Template};
use super::selection::group::Threshold;
use super::selection::policy;
use crate::base::fault::{Faults, Place};
use crate::base::timeouts::{Timeouts, TimeoutsConfig};
use crate::base::units::{Period, Zone};
use crate::discovery::{self, Member, Target};
use crate::tls::upstream;

/// Configuration of a pool.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The balancing policy.
    #[serde(default)]
    pub balance: policy::Config,
    /// Slow start: how long a backend takes to reach its full share of traffic after it comes up. 0s turns it off.
    #[serde(default = "slow_start")]
    pub slow_start: Period,
    /// The number or percentage of primary backends that must be available. Below it, backups take traffic too.
    #[serde(default)]
    pub backup_threshold: Option<Threshold>,
    /// The protocol to the backends.
    #[serde(default)]
    pub protocol: Protocol,
    /// TLS to the backends. Without it, connections are not encrypted.
    #[serde(default)]
    pub tls: Option<upstream::Config>,
    /// PROXY protocol header at the start of each connection to a backend. Without it, backends see only the
    /// address of l7lb.
    #[serde(default)]
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// The active health check.
    #[serde(default)]
    pub health_check: health::Config,
    /// Passive health (outlier detection on real traffic): `off`, or the keys that differ from the defaults.
    #[serde(default)]
    pub passive_health: passive_health::Setting,
    /// The circuit breaker of each backend. Without it, backends have no circuit breaker.
    #[serde(default)]
    pub circuit_breaker: Option<circuit::Config>,
    /// Limits on requests in flight. Without it, there is no limit.
    #[serde(default)]
    pub max_in_flight: Option<gate::Config>,
    /// The queue for requests that exceed `max_in_flight`.
    #[serde(default)]
    pub queue: Option<gate::QueueConfig>,
    /// A limit on requests in flight that adapts to the measured latency. Without it, there is no such limit.
    #[serde(default)]
    pub adaptive_concurrency: Option<concurrency::Config>,
    /// Timeouts of requests to the backends.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// How long an idle connection to a backend is kept.
    #[serde(default = "keepalive_timeout")]
    pub keepalive_timeout: Period,
    /// How long requests in flight may continue after a reload has removed their backend. Then they are aborted.
    #[serde(default = "removal_timeout")]
    pub removal_timeout: Period,
    /// The backends. A pool with `discover` may have none here.
    #[serde(default)]
    pub backends: Vec<BackendConfig>,
    /// Sources of further backends. Without it, the pool has only `backends`.
    #[serde(default)]
    pub discover: Vec<discovery::config::Config>,
}

fn slow_start() -> Period {
    Period::seconds(10)
}

fn keepalive_timeout() -> Period {
    Period::seconds(50)
}

fn removal_timeout() -> Period {
    Period::seconds(300)
}

/// Configuration of a backend.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// `address:port`, `name:port`, `unix:/path` for a Unix domain socket, a URL such as `https://name`, or a port alone. A
    /// name is resolved every 30 s.
    pub address: String,
    /// Share of the traffic relative to the other backends, at most 1000. A backend with weight 0 gets no requests.
    #[serde(default = "weight")]
    pub weight: u32,
    /// Whether it is a backup: it takes traffic only when too few primary backends are available.
    #[serde(default)]
    pub backup: bool,
    /// Whether it is drained: it gets no new requests, and requests in flight finish.
    #[serde(default)]
    pub drain: bool,
    /// Its zone, such as `eu-west-1a`. Without it, the backend is in no zone.
    #[serde(default)]
    pub zone: Option<Zone>,
}

fn weight() -> u32 {
    1
}

pub use crate::discovery::source::WEIGHT_MAX;

/// The largest sum of weights in a pool. Pingora uses at most 65,535 slots in a pool.
pub(in crate::pool) const WEIGHTS_MAX: u32 = 65_535;

/// A checked pool.
#[derive(Clone)]
pub struct Spec {
    /// The configuration that this spec was checked from. Specs are compared by it.
    pub config: Config,
    /// How to connect to the backends.
    pub template: Template,
    /// The health check; `None` without one.
    pub health_check: Option<health::Spec>,
    /// Passive health, circuit breaker and limits on requests in flight.
    pub admission: admission::Spec,
    /// The balancing policy.
    pub balance: policy::Spec,
    /// How long a backend takes to reach its full share after it comes up; zero without slow start.
    pub slow_start: Duration,
    /// How many primary backends must be available; below this number backups take traffic too.
    pub backup_threshold: Threshold,
    /// How long requests in flight may continue on a removed backend before they are aborted.
    pub removal_timeout: Duration,
    /// The zone of this process (`server.zone`).
    pub local_zone: Option<Zone>,
    /// The backends.
    pub members: Vec<Member>,
    /// The sources of further backends.
    pub sources: Vec<discovery::config::Spec>,
}

impl Spec {
    /// Whether both describe the same pool: equal configuration, equal contents of the files that it refers to, and
    /// the same local zone.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.config == other.config && self.template.tls == other.template.tls && self.local_zone == other.local_zone
    }
}

impl Config {
    /// Checks the configuration of a pool.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Spec {
        let tls = self.tls.as_ref().and_then(|tls| tls.check(&place.key("tls"), faults));
        if !self.protocol.fits_tls(self.tls.is_some()) {
            let (problem, hint) = if self.tls.is_some() {
                ("h2c is HTTP/2 without TLS", "write `protocol: http2`, or remove `tls`")
            } else {
                (
                    "this protocol needs TLS",
                    "add `tls: { server_name: … }`, or write `protocol: h2c` for HTTP/2 without TLS",
                )
            };
            faults.add(place.key("protocol"), problem, hint);
        }
        if self.health_check.r#type == health::Type::Grpc && self.protocol == Protocol::Http1 {
            faults.add(
                place.key("health_check").key("type"),
                "gRPC needs HTTP/2, and this pool uses HTTP/1.1",
                "write `protocol: h2c`, or `protocol: http2` with `tls`",
            );
        }
        let template = Template {
            protocol: self.protocol,
            tls,
            timeouts: self.timeouts.check(Timeouts::default(), &place.key("timeouts"), faults),
            keepalive_timeout: self.keepalive_timeout.0,
            proxy_protocol: self.proxy_protocol.map(ProxyProtocol::new),
        };
        self.check_groups(place, faults);
        if self.removal_timeout.0.is_zero() {
            faults.add(place.key("removal_timeout"), "must be greater than zero", "write for example 5m");
        }
        Spec {
            config: self.clone(),
            template,
            balance: self.balance.check(&place.key("balance"), faults),
            slow_start: self.slow_start.0,
            backup_threshold: self.backup_threshold.unwrap_or_default(),
            removal_timeout: self.removal_timeout.0,
            health_check: self.health_check.check(&place.key("health_check"), faults),
            admission: self.check_admission(place, faults),
            local_zone: None,
            members: self.check_members(&place.key("backends"), faults),
            sources: discovery::config::check(&self.discover, &place.key("discover"), faults),
        }
    }

    /// Checks the blocks that limit the traffic of the pool.
    fn check_admission(&self, place: &Place, faults: &mut Faults) -> admission::Spec {
        if self.queue.is_some() && self.max_in_flight.is_none() {
            faults.add(
                place.key("queue"),
                "a queue has no effect without `max_in_flight`",
                "add for example `max_in_flight: { per_backend: 100 }`",
            );
        }
        let breaker = self.circuit_breaker.map(|breaker| breaker.check(&place.key("circuit_breaker"), faults));
        let queue = self.queue.unwrap_or_default();
        admission::Spec {
            passive_health: self.passive_health.check(&place.key("passive_health"), faults),
            circuit_breaker: breaker,
            max_in_flight: self.max_in_flight.map(|bound| bound.check(queue, place, faults)),
            adaptive: self.adaptive_concurrency.map(|config| config.mode),
        }
    }

    /// Checks the primary and backup backends and the backup threshold.
    fn check_groups(&self, place: &Place, faults: &mut Faults) {
        let used = || self.backends.iter().filter(|backend| backend.weight > 0);
        let primaries = used().filter(|backend| !backend.backup).count();
        let backends = place.key("backends");
        if !self.discover.is_empty() {
            // Sources may find what is missing here.
        } else if used().next().is_some() && primaries == 0 {
            faults.add(backends.clone(), "every backend is a backup", "remove `backup` from the primary backends");
        } else if used().next().is_some() && used().all(|backend| backend.drain) {
            faults.add(backends, "every backend is drained", "keep one backend, or route to another pool");
        }
        let Some(threshold) = self.backup_threshold else { return };
        let place = place.key("backup_threshold");
        if !self.backends.iter().any(|backend| backend.backup) && self.discover.is_empty() {
            faults.add(place, "there is no backup", "add `backup: true` to a backend, or remove the key");
        } else if threshold.of(primaries) == 0 {
            faults.add(place, "backups would never take traffic", "write 1 or more");
        } else if self.backends.iter().all(|b| b.address.parse::<Target>().is_ok_and(|target| !target.is_name()))
            && self.discover.is_empty()
            && threshold.of(primaries) > primaries
        {
            let problem = format!("there are only {primaries} primary backends, so backups would always take traffic");
            faults.add(place, problem, "lower it, or remove `backup`");
        }
    }

    fn check_members(&self, place: &Place, faults: &mut Faults) -> Vec<Member> {
        let mut members = Vec::with_capacity(self.backends.len());
        let mut seen = BTreeSet::new();
        for (index, backend) in self.backends.iter().enumerate() {
            let place = place.index(index);
            match backend.address.parse::<Target>() {
                Err(e) => faults.add(place.key("address"), e.problem, e.hint),
                Ok(target) if !seen.insert(target.clone()) => {
                    faults.add(
                        place.key("address"),
                        format!("`{target}` is in this pool already"),
                        "use `weight` for a larger share",
                    );
                }
                Ok(target) => members.push(Member {
                    target,
                    weight: backend.weight,
                    backup: backend.backup,
                    drain: backend.drain,
                    zone: backend.zone.clone(),
                }),
            }
            if backend.weight > WEIGHT_MAX {
                faults.add(
                    place.key("weight"),
                    format!("{} is more than {WEIGHT_MAX}", backend.weight),
                    "weights are relative: divide all of them by the same number",
                );
            }
        }
        let total: u32 = self.backends.iter().map(|backend| backend.weight.min(WEIGHT_MAX)).sum();
        if self.backends.is_empty() && self.discover.is_empty() {
            faults.add(place.clone(), "the pool has no backend", "give at least one, or a source in `discover`");
        } else if total == 0 && self.discover.is_empty() {
            faults.add(place.clone(), "every backend has weight 0", "give at least one a weight of 1 or more");
        } else if total > WEIGHTS_MAX {
            faults.add(
                place.clone(),
                format!("the weights add up to {total}, more than {WEIGHTS_MAX}"),
                "weights are relative: divide all of them by the same number",
            );
        }
        members
    }
}
