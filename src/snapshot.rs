//! Everything that a request may read: routes, pools, limits. Immutable; a change makes a new one.
//!
//! A request takes one `Arc<Snapshot>` when it begins and never sees another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::client_timeouts::ClientTimeouts;
use crate::config::{Checked, RouteSpec};
use crate::limit::{self, Limiter};
use crate::net::TrustedProxies;
use crate::pool::Pool;
use crate::pool::peer::Template;
use crate::request_limits::RequestLimits;
use crate::retry;
use crate::route::Table;
use crate::split::Split;
use crate::sticky::Sticky;
use crate::sticky::ticket::pool_id;
use crate::target::Encoded;
use crate::units::{PoolName, RouteName};

/// The live form of a configuration.
pub struct Snapshot {
    /// What goes where.
    pub routes: Table<Arc<Route>>,
    /// The pools by name.
    pub pools: BTreeMap<PoolName, Arc<Pool>>,
    /// The limit over everything.
    pub limiter: Option<Arc<Limiter>>,
    /// How large requests may be.
    pub request_limits: RequestLimits,
    /// How long clients may take, where requests have to know.
    pub client_timeouts: ClientTimeouts,
    /// The proxies in front of us.
    pub trusted_proxies: TrustedProxies,
}

/// One live route.
pub struct Route {
    /// Its name, for logs.
    pub name: RouteName,
    /// The pools that answer, by their shares.
    pub targets: Split<Target>,
    /// Who is served by the same backend again; everybody by any, where there is nothing.
    pub sticky: Option<Arc<Sticky>>,
    /// Which failures are tried again elsewhere.
    pub retry: retry::Policy,
    /// The limit of this route alone.
    pub limiter: Option<Arc<Limiter>>,
    /// Bytes of the largest body.
    pub body_size: u64,
    /// Escapes that paths may have; a path with another is refused.
    pub allow_encoded: Encoded,
}

/// A pool, as one route has it.
pub struct Target {
    /// The pool.
    pub pool: Arc<Pool>,
    /// How its backends are reached for this route: its timeouts may be the route's own.
    pub template: Template,
    /// The pool's retries, shared by all routes to it.
    pub budget: Arc<retry::Budget>,
    /// What cookies call it.
    pub id: u64,
}

impl Snapshot {
    /// Builds what a checked configuration describes. Nothing runs yet.
    ///
    /// # Errors
    /// In words; a checked configuration rules them out.
    pub fn build(checked: &Checked, now: Instant) -> Result<Self, String> {
        let mut pools = BTreeMap::new();
        let mut budgets = BTreeMap::new();
        for (name, spec) in &checked.pools {
            let pool = Pool::build(name.clone(), spec).map_err(|e| format!("pool {name}: {e}"))?;
            pools.insert(name.clone(), Arc::new(pool));
            budgets.insert(name.clone(), Arc::new(retry::Budget::new(now)));
        }
        let mut routes = Vec::with_capacity(checked.routes.len());
        for spec in &checked.routes {
            routes.push((spec.matcher.clone(), Arc::new(Route::build(spec, &pools, &budgets, now)?)));
        }
        let routes = Table::build(routes)
            .map_err(|duplicates| duplicates.iter().map(ToString::to_string).collect::<String>())?;
        Ok(Self {
            routes,
            pools,
            limiter: limiter(checked.rate_limit, now),
            request_limits: checked.request_limits,
            client_timeouts: checked.client_timeouts,
            trusted_proxies: checked.trusted_proxies.clone(),
        })
    }
}

impl Route {
    fn build(
        spec: &RouteSpec,
        pools: &BTreeMap<PoolName, Arc<Pool>>,
        budgets: &BTreeMap<PoolName, Arc<retry::Budget>>,
        now: Instant,
    ) -> Result<Self, String> {
        let mut shares = Vec::with_capacity(spec.targets.len());
        for target in &spec.targets {
            let (Some(pool), Some(budget)) = (pools.get(&target.pool), budgets.get(&target.pool)) else {
                return Err(format!("route {}: no pool {}", spec.name, target.pool));
            };
            let template = Template { timeouts: target.timeouts, ..pool.template().clone() };
            let (pool, budget, id) = (Arc::clone(pool), Arc::clone(budget), pool_id(target.pool.as_str()));
            shares.push((target.weight, Target { pool, template, budget, id }));
        }
        let targets = Split::new(shares).ok_or_else(|| format!("route {}: no pool takes anything", spec.name))?;
        Ok(Self {
            name: spec.name.clone(),
            targets,
            sticky: spec.sticky.clone(),
            retry: spec.retry.clone(),
            limiter: limiter(spec.rate_limit, now),
            body_size: spec.body_size,
            allow_encoded: spec.allow_encoded,
        })
    }
}

fn limiter(spec: Option<limit::Spec>, now: Instant) -> Option<Arc<Limiter>> {
    spec.map(|spec| Arc::new(Limiter::new(spec, now)))
}
