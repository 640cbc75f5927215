//! A pool: backends that answer alike, one of which is picked for each request.
//!
//! Picking is Pingora's `LoadBalancer<RoundRobin>`; its background service keeps discovery and
//! health up to date. What Pingora has no place for (a backend that was never checked, requests in
//! flight) is in [`Endpoint`], which rides along with each backend.
//!
//! - [`health`]: what checks ask, how often, what the answers mean; [`probe`], [`grpc_health`]: one check on
//!   the wire.
//! - [`peer`]: how a backend is reached.
//! - [`proxy_protocol`]: telling backends the client's address before anything else.
//! - [`keeper`]: the background service that runs all pools.

pub mod endpoint;
mod grpc_health;
pub mod health;
pub mod keeper;
pub mod peer;
mod probe;
pub mod proxy_protocol;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::server::ShutdownWatch;
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backends, LoadBalancer};
use serde::Deserialize;
use tokio::sync::watch;

pub use endpoint::{Endpoint, Health, Lease};
pub use keeper::{Keeper, Kept};
use peer::{Protocol, Template, Timeouts, TimeoutsConfig};
use probe::Probe;
use proxy_protocol::ProxyProtocol;

use crate::discovery::{Discovery, Member, Shared, Target};
use crate::fault::{Faults, Place};
use crate::tls::upstream;
use crate::units::{Period, PoolName};

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, as often as the weights say.
    #[default]
    RoundRobin,
}

/// A pool, as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How a backend is chosen.
    #[serde(default)]
    pub balance: Balance,
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
    /// How long the steps of a request may take.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// How long an unused connection to a backend is kept.
    #[serde(default = "keepalive_timeout")]
    pub keepalive_timeout: Period,
    /// The backends.
    pub backends: Vec<BackendConfig>,
}

fn keepalive_timeout() -> Period {
    Period::seconds(50)
}

/// A backend, as written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// `address:port`, or `name:port` to be resolved again every 30 s.
    pub address: String,
    /// Share of the traffic relative to the other backends; 0 takes none.
    #[serde(default = "weight")]
    pub weight: u32,
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
        Spec {
            written: self.clone(),
            template,
            health_check: self.health_check.check(&place.key("health_check"), faults),
            members: self.check_members(&place.key("backends"), faults),
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
                Ok(target) => members.push(Member { target, weight: backend.weight }),
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

impl Spec {
    /// Whether both describe the very same pool: the same was written, and the files that it names hold
    /// the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.written == other.written && self.template.tls == other.template.tls
    }

    /// Whether what is known about a backend by `before` still means the same. Where checks are switched
    /// off it does not: nobody would bring back what they took out.
    fn keeps_endpoints_of(&self, before: &Self) -> bool {
        self.health_check.is_some() || before.health_check.is_none()
    }
}

/// A live pool.
pub struct Pool {
    name: PoolName,
    spec: Spec,
    template: Template,
    retry_after: Duration,
    discovery: Arc<Discovery<Arc<Endpoint>>>,
    balancer: LoadBalancer<RoundRobin>,
    /// Whether the first discovery is done; touched after each finished check.
    progress: Arc<watch::Sender<bool>>,
}

/// How many candidates a pick looks at before it gives up: all of any sensible pool.
const PICK_ITERATIONS: usize = 4096;

impl Pool {
    /// Builds the pool; nothing goes out before its [`Keeper`] runs it.
    ///
    /// # Errors
    /// When a health check cannot be built, which a checked configuration rules out.
    pub fn build(name: PoolName, spec: &Spec) -> pingora::Result<Self> {
        Self::assemble(name, spec, None)
    }

    /// Builds the pool in the place of `before`: backends that stay keep what is known about them.
    ///
    /// # Errors
    /// As [`Pool::build`].
    pub fn succeed(before: &Self, spec: &Spec) -> pingora::Result<Self> {
        Self::assemble(before.name.clone(), spec, Some(before))
    }

    fn assemble(name: PoolName, spec: &Spec, before: Option<&Self>) -> pingora::Result<Self> {
        let start = if spec.health_check.is_some() { Health::Unknown } else { Health::Up };
        let attach = move |address| Arc::new(Endpoint::new(address, start));
        let mut discovery = Discovery::new(name.clone(), spec.members.clone(), attach);
        let mut template = spec.template.clone();
        if let Some(before) = before {
            if spec.keeps_endpoints_of(&before.spec) {
                discovery = discovery.succeeding(&before.discovery);
            }
            // The seed is part of what connections are kept by.
            if let (Some(new), Some(old)) = (&mut template.proxy_protocol, &before.template.proxy_protocol) {
                new.clone_from(old);
            }
        }
        let discovery = Arc::new(discovery);
        let mut balancer = LoadBalancer::from_backends(Backends::new(Box::new(Shared(Arc::clone(&discovery)))));
        balancer.update_frequency = discovery.interval();
        balancer.parallel_health_check = true;
        let progress = Arc::new(watch::Sender::new(false));
        let mut retry_after = Duration::from_secs(1);
        if let Some(check) = &spec.health_check {
            balancer.health_check_frequency = Some(check.rhythm.beat());
            retry_after = check.rhythm.unhealthy_interval;
            let probe = Probe::new(name.clone(), check.clone(), &spec.template, Arc::clone(&progress))?;
            balancer.set_health_check(Box::new(probe));
        }
        Ok(Self { name, spec: spec.clone(), template, retry_after, discovery, balancer, progress })
    }

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

    /// When a pool without a healthy backend may have one again.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// Picks a backend that is up and was not tried before, and counts the request there.
    #[must_use]
    pub fn pick(&self, tried: &[Arc<Endpoint>]) -> Option<Lease> {
        let eligible = |backend: &pingora_load_balancing::Backend, healthy: bool| {
            healthy
                && endpoint_of(backend).is_some_and(|endpoint| {
                    endpoint.is_up() && !tried.iter().any(|tried| tried.address() == endpoint.address())
                })
        };
        let backend = self.balancer.select_with(b"", PICK_ITERATIONS, eligible)?;
        endpoint_of(&backend).map(|endpoint| Lease::new(Arc::clone(endpoint)))
    }

    /// Every backend that was found, with what is known about it.
    #[must_use]
    pub fn candidates(&self) -> Vec<Arc<Endpoint>> {
        self.discovery.attached()
    }

    /// Finds the backends and keeps them and their health up to date until shutdown.
    pub async fn run(&self, shutdown: ShutdownWatch) {
        // The load balancer's loop says nothing of its first discovery, hence one before it. An
        // error cannot come from our discovery, which keeps the last good answer instead.
        self.balancer.update().await.ok();
        self.progress.send_replace(true);
        self.balancer.run(shutdown, None).await;
    }

    /// Waits until a backend is up, or all that were found have been checked once.
    pub async fn settled(&self) {
        let mut progress = self.progress.subscribe();
        loop {
            let candidates = self.candidates();
            let all_known = candidates.iter().all(|endpoint| endpoint.health() != Health::Unknown);
            if *progress.borrow_and_update() && (all_known || candidates.iter().any(|endpoint| endpoint.is_up())) {
                return;
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }
}

fn endpoint_of(backend: &pingora_load_balancing::Backend) -> Option<&Arc<Endpoint>> {
    backend.ext.get::<Arc<Endpoint>>()
}

#[cfg(test)]
mod tests;
