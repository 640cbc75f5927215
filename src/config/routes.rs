//! The `routes:` list: which requests go to which pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::shares::Shares;
use crate::base::fault::{Faults, Place};
use crate::base::timeouts::{Timeouts, TimeoutsConfig};
use crate::base::units::{PoolName, RouteName, Size};
use crate::cache;
use crate::filter::{self, Chain};
use crate::http::request_limits::RequestLimits;
use crate::http::target::{self, Encoded};
use crate::limit;
use crate::pool;
use crate::pool::peer::Protocol;
use crate::retry;
use crate::routing::affinity::cookie::ProcessKey;
use crate::routing::affinity::{self, Affinity, AffinityMethod};
use crate::routing::condition_config::{self, Given};
use crate::routing::{HostPattern, Matcher, Methods, PathPattern, Table};

/// Configuration of a route.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name in logs; default: the text of the matcher.
    #[serde(default)]
    pub name: Option<RouteName>,
    /// The path prefix, by whole segments.
    pub path: String,
    /// Whether only the exact path matches.
    #[serde(default)]
    pub exact: bool,
    /// The host, exact or `*.example.com`; default: any.
    #[serde(default)]
    pub host: Option<String>,
    /// The methods; default: any.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// Conditions on header fields, by name. A route with conditions comes before those of the same host and path without.
    #[serde(default)]
    pub headers: BTreeMap<String, condition_config::Config>,
    /// Conditions on query parameters, by name.
    #[serde(default)]
    pub query: BTreeMap<String, condition_config::Config>,
    /// Conditions on cookies, by name.
    #[serde(default)]
    pub cookies: BTreeMap<String, condition_config::Config>,
    /// The networks of clients; default: all.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub clients: Vec<IpNet>,
    /// The networks of clients that do not match.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub except_clients: Vec<IpNet>,
    /// The order among routes with conditions of the same host and path: the highest comes first; default: 0.
    #[serde(default)]
    pub priority: Option<u16>,
    /// The pool, or several pools with their shares. Required, unless a filter responds.
    #[serde(default)]
    pub pool: Option<Shares>,
    /// Filters of the requests on this route.
    #[serde(default)]
    pub filters: Vec<filter::config::Config>,
    /// Session affinity.
    #[serde(default)]
    pub sticky: Option<affinity::Config>,
    /// Retries on other backends.
    #[serde(default)]
    pub retry: retry::Config,
    /// The cache of responses.
    #[serde(default)]
    pub cache: Option<cache::Config>,
    /// A rate limit of this route, counted separately from the global one.
    #[serde(default)]
    pub rate_limit: limit::Config,
    /// Timeouts that differ from those of the pool.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// The largest request body, if it differs from `request_limits.body_size`.
    #[serde(default)]
    pub body_size: Option<Size>,
    /// Percent-encoded characters that paths may contain; others are rejected. Default: slash and backslash, unless the
    /// decoded path would match another route.
    #[serde(default)]
    pub allow_encoded: Option<Vec<EncodedCharacter>>,
}

/// A percent-encoded character that backends interpret differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedCharacter {
    /// `%2F`.
    Slash,
    /// `%5C`.
    Backslash,
    /// `%00`.
    Nul,
}

/// A checked route.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its name.
    pub name: RouteName,
    /// What it matches.
    pub matcher: Matcher,
    /// The pools.
    pub targets: Vec<TargetSpec>,
    /// Session affinity.
    pub sticky: Option<Arc<Affinity>>,
    /// The retry policy.
    pub retry: retry::Policy,
    /// The cache of responses, if it is on.
    pub cache: Option<cache::Spec>,
    /// The rate limit of the route.
    pub rate_limit: Option<limit::Spec>,
    /// The largest request body in bytes.
    pub body_size: u64,
    /// Encoded characters that paths may contain; see [`Encoded::permits`]. `None`: those with which no path can be that
    /// of another route.
    pub allow_encoded: Option<Encoded>,
    /// The filters of its requests.
    pub filters: Chain,
}

/// One of the pools of a route, checked.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    /// The pool.
    pub pool: PoolName,
    /// Its share, relative to the others.
    pub weight: u32,
    /// The timeouts.
    pub timeouts: Timeouts,
}

/// Checks the routes against each other and against the pools.
pub fn check(
    routes: &[Config],
    pools: &BTreeMap<PoolName, pool::Spec>,
    (limits, filters): (RequestLimits, &filter::config::Surroundings<'_>),
    faults: &mut Faults,
) -> Vec<RouteSpec> {
    let place = Place::root().key("routes");
    if routes.is_empty() {
        faults.add(place.clone(), "there is no route", "add for example `routes: [{ path: /, pool: NAME }]`");
    }
    let own = match ProcessKey::random() {
        Ok(own) => own,
        Err(problem) => {
            faults.add(place, problem, "");
            return Vec::new();
        }
    };
    let around = Surroundings { pools, limits, own: &own, filters };
    let check = |(index, route): (usize, &Config)| Some((index, route.check(&place.index(index), &around, faults)?));
    let specs: Vec<(usize, RouteSpec)> = routes.iter().enumerate().filter_map(check).collect();
    check_cookies(&specs, &place, faults);
    if let Err(duplicates) = Table::build(specs.iter().map(|(index, spec)| (spec.matcher.clone(), *index))) {
        for duplicate in duplicates {
            let index_of = |position: usize| specs.get(position).map_or(position, |(index, _)| *index);
            let (first, matcher) = (index_of(duplicate.first), duplicate.matcher);
            let (problem, hint) = if duplicate.partial {
                let problem = format!("a request may match both this route ({matcher}) and routes[{first}]");
                (problem, "give one a higher `priority`, or conditions that exclude each other")
            } else {
                let problem = format!("matches the same requests as routes[{first}] ({matcher})");
                (problem, "remove one, or give them different hosts, paths, methods or conditions")
            };
            faults.add(place.index(index_of(duplicate.second)).key("path"), problem, hint);
        }
    }
    specs.into_iter().map(|(_, spec)| spec).collect()
}

/// What a route is checked against.
struct Surroundings<'a> {
    pools: &'a BTreeMap<PoolName, pool::Spec>,
    limits: RequestLimits,
    own: &'a ProcessKey,
    filters: &'a filter::config::Surroundings<'a>,
}

/// Two routes of one host with the same cookie name for different pools would overwrite each other's cookie.
fn check_cookies(specs: &[(usize, RouteSpec)], place: &Place, faults: &mut Faults) {
    for (position, (index, second)) in specs.iter().enumerate() {
        let cookie = second.cookie();
        let clash = specs.iter().take(position).find(|(_, first)| {
            cookie.is_some()
                && first.cookie() == cookie
                && first.matcher.host == second.matcher.host
                && !first.targets.iter().map(|target| &target.pool).eq(second.targets.iter().map(|target| &target.pool))
        });
        if let (Some((first, _)), Some(name)) = (clash, cookie) {
            faults.add(
                place.index(*index).key("sticky").key("cookie"),
                format!("uses the same cookie `{name}` as routes[{first}] for other pools"),
                "give each a `name` of its own",
            );
        }
    }
}

impl RouteSpec {
    /// The name of the route's affinity cookie.
    fn cookie(&self) -> Option<&str> {
        match &self.sticky.as_ref()?.method {
            AffinityMethod::Cookie(cookie) => Some(&cookie.name),
            AffinityMethod::Hash(_) => None,
        }
    }
}

impl Config {
    fn check(&self, place: &Place, around: &Surroundings<'_>, faults: &mut Faults) -> Option<RouteSpec> {
        let pools = around.pools;
        if let Some(shares) = &self.pool {
            shares.check(&place.key("pool"), pools, faults);
        }
        let mut targets = Vec::new();
        for (pool, weight) in self.pools() {
            let base = pools.get(pool).map_or_else(Timeouts::default, |pool| pool.template.timeouts);
            let timeouts = self.timeouts.check(base, &place.key("timeouts"), faults);
            targets.push(TargetSpec { pool: pool.clone(), weight, timeouts });
        }
        let sticky = self.sticky(around, place, faults);
        let retry = self.retry.check(&place.key("retry"), faults);
        self.check_grpc(&retry, pools, &place.key("retry").key("on"), faults);
        let mut cache = self.cache.as_ref().map(|cache| cache.check(&place.key("cache"), faults));
        let rate_limit = self.rate_limit.check(&place.key("rate_limit"), faults);
        let filters = filter::config::check(&self.filters, &place.key("filters"), around.filters, faults);
        if self.pool.is_none() && !filters.0.iter().any(|item| item.filter.may_respond()) {
            faults.add(place.clone(), "the route has no `pool`, and no filter responds", "write `pool: NAME`");
        }
        self.check_cors(&filters, &place.key("methods"), faults);
        let matcher = self.matcher(place, faults)?;
        if let Some(cache) = &mut cache {
            cache.is_separate = !matcher.conditions.is_empty();
        }
        let name = self.name.clone().unwrap_or_else(|| matcher.to_string().into());
        let body_size = self.body_size.map_or(around.limits.body_size, |size| size.0);
        let allow_encoded = self.allow_encoded();
        Some(RouteSpec { name, matcher, targets, sticky, retry, cache, rate_limit, body_size, allow_encoded, filters })
    }

    /// The pools with their weights.
    fn pools(&self) -> impl Iterator<Item = (&PoolName, u32)> {
        self.pool.iter().flat_map(Shares::iter)
    }

    /// A route that does not match OPTIONS gets no preflight, which its filter `cors` would respond to.
    fn check_cors(&self, filters: &Chain, place: &Place, faults: &mut Faults) {
        let matches = self.methods.as_ref().is_none_or(|methods| methods.iter().any(|method| method == "OPTIONS"));
        if !matches && filters.0.iter().any(|item| item.name == "cors") {
            let problem =
                "browsers send a preflight with OPTIONS, which the route with the filter `cors` does not match";
            faults.add(place.clone(), problem, "add OPTIONS");
        }
    }

    /// A pool without HTTP/2 cannot serve gRPC calls.
    fn check_grpc(
        &self,
        retry: &retry::Policy,
        pools: &BTreeMap<PoolName, pool::Spec>,
        place: &Place,
        faults: &mut Faults,
    ) {
        let speaks_http1 =
            |pool: &PoolName| pools.get(pool).is_some_and(|spec| spec.template.protocol == Protocol::Http1);
        let Some(index) = retry.on.iter().position(|outcome| matches!(outcome, retry::AttemptOutcome::Grpc(_))) else {
            return;
        };
        if let Some((pool, _)) = self.pools().find(|(pool, _)| speaks_http1(pool)) {
            let problem = format!("gRPC needs HTTP/2, and pool {pool} uses HTTP/1.1");
            let hint = "write `protocol: h2c`, or `protocol: http2` with `tls`, in the pool";
            faults.add(place.index(index), problem, hint);
        }
    }

    fn sticky(&self, around: &Surroundings<'_>, place: &Place, faults: &mut Faults) -> Option<Arc<Affinity>> {
        let place = place.key("sticky");
        let config = self.sticky.as_ref()?;
        if config.keep == affinity::Scope::Pool && self.pools().count() == 1 {
            let hint = "remove it, or list several pools with their shares";
            faults.add(place.key("keep"), "the route has only one pool", hint);
        }
        let bound = |pool: &PoolName| around.pools.get(pool).is_some_and(|spec| spec.balance.key.is_some());
        if config.keep == affinity::Scope::Backend
            && let Some((pool, _)) = self.pools().find(|(pool, _)| bound(pool))
        {
            let problem = format!("pool {pool} already selects backends by a key: consistent_hash");
            faults.add(place.clone(), problem, "remove `sticky`, or choose another `balance` for the pool");
        }
        config.check(around.own, &place, faults).map(Arc::new)
    }

    fn allow_encoded(&self) -> Option<Encoded> {
        let listed = self.allow_encoded.as_ref()?;
        Some(Encoded {
            slash: listed.contains(&EncodedCharacter::Slash),
            backslash: listed.contains(&EncodedCharacter::Backslash),
            nul: listed.contains(&EncodedCharacter::Nul),
        })
    }

    fn matcher(&self, place: &Place, faults: &mut Faults) -> Option<Matcher> {
        let path = self.path(&place.key("path"), faults);
        let host = match self.host.as_deref().map(str::parse::<HostPattern>) {
            None => Some(HostPattern::Any),
            Some(parsed) => parsed
                .map_err(|e| {
                    faults.add(place.key("host"), e.to_string(), "write for example www.example.com or *.example.com")
                })
                .ok(),
        };
        let methods = self.methods(&place.key("methods"), faults);
        let given = Given {
            headers: &self.headers,
            query: &self.query,
            cookies: &self.cookies,
            clients: &self.clients,
            except_clients: &self.except_clients,
            priority: self.priority,
        };
        let (conditions, priority) = given.check(place, faults);
        Some(Matcher { host: host?, path: path?, methods: methods?, conditions, priority })
    }

    /// The path in normalised form: requests never have another form.
    fn path(&self, place: &Place, faults: &mut Faults) -> Option<PathPattern> {
        let pattern = PathPattern::new(self.path.as_str(), self.exact)
            .map_err(|e| faults.add(place.clone(), e.to_string(), self.hint_for_path()))
            .ok()?;
        match target::normalise(&self.path) {
            Err(rejection) => {
                let problem = format!("the path {:?} never matches a request: {}", self.path, rejection.detail);
                faults.add(place.clone(), problem, "write it percent-encoded");
            }
            Ok(normalised) if normalised.path != self.path => {
                let problem = format!("the path `{}` is not normalised and never matches a request", self.path);
                faults.add(place.clone(), problem, format!("write {}", normalised.path));
            }
            // Without a list, no reading of the path can match this route.
            Ok(normalised) if !self.allow_encoded().unwrap_or_default().permits(normalised.encoded) => {
                let problem = format!("requests for `{}` are rejected because of an encoded character", self.path);
                faults.add(place.clone(), problem, "add the character to `allow_encoded`: slash, backslash or nul");
            }
            Ok(_) => return Some(pattern),
        }
        None
    }

    /// What to write instead of an invalid path. Other proxies have signs in front of it: `~`, `^` and `=`.
    fn hint_for_path(&self) -> String {
        let bare = self.path.trim_start_matches(['~', '^', '=', '*', ' ']);
        if self.path.starts_with('=') && bare.starts_with('/') {
            return format!("write `path: {bare}` and `exact: true`");
        }
        let prefix = literal_prefix(bare);
        if prefix.len() == self.path.len() || !bare.starts_with('/') {
            return "write for example /api".to_owned();
        }
        format!("a path is a prefix by whole segments, not a regular expression; write {prefix}")
    }

    /// The path to write instead, if this one ends with a wildcard, which is an ordinary character here.
    pub(super) fn path_without_wildcard(&self) -> Option<&str> {
        self.path.ends_with(['*', '$']).then(|| literal_prefix(&self.path))
    }

    fn methods(&self, place: &Place, faults: &mut Faults) -> Option<Methods> {
        let Some(names) = &self.methods else {
            return Some(Methods::any());
        };
        let mut methods = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            match Method::from_bytes(name.as_bytes()) {
                Ok(Method::CONNECT | Method::TRACE) => {
                    faults.add(place.index(index), format!("{name} is always rejected"), "remove it")
                }
                Ok(method) if name.bytes().any(|b| b.is_ascii_lowercase()) => {
                    faults.add(
                        place.index(index),
                        format!("`{method}` is not a method; methods are upper case"),
                        format!("write {}", name.to_uppercase()),
                    );
                }
                Ok(method) => methods.push(method),
                Err(_) => faults.add(place.index(index), format!("`{name}` is not a method"), "write for example GET"),
            }
        }
        if methods.len() < names.len() {
            return None;
        }
        let hint = "remove the key to match every method";
        Methods::of(methods).map_err(|e| faults.add(place.clone(), e.to_string(), hint)).ok()
    }
}

/// The whole segments before the first sign of a wildcard or a regular expression.
fn literal_prefix(path: &str) -> &str {
    let literal = path.find(['*', '$', '(', '[', '+', '?', '\\', '^', '{', '|']).map_or(path, |end| {
        let before = path.get(..end).unwrap_or_default();
        // `.` and `*` together stand for any text.
        before.strip_suffix('.').unwrap_or(before)
    });
    match literal.trim_end_matches('/') {
        "" => "/",
        prefix => prefix,
    }
}
