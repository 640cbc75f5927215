//! The `pools:` block: a pool as written, and checked.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::admission::{self, circuit, concurrency, gate};
use super::health;
use super::passive_health;
use super::peer::{Protocol, Template, Timeouts, TimeoutsConfig};
use super::proxy_protocol::{self, ProxyProtocol};
use super::selection::group::Threshold;
use super::selection::policy;
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::discovery::{Member, Target};
use crate::tls::upstream;

/// A pool, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How a backend is chosen.
    #[serde(default)]
    pub balance: policy::Config,
    /// How long a backend that has come back takes to its full share.
    #[serde(default = "slow_start")]
    pub slow_start: Period,
    /// How many primaries must be available for backups to rest.
    #[serde(default)]
    pub backup_threshold: Option<Threshold>,
    /// What the backends speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// TLS towards the backends; without it they are spoken to in plain.
    #[serde(default)]
    pub tls: Option<upstream::Config>,
    /// PROXY protocol ahead of each connection; without it backends see only our address.
    #[serde(default)]
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// How their health is checked.
    #[serde(default)]
    pub health_check: health::Config,
    /// What its traffic says about a backend's health; `off`, or what differs from the defaults.
    #[serde(default)]
    pub passive_health: passive_health::Setting,
    /// Each backend's circuit breaker; without it there is none.
    #[serde(default)]
    pub circuit_breaker: Option<circuit::Config>,
    /// How many requests may be in flight; without it any number.
    #[serde(default)]
    pub max_in_flight: Option<gate::Config>,
    /// How many requests wait beyond `max_in_flight`.
    #[serde(default)]
    pub queue: Option<gate::QueueConfig>,
    /// A limit on requests in flight that finds itself.
    #[serde(default)]
    pub adaptive_concurrency: Option<concurrency::Config>,
    /// How long the steps of a request may take.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// How long an unused connection to a backend is kept.
    #[serde(default = "keepalive_timeout")]
    pub keepalive_timeout: Period,
    /// How long requests may go on at a backend that is no longer in the configuration.
    #[serde(default = "removal_timeout")]
    pub removal_timeout: Period,
    /// The backends.
    pub backends: Vec<BackendConfig>,
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

/// A backend, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// `address:port`, or `name:port` to be resolved again every 30 s.
    pub address: String,
    /// Share of the traffic relative to the other backends; 0 takes none.
    #[serde(default = "weight")]
    pub weight: u32,
    /// Takes traffic only when too few primaries can.
    #[serde(default)]
    pub backup: bool,
    /// Takes no new requests; open ones finish.
    #[serde(default)]
    pub drain: bool,
}

fn weight() -> u32 {
    1
}

/// The largest weight. Pingora lays out one slot for each unit of weight, at most 65,535 in a pool.
pub(in crate::pool) const WEIGHT_MAX: u32 = 1000;
pub(in crate::pool) const WEIGHTS_MAX: u32 = 65_535;

/// A checked pool.
#[derive(Clone)]
pub struct Spec {
    /// What was written, by which two specs are compared.
    pub written: Config,
    /// How backends are reached.
    pub template: Template,
    /// How their health is checked; `None` where it is not.
    pub health_check: Option<health::Spec>,
    /// What traffic says about it, and how much of it there may be.
    pub bounds: admission::Spec,
    /// How a backend is chosen.
    pub balance: policy::Spec,
    /// How long a backend that has come back takes to its full share; zero for at once.
    pub slow_start: Duration,
    /// How many primaries must be available for backups to rest.
    pub backup_threshold: Threshold,
    /// How long requests may go on at a backend that is no longer in the configuration.
    pub removal_timeout: Duration,
    /// The backends.
    pub members: Vec<Member>,
}

impl Spec {
    /// Whether both describe the very same pool: the same was written, and the files that it names hold
    /// the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.written == other.written && self.template.tls == other.template.tls
    }
}

impl Config {
    /// Proves the pool consistent.
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
                "gRPC needs HTTP/2, and this pool speaks HTTP/1.1",
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
            faults.add(place.key("removal_timeout"), "must be longer than nothing", "write for example 5m");
        }
        Spec {
            written: self.clone(),
            template,
            balance: self.balance.check(&place.key("balance"), faults),
            slow_start: self.slow_start.0,
            backup_threshold: self.backup_threshold.unwrap_or_default(),
            removal_timeout: self.removal_timeout.0,
            health_check: self.health_check.check(&place.key("health_check"), faults),
            bounds: self.check_admission(place, faults),
            members: self.check_members(&place.key("backends"), faults),
        }
    }

    /// Checks the blocks that limit the traffic of the pool.
    fn check_admission(&self, place: &Place, faults: &mut Faults) -> admission::Spec {
        if self.queue.is_some() && self.max_in_flight.is_none() {
            faults.add(
                place.key("queue"),
                "nobody waits without `max_in_flight`",
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

    /// Without a primary that takes traffic, a pool is not what was meant.
    fn check_groups(&self, place: &Place, faults: &mut Faults) {
        let used = || self.backends.iter().filter(|backend| backend.weight > 0);
        let primaries = used().filter(|backend| !backend.backup).count();
        let backends = place.key("backends");
        if used().next().is_some() && primaries == 0 {
            faults.add(
                backends.clone(),
                "every backend is a backup",
                "remove `backup` from those that take traffic first",
            );
        } else if used().next().is_some() && used().all(|backend| backend.drain) {
            faults.add(backends, "every backend is drained", "leave one in, or send the route to another pool");
        }
        let Some(threshold) = self.backup_threshold else { return };
        let place = place.key("backup_threshold");
        if !self.backends.iter().any(|backend| backend.backup) {
            faults.add(place, "there is no backup", "add `backup: true` to a backend, or remove the key");
        } else if threshold.of(primaries) == 0 {
            faults.add(place, "backups would never take traffic", "write 1 or more");
        } else if self.backends.iter().all(|b| b.address.parse::<Target>().is_ok_and(|target| !target.is_name()))
            && threshold.of(primaries) > primaries
        {
            let problem = format!("there are only {primaries} primaries, so backups would never rest");
            faults.add(place, problem, "lower it, or remove `backup`");
        }
    }

    fn check_members(&self, place: &Place, faults: &mut Faults) -> Vec<Member> {
        let mut members = Vec::with_capacity(self.backends.len());
        let mut seen = BTreeSet::new();
        for (index, backend) in self.backends.iter().enumerate() {
            let place = place.index(index);
            match backend.address.parse::<Target>() {
                Err(e) => faults.add(place.key("address"), e.to_string(), "write address:port, such as 127.0.0.1:8081"),
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
                }),
            }
            if backend.weight > WEIGHT_MAX {
                faults.add(
                    place.key("weight"),
                    format!("{} is more than {WEIGHT_MAX}", backend.weight),
                    "weights are relative: divide them all",
                );
            }
        }
        let total: u32 = self.backends.iter().map(|backend| backend.weight.min(WEIGHT_MAX)).sum();
        if self.backends.is_empty() {
            faults.add(place.clone(), "the pool has no backend", "give at least one");
        } else if total == 0 {
            faults.add(place.clone(), "every backend has weight 0", "give at least one a weight of 1 or more");
        } else if total > WEIGHTS_MAX {
            faults.add(
                place.clone(),
                format!("the weights add up to {total}, more than {WEIGHTS_MAX}"),
                "weights are relative: divide them all",
            );
        }
        members
    }
}
