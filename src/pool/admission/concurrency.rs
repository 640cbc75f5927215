//! Adaptive concurrency: how many requests a pool can work on at once, found out by watching.
//!
//! A pool that is given more than it can do does not do more; it only queues, and every user waits. The
//! limit is where time begins to grow: at the end of each window the median time is compared with the
//! shortest median that was seen, the pool's time without a queue. The gradient of the two tells how much
//! of the time is waiting (Netflix's *gradient* limiter):
//!
//! `limit' = limit × clamp(tolerance × shortest / median, ½, 1) + √limit`, smoothed.
//!
//! The root is the queue that is allowed: where time grows, the limit shrinks until both balance. While the
//! time is within the tolerance the limit grows by half instead. A limit that traffic does not come near
//! does not grow: nothing was learnt about it.
//!
//! Envoy measures the time without a queue by pinning traffic to three requests at once every minute,
//! which users notice. Here it is the minimum over windows, which rises slowly towards what is measured
//! (0.2 % of it a window), so that a pool that has become slower for good is believed after some minutes.
//! The price: a pool that is overloaded without any pause for ten minutes is believed as well. Each pause
//! between bursts puts that right at once. Medians are compared, not shortest times: the fastest request
//! is a cache hit or an error and says nothing about the pool.
//!
//! `observe` counts what `enforce` would refuse, to see before daring. A state machine: medians and the
//! number in flight go in, a limit comes out.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// The limit that a pool starts from.
const START: f64 = 50.0;
/// Limits that are never left.
const LOWEST: f64 = 4.0;
const HIGHEST: f64 = 100_000.0;
/// How much longer than the shortest a median may be before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// How much of the way to a new limit is gone in one window.
const SMOOTHING: f64 = 0.3;
/// How much of a limit is added while there is no queue, if that is more than its root.
const GROWTH: f64 = 0.5;
/// How much of the way to the median the shortest goes in one window.
const INFLATION: f64 = 0.002;
/// Answers that a window needs.
pub const REQUESTS_MIN: u32 = 30;
/// A window's length.
pub const WINDOW: Duration = Duration::from_millis(500);

/// Whether requests beyond the limit are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are counted and pass.
    Observe,
    /// They are refused.
    Enforce,
}

/// The `adaptive_concurrency:` block of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether requests beyond the limit are refused; no default, so that it is a decision.
    pub mode: Mode,
}

/// The limit of one pool.
#[derive(Clone, Debug)]
pub struct Gradient {
    limit: f64,
    /// The pool's median time without a queue, in seconds.
    shortest: Option<f64>,
}

impl Default for Gradient {
    fn default() -> Self {
        Self { limit: START, shortest: None }
    }
}

impl Gradient {
    /// How many requests may be in flight.
    #[must_use]
    pub fn limit(&self) -> u32 {
        // Between the lowest and the highest limit.
        self.limit as u32
    }

    /// Ends a window: its median time, and the most requests that were in flight in it. Returns the limit.
    pub fn window(&mut self, median: Duration, peak_in_flight: u32) -> u32 {
        let median = median.as_secs_f64().max(1e-6);
        let shortest = self.shortest.map_or(median, |shortest| {
            if median < shortest { median } else { shortest + (median - shortest) * INFLATION }
        });
        self.shortest = Some(shortest);
        let gradient = (TOLERANCE * shortest / median).clamp(0.5, 1.0);
        let peak = f64::from(peak_in_flight);
        let headroom = match gradient < 1.0 {
            true => self.limit.sqrt(),
            // No queue at all: what the pool can do may be far away.
            false => self.limit.sqrt().max(self.limit * GROWTH),
        };
        let mut target = self.limit * gradient + headroom;
        if peak < self.limit / 2.0 {
            // Traffic did not come near the limit, so nothing speaks for a higher one.
            target = target.min(self.limit);
        }
        if peak >= self.limit / 4.0 {
            self.limit = (self.limit + (target - self.limit) * SMOOTHING).clamp(LOWEST, HIGHEST);
        }
        self.limit()
    }
}

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod tests;
