//! A pool: backends that answer alike, one of which is picked for each request.
//!
//! Picking is Pingora's `LoadBalancer<RoundRobin>`, or another policy in its place; its background
//! service keeps discovery and health up to date. What Pingora has no place for (a backend that was
//! never checked, requests in flight, how long answers take) is in [`Endpoint`], which rides along with
//! each backend.
//!
//! - [`policy`]: which backend takes a request; [`balancer`]: Pingora's load balancer under any policy;
//!   [`group`]: primaries and backups.
//! - [`health`]: what checks ask, how often, what the answers mean; [`probe`], [`grpc_health`]: one check on
//!   the wire, by [`connectors`] that all pools share.
//! - [`outlier`], [`passive`]: what its traffic says about a backend, judged among its peers; [`histogram`]
//!   counts times.
//! - [`circuit`]: each backend's circuit breaker. [`gate`], [`queue`]: how many requests are in flight, and who
//!   waits. [`concurrency`], [`overload`]: how many there should be. [`bounds`] asks them all.
//! - [`lease`]: one request at one backend.
//! - [`peer`]: how a backend is reached.
//! - [`proxy_protocol`]: telling backends the client's address before anything else.
//! - [`outlook`]: who would be picked, and why not the others, for people who ask.
//! - [`preference`]: picking the backend that a client is bound to.
//! - [`succession`]: how a pool is made, and what it takes over from the one in whose place it comes.
//! - [`administration`], [`operation`]: what an operator says of backends, and sees of them.
//! - [`keeper`]: the background service that runs all pools.

pub mod administration;
pub mod balancer;
pub mod bounds;
pub mod circuit;
pub mod concurrency;
mod connectors;
pub mod endpoint;
pub mod gate;
pub mod group;
mod grpc_health;
pub mod health;
pub mod histogram;
pub mod keeper;
mod latency;
mod lease;
pub mod operation;
pub mod outlier;
pub mod outlook;
pub mod overload;
pub mod passive;
pub mod peer;
pub mod policy;
mod preference;
mod probe;
pub mod proxy_protocol;
pub mod queue;
mod succession;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use fastrand::Rng;
use http::request::Parts;
use pingora_core::server::ShutdownWatch;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;

use balancer::Balancer;
use bounds::Bounds;
pub use connectors::Connectors;
pub use endpoint::{Endpoint, Health, Shared, Standing};
use group::Threshold;
pub use keeper::{Keeper, Kept};
pub use lease::Lease;
pub use operation::{Found, Refused};
use peer::{Protocol, Template, Timeouts, TimeoutsConfig};
use policy::Ask;
pub use policy::Key;
pub use preference::Preferred;
use proxy_protocol::ProxyProtocol;
use succession::Predecessor;

use crate::discovery::{Discovery, Member, Target};
use crate::fault::{Faults, Place};
use crate::rejection::Rejection;
use crate::retry;
use crate::tls::upstream;
use crate::units::{Period, PoolName};

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
    pub passive_health: outlier::Setting,
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
const WEIGHT_MAX: u32 = 1000;
const WEIGHTS_MAX: u32 = 65_535;

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
    pub bounds: bounds::Spec,
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
            bounds: bounds::Spec::check(self, place, faults),
            members: self.check_members(&place.key("backends"), faults),
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

/// A live pool.
pub struct Pool {
    name: PoolName,
    spec: Spec,
    template: Template,
    /// When a pool without a healthy backend may have one again.
    retry_after: Duration,
    predecessor: Predecessor,
    discovery: Arc<Discovery<Arc<Endpoint>>>,
    balancer: Arc<dyn Balancer>,
    in_flight: Arc<AtomicU32>,
    budget: Arc<retry::Budget>,
    /// Whether the first discovery is done; touched after each finished check.
    progress: Arc<watch::Sender<bool>>,
    bounds: Bounds,
}

impl Pool {
    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// What the pool was built from.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// How the backends are reached.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Why none of the backends may be asked.
    #[must_use]
    pub fn no_backend(&self) -> Rejection {
        self.bounds.why_none(&self.candidates(), self.retry_after)
    }

    /// What the pool's policy knows a request by; [`Key::NONE`] for policies that do not care.
    #[must_use]
    pub fn key(&self, client: IpAddr, request: &Parts) -> Key {
        self.spec.balance.key.as_ref().map_or(Key::NONE, |source| source.key(client, request))
    }

    /// A backend for a request's first try, as `choose` picks it once the pool has room for one more
    /// request.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn reserve(&self, choose: impl FnMut() -> Option<Lease>) -> Result<Lease, Rejection> {
        self.bounds.reserve(choose, || self.candidates(), self.retry_after).await
    }

    /// Picks a backend that is available and was not tried before, and counts the request there. One that
    /// only its traffic condemned is picked where nobody else is left, not even one who is busy.
    #[must_use]
    pub fn pick(&self, key: Key, tried: &[Arc<Endpoint>], now: Instant) -> Option<Lease> {
        let well = |endpoint: &Endpoint| self.is_well(endpoint);
        let anybody = |endpoint: &Endpoint| self.bounds.allow(endpoint);
        let choose = |admits: &dyn Fn(&Endpoint) -> bool| {
            let mut ask = Ask { key, now, tried, random: Rng::new(), slow_start: self.spec.slow_start, admits };
            self.balancer.choose(&mut ask)
        };
        let ejected = || match self.bounds.is_worth_waiting(|| self.candidates(), tried) {
            true => None,
            false => choose(&anybody),
        };
        let endpoint = choose(&well).or_else(ejected)?;
        self.bounds.lease(&endpoint)
    }

    /// How many requests the pool is working on for this process.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Its retries, shared by all routes to it.
    #[must_use]
    pub fn budget(&self) -> &retry::Budget {
        &self.budget
    }

    /// Finds the backends and keeps them and their health up to date until shutdown.
    pub async fn run(&self, shutdown: ShutdownWatch) {
        // The load balancer's loop says nothing of its first discovery, hence one before it. An
        // error cannot come from our discovery, which keeps the last good answer instead.
        self.balancer.update().await.ok();
        self.take_over();
        self.progress.send_replace(true);
        let mut over = shutdown.clone();
        // The load balancer's loop ends at once where there is nothing to look up and nothing to check.
        let work = async { tokio::join!(self.balancer.run(shutdown), self.bounds.watch(|| self.candidates())) };
        tokio::select! {
            _ = over.changed() => {}
            _ = work => {}
        }
    }

    /// Waits until a backend is up, or all that were found have been checked once.
    pub async fn settled(&self) {
        let mut progress = self.progress.subscribe();
        loop {
            let candidates = self.candidates();
            let all_known = candidates.iter().all(|endpoint| endpoint.is_known());
            if *progress.borrow_and_update() && (all_known || candidates.iter().any(|endpoint| endpoint.is_up())) {
                return;
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod operation_tests;
#[cfg(test)]
mod outlook_tests;
#[cfg(test)]
mod succession_tests;
#[cfg(test)]
mod tests;
