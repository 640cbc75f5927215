//! Limits on how many requests one client may make: three algorithms, fixed memory, and nobody
//! innocent pays.
//!
//! # The problem
//!
//! A map from client to counter is exact and grows with the number of clients, so whoever commands
//! many addresses commands our memory. A count-min sketch has a fixed size and counts too much once
//! many clients share it, so whoever commands many addresses gets everybody else refused. This
//! module has both, each for what it is good at:
//!
//! 1. An exact table (`table.rs`) with places for 131,072 clients. A place whose usage no longer
//!    matters (window over, bucket full again) is free for others. If a set has none, the client
//!    that has used least goes without: one that had a place, or the newcomer itself.
//! 2. Behind it a memory of the forgotten (`forgotten.rs`): two generations of pingora-limits'
//!    count-min sketch, in which the usage of those without a place is kept and from which they
//!    start. Noise is measured and taken off.
//!
//! What is optimised is the request of a known client: one hash, one small lock, integer
//! arithmetic, no allocation; some 50 ns. Newcomers and clients without a place also ask the
//! sketches, which in a flood takes some 500 ns. The first of them in a window waits a tenth of a
//! millisecond if an old sketch must be cleared, and once in a limiter's life for a sketch to be
//! allocated. A flood against windows of a few milliseconds is therefore dear.
//!
//! # Memory
//!
//! The table takes 3.25 MiB for windows and 4.25 MiB for buckets; each of the two sketches takes
//! 2 MiB and is allocated when the first client is forgotten. That is 7.25 MiB a limiter at most,
//! or 8.25 MiB with a bucket, whatever the number of clients.
//!
//! # When it errs, and in which direction
//!
//! * With 100,000 clients in a window some 5,000 find their set full. The sketch is then so empty
//!   that it remembers them exactly, even if all clients stand at their limit: that one of those
//!   5,000 collides with others in all rows happens about once in 100,000 such windows. In 3,600 of
//!   them, measured, no request was refused or let through wrongly.
//! * In a larger flood it errs for the client. What is taken off for noise is chosen so that a
//!   newcomer starts from zero, so who was forgotten is let through that much too often. But those
//!   who used least are forgotten, so a client that is anywhere near its limit keeps its place and
//!   is counted exactly. Only while a sketch becomes noisy and that has not been measured yet, a
//!   newcomer may be charged for another, about one in 10,000.
//! * If still more clients all use their whole limit in one window, those without a place are let
//!   through once the sketch is noisy. Of the requests that should have been refused, measured, 14 %
//!   passed with 131,000 such clients, 45 % with 200,000. Of those that should have passed, fewer
//!   than one in 10,000 was refused. Refusing the innocent is what such a flood would be for.
//! * With a limit of very few requests everybody has used as little as everybody else, and in a
//!   flood beyond the table's size an offender may be forgotten before its next request.
//! * The rules themselves: `fixed_window` allows two quotas around a window's edge; `sliding_window`
//!   assumes an even previous window (its error is told in `sliding_window.rs`); `token_bucket` is
//!   exact.
//!
//! A refused request is not counted. Otherwise a client that keeps asking too soon would never be
//! served again, and `retry_after` could promise nothing.
//!
//! # Time
//!
//! The clock is an argument. An instant before the epoch counts as the epoch. An instant before a
//! client's latest one counts as that one: threads read the clock before they take a lock, so
//! requests may arrive slightly out of order, and neither a fresh quota nor a wrong refusal may come
//! of it. A generation of the forgotten that was once passed does not come back.

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

/// How a limit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `limit` requests in each window; windows are aligned to the limiter's epoch.
    FixedWindow,
    /// The current window's count plus the share of the previous one that still lies within a
    /// window's length.
    SlidingWindow,
    /// A bucket of `burst` tokens, refilled evenly with `limit` tokens per window.
    TokenBucket,
}

/// A checked limit: algorithm and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// How it is counted.
    pub algorithm: Algorithm,
    /// Requests per window.
    pub limit: NonZeroU32,
    /// Length of the window; more than zero. Zero counts as one nanosecond, and more than 584 years
    /// as 584 years.
    pub window: Duration,
    /// Capacity of the token bucket in requests; the limit unless told. Windows ignore it.
    pub burst: NonZeroU32,
}

impl Spec {
    /// The most requests at one instant.
    #[must_use]
    pub fn quota(&self) -> u32 {
        match self.algorithm {
            Algorithm::FixedWindow | Algorithm::SlidingWindow => self.limit.get(),
            Algorithm::TokenBucket => self.burst.get(),
        }
    }

    /// How much it lets pass, in words.
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
    /// The word in the configuration.
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

/// What the limiter says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request may pass.
    pub admitted: bool,
    /// The quota to show to the client, in requests: the limit, or the burst of a token bucket.
    pub limit: u32,
    /// Further requests that would pass at the same instant.
    pub remaining: u32,
    /// Time until the quota is whole again, if nothing else is asked for: the end of a fixed window,
    /// the instant when a sliding window no longer covers anything, when a bucket is full.
    pub reset: Duration,
    /// Zero if admitted; else the time after which a request would pass, to the nanosecond, rounded
    /// up.
    pub retry_after: Duration,
}

impl Verdict {
    /// A limit's answer at `now`. Outcomes are told in time since `epoch`.
    fn new(spec: &Spec, epoch: Instant, outcome: Outcome, now: Instant) -> Self {
        let elapsed = nanoseconds(now.saturating_duration_since(epoch));
        // Only an instant before the epoch leads it; every wait is that much longer then.
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

/// The limit of one place in the configuration, shared by all threads that serve requests.
pub struct Limiter {
    spec: Spec,
    epoch: Instant,
    ledger: RuleLedger,
}

/// A ledger of whichever algorithm was asked for.
enum RuleLedger {
    Fixed(Ledger<FixedWindow>),
    Sliding(Ledger<SlidingWindow>),
    Bucket(Ledger<TokenBucket>),
}

impl Limiter {
    /// A limiter that has seen nobody. Windows are aligned to `epoch`.
    #[must_use]
    pub fn new(spec: Spec, epoch: Instant) -> Self {
        let ledger = match spec.algorithm {
            Algorithm::FixedWindow => RuleLedger::Fixed(Ledger::new(FixedWindow::new(&spec))),
            Algorithm::SlidingWindow => RuleLedger::Sliding(Ledger::new(SlidingWindow::new(&spec))),
            Algorithm::TokenBucket => RuleLedger::Bucket(Ledger::new(TokenBucket::new(&spec))),
        };
        Self { spec, epoch, ledger }
    }

    /// The limit as it was asked for.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Counts one request of `client` and says whether it may pass. A refused request is not
    /// counted.
    pub fn admit(&self, client: ClientKey, now: Instant) -> Verdict {
        let elapsed = nanoseconds(now.saturating_duration_since(self.epoch));
        let outcome = match &self.ledger {
            RuleLedger::Fixed(ledger) => ledger.admit(client, elapsed),
            RuleLedger::Sliding(ledger) => ledger.admit(client, elapsed),
            RuleLedger::Bucket(ledger) => ledger.admit(client, elapsed),
        };
        Verdict::new(&self.spec, self.epoch, outcome, now)
    }

    /// What a request of `client` would be told now, without counting it.
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

    /// How many clients can have a place in the exact table at the same time.
    #[must_use]
    pub fn places(&self) -> usize {
        match &self.ledger {
            RuleLedger::Fixed(ledger) => ledger.table.places(),
            RuleLedger::Sliding(ledger) => ledger.table.places(),
            RuleLedger::Bucket(ledger) => ledger.table.places(),
        }
    }

    /// Bytes of memory that the limiter takes at most. The number follows from its construction and
    /// does not depend on who has been counted.
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

/// The usages of all clients under one rule.
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
            // There is a set for every client; were there none, this one would have used nothing.
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
        // The set stays locked meanwhile: a client that comes back at once must find what it has
        // used either here or there.
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

    /// What a request of `client` would be told at `now`.
    fn look(&self, client: ClientKey, now: u64) -> Outcome {
        let known = self.table.set(client).and_then(|set| set.lock().find(client).copied());
        let mut usage = known.unwrap_or_else(|| {
            let tolerable = self.rule.tolerable_noise();
            self.rule.recall(now, |generation| self.forgotten.estimate(generation, client, tolerable))
        });
        self.rule.admit(&mut usage, now)
    }
}
