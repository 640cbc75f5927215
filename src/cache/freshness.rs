//! Freshness lifetime (RFC 9111 §4.2.1, §4.2.2) and initial age (§4.2.3) of a response.

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, EXPIRES, HeaderMap, LAST_MODIFIED};

use super::directives::{MAX_SECONDS, seconds};
use super::http_date::{self, whole_seconds};
use super::rules::Rules;
use super::targeted::Policy;

/// The longest estimated lifetime.
const MAX_HEURISTIC: Duration = Duration::from_secs(24 * 60 * 60);

/// The statuses that `negative_ttl` applies to.
const NEGATIVE: [u16; 5] = [404, 405, 410, 414, 501];

/// When a request was sent to the backend, and when its response arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// `request_time` of §4.2.3.
    pub request: SystemTime,
    /// `response_time` of §4.2.3.
    pub response: SystemTime,
}

/// What states the freshness lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `s-maxage`.
    SMaxAge,
    /// `max-age`.
    MaxAge,
    /// Expires, less Date. The lifetime is 0 if Expires is invalid.
    Expires,
    /// An estimate from Last-Modified.
    Heuristic,
    /// `default_ttl` of the route.
    DefaultTtl,
    /// `negative_ttl` of the route.
    NegativeTtl,
    /// `no-cache` without field names: the response is validated before each use.
    NoCache,
    /// Nothing.
    None,
}

impl Source {
    /// A stable name for logs and explanations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SMaxAge => "s_maxage",
            Self::MaxAge => "max_age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::DefaultTtl => "default_ttl",
            Self::NegativeTtl => "negative_ttl",
            Self::NoCache => "no_cache",
            Self::None => "none",
        }
    }
}

/// The freshness of a response when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The freshness lifetime, at most `max_ttl` of the route.
    pub lifetime: Duration,
    /// `corrected_initial_age` of §4.2.3.
    pub initial_age: Duration,
    /// What states the lifetime.
    pub source: Source,
    /// Whether `max_ttl` of the route made the lifetime shorter.
    pub bounded: bool,
}

impl Freshness {
    /// The time that counts as age 0: the response time less the initial age.
    #[must_use]
    pub fn epoch(&self, response_time: SystemTime) -> SystemTime {
        response_time.checked_sub(self.initial_age).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The end of the lifetime.
    #[must_use]
    pub fn fresh_until(&self, response_time: SystemTime) -> SystemTime {
        let epoch = self.epoch(response_time);
        epoch.checked_add(self.lifetime).unwrap_or(epoch)
    }
}

/// The freshness of a response with this status, header and policy.
#[must_use]
pub fn assess(status: u16, headers: &HeaderMap, policy: &Policy, rules: &Rules, times: Times) -> Freshness {
    let response = Response { status, headers, policy, date: date(headers, times.response), now: times.response };
    let (lifetime, source) =
        response.explicit().or_else(|| response.implicit(rules)).unwrap_or((Duration::ZERO, Source::None));
    let bound = rules.max_ttl.unwrap_or(lifetime);
    Freshness {
        lifetime: lifetime.min(bound),
        initial_age: initial_age(headers, response.date, times),
        source,
        bounded: bound < lifetime,
    }
}

/// The value of Age in seconds (§5.1): the first member of the list. A value that is not a number is ignored.
#[must_use]
pub fn age_value(headers: &HeaderMap) -> Option<u64> {
    seconds(headers.get(AGE)?.as_bytes().split(|byte| *byte == b',').next()?.trim_ascii())
}

/// Date in whole seconds since 1970. A missing or invalid Date is the time of arrival (RFC 9110 §6.6.1).
fn date(headers: &HeaderMap, response_time: SystemTime) -> i64 {
    let stated = headers.get(DATE).and_then(|value| http_date::parse(value.as_bytes(), response_time));
    whole_seconds(stated.unwrap_or(response_time))
}

/// §4.2.3. Date has a resolution of a second, so the apparent age is computed in whole seconds.
fn initial_age(headers: &HeaderMap, date: i64, times: Times) -> Duration {
    let apparent_age = distance(date, whole_seconds(times.response));
    // The clock may have been set back in between.
    let response_delay = times.response.duration_since(times.request).unwrap_or_default();
    let corrected_age = Duration::from_secs(age_value(headers).unwrap_or(0)).saturating_add(response_delay);
    apparent_age.max(corrected_age).min(Duration::from_secs(MAX_SECONDS))
}

struct Response<'a> {
    status: u16,
    headers: &'a HeaderMap,
    policy: &'a Policy,
    /// Date in seconds since 1970.
    date: i64,
    /// When the response arrived.
    now: SystemTime,
}

impl Response<'_> {
    /// The lifetime that the response states (§4.2.1).
    fn explicit(&self) -> Option<(Duration, Source)> {
        let directives = &self.policy.directives;
        if directives.needs_validation() {
            return Some((Duration::ZERO, Source::NoCache));
        }
        if let Some(seconds) = directives.s_maxage {
            return Some((Duration::from_secs(seconds), Source::SMaxAge));
        }
        if let Some(seconds) = directives.max_age {
            return Some((Duration::from_secs(seconds), Source::MaxAge));
        }
        if self.policy.targeted {
            return None;
        }
        // An invalid date is in the past (§5.3). Of several lines the earliest counts.
        let lines = self.headers.get_all(EXPIRES).into_iter();
        let earliest = lines.map(|value| http_date::parse(value.as_bytes(), self.now).map(whole_seconds)).min()?;
        Some((earliest.map_or(Duration::ZERO, |expires| distance(self.date, expires)), Source::Expires))
    }

    /// The lifetime of a response that states none (§4.2.2).
    fn implicit(&self, rules: &Rules) -> Option<(Duration, Source)> {
        let is_covered = rules.statuses.contains(&self.status);
        // `public` permits estimates for every status.
        let may_estimate = rules.heuristic && (is_covered || self.policy.directives.public);
        if let Some(lifetime) = may_estimate.then(|| self.estimate()).flatten() {
            return Some((lifetime, Source::Heuristic));
        }
        if let Some(lifetime) = rules.negative_ttl.filter(|_| NEGATIVE.contains(&self.status)) {
            return Some((lifetime, Source::NegativeTtl));
        }
        let lifetime = rules.default_ttl.filter(|_| is_covered)?;
        Some((lifetime, Source::DefaultTtl))
    }

    /// A tenth of the time since Last-Modified, at most a day. `None` without a Last-Modified before Date.
    fn estimate(&self) -> Option<Duration> {
        let modified = http_date::parse(self.headers.get(LAST_MODIFIED)?.as_bytes(), self.now)?;
        let lifetime = (distance(whole_seconds(modified), self.date) / 10).min(MAX_HEURISTIC);
        (!lifetime.is_zero()).then_some(lifetime)
    }
}

/// The time from `start` to `end`: zero if negative, at most [`MAX_SECONDS`].
fn distance(start: i64, end: i64) -> Duration {
    let seconds = u64::try_from(end.saturating_sub(start)).unwrap_or(0);
    Duration::from_secs(seconds.min(MAX_SECONDS))
}

#[cfg(test)]
#[path = "freshness_tests.rs"]
mod tests;
