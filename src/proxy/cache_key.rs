//! The key of a request.

use pingora_cache::CacheKey;
use pingora_http::RequestHeader;

use crate::cache::{Cache, RouteCache, key};
use crate::decision::form::X_FORWARDED_PROTO;
use crate::decision::host;

/// The key of a request on the route with this cache, for its store.
pub(super) fn of(request: &RequestHeader, route: &RouteCache, cache: &Cache) -> CacheKey {
    let key = key::Key::new(&target(request, route), &route.spec.rules.key, &request.headers);
    let mut key = CacheKey::new(key.into_bytes(), "");
    cache.identify(&mut key);
    key
}

/// The target of a request, as far as it belongs to the key.
pub(super) fn target<'a>(request: &'a RequestHeader, route: &'a RouteCache) -> key::Target<'a> {
    let scheme = request.headers.get(X_FORWARDED_PROTO).and_then(|scheme| scheme.to_str().ok());
    key::Target {
        // Without the host, only the route separates its responses from others.
        space: if route.spec.rules.key.host { "" } else { route.name.as_str() },
        scheme: scheme.unwrap_or("http"),
        scheme_in_key: true,
        host: host(request).unwrap_or_default(),
        path: request.uri.path(),
        query: request.uri.query(),
    }
}
