//! The configuration and its checks.
//!
//! Three stages, each built only from the one before: [`Config`] is the parsed file, [`Checked`] is consistent,
//! and [`crate::decision::snapshot::Snapshot`] is active. `load` and `check` use no network and bind nothing,
//! so `l7lb check` is safe to run anywhere.
//!
//! - [`load`]: from a file to a [`Checked`], or to all its faults.
//! - [`diagnostic`], [`positions`]: messages with line and column; [`warnings`]: valid but unwise settings;
//!   [`schema`]: the JSON Schema for editors.
//! - [`redacted`]: the configuration without possible secrets.
//! - [`admin`], [`metrics`], [`server`], [`listener`], [`routes`], [`shares`], [`expectation`], [`reload`]: blocks that belong to no
//!   other module. `short_forms`: what may be written shorter.
//! - `references`: unknown names in a file with other faults. `expected`, `foreign_terms`, `renamed`: hints.
//! - `rewrites`, `filter_timeouts`, `mirrors`: the filters `rewrite`, `timeout` and `mirror` of all chains that a request
//!   passes.

pub mod admin;
pub mod diagnostic;
pub mod expectation;
mod environment;
mod expected;
mod filter_timeouts;
mod foreign_terms;
pub mod listener;
pub mod load;
pub mod metrics;
mod mirrors;
pub mod positions;
pub mod reload;
mod references;
mod renamed;
mod rewrites;
pub mod routes;
pub mod schema;
pub mod server;
pub mod shares;
mod short_forms;
pub mod redacted;
mod tree;
pub mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use pingora_core::server::configuration::ServerConf;
use schemars::JsonSchema;
use serde::Deserialize;

pub use routes::RouteSpec;

use crate::base::fault::{Fault, Faults, Place};
use crate::base::units::{Period, PoolName};
use crate::cache;
use crate::filter::config::Surroundings;
use crate::filter::countries::CountryFiles;
use crate::filter::{self, Chain};
use crate::http::client_address::TrustedProxies;
use crate::http::proxy_status;
use crate::http::request_limits::{self, RequestLimits};
use crate::limit;
use crate::listener::address::ListenAddress;
use crate::listener::client_timeouts::{self, ClientTimeouts};
use crate::listener::connection_limits::{self, ConnectionLimits};
use crate::observe::access_log;
use crate::observe::recent_requests;
use crate::pool;
use crate::tls::system_authorities;

/// The whole file, not checked yet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Config {
    /// Server settings of Pingora.
    pub server: server::Config,
    /// The listeners.
    pub listeners: Vec<listener::Config>,
    /// The control API at TCP addresses; without it there is only the control socket.
    pub admin: Option<admin::Config>,
    /// The addresses at which Prometheus reads the metrics; without it, the control API serves them.
    pub metrics: Option<metrics::Config>,
    /// The trusted proxies in front of l7lb, whose `X-Forwarded-For` or `Forwarded` is used.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Whether backends receive `Forwarded` (RFC 7239) too.
    pub send_forwarded: bool,
    /// Which clients get `Proxy-Status` (RFC 9209) with the cause of a response by l7lb itself.
    pub proxy_status: proxy_status::Audience,
    /// The rate limit of each client over all requests.
    pub rate_limit: limit::Config,
    /// Size limits of requests.
    pub request_limits: request_limits::Config,
    /// Timeouts of clients.
    pub client_timeouts: client_timeouts::Config,
    /// Limits of client connections.
    pub connection_limits: connection_limits::Config,
    /// The access log.
    pub access_log: access_log::Config,
    /// When the file is reloaded.
    pub reload: reload::Config,
    /// The memory of recent requests, for `l7lb plan`.
    pub recent_requests: recent_requests::Config,
    /// The stores of the HTTP cache.
    pub cache: cache::StoresConfig,
    /// How long connections are still accepted after a graceful shutdown has started. Default: 5 s if a
    /// listener has `health.ready`, otherwise 0 s, because nothing would notice the shutdown.
    pub drain_delay: Option<Period>,
    /// Pools of backends by name.
    pub pools: BTreeMap<PoolName, pool::Config>,
    /// Filters of all requests.
    pub filters: Vec<filter::config::Config>,
    /// Chains of filters by name, for use in `filters` lists.
    pub chains: BTreeMap<String, Vec<filter::config::Config>>,
    /// The routes: which requests go to which pool.
    pub routes: Vec<routes::Config>,
    /// Configuration tests, run by `l7lb check`.
    pub tests: Vec<expectation::Config>,
}

/// A consistent configuration that can be built.
pub struct Checked {
    /// The configuration, by which two of them are compared.
    pub written: Config,
    /// Server settings of Pingora.
    pub server: ServerConf,
    /// What serves the requests.
    pub engine: server::EngineKind,
    /// The state file; `None` if it is off.
    pub state_file: Option<PathBuf>,
    /// The listeners; at least one.
    pub listeners: Vec<listener::Spec>,
    /// The control API at TCP addresses.
    pub admin: Option<admin::Spec>,
    /// The addresses at which Prometheus reads the metrics.
    pub metrics: Option<metrics::Spec>,
    /// The trusted proxies in front of l7lb.
    pub trusted_proxies: TrustedProxies,
    /// Whether backends receive `Forwarded`.
    pub send_forwarded: bool,
    /// Which clients get `Proxy-Status`.
    pub proxy_status: proxy_status::Audience,
    /// The global rate limit; `None` if it is off.
    pub rate_limit: Option<limit::Spec>,
    /// Size limits of requests.
    pub request_limits: RequestLimits,
    /// Timeouts of clients.
    pub client_timeouts: ClientTimeouts,
    /// Limits of client connections.
    pub connection_limits: ConnectionLimits,
    /// The access log.
    pub access_log: access_log::Spec,
    /// The memory of recent requests.
    pub recent_requests: recent_requests::Spec,
    /// The stores of the HTTP cache.
    pub cache: cache::StoresConfig,
    /// How long connections are still accepted after a graceful shutdown has started.
    pub drain_delay: Duration,
    /// Pools by name.
    pub pools: BTreeMap<PoolName, pool::Spec>,
    /// The filters of all requests.
    pub filters: Chain,
    /// The routes; their pools exist.
    pub routes: Vec<RouteSpec>,
    /// Configuration tests.
    pub tests: Vec<expectation::Config>,
}

impl Checked {
    /// Checks the names of limits in all chains.
    fn check_limit_names(&self, faults: &mut Faults) {
        let root = Place::root();
        let place = |list: &str, index: usize| root.key(list).index(index).key("filters");
        let listeners = self.listeners.iter().enumerate();
        let listeners = listeners.map(|(index, listener)| (place("listeners", index), &listener.filters));
        let routes = self.routes.iter().enumerate().map(|(index, route)| (place("routes", index), &route.filters));
        let file = std::iter::once((root.key("filters"), &self.filters));
        filter::rate_limit::check_names(file.chain(listeners).chain(routes), faults);
    }

    /// Whether there are filters.
    pub fn has_filters(&self) -> bool {
        let listeners = self.listeners.iter().map(|listener| &listener.filters);
        let chains = self.routes.iter().map(|route| &route.filters).chain(listeners);
        !self.filters.is_empty() || chains.into_iter().any(|chain| !chain.is_empty())
    }

    /// The stores that the routes use.
    pub fn used_stores(&self) -> BTreeSet<cache::StoreKind> {
        self.routes.iter().filter_map(|route| Some(route.cache.as_ref()?.store)).collect()
    }
}

/// The time in which a readiness check in front of l7lb notices a shutdown.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// The largest number of listeners in a graceful upgrade.
pub const LISTENERS_MAX: usize = 1024;

impl Config {
    /// Checks the configuration.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check(&self) -> Result<Checked, Vec<Fault>> {
        let mut faults = Faults::default();
        let root = Place::root();
        let request_limits = self.request_limits.check(&root.key("request_limits"), &mut faults);
        let mut pools = self.check_pools(&root.key("pools"), &mut faults);
        self.reload.check(&self.recent_requests, &root.key("reload"), &mut faults);
        self.check_source_addresses(&root.key("pools"), &mut faults);
        self.check_system_authorities(&root.key("pools"), &mut faults);
        let server = self.server.check(&root.key("server"), &mut faults);
        let names: Vec<&PoolName> = self.pools.keys().collect();
        let country_files = CountryFiles::default();
        let around = Surroundings {
            pools: &names,
            lacks_subrequests: self.server.engine != server::EngineKind::Own,
            country_files: Some(&country_files),
            chains: Some(&self.chains),
        };
        filter::config::check_chains(&self.chains, &around, &mut faults);
        let listeners = self.check_listeners(&around, &root.key("listeners"), &mut faults);
        let own = own_addresses(&listeners);
        pools.values_mut().flat_map(|pool| &mut pool.sources).for_each(|source| source.set_own_addresses(&own));
        let (admin, metrics) = self.check_control(&listeners, &mut faults);
        let checked = Checked {
            written: self.clone(),
            state_file: self.server.state_file(&server.upgrade_sock),
            server,
            engine: self.server.engine,
            listeners,
            admin,
            metrics,
            trusted_proxies: TrustedProxies::new(self.trusted_proxies.clone()),
            send_forwarded: self.send_forwarded,
            proxy_status: self.proxy_status,
            rate_limit: self.rate_limit.check(&root.key("rate_limit"), &mut faults),
            request_limits,
            client_timeouts: self.client_timeouts.check(&root.key("client_timeouts"), &mut faults),
            connection_limits: self.connection_limits.check(&root.key("connection_limits"), &mut faults),
            access_log: self.access_log.check(&root.key("access_log"), &mut faults),
            cache: self.cache.clone(),
            drain_delay: self.drain_delay(),
            recent_requests: self.recent_requests.check(&root.key("recent_requests"), &mut faults),
            filters: filter::config::check(&self.filters, &root.key("filters"), &around, &mut faults),
            routes: routes::check(&self.routes, &pools, (request_limits, &around), &mut faults),
            pools,
            tests: self.tests.clone(),
        };
        self.cache.check(&root.key("cache"), &mut faults);
        self.check_cache(&checked, &mut faults);
        if faults.is_empty() {
            // With other faults, routes may be missing, and positions would be wrong.
            check_chains_of_requests(&checked, &mut faults);
        }
        self.check_retries(&checked, &mut faults);
        checked.check_limit_names(&mut faults);
        for (index, test) in self.tests.iter().enumerate() {
            test.check(&root.key("tests").index(index), &checked, &mut faults);
        }
        if faults.is_empty() { Ok(checked) } else { Err(faults.into_vec()) }
    }

    fn check_pools(&self, place: &Place, faults: &mut Faults) -> BTreeMap<PoolName, pool::Spec> {
        let check =
            |(name, pool): (&PoolName, &pool::Config)| (name.clone(), pool.check(&place.key(name.as_str()), faults));
        let mut pools: BTreeMap<PoolName, pool::Spec> = self.pools.iter().map(check).collect();
        pools.values_mut().for_each(|pool| pool.local_zone.clone_from(&self.server.zone));
        pools
    }

    /// The admin API, and the addresses of the metrics.
    fn check_control(
        &self,
        listeners: &[listener::Spec],
        faults: &mut Faults,
    ) -> (Option<admin::Spec>, Option<metrics::Spec>) {
        let root = Place::root();
        let admin = self.admin.as_ref().and_then(|admin| admin.check(&root.key("admin"), faults));
        if let Some(admin) = &admin {
            check_admin_addresses(admin, listeners, &root.key("admin").key("listen"), faults);
        }
        let metrics = self.metrics.as_ref();
        let metrics = metrics.map(|it| it.check((listeners, admin.as_ref()), &root.key("metrics"), faults));
        (admin, metrics)
    }

    fn drain_delay(&self) -> Duration {
        let seen = self.listeners.iter().any(|listener| listener.health.as_ref().is_some_and(|h| h.ready.is_some()));
        let default = if seen { DRAIN_DELAY } else { Duration::ZERO };
        self.drain_delay.map_or(default, |Period(delay)| delay)
    }

    /// Pingora sets the source address of connections that it makes; connections with a PROXY protocol header
    /// are made by l7lb.
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

    /// Pools whose backends are verified against the authorities of the system need them.
    fn check_system_authorities(&self, pools: &Place, faults: &mut Faults) {
        let needs = |pool: &pool::Config| pool.tls.as_ref().is_some_and(|tls| tls.ca.is_none());
        if self.server.ca_file.is_some() || !self.pools.values().any(needs) {
            return;
        }
        let Err(reason) = system_authorities::check() else { return };
        for (name, _) in self.pools.iter().filter(|(_, pool)| needs(pool)) {
            faults.add(
                pools.key(name.as_str()).key("tls"),
                format!("the certificate authorities of the system cannot be used: {reason}"),
                "install the package ca-certificates, or name a PEM file with `ca`",
            );
        }
    }

    /// Only the own engine has the cache and the filter `buffer`.
    fn check_cache(&self, checked: &Checked, faults: &mut Faults) {
        if checked.engine == server::EngineKind::Own {
            return;
        }
        let chains = checked.listeners.iter().map(|listener| &listener.filters);
        let chains = chains.chain(checked.routes.iter().map(|route| &route.filters)).chain([&checked.filters]);
        if chains.flat_map(|chain| &chain.0).any(|item| item.name == filter::buffer::NAME) {
            let problem = "`server.engine: pingora` cannot run the filter `buffer`";
            faults.add(Place::root().key("server").key("engine"), problem, "remove `server.engine`, or the filter");
        }
        for (index, _) in self.routes.iter().enumerate().filter(|(_, route)| route.cache.is_some()) {
            let place = Place::root().key("routes").index(index).key("cache");
            faults.add(place, "`server.engine: pingora` has no cache", "remove `server.engine`, or the cache");
        }
    }

    /// Pingora's own limit must not be lower than the attempts of a route.
    fn check_retries(&self, checked: &Checked, faults: &mut Faults) {
        let attempts = checked.routes.iter().map(|route| route.retry.attempts).max().unwrap_or_default();
        let ceiling = checked.server.max_retries;
        if ceiling < attempts {
            faults.add(
                Place::root().key("server").key("max_retries"),
                format!("{ceiling} is lower than `retry.attempts` of a route, which is {attempts}"),
                "remove it: it is Pingora's upper limit; `retry` of a route sets the attempts",
            );
        }
    }

    fn check_listeners(&self, around: &Surroundings<'_>, place: &Place, faults: &mut Faults) -> Vec<listener::Spec> {
        if self.listeners.is_empty() {
            faults.add(place.clone(), "there is no listener", "add for example `listeners: 0.0.0.0:8080`");
        }
        let mut seen = BTreeSet::new();
        let mut specs = Vec::with_capacity(self.listeners.len());
        for (index, listener) in self.listeners.iter().enumerate() {
            let place = place.index(index);
            let spec = listener.check(&place, around, faults);
            for address in &spec.addresses {
                let any_port = matches!(address, ListenAddress::Inet(inet) if inet.port() == 0);
                if !any_port && !seen.insert(address.clone()) {
                    faults.add(place.key("address"), format!("{address} is listed twice"), "remove one of the two");
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

/// Checks the filters of all chains that a request may pass together.
fn check_chains_of_requests(checked: &Checked, faults: &mut Faults) {
    rewrites::check(checked, faults);
    filter_timeouts::check(checked, faults);
    mirrors::check(checked, faults);
}

/// The addresses at which l7lb listens, which no source of backends may name.
fn own_addresses(listeners: &[listener::Spec]) -> Arc<[SocketAddr]> {
    let addresses = listeners.iter().flat_map(|listener| &listener.addresses);
    let inet = |address: &ListenAddress| match address {
        ListenAddress::Inet(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    };
    addresses.filter_map(inet).collect()
}

/// Reports addresses of the admin API that a listener has, too.
fn check_admin_addresses(admin: &admin::Spec, listeners: &[listener::Spec], place: &Place, faults: &mut Faults) {
    let taken: BTreeSet<&ListenAddress> = listeners.iter().flat_map(|listener| &listener.addresses).collect();
    for address in &admin.listen {
        if address.port() != 0 && taken.contains(&ListenAddress::Inet(*address)) {
            faults.add(place.clone(), format!("{address} is the address of a listener"), "use another port");
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod text_tests;
