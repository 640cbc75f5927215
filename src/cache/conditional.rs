//! Conditional requests against a stored response (RFC 9110 §13, RFC 9111 §4.3), and our own validation requests.

use std::time::{Duration, SystemTime};

use http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::cache::entity_tag::{self, EntityTag};
use crate::cache::http_date;
use crate::http::fields::single;

/// The directives of RFC 9213 for caches like this one; caches between it and the client use them too.
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The response to a conditional request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stored response.
    Full,
    /// 304 (Not Modified) with the fields of [`not_modified`].
    NotModified,
}

/// What a condition is evaluated against.
#[derive(Clone, Copy, Debug)]
pub struct StoredResponse<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its stored header.
    pub headers: &'a HeaderMap,
    /// When it was received.
    pub response_time: SystemTime,
}

/// Whether only the origin can evaluate the conditions of a request: If-Match and If-Unmodified-Since do not apply to
/// a cache (RFC 9111 §4.3.2).
#[must_use]
pub fn must_forward(request: &HeaderMap) -> bool {
    request.contains_key(IF_MATCH) || request.contains_key(IF_UNMODIFIED_SINCE)
}

/// Evaluates If-None-Match, or If-Modified-Since if the request has no If-None-Match, in the order of RFC 9110 §13.2.2.
/// Conditions apply only to GET and HEAD, and only if the response would be successful without them (§13.2.1).
#[must_use]
pub fn evaluate(method: &Method, request: &HeaderMap, stored: &StoredResponse<'_>) -> Outcome {
    if !(*method == Method::GET || *method == Method::HEAD) || !stored.status.is_success() {
        return Outcome::Full;
    }
    let is_unchanged = if request.contains_key(IF_NONE_MATCH) {
        some_tag_matches(request, stored.headers)
    } else {
        let since = single(request, &IF_MODIFIED_SINCE).and_then(|value| date(value, stored.response_time));
        since.is_some_and(|since| is_unmodified(stored, since))
    };
    if is_unchanged { Outcome::NotModified } else { Outcome::Full }
}

/// If-None-Match: `*`, or an entity tag that matches weakly (RFC 9110 §13.1.2). `*` among other members is invalid
/// and matches nothing.
fn some_tag_matches(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let lines = || request.get_all(IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
    if single(request, &IF_NONE_MATCH).is_some_and(|value| value.as_bytes().trim_ascii() == b"*") {
        return true;
    }
    let Some(stored) = single(stored, &ETAG) else { return false };
    let stored = EntityTag::read(stored.as_bytes());
    lines().flat_map(entity_tag::list).any(|tag| tag.matches_weakly(&stored))
}

/// If-Modified-Since against Last-Modified; or Date, or the time of the response, if it has no Last-Modified (RFC 9111
/// §4.3.2). A response with an unreadable Last-Modified counts as modified.
fn is_unmodified(stored: &StoredResponse<'_>, since: SystemTime) -> bool {
    let date_of = |name| single(stored.headers, name).and_then(|value| date(value, stored.response_time));
    let changed = if stored.headers.contains_key(LAST_MODIFIED) {
        date_of(&LAST_MODIFIED)
    } else {
        Some(date_of(&DATE).unwrap_or(stored.response_time))
    };
    changed.is_some_and(|changed| changed <= since)
}

/// Whether Range applies to a request (RFC 9110 §14.2, §13.1.5): the method is GET, and If-Range is missing or has
/// the strong validator of the stored response. Evaluate the other conditions first.
#[must_use]
pub fn range_applies(method: &Method, request: &HeaderMap, stored: &StoredResponse<'_>) -> bool {
    if *method != Method::GET || !request.contains_key(RANGE) {
        return false;
    }
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(condition) = single(request, &IF_RANGE) else { return false };
    match date(condition, stored.response_time) {
        Some(date) => strong_last_modified(stored.headers, stored.response_time) == Some(date),
        None => single(stored.headers, &ETAG).is_some_and(|stored| {
            EntityTag::read(condition.as_bytes()).matches_strongly(&EntityTag::read(stored.as_bytes()))
        }),
    }
}

/// Last-Modified, if it is a strong validator: Date is at least a second later (RFC 9110 §8.8.2.2).
pub(crate) fn strong_last_modified(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    let modified = date(single(headers, &LAST_MODIFIED)?, now)?;
    let sent = date(single(headers, &DATE)?, now)?;
    (sent >= modified.checked_add(Duration::from_secs(1))?).then_some(modified)
}

/// The header of a 304 for a stored response (RFC 9110 §15.4.5). Last-Modified is part of it only without an ETag. Age
/// and Cache-Status are the caller's.
#[must_use]
pub fn not_modified(stored: &HeaderMap) -> HeaderMap {
    let mut header = HeaderMap::with_capacity(8);
    let kept = [CONTENT_LOCATION, DATE, ETAG, VARY, CACHE_CONTROL, EXPIRES, CDN_CACHE_CONTROL];
    let last_modified = (!stored.contains_key(ETAG)).then_some(LAST_MODIFIED);
    for name in kept.into_iter().chain(last_modified) {
        for value in stored.get_all(&name) {
            header.append(&name, value.clone());
        }
    }
    header
}

/// The fields of a request that validates a stored response: its validators as they are (RFC 9111 §4.3.1). They
/// replace all conditions of the client's request, so that a 304 is about this response. Empty: it cannot be validated.
#[must_use]
pub fn validators(stored: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)]
        .into_iter()
        .filter_map(|(condition, validator)| Some((condition, single(stored, &validator)?.clone())))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// An HTTP-date in one of the three formats (RFC 9110 §5.6.7). `now` selects the century of a two-digit year.
pub(crate) fn date(value: &HeaderValue, now: SystemTime) -> Option<SystemTime> {
    http_date::parse(value.as_bytes(), now)
}

#[cfg(test)]
#[path = "conditional_tests.rs"]
mod tests;
