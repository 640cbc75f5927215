//! The configuration: what was written, and the proof that it is consistent.
//!
//! Three stages, each made only from the one before: [`Config`] is what was written, [`Checked`] is
//! proved consistent, and [`crate::decision::snapshot::Snapshot`] is live. `load` and `check` touch no
//! network and bind nothing, so `l7lb check` is safe to run anywhere.
//!
//! - [`load`]: from a file to a [`Checked`], or to every fault at once.
//! - [`diagnostic`], [`positions`]: how and where a fault is told; [`warnings`]: what is legal but unwise;
//!   [`schema`]: what may be written, for editors.
//! - [`shown`]: the configuration without what might be secret.
//! - [`server`], [`listener`], [`routes`], [`shares`],
//!   [`expectation`], [`reload`]: parts that belong to no room of their own.

pub mod diagnostic;
pub mod expectation;
mod environment;
pub mod listener;
pub mod load;
pub mod positions;
pub mod reload;
pub mod routes;
pub mod schema;
pub mod server;
pub mod shares;
pub mod shown;
mod tree;
pub mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use pingora_core::server::configuration::ServerConf;
use schemars::JsonSchema;
use serde::Deserialize;

pub use routes::RouteSpec;

use crate::base::fault::{Fault, Faults, Place};
use crate::base::units::{Period, PoolName};
use crate::http::client_address::TrustedProxies;
use crate::http::request_limits::{self, RequestLimits};
use crate::limit;
use crate::listener::address::ListenAddress;
use crate::listener::client_timeouts::{self, ClientTimeouts};
use crate::listener::connection_limits::{self, ConnectionLimits};
use crate::observe::access_log;
use crate::observe::recent_requests;
use crate::pool;

/// The whole file, as written. Nothing in it is known to fit together yet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Config {
    /// Pingora's server settings.
    pub server: server::Config,
    /// Where connections are accepted.
    pub listeners: Vec<listener::Config>,
    /// The proxies in front of us whose `X-Forwarded-For` is believed.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// The limit for each client over everything that the balancer serves.
    pub rate_limit: limit::Config,
    /// How large requests may be.
    pub request_limits: request_limits::Config,
    /// How long clients may take.
    pub client_timeouts: client_timeouts::Config,
    /// How many connections there may be, and how much each may carry.
    pub connection_limits: connection_limits::Config,
    /// Where the access log goes.
    pub access_log: access_log::Config,
    /// When the file is read anew.
    pub reload: reload::Config,
    /// What is remembered of requests, for `l7lb plan`.
    pub recent_requests: recent_requests::Config,
    /// How long connections are accepted still when the process was asked to stop; 5 s where a listener
    /// answers `health.ready`, else 0 s, since nobody would learn that they should not come.
    pub drain_delay: Option<Period>,
    /// Pools of backends by name.
    pub pools: BTreeMap<PoolName, pool::Config>,
    /// What goes to which pool.
    pub routes: Vec<routes::Config>,
    /// What must become of requests; `l7lb check` asks.
    pub tests: Vec<expectation::Config>,
}

/// A consistent configuration: everything in it can be built.
pub struct Checked {
    /// What was written, by which configurations are compared.
    pub written: Config,
    /// Pingora's settings.
    pub server: ServerConf,
    /// Where connections are accepted; at least one.
    pub listeners: Vec<listener::Spec>,
    /// The proxies in front of us.
    pub trusted_proxies: TrustedProxies,
    /// The limit over everything; `None` where it is off.
    pub rate_limit: Option<limit::Spec>,
    /// How large requests may be.
    pub request_limits: RequestLimits,
    /// How long clients may take.
    pub client_timeouts: ClientTimeouts,
    /// How many connections there may be, and how much each may carry.
    pub connection_limits: ConnectionLimits,
    /// Where the access log goes.
    pub access_log: access_log::Config,
    /// What is remembered of requests.
    pub recent_requests: recent_requests::Spec,
    /// How long connections are accepted still when the process was asked to stop.
    pub drain_delay: Duration,
    /// Pools by name.
    pub pools: BTreeMap<PoolName, pool::Spec>,
    /// Routes, each to a pool that exists.
    pub routes: Vec<RouteSpec>,
    /// What must become of requests.
    pub tests: Vec<expectation::Config>,
}

/// How long whoever asks for readiness takes to notice, and to send nobody any more.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// The most listeners that a graceful upgrade hands over.
pub const LISTENERS_MAX: usize = 1024;

impl Config {
    /// Proves the configuration consistent.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check(&self) -> Result<Checked, Vec<Fault>> {
        let mut faults = Faults::default();
        let root = Place::root();
        let request_limits = self.request_limits.check(&root.key("request_limits"), &mut faults);
        let pools: BTreeMap<PoolName, pool::Spec> = self
            .pools
            .iter()
            .map(|(name, pool)| (name.clone(), pool.check(&root.key("pools").key(name.as_str()), &mut faults)))
            .collect();
        self.reload.check(&self.recent_requests, &root.key("reload"), &mut faults);
        self.check_source_addresses(&root.key("pools"), &mut faults);
        let checked = Checked {
            written: self.clone(),
            server: self.server.check(&root.key("server"), &mut faults),
            listeners: self.check_listeners(&root.key("listeners"), &mut faults),
            trusted_proxies: TrustedProxies::new(self.trusted_proxies.clone()),
            rate_limit: self.rate_limit.check(&root.key("rate_limit"), &mut faults),
            request_limits,
            client_timeouts: self.client_timeouts.check(&root.key("client_timeouts"), &mut faults),
            connection_limits: self.connection_limits.check(&root.key("connection_limits"), &mut faults),
            access_log: self.access_log.clone(),
            drain_delay: self.drain_delay(),
            recent_requests: self.recent_requests.check(&root.key("recent_requests"), &mut faults),
            routes: routes::check(&self.routes, &pools, request_limits, &mut faults),
            pools,
            tests: self.tests.clone(),
        };
        self.check_retries(&checked, &mut faults);
        for (index, test) in self.tests.iter().enumerate() {
            test.check(&root.key("tests").index(index), &checked.routes, &mut faults);
        }
        if faults.is_empty() { Ok(checked) } else { Err(faults.into_vec()) }
    }

    fn drain_delay(&self) -> Duration {
        let seen = self.listeners.iter().any(|listener| listener.health.as_ref().is_some_and(|h| h.ready.is_some()));
        let default = if seen { DRAIN_DELAY } else { Duration::ZERO };
        self.drain_delay.map_or(default, |Period(delay)| delay)
    }

    /// Pingora gives the source address to connections that it makes itself, and those with a header of
    /// the PROXY protocol are made by us.
    fn check_source_addresses(&self, pools: &Place, faults: &mut Faults) {
        if self.server.client_bind_to_ipv4.is_empty() && self.server.client_bind_to_ipv6.is_empty() {
            return;
        }
        for (name, _) in self.pools.iter().filter(|(_, pool)| pool.proxy_protocol.is_some()) {
            faults.add(
                pools.key(name.as_str()).key("proxy_protocol"),
                "connections with this header cannot have a source address of `server.client_bind_to_ipv4` or `_ipv6`",
                "remove one of the two",
            );
        }
    }

    /// Pingora's own ceiling would end what a route goes on with.
    fn check_retries(&self, checked: &Checked, faults: &mut Faults) {
        let attempts = checked.routes.iter().map(|route| route.retry.attempts).max().unwrap_or_default();
        let ceiling = checked.server.max_retries;
        if ceiling < attempts {
            faults.add(
                Place::root().key("server").key("max_retries"),
                format!("{ceiling} attempts are fewer than the {attempts} of a route's `retry.attempts`"),
                "remove it: it is Pingora's ceiling, and `retry` of a route says what is done",
            );
        }
    }

    fn check_listeners(&self, place: &Place, faults: &mut Faults) -> Vec<listener::Spec> {
        if self.listeners.is_empty() {
            faults.add(
                place.clone(),
                "there is no listener",
                "add for example `listeners: [{ address: 0.0.0.0:8080 }]`",
            );
        }
        let mut seen = BTreeSet::new();
        let mut specs = Vec::with_capacity(self.listeners.len());
        for (index, listener) in self.listeners.iter().enumerate() {
            let place = place.index(index);
            let spec = listener.check(&place, faults);
            for address in &spec.addresses {
                let any_port = matches!(address, ListenAddress::Inet(inet) if inet.port() == 0);
                if !any_port && !seen.insert(address.clone()) {
                    faults.add(
                        place.key("address"),
                        format!("{address} is listened at already"),
                        "remove one of the two",
                    );
                }
            }
            specs.push(spec);
        }
        let addresses: usize = specs.iter().map(|spec| spec.addresses.len()).sum();
        if addresses > LISTENERS_MAX {
            let problem = format!("{addresses} listeners are more than an upgrade can hand over ({LISTENERS_MAX})");
            faults.add(place.clone(), problem, "listen at [::] instead of at single addresses");
        }
        specs
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod schema_tests;
