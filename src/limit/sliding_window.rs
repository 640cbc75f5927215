//! `sliding_window`: the count of the current window plus the share of the previous one that a window ending
//! now would cover.
//!
//! # Error
//!
//! The algorithm assumes that the requests of the previous window were spread evenly. For even traffic it is
//! exact. For a client that saved its whole quota for the end of the previous window it is too lenient: in an
//! interval as long as a window that starts with that burst, it may send less than twice the limit. For one
//! that used it at the start it is too strict, by at most the share that still counts. It does not have the
//! edge problem of `fixed_window`: just after the edge the whole previous count still applies.
//!
//! There is no rounding error: the comparison uses whole request-nanoseconds, so no request is admitted that
//! the formula would reject. Only `remaining` is rounded, downwards.

use super::rule::{Outcome, Rule, nanoseconds, narrow, narrow_count, quotient, quotient_up};
use super::spec::Spec;

/// The algorithm with its parameters.
pub(super) struct SlidingWindow {
    /// Requests per window.
    limit: u32,
    /// Length of a window in nanoseconds, at least one.
    window: u64,
}

/// The usage of one client. As in `fixed_window` the start is stored, so that only the first request after a
/// pause needs a division.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PairUsage {
    /// Start of the client's latest window, in nanoseconds since the epoch.
    start: u64,
    /// Requests admitted in it.
    current: u32,
    /// Requests admitted in the window before it.
    previous: u32,
}

impl SlidingWindow {
    /// The algorithm for `spec`.
    pub(super) fn new(spec: &Spec) -> Self {
        Self { limit: spec.limit.get(), window: nanoseconds(spec.window).max(1) }
    }

    /// The usage at `now`. A clock that went back leaves it unchanged.
    fn as_of(&self, usage: PairUsage, now: u64) -> PairUsage {
        let age = now.saturating_sub(usage.start);
        if age < self.window {
            usage
        } else if age - self.window < self.window {
            PairUsage { start: usage.start + self.window, current: 0, previous: usage.current }
        } else {
            PairUsage { start: now - now % self.window, current: 0, previous: 0 }
        }
    }

    /// Nanoseconds of the usage's window that remain at `now`; the whole window if the clock went back.
    fn left(&self, usage: &PairUsage, now: u64) -> u64 {
        self.window.saturating_sub(now.saturating_sub(usage.start))
    }

    /// `requests` over a whole window, in request-nanoseconds.
    fn whole(&self, requests: u32) -> u128 {
        u128::from(requests) * u128::from(self.window)
    }

    /// How far into a window, in nanoseconds, the share of `previous` has shrunk to `room` requests.
    fn shrunk(&self, previous: u32, room: u32) -> u64 {
        if previous <= room {
            return 0;
        }
        let left = quotient(self.whole(room), u64::from(previous));
        self.window.saturating_sub(narrow(left))
    }

    /// When the next request of a rejected client would be admitted, in nanoseconds since the epoch.
    fn passes_at(&self, usage: &PairUsage) -> u64 {
        match self.limit.checked_sub(usage.current).and_then(|room| room.checked_sub(1)) {
            Some(room) => usage.start.saturating_add(self.shrunk(usage.previous, room)),
            // This window is used up. In the next one its count is the previous count and must shrink.
            None => usage
                .start
                .saturating_add(self.window)
                .saturating_add(self.shrunk(usage.current, self.limit.saturating_sub(1))),
        }
    }

    /// When no part of the usage counts any more, in nanoseconds since the epoch.
    fn full_at(&self, usage: &PairUsage) -> u64 {
        let end = usage.start.saturating_add(self.window);
        if usage.current > 0 { end.saturating_add(self.window) } else { end }
    }
}

impl Rule for SlidingWindow {
    type Usage = PairUsage;

    fn admit(&self, usage: &mut PairUsage, now: u64) -> Outcome {
        let mut pair = self.as_of(*usage, now);
        let share = u128::from(pair.previous) * u128::from(self.left(&pair, now));
        let room = self.limit.saturating_sub(pair.current);
        if room == 0 || self.whole(room - 1) < share {
            let rejected_until = Some(self.passes_at(&pair));
            return Outcome { remaining: 0, full_at: self.full_at(&pair), rejected_until };
        }
        pair.current += 1;
        *usage = pair;
        let charged = narrow_count(narrow(quotient_up(share, self.window)));
        let remaining = (room - 1).saturating_sub(charged);
        Outcome { remaining, full_at: self.full_at(&pair), rejected_until: None }
    }

    fn weight(&self, usage: &PairUsage, now: u64) -> u128 {
        let pair = self.as_of(*usage, now);
        let share = u128::from(pair.previous) * u128::from(self.left(&pair, now));
        self.whole(pair.current).saturating_add(share)
    }

    fn amounts(&self, usage: &PairUsage, _now: u64) -> [(u64, u64); 2] {
        let generation = usage.start / self.window;
        // Before the first window there is none, and its amount would be zero.
        let before = generation.saturating_sub(1);
        [(generation, u64::from(usage.current)), (before, u64::from(usage.previous))]
    }

    fn recall(&self, now: u64, estimate: impl Fn(u64) -> u64) -> PairUsage {
        let generation = now / self.window;
        let count = |generation| narrow_count(estimate(generation)).min(self.limit);
        PairUsage {
            start: generation * self.window,
            current: count(generation),
            previous: generation.checked_sub(1).map_or(0, count),
        }
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

    const WINDOW: u64 = 1_000_000_000;

    fn rule(limit: u32) -> SlidingWindow {
        let limit = NonZeroU32::new(limit).unwrap();
        let window = Duration::from_nanos(WINDOW);
        SlidingWindow::new(&Spec { algorithm: Algorithm::SlidingWindow, limit, window, burst: limit })
    }

    fn admitted(rule: &SlidingWindow, usage: &mut PairUsage, requests: u32, now: u64) -> usize {
        (0..requests).filter(|_| rule.admit(usage, now).rejected_until.is_none()).count()
    }

    #[test]
    fn previous_window_counts_half_after_half_a_window() {
        let rule = rule(100);
        let mut usage = PairUsage::default();
        assert_eq!(admitted(&rule, &mut usage, 110, WINDOW - 1), 100);
        assert_eq!(admitted(&rule, &mut usage, 110, WINDOW), 0, "just after the edge all of it still counts");
        assert_eq!(admitted(&rule, &mut usage, 110, WINDOW * 3 / 2), 50);
        assert_eq!(admitted(&rule, &mut usage, 110, WINDOW * 5 / 2), 75);
        assert_eq!(admitted(&rule, &mut usage, 110, WINDOW * 9 / 2), 100, "one window was without requests");
    }

    #[test]
    fn even_traffic_stays_within_the_limit_in_any_window() {
        let rule = rule(20);
        let mut usage = PairUsage::default();
        let step = WINDOW / 37;
        let passed: Vec<u64> =
            (0..2000).map(|n| n * step).filter(|now| rule.admit(&mut usage, *now).rejected_until.is_none()).collect();
        let most = passed.iter().map(|from| passed.iter().filter(|at| (*from..from + WINDOW).contains(at)).count());
        // At the start twenty are admitted at once, which is not even; after that it settles.
        assert!(most.clone().max() < Some(40));
        assert!(most.skip(200).max() <= Some(21));
    }

    #[test]
    fn retry_after_is_exact_for_every_rejection() {
        for limit in [1, 2, 3, 10] {
            let rule = rule(limit);
            let mut usage = PairUsage::default();
            for now in (0..400).map(|n| n * 23_456_789) {
                let Some(at) = rule.admit(&mut usage, now).rejected_until else { continue };
                assert!(at > now);
                let mut copy = usage;
                assert!(rule.admit(&mut copy, at - 1).rejected_until.is_some(), "limit {limit}: too late at {now}");
                assert_eq!(rule.admit(&mut copy, at).rejected_until, None, "limit {limit}: too early at {now}");
            }
        }
    }

    #[test]
    fn both_windows_are_remembered_after_a_client_is_forgotten() {
        let rule = rule(10);
        let mut usage = PairUsage::default();
        admitted(&rule, &mut usage, 6, WINDOW * 4);
        admitted(&rule, &mut usage, 3, WINDOW * 5);
        assert_eq!(rule.amounts(&usage, WINDOW * 5), [(5, 3), (4, 6)]);
        let recalled = rule.recall(WINDOW * 5 + 1, |generation| if generation == 5 { 3 } else { 6 });
        assert_eq!(recalled, usage);
    }
}
