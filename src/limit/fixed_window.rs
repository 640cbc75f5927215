//! `fixed_window`: so many requests in each window, windows being aligned to the limiter's epoch.
//!
//! The cheapest rule and the easiest to explain. Its known weakness is the edge: a client that
//! spends one quota just before it and the next just after it passes twice the limit in an instant.

use super::Spec;
use super::forgotten::Forgotten;
use super::rule::{Outcome, Rule, nanoseconds, narrow_count};
use crate::net::ClientKey;

/// The rule with its numbers.
pub(super) struct FixedWindow {
    /// Requests per window.
    limit: u32,
    /// Length of a window in nanoseconds, at least one.
    window: u64,
}

/// What one client has used.
///
/// The start and not the number of the window is kept: whether `now` is still inside is then told
/// by a comparison, and the division is left to the first request of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WindowUsage {
    /// Start of the client's latest window, in nanoseconds since the epoch.
    start: u64,
    /// Requests admitted in it.
    count: u32,
}

impl FixedWindow {
    /// The rule that `spec` asks for.
    pub(super) fn new(spec: &Spec) -> Self {
        Self { limit: spec.limit.get(), window: nanoseconds(spec.window).max(1) }
    }

    /// The usage as it is at `now`. If `now` lies before the client's window the clock has gone
    /// back, and the window is kept: taking another would hand out a second quota.
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
            return Outcome { remaining: 0, whole_at: end, refused_until: Some(end) };
        }
        current.count += 1;
        *usage = current;
        Outcome { remaining: self.limit - current.count, whole_at: end, refused_until: None }
    }

    fn weight(&self, usage: &WindowUsage, now: u64) -> u128 {
        u128::from(self.as_of(*usage, now).count)
    }

    fn forget(&self, forgotten: &Forgotten, client: ClientKey, usage: &WindowUsage, _now: u64) {
        forgotten.raise(usage.start / self.window, client, u64::from(usage.count));
    }

    fn recall(&self, forgotten: &Forgotten, client: ClientKey, now: u64) -> WindowUsage {
        let generation = now / self.window;
        let count = narrow_count(forgotten.estimate(generation, client)).min(self.limit);
        WindowUsage { start: generation * self.window, count }
    }
}
