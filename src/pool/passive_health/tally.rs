//! The counts that requests update for a backend: a few atomics without a lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::pool::passive_health::histogram::{Counts, Histogram};

/// The outcome of an attempt, as far as it depends on the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response with a status code below 500, or one that is not the backend's fault.
    Success,
    /// A response with a 5xx that the request may have caused.
    ServerError,
    /// No connection, a timeout, an abort before or during the response, or a response with 502, 503 or 504.
    GatewayFailure,
}

impl Outcome {
    /// The outcome for a status code. 501 and 505 depend on the request.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayFailure,
            501 | 505 => Self::Success,
            500..=599 => Self::ServerError,
            _ => Self::Success,
        }
    }
}

/// Outcomes of attempts at a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Successful attempts.
    pub succeeded: u32,
    /// Failed attempts.
    pub failed: u32,
}

impl Share {
    pub(in crate::pool::passive_health) fn total(self) -> u32 {
        self.succeeded.saturating_add(self.failed)
    }

    pub(in crate::pool::passive_health) fn plus(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_add(other.succeeded),
            failed: self.failed.saturating_add(other.failed),
        }
    }

    /// The failure rate; `None` without attempts.
    pub(in crate::pool::passive_health) fn failing(self) -> Option<f64> {
        (self.total() > 0).then(|| f64::from(self.failed) / f64::from(self.total()))
    }
}

/// The counts of one backend since the last window.
#[derive(Debug, Default)]
pub struct Tally {
    gateway_in_a_row: AtomicU32,
    in_a_row: AtomicU32,
    succeeded: AtomicU32,
    failed: AtomicU32,
    waiting: AtomicU32,
    times: Histogram,
}

impl Tally {
    /// Counts a request that waits for its response; returns how many waited before.
    pub fn begin_wait(&self) -> u32 {
        self.waiting.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends the wait of a request, with any outcome.
    pub fn end_wait(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Records the time until a response started.
    pub fn time(&self, time: Duration) {
        self.times.record(time);
    }

    /// Records the outcome of an attempt. Returns the consecutive failures: gateway failures, and failures of
    /// any kind.
    pub fn record(&self, outcome: Outcome) -> (u32, u32) {
        if outcome == Outcome::Success {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
            self.reset_consecutive_failures();
            return (0, 0);
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if outcome == Outcome::ServerError {
            self.gateway_in_a_row.store(0, Ordering::Relaxed);
            return (0, in_a_row);
        }
        (self.gateway_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1), in_a_row)
    }

    /// Records the good start of a response. Returns the consecutive failures before it, as [`Tally::record`] does.
    pub fn begin_success(&self) -> (u32, u32) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        let take = |row: &AtomicU32| if row.load(Ordering::Relaxed) == 0 { 0 } else { row.swap(0, Ordering::Relaxed) };
        (take(&self.gateway_in_a_row), take(&self.in_a_row))
    }

    /// Removes the success of a response that broke off: the consecutive failures `before` it continue.
    pub fn retract_success(&self, (gateway, any): (u32, u32)) {
        // The window of the success may have ended. The closure always returns `Some`.
        let less = |count: u32| Some(count.saturating_sub(1));
        self.succeeded.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok();
        self.gateway_in_a_row.fetch_add(gateway, Ordering::Relaxed);
        self.in_a_row.fetch_add(any, Ordering::Relaxed);
    }

    /// Resets the consecutive failures. Reads first, so that healthy backends share the cache line.
    pub fn reset_consecutive_failures(&self) {
        for row in [&self.gateway_in_a_row, &self.in_a_row] {
            if row.load(Ordering::Relaxed) != 0 {
                row.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Consecutive failures: gateway failures, and failures of any kind.
    #[must_use]
    pub fn consecutive_failures(&self) -> (u32, u32) {
        (self.gateway_in_a_row.load(Ordering::Relaxed), self.in_a_row.load(Ordering::Relaxed))
    }

    /// Requests that wait for a response.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The outcomes in the current window, which continues.
    #[must_use]
    pub fn outcomes(&self) -> Share {
        Share { succeeded: self.succeeded.load(Ordering::Relaxed), failed: self.failed.load(Ordering::Relaxed) }
    }

    /// Ends the window and takes its outcomes and times.
    #[must_use]
    pub fn take(&self) -> (Share, Counts) {
        let succeeded = self.succeeded.swap(0, Ordering::Relaxed);
        let failed = self.failed.swap(0, Ordering::Relaxed);
        (Share { succeeded, failed }, self.times.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_map_to_outcomes() {
        for (status, outcome) in [
            (200, Outcome::Success),
            (404, Outcome::Success),
            (429, Outcome::Success),
            (500, Outcome::ServerError),
            (501, Outcome::Success),
            (502, Outcome::GatewayFailure),
            (503, Outcome::GatewayFailure),
            (504, Outcome::GatewayFailure),
            (507, Outcome::ServerError),
        ] {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }

    #[test]
    fn consecutive_failures_are_counted_by_kind_and_reset_by_a_success() {
        let tally = Tally::default();
        assert_eq!(tally.record(Outcome::GatewayFailure), (1, 1));
        assert_eq!(tally.record(Outcome::GatewayFailure), (2, 2));
        assert_eq!(tally.record(Outcome::ServerError), (0, 3));
        assert_eq!(tally.record(Outcome::GatewayFailure), (1, 4));
        assert_eq!(tally.record(Outcome::Success), (0, 0));
        assert_eq!(tally.record(Outcome::GatewayFailure), (1, 1));
        (0..2).for_each(|_| tally.time(Duration::from_millis(1)));
        let (share, times) = tally.take();
        assert_eq!((share, times.total()), (Share { succeeded: 1, failed: 5 }, 2));
        assert_eq!(tally.take().0, Share::default());
    }
}
