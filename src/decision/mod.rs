//! The decision about a request: rejected, or matched by a route. Pure except for `count`. Traffic, `l7lb
//! check` and `l7lb explain` all use [`decide`], so they cannot disagree.
//!
//! The order matters: cheap checks come first, and the global limit counts before
//! routing, so that requests without a route count too.
//!
//! - [`request_affinity`]: session affinity.
//! - [`filtering`]: the filters of a request; [`filter_explanation`]: explains them.
//! - [`form`]: checks of a request, and the names of headers that l7lb sets.
//! - [`own_response`]: responses of l7lb itself that are no rejections.
//! - [`cache_key`]: whether a request uses the cache, and its key; [`cache_explanation`]: explains both.
//! - [`example`]: example requests of configuration tests and the command line.
//! - [`expectations`]: configuration tests; [`explanation`]: each route and why it did not match; [`live`]: the
//!   same in a running process, with the state of limits and backends.

pub mod cache_explanation;
pub mod cache_key;
pub mod filter_explanation;
pub mod filtering;
pub mod snapshot;
pub mod request_affinity;
pub mod example;
pub mod expectations;
pub mod explanation;
pub mod form;
pub mod live;
pub mod own_response;

use std::net::IpAddr;
use std::sync::Arc;

use http::{Version, header};
use pingora_http::RequestHeader;

use crate::decision::filtering::Observer;
use crate::decision::snapshot::{Route, Snapshot};
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::target::{self, Encoded};
use crate::limit::Limiter;
use crate::routing::RequestFacts;

pub use filtering::{Filtered, Origin};
pub use form::host;
pub use request_affinity::RequestAffinity;

/// What the connection implies for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// The host does not belong to the server name of the TLS connection.
    pub misdirected: bool,
    /// The listener redirects every request to HTTPS.
    pub https_required: bool,
}

/// The decision about a request.
pub struct Decision {
    /// The route that matches, also if the request is then rejected.
    pub route: Option<Arc<Route>>,
    /// The rejection; its detail is empty if there is nothing to add.
    pub rejection: Option<DetailedRejection>,
    /// What the filters have decided; `None` if there are none.
    pub filtered: Option<Box<Filtered>>,
}

/// Decides, and normalises the request path. `count` counts the request in a rate limit.
///
/// Allocates nothing for a request without filters whose path is already normalised.
pub fn decide(
    snapshot: &Snapshot,
    request: &mut RequestHeader,
    (connection_facts, origin): (ConnectionFacts, &Origin<'_>),
    count: impl FnMut(&Limiter) -> Result<(), Rejection>,
) -> Decision {
    decide_observed(snapshot, request, (connection_facts, origin), count, &mut |_, _, _, _| {})
}

/// Decides like [`decide`], and shows each filter to `observe`.
pub fn decide_observed(
    snapshot: &Snapshot,
    request: &mut RequestHeader,
    (connection_facts, origin): (ConnectionFacts, &Origin<'_>),
    mut count: impl FnMut(&Limiter) -> Result<(), Rejection>,
    observe: &mut Observer<'_>,
) -> Decision {
    let mut decision = Decision { route: None, rejection: None, filtered: None };
    let admitted = admit(snapshot, request, (connection_facts, origin.client), &mut count, &mut decision.route);
    let result = match admitted {
        Err(DetailedRejection { rejection: Rejection::NoRoute, .. }) | Ok(()) => {
            filter(snapshot, request, origin, &mut decision, observe)
        }
        Err(rejection) => Err(rejection),
    };
    decision.rejection = result.err();
    decision
}

/// Runs the filters, which may respond although no route matches, and then checks what they may change.
fn filter(
    snapshot: &Snapshot,
    request: &RequestHeader,
    origin: &Origin<'_>,
    decision: &mut Decision,
    observe: &mut Observer<'_>,
) -> Result<(), DetailedRejection> {
    let (filtered, result) = filtering::run(snapshot, request, origin, decision.route.as_ref(), observe);
    decision.filtered = filtered;
    result?;
    let responds = |filtered: &Filtered| filtered.response.is_some() || filtered.pending.is_some();
    if decision.filtered.as_deref().is_some_and(responds) {
        return Ok(());
    }
    let size = decision.filtered.as_deref().and_then(|filtered| filtered.changes.body_size);
    check_forwardable(request, decision.route.as_deref(), size)
}

/// Checks a request that no filter responds to. Its body has at most `size` bytes, or what the route allows.
///
/// # Errors
/// If no route or no pool serves it, or its body is too large.
pub fn check_forwardable(
    request: &RequestHeader,
    route: Option<&Route>,
    size: Option<u64>,
) -> Result<(), DetailedRejection> {
    let route = route.filter(|route| !route.targets.is_empty()).ok_or(without_detail(Rejection::NoRoute))?;
    if announced_body(request).is_some_and(|bytes| bytes > size.unwrap_or(route.body_size)) {
        return Err(without_detail(Rejection::BodyTooLarge));
    }
    Ok(())
}

impl Decision {
    /// Whether another configuration might decide differently: malformed requests are rejected with every
    /// configuration.
    #[must_use]
    pub fn depends_on_configuration(&self) -> bool {
        use Rejection::{
            AccessDenied, AuthUnavailable, HttpsRequired, Misdirected, NoRoute, RateLimited, Unauthorized,
        };
        let rejection = self.rejection.map(|rejection| rejection.rejection);
        self.route.is_some()
            || matches!(
                rejection,
                None | Some(
                    AccessDenied
                        | AuthUnavailable
                        | HttpsRequired
                        | Misdirected
                        | NoRoute
                        | RateLimited { .. }
                        | Unauthorized
                )
            )
    }
}

fn admit(
    snapshot: &Snapshot,
    request: &mut RequestHeader,
    (connection_facts, client): (ConnectionFacts, IpAddr),
    count: &mut impl FnMut(&Limiter) -> Result<(), Rejection>,
    matched: &mut Option<Arc<Route>>,
) -> Result<(), DetailedRejection> {
    if request.version == Version::HTTP_2 {
        // For HTTP/1 the listener has already checked the size.
        form::check_size(request, snapshot.request_limits).map_err(without_detail)?;
    }
    form::check(request)?;
    if let Some(limiter) = &snapshot.limiter {
        count(limiter).map_err(without_detail)?;
    }
    if connection_facts.misdirected {
        return Err(without_detail(Rejection::Misdirected));
    }
    if connection_facts.https_required {
        return Err(without_detail(Rejection::HttpsRequired));
    }
    let encoded = form::normalise(request)?;
    let found = find(snapshot, request, request.uri.path(), client);
    let route = matched.insert(Arc::clone(found.ok_or(without_detail(Rejection::NoRoute))?));
    if encoded != Encoded::default() {
        check_encoded(snapshot, (request, client), route, encoded)?;
    }
    if let Some(limiter) = &route.limiter {
        count(limiter).map_err(without_detail)?;
    }
    Ok(())
}

/// The route of a request with this path.
fn find<'a>(snapshot: &'a Snapshot, request: &RequestHeader, path: &str, client: IpAddr) -> Option<&'a Arc<Route>> {
    let facts = RequestFacts { headers: &request.headers, uri: &request.uri, client };
    snapshot.routes.find_for(host(request), path, &request.method, &facts)
}

/// Checks encoded characters in a normalised path that `route` matches: by the list of the route, otherwise so that no
/// backend reads the path of another route.
fn check_encoded(
    snapshot: &Snapshot,
    (request, client): (&RequestHeader, IpAddr),
    route: &Arc<Route>,
    found: Encoded,
) -> Result<(), DetailedRejection> {
    let not_allowed = DetailedRejection::bad_request("the route does not allow an encoded character in the path");
    let selects_route = |path: Option<String>| {
        let other = find(snapshot, request, &path?, client)?;
        Arc::ptr_eq(other, route).then_some(())
    };
    match route.allow_encoded {
        Some(allowed) if allowed.permits(found) => Ok(()),
        Some(_) => Err(not_allowed),
        None if found.nul => Err(not_allowed),
        None if target::readings(request.uri.path(), found).all(|path| selects_route(path).is_some()) => Ok(()),
        None => {
            let detail = "with encoded slashes decoded, the path matches another route, or none";
            Err(DetailedRejection { rejection: Rejection::AmbiguousPath, detail })
        }
    }
}

/// A rejection without a detail.
const fn without_detail(rejection: Rejection) -> DetailedRejection {
    DetailedRejection { rejection, detail: "" }
}

/// The Content-Length of a request in bytes.
#[must_use]
pub fn announced_body(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod decision_tests;
