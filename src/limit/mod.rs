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
//! 1. An exact [`table`] with places for 131,072 clients. Places whose usage no longer matters
//!    (window over, bucket full again) are free for others. If there is none, the client that has
//!    used least gives way, or the newcomer itself if it has used less still.
//! 2. Behind it a memory of the [`forgotten`]: two generations of pingora-limits' count-min sketch,
//!    to which the usage of those who gave way is moved, and where a client without a place starts
//!    from. Noise is measured and taken off.
//!
//! The first is what a request of a known client costs: one hash, one small lock, integer
//! arithmetic, no allocation. The second is reached by newcomers and returning clients only.
//!
//! # Memory
//!
//! The table takes 3.3 MB (3.1 MiB) for windows and 4.3 MB (4.1 MiB) for buckets, the sketches take
//! 2 MiB each and are allocated when the first client has to give way: at most 8.3 MiB a limiter,
//! whatever the number of clients.
//!
//! # When it errs, and in which direction
//!
//! * Up to 131,072 clients it hardly forgets, and what it forgets it remembers exactly. With 100,000
//!   addresses in a window some 5,000 find their set full; the chance that one of those is charged
//!   for another is about one in a million.
//! * In a larger flood it errs for the client. What is taken off for noise is chosen so that a
//!   newcomer starts from zero, so a client that was forgotten may be let through that much too
//!   often: about 30 requests in a flood of a million one-shot clients in one window, once per
//!   window. But in a flood those who used least give way, so clients that are anywhere near a limit
//!   keep their places and stay exact.
//! * More than 131,072 clients that all use much exceed what it can tell apart: then part of those
//!   who return are let through, and still no newcomer is refused for them.
//! * With a limit of very few requests, everybody has used about as little as everybody else, and
//!   in a flood an offender may be forgotten before its next request.
//! * The rules themselves: `fixed_window` allows two quotas around a window's edge; `sliding_window`
//!   assumes an even previous window (its error is told in [`sliding_window`]); `token_bucket` is
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

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

pub use config::Config;

use crate::net::ClientKey;

mod config;
mod fixed_window;
mod forgotten;
mod rule;
mod sliding_window;
mod table;
#[cfg(test)]
mod tests;
mod token_bucket;

use fixed_window::FixedWindow;
use forgotten::Forgotten;
use rule::{Outcome, Rule, nanoseconds};
use sliding_window::SlidingWindow;
use table::Table;
use token_bucket::TokenBucket;

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
        // Only an instant before the epoch leads it; every wait is that much longer then.
        let lead = self.epoch.saturating_duration_since(now);
        let until = |instant: u64| Duration::from_nanos(instant.saturating_sub(elapsed)).saturating_add(lead);
        Verdict {
            admitted: outcome.refused_until.is_none(),
            limit: self.quota(),
            remaining: outcome.remaining,
            reset: until(outcome.whole_at),
            retry_after: outcome.refused_until.map_or(Duration::ZERO, until),
        }
    }

    /// How many clients are counted exactly, whatever they use.
    #[must_use]
    pub fn exact_clients(&self) -> usize {
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

    fn quota(&self) -> u32 {
        match self.spec.algorithm {
            Algorithm::FixedWindow | Algorithm::SlidingWindow => self.spec.limit.get(),
            Algorithm::TokenBucket => self.spec.burst.get(),
        }
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
        let mut usage = self.rule.recall(&self.forgotten, client, now);
        let outcome = self.rule.admit(&mut usage, now);
        let displaced = set.place(client, usage, |usage| self.rule.weight(usage, now));
        if let Some((client, usage)) = displaced {
            // The set stays locked meanwhile: a displaced client that comes back at once must find
            // what it has used either here or there.
            self.rule.forget(&self.forgotten, client, &usage, now);
        }
        outcome
    }
}
