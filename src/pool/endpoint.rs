//! What is known about one backend while it is used: its health and its requests in flight.
//!
//! An endpoint rides in the extensions of Pingora's `Backend`, so that selection sees it without a
//! lookup, and is kept by address across discoveries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::circuit::Circuit;
use super::health::Schedule;
use super::latency::Latency;
use super::outlier::Outcome;
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

/// What a failure counts for as a time to answer, at least: failing fast must not look like being fast.
const FAILURE: Duration = Duration::from_secs(1);

/// The least part of its share that a fresh backend gets: nothing warms up without requests.
const COLD: f64 = 0.1;

/// What is said about a backend when it is made.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Takes traffic only when too few primaries can.
    pub backup: bool,
    /// Takes no new requests.
    pub drain: bool,
    /// Counts the requests in flight of the whole pool.
    pub pool_in_flight: Arc<AtomicU32>,
}

/// The live state of one backend.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// Where its clock begins; times are nanoseconds from here.
    born: Instant,
    backup: bool,
    draining: AtomicBool,
    pool_in_flight: Arc<AtomicU32>,
    latency: Latency,
    /// Since when nobody of those who wait was answered.
    quiet_since: AtomicU64,
    /// When it came up after having been down; zero if it never was.
    up_since: AtomicU64,
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
    pub fn new(address: SocketAddr, health: Health, standing: Standing, now: Instant) -> Self {
        Self {
            address,
            born: now,
            backup: standing.backup,
            draining: AtomicBool::new(standing.drain),
            pool_in_flight: standing.pool_in_flight,
            latency: Latency::default(),
            quiet_since: AtomicU64::new(0),
            up_since: AtomicU64::new(0),
            text: address.to_string(),
            health: AtomicU8::new(health as u8),
            in_flight: AtomicU32::new(0),
            observed: Observed::default(),
            circuit: None,
            schedule: Mutex::new(Schedule::default()),
        }
    }

    /// Takes over what checks said about the same backend, and when it is checked next.
    #[must_use]
    pub(super) fn succeeding(self, before: &Self) -> Self {
        self.health.store(before.health() as u8, Ordering::Relaxed);
        *self.schedule.lock() = before.schedule.lock().clone();
        self
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

    /// Whether new requests may be sent to it.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.is_up() && !self.is_draining()
    }

    /// Whether it takes traffic only when too few primaries can.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.backup
    }

    /// Whether it is to have no new requests while open ones finish.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Begins or ends draining. What ends comes back through slow start.
    pub fn set_draining(&self, draining: bool, now: Instant) {
        if self.draining.swap(draining, Ordering::Relaxed) && !draining {
            self.start_slowly(now);
        }
    }

    pub(super) fn set_health(&self, health: Health, now: Instant) {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        if before == Health::Down as u8 && health == Health::Up {
            self.start_slowly(now);
        }
    }

    /// From now on it counts as fresh: its share grows over the pool's slow start.
    pub fn start_slowly(&self, now: Instant) {
        self.up_since.store(self.nanoseconds(now).max(1), Ordering::Relaxed);
    }

    /// The part of its share that it is to have: 0.1 when it has just come back, then growing evenly to 1.
    #[must_use]
    pub fn warmth(&self, now: Instant, slow_start: Duration) -> f64 {
        let since = self.up_since.load(Ordering::Relaxed);
        if since == 0 {
            return 1.0;
        }
        let age = self.nanoseconds(now).saturating_sub(since) as f64 / 1e9;
        (age / slow_start.as_secs_f64()).clamp(COLD, 1.0)
    }

    /// How a try went. `latency` is the time from its begin to the answer's, where there was one.
    pub fn record(&self, outcome: Outcome, latency: Option<Duration>, now: Instant) {
        self.observed.record(outcome, latency);
        self.quiet_since.store(self.nanoseconds(now), Ordering::Relaxed);
        let latency = match (outcome, latency) {
            (Outcome::Success, Some(latency)) => latency,
            (Outcome::Success, None) => return,
            (_, latency) => latency.unwrap_or_default().max(FAILURE),
        };
        self.latency.record(latency, self.nanoseconds(now));
    }

    /// Somebody waited for so long and then left without an answer. That says how long an answer takes
    /// at least.
    pub(super) fn waited_in_vain(&self, waited: Duration, now: Instant) {
        let now = self.nanoseconds(now);
        if waited > self.latency.at(now) {
            self.latency.record(waited, now);
        }
    }

    /// How long it takes to answer, lately: peaks count at once and fade over 10 s. While requests wait
    /// it is at least as long as none was answered, so that a backend that hangs is known for it before
    /// anybody gives up. Zero before the first answer.
    #[must_use]
    pub fn latency(&self, now: Instant) -> Duration {
        let now = self.nanoseconds(now);
        let measured = self.latency.at(now);
        if measured.is_zero() || self.observed.tally().waiting() == 0 {
            return measured;
        }
        measured.max(Duration::from_nanos(now.saturating_sub(self.quiet_since.load(Ordering::Relaxed))))
    }

    /// The endpoint's clock; an age in nanoseconds fits for five centuries.
    fn nanoseconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_nanos() as u64
    }

    /// How many requests all backends of its pool are working on for this process.
    #[must_use]
    pub fn pool_in_flight(&self) -> u32 {
        self.pool_in_flight.load(Ordering::Relaxed)
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
        self.pool_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request waits for its answer; only a [`super::Lease`] says so.
    pub(super) fn begin_waiting(&self, since: Instant) {
        if self.observed.tally().asked() == 0 {
            self.quiet_since.store(self.nanoseconds(since), Ordering::Relaxed);
        }
    }

    /// It waits no more.
    pub(super) fn end_waiting(&self) {
        self.observed.tally().released();
    }

    /// A request ends.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.pool_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
