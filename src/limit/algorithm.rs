//! The arithmetic of the three algorithms, pure and in integers: a client's state, the time, and
//! what follows from them. Times are nanoseconds since the limiter's epoch.
//!
//! - *Fixed window*: so many in each aligned window. Cheap to explain; twice the limit may pass
//!   around the edge of two windows.
//! - *Sliding window*: this window's count plus the last one's, weighted by how much of it is still
//!   within reach. It takes the last window's requests to have been spread evenly; if they were
//!   not, it errs by at most the unevenness.
//! - *Token bucket*: the generic cell rate algorithm (ITU-T I.371): one theoretical arrival time for
//!   each client, exact to a fraction of a nanosecond, so nothing drifts.

use std::time::Duration;

use super::{Spec, Verdict};

/// How requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// So many in each aligned window.
    FixedWindow,
    /// So many in any window, by weighting the last one.
    SlidingWindow,
    /// A bucket that fills steadily.
    TokenBucket,
}

/// What is kept of one client. What the fields mean depends on the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Windows: the index of the current one. Bucket: the theoretical arrival time, whole nanoseconds.
    at: u64,
    /// Windows: the count of the current one. Bucket: the rest of the arrival time, in 1/limit ns.
    current: u32,
    /// Sliding window: the count of the window before.
    previous: u32,
}

impl State {
    /// The state of nobody.
    pub(super) const VACANT: Self = Self { at: 0, current: 0, previous: 0 };
}

/// A limit's numbers, in the units that the arithmetic wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) algorithm: Algorithm,
    limit: u32,
    burst: u32,
    /// Nanoseconds.
    pub(super) window: u64,
}

impl Rule {
    pub(super) fn new(spec: &Spec) -> Self {
        // A window of more than 146 years is as good as one of 146 years, and sums cannot overflow.
        let window = u64::try_from(spec.window.as_nanos()).unwrap_or(u64::MAX).clamp(1, u64::MAX / 4);
        Self { algorithm: spec.algorithm, limit: spec.limit.get(), burst: spec.burst.get(), window }
    }

    /// The state of a client that has used `used` already.
    pub(super) fn start(&self, used: u32, now: u64) -> State {
        match self.algorithm {
            Algorithm::FixedWindow | Algorithm::SlidingWindow => State { at: now / self.window, current: used, previous: 0 },
            Algorithm::TokenBucket => {
                let (whole, rest) = self.tokens(used.min(self.burst));
                State { at: now + whole, current: rest, previous: 0 }
            }
        }
    }

    /// What the client has used of its quota.
    pub(super) fn used(&self, state: &State, now: u64) -> u32 {
        match self.algorithm {
            Algorithm::FixedWindow => self.moved_on(state, now).current,
            Algorithm::SlidingWindow => {
                let state = self.moved_on(state, now);
                state.current.saturating_add(self.weighted(state.previous, self.into_window(&state, now)))
            }
            Algorithm::TokenBucket if state.at < now => 0,
            Algorithm::TokenBucket => {
                let ahead = u128::from(state.at - now) * u128::from(self.limit) + u128::from(state.current);
                u32::try_from(ahead.div_ceil(u128::from(self.window))).unwrap_or(u32::MAX)
            }
        }
    }

    /// Whether the state says no more than a fresh one would.
    pub(super) fn is_spent(&self, state: &State, now: u64) -> bool {
        match self.algorithm {
            Algorithm::FixedWindow => now / self.window > state.at,
            Algorithm::SlidingWindow => now / self.window > state.at.saturating_add(1),
            Algorithm::TokenBucket => state.at < now,
        }
    }

    /// Decides about one request, and counts it if it may pass.
    pub(super) fn admit(&self, state: &mut State, now: u64) -> Verdict {
        match self.algorithm {
            Algorithm::FixedWindow => self.admit_fixed(state, now),
            Algorithm::SlidingWindow => self.admit_sliding(state, now),
            Algorithm::TokenBucket => self.admit_token(state, now),
        }
    }

    fn admit_fixed(&self, state: &mut State, now: u64) -> Verdict {
        *state = self.moved_on(state, now);
        let admitted = state.current < self.limit;
        state.current += u32::from(admitted);
        let left = self.window - self.into_window(state, now);
        self.verdict(admitted, self.limit, self.limit.saturating_sub(state.current), left, left)
    }

    fn admit_sliding(&self, state: &mut State, now: u64) -> Verdict {
        *state = self.moved_on(state, now);
        let into = self.into_window(state, now);
        let weighted = self.weighted(state.previous, into);
        let admitted = state.current.saturating_add(weighted) < self.limit;
        state.current += u32::from(admitted);
        let remaining = self.limit.saturating_sub(state.current.saturating_add(weighted));
        let left = self.window - into;
        let reset = if state.current > 0 { left + self.window } else { left };
        self.verdict(admitted, self.limit, remaining, reset, self.sliding_wait(state, into))
    }

    /// Until the weighted count falls below the limit: later in this window, or in the next one.
    fn sliding_wait(&self, state: &State, into: u64) -> u64 {
        if state.current >= self.limit {
            return self.window - into + self.fades_at(state.current, self.limit);
        }
        self.fades_at(state.previous, self.limit - state.current).saturating_sub(into)
    }

    /// The first moment of a window at which `count` of the window before weighs less than `room`.
    fn fades_at(&self, count: u32, room: u32) -> u64 {
        if count < room {
            return 0;
        }
        let stays = (u128::from(room) * u128::from(self.window)).div_ceil(u128::from(count.max(1)));
        self.window.saturating_sub(u64::try_from(stays).unwrap_or(u64::MAX)) + 1
    }

    fn admit_token(&self, state: &mut State, now: u64) -> Verdict {
        let (at, rest) = if state.at < now { (now, 0) } else { (state.at, state.current) };
        let (whole, part) = self.tokens(1);
        let next = self.carried(at + whole, u64::from(rest) + u64::from(part));
        let holds = self.tokens(self.burst);
        let ahead = (next.0 - now, next.1);
        let admitted = ahead <= holds;
        if admitted {
            (state.at, state.current) = next;
        }
        let used = self.used(state, now);
        let full = if state.at < now { 0 } else { state.at - now + u64::from(state.current > 0) };
        let wait = (ahead.0 + u64::from(ahead.1 > holds.1)).saturating_sub(holds.0);
        self.verdict(admitted, self.burst, self.burst.saturating_sub(used), full, wait)
    }

    /// The time that `count` tokens take to come, in nanoseconds and 1/limit nanoseconds.
    fn tokens(&self, count: u32) -> (u64, u32) {
        let scaled = u128::from(count) * u128::from(self.window);
        let limit = u128::from(self.limit);
        // The remainder is below `limit`, which is a u32.
        (u64::try_from(scaled / limit).unwrap_or(u64::MAX / 2), (scaled % limit) as u32)
    }

    fn carried(&self, whole: u64, rest: u64) -> (u64, u32) {
        let limit = u64::from(self.limit);
        // The remainder is below `limit`, which is a u32.
        (whole + rest / limit, (rest % limit) as u32)
    }

    /// The state as of the window that `now` is in. A clock that went backwards stands still.
    fn moved_on(&self, state: &State, now: u64) -> State {
        let index = now / self.window;
        match index.saturating_sub(state.at) {
            0 => *state,
            1 => State { at: index, current: 0, previous: state.current },
            _ => State { at: index, current: 0, previous: 0 },
        }
    }

    fn into_window(&self, state: &State, now: u64) -> u64 {
        now.saturating_sub(state.at * self.window)
    }

    /// What is left of the last window's count when `into` of this one has passed, rounded down.
    fn weighted(&self, previous: u32, into: u64) -> u32 {
        let scaled = u128::from(previous) * u128::from(self.window.saturating_sub(into));
        // At most `previous`, which is a u32.
        (scaled / u128::from(self.window)) as u32
    }

    /// How much of the window before still counts at `now`, in 1/2^32.
    pub(super) fn reach(&self, now: u64) -> u64 {
        let left = self.window - now % self.window;
        // At most 2^32.
        ((u128::from(left) << 32) / u128::from(self.window)) as u64
    }

    fn verdict(&self, admitted: bool, limit: u32, remaining: u32, reset: u64, wait: u64) -> Verdict {
        let retry_after = if admitted { Duration::ZERO } else { Duration::from_nanos(wait.max(1)) };
        Verdict { admitted, limit, remaining, reset: Duration::from_nanos(reset), retry_after }
    }
}
