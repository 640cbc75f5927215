//! What requests note about a backend: a few atomics, no lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::pool::passive_health::histogram::{Counts, Histogram};

/// How a try at a backend ended, as far as it says something about the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered with a status below 500, or one that is not its fault.
    Success,
    /// It answered with a 5xx that may be the request's own fault.
    ServerError,
    /// It could not be connected to, was late, broke off before or in its answer, or answered 502, 503 or 504.
    GatewayFailure,
}

impl Outcome {
    /// What a status says. 501 and 505 are about the request.
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

/// Outcomes at a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Tries that ended well.
    pub succeeded: u32,
    /// Tries that did not.
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

    /// The share of failures; `None` where nothing was tried.
    pub(in crate::pool::passive_health) fn failing(self) -> Option<f64> {
        (self.total() > 0).then(|| f64::from(self.failed) / f64::from(self.total()))
    }
}

/// Counts of one backend since the last window.
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
    /// The backend has a request and owes its answer; how many it owed before.
    pub fn asked(&self) -> u32 {
        self.waiting.fetch_add(1, Ordering::Relaxed)
    }

    /// A request that was [`asked`](Self::asked) waits no more, however it ended.
    pub fn released(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes after what time an answer began.
    pub fn time(&self, time: Duration) {
        self.times.record(time);
    }

    /// Notes how a try ended. Returns how many failures in a row there are now: gateway failures, and
    /// failures of any kind.
    pub fn record(&self, outcome: Outcome) -> (u32, u32) {
        if outcome == Outcome::Success {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
            self.forget_rows();
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

    /// Begins to count failures in a row from nothing. Reads first, so that backends that are well share
    /// the cache line.
    pub fn forget_rows(&self) {
        for row in [&self.gateway_in_a_row, &self.in_a_row] {
            if row.load(Ordering::Relaxed) != 0 {
                row.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Failures in a row: gateway failures, and failures of any kind.
    #[must_use]
    pub fn rows(&self) -> (u32, u32) {
        (self.gateway_in_a_row.load(Ordering::Relaxed), self.in_a_row.load(Ordering::Relaxed))
    }

    /// Requests that wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The outcomes since the window began, which goes on.
    #[must_use]
    pub fn outcomes(&self) -> Share {
        Share { succeeded: self.succeeded.load(Ordering::Relaxed), failed: self.failed.load(Ordering::Relaxed) }
    }

    /// Ends the window: its outcomes and its times.
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
    fn statuses_say_what_they_say() {
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
    fn rows_are_counted_apart_and_end_with_a_success() {
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
