//! The state of one backend: health, ejection, latency and requests in flight.
//!
//! An endpoint is attached to Pingora's `Backend` as an extension, so that selection needs no lookup, and is
//! kept by address across discoveries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::{PoolName, Timestamp, Zone};
use crate::pool::admission::circuit::Circuit;
use crate::pool::health::schedule::Schedule;
use crate::pool::health::state::Health;
use crate::pool::learned::idle_limit::IdleLimit;
use crate::pool::learned::latency::Latency;
use crate::pool::operator::event_limit::EventLimit;
use crate::pool::operator::overrides::{Change, ConfiguredSettings, OperatorSettings, Override, State};
use crate::pool::passive_health::state::{PassiveHealth, Trigger};
use crate::pool::passive_health::tally::Outcome;

/// A failure counts as a latency of at least this. Otherwise a backend that fails fast would look fast.
const FAILURE_LATENCY_MIN: Duration = Duration::from_secs(1);

/// The smallest slow start factor. A backend without requests would never warm up.
const SLOW_START_MIN: f64 = 0.1;

/// The settings of a backend from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSettings {
    /// The settings of the backend itself.
    pub configured: ConfiguredSettings,
    /// Whether the pool has a health check. A backend without one counts as healthy.
    pub checked: bool,
    /// Its zone; `None` if it has none.
    pub zone: Option<Zone>,
}

/// State that the backends of a pool share.
#[derive(Clone, Debug, Default)]
pub struct PoolShared {
    /// Counts the requests in flight of the whole pool.
    pub in_flight: Arc<AtomicU32>,
    /// Wakes the outlier monitor of the pool.
    pub trigger: Arc<Trigger>,
    /// Notified when a backend becomes available or unavailable.
    pub changed: Arc<Notify>,
    /// Announces that a backend was removed; `None` announces each.
    pub events: Option<Arc<EventLimit>>,
}

/// The live state of one backend. It outlives its pool if the configuration changes and the new pool has the
/// same backend.
#[derive(Debug)]
pub struct Endpoint {
    address: BackendAddress,
    /// The origin of its clock; times are nanoseconds since then.
    clock_start: Instant,
    backup: AtomicBool,
    checked: AtomicBool,
    zone: ArcSwapOption<Zone>,
    operator_settings: OperatorSettings,
    pool_in_flight: Arc<AtomicU32>,
    changed: Arc<Notify>,
    events: Option<Arc<EventLimit>>,
    latency: Latency,
    idle_limit: IdleLimit,
    /// While requests wait for a response: the time of the last response, or the start of the wait if that is
    /// later. In nanoseconds of its clock.
    last_response: AtomicU64,
    /// The start of its last slow start, in its clock; zero if there was none.
    up_since: AtomicU64,
    /// The address as text, for the access log.
    address_text: String,
    health: AtomicU8,
    /// Whether the last health check failed without a response.
    silent: AtomicBool,
    in_flight: AtomicU32,
    passive_health: PassiveHealth,
    circuit: ArcSwapOption<Circuit>,
    /// When its requests in flight are aborted, in its clock; zero unless it was removed from its pool.
    abort_at: AtomicU64,
    /// The pool from which it was removed, and the number of requests aborted since.
    removal: Mutex<Option<(PoolName, u32)>>,
    /// Whether slow start begins when it is up for the first time.
    joining: AtomicBool,
    /// Locked only by the health check task of the pool; requests read `health`.
    pub(in crate::pool) schedule: Mutex<Schedule>,
}

impl Endpoint {
    /// A backend in its initial state.
    #[must_use]
    pub fn new(address: BackendAddress, settings: BackendSettings, shared: PoolShared, now: Instant) -> Self {
        let health = if settings.checked { Health::Unknown } else { Health::Up };
        Self {
            address,
            clock_start: now,
            backup: AtomicBool::new(settings.configured.backup),
            checked: AtomicBool::new(settings.checked),
            zone: ArcSwapOption::from_pointee(settings.zone),
            operator_settings: OperatorSettings::new(settings.configured),
            pool_in_flight: shared.in_flight,
            changed: shared.changed,
            events: shared.events,
            latency: Latency::default(),
            idle_limit: IdleLimit::default(),
            last_response: AtomicU64::new(0),
            up_since: AtomicU64::new(0),
            address_text: address.to_string(),
            health: AtomicU8::new(health as u8),
            silent: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            passive_health: PassiveHealth::new(shared.trigger),
            circuit: ArcSwapOption::empty(),
            abort_at: AtomicU64::new(0),
            removal: Mutex::new(None),
            joining: AtomicBool::new(false),
            schedule: Mutex::new(Schedule::default()),
        }
    }

    /// A new backend in a pool that serves requests: slow start begins when it is up.
    pub(in crate::pool) fn join(&self, now: Instant) {
        if self.is_up() {
            self.begin_slow_start(now);
        } else {
            self.joining.store(true, Ordering::Relaxed);
        }
    }

    /// Applies new settings. Health, counts and times stay. If the configured settings have changed, an operator
    /// override ends and is returned.
    pub(in crate::pool) fn reconfigure(&self, settings: BackendSettings, now: Instant) -> Option<Override> {
        // It may have been removed earlier, and is added again.
        self.abort_at.store(0, Ordering::Relaxed);
        *self.removal.lock() = None;
        self.backup.store(settings.configured.backup, Ordering::Relaxed);
        self.checked.store(settings.checked, Ordering::Relaxed);
        self.zone.store(settings.zone.map(Arc::new));
        let before = self.state();
        let ended = self.operator_settings.reconfigure(settings.configured);
        self.apply_state_change(before, now);
        if !settings.checked {
            // Without health checks nothing else marks it up.
            self.set_health(Health::Up, now);
            *self.schedule.lock() = Schedule::default();
        }
        ended
    }

    /// Applies an operator override.
    pub(in crate::pool) fn change(&self, change: Change, since: Timestamp, now: Instant) {
        let before = self.state();
        self.operator_settings.change(change, since);
        self.apply_state_change(before, now);
        self.notify_change();
    }

    /// Applies the effects of a changed state. A backend that is enabled again goes through slow start.
    fn apply_state_change(&self, before: State, now: Instant) {
        let state = self.state();
        if state == before {
            return;
        }
        if before == State::Disabled && self.checked.load(Ordering::Relaxed) {
            // A disabled backend is not checked, so its last result is outdated.
            self.health.store(Health::Unknown as u8, Ordering::Relaxed);
            *self.schedule.lock() = Schedule::default();
        }
        if state == State::Enabled {
            self.begin_slow_start(now);
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> BackendAddress {
        self.address
    }

    /// How long this process has known it.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.clock_start)
    }

    /// Its address as text.
    #[must_use]
    pub fn address_text(&self) -> &str {
        &self.address_text
    }

    /// Its health according to health checks.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Unknown,
            1 => Health::Up,
            _ => Health::Down,
        }
    }

    /// Whether it is healthy.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.health() == Health::Up
    }

    /// Whether health checks have marked it down because it does not respond. A backend that reports itself as
    /// unhealthy still responds to the requests that it has.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.health() == Health::Down && self.silent.load(Ordering::Relaxed)
    }

    /// Records whether the last health check failed without a response.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Whether the first health check has finished. True for a disabled backend, which is not checked.
    #[must_use]
    pub fn is_health_known(&self) -> bool {
        self.health() != Health::Unknown || self.state() == State::Disabled
    }

    /// Whether it is healthy and enabled. Ejection and limits are not considered.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.is_up() && self.state() == State::Enabled
    }

    /// Whether it may get requests: it is available and has a weight, is not ejected, and its circuit is not open.
    #[must_use]
    pub fn may_get_requests(&self, now: Instant) -> bool {
        self.is_available()
            && self.weight() > 0
            && !self.passive_health().is_ejected()
            && !self.circuit().is_some_and(|circuit| circuit.is_open(now))
    }

    /// Whether it takes traffic only when too few primary backends are available.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.backup.load(Ordering::Relaxed)
    }

    /// Its zone; `None` if it has none. A new zone takes effect when the members of its pool are prepared again.
    #[must_use]
    pub fn zone(&self) -> Option<Zone> {
        self.zone.load().as_deref().cloned()
    }

    /// Its administrative state.
    #[must_use]
    pub fn state(&self) -> State {
        self.operator_settings.state()
    }

    /// Its share of the traffic relative to the other backends.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.operator_settings.weight()
    }

    /// The operator override, if there is one.
    #[must_use]
    pub fn active_override(&self) -> Option<Override> {
        self.operator_settings.active_override()
    }

    /// Its settings from the configuration.
    #[must_use]
    pub fn configured(&self) -> ConfiguredSettings {
        self.operator_settings.configured()
    }

    /// Notifies the pool that the availability of this backend has changed.
    pub(in crate::pool) fn notify_change(&self) {
        self.changed.notify_one();
    }

    /// Applies the health after a check.
    pub fn set_health(&self, health: Health, now: Instant) {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        let joins = health == Health::Up && self.joining.swap(false, Ordering::Relaxed);
        if joins || before == Health::Down as u8 && health == Health::Up {
            self.begin_slow_start(now);
            self.idle_limit.forget_observations();
        }
        if before != health as u8 {
            self.notify_change();
        }
    }

    /// Marks the backend as removed from `pool`. Its requests in flight are aborted after `limit`.
    pub fn remove(&self, pool: &PoolName, limit: Duration, now: Instant) {
        let mut removal = self.removal.lock();
        if self.abort_at.load(Ordering::Relaxed) != 0 {
            return;
        }
        *removal = Some((pool.clone(), 0));
        drop(removal);
        self.abort_at.store(self.nanoseconds(now + limit).max(1), Ordering::Release);
        if self.in_flight() == 0 {
            self.announce_removal(Some(now));
        }
    }

    /// Whether requests in flight must be aborted, because the removal timeout has expired. `now` is called only
    /// for a removed backend.
    #[must_use]
    pub fn must_abort(&self, now: impl FnOnce() -> Instant) -> bool {
        let abort_at = self.abort_at.load(Ordering::Relaxed);
        abort_at != 0 && abort_at <= self.nanoseconds(now())
    }

    /// Counts an aborted request.
    pub fn count_aborted(&self) {
        if let Some((_, aborted)) = &mut *self.removal.lock() {
            *aborted = aborted.saturating_add(1);
        }
    }

    /// Announces the removal; with the time, as one of many.
    fn announce_removal(&self, now: Option<Instant>) {
        let Some((pool, aborted)) = self.removal.lock().take() else { return };
        let event = Event::BackendRemoved { pool, backend: self.address, aborted };
        match (&self.events, now) {
            (Some(events), Some(now)) => events.announce(event, now),
            _ => event.announce(),
        }
    }

    /// Begins slow start: the share grows over the pool's `slow_start`. The latency average is reset, including
    /// its penalty for failures.
    pub fn begin_slow_start(&self, now: Instant) {
        self.latency.reset();
        self.up_since.store(self.nanoseconds(now).max(1), Ordering::Relaxed);
    }

    /// The part of its share during slow start: from 0.1, growing linearly to 1.
    #[must_use]
    pub fn slow_start_factor(&self, now: Instant, slow_start: Duration) -> f64 {
        let since = self.up_since.load(Ordering::Relaxed);
        if since == 0 || slow_start.is_zero() {
            return 1.0;
        }
        let age = self.nanoseconds(now).saturating_sub(since) as f64 / 1e9;
        (age / slow_start.as_secs_f64()).clamp(SLOW_START_MIN, 1.0)
    }

    /// Records that a response has started and has not failed so far. `latency` is the time to its start, if
    /// known.
    pub fn record_response_start(&self, latency: Option<Duration>, now: Instant) {
        let now = self.nanoseconds(now);
        self.last_response.store(now, Ordering::Relaxed);
        if let Some(latency) = latency {
            self.passive_health.time(latency);
            self.latency.record(latency, now);
        }
    }

    /// Records a failed attempt. `latency` is the time to the start of the response, if there was one.
    pub fn record(&self, failure: Outcome, latency: Option<Duration>, now: Instant) {
        let now = self.nanoseconds(now);
        self.last_response.store(now, Ordering::Relaxed);
        if let Some(latency) = latency {
            self.passive_health.time(latency);
        }
        self.passive_health.record(failure);
        self.latency.record(latency.unwrap_or_default().max(FAILURE_LATENCY_MIN), now);
    }

    /// Records that a request was abandoned after it waited this long without a response. The latency is at least
    /// as long.
    pub(in crate::pool) fn record_abandoned_wait(&self, waited: Duration, now: Instant) {
        let now = self.nanoseconds(now);
        if waited > self.latency.at(now) {
            self.latency.record(waited, now);
        }
    }

    /// Its recent latency. It rises quickly to peaks and decays over 10 s. While requests wait, it is at
    /// least the time since the last response, so that a hanging backend shows before requests time out. Zero
    /// before the first response.
    #[must_use]
    pub fn latency(&self, now: Instant) -> Duration {
        let now = self.nanoseconds(now);
        let measured = self.latency.at(now);
        if measured.is_zero() || self.passive_health.tally().waiting() == 0 {
            return measured;
        }
        measured.max(Duration::from_nanos(now.saturating_sub(self.last_response.load(Ordering::Relaxed))))
    }

    /// `now` in nanoseconds of this endpoint's clock. 64 bits last for five centuries.
    fn nanoseconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.clock_start).as_nanos() as u64
    }

    /// Requests in flight at all backends of its pool, for this process.
    #[must_use]
    pub fn pool_in_flight(&self) -> u32 {
        self.pool_in_flight.load(Ordering::Relaxed)
    }

    /// Requests in flight at this backend, for this process.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How long it keeps an idle connection.
    #[must_use]
    pub fn idle_limit(&self) -> &IdleLimit {
        &self.idle_limit
    }

    /// Its passive health.
    #[must_use]
    pub fn passive_health(&self) -> &PassiveHealth {
        &self.passive_health
    }

    /// Its circuit breaker, if the pool has one.
    #[must_use]
    pub fn circuit(&self) -> Option<Arc<Circuit>> {
        self.circuit.load_full()
    }

    pub(in crate::pool) fn set_circuit(&self, circuit: Option<Circuit>) {
        self.circuit.store(circuit.map(Arc::new));
    }

    /// Counts the start of a request. Called only by [`crate::pool::Lease`].
    pub(in crate::pool) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.pool_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that waits for its response. Called only by [`crate::pool::Lease`].
    pub(in crate::pool) fn begin_waiting(&self, since: Instant) {
        if self.passive_health.tally().begin_wait() == 0 {
            self.last_response.store(self.nanoseconds(since), Ordering::Relaxed);
        }
    }

    /// Ends the wait of a request.
    pub(in crate::pool) fn end_waiting(&self) {
        self.passive_health.tally().end_wait();
    }

    /// Counts the end of a request.
    pub(in crate::pool) fn end(&self) {
        self.pool_in_flight.fetch_sub(1, Ordering::Relaxed);
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if before == 1 && self.abort_at.load(Ordering::Acquire) != 0 {
            self.announce_removal(None);
        }
    }
}
