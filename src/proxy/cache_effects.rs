//! What a response that is not fetched for the cache means for stored responses.

use std::sync::Arc;
use std::time::SystemTime;

use http::Method;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::cache::freshening::{self, HeadUpdate};
use crate::cache::freshness::Times;
use crate::cache::{RouteCache, invalidation, policy, store};
use crate::decision::cache_key;

/// Applies the response to a request: one to an unsafe method makes stored responses invalid (RFC 9111 §4.4), and one to
/// HEAD updates the stored response (§4.3.5). `requested_at` is when the request arrived.
pub(super) fn apply(
    route: &Arc<RouteCache>,
    request: &RequestHeader,
    response: &ResponseHeader,
    requested_at: SystemTime,
) {
    if request.method == Method::HEAD {
        let (route, request, response) = (Arc::clone(route), request.clone(), response.clone());
        tokio::spawn(async move {
            if let Err(e) = update_from_head(&route, &request, &response, requested_at).await {
                log::debug!("cannot update a stored response: {e}");
            }
        });
    } else {
        invalidate(route, request, response);
    }
}

fn invalidate(route: &RouteCache, request: &RequestHeader, response: &ResponseHeader) {
    let Some(cache) = route.shared() else { return };
    let target = cache_key::target(request, cache_key::scheme(request), route);
    let rules = &route.spec.rules.key;
    for key in invalidation::targets(&request.method, response.status, &target, rules, &response.headers) {
        cache.invalidate(&key, SystemTime::now());
    }
}

async fn update_from_head(
    route: &RouteCache,
    request: &RequestHeader,
    response: &ResponseHeader,
    requested_at: SystemTime,
) -> pingora::Result<()> {
    let Some(cache) = route.shared() else { return Ok(()) };
    let mut key = cache_key::in_store(request, route, &cache);
    let Some(found) = cache.lookup(&mut key, &request.headers).await? else { return Ok(()) };
    let length = store::complete_length(&found.body);
    let now = cache.purges.stamp(SystemTime::now());
    // A purge while the response was on its way concerns it. After the stamp, this time is comparable with purges.
    let times = Times { request: requested_at.min(now), response: now };
    match freshening::update_from_head(found.meta.headers(), length, response.status, &response.headers, times.response)
    {
        HeadUpdate::Ignore => Ok(()),
        HeadUpdate::Invalidate => cache.remove(&key, &policy::copy(&found)).await,
        HeadUpdate::Freshen => {
            let updated = policy::updated(&policy::copy(&found), response, &request.headers, &route.spec.rules, times);
            match updated.refused {
                None => cache.update(&key, &updated.meta).await.map(drop),
                Some(_) => cache.remove(&key, &updated.meta).await,
            }
        }
    }
}
