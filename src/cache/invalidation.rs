//! Invalidation by unsafe methods (RFC 9111 §4.4).

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};

use crate::cache::key::{Target, same_origin_key, uri_key};
use crate::cache::rules::KeyRules;

/// More values of Location and Content-Location are ignored.
const MAX_REFERENCES: usize = 8;

/// The URI keys that a response invalidates: if the method is unsafe and the response no error, the one of the target,
/// and those of Location and Content-Location if they have the same origin. Each appears once.
///
/// An invalidation applies to all stored responses of a URI, whatever headers and cookies are part of their keys, so
/// record it with [`super::purge::Generations::purge_key`].
#[must_use]
pub fn targets(
    method: &Method,
    status: StatusCode,
    target: &Target<'_>,
    rules: &KeyRules,
    response: &HeaderMap,
) -> Vec<Vec<u8>> {
    if method.is_safe() || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let mut keys = vec![uri_key(target, rules)];
    let values = response.get_all(LOCATION).iter().chain(response.get_all(CONTENT_LOCATION));
    let references = values.take(MAX_REFERENCES).filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
    for key in references.filter_map(|reference| same_origin_key(target, rules, reference)) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

#[cfg(test)]
#[path = "invalidation_tests.rs"]
mod tests;
