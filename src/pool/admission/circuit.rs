//! The circuit breaker of one live backend, and the `circuit_breaker:` block of a pool.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::fault::{Faults, Place};
use crate::base::units::{Period, PoolName};
use crate::pool::admission::breaker::{Breaker, Change, Passing, Permit, Spec};

/// The `circuit_breaker:` block of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The percentage of failures that opens it.
    pub failure_percent: u32,
    /// Requests in the window below which it stays closed.
    pub minimum_requests: u32,
    /// The length of the window.
    pub window: Period,
    /// How long it stays open.
    pub open_for: Period,
    /// Concurrent probes in the half-open state, and successes that close it.
    pub probes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failure_percent: 50,
            minimum_requests: 20,
            window: Period::seconds(10),
            open_for: Period::seconds(5),
            probes: 3,
        }
    }
}

impl Config {
    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Spec {
        if !(1..=100).contains(&self.failure_percent) {
            let problem = format!("{} is not between 1 and 100", self.failure_percent);
            faults.add(place.key("failure_percent"), problem, "write for example 50");
        }
        for (key, count) in [("minimum_requests", self.minimum_requests), ("probes", self.probes)] {
            if count == 0 {
                faults.add(place.key(key), "must be at least 1", "remove the key to use the default");
            }
        }
        for (key, period) in [("window", self.window), ("open_for", self.open_for)] {
            if period.0.is_zero() {
                faults.add(place.key(key), "must be greater than zero", "write for example 5s");
            }
        }
        Spec {
            failure_percent: self.failure_percent,
            minimum_requests: self.minimum_requests,
            window: self.window.0,
            open_for: self.open_for.0,
            probes: self.probes,
        }
    }
}

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// All requests pass.
    Closed,
    /// No request passes.
    Open,
    /// A few probes pass.
    HalfOpen,
}

impl From<Passing> for CircuitState {
    fn from(passing: Passing) -> Self {
        match passing {
            Passing::All => Self::Closed,
            Passing::Nothing(_) => Self::Open,
            Passing::Probes => Self::HalfOpen,
        }
    }
}

/// The circuit breaker of one backend. Its lock is held for a few nanoseconds, and exists only if a breaker is
/// configured.
#[derive(Debug)]
pub struct Circuit {
    pool: PoolName,
    backend: BackendAddress,
    breaker: Mutex<Breaker>,
}

impl Circuit {
    /// A closed breaker.
    #[must_use]
    pub fn new(pool: PoolName, backend: BackendAddress, spec: Spec, now: Instant) -> Self {
        Self { pool, backend, breaker: Mutex::new(Breaker::new(spec, now)) }
    }

    /// Applies a new `spec`.
    pub fn reconfigure(&self, spec: Spec, now: Instant) {
        self.breaker.lock().reconfigure(spec, now);
    }

    /// Whether a request may pass.
    ///
    /// # Errors
    /// The time until the next request may pass; zero if that is unknown.
    pub fn check(&self, now: Instant) -> Result<(), Duration> {
        self.breaker.lock().check(now)
    }

    /// What passes at present.
    #[must_use]
    pub fn passing(&self, now: Instant) -> Passing {
        self.breaker.lock().passing(now)
    }

    /// Whether no request passes at present.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        matches!(self.passing(now), Passing::Nothing(_))
    }

    /// How many requests may pass at present.
    #[must_use]
    pub fn room(&self, now: Instant) -> u32 {
        self.breaker.lock().room(now)
    }

    /// Admits a request.
    ///
    /// # Errors
    /// The time until the next request may pass; zero if that is unknown.
    pub fn admit(&self, now: Instant) -> Result<Permit, Duration> {
        self.breaker.lock().admit(now)
    }

    /// Returns a permit with the outcome: whether the request failed, if known. Returns whether the breaker has
    /// opened or closed.
    pub fn settle(&self, permit: Permit, failed: Option<bool>, now: Instant) -> bool {
        let change = self.breaker.lock().settle(permit, failed, now);
        self.announce(change)
    }

    /// Records that a response broke off after its start had been settled as a success; see [`Breaker::broke_off`].
    /// Returns whether the breaker has opened.
    pub fn broke_off(&self, permit: Permit, corrects: bool, now: Instant) -> bool {
        let change = self.breaker.lock().broke_off(permit, corrects, now);
        self.announce(change)
    }

    /// Reports a change. Returns whether there is one.
    fn announce(&self, change: Option<Change>) -> bool {
        let (pool, backend) = (self.pool.clone(), self.backend);
        match change {
            Some(Change::Opened) => Event::CircuitOpened { pool, backend }.announce(),
            Some(Change::Closed) => Event::CircuitClosed { pool, backend }.announce(),
            None => return false,
        }
        true
    }
}
