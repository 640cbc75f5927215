//! The adaptive limit of a live pool: the part of [`crate::pool::admission::concurrency`] that requests use.
//!
//! A request costs three atomic operations at its start and one at its end. The background task of the pool
//! ends the windows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::event::Event;
use crate::base::units::PoolName;
use crate::pool::admission::concurrency::{Gradient, Mode, REQUESTS_MIN};
use crate::pool::passive_health::histogram::{Counts, Histogram};

/// The shortest time between two events of a pool.
const EVENT_INTERVAL: Duration = Duration::from_secs(10);

/// The limit and its measurements.
#[derive(Debug)]
pub struct Overload {
    /// Whether requests over the limit are rejected; otherwise they are only counted.
    enforced: AtomicBool,
    limit: AtomicU32,
    in_flight: AtomicU32,
    peak: AtomicU32,
    times: Histogram,
    /// Requests over the limit since the start.
    beyond: AtomicU64,
    /// Locked only by the background task of the pool.
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    gradient: Gradient,
    times: Counts,
    announced: u64,
    announced_at: Option<Instant>,
}

/// A request in flight; dropping it ends the count.
#[derive(Debug)]
pub struct InFlight(Arc<Overload>);

impl InFlight {
    /// Records the time until the response started.
    pub fn record(&self, time: Duration) {
        self.0.times.record(time);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Overload {
    /// The initial limit.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let window = Window::default();
        Self {
            enforced: AtomicBool::new(mode == Mode::Enforce),
            limit: AtomicU32::new(window.gradient.limit()),
            in_flight: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            times: Histogram::default(),
            beyond: AtomicU64::new(0),
            window: Mutex::new(window),
        }
    }

    /// Applies a new `mode`, with the limit found so far.
    pub(in crate::pool) fn reconfigure(&self, mode: Mode) {
        self.enforced.store(mode == Mode::Enforce, Ordering::Relaxed);
    }

    /// Requests that were rejected so far, or would have been.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond.load(Ordering::Relaxed)
    }

    /// The limit on requests in flight.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Counts a request; `None` if it is rejected.
    #[must_use]
    pub fn admit(self: &Arc<Self>) -> Option<InFlight> {
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let guard = InFlight(Arc::clone(self));
        if in_flight > self.limit() {
            self.beyond.fetch_add(1, Ordering::Relaxed);
            if self.enforced.load(Ordering::Relaxed) {
                return None;
            }
        }
        self.peak.fetch_max(in_flight, Ordering::Relaxed);
        Some(guard)
    }

    /// Ends a window with enough responses, and reports requests over the limit, at most every 10 s.
    pub fn window(&self, pool: &PoolName, now: Instant) {
        let mut window = self.window.lock();
        window.times.add(&self.times.take());
        if window.times.total() >= REQUESTS_MIN {
            let median = std::mem::take(&mut window.times).median().unwrap_or_default();
            let peak = self.peak.swap(self.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
            self.limit.store(window.gradient.window(median, peak), Ordering::Relaxed);
        }
        let beyond = self.beyond();
        let quiet = window.announced_at.is_some_and(|at| now.saturating_duration_since(at) < EVENT_INTERVAL);
        if beyond > window.announced && !quiet {
            let requests = beyond - window.announced;
            (window.announced, window.announced_at) = (beyond, Some(now));
            let rejected = self.enforced.load(Ordering::Relaxed);
            Event::Overload { pool: pool.clone(), requests, rejected, limit: self.limit() }.announce();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enforce_rejects_requests_over_the_limit_and_observe_counts_them() {
        for (mode, passed) in [(Mode::Enforce, 50), (Mode::Observe, 60)] {
            let overload = Arc::new(Overload::new(mode));
            let in_flight: Vec<InFlight> = (0..60).filter_map(|_| overload.admit()).collect();
            assert_eq!((in_flight.len(), overload.beyond()), (passed, 10), "{mode:?}");
            drop(in_flight);
            assert_eq!(overload.in_flight.load(Ordering::Relaxed), 0, "a rejected request is not in flight");
        }
    }

    #[test]
    fn window_without_enough_responses_continues() {
        let overload = Arc::new(Overload::new(Mode::Enforce));
        let now = Instant::now();
        for round in 0..4 {
            let in_flight: Vec<InFlight> = (0..40).filter_map(|_| overload.admit()).collect();
            in_flight.iter().take(10).for_each(|one| one.record(Duration::from_millis(10)));
            assert_eq!(overload.limit() > 50, round == 3, "the third round completes 30 responses");
            overload.window(&"p".into(), now);
        }
    }
}
