//! Decides recorded requests with one configuration: the function that serves traffic, with limits that are
//! only simulated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Version, header};
use pingora_http::RequestHeader;

use crate::base::cause::Cause;
use crate::base::units::PoolName;
use crate::decision::request_affinity::{self, RequestAffinity};
use crate::decision::snapshot::{Route, Snapshot};
use crate::decision::{ConnectionFacts, Origin, decide};
use crate::http::client_address::ClientKey;
use crate::http::rejection::Rejection;
use crate::limit::{Limiter, ReplayLimiter};
use crate::observe::recent_requests::RecordedRequest;
use crate::routing::affinity::AffinityMethod;

/// The outcome of a request: a pool, or a rejection by status code and cause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    Pool(PoolName),
    Rejected(u16, Cause),
}

/// The decision about one request.
pub(super) struct RequestOutcome {
    /// The matching route.
    pub(super) route: Option<Arc<Route>>,
    /// The possible outcomes with their probabilities, which sum up to 1.
    pub(super) destinations: Vec<(Destination, f64)>,
    /// Whether a limit rejects it.
    pub(super) limited: bool,
}

/// One configuration with the simulated state of its limits.
pub(super) struct ReplaySide<'a> {
    snapshot: &'a Snapshot,
    begin: Instant,
    /// By the real limiters. The snapshot owns them, so their addresses are stable.
    limits: HashMap<*const Limiter, ReplayLimiter>,
}

impl<'a> ReplaySide<'a> {
    /// Limits start at `begin`.
    pub(super) fn new(snapshot: &'a Snapshot, begin: Instant) -> Self {
        Self { snapshot, begin, limits: HashMap::new() }
    }

    /// Decides a request. `before` is the decision of the configuration that issued the clients' cookies;
    /// `None` if this one did.
    pub(super) fn decide(&mut self, recorded: &RecordedRequest<'_>, before: Option<&RequestOutcome>) -> RequestOutcome {
        let key = &recorded.key;
        let Some(mut request) = request(recorded) else {
            return RequestOutcome { route: None, destinations: rejected(Rejection::BadRequest), limited: false };
        };
        let connection_facts = ConnectionFacts { misdirected: key.misdirected, https_required: key.https_required };
        let (limits, begin, mut limited) = (&mut self.limits, self.begin, false);
        let count = |limiter: &Limiter| {
            let replay = limits.entry(std::ptr::from_ref(limiter));
            let replay = replay.or_insert_with(|| ReplayLimiter::new(*limiter.spec(), begin));
            let verdict = replay.admit(ClientKey::from(key.client), key.at);
            limited |= !verdict.admitted;
            if verdict.admitted { Ok(()) } else { Err(Rejection::RateLimited { retry_after: verdict.retry_after }) }
        };
        let origin = origin(recorded);
        let decision = decide(self.snapshot, &mut request, (connection_facts, &origin), count);
        let responds = decision.filtered.as_ref().and_then(|filtered| filtered.response.as_deref());
        let destinations = match (&decision.rejection, &decision.route) {
            (Some(rejection), _) => rejected(rejection.rejection),
            (None, _) if let Some(response) = responds => {
                vec![(Destination::Rejected(response.status.as_u16(), response.cause), 1.0)]
            }
            (None, None) => rejected(Rejection::NoRoute),
            (None, Some(route)) => pools(route, share(route, recorded, &request, before)),
        };
        RequestOutcome { route: decision.route, destinations, limited }
    }
}

/// Where a recorded request came from, as far as it is known: the listener is not recorded.
fn origin<'a>(recorded: &RecordedRequest<'_>) -> Origin<'a> {
    Origin {
        client: recorded.key.client,
        peer: (recorded.key.client, false),
        is_tls: false,
        listener: "",
        request_id: "",
        server_name: None,
        client_certificate: None,
        is_example: true,
    }
}

fn rejected(rejection: Rejection) -> Vec<(Destination, f64)> {
    vec![(Destination::Rejected(rejection.status(), rejection.cause()), 1.0)]
}

/// The pools of a route with their probabilities: that of the client's affinity, or all by their shares.
fn pools(route: &Route, bound: Option<usize>) -> Vec<(Destination, f64)> {
    if let Some(target) = bound.and_then(|index| route.targets.get(index)) {
        return vec![(Destination::Pool(target.pool.name().clone()), 1.0)];
    }
    let all: f64 = route.targets.shares().map(|(weight, _)| f64::from(weight)).sum();
    let shares = route.targets.shares().filter(|(weight, _)| *weight > 0);
    shares.map(|(weight, target)| (Destination::Pool(target.pool.name().clone()), f64::from(weight) / all)).collect()
}

/// The index of the pool of the client's affinity, if it has one.
fn share(
    route: &Route,
    recorded: &RecordedRequest<'_>,
    request: &RequestHeader,
    before: Option<&RequestOutcome>,
) -> Option<usize> {
    match route.sticky.as_ref().map(|sticky| &sticky.method)? {
        AffinityMethod::Hash(_) => RequestAffinity::of(route, &request.headers, recorded.key.client, 0).share(route),
        AffinityMethod::Cookie(_) => {
            let opens =
                before.is_none_or(|before| before.route.as_ref().is_some_and(|before| opens_cookies_of(route, before)));
            recorded.key.bound.filter(|_| opens).and_then(|pool| request_affinity::position(route, pool))
        }
    }
}

/// Whether a route can decrypt the cookies of another.
fn opens_cookies_of(route: &Route, before: &Route) -> bool {
    let (Some(new), Some(old)) = (&route.sticky, &before.sticky) else { return false };
    let (AffinityMethod::Cookie(ours), AffinityMethod::Cookie(theirs)) = (&new.method, &old.method) else {
        return false;
    };
    let same_file = new.config.key.is_some() && new.config.key == old.config.key;
    Arc::ptr_eq(new, old) || (same_file && ours.name == theirs.name)
}

/// The request for the decision; `None` if the record is not a valid request.
fn request(recorded: &RecordedRequest<'_>) -> Option<RequestHeader> {
    let key = &recorded.key;
    let mut request = RequestHeader::build(key.method, key.path.as_bytes(), None).ok()?;
    request.set_version(Version::HTTP_11);
    if let Some(host) = key.host {
        request.insert_header(header::HOST, host).ok()?;
    }
    if let Some(length) = key.content_length {
        request.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length)).ok()?;
    }
    for (name, value) in &recorded.headers {
        request.append_header(name.clone(), value.clone()).ok()?;
    }
    Some(request)
}
