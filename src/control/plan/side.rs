//! How one configuration decides requests that were noted: the function that serves traffic, with limits
//! that are only tried out.

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

/// Where a request ends: at a pool, or with a refusal by status and cause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Pool(PoolName),
    Refused(u16, &'static str),
}

/// What becomes of one request.
pub(super) struct Fate {
    /// The route that takes it.
    pub(super) route: Option<Arc<Route>>,
    /// Where it ends, each place with its chance; they add up to 1.
    pub(super) places: Vec<(Place, f64)>,
    /// Whether a limit refuses it.
    pub(super) limited: bool,
}

/// One configuration, with what its limits have counted so far.
pub(super) struct Side<'a> {
    snapshot: &'a Snapshot,
    begin: Instant,
    /// By the limiters whose place they take. The snapshot holds those, so their addresses stay theirs.
    limits: HashMap<*const Limiter, ReplayLimiter>,
}

impl<'a> Side<'a> {
    /// Limits begin at `begin`.
    pub(super) fn new(snapshot: &'a Snapshot, begin: Instant) -> Self {
        Self { snapshot, begin, limits: HashMap::new() }
    }

    /// Decides a request. `before` is the route that took it by the configuration whose cookies clients
    /// have; without it that is this one.
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

/// The pools of a route with their chances: the one that the client is bound to, or all by their shares.
fn pools(route: &Route, bound: Option<usize>) -> Vec<(Place, f64)> {
    if let Some(target) = bound.and_then(|index| route.targets.get(index)) {
        return vec![(Place::Pool(target.pool.name().clone()), 1.0)];
    }
    let all: f64 = route.targets.shares().map(|(weight, _)| f64::from(weight)).sum();
    let shares = route.targets.shares().filter(|(weight, _)| *weight > 0);
    shares.map(|(weight, target)| (Place::Pool(target.pool.name().clone()), f64::from(weight) / all)).collect()
}

/// Which of the route's pools the client is bound to, if it is.
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

/// Whether a route can read the cookies that another has given.
fn opens_cookies_of(route: &Route, before: &Route) -> bool {
    let (Some(new), Some(old)) = (&route.sticky, &before.sticky) else { return false };
    let (AffinityMethod::Cookie(ours), AffinityMethod::Cookie(theirs)) = (&new.method, &old.method) else {
        return false;
    };
    let same_file = new.config.key.is_some() && new.config.key == old.config.key;
    Arc::ptr_eq(new, old) || (same_file && ours.name == theirs.name)
}

/// The request as the decision is asked about it; none where what was noted is no request.
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
