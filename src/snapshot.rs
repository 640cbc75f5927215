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
use crate::route::Table;
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
    /// The pool that answers.
    pub pool: Arc<Pool>,
    /// How the pool's backends are reached for this route: its timeouts may be the route's own.
    pub template: Template,
    /// The limit of this route alone.
    pub limiter: Option<Arc<Limiter>>,
    /// Bytes of the largest body.
    pub body_size: u64,
    /// Escapes that paths may have; a path with another is refused.
    pub allow_encoded: Encoded,
}

impl Snapshot {
    /// Builds what a checked configuration describes. Nothing runs yet.
    ///
    /// # Errors
    /// In words; a checked configuration rules them out.
    pub fn build(checked: &Checked, now: Instant) -> Result<Self, String> {
        let mut pools = BTreeMap::new();
        for (name, spec) in &checked.pools {
            let pool = Pool::build(name.clone(), spec).map_err(|e| format!("pool {name}: {e}"))?;
            pools.insert(name.clone(), Arc::new(pool));
        }
        let mut routes = Vec::with_capacity(checked.routes.len());
        for spec in &checked.routes {
            routes.push((spec.matcher.clone(), Arc::new(Route::build(spec, &pools, now)?)));
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
    fn build(spec: &RouteSpec, pools: &BTreeMap<PoolName, Arc<Pool>>, now: Instant) -> Result<Self, String> {
        let pool = pools.get(&spec.pool).ok_or_else(|| format!("route {}: no pool {}", spec.name, spec.pool))?;
        Ok(Self {
            name: spec.name.clone(),
            pool: Arc::clone(pool),
            template: Template { timeouts: spec.timeouts, ..pool.template().clone() },
            limiter: limiter(spec.rate_limit, now),
            body_size: spec.body_size,
            allow_encoded: spec.allow_encoded,
        })
    }
}

fn limiter(spec: Option<limit::Spec>, now: Instant) -> Option<Arc<Limiter>> {
    spec.map(|spec| Arc::new(Limiter::new(spec, now)))
}
