//! Rate limits per client: three algorithms in fixed memory, without rejecting clients within their limit.
//!
//! # The problem
//!
//! A map from client to counter is exact but grows with the number of clients, so an attacker with many
//! addresses controls the memory. A count-min sketch has a fixed size but overestimates when many clients share
//! it, so an attacker with many addresses gets all other clients rejected. This module combines both:
//!
//! 1. An exact table (`table.rs`) with slots for 131,072 clients. A slot whose usage no longer matters (window
//!    over, bucket full) is reused. If a set has no free slot, the client with the least usage gets none: a
//!    client with a slot, or the new one.
//! 2. A memory of forgotten clients (`forgotten.rs`): two generations of the count-min sketch of
//!    pingora-limits, which keep the usage of clients without a slot. Noise is measured and subtracted.
//!
//! The optimised case is a request of a known client: one hash, one small lock, integer arithmetic, no
//! allocation; about 50 ns. New clients and clients without a slot also use the sketches, about 500 ns during a
//! flood. The first of them in a window waits a tenth of a millisecond if an old sketch must be cleared, and
//! once per limiter for the allocation of a sketch. A flood against windows of a few milliseconds is therefore
//! expensive.
//!
//! # Memory
//!
//! The table takes 3.25 MiB for windows and 4.25 MiB for buckets; each of the two sketches takes 2 MiB and is
//! allocated when the first client is forgotten. So a limiter takes at most 7.25 MiB, or 8.25 MiB with buckets,
//! for any number of clients.
//!
//! # Accuracy
//!
//! * With 100,000 clients in a window, about 5,000 find their set full. The sketch is then so empty that it
//!   remembers them exactly, even if all clients have reached their limit: a collision in all rows among those
//!   5,000 happens about once in 100,000 such windows. In 3,600 of them, measured, no decision was wrong.
//! * In a larger flood it errs in favour of clients. The subtracted noise is chosen so that a new client starts
//!   from zero, so forgotten clients are admitted that much too often. The clients with the least usage are
//!   forgotten, so a client near its limit keeps its slot and is counted exactly. Only while a sketch becomes
//!   noisy, before that is measured, a new client may be charged for another one, about one in 10,000.
//! * If still more clients use their whole limit in one window, those without a slot are admitted once the
//!   sketch is noisy. Measured: of the requests over the limit 14 % passed with 131,000 such clients, 45 % with
//!   200,000. Of the requests within the limit fewer than one in 10,000 was rejected. Rejecting clients within
//!   their limit would be the purpose of such a flood.
//! * With a limit of very few requests all clients have used about the same, and in a flood larger than the
//!   table an offender may be forgotten before its next request.
//! * The algorithms: `fixed_window` allows two quotas around the edge of a window; `sliding_window` assumes an
//!   even previous window (see its error in `sliding_window.rs`); `token_bucket` is exact.
//!
//! A rejected request is not counted. Otherwise a client that retries too early would never be admitted, and
//! `retry_after` would be meaningless.
//!
//! # Time
//!
//! The time is an argument. An instant before the epoch counts as the epoch. An instant before the last one of
//! a client counts as that one: threads read the clock before they take a lock, so requests may arrive slightly
//! out of order, which must neither grant a fresh quota nor reject wrongly. A dropped generation of forgotten
//! clients does not return.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

pub use config::Config;

use crate::http::client_address::ClientKey;

mod config;
mod fixed_window;
#[cfg(test)]
mod floods;
mod forgotten;
mod rule;
mod sliding_window;
mod table;
#[cfg(test)]
mod tests;
mod token_bucket;
mod trial;

use fixed_window::FixedWindow;
use forgotten::Forgotten;
use rule::{Outcome, Rule, nanoseconds};
use sliding_window::SlidingWindow;
use table::{Placed, Table};
use token_bucket::TokenBucket;
pub use trial::Trial;

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

/// The decision about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request is admitted.
    pub admitted: bool,
    /// The quota for the client, in requests: the limit, or the burst of a token bucket.
    pub limit: u32,
    /// Further requests that would be admitted at the same instant.
    pub remaining: u32,
    /// Time until the quota is full again without further requests: the end of a fixed window, the instant when
    /// a sliding window covers no request, or when a bucket is full.
    pub reset: Duration,
    /// Zero if admitted; otherwise the time after which a request would be admitted, rounded up to the
    /// nanosecond.
    pub retry_after: Duration,
}

impl Verdict {
    /// The verdict at `now`. Outcomes are in time since `epoch`.
    fn new(spec: &Spec, epoch: Instant, outcome: Outcome, now: Instant) -> Self {
        let elapsed = nanoseconds(now.saturating_duration_since(epoch));
        // Only an instant before the epoch has a lead; every wait is longer by it.
        let lead = epoch.saturating_duration_since(now);
        let until = |instant: u64| Duration::from_nanos(instant.saturating_sub(elapsed)).saturating_add(lead);
        Self {
            admitted: outcome.refused_until.is_none(),
            limit: spec.quota(),
            remaining: outcome.remaining,
            reset: until(outcome.whole_at),
            retry_after: outcome.refused_until.map_or(Duration::ZERO, until),
        }
    }
}

/// One configured limit, shared by all threads.
pub struct Limiter {
    spec: Spec,
    epoch: Instant,
    ledger: RuleLedger,
}

/// A ledger of the configured algorithm.
enum RuleLedger {
    Fixed(Ledger<FixedWindow>),
    Sliding(Ledger<SlidingWindow>),
    Bucket(Ledger<TokenBucket>),
}

impl Limiter {
    /// A limiter without usage. Windows are aligned to `epoch`.
    #[must_use]
    pub fn new(spec: Spec, epoch: Instant) -> Self {
        let ledger = match spec.algorithm {
            Algorithm::FixedWindow => RuleLedger::Fixed(Ledger::new(FixedWindow::new(&spec))),
            Algorithm::SlidingWindow => RuleLedger::Sliding(Ledger::new(SlidingWindow::new(&spec))),
            Algorithm::TokenBucket => RuleLedger::Bucket(Ledger::new(TokenBucket::new(&spec))),
        };
        Self { spec, epoch, ledger }
    }

    /// The checked limit.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Counts one request of `client` and decides. A rejected request is not counted.
    pub fn admit(&self, client: ClientKey, now: Instant) -> Verdict {
        let elapsed = nanoseconds(now.saturating_duration_since(self.epoch));
        let outcome = match &self.ledger {
            RuleLedger::Fixed(ledger) => ledger.admit(client, elapsed),
            RuleLedger::Sliding(ledger) => ledger.admit(client, elapsed),
            RuleLedger::Bucket(ledger) => ledger.admit(client, elapsed),
        };
        Verdict::new(&self.spec, self.epoch, outcome, now)
    }

    /// The decision about a request of `client`, without counting it.
    #[must_use]
    pub fn look(&self, client: ClientKey, now: Instant) -> Verdict {
        let elapsed = nanoseconds(now.saturating_duration_since(self.epoch));
        let outcome = match &self.ledger {
            RuleLedger::Fixed(ledger) => ledger.look(client, elapsed),
            RuleLedger::Sliding(ledger) => ledger.look(client, elapsed),
            RuleLedger::Bucket(ledger) => ledger.look(client, elapsed),
        };
        Verdict::new(&self.spec, self.epoch, outcome, now)
    }

    /// The number of slots in the exact table.
    #[must_use]
    pub fn places(&self) -> usize {
        match &self.ledger {
            RuleLedger::Fixed(ledger) => ledger.table.places(),
            RuleLedger::Sliding(ledger) => ledger.table.places(),
            RuleLedger::Bucket(ledger) => ledger.table.places(),
        }
    }

    /// The largest memory of the limiter in bytes. It does not depend on the clients.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let table = match &self.ledger {
            RuleLedger::Fixed(ledger) => ledger.table.size_bytes(),
            RuleLedger::Sliding(ledger) => ledger.table.size_bytes(),
            RuleLedger::Bucket(ledger) => ledger.table.size_bytes(),
        };
        size_of::<Self>() + table + Forgotten::size_bytes()
    }
}

/// The usage of all clients under one algorithm.
struct Ledger<R: Rule> {
    rule: R,
    table: Table<R::Usage>,
    forgotten: Forgotten,
}

impl<R: Rule> Ledger<R> {
    fn new(rule: R) -> Self {
        Self { rule, table: Table::new(), forgotten: Forgotten::new() }
    }

    /// Counts one request of `client` at `now`, in nanoseconds since the epoch.
    fn admit(&self, client: ClientKey, now: u64) -> Outcome {
        let Some(set) = self.table.set(client) else {
            // There is a set for every client; without one, this client would have used nothing.
            return self.rule.admit(&mut R::Usage::default(), now);
        };
        let mut set = set.lock();
        if let Some(usage) = set.find(client) {
            return self.rule.admit(usage, now);
        }
        let tolerable = self.rule.tolerable_noise();
        let estimate = |generation| self.forgotten.estimate(generation, client, tolerable);
        let mut usage = self.rule.recall(now, estimate);
        let outcome = self.rule.admit(&mut usage, now);
        let weight = |usage: &R::Usage| self.rule.weight(usage, now);
        // The set stays locked: a client that returns immediately must find its usage either here or there.
        match set.place(client, usage, self.forgotten.is_noisy(), weight) {
            Placed::Free => {}
            Placed::InsteadOf(client, usage) => {
                for (generation, amount) in self.rule.amounts(&usage, now) {
                    self.forgotten.raise(generation, client, amount);
                }
            }
            Placed::Nowhere => {
                for (generation, amount) in self.rule.amounts(&usage, now) {
                    self.forgotten.add(generation, client, amount, tolerable);
                }
            }
        }
        outcome
    }

    /// The decision about a request of `client` at `now`, without counting it.
    fn look(&self, client: ClientKey, now: u64) -> Outcome {
        let known = self.table.set(client).and_then(|set| set.lock().find(client).copied());
        let mut usage = known.unwrap_or_else(|| {
            let tolerable = self.rule.tolerable_noise();
            self.rule.recall(now, |generation| self.forgotten.estimate(generation, client, tolerable))
        });
        self.rule.admit(&mut usage, now)
    }
}
