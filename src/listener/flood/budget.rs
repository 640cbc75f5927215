//! A budget of frames of one kind: a token bucket that refills in a minute.

use std::time::{Duration, Instant};

/// The time in which a budget refills, in nanoseconds.
pub(super) const MINUTE: u64 = 60_000_000_000;

/// Frames of one kind that may arrive at once; full again after a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Frames per minute, which is also the capacity.
    a_minute: u64,
    /// The remaining tokens; one frame costs [`MINUTE`].
    left: u64,
    filled: Instant,
}

impl Budget {
    /// A full budget.
    pub(super) fn new(a_minute: u32, now: Instant) -> Self {
        // No connection can send more, and the product with a minute fits into 64 bits.
        let a_minute = u64::from(a_minute.min(100_000_000));
        Self { a_minute, left: a_minute * MINUTE, filled: now }
    }

    /// Takes one frame; false if none is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        // At most a minute counts, and its nanoseconds fit into 64 bits.
        let passed = now.saturating_duration_since(self.filled).min(Duration::from_nanos(MINUTE)).as_nanos() as u64;
        self.filled = self.filled.max(now);
        self.give(passed * self.a_minute);
        match self.left.checked_sub(MINUTE) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Returns a part of what was taken; [`MINUTE`] is one frame.
    pub(super) fn give(&mut self, price: u64) {
        self.left = (self.left + price).min(self.a_minute * MINUTE);
    }
}
