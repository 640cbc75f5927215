//! Explains the routing of a request: each route with the reason it did not match, and, from a running process,
//! the state of limits and the likely backend.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache_explanation::CacheExplanation;
use super::example::{EvaluatedLimit, Outcome};
use super::filter_explanation::{FilterEffect, shown_fields, write_filters};
use super::host;
use crate::base::backend_address::BackendAddress;
use crate::base::units::{PoolName, RouteName};
use crate::decision::snapshot::{Route, Snapshot};
use crate::http::rejection::Rejection;
use crate::pool::selection::choice::percent;
use crate::pool::selection::preview::Candidate;
use crate::pool::selection::zone_preference::ZonePreference;
use crate::routing::conditions::Kind;
use crate::routing::{Conditions, HostPattern, Matcher, Methods, PathPattern, RequestFacts, Table};

/// The result for one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It matches and gets the request.
    Matches,
    /// Another host.
    Host,
    /// Its path is not a prefix of the request path by whole segments.
    Path,
    /// Another method.
    Method,
    /// A header field has another value, or is missing.
    Header,
    /// A query parameter has another value, or is missing.
    Query,
    /// A cookie has another value, or is missing.
    Cookie,
    /// Another client.
    Client,
    /// It matches, but the matching route has a more specific host.
    HostLessSpecific,
    /// It matches, but the matching route has a more specific path.
    PathLessSpecific,
    /// It matches, but has no conditions, and those of the matching route are fulfilled.
    Fallback,
    /// It matches, but the matching route has a higher priority.
    LowerPriority,
    /// It matches, but the matching route lists the method.
    MethodLessSpecific,
    /// It matches, but l7lb has responded before routing.
    NotEvaluated,
}

impl Verdict {
    /// The verdict about a route with a condition of this kind that is not fulfilled.
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Header => Self::Header,
            Kind::Query => Self::Query,
            Kind::Cookie => Self::Cookie,
            Kind::Client => Self::Client,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::Host => "no match: another host",
            Self::Path => "no match: another path",
            Self::Method => "no match: another method",
            Self::Header => "no match: a header field",
            Self::Query => "no match: a query parameter",
            Self::Cookie => "no match: a cookie",
            Self::Client => "no match: another client",
            Self::Fallback => "not selected: matches, but has no conditions",
            Self::LowerPriority => "not selected: matches, but has a lower priority",
            Self::HostLessSpecific => "not selected: matches, but its host is less specific",
            Self::PathLessSpecific => "not selected: matches, but its path is less specific",
            Self::MethodLessSpecific => "not selected: matches, but does not list the method",
            Self::NotEvaluated => "not evaluated: l7lb responds before routing",
        }
    }
}

/// One examined route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Considered {
    /// Its name.
    pub name: RouteName,
    /// What it matches, in one line: methods, host and path.
    pub matches: String,
    /// The result.
    pub verdict: Verdict,
}

/// A limit that counts the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// The limit as text.
    pub limit: String,
    /// The state of the client; missing without a running process.
    pub state: Option<LimitState>,
}

/// The state of a client in a limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitState {
    /// Whether the request would be admitted.
    pub admitted: bool,
    /// Further requests that would be admitted immediately.
    pub remaining: u32,
    /// Seconds until the quota is full again.
    pub reset: f64,
    /// Seconds after which a rejected request would be admitted; 0 for an admitted one.
    pub retry_after: f64,
}

/// One of the pools that may take the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// The pool.
    pub pool: PoolName,
    /// The probability that it gets the request, from 0 to 1.
    pub chance: f64,
    /// Its configured backends.
    pub backends: Vec<Member>,
    /// Its backends with their state; missing without a running process.
    pub candidates: Option<Vec<Candidate>>,
    /// Requests in flight at it, for this process, if known.
    pub in_flight: Option<u32>,
    /// Requests queued for `max_in_flight`; missing without that limit.
    pub waiting: Option<usize>,
    /// Which share of its requests each zone gets; missing without a zone preference or a running process.
    #[serde(default)]
    pub zones: Option<ZonePreference>,
}

/// The backend that is most likely picked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Picked {
    /// Its pool.
    pub pool: PoolName,
    /// Its address.
    pub backend: BackendAddress,
    /// The probability, from 0 to 1.
    pub chance: f64,
}

/// A configured backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Its address, or its name with a port.
    pub address: String,
    /// Its share of the traffic relative to the others.
    pub weight: u32,
}

/// A response of the balancer itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RejectionDetails {
    /// The HTTP status code.
    pub status: u16,
    /// The cause, as in the access log.
    pub cause: String,
    /// The detail; empty if there is none.
    pub detail: String,
}

/// A request as backends get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forwarded {
    /// The path and query.
    pub target: String,
    /// The Host.
    pub host: String,
}

impl Forwarded {
    fn new(request: &RequestHeader) -> Self {
        let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        Self { target, host: host(request).unwrap_or_default().to_owned() }
    }
}

/// The explanation of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The client address: the peer, or the client named by a trusted proxy.
    pub client: IpAddr,
    /// The normalised path; missing if the request cannot be parsed.
    pub path: Option<String>,
    /// The routes, in the order of the configuration.
    pub routes: Vec<Considered>,
    /// The route that matches, also if the request is then rejected.
    pub route: Option<RouteName>,
    /// The limits that count it, in order.
    pub limits: Vec<Limit>,
    /// Its filters, in order, up to the one that ends it.
    #[serde(default)]
    pub filters: Vec<FilterEffect>,
    /// The request as backends get it, as far as filters determine it; missing if l7lb responds itself.
    #[serde(default)]
    pub forwarded: Option<Forwarded>,
    /// The fields of the response that filters determine, each a name and a value, in order. A filter that adapts to the
    /// response of a backend is not among them.
    #[serde(default)]
    pub response_fields: Vec<(String, String)>,
    /// The pools that may get it; empty if l7lb responds itself.
    pub pools: Vec<Share>,
    /// The backend that is most likely picked; missing without a running process or an available backend.
    pub picked: Option<Picked>,
    /// The session affinity as text; missing without affinity.
    pub affinity: Option<String>,
    /// How it uses the cache of the route; missing if the route has none, and if l7lb responds itself.
    #[serde(default)]
    pub cache: Option<CacheExplanation>,
    /// The rejection, if there is one.
    pub rejection: Option<RejectionDetails>,
    /// Why l7lb responds itself without a rejection, such as for a health check of the listener; missing if it does not.
    #[serde(default)]
    pub own_response: Option<String>,
}

impl Explanation {
    /// Examines every route of the snapshot of the outcome.
    #[must_use]
    pub fn new(outcome: Outcome, snapshot: &Snapshot) -> Self {
        let own_response = outcome.own_words();
        let forwarded_request = outcome.forwarded().map(|request| Forwarded::new(&request));
        let Outcome { client, request, limits, decision, filters, response, .. } = outcome;
        let pools = match (&decision.route, &decision.rejection, &own_response) {
            (Some(route), None, None) => shares(route),
            _ => Vec::new(),
        };
        let forwarded = decision.route.as_ref().filter(|_| decision.rejection.is_none() && own_response.is_none());
        let cache = match (&request, forwarded.and_then(|route| route.cache.as_deref())) {
            (Some(request), Some(cache)) => Some(CacheExplanation::new(request, cache)),
            _ => None,
        };
        Self {
            client,
            path: request.as_ref().map(|request| request.uri.path().to_owned()),
            routes: considered((request.as_ref(), client), decision.route.as_ref(), snapshot),
            route: decision.route.as_ref().map(|route| route.name.clone()),
            limits: limits.iter().map(Limit::new).collect(),
            filters,
            forwarded: forwarded_request,
            response_fields: response.map(|(_, fields)| shown_fields(&fields)).unwrap_or_default(),
            pools,
            picked: None,
            affinity: None,
            cache,
            rejection: decision.rejection.map(|rejection| RejectionDetails::new(rejection.rejection, rejection.detail)),
            own_response,
        }
    }

    /// Determines the most likely backend, once the candidates are known.
    pub(super) fn pick(&mut self) {
        let candidates = self.pools.iter().flat_map(|share| {
            let candidates = share.candidates.iter().flatten();
            candidates.map(|candidate| Picked {
                pool: share.pool.clone(),
                backend: candidate.address,
                chance: share.chance * candidate.chance,
            })
        });
        let possible = candidates.filter(|picked| picked.chance > 0.0);
        self.picked = possible.max_by(|a, b| a.chance.total_cmp(&b.chance));
    }

    /// The outcome as text.
    fn outcome(&self) -> String {
        if let Some(own) = &self.own_response {
            return format!("l7lb responds itself: {own}");
        }
        match (&self.rejection, &self.route) {
            (Some(RejectionDetails { status, cause, detail }), _) => {
                let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                format!("it is rejected with {status} {cause}{detail}")
            }
            (None, Some(route)) if self.cache.as_ref().is_some_and(CacheExplanation::sends_stored_response) => {
                format!("route `{route}` sends its stored response")
            }
            (None, Some(route)) => {
                let pools: Vec<&str> = self.pools.iter().map(|share| share.pool.as_str()).collect();
                let matched = format!("route `{route}` sends it to pool `{}`", pools.join(", "));
                match &self.picked {
                    Some(picked) if picked.chance >= 1.0 => format!("{matched}, backend {}", picked.backend),
                    Some(picked) => {
                        format!("{matched}, most likely backend {} ({})", picked.backend, percent(picked.chance))
                    }
                    None => matched,
                }
            }
            (None, None) => "no route matches".to_owned(),
        }
    }
}

impl RejectionDetails {
    pub(super) fn new(rejection: Rejection, detail: &str) -> Self {
        Self { status: rejection.status(), cause: rejection.cause().to_string(), detail: detail.to_owned() }
    }
}

impl Limit {
    fn new(evaluated: &EvaluatedLimit) -> Self {
        let state = evaluated.verdict.map(|verdict| LimitState {
            admitted: verdict.admitted,
            remaining: verdict.remaining,
            reset: verdict.reset.as_secs_f64(),
            retry_after: verdict.retry_after.as_secs_f64(),
        });
        Self { limit: evaluated.spec.to_string(), state }
    }
}

/// The pools of a route with their probabilities and configured backends.
fn shares(route: &Route) -> Vec<Share> {
    let all: f64 = route.targets.shares().map(|(weight, _)| f64::from(weight)).sum();
    let share = |(weight, target): (u32, &crate::decision::snapshot::Target)| {
        let members = target.pool.spec().members.iter();
        Share {
            pool: target.pool.name().clone(),
            chance: f64::from(weight) / all,
            backends: members
                .map(|member| Member { address: member.target.to_string(), weight: member.weight })
                .collect(),
            candidates: None,
            in_flight: None,
            waiting: None,
            zones: None,
        }
    };
    route.targets.shares().map(share).collect()
}

fn considered(
    (request, client): (Option<&RequestHeader>, IpAddr),
    matched: Option<&Arc<Route>>,
    snapshot: &Snapshot,
) -> Vec<Considered> {
    let is_matching = |route: &Arc<Route>| matched.is_some_and(|matched| Arc::ptr_eq(matched, route));
    let winner = snapshot.routes.iter().find(|(_, route)| is_matching(route)).map(|(matcher, _)| matcher);
    let verdict = |matcher: &Matcher, route: &Arc<Route>| match request {
        _ if is_matching(route) => Verdict::Matches,
        None => Verdict::NotEvaluated,
        Some(request) => mismatch(matcher, request, client).unwrap_or_else(|| match winner {
            None => Verdict::NotEvaluated,
            // Host takes precedence over path, path over conditions, conditions over method; see `crate::routing`.
            Some(winner) if winner.host != matcher.host => Verdict::HostLessSpecific,
            Some(winner) if winner.path != matcher.path => Verdict::PathLessSpecific,
            Some(winner) if matcher.conditions.is_empty() && !winner.conditions.is_empty() => Verdict::Fallback,
            Some(winner) if winner.priority != matcher.priority => Verdict::LowerPriority,
            Some(_) => Verdict::MethodLessSpecific,
        }),
    };
    let considered = snapshot.routes.iter().map(|(matcher, route)| Considered {
        name: route.name.clone(),
        matches: matcher.to_string(),
        verdict: verdict(matcher, route),
    });
    considered.collect()
}

/// Why the matcher does not match the request. Each part is tested with a table of one route, so it cannot
/// disagree with the table that serves traffic.
fn mismatch(matcher: &Matcher, request: &RequestHeader, client: IpAddr) -> Option<Verdict> {
    let root = PathPattern::new("/", false).ok()?;
    let (methods, conditions) = (Methods::any(), Conditions::default());
    let any = Matcher { host: HostPattern::Any, path: root, methods, conditions, priority: 0 };
    let parts = [
        (Matcher { host: matcher.host.clone(), ..any.clone() }, Verdict::Host),
        (Matcher { path: matcher.path.clone(), ..any.clone() }, Verdict::Path),
        (Matcher { methods: matcher.methods.clone(), ..any }, Verdict::Method),
    ];
    let place = parts.into_iter().find_map(|(part, verdict)| {
        let table = Table::build([(part, ())]).ok()?;
        table.find(host(request), request.uri.path(), &request.method).is_none().then_some(verdict)
    });
    let facts = RequestFacts { headers: &request.headers, uri: &request.uri, client };
    place.or_else(|| matcher.conditions.mismatch(&facts).map(Verdict::of))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client   {}", self.client)?;
        writeln!(f, "path     {}", self.path.as_deref().unwrap_or("-"))?;
        writeln!(f, "routes")?;
        let width = self.routes.iter().map(|route| route.name.as_str().chars().count()).max().unwrap_or_default();
        for Considered { name, matches, verdict } in &self.routes {
            let matches = if name.as_str() == matches { String::new() } else { format!("  ({matches})") };
            writeln!(f, "  {:width$}  {}{matches}", name.as_str(), verdict.words())?;
        }
        let limits: Vec<String> = self.limits.iter().map(ToString::to_string).collect();
        writeln!(f, "limits   {}", if limits.is_empty() { "none".to_owned() } else { limits.join("; ") })?;
        write_filters(&self.filters, f)?;
        for (name, value) in &self.response_fields {
            writeln!(f, "response {name}: {value}")?;
        }
        if let Some(affinity) = &self.affinity {
            writeln!(f, "affinity {affinity}")?;
        }
        self.cache.as_ref().map_or(Ok(()), |cache| cache.fmt(f))?;
        self.pools.iter().try_for_each(|share| share.fmt(f))?;
        writeln!(f, "outcome  {}", self.outcome())
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.limit)?;
        match &self.state {
            None => Ok(()),
            Some(state) if state.admitted => write!(f, " ({} left after this one)", state.remaining),
            Some(state) => write!(f, " (limit reached; the next request is admitted in {:.1} s)", state.retry_after),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chance = if self.chance < 1.0 { format!("  ({})", percent(self.chance)) } else { String::new() };
        write!(f, "pool     {}{chance}", self.pool)?;
        if let Some(in_flight) = self.in_flight {
            write!(f, ", {in_flight} in flight")?;
        }
        if let Some(waiting) = self.waiting.filter(|waiting| *waiting > 0) {
            write!(f, ", {waiting} waiting")?;
        }
        writeln!(f)?;
        if let Some(zones) = &self.zones {
            writeln!(f, "  {zones}")?;
        }
        match &self.candidates {
            None => self
                .backends
                .iter()
                .try_for_each(|Member { address, weight }| writeln!(f, "  {address}  weight {weight}")),
            Some(candidates) => candidates.iter().try_for_each(|candidate| writeln!(f, "  {candidate}")),
        }
    }
}
