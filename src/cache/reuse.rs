//! Whether a stored response may be used for a request (RFC 9111 §4, §4.2).

use std::time::{Duration, SystemTime};

use http::header::HeaderMap;

use super::directives::{CacheControl, MaxStale};
use super::rules::Rules;
use super::targeted::Policy;

/// What decides about a stored response.
#[derive(Clone, Copy, Debug)]
pub struct StoredFacts<'a> {
    /// The stored header. It is read only if the response can not be used as fresh.
    pub headers: &'a HeaderMap,
    /// The time that counts as age 0.
    pub epoch: SystemTime,
    /// The end of the freshness lifetime, which starts at `epoch`.
    pub fresh_until: SystemTime,
    /// Seconds that the response may be served stale during its validation.
    pub stale_while_revalidate: u32,
    /// Seconds that the response may be served stale if its validation fails.
    pub stale_if_error: u32,
}

impl StoredFacts<'_> {
    /// The current age (§4.2.3); 0 if the clock was set back.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.epoch).unwrap_or_default()
    }

    /// The freshness lifetime.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.fresh_until.duration_since(self.epoch).unwrap_or_default()
    }

    /// Whole seconds of freshness that remain, for `ttl` of Cache-Status (RFC 9211 §2.4); negative if it is stale.
    #[must_use]
    pub fn ttl(&self, now: SystemTime) -> i64 {
        let (lifetime, age) = (self.lifetime(), self.age(now));
        let staleness = age.saturating_sub(lifetime);
        let overdue = staleness.as_secs().saturating_add(u64::from(staleness.subsec_nanos() > 0));
        let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        signed(lifetime.saturating_sub(age).as_secs()) - signed(overdue)
    }
}

/// Why a stored response can not be used without validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleReason {
    /// Its lifetime is over.
    Expired,
    /// `no-cache` of the response.
    NoCache,
    /// `no-cache` of the request, or `Pragma: no-cache`.
    RequestNoCache,
    /// It is older than `max-age` of the request allows.
    RequestMaxAge,
    /// It is not fresh for as long as `min-fresh` of the request demands.
    RequestMinFresh,
}

impl StaleReason {
    /// A stable name for logs and for `detail` of Cache-Status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NoCache => "no_cache",
            Self::RequestNoCache => "request_no_cache",
            Self::RequestMaxAge => "request_max_age",
            Self::RequestMinFresh => "request_min_fresh",
        }
    }

    /// Whether the request causes the validation, although the response is fresh (`fwd=request` of RFC 9211).
    #[must_use]
    pub const fn is_of_request(self) -> bool {
        matches!(self, Self::RequestNoCache | Self::RequestMaxAge | Self::RequestMinFresh)
    }
}

/// How a stored response may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It is fresh: serve it.
    Fresh {
        /// The current age, for the field Age.
        age: Duration,
    },
    /// It is stale, but `max-stale` of the request accepts it: serve it without validation.
    StaleAccepted {
        /// The current age, for the field Age.
        age: Duration,
    },
    /// It must be validated.
    Stale {
        /// The current age, for the field Age.
        age: Duration,
        /// Whether it may be served at once while it is validated in the background (RFC 5861 §3).
        may_serve_while_revalidating: bool,
        /// Whether it may be served if the validation fails (RFC 5861 §4).
        may_serve_on_error: bool,
        /// Whether the origin forbids to serve it without validation. If the backend is unreachable, the response is
        /// a 504 (§5.2.2.2).
        must_revalidate: bool,
        /// Why.
        reason: StaleReason,
    },
}

/// The directives of a request that the route respects: none unless `client_directives` is set.
///
/// A caller honours `only_if_cached` itself: it responds with 504 instead of forwarding the request (§5.2.1.7).
#[must_use]
pub fn request_directives(request: &HeaderMap, rules: &Rules) -> CacheControl {
    if rules.client_directives { CacheControl::of_request(request) } else { CacheControl::default() }
}

/// Decides how a stored response may be used for a request with this header.
#[must_use]
pub fn judge(stored: &StoredFacts<'_>, request: &HeaderMap, rules: &Rules, now: SystemTime) -> Reuse {
    judge_directives(stored, &request_directives(request, rules), now)
}

/// Like [`judge`], with the result of [`request_directives`].
///
/// `immutable` of the response is advice for clients (RFC 8246 §2), so it does not override the request.
#[must_use]
pub fn judge_directives(stored: &StoredFacts<'_>, request: &CacheControl, now: SystemTime) -> Reuse {
    let age = stored.age(now);
    let lifetime = stored.lifetime();
    let is_fresh = lifetime > age;
    let request_reason = request_reason(request, age, lifetime);
    if is_fresh && request_reason.is_none() {
        return Reuse::Fresh { age };
    }
    let origin = Policy::of_response(stored.headers).directives;
    let staleness = age.saturating_sub(lifetime);
    if !is_fresh && request_reason.is_none() && !origin.forbids_stale() && accepts_stale(request, staleness) {
        return Reuse::StaleAccepted { age };
    }
    let must_revalidate = !is_fresh && origin.forbids_stale();
    // A client that demands a validation, or a limited age, does not accept a stale response instead (§5.2.1.1).
    let is_demanding = request_reason.is_some() || request.max_age.is_some() || request.min_fresh.is_some();
    let if_error = u64::from(stored.stale_if_error).max(request.stale_if_error.unwrap_or(0));
    let is_usable_on_error = is_fresh || is_within(staleness, if_error);
    Reuse::Stale {
        age,
        may_serve_while_revalidating: !is_fresh
            && !must_revalidate
            && !is_demanding
            && is_within(staleness, u64::from(stored.stale_while_revalidate)),
        may_serve_on_error: !must_revalidate
            && request_reason != Some(StaleReason::RequestNoCache)
            && is_usable_on_error,
        must_revalidate,
        reason: request_reason.filter(|_| is_fresh).unwrap_or_else(|| stale_reason(&origin)),
    }
}

/// The directive of the request that refuses a response of this age, fresh or not.
fn request_reason(request: &CacheControl, age: Duration, lifetime: Duration) -> Option<StaleReason> {
    if request.no_cache.is_some() {
        return Some(StaleReason::RequestNoCache);
    }
    // A client with `max-age=0` demands a validation, even within the first second.
    if request.max_age.is_some_and(|limit| limit == 0 || age > Duration::from_secs(limit)) {
        return Some(StaleReason::RequestMaxAge);
    }
    // A stale response is never fresh for some time longer; `max-stale` does not help then.
    let is_too_short = |seconds: u64| lifetime < age.saturating_add(Duration::from_secs(seconds));
    request.min_fresh.is_some_and(is_too_short).then_some(StaleReason::RequestMinFresh)
}

fn accepts_stale(request: &CacheControl, staleness: Duration) -> bool {
    match request.max_stale {
        None => false,
        Some(MaxStale::Any) => true,
        Some(MaxStale::Seconds(limit)) => staleness <= Duration::from_secs(limit),
    }
}

fn is_within(staleness: Duration, seconds: u64) -> bool {
    seconds > 0 && staleness <= Duration::from_secs(seconds)
}

fn stale_reason(origin: &CacheControl) -> StaleReason {
    if origin.needs_validation() { StaleReason::NoCache } else { StaleReason::Expired }
}

#[cfg(test)]
#[path = "reuse_tests.rs"]
mod tests;
