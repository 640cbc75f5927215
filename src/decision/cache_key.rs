//! The key of a request in the cache, and whether the request uses the cache.

use http::Method;
use pingora_cache::CacheKey;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::X_FORWARDED_PROTO;
use super::host;
use crate::cache::{Cache, RouteCache, conditional, key};

/// How a request uses the cache of its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A stored response may serve it.
    Lookup,
    /// It goes to a backend.
    Bypass(BypassReason),
}

/// Why a request does not use the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BypassReason {
    /// Its method is unsafe: its response may make stored responses invalid (RFC 9111 §4.4).
    UnsafeMethod,
    /// Responses to its method are not stored on this route.
    Method,
    /// It asks for another protocol.
    Upgrade,
    /// It has a body.
    Body,
    /// It has If-Match or If-Unmodified-Since, which only the backend can evaluate.
    Precondition,
    /// `bypass` of the route names a header, a cookie or a query parameter of it.
    Rule,
}

impl BypassReason {
    /// The reason as a clause.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::UnsafeMethod => "the method is unsafe, and its response may make stored responses invalid",
            Self::Method => "responses to the method are not stored",
            Self::Upgrade => "it asks for another protocol",
            Self::Body => "it has a body",
            Self::Precondition => "only the backend can evaluate If-Match and If-Unmodified-Since",
            Self::Rule => "`bypass` names one of its headers, cookies or query parameters",
        }
    }
}

/// Facts of a request that its header does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFacts {
    /// Whether l7lb offers the backend another protocol.
    pub upgrade: bool,
    /// Whether the request has a body.
    pub body: bool,
}

/// How the request uses the cache.
#[must_use]
pub fn usage(request: &RequestHeader, facts: BodyFacts, route: &RouteCache) -> Usage {
    let is_get = request.method == Method::GET || (route.spec.head && request.method == Method::HEAD);
    let reasons = [
        (!request.method.is_safe(), BypassReason::UnsafeMethod),
        (!is_get, BypassReason::Method),
        (facts.upgrade, BypassReason::Upgrade),
        (facts.body, BypassReason::Body),
        (conditional::must_forward(&request.headers), BypassReason::Precondition),
        (route.spec.bypass.applies(&request.headers, request.uri.query()), BypassReason::Rule),
    ];
    reasons.into_iter().find(|(applies, _)| *applies).map_or(Usage::Lookup, |(_, reason)| Usage::Bypass(reason))
}

/// The key of a request, as it is forwarded, on the route with this cache.
#[must_use]
pub fn of(request: &RequestHeader, route: &RouteCache) -> CacheKey {
    let key = key::Key::new(&target(request, scheme(request), route), &route.spec.rules.key, &request.headers);
    CacheKey::new(key.into_bytes(), "")
}

/// The key of a request for the store of this cache.
#[must_use]
pub fn in_store(request: &RequestHeader, route: &RouteCache, cache: &Cache) -> CacheKey {
    let mut key = of(request, route);
    cache.identify(&mut key);
    key
}

/// The target of a request by this scheme, as far as it belongs to the key.
#[must_use]
pub fn target<'a>(request: &'a RequestHeader, scheme: &'a str, route: &'a RouteCache) -> key::Target<'a> {
    key::Target {
        // Without the host, or if the URL does not select the route, only the route separates its responses from others.
        space: if route.spec.rules.key.host && !route.spec.is_separate { "" } else { route.name.as_str() },
        scheme,
        scheme_in_key: true,
        host: host(request).unwrap_or_default(),
        path: request.uri.path(),
        query: request.uri.query(),
    }
}

/// The scheme of a request as it is forwarded.
#[must_use]
pub fn scheme(request: &RequestHeader) -> &str {
    request.headers.get(X_FORWARDED_PROTO).and_then(|scheme| scheme.to_str().ok()).unwrap_or("http")
}
