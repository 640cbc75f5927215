//! `sliding_window`: the current window's count plus the share of the previous one that a window
//! ending now would still cover.
//!
//! # Error
//!
//! The rule assumes that the previous window's requests were spread evenly. For even traffic it is
//! exact. For a client that saved its whole quota for the end of the previous window it is too
//! lenient: in a window-long interval that begins with that burst it may pass up to, but never as
//! much as, twice the limit. For one that spent it at the start it is too strict by at most the
//! share that it still charges. Against a single window's edge it never does what `fixed_window`
//! does there: just past the edge the whole previous count still stands.
//!
//! There is no error of rounding: the comparison is made in whole request-nanoseconds, so no
//! request passes that the formula would refuse. Only `remaining` is rounded, downwards.

use super::Spec;
use super::forgotten::Forgotten;
use super::rule::{Outcome, Rule, nanoseconds, narrow, narrow_count, quotient, quotient_up};
use crate::net::ClientKey;

/// The rule with its numbers.
pub(super) struct SlidingWindow {
    /// Requests per window.
    limit: u32,
    /// Length of a window in nanoseconds, at least one.
    window: u64,
}

/// What one client has used. As in `fixed_window`, the start is kept so that only a client's first
/// request after a pause pays for a division.
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
    /// The rule that `spec` asks for.
    pub(super) fn new(spec: &Spec) -> Self {
        Self { limit: spec.limit.get(), window: nanoseconds(spec.window).max(1) }
    }

    /// The usage as it is at `now`. A clock that went back leaves it alone.
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

    /// Nanoseconds of the usage's window that are still to come at `now`, the whole window if the
    /// clock went back.
    fn left(&self, usage: &PairUsage, now: u64) -> u64 {
        self.window.saturating_sub(now.saturating_sub(usage.start))
    }

    /// What `requests` amount to over a whole window, in request-nanoseconds.
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

    /// When a refused client's next request would pass, in nanoseconds since the epoch.
    fn passes_at(&self, usage: &PairUsage) -> u64 {
        match self.limit.checked_sub(usage.current).and_then(|room| room.checked_sub(1)) {
            Some(room) => usage.start.saturating_add(self.shrunk(usage.previous, room)),
            // This window is spent. In the next one its count is the previous, and must shrink.
            None => usage
                .start
                .saturating_add(self.window)
                .saturating_add(self.shrunk(usage.current, self.limit.saturating_sub(1))),
        }
    }

    /// When nothing of the usage counts any more, in nanoseconds since the epoch.
    fn whole_at(&self, usage: &PairUsage) -> u64 {
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
            let refused_until = Some(self.passes_at(&pair));
            return Outcome { remaining: 0, whole_at: self.whole_at(&pair), refused_until };
        }
        pair.current += 1;
        *usage = pair;
        let charged = narrow_count(narrow(quotient_up(share, self.window)));
        let remaining = (room - 1).saturating_sub(charged);
        Outcome { remaining, whole_at: self.whole_at(&pair), refused_until: None }
    }

    fn weight(&self, usage: &PairUsage, now: u64) -> u128 {
        let pair = self.as_of(*usage, now);
        let share = u128::from(pair.previous) * u128::from(self.left(&pair, now));
        self.whole(pair.current).saturating_add(share)
    }

    fn forget(&self, forgotten: &Forgotten, client: ClientKey, usage: &PairUsage, _now: u64) {
        let generation = usage.start / self.window;
        forgotten.raise(generation, client, u64::from(usage.current));
        if let Some(before) = generation.checked_sub(1) {
            forgotten.raise(before, client, u64::from(usage.previous));
        }
    }

    fn recall(&self, forgotten: &Forgotten, client: ClientKey, now: u64) -> PairUsage {
        let generation = now / self.window;
        let count = |generation| narrow_count(forgotten.estimate(generation, client)).min(self.limit);
        PairUsage {
            start: generation * self.window,
            current: count(generation),
            previous: generation.checked_sub(1).map_or(0, count),
        }
    }
}
