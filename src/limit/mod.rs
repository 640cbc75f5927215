//! How many requests a client may send: three algorithms, fixed memory, exact for the innocent.
//!
//! # Why not a sketch alone
//! pingora-limits' [`Estimator`](pingora_limits::estimator::Estimator) counts any number of clients
//! in a fixed space, but it only ever counts too much: in a flood of 100,000 addresses a client at
//! 99 of its 100 requests is refused because others share its counters. A configured limit is a
//! promise, so the sketch is only asked where nothing better is left:
//!
//! 1. An exact [`table`] of 131,072 clients, in sets of eight behind small locks. A lookup is one
//!    hash and one uncontended lock.
//! 2. When a set is full of live entries, the one that has used least is forgotten: what it used
//!    goes into an `Estimator` ([`forgotten`]), and comes back from there if the client does.
//!
//! A flood of strangers therefore pushes out strangers. Who has used much of its quota stays exact.
//! The sketch holds only what was forgotten, less its expected noise, so it errs by little; where
//! it errs in the other direction (a forgotten client counted too low), a client gets a few
//! requests too many.
//!
//! # Cost
//! About 8 MiB for each limiter (4 MiB table, 2 × 2 MiB sketch), whatever happens.
//!
//! # Choices
//! A refused request is not counted, so a client that goes on trying is served again as soon as its
//! quota allows. IPv6 clients are told apart by their /64 ([`crate::net::ClientKey`]).

mod algorithm;
mod config;
mod forgotten;
mod table;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

pub use algorithm::Algorithm;
pub use config::Config;

use crate::net::ClientKey;
use algorithm::Rule;
use table::Table;

/// A checked limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// Requests for each window.
    pub limit: NonZeroU32,
    /// The length of the window; longer than nothing.
    pub window: Duration,
    /// What a token bucket holds.
    pub burst: NonZeroU32,
}

/// The limit's answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request may pass.
    pub admitted: bool,
    /// The quota: the limit, or what the bucket holds.
    pub limit: u32,
    /// What is left of it after this request.
    pub remaining: u32,
    /// Until the quota is whole again.
    pub reset: Duration,
    /// Until a further request would pass; nothing where this one did.
    pub retry_after: Duration,
}

/// One limit with its memory of clients, shared by all request threads.
pub struct Limiter {
    spec: Spec,
    epoch: Instant,
    table: Table,
}

impl Limiter {
    /// A limiter that has seen nobody. Windows are aligned to `epoch`.
    #[must_use]
    pub fn new(spec: Spec, epoch: Instant) -> Self {
        Self { spec, epoch, table: Table::new(Rule::new(&spec)) }
    }

    /// The limit.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Decides about one request of `client`, and counts it if it may pass.
    ///
    /// A clock that goes backwards is taken to stand still.
    #[must_use]
    pub fn admit(&self, client: ClientKey, now: Instant) -> Verdict {
        let elapsed = now.saturating_duration_since(self.epoch);
        // 2^64 nanoseconds are 584 years.
        self.table.admit(client, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX / 4))
    }
}

#[cfg(test)]
mod tests;
