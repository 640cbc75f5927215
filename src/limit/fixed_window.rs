//! `fixed_window`: a number of requests per window; windows are aligned to the limiter's epoch.
//!
//! The cheapest algorithm and the easiest to explain. Its weakness is the edge: a client that uses one quota
//! just before it and the next one just after it sends twice the limit within an instant.

use super::rule::{Outcome, Rule, nanoseconds, narrow_count};
use super::spec::Spec;

/// The algorithm with its parameters.
pub(super) struct FixedWindow {
    /// Requests per window.
    limit: u32,
    /// Length of a window in nanoseconds, at least one.
    window: u64,
}

/// The usage of one client.
///
/// The start of the window is stored rather than its number: a comparison then shows whether `now` is inside,
/// and only the first request of a window needs a division.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WindowUsage {
    /// Start of the client's latest window, in nanoseconds since the epoch.
    start: u64,
    /// Requests admitted in it.
    count: u32,
}

impl FixedWindow {
    /// The algorithm for `spec`.
    pub(super) fn new(spec: &Spec) -> Self {
        Self { limit: spec.limit.get(), window: nanoseconds(spec.window).max(1) }
    }

    /// The usage at `now`. If `now` is before the client's window the clock has gone back, and the window is
    /// kept: another one would grant a second quota.
    fn as_of(&self, usage: WindowUsage, now: u64) -> WindowUsage {
        if now < usage.start.saturating_add(self.window) {
            usage
        } else {
            WindowUsage { start: now - now % self.window, count: 0 }
        }
    }
}

impl Rule for FixedWindow {
    type Usage = WindowUsage;

    fn admit(&self, usage: &mut WindowUsage, now: u64) -> Outcome {
        let mut current = self.as_of(*usage, now);
        let end = current.start.saturating_add(self.window);
        if current.count >= self.limit {
            return Outcome { remaining: 0, full_at: end, rejected_until: Some(end) };
        }
        current.count += 1;
        *usage = current;
        Outcome { remaining: self.limit - current.count, full_at: end, rejected_until: None }
    }

    fn weight(&self, usage: &WindowUsage, now: u64) -> u128 {
        u128::from(self.as_of(*usage, now).count)
    }

    fn amounts(&self, usage: &WindowUsage, _now: u64) -> [(u64, u64); 2] {
        [(usage.start / self.window, u64::from(usage.count)), (0, 0)]
    }

    fn recall(&self, now: u64, estimate: impl Fn(u64) -> u64) -> WindowUsage {
        let generation = now / self.window;
        let count = narrow_count(estimate(generation)).min(self.limit);
        WindowUsage { start: generation * self.window, count }
    }

    fn tolerable_noise(&self) -> u64 {
        u64::from(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::super::spec::Algorithm;
    use super::*;

    #[test]
    fn window_ends_where_the_next_one_starts() {
        let limit = NonZeroU32::new(2).unwrap();
        let window = Duration::from_nanos(1000);
        let rule = FixedWindow::new(&Spec { algorithm: Algorithm::FixedWindow, limit, window, burst: limit });
        let mut usage = WindowUsage::default();
        let passes = |usage: &mut WindowUsage, now| rule.admit(usage, now).rejected_until.is_none();
        assert!(passes(&mut usage, 2500) && passes(&mut usage, 2999));
        assert_eq!(rule.admit(&mut usage, 2999).rejected_until, Some(3000));
        assert_eq!((rule.weight(&usage, 2999), rule.weight(&usage, 3000)), (2, 0));
        assert!(passes(&mut usage, 3000) && passes(&mut usage, 3001));
        assert!(!passes(&mut usage, 2999), "a clock that goes back grants no second quota");
    }
}
