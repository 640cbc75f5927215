//! The trial of an ejected backend by a request that can be retried without the client noticing.
//!
//! The request reserves another backend first. If the trial fails before its response starts, for whatever reason, the
//! request goes to the reserved backend; neither the retry budget nor the number of attempts limits that.

use std::time::{Duration, Instant};

use super::client_side::ClientSide;
use super::exchange::{Exchange, RunningTrial};
use crate::decision::RequestAffinity;
use crate::pool::Lease;

/// How long the client waits for the trial: this many times the latency of the reserved backend, within limits.
const LATENCY_FACTOR: u32 = 4;
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(5);

impl Exchange {
    /// Makes the request a trial if an ejected backend of the pool offers one and the request suits; `lease` is on the
    /// backend that it has reserved. Returns the lease of the first attempt.
    pub(super) fn with_trial(&mut self, side: &mut impl ClientSide, mut lease: Lease, now: Instant) -> Lease {
        let Some(target) = self.target().filter(|target| target.pool.may_offer_trial()) else { return lease };
        let latency = lease.endpoint().latency(now);
        let wait = latency.saturating_mul(LATENCY_FACTOR).clamp(WAIT_MIN, WAIT_MAX);
        if !self.may_try(side, wait, now) {
            return lease;
        }
        let preferred = self.affinity.score(lease.endpoint().address());
        // A client with affinity to another backend would be moved.
        let suits = |address| self.affinity == RequestAffinity::None || self.affinity.score(address) > preferred;
        let Some(trial) = target.pool.take_trial(&mut lease, suits) else { return lease };
        self.trial = Some(RunningTrial { reserved: lease, wait });
        trial
    }

    /// Whether the request can be repeated at any time until the response starts, and has time for it.
    fn may_try(&self, side: &mut impl ClientSide, wait: Duration, now: Instant) -> bool {
        let complete = side.is_request_complete() && !self.upgrade;
        let in_time = self.request_deadline.is_none_or(|end| end.at.saturating_duration_since(now) >= wait * 4);
        let repeatable =
            self.route.as_ref().is_some_and(|route| route.retry.permits_trial(self.attempt(route, side, now)));
        complete && in_time && repeatable
    }

    /// Whether the current attempt is a trial whose response has not started.
    pub(super) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Ends the trial after a failure; returns the lease on the reserved backend.
    pub(super) fn end_trial(&mut self) -> Option<Lease> {
        let trial = self.trial.take()?;
        self.trials += 1;
        Some(trial.reserved)
    }
}
