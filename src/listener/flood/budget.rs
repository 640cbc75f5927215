//! A budget of frames of one kind: a token bucket that refills in a minute.

use std::time::{Duration, Instant};

/// The time in which a budget refills, in nanoseconds.
pub(super) const MINUTE: u64 = 60_000_000_000;

/// Frames of one kind that may arrive at once; full again after a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Frames per minute, which is also the capacity.
    per_minute: u64,
    /// The remaining tokens; one frame costs [`MINUTE`].
    tokens: u64,
    updated: Instant,
}

impl Budget {
    /// A full budget.
    pub(super) fn new(per_minute: u32, now: Instant) -> Self {
        // No connection can send more, and the product with a minute fits into 64 bits.
        let per_minute = u64::from(per_minute.min(100_000_000));
        Self { per_minute, tokens: per_minute * MINUTE, updated: now }
    }

    /// Takes one frame; false if none is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        // At most a minute counts, and its nanoseconds fit into 64 bits.
        let elapsed = now.saturating_duration_since(self.updated).min(Duration::from_nanos(MINUTE)).as_nanos() as u64;
        self.updated = self.updated.max(now);
        self.refund(elapsed * self.per_minute);
        match self.tokens.checked_sub(MINUTE) {
            Some(tokens) => {
                self.tokens = tokens;
                true
            }
            None => false,
        }
    }

    /// Returns a part of what was taken; [`MINUTE`] is one frame.
    pub(super) fn refund(&mut self, amount: u64) {
        self.tokens = (self.tokens + amount).min(self.per_minute * MINUTE);
    }
}
