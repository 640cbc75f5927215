//! Whether a response is stored, and which of its fields (RFC 9111 §3).

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, ETAG, EXPIRES, HeaderMap, HeaderName, LAST_MODIFIED, SET_COOKIE, VARY,
};
use http::{Method, StatusCode};

use super::directives::{CacheControl, Fields, MAX_SECONDS};
use super::freshness::{self, Freshness, Source, Times};
use super::rules::{Rules, SetCookie};
use super::targeted::{CDN_CACHE_CONTROL, Policy};
use super::vary::{self, VaryNames};
use crate::http::connection_fields::{NOT_STORED, named_by_connection};

/// What decides about a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The header of the request.
    pub headers: &'a HeaderMap,
}

/// How a response is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storable {
    /// Its freshness on arrival.
    pub freshness: Freshness,
    /// Whether a stale response may never be served without validation (§4.2.4).
    pub must_revalidate: bool,
    /// Seconds that it may be served stale during its validation (RFC 5861 §3); 0 with `must_revalidate`.
    pub stale_while_revalidate: u32,
    /// Seconds that it may be served stale if its validation fails (RFC 5861 §4); 0 with `must_revalidate`.
    pub stale_if_error: u32,
    /// The fields that the stored copy omits; only those that the response has, each once.
    pub removed_fields: Vec<HeaderName>,
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The method is not GET.
    Method,
    /// The status is not final.
    InterimStatus,
    /// 206. Parts are not combined.
    PartialContent,
    /// 304. It updates a stored response instead.
    NotModified,
    /// `must-understand`, and the status is unknown.
    StatusNotUnderstood,
    /// `no-store` of the request.
    RequestNoStore,
    /// `no-store` of the response.
    NoStore,
    /// `private` without field names.
    Private,
    /// The request has Authorization, and no directive permits to store the response.
    Authorization,
    /// The response has Set-Cookie.
    SetCookie,
    /// `Vary` that no later request matches (§4.1): `*`, more names than are compared, or something that is no name.
    VaryAny,
    /// Content-Length is above the limit.
    TooLarge,
    /// Nothing states a lifetime.
    NoLifetime,
    /// It is stale on arrival, can not be validated and may not be served stale.
    NoValidator,
}

impl Refusal {
    /// A stable name for logs and for `detail` of Cache-Status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::InterimStatus => "interim_status",
            Self::PartialContent => "partial_content",
            Self::NotModified => "not_modified",
            Self::StatusNotUnderstood => "status_not_understood",
            Self::RequestNoStore => "request_no_store",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set_cookie",
            Self::VaryAny => "vary_any",
            Self::TooLarge => "too_large",
            Self::NoLifetime => "no_lifetime",
            Self::NoValidator => "no_validator",
        }
    }
}

/// Decides whether the response to a request is stored.
///
/// # Errors
/// The first reason, in the order of §3, that forbids it.
pub fn judge(
    request: &RequestFacts<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    rules: &Rules,
    times: Times,
) -> Result<Storable, Refusal> {
    if *request.method != Method::GET {
        return Err(Refusal::Method);
    }
    let policy = Policy::of_response(headers);
    let directives = &policy.directives;
    check_status(status, directives)?;
    check_directives(request, directives, rules)?;
    let removed_fields = removed_fields(headers, directives, rules.set_cookie);
    let rejects_cookies = rules.set_cookie == SetCookie::Reject;
    if rejects_cookies && headers.contains_key(SET_COOKIE) && !origin_removes_set_cookie(headers, directives) {
        return Err(Refusal::SetCookie);
    }
    if vary::names(headers) == VaryNames::Any {
        return Err(Refusal::VaryAny);
    }
    if states_larger_body(headers, rules.max_object_size) {
        return Err(Refusal::TooLarge);
    }
    let freshness = freshness::assess(status.as_u16(), headers, &policy, rules, times);
    let window = |stated, default| stale_window(directives, &freshness, stated, default);
    let storable = Storable {
        freshness,
        must_revalidate: directives.forbids_stale(),
        stale_while_revalidate: window(directives.stale_while_revalidate, rules.stale_while_revalidate),
        stale_if_error: window(directives.stale_if_error, rules.stale_if_error),
        removed_fields,
    };
    check_use(&storable, status, headers, &policy, rules)?;
    Ok(storable)
}

fn check_status(status: StatusCode, directives: &CacheControl) -> Result<(), Refusal> {
    match status.as_u16() {
        ..200 => Err(Refusal::InterimStatus),
        206 => Err(Refusal::PartialContent),
        304 => Err(Refusal::NotModified),
        code if directives.must_understand && !is_understood(code) => Err(Refusal::StatusNotUnderstood),
        _ => Ok(()),
    }
}

fn check_directives(request: &RequestFacts<'_>, directives: &CacheControl, rules: &Rules) -> Result<(), Refusal> {
    if rules.client_directives && CacheControl::of_request(request.headers).no_store {
        return Err(Refusal::RequestNoStore);
    }
    // A cache that understands `must-understand` and the status ignores `no-store` (§5.2.2.3).
    if directives.no_store && !directives.must_understand {
        return Err(Refusal::NoStore);
    }
    if directives.private == Some(Fields::All) {
        return Err(Refusal::Private);
    }
    // §3.5.
    let is_permitted = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.headers.contains_key(AUTHORIZATION) && !is_permitted {
        return Err(Refusal::Authorization);
    }
    Ok(())
}

/// Checks that the stored response can be used: as fresh, after a validation, or stale.
fn check_use(
    storable: &Storable,
    status: StatusCode,
    headers: &HeaderMap,
    policy: &Policy,
    rules: &Rules,
) -> Result<(), Refusal> {
    let directives = &policy.directives;
    let code = status.as_u16();
    let is_permitted = match storable.freshness.source {
        Source::SMaxAge | Source::MaxAge | Source::Expires => true,
        // The route permits it.
        Source::Heuristic | Source::DefaultTtl | Source::NegativeTtl => true,
        // `no-cache` alone does not permit to store every status (§3).
        Source::NoCache => {
            directives.public
                || directives.max_age.or(directives.s_maxage).is_some()
                || (!policy.targeted && headers.contains_key(EXPIRES))
                || is_heuristically_cacheable(code)
                || rules.statuses.contains(&code)
        }
        Source::None => directives.public,
    };
    if !is_permitted {
        return Err(Refusal::NoLifetime);
    }
    let has_validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    let may_be_stale = storable.stale_while_revalidate > 0 || storable.stale_if_error > 0;
    if storable.freshness.lifetime.is_zero() && !has_validator && !may_be_stale {
        return Err(Refusal::NoValidator);
    }
    Ok(())
}

/// Seconds that a stale response may be used: those of the directive, otherwise those of the route.
///
/// Those of the route do not apply to a response that is never fresh: `max-age=0` asks for a validation each time.
fn stale_window(
    directives: &CacheControl,
    freshness: &Freshness,
    stated: Option<u64>,
    default: Option<Duration>,
) -> u32 {
    if directives.forbids_stale() {
        return 0;
    }
    let default = default.filter(|_| !freshness.lifetime.is_zero());
    let seconds = stated.or(default.map(|default| default.as_secs())).unwrap_or(0);
    u32::try_from(seconds.min(MAX_SECONDS)).unwrap_or(u32::MAX)
}

/// The statuses that RFC 9110 §15 defines, without 206 and 304, which are not stored.
const fn is_understood(status: u16) -> bool {
    matches!(status, 200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// RFC 9110 §15.1, without 206.
const fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn states_larger_body(headers: &HeaderMap, limit: u64) -> bool {
    let lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    lengths.filter_map(|value| value.to_str().ok()?.trim().parse::<u64>().ok()).any(|length| length > limit)
}

/// Whether the origin itself keeps Set-Cookie out of stored copies, so that the rest may be stored.
fn origin_removes_set_cookie(headers: &HeaderMap, directives: &CacheControl) -> bool {
    directives.restricted_fields().chain(&named_by_connection(headers)).any(|name| name == SET_COOKIE)
}

/// The fields that the stored copy omits: those of the connection and of proxy authentication (§3.1), those that
/// `private` and `no-cache` name (§5.2.2.4, §5.2.2.7), and Set-Cookie unless the route stores it.
fn removed_fields(headers: &HeaderMap, directives: &CacheControl, set_cookie: SetCookie) -> Vec<HeaderName> {
    let mut options = named_by_connection(headers);
    if set_cookie != SetCookie::Store {
        options.push(SET_COOKIE);
    }
    let mut removed = Vec::new();
    for name in NOT_STORED.iter().chain(&options).chain(directives.restricted_fields()) {
        if headers.contains_key(name) && !controls_reuse(name) && !removed.contains(name) {
            removed.push(name.clone());
        }
    }
    removed
}

/// Whether the stored copy needs the field to be reused correctly. Naming it in Connection is an error of the backend
/// (RFC 9110 §7.6.1).
fn controls_reuse(name: &HeaderName) -> bool {
    [CACHE_CONTROL, CDN_CACHE_CONTROL, VARY].contains(name)
}

#[cfg(test)]
#[path = "storable_tests.rs"]
mod tests;
