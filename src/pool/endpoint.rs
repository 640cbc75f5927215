//! What is known about one backend while it is used: its health and its requests in flight.
//!
//! An endpoint rides in the extensions of Pingora's `Backend`, so that selection sees it without a
//! lookup, and is kept by address across discoveries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;

use super::health::Schedule;
use super::latency::Latency;

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

/// How a try at a backend went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer began.
    Answered(StatusCode),
    /// There was no connection to be had.
    ConnectFailed,
    /// The connection broke before the answer.
    Reset,
    /// The answer did not begin in time.
    TimedOut,
}

impl Outcome {
    /// Whether it speaks against the backend: no answer, or a status that says so itself.
    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::Answered(status) => matches!(status.as_u16(), 500 | 502 | 503 | 504),
            Self::ConnectFailed | Self::Reset | Self::TimedOut => true,
        }
    }
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
    /// When it came up after having been down; zero if it never was.
    up_since: AtomicU64,
    /// The address as text, for every access line.
    text: String,
    health: AtomicU8,
    in_flight: AtomicU32,
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
            up_since: AtomicU64::new(0),
            text: address.to_string(),
            health: AtomicU8::new(health as u8),
            in_flight: AtomicU32::new(0),
            schedule: Mutex::new(Schedule::default()),
        }
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

    /// How a try went. `latency` is the time from its begin to the answer's, or to the failure.
    pub fn record(&self, outcome: Outcome, latency: Duration, now: Instant) {
        let latency = if outcome.is_failure() { latency.max(FAILURE) } else { latency };
        self.latency.record(latency, self.nanoseconds(now));
    }

    /// How long it takes to answer, lately: peaks count at once and fade over 10 s. Zero before the first
    /// answer.
    #[must_use]
    pub fn latency(&self, now: Instant) -> Duration {
        self.latency.at(self.nanoseconds(now))
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
}

/// One request in flight at a backend; dropping it ends the count.
#[derive(Debug)]
pub struct Lease(Arc<Endpoint>);

impl Lease {
    /// Counts a request at `endpoint`.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.pool_in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    /// The backend that is working on the request.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.pool_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

    use super::*;

    #[test]
    fn what_comes_back_warms_up_and_failing_fast_is_slow() {
        let born = Instant::now();
        let endpoint = Endpoint::new("127.0.0.1:1".parse().unwrap(), Health::Unknown, Standing::default(), born);
        let (at, slow_start) = (|s| born + Duration::from_secs(s), Duration::from_secs(10));
        let warmth = |now| (endpoint.warmth(now, slow_start) * 100.0).round();
        endpoint.set_health(Health::Up, at(1));
        assert_eq!(warmth(at(1)), 100.0, "it was never down");
        endpoint.set_health(Health::Down, at(2));
        endpoint.set_health(Health::Up, at(3));
        assert_eq!([3, 4, 8, 13, 14].map(|s| warmth(at(s))), [10.0, 10.0, 50.0, 100.0, 100.0]);
        endpoint.set_draining(true, at(20));
        assert!(!endpoint.is_available());
        endpoint.set_draining(false, at(30));
        assert_eq!(warmth(at(35)), 50.0);
        endpoint.record(Outcome::ConnectFailed, Duration::from_micros(50), at(40));
        assert!(endpoint.latency(at(40)) >= FAILURE);
        assert!(!Outcome::Answered(StatusCode::NOT_FOUND).is_failure());
    }

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let endpoint = Arc::new(Endpoint::new(
            "127.0.0.1:1".parse().unwrap(),
            Health::Unknown,
            Standing::default(),
            Instant::now(),
        ));
        let lease = Lease::new(Arc::clone(&endpoint));
        let second = Lease::new(Arc::clone(&endpoint));
        assert_eq!(endpoint.in_flight(), 2);
        drop(lease);
        assert_eq!(second.endpoint().in_flight(), 1);
        drop(second);
        assert_eq!(endpoint.in_flight(), 0);
    }
}
