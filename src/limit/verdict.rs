//! The decision of a rate limit about one request.

use std::time::{Duration, Instant};

use super::rule::{Outcome, nanoseconds};
use super::spec::Spec;

/// The decision about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request is admitted.
    pub admitted: bool,
    /// The quota for the client, in requests: the limit, or the burst of a token bucket.
    pub limit: u32,
    /// Further requests that would be admitted at the same instant.
    pub remaining: u32,
    /// Time until the quota is full again without further requests: the end of a fixed window, the instant when
    /// a sliding window covers no request, or when a bucket is full.
    pub reset: Duration,
    /// Zero if admitted; otherwise the time after which a request would be admitted, rounded up to the
    /// nanosecond.
    pub retry_after: Duration,
}

impl Verdict {
    /// The verdict at `now`. Outcomes are in time since `epoch`.
    pub(super) fn new(spec: &Spec, epoch: Instant, outcome: Outcome, now: Instant) -> Self {
        let elapsed = nanoseconds(now.saturating_duration_since(epoch));
        // Only an instant before the epoch has a lead; every wait is longer by it.
        let lead = epoch.saturating_duration_since(now);
        let until = |instant: u64| Duration::from_nanos(instant.saturating_sub(elapsed)).saturating_add(lead);
        Self {
            admitted: outcome.rejected_until.is_none(),
            limit: spec.quota(),
            remaining: outcome.remaining,
            reset: until(outcome.full_at),
            retry_after: outcome.rejected_until.map_or(Duration::ZERO, until),
        }
    }
}
