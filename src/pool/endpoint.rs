//! What is known about one backend while it is used: its health and its requests in flight.
//!
//! An endpoint rides in the extensions of Pingora's `Backend`, so that selection sees it without a
//! lookup, and is kept by address across discoveries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::event::Event;
use crate::base::units::{PoolName, Timestamp};
use crate::pool::admission::circuit::Circuit;
use crate::pool::health::schedule::Schedule;
use crate::pool::health::state::Health;
use crate::pool::latency::Latency;
use crate::pool::operator::administration::{Administration, Change, Override, State, Written};
use crate::pool::passive_health::state::{Observed, Trigger};
use crate::pool::passive_health::tally::Outcome;

/// What a failure counts for as a time to answer, at least: failing fast must not look like being fast.
const FAILURE: Duration = Duration::from_secs(1);

/// The least part of its share that a fresh backend gets: nothing warms up without requests.
const COLD: f64 = 0.1;

/// What the configuration says about a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is written about it alone.
    pub written: Written,
    /// Whether its health is checked; otherwise it is taken to be well.
    pub checked: bool,
}

/// What a backend has in common with the others of its pool.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Counts the requests in flight of the whole pool.
    pub in_flight: Arc<AtomicU32>,
    /// Wakes the outlier monitor of the pool.
    pub trigger: Arc<Trigger>,
    /// Told when a backend may take requests that it might not take before, or the other way round.
    pub changed: Arc<Notify>,
}

/// The live state of one backend. It outlives the pool that found it, where the configuration changes and
/// the pool in its place has the same backend.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// Where its clock begins; times are nanoseconds from here.
    born: Instant,
    backup: AtomicBool,
    checked: AtomicBool,
    administration: Administration,
    pool_in_flight: Arc<AtomicU32>,
    changed: Arc<Notify>,
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
    circuit: ArcSwapOption<Circuit>,
    /// When requests that are still in flight are cut, by its clock; zero while it belongs to its pool.
    cut_at: AtomicU64,
    /// The pool that it was removed from, and how many requests were cut.
    removal: Mutex<Option<(PoolName, u32)>>,
    /// Only the pool's health check task takes this lock; requests read `health`.
    pub(in crate::pool) schedule: Mutex<Schedule>,
}

impl Endpoint {
    /// A backend about which nothing is known yet.
    #[must_use]
    pub fn new(address: SocketAddr, standing: Standing, shared: Shared, now: Instant) -> Self {
        let health = if standing.checked { Health::Unknown } else { Health::Up };
        Self {
            address,
            born: now,
            backup: AtomicBool::new(standing.written.backup),
            checked: AtomicBool::new(standing.checked),
            administration: Administration::new(standing.written),
            pool_in_flight: shared.in_flight,
            changed: shared.changed,
            latency: Latency::default(),
            quiet_since: AtomicU64::new(0),
            up_since: AtomicU64::new(0),
            text: address.to_string(),
            health: AtomicU8::new(health as u8),
            in_flight: AtomicU32::new(0),
            observed: Observed::new(shared.trigger),
            circuit: ArcSwapOption::empty(),
            cut_at: AtomicU64::new(0),
            removal: Mutex::new(None),
            schedule: Mutex::new(Schedule::default()),
        }
    }

    /// From now on `standing` holds. What is known stays: health, counts, times. What an operator said of it
    /// ends where the file says something else than before; it is returned then.
    pub(in crate::pool) fn follow(&self, standing: Standing, now: Instant) -> Option<Override> {
        // It may have been on its way out.
        self.cut_at.store(0, Ordering::Relaxed);
        *self.removal.lock() = None;
        self.backup.store(standing.written.backup, Ordering::Relaxed);
        self.checked.store(standing.checked, Ordering::Relaxed);
        let before = self.state();
        let ended = self.administration.follow(standing.written);
        self.turn(before, now);
        if !standing.checked {
            // Nobody would bring back what checks took out.
            self.set_health(Health::Up, now);
            *self.schedule.lock() = Schedule::default();
        }
        ended
    }

    /// An operator says something else than the file.
    pub(in crate::pool) fn change(&self, change: Change, since: Timestamp, now: Instant) {
        let before = self.state();
        self.administration.change(change, since);
        self.turn(before, now);
        self.changed();
    }

    /// What follows from another state than `before`. Who comes back does so through slow start.
    fn turn(&self, before: State, now: Instant) {
        let state = self.state();
        if state == before {
            return;
        }
        if before == State::Disabled && self.checked.load(Ordering::Relaxed) {
            // What was known of it is old.
            self.health.store(Health::Unknown as u8, Ordering::Relaxed);
            *self.schedule.lock() = Schedule::default();
        }
        if state == State::Enabled {
            self.start_slowly(now);
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

    /// Whether there is nothing to wait for before its health is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.health() != Health::Unknown || self.state() == State::Disabled
    }

    /// Whether new requests may be sent to it.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.is_up() && self.state() == State::Enabled
    }

    /// Whether it takes traffic only when too few primaries can.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.backup.load(Ordering::Relaxed)
    }

    /// Whether it is to have requests.
    #[must_use]
    pub fn state(&self) -> State {
        self.administration.state()
    }

    /// Its share of the traffic relative to the other backends.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.administration.weight()
    }

    /// What an operator says of it instead of the file.
    #[must_use]
    pub fn overridden(&self) -> Option<Override> {
        self.administration.overridden()
    }

    /// What the file says of it.
    #[must_use]
    pub fn written(&self) -> Written {
        self.administration.written()
    }

    /// What it may be given has changed, which concerns those who wait for a backend.
    pub(in crate::pool) fn changed(&self) {
        self.changed.notify_one();
    }

    pub(in crate::pool) fn set_health(&self, health: Health, now: Instant) {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        if before == Health::Down as u8 && health == Health::Up {
            self.start_slowly(now);
        }
        if before != health as u8 {
            self.changed();
        }
    }

    /// It no longer belongs to `pool`: requests in flight are cut after `limit`.
    pub fn remove(&self, pool: &PoolName, limit: Duration, now: Instant) {
        let mut removal = self.removal.lock();
        if self.cut_at.load(Ordering::Relaxed) != 0 {
            return;
        }
        *removal = Some((pool.clone(), 0));
        drop(removal);
        self.cut_at.store(self.nanoseconds(now + limit).max(1), Ordering::Release);
        if self.in_flight() == 0 {
            self.announce_removal();
        }
    }

    /// Whether requests that are still in flight are to be cut, since it was removed too long ago. The clock
    /// is only asked for one that was removed.
    #[must_use]
    pub fn is_cut(&self, now: impl FnOnce() -> Instant) -> bool {
        let cut_at = self.cut_at.load(Ordering::Relaxed);
        cut_at != 0 && cut_at <= self.nanoseconds(now())
    }

    /// A request was cut.
    pub fn count_cut(&self) {
        if let Some((_, cut)) = &mut *self.removal.lock() {
            *cut = cut.saturating_add(1);
        }
    }

    fn announce_removal(&self) {
        if let Some((pool, cut)) = self.removal.lock().take() {
            Event::BackendRemoved { pool, backend: self.address, cut }.announce();
        }
    }

    /// From now on it counts as fresh: its share grows over the pool's slow start, and what it took to
    /// answer, or failed, before it was away says nothing about it.
    pub fn start_slowly(&self, now: Instant) {
        self.latency.forget();
        self.up_since.store(self.nanoseconds(now).max(1), Ordering::Relaxed);
    }

    /// The part of its share that it is to have: 0.1 when it has just come back, then growing evenly to 1.
    #[must_use]
    pub fn warmth(&self, now: Instant, slow_start: Duration) -> f64 {
        let since = self.up_since.load(Ordering::Relaxed);
        if since == 0 || slow_start.is_zero() {
            return 1.0;
        }
        let age = self.nanoseconds(now).saturating_sub(since) as f64 / 1e9;
        (age / slow_start.as_secs_f64()).clamp(COLD, 1.0)
    }

    /// An answer has begun that is no failure so far. `latency` is what it took, where that is known.
    pub fn begins_to_answer(&self, latency: Option<Duration>, now: Instant) {
        let now = self.nanoseconds(now);
        self.quiet_since.store(now, Ordering::Relaxed);
        if let Some(latency) = latency {
            self.observed.time(latency);
            self.latency.record(latency, now);
        }
    }

    /// A try has failed. `latency` is the time from its begin to the answer's, where there was one.
    pub fn record(&self, failure: Outcome, latency: Option<Duration>, now: Instant) {
        let now = self.nanoseconds(now);
        self.quiet_since.store(now, Ordering::Relaxed);
        if let Some(latency) = latency {
            self.observed.time(latency);
        }
        self.observed.record(failure);
        self.latency.record(latency.unwrap_or_default().max(FAILURE), now);
    }

    /// Somebody waited for so long and then left without an answer. That says how long an answer takes
    /// at least.
    pub(in crate::pool) fn waited_in_vain(&self, waited: Duration, now: Instant) {
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
    pub fn circuit(&self) -> Option<Arc<Circuit>> {
        self.circuit.load_full()
    }

    pub(in crate::pool) fn set_circuit(&self, circuit: Option<Circuit>) {
        self.circuit.store(circuit.map(Arc::new));
    }

    /// A request begins; only a [`crate::pool::Lease`] says so.
    pub(in crate::pool) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.pool_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request waits for its answer; only a [`crate::pool::Lease`] says so.
    pub(in crate::pool) fn begin_waiting(&self, since: Instant) {
        if self.observed.tally().asked() == 0 {
            self.quiet_since.store(self.nanoseconds(since), Ordering::Relaxed);
        }
    }

    /// It waits no more.
    pub(in crate::pool) fn end_waiting(&self) {
        self.observed.tally().released();
    }

    /// A request ends.
    pub(in crate::pool) fn end(&self) {
        self.pool_in_flight.fetch_sub(1, Ordering::Relaxed);
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if before == 1 && self.cut_at.load(Ordering::Acquire) != 0 {
            self.announce_removal();
        }
    }
}
