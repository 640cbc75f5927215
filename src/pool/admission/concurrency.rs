//! Adaptive concurrency: finds the number of requests in flight that a pool can handle.
//!
//! A pool with more requests than it can handle does not complete more; it queues, and every client waits. The
//! right limit is where latency starts to grow. At the end of each window the median latency is compared with
//! the shortest median seen, the latency without a queue. The ratio shows how much of the latency is waiting
//! (the *gradient* limiter of Netflix):
//!
//! `limit' = limit × clamp(tolerance × shortest / median, ½, 1) + √limit`, smoothed.
//!
//! The root is the allowed queue: when latency grows, the limit shrinks until both balance. While the latency
//! is within the tolerance, the limit grows by half instead. A limit that traffic does not approach does not
//! grow, because nothing was learnt about it.
//!
//! Envoy measures the latency without a queue by limiting traffic to three concurrent requests every minute,
//! which clients notice. Here it is the minimum over windows, which rises slowly towards the measured value
//! (0.2 % of it per window), so that a pool that has become slower permanently is accepted after some minutes.
//! The price: a pool that is overloaded without a pause for ten minutes is accepted as well. Each pause between
//! bursts corrects that immediately. Medians are compared rather than minimums: the fastest request is a cache
//! hit or an error and not representative.
//!
//! `observe` counts the requests that `enforce` would reject. A state machine: medians and the number of
//! requests in flight go in, a limit comes out.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// The initial limit.
const START: f64 = 50.0;
/// The smallest and the largest limit.
const LOWEST: f64 = 4.0;
const HIGHEST: f64 = 100_000.0;
/// The ratio to the shortest median above which the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// The part of the way to a new limit that is gone per window.
const SMOOTHING: f64 = 0.3;
/// The part of a limit that is added without a queue, if larger than its root.
const GROWTH: f64 = 0.5;
/// The part of the way to the median that the shortest median goes per window.
const INFLATION: f64 = 0.002;
/// Responses that a window needs.
pub const REQUESTS_MIN: u32 = 30;
/// The length of a window.
pub const WINDOW: Duration = Duration::from_millis(500);

/// Whether requests over the limit are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are counted and admitted.
    Observe,
    /// They are rejected.
    Enforce,
}

/// The `adaptive_concurrency:` block of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether requests over the limit are rejected. Required: there is no default.
    pub mode: Mode,
}

/// The adaptive limit of one pool.
#[derive(Clone, Debug)]
pub struct Gradient {
    limit: f64,
    /// The median latency of the pool without a queue, in seconds.
    shortest: Option<f64>,
}

impl Default for Gradient {
    fn default() -> Self {
        Self { limit: START, shortest: None }
    }
}

impl Gradient {
    /// The limit on requests in flight.
    #[must_use]
    pub fn limit(&self) -> u32 {
        // Between the smallest and the largest limit.
        self.limit as u32
    }

    /// Ends a window with its median latency and its peak of requests in flight. Returns the limit.
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
            // No queue: the capacity of the pool may be far away.
            false => self.limit.sqrt().max(self.limit * GROWTH),
        };
        let mut target = self.limit * gradient + headroom;
        if peak < self.limit / 2.0 {
            // Traffic did not approach the limit, so a higher one is not justified.
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
