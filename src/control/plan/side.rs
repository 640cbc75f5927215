//! Decides recorded requests with one configuration: the function that serves traffic, with limits that are
//! only simulated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Version, header};
use pingora_http::RequestHeader;

use crate::base::units::PoolName;
use crate::decision::bond::{self, Bond};
use crate::decision::snapshot::{Route, Snapshot};
use crate::decision::{Door, decide};
use crate::http::client_address::ClientKey;
use crate::http::rejection::Rejection;
use crate::limit::{Limiter, ReplayLimiter};
use crate::observe::recent_requests::Noted;
use crate::routing::affinity::AffinityMethod;

/// The outcome of a request: a pool, or a rejection by status code and cause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Pool(PoolName),
    Refused(u16, &'static str),
}

/// The decision about one request.
pub(super) struct Fate {
    /// The matching route.
    pub(super) route: Option<Arc<Route>>,
    /// The possible outcomes with their probabilities, which sum up to 1.
    pub(super) places: Vec<(Place, f64)>,
    /// Whether a limit rejects it.
    pub(super) limited: bool,
}

/// One configuration with the simulated state of its limits.
pub(super) struct Side<'a> {
    snapshot: &'a Snapshot,
    begin: Instant,
    /// By the real limiters. The snapshot owns them, so their addresses are stable.
    limits: HashMap<*const Limiter, ReplayLimiter>,
}

impl<'a> Side<'a> {
    /// Limits start at `begin`.
    pub(super) fn new(snapshot: &'a Snapshot, begin: Instant) -> Self {
        Self { snapshot, begin, limits: HashMap::new() }
    }

    /// Decides a request. `before` is the decision of the configuration that issued the clients' cookies;
    /// `None` if this one did.
    pub(super) fn decide(&mut self, noted: &Noted<'_>, before: Option<&Fate>) -> Fate {
        let key = &noted.key;
        let Some(mut request) = request(noted) else {
            return Fate { route: None, places: refused(Rejection::BadRequest), limited: false };
        };
        let door = Door { misdirected: key.misdirected, https_required: key.https_required };
        let (limits, begin, mut limited) = (&mut self.limits, self.begin, false);
        let count = |limiter: &Limiter| {
            let replay = limits.entry(std::ptr::from_ref(limiter));
            let replay = replay.or_insert_with(|| ReplayLimiter::new(*limiter.spec(), begin));
            let told = replay.admit(ClientKey::from(key.client), key.at);
            limited |= !told.admitted;
            if told.admitted { Ok(()) } else { Err(Rejection::RateLimited { retry_after: told.retry_after }) }
        };
        let decision = decide(self.snapshot, &mut request, door, count);
        let places = match (&decision.refusal, &decision.route) {
            (Some(refusal), _) => refused(refusal.rejection),
            (None, None) => refused(Rejection::NoRoute),
            (None, Some(route)) => pools(route, share(route, noted, &request, before)),
        };
        Fate { route: decision.route, places, limited }
    }
}

fn refused(rejection: Rejection) -> Vec<(Place, f64)> {
    vec![(Place::Refused(rejection.status(), rejection.cause()), 1.0)]
}

/// The pools of a route with their probabilities: that of the client's affinity, or all by their shares.
fn pools(route: &Route, bound: Option<usize>) -> Vec<(Place, f64)> {
    if let Some(target) = bound.and_then(|index| route.targets.get(index)) {
        return vec![(Place::Pool(target.pool.name().clone()), 1.0)];
    }
    let all: f64 = route.targets.shares().map(|(weight, _)| f64::from(weight)).sum();
    let shares = route.targets.shares().filter(|(weight, _)| *weight > 0);
    shares.map(|(weight, target)| (Place::Pool(target.pool.name().clone()), f64::from(weight) / all)).collect()
}

/// The index of the pool of the client's affinity, if it has one.
fn share(route: &Route, noted: &Noted<'_>, request: &RequestHeader, before: Option<&Fate>) -> Option<usize> {
    match route.sticky.as_ref().map(|sticky| &sticky.method)? {
        AffinityMethod::Hash(_) => Bond::of(route, &request.headers, noted.key.client, 0).share(route),
        AffinityMethod::Cookie(_) => {
            let opens =
                before.is_none_or(|before| before.route.as_ref().is_some_and(|before| opens_cookies_of(route, before)));
            noted.key.bound.filter(|_| opens).and_then(|pool| bond::position(route, pool))
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
fn request(noted: &Noted<'_>) -> Option<RequestHeader> {
    let key = &noted.key;
    let mut request = RequestHeader::build(key.method, key.path.as_bytes(), None).ok()?;
    request.set_version(Version::HTTP_11);
    if let Some(host) = key.host {
        request.insert_header(header::HOST, host).ok()?;
    }
    if let Some(length) = key.content_length {
        request.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length)).ok()?;
    }
    for (name, value) in &noted.headers {
        request.append_header(name.clone(), value.clone()).ok()?;
    }
    Some(request)
}
