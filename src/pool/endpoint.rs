//! What is known about one backend while it is used: its health and its requests in flight.
//!
//! An endpoint rides in the extensions of Pingora's `Backend`, so that selection sees it without a
//! lookup, and is kept by address across discoveries.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::circuit::Circuit;
use super::health::Schedule;
use super::passive::Observed;

/// What health checks say about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// No check has finished yet; such a backend is not used.
    Unknown = 0,
    /// It may take requests.
    Up = 1,
    /// It may not.
    Down = 2,
}

/// The live state of one backend.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// The address as text, for every access line.
    text: String,
    health: AtomicU8,
    in_flight: AtomicU32,
    observed: Observed,
    circuit: Option<Circuit>,
    /// Only the pool's health check task takes this lock; requests read `health`.
    pub(super) schedule: Mutex<Schedule>,
}

impl Endpoint {
    /// A backend about which nothing is known yet.
    #[must_use]
    pub fn new(address: SocketAddr, health: Health) -> Self {
        Self {
            address,
            text: address.to_string(),
            health: AtomicU8::new(health as u8),
            in_flight: AtomicU32::new(0),
            observed: Observed::default(),
            circuit: None,
            schedule: Mutex::new(Schedule::default()),
        }
    }

    /// Lets traffic judge it: by its peers, and by a circuit breaker of its own.
    #[must_use]
    pub fn judged(self, observed: Observed, circuit: Option<Circuit>) -> Self {
        Self { observed, circuit, ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the checks say.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Unknown,
            1 => Health::Up,
            _ => Health::Down,
        }
    }

    /// Whether it may take requests.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.health() == Health::Up
    }

    pub(super) fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    /// How many requests it is working on for this process.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What its traffic says about it.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Its circuit breaker, where the pool has them.
    #[must_use]
    pub fn circuit(&self) -> Option<&Circuit> {
        self.circuit.as_ref()
    }

    /// A request begins; only a [`super::Lease`] says so.
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.observed.tally().asked();
    }

    /// A request ends.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
