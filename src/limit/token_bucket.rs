//! `token_bucket`: a bucket of `burst` tokens; each request takes one, and `limit` tokens return evenly per
//! window.
//!
//! One token returns in window / limit, which is rarely a whole number of nanoseconds. So time is counted in
//! units of nanosecond × limit: one token is worth exactly one window, and one nanosecond returns exactly
//! `limit`. There is no rounding and no drift.

use super::rule::{Outcome, Rule, nanoseconds, narrow, narrow_count, quotient, quotient_up};
use super::spec::Spec;

/// The precision of the memory of forgotten clients, as a fraction of a token. Smaller amounts are dropped.
const PARTS_OF_TOKEN: u64 = 1024;

/// The shortest generation in nanoseconds, for buckets that refill faster: clearing the sketches more often
/// would cost more than it gains.
const SHORTEST_GENERATION: u64 = 100_000_000;

/// The algorithm with its parameters. A *grain* is a nanosecond divided by the count of the limit: the unit of
/// debts, in which one token is worth `window`.
pub(super) struct TokenBucket {
    /// Grains that a nanosecond returns: the requests per window.
    limit: u32,
    /// Grains of one token: the window in nanoseconds, at least one.
    window: u64,
    /// Grains of the whole bucket.
    capacity: u128,
    /// Length of a generation in grains: no debt lasts longer than the next one.
    generation: u128,
}

/// The usage of one client.
///
/// The debt is stored as whole tokens and a part, which takes 12 bytes instead of 16. The instant is stored
/// separately rather than as one theoretical arrival time, to distinguish a clock that went back from an empty
/// bucket.
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
    /// The algorithm for `spec`.
    pub(super) fn new(spec: &Spec) -> Self {
        let (limit, window) = (spec.limit.get(), nanoseconds(spec.window).max(1));
        let capacity = u128::from(spec.burst.get()) * u128::from(window);
        let shortest = u128::from(SHORTEST_GENERATION) * u128::from(limit);
        Self { limit, window, capacity, generation: capacity.max(shortest) }
    }

    /// The grains that return in `nanoseconds`.
    fn grains(&self, nanoseconds: u64) -> u128 {
        u128::from(nanoseconds) * u128::from(self.limit)
    }

    /// Nanoseconds until `debt` grains have returned, rounded up.
    fn time_to_pay(&self, debt: u128) -> u64 {
        narrow(quotient_up(debt, u64::from(self.limit)))
    }

    /// The debt of the client in grains at `now`. If `now` is before its last request, the clock has gone back
    /// and no time has passed.
    fn debt(&self, usage: &BucketUsage, now: u64) -> u128 {
        let owed = u128::from(usage.tokens) * u128::from(self.window) + u128::from(usage.part);
        owed.saturating_sub(self.grains(now.saturating_sub(usage.seen)))
    }

    /// The usage of a client with `debt` grains at `seen`, and its remaining whole tokens. Both come from the
    /// same division.
    fn owing(&self, debt: u128, seen: u64) -> (BucketUsage, u32) {
        let tokens = narrow_count(narrow(quotient(debt, self.window)));
        let part = narrow(debt.saturating_sub(u128::from(tokens) * u128::from(self.window)));
        let free = self.capacity.saturating_sub(debt);
        let left = narrow_count(narrow(quotient(free, self.window)));
        (BucketUsage { seen, part, tokens }, left)
    }

    /// The generation of forgotten clients at `now`.
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
            let full_at = now.saturating_add(self.time_to_pay(debt));
            return Outcome { remaining: 0, full_at, rejected_until: Some(now.saturating_add(wait)) };
        }
        let (after, remaining) = self.owing(owed, now);
        *usage = after;
        let full_at = now.saturating_add(self.time_to_pay(owed));
        Outcome { remaining, full_at, rejected_until: None }
    }

    fn weight(&self, usage: &BucketUsage, now: u64) -> u128 {
        self.debt(usage, now)
    }

    /// A debt shrinks over time, and a sketch does not know when it was added. So the remembered amount is the
    /// time at which the debt will be zero, counted from the start of the generation, which does not change
    /// over time.
    fn amounts(&self, usage: &BucketUsage, now: u64) -> [(u64, u64); 2] {
        let now = now.max(usage.seen);
        let generation = self.generation_at(now);
        let paid_at = self.grains(now).saturating_add(self.debt(usage, now));
        let since = paid_at.saturating_sub(self.generation_start(generation));
        let parts = quotient(since.saturating_mul(u128::from(PARTS_OF_TOKEN)), self.window);
        [(generation, narrow(parts)), (0, 0)]
    }

    fn recall(&self, now: u64, estimate: impl Fn(u64) -> u64) -> BucketUsage {
        let paid_at = |generation: u64| {
            let since = u128::from(estimate(generation)).saturating_mul(u128::from(self.window));
            self.generation_start(generation).saturating_add(since / u128::from(PARTS_OF_TOKEN))
        };
        let generation = self.generation_at(now);
        let before = generation.checked_sub(1).map_or(0, paid_at);
        let debt = paid_at(generation).max(before).saturating_sub(self.grains(now));
        self.owing(debt.min(self.capacity), now).0
    }

    /// Amounts include the time since the start of the generation, so one collision weighs as much as many
    /// tokens. An eighth of the bucket can be subtracted before estimates become meaningless.
    fn tolerable_noise(&self) -> u64 {
        narrow(quotient(self.capacity, self.window)).saturating_mul(PARTS_OF_TOKEN / 8)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::super::spec::Algorithm;
    use super::*;

    /// Seven tokens per second: not a whole number of nanoseconds per token.
    fn sevenths(burst: u32) -> TokenBucket {
        TokenBucket::new(&Spec {
            algorithm: Algorithm::TokenBucket,
            limit: NonZeroU32::new(7).unwrap(),
            window: Duration::from_secs(1),
            burst: NonZeroU32::new(burst).unwrap(),
        })
    }

    #[test]
    fn bucket_never_drifts() {
        let rule = sevenths(1);
        let mut usage = BucketUsage::default();
        let mut now = 0;
        for _ in 0..70_000 {
            assert_eq!(rule.admit(&mut usage, now).rejected_until, None);
            now = rule.admit(&mut usage, now).rejected_until.unwrap();
        }
        // Each request waits for a whole nanosecond, so 70,000 requests are late by less than 70,000 ns.
        assert!((10_000_000_000_000..10_000_000_070_000).contains(&now), "{now}");
    }

    #[test]
    fn refill_is_exact_to_the_nanosecond() {
        let rule = sevenths(3);
        let mut usage = BucketUsage::default();
        let remaining = [(); 3].map(|()| rule.admit(&mut usage, 5).remaining);
        assert_eq!(remaining, [2, 1, 0]);
        let rejected = rule.admit(&mut usage, 5);
        assert_eq!(rejected.rejected_until, Some(5 + 142_857_143), "a seventh of a second, rounded up");
        assert_eq!(rejected.full_at, 5 + 428_571_429, "three sevenths of a second, rounded up");
    }

    #[test]
    fn debt_of_a_forgotten_client_continues_to_shrink() {
        let rule = sevenths(70);
        let mut usage = BucketUsage::default();
        let now = 25_000_000_000;
        for _ in 0..70 {
            rule.admit(&mut usage, now);
        }
        let [(generation, amount), _] = rule.amounts(&usage, now);
        let known = |wanted| if wanted == generation { amount } else { 0 };
        for (seconds, left) in [(0, 70), (1, 63), (6, 28), (9, 7), (10, 0), (30, 0)] {
            let later = now + seconds * 1_000_000_000;
            let recalled = rule.recall(later, known);
            let debt = rule.debt(&recalled, later);
            let exact = u128::from(left * rule.window);
            assert!(debt <= exact && exact - debt <= exact.min(1_000_000), "after {seconds} s: {debt} of {exact}");
        }
    }

    #[test]
    fn empty_bucket_is_distinguished_from_a_clock_that_goes_back() {
        let rule = sevenths(3);
        let mut usage = BucketUsage::default();
        rule.admit(&mut usage, 600_000_000_000);
        assert_eq!(rule.admit(&mut usage, 0).remaining, 1);
        assert_eq!(rule.admit(&mut usage, 300_000_000_000).remaining, 0);
        assert!(rule.admit(&mut usage, 0).rejected_until.is_some(), "no time has passed, so no token has returned");
    }
}
