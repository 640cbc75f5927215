//! A checked rate limit: the algorithm and its parameters.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The algorithm of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `limit` requests in each window; windows are aligned to the limiter's epoch.
    FixedWindow,
    /// The count of the current window plus the share of the previous one that a window ending now would cover.
    SlidingWindow,
    /// A bucket of `burst` tokens, refilled evenly with `limit` tokens per window.
    TokenBucket,
}

/// A checked limit: algorithm and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Requests per window.
    pub limit: NonZeroU32,
    /// Length of the window; more than zero. Zero counts as one nanosecond, and more than 584 years
    /// as 584 years.
    pub window: Duration,
    /// Capacity of the token bucket in requests; default: the limit. Windows ignore it.
    pub burst: NonZeroU32,
}

impl Spec {
    /// The largest number of requests at one instant.
    #[must_use]
    pub fn quota(&self) -> u32 {
        match self.algorithm {
            Algorithm::FixedWindow | Algorithm::SlidingWindow => self.limit.get(),
            Algorithm::TokenBucket => self.burst.get(),
        }
    }

    /// The limit as text.
    #[must_use]
    pub fn amount(&self) -> String {
        let amount = format!("{} requests in {}", self.limit, humantime::format_duration(self.window));
        match self.algorithm {
            Algorithm::TokenBucket => format!("{amount}, bursts of {}", self.burst),
            Algorithm::FixedWindow | Algorithm::SlidingWindow => amount,
        }
    }
}

impl fmt::Display for Algorithm {
    /// The name in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FixedWindow => "fixed_window",
            Self::SlidingWindow => "sliding_window",
            Self::TokenBucket => "token_bucket",
        })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, for each client", self.amount())
    }
}
