//! The limiter: the exact table and the memory of forgotten clients under one algorithm.

use std::time::Instant;

use super::fixed_window::FixedWindow;
use super::forgotten::Forgotten;
use super::rule::{Outcome, Rule, nanoseconds};
use super::sliding_window::SlidingWindow;
use super::spec::{Algorithm, Spec};
use super::table::{Placed, Table};
use super::token_bucket::TokenBucket;
use super::verdict::Verdict;
use crate::http::client_address::ClientKey;

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
    pub fn slots(&self) -> usize {
        match &self.ledger {
            RuleLedger::Fixed(ledger) => ledger.table.slots(),
            RuleLedger::Sliding(ledger) => ledger.table.slots(),
            RuleLedger::Bucket(ledger) => ledger.table.slots(),
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
