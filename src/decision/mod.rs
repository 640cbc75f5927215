//! The decision about a request: refused, or taken by a route. Pure but for what `count` does, so that
//! traffic, `l7lb check` and `l7lb explain` cannot disagree: all of them ask [`decide`].
//!
//! The order matters: what is cheap and protects the rest comes first, and the limit over
//! everything counts before routing, so that a flood of requests for nothing counts too.
//!
//! - [`bond`]: which pool and backend a client is bound to.
//! - [`form`]: what is checked of a request's form; the names of fields that nobody else may say.
//! - [`example`]: requests as they are written in the configuration's tests and on the command line.
//! - [`expectations`]: the configuration's tests; [`explanation`]: each route, and why it lost; [`live`]: the
//!   same by a running process, with limits and backends as they are.

pub mod snapshot;
pub mod bond;
pub mod example;
pub mod expectations;
pub mod explanation;
pub mod form;
pub mod live;

use std::sync::Arc;

use http::{Version, header};
use pingora_http::RequestHeader;

use crate::decision::snapshot::{Route, Snapshot};
use crate::http::rejection::{Refusal, Rejection};
use crate::limit::Limiter;

pub use bond::Bond;
pub use form::host;

/// What the connection says about the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Door {
    /// The host has nothing to do with the server name of the TLS connection.
    pub misdirected: bool,
    /// The listener sends everything to HTTPS.
    pub https_required: bool,
}

/// What becomes of a request.
pub struct Decision {
    /// The route that takes it, also where it is then refused.
    pub route: Option<Arc<Route>>,
    /// Why it is refused; its detail is empty where there is nothing to add.
    pub refusal: Option<Refusal>,
}

/// Decides, and brings the request's path into its one form. `count` asks a limit.
///
/// Nothing is allocated for a request whose path is in its form already.
pub fn decide(
    snapshot: &Snapshot,
    request: &mut RequestHeader,
    door: Door,
    mut count: impl FnMut(&Limiter) -> Result<(), Rejection>,
) -> Decision {
    let mut route = None;
    let refusal = admit(snapshot, request, door, &mut count, &mut route).err();
    Decision { route, refusal }
}

impl Decision {
    /// Whether another configuration might decide otherwise: what is wrong with a request's form is wrong
    /// whatever is configured.
    #[must_use]
    pub fn depends_on_configuration(&self) -> bool {
        use Rejection::{HttpsRequired, Misdirected, NoRoute, RateLimited};
        let told = self.refusal.map(|refusal| refusal.rejection);
        self.route.is_some() || matches!(told, None | Some(HttpsRequired | Misdirected | NoRoute | RateLimited { .. }))
    }
}

fn admit(
    snapshot: &Snapshot,
    request: &mut RequestHeader,
    door: Door,
    count: &mut impl FnMut(&Limiter) -> Result<(), Rejection>,
    taken: &mut Option<Arc<Route>>,
) -> Result<(), Refusal> {
    if request.version == Version::HTTP_2 {
        // On HTTP/1 the listener has looked at it.
        form::check_size(request, snapshot.request_limits).map_err(plain)?;
    }
    form::check(request)?;
    if let Some(limiter) = &snapshot.limiter {
        count(limiter).map_err(plain)?;
    }
    if door.misdirected {
        return Err(plain(Rejection::Misdirected));
    }
    if door.https_required {
        return Err(plain(Rejection::HttpsRequired));
    }
    let encoded = form::normalise(request)?;
    let found = snapshot.routes.find(host(request), request.uri.path(), &request.method);
    let route = taken.insert(Arc::clone(found.ok_or(plain(Rejection::NoRoute))?));
    if !route.allow_encoded.permits(encoded) {
        return Err(Refusal::bad_request("an escape in the path that the route does not allow"));
    }
    if let Some(limiter) = &route.limiter {
        count(limiter).map_err(plain)?;
    }
    if announced_body(request).is_some_and(|bytes| bytes > route.body_size) {
        return Err(plain(Rejection::BodyTooLarge));
    }
    Ok(())
}

/// A rejection that says all there is to say.
const fn plain(rejection: Rejection) -> Refusal {
    Refusal { rejection, detail: "" }
}

/// The length that a request announces, in bytes.
#[must_use]
pub fn announced_body(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod decision_tests;
