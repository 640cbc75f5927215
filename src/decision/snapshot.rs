//! The snapshot: everything that a request may read (routes, pools, limits). Immutable; a reload builds a new
//! one.
//!
//! A request takes one `Arc<Snapshot>` at its start and uses no other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;

use crate::base::fault::{Faults, Place};
use crate::base::timeouts::Timeouts;
use crate::base::units::{PoolName, RouteName};
use crate::cache::{self, Caches, Counters, RouteCache};
use crate::config::{Checked, RouteSpec};
use crate::filter::chain::Chains;
use crate::filter::mirror::Mirror;
use crate::filter::{Chain, SharedState, WatchedFile};
use crate::http::client_address::TrustedProxies;
use crate::http::proxy_status::Audience;
use crate::http::request_limits::RequestLimits;
use crate::http::target::Encoded;
use crate::limit::{self, Limiter};
use crate::listener::client_timeouts::ClientTimeouts;
use crate::observe::recent_requests;
use crate::pool::peer::Template;
use crate::pool::{Connectors, Pool};
use crate::retry;
use crate::routing::Table;
use crate::routing::affinity::Affinity;
use crate::routing::affinity::cookie::pool_id;
use crate::routing::split::Split;

type Pools = BTreeMap<PoolName, Arc<Pool>>;

/// The active form of a configuration.
pub struct Snapshot {
    /// The routing table.
    pub routes: Table<Arc<Route>>,
    /// The pools by name.
    pub pools: Pools,
    /// The connectors of health checks.
    connectors: Connectors,
    /// The stores of the HTTP cache, which are the same in all snapshots of a process.
    pub caches: Arc<Caches>,
    /// The global rate limit.
    pub limiter: Option<Arc<Limiter>>,
    /// Size limits of requests.
    pub request_limits: RequestLimits,
    /// Client timeouts that the proxy needs.
    pub client_timeouts: ClientTimeouts,
    /// The trusted proxies.
    pub trusted_proxies: TrustedProxies,
    /// Whether backends receive `Forwarded`.
    pub send_forwarded: bool,
    /// Which clients get `Proxy-Status`.
    pub proxy_status: Audience,
    /// The filters of all requests.
    pub filters: Chain,
    /// The filters of the listeners that have some, by the first address of the listener.
    pub listener_filters: Vec<(Arc<str>, Chain)>,
    /// The files of filters that are read again when they change.
    pub watched_files: Vec<Arc<dyn WatchedFile>>,
    /// The header fields of responses that access log lines have.
    pub logged_of_responses: Vec<HeaderName>,
    /// The settings for recent requests.
    pub recent_requests: recent_requests::Spec,
}

/// One active route.
pub struct Route {
    /// Its name, for logs.
    pub name: RouteName,
    /// The pools with their shares.
    pub targets: Split<Target>,
    /// Session affinity, if configured.
    pub sticky: Option<Arc<Affinity>>,
    /// The retry policy.
    pub retry: retry::Policy,
    /// The cache of responses, if it is on.
    pub cache: Option<Arc<RouteCache>>,
    /// The rate limit of this route.
    pub limiter: Option<Arc<Limiter>>,
    /// The largest request body in bytes.
    pub body_size: u64,
    /// Encoded characters that paths may contain; `None`: those with which no path can be that of another route.
    pub allow_encoded: Option<Encoded>,
    /// The filters of its requests.
    pub filters: Chain,
}

/// A pool as used by one route.
pub struct Target {
    /// The pool.
    pub pool: Arc<Pool>,
    /// How to connect to its backends: the route may have its own timeouts.
    pub template: Template,
    /// Its id in cookies.
    pub id: u64,
}

impl Snapshot {
    /// Builds the snapshot of a checked configuration. Nothing is started. Equal parts of `before` are reused
    /// with their state, and in changed pools the common backends keep theirs.
    ///
    /// # Errors
    /// Why it cannot be built; the configuration check rules these out.
    pub fn build(checked: &Checked, before: Option<&Self>, now: Instant) -> Result<Self, String> {
        let mut pools = BTreeMap::new();
        let connectors = before.map(|before| before.connectors.clone());
        let connectors = connectors.unwrap_or_else(|| Connectors::new(checked.server.ca_file.clone()));
        for (name, spec) in &checked.pools {
            let old = before.and_then(|before| before.pools.get(name));
            let pool = match old {
                Some(pool) if pool.spec().is_same(spec) => Arc::clone(pool),
                Some(pool) => {
                    Arc::new(Pool::build_replacement(pool, spec, &connectors, now).map_err(|e| unbuilt(name, &e))?)
                }
                None => Arc::new(Pool::build(name.clone(), spec, &connectors, now).map_err(|e| unbuilt(name, &e))?),
            };
            pools.insert(name.clone(), pool);
        }
        let mut limiters = Limiters::of(before, now);
        let sealed = sealed(before);
        let old_routes = before.into_iter().flat_map(|before| before.routes.iter());
        let filters = old_routes.map(|(_, route)| (route.name.clone(), &route.filters)).collect();
        let mut caches = RouteCaches::of(before);
        let mut routes = Vec::with_capacity(checked.routes.len());
        for spec in &checked.routes {
            routes.push((
                spec.matcher.clone(),
                Arc::new(Route::build(spec, &pools, (&mut limiters, &mut caches), (&sealed, &filters))?),
            ));
        }
        let routes = Table::build(routes)
            .map_err(|duplicates| duplicates.iter().map(ToString::to_string).collect::<String>())?;
        let mut snapshot = Self {
            routes,
            pools,
            connectors,
            caches: caches.caches,
            limiter: limiters.overall(checked.rate_limit),
            request_limits: checked.request_limits,
            client_timeouts: checked.client_timeouts,
            trusted_proxies: checked.trusted_proxies.clone(),
            send_forwarded: checked.send_forwarded,
            proxy_status: checked.proxy_status,
            filters: checked.filters.with_state_of(before.map(|before| &before.filters)),
            listener_filters: listener_filters(checked, before),
            watched_files: Vec::new(),
            logged_of_responses: checked.access_log.of_responses(),
            recent_requests: checked.recent_requests.clone(),
        };
        let names = snapshot.routes.iter().map(|(_, route)| route.name.clone()).collect();
        let mut shared = SharedState::new(now, names);
        let chains = before.into_iter().flat_map(Self::all_chains).chain(snapshot.all_chains());
        chains.flat_map(|chain| &chain.0).for_each(|item| item.filter.share_state(&mut shared));
        snapshot.watched_files = snapshot.files_of_filters();
        Ok(snapshot)
    }

    /// The files of all filters that are read again when they change, each once.
    fn files_of_filters(&self) -> Vec<Arc<dyn WatchedFile>> {
        let mut files: Vec<Arc<dyn WatchedFile>> = Vec::new();
        let mut known = HashSet::new();
        for file in self.all_chains().flat_map(|chain| &chain.0).flat_map(|item| item.filter.watched()) {
            if known.insert(Arc::as_ptr(&file).cast::<()>()) {
                files.push(file);
            }
        }
        files
    }

    /// The chains of all places.
    fn all_chains(&self) -> impl Iterator<Item = &Chain> {
        let of_listeners = self.listener_filters.iter().map(|(_, chain)| chain);
        let of_routes = self.routes.iter().map(|(_, route)| &route.filters);
        std::iter::once(&self.filters).chain(of_listeners).chain(of_routes)
    }

    /// The filters that send copies of requests, each with its place.
    pub fn mirrors(&self) -> impl Iterator<Item = (String, &Arc<Mirror>)> {
        let of_file = std::iter::once(("file".to_owned(), &self.filters));
        let of_listeners = self.listener_filters.iter().map(|(name, chain)| (format!("listener {name}"), chain));
        let of_routes = self.routes.iter().map(|(_, route)| (format!("route {}", route.name), &route.filters));
        let all = of_file.chain(of_listeners).chain(of_routes);
        all.flat_map(|(place, chain)| {
            chain.0.iter().filter_map(move |item| Some((place.clone(), item.filter.mirror()?)))
        })
    }

    /// The chains of filters of a request at the listener with this first address; `None` if it has no filter.
    #[must_use]
    pub fn chains<'a>(&'a self, listener: &str, route: Option<&'a Arc<Route>>) -> Option<Chains<'a>> {
        let of_listener = self.listener_filters.iter().find(|(known, _)| **known == *listener);
        let chains = Chains {
            file: &self.filters,
            listener: of_listener.map(|(_, chain)| chain),
            route: route.map(|route| &route.filters),
        };
        (!chains.is_empty()).then_some(chains)
    }
}

/// The chains of the listeners that have filters, with the state of those before.
fn listener_filters(checked: &Checked, before: Option<&Snapshot>) -> Vec<(Arc<str>, Chain)> {
    let with_filters = checked.listeners.iter().filter(|listener| !listener.filters.is_empty());
    let chain = |listener: &crate::config::listener::Spec| {
        let name = Arc::clone(&listener.policy.listener);
        let old = before.into_iter().flat_map(|before| &before.listener_filters).find(|(known, _)| *known == name);
        let chain = listener.filters.with_state_of(old.map(|(_, chain)| chain));
        (name, chain)
    };
    with_filters.map(chain).collect()
}

fn unbuilt(name: &PoolName, e: &pingora::Error) -> String {
    format!("pool {name}: {e}")
}

impl Route {
    /// The route of requests that l7lb itself makes to a pool.
    #[must_use]
    pub fn to_pool(pool: &Arc<Pool>) -> Self {
        let target = Target { pool: Arc::clone(pool), template: pool.template().clone(), id: 0 };
        Self {
            name: pool.name().as_str().into(),
            targets: Split::new(vec![(1, target)]).unwrap_or_else(Split::empty),
            sticky: None,
            retry: retry::Config::default().check(&Place::root(), &mut Faults::default()),
            cache: None,
            limiter: None,
            body_size: u64::MAX,
            allow_encoded: None,
            filters: Chain::default(),
        }
    }

    /// The route of copies of requests to a pool: without retries, within `limit`.
    #[must_use]
    pub fn for_copies(pool: &Arc<Pool>, limit: Duration) -> Self {
        let total = pool.template().timeouts.total.map_or(limit, |total| total.min(limit));
        let timeouts = Timeouts { total: Some(total), ..pool.template().timeouts };
        let target =
            Target { pool: Arc::clone(pool), template: Template { timeouts, ..pool.template().clone() }, id: 0 };
        let retry = retry::Config { attempts: 1, ..retry::Config::default() };
        Self {
            targets: Split::new(vec![(1, target)]).unwrap_or_else(Split::empty),
            retry: retry.check(&Place::root(), &mut Faults::default()),
            ..Self::to_pool(pool)
        }
    }

    fn build(
        spec: &RouteSpec,
        pools: &Pools,
        (limiters, caches): (&mut Limiters, &mut RouteCaches),
        (sealed, filters): (&HashMap<RouteName, Arc<Affinity>>, &HashMap<RouteName, &Chain>),
    ) -> Result<Self, String> {
        let mut shares = Vec::with_capacity(spec.targets.len());
        for target in &spec.targets {
            let Some(pool) = pools.get(&target.pool) else {
                return Err(format!("route {}: no pool {}", spec.name, target.pool));
            };
            let template = Template { timeouts: target.timeouts, ..pool.template().clone() };
            let (pool, id) = (Arc::clone(pool), pool_id(target.pool.as_str()));
            shares.push((target.weight, Target { pool, template, id }));
        }
        let targets = match shares.is_empty() {
            true => Split::empty(),
            false => Split::new(shares).ok_or_else(|| format!("route {}: no pool has a share", spec.name))?,
        };
        Ok(Self {
            name: spec.name.clone(),
            targets,
            // The same key, so that existing cookies stay valid.
            sticky: spec.sticky.as_ref().map(|new| match sealed.get(&spec.name) {
                Some(old) if old.config == new.config => Arc::clone(old),
                _ => Arc::clone(new),
            }),
            retry: spec.retry.clone(),
            cache: spec.cache.as_ref().map(|cache| caches.of_route(&spec.name, cache)),
            limiter: limiters.of_route(&spec.name, spec.rate_limit),
            body_size: spec.body_size,
            allow_encoded: spec.allow_encoded,
            filters: spec.filters.with_state_of(filters.get(&spec.name).copied()),
        })
    }
}

/// The affinity settings with keys of this process, which are random for each checked configuration.
fn sealed(before: Option<&Snapshot>) -> HashMap<RouteName, Arc<Affinity>> {
    let routes = before.into_iter().flat_map(|before| before.routes.iter());
    let sticky = routes.filter_map(|(_, route)| Some((route.name.clone(), Arc::clone(route.sticky.as_ref()?))));
    sticky.filter(|(_, sticky)| sticky.config.key.is_none()).collect()
}

/// The caches, and the counters of the existing routes.
struct RouteCaches {
    caches: Arc<Caches>,
    counters: HashMap<RouteName, Arc<Counters>>,
}

impl RouteCaches {
    fn of(before: Option<&Snapshot>) -> Self {
        let routes = before.into_iter().flat_map(|before| before.routes.iter());
        let counters =
            routes.filter_map(|(_, route)| Some((route.name.clone(), Arc::clone(&route.cache.as_ref()?.counters))));
        Self {
            caches: before.map(|before| Arc::clone(&before.caches)).unwrap_or_default(),
            counters: counters.collect(),
        }
    }

    fn of_route(&mut self, name: &RouteName, spec: &cache::Spec) -> Arc<RouteCache> {
        let counters = self.counters.remove(name).unwrap_or_default();
        Arc::new(RouteCache::new(name.clone(), spec.clone(), counters, Arc::clone(&self.caches)))
    }
}

/// The existing limiters; an unchanged limit keeps its counts.
struct Limiters {
    overall: Option<Arc<Limiter>>,
    routes: HashMap<RouteName, Arc<Limiter>>,
    now: Instant,
}

impl Limiters {
    fn of(before: Option<&Snapshot>, now: Instant) -> Self {
        let routes = before.into_iter().flat_map(|before| before.routes.iter());
        let routes = routes.filter_map(|(_, route)| Some((route.name.clone(), Arc::clone(route.limiter.as_ref()?))));
        Self { overall: before.and_then(|before| before.limiter.clone()), routes: routes.collect(), now }
    }

    fn overall(&mut self, spec: Option<limit::Spec>) -> Option<Arc<Limiter>> {
        let before = self.overall.take();
        self.same_or_new(before, spec)
    }

    /// Removes the entry, because two routes with the same name do not share a limiter.
    fn of_route(&mut self, name: &RouteName, spec: Option<limit::Spec>) -> Option<Arc<Limiter>> {
        let before = self.routes.remove(name);
        self.same_or_new(before, spec)
    }

    fn same_or_new(&self, before: Option<Arc<Limiter>>, spec: Option<limit::Spec>) -> Option<Arc<Limiter>> {
        let spec = spec?;
        let same = before.filter(|limiter| *limiter.spec() == spec);
        Some(same.unwrap_or_else(|| Arc::new(Limiter::new(spec, self.now))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const FILE: &str = "listeners: [{ address: 0.0.0.0:8080 }]\n\
        rate_limit: { type: fixed_window, limit: 5, window: 1h }\n\
        pools:\n  \
          a: { health_check: { type: none }, backends: [{ address: 127.0.0.1:1 }, { address: 127.0.0.1:2 }] }\n  \
          b: { backends: [{ address: 127.0.0.1:3 }] }\n\
        routes:\n  \
          - { path: /a, pool: a, rate_limit: { type: token_bucket, limit: 1, window: 1h } }\n  \
          - { path: /b, pool: b, rate_limit: { type: token_bucket, limit: 2, window: 1h } }\n";

    fn build(text: &str, before: Option<&Snapshot>) -> Snapshot {
        let checked = load::parse(text, "f", &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
        Snapshot::build(&checked, before, Instant::now()).unwrap()
    }

    fn kept_pools(before: &Snapshot, after: &Snapshot) -> Vec<String> {
        let kept = |(name, pool): (&PoolName, &Arc<Pool>)| {
            before.pools.get(name).is_some_and(|old| Arc::ptr_eq(old, pool)).then(|| name.to_string())
        };
        after.pools.iter().filter_map(kept).collect()
    }

    /// The routes that keep their limiter.
    fn kept_limits(before: &Snapshot, after: &Snapshot) -> Vec<String> {
        let limiters = |snapshot: &Snapshot| -> HashMap<String, Arc<Limiter>> {
            let named =
                snapshot.routes.iter().map(|(_, route)| (route.name.to_string(), route.limiter.clone().unwrap()));
            named.chain([("overall".to_owned(), snapshot.limiter.clone().unwrap())]).collect()
        };
        let (before, after) = (limiters(before), limiters(after));
        let kept = after.iter().filter(|(name, now)| before.get(*name).is_some_and(|old| Arc::ptr_eq(old, now)));
        let mut kept: Vec<String> = kept.map(|(name, _)| name.clone()).collect();
        kept.sort();
        kept
    }

    #[test]
    fn unchanged_configuration_reuses_every_pool_and_limit() {
        let before = build(FILE, None);
        let after = build(&format!("# a comment\n{FILE}"), Some(&before));
        assert_eq!(kept_pools(&before, &after), ["a", "b"]);
        assert_eq!(kept_limits(&before, &after), ["*/a", "*/b", "overall"]);
    }

    #[test]
    fn only_changed_parts_are_built_again() {
        let before = build(FILE, None);
        let changed = FILE.replace("127.0.0.1:3", "127.0.0.1:4").replace("limit: 2", "limit: 3");
        let after = build(&changed, Some(&before));
        assert_eq!(kept_pools(&before, &after), ["a"]);
        assert_eq!(kept_limits(&before, &after), ["*/a", "overall"]);
        let moved = build(&FILE.replace("path: /a", "path: /elsewhere"), Some(&before));
        assert_eq!(kept_limits(&before, &moved), ["*/b", "overall"]);
        assert_eq!(kept_pools(&before, &moved), ["a", "b"]);
    }

    #[test]
    fn affinity_key_survives_unless_the_sticky_block_changes() {
        let sticky = |keys: &str| FILE.replace("pool: a, ", &format!("pool: a, sticky: {{ {keys} }}, "));
        let seal = |snapshot: &Snapshot| snapshot.routes.iter().find_map(|(_, route)| route.sticky.clone()).unwrap();
        let before = build(&sticky("cookie: {}"), None);
        let after = build(&sticky("cookie: {}").replace("127.0.0.1:2", "127.0.0.1:9"), Some(&before));
        assert!(Arc::ptr_eq(&seal(&before), &seal(&after)), "existing cookies stay valid");
        let other = build(&sticky("cookie: { name: other }"), Some(&after));
        assert!(!Arc::ptr_eq(&seal(&after), &seal(&other)));
    }

    #[test]
    fn pool_is_replaced_when_its_files_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let renew = || {
            let (pem, _) = crate::tls::development::certificate(&["localhost".to_owned()]).unwrap();
            std::fs::write(&file, pem.certificate).unwrap();
        };
        let tls = format!("b: {{ tls: {{ server_name: localhost, ca: '{}' }}, ", file.display());
        let text = FILE.replace("b: { ", &tls);
        renew();
        let before = build(&text, None);
        assert_eq!(kept_pools(&before, &build(&text, Some(&before))), ["a", "b"]);
        renew();
        assert_eq!(kept_pools(&before, &build(&text, Some(&before))), ["a"]);
    }
}
