//! The counts of filters `rate_limit`, which a reload keeps and filters with the same name share.

use std::fmt;
use std::time::{Duration, Instant};

use super::Request;
use super::limit_key::{self, Part};
use crate::http::client_address::ClientKey;
use crate::limit::{self, Limiter, Verdict};

/// The counts of one filter, or of several with the same name.
pub struct Limits {
    limiters: Vec<Limiter>,
    /// Makes keys that clients cannot predict.
    state: ahash::RandomState,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let specs: Vec<_> = self.limiters.iter().map(Limiter::spec).collect();
        f.debug_struct("Limits").field("specs", &specs).finish_non_exhaustive()
    }
}

/// What is left of a limit, for the response fields RateLimit and RateLimit-Policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The name of the policy.
    pub name: String,
    /// The quota in requests.
    pub limit: u32,
    /// The window.
    pub window: Duration,
    /// Further requests that would be admitted.
    pub remaining: u32,
    /// Time until the quota is full again.
    pub reset: Duration,
}

impl Quota {
    fn new(number: usize, spec: &limit::Spec, verdict: &Verdict, remaining: u32) -> Self {
        // The first policy has the name of the filter, further ones a number, too.
        let name = if number == 0 { String::new() } else { format!("-{}", number.saturating_add(1)) };
        Self { name, limit: verdict.limit, window: spec.window, remaining, reset: verdict.reset }
    }

    /// The quota with the name of its filter.
    pub(super) fn named(self, filter: &str) -> Self {
        Self { name: format!("{filter}{}", self.name), ..self }
    }
}

impl Limits {
    /// Limits without counts. Windows start at `now`.
    #[must_use]
    pub fn new(specs: &[limit::Spec], now: Instant) -> Self {
        let limiters = specs.iter().map(|spec| Limiter::new(*spec, now));
        Self { limiters: limiters.collect(), state: ahash::RandomState::new() }
    }

    /// The key of a request.
    pub(super) fn key(&self, by: &[Part], request: &Request<'_>) -> ClientKey {
        limit_key::key(by, request, &self.state)
    }

    /// Decides about a request that counts `cost`, without counting it. `Err` has the time after which it would be admitted,
    /// or an upper bound of it.
    pub(super) fn look(&self, key: ClientKey, cost: u32, now: Instant) -> Result<(), Duration> {
        let wait = |limiter: &Limiter| {
            let verdict = limiter.look(key, now);
            // `remaining` is what is left after one request.
            let fits = verdict.admitted && verdict.remaining >= cost.saturating_sub(1);
            let wait = if verdict.admitted { verdict.reset } else { verdict.retry_after };
            (!fits).then_some(wait)
        };
        self.limiters.iter().filter_map(wait).max().map_or(Ok(()), Err)
    }

    /// Counts a request, and returns what is left.
    pub(super) fn count(&self, key: ClientKey, cost: u32, now: Instant) -> Vec<Quota> {
        let counted = self.limiters.iter().enumerate().map(|(number, limiter)| {
            let mut verdict = limiter.admit(key, now);
            for _ in 1..cost {
                verdict = limiter.admit(key, now);
            }
            Quota::new(number, limiter.spec(), &verdict, verdict.remaining)
        });
        counted.collect()
    }

    /// What is left, without counting a request.
    pub(super) fn quotas(&self, key: ClientKey, now: Instant) -> Vec<Quota> {
        let looked = self.limiters.iter().enumerate().map(|(number, limiter)| {
            let verdict = limiter.look(key, now);
            // The request that was looked at is not counted.
            let remaining = if verdict.admitted { verdict.remaining.saturating_add(1) } else { 0 };
            Quota::new(number, limiter.spec(), &verdict, remaining)
        });
        looked.collect()
    }

    /// Whether these are its limits.
    pub(super) fn has(&self, specs: &[limit::Spec]) -> bool {
        self.limiters.iter().map(Limiter::spec).eq(specs)
    }
}
