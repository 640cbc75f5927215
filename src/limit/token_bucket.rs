//! `token_bucket`: a bucket of `burst` tokens, one taken by each request, `limit` put back per
//! window, evenly.
//!
//! One token takes window / limit to come back, which is rarely a whole number of nanoseconds. So
//! time is counted in the unit nanosecond × limit, where one token is worth exactly one window and
//! one nanosecond gives back exactly `limit`. Nothing is ever rounded, and nothing can drift.

use super::Spec;
use super::forgotten::Forgotten;
use super::rule::{Outcome, Rule, nanoseconds, narrow, narrow_count, quotient, quotient_up};
use crate::net::ClientKey;

/// In what part of a token the memory of the forgotten counts. What is below is forgiven.
const PARTS_OF_TOKEN: u64 = 1024;

/// A bucket that fills in less than this, in nanoseconds, still has generations as long as this:
/// clearing the sketches more often would cost more than they are worth.
const SHORTEST_GENERATION: u64 = 100_000_000;

/// The rule with its numbers. A *grain* is a nanosecond divided by the limit's count: the unit of
/// debts, in which one token is worth `window`.
pub(super) struct TokenBucket {
    /// Grains that a nanosecond pays back: the limit's requests per window.
    limit: u32,
    /// Grains of one token: the limit's window in nanoseconds, at least one.
    window: u64,
    /// Grains of the whole bucket.
    capacity: u128,
    /// Length of a generation of the forgotten in grains: no debt outlives the next one.
    generation: u128,
}

/// What one client has used.
///
/// The debt is kept as whole tokens and a part of one because that takes 12 bytes where one number
/// would take 16. The instant is kept beside it, rather than folded into one theoretical arrival
/// time, because only so a clock that went back can be told from a bucket that is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BucketUsage {
    /// When a token was last taken, in nanoseconds since the epoch.
    seen: u64,
    /// Grains missing at that instant beyond `tokens`; less than one token.
    part: u64,
    /// Whole tokens missing at that instant.
    tokens: u32,
}

impl TokenBucket {
    /// The rule that `spec` asks for.
    pub(super) fn new(spec: &Spec) -> Self {
        let (limit, window) = (spec.limit.get(), nanoseconds(spec.window).max(1));
        let capacity = u128::from(spec.burst.get()) * u128::from(window);
        let shortest = u128::from(SHORTEST_GENERATION) * u128::from(limit);
        Self { limit, window, capacity, generation: capacity.max(shortest) }
    }

    /// The grains that `nanoseconds` pay back.
    fn grains(&self, nanoseconds: u64) -> u128 {
        u128::from(nanoseconds) * u128::from(self.limit)
    }

    /// Nanoseconds until `debt` grains are paid back, rounded up.
    fn time_to_pay(&self, debt: u128) -> u64 {
        narrow(quotient_up(debt, u64::from(self.limit)))
    }

    /// The grains that the client owes at `now`. If `now` lies before the client's latest request,
    /// the clock has gone back and no time has passed.
    fn debt(&self, usage: &BucketUsage, now: u64) -> u128 {
        let owed = u128::from(usage.tokens) * u128::from(self.window) + u128::from(usage.part);
        owed.saturating_sub(self.grains(now.saturating_sub(usage.seen)))
    }

    /// The usage of a client that owes `debt` grains at `seen`, and the whole tokens that it has
    /// left. Both come out of the same division.
    fn owing(&self, debt: u128, seen: u64) -> (BucketUsage, u32) {
        let tokens = narrow_count(narrow(quotient(debt, self.window)));
        let part = narrow(debt.saturating_sub(u128::from(tokens) * u128::from(self.window)));
        let free = self.capacity.saturating_sub(debt);
        let left = narrow_count(narrow(quotient(free, self.window)));
        (BucketUsage { seen, part, tokens }, left)
    }

    /// The generation of the forgotten that `now` belongs to.
    fn generation_at(&self, now: u64) -> u64 {
        // A generation is at least a tenth of a second, so its number always fits.
        narrow(self.grains(now) / self.generation)
    }

    /// The start of a generation in grains since the epoch.
    fn generation_start(&self, generation: u64) -> u128 {
        u128::from(generation).saturating_mul(self.generation)
    }
}

impl Rule for TokenBucket {
    type Usage = BucketUsage;

    fn admit(&self, usage: &mut BucketUsage, now: u64) -> Outcome {
        let now = now.max(usage.seen);
        let debt = self.debt(usage, now);
        let owed = debt.saturating_add(u128::from(self.window));
        if owed > self.capacity {
            let wait = self.time_to_pay(owed.saturating_sub(self.capacity));
            let whole_at = now.saturating_add(self.time_to_pay(debt));
            return Outcome { remaining: 0, whole_at, refused_until: Some(now.saturating_add(wait)) };
        }
        let (after, remaining) = self.owing(owed, now);
        *usage = after;
        let whole_at = now.saturating_add(self.time_to_pay(owed));
        Outcome { remaining, whole_at, refused_until: None }
    }

    fn weight(&self, usage: &BucketUsage, now: u64) -> u128 {
        self.debt(usage, now)
    }

    /// A debt shrinks while it is forgotten, and a sketch cannot tell when it was put there. What is
    /// remembered is therefore when the debt will be paid, counted from the start of the
    /// generation: that does not change with time.
    fn forget(&self, forgotten: &Forgotten, client: ClientKey, usage: &BucketUsage, now: u64) {
        let now = now.max(usage.seen);
        let generation = self.generation_at(now);
        let paid_at = self.grains(now).saturating_add(self.debt(usage, now));
        let since = paid_at.saturating_sub(self.generation_start(generation));
        let parts = quotient(since.saturating_mul(u128::from(PARTS_OF_TOKEN)), self.window);
        forgotten.raise(generation, client, narrow(parts));
    }

    fn recall(&self, forgotten: &Forgotten, client: ClientKey, now: u64) -> BucketUsage {
        let paid_at = |generation: u64| {
            let parts = u128::from(forgotten.estimate(generation, client));
            let since = parts.saturating_mul(u128::from(self.window)) / u128::from(PARTS_OF_TOKEN);
            self.generation_start(generation).saturating_add(since)
        };
        let generation = self.generation_at(now);
        let before = generation.checked_sub(1).map_or(0, paid_at);
        let debt = paid_at(generation).max(before).saturating_sub(self.grains(now));
        self.owing(debt.min(self.capacity), now).0
    }
}
