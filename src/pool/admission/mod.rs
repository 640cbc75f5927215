//! Admission: what limits the traffic of a pool. Passive health, circuit breakers, the gate and the adaptive
//! limit, applied in order of increasing cost.

pub mod breaker;
pub mod circuit;
pub mod gate;
pub mod queue;
pub mod concurrency;
pub mod overload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::base::units::PoolName;
use crate::http::rejection::Rejection;
use crate::pool::endpoint::Endpoint;
use crate::pool::lease::Lease;
use crate::pool::passive_health;
use crate::pool::passive_health::monitor::{self, OutlierMonitor};
use circuit::Circuit;
use concurrency::Mode;
use gate::{Choice, Gate, NotAdmitted};
use overload::Overload;

/// Retry-After of a pool that is over its limits.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Checked limits.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub(in crate::pool) passive_health: Option<passive_health::Spec>,
    pub(in crate::pool) circuit_breaker: Option<breaker::Spec>,
    pub(in crate::pool) max_in_flight: Option<gate::Spec>,
    pub(in crate::pool) adaptive: Option<Mode>,
}

/// The limits of a live pool. A limit that is not configured costs one comparison.
pub(in crate::pool) struct Admission {
    pool: PoolName,
    spec: Spec,
    monitor: Arc<OutlierMonitor>,
    changed: Arc<Notify>,
    gate: Option<Arc<Gate>>,
    overload: Option<Arc<Overload>>,
}

impl Admission {
    /// The limits of `spec`, with the state of `before`, which are the limits of the replaced pool. That state does not
    /// change before [`Admission::begin`].
    pub(in crate::pool) fn new(pool: PoolName, spec: &Spec, before: Option<&Self>) -> Self {
        let gate = before.and_then(|before| before.gate.clone());
        let overload = before.and_then(|before| before.overload.clone());
        Self {
            pool,
            spec: spec.clone(),
            monitor: before.map(|before| Arc::clone(&before.monitor)).unwrap_or_default(),
            changed: before.map(|before| Arc::clone(&before.changed)).unwrap_or_default(),
            gate: spec.max_in_flight.map(|spec| gate.unwrap_or_else(|| Arc::new(Gate::new(spec)))),
            overload: spec.adaptive.map(|mode| overload.unwrap_or_else(|| Arc::new(Overload::new(mode)))),
        }
    }

    /// The outlier monitor of this pool.
    pub(in crate::pool) fn monitor(&self) -> &Arc<OutlierMonitor> {
        &self.monitor
    }

    /// Notified by backends when their availability changes.
    pub(in crate::pool) fn changed(&self) -> &Arc<Notify> {
        &self.changed
    }

    /// Applies these limits also to the state that was taken over from the replaced pool.
    pub(in crate::pool) fn begin(&self, backends: &[Arc<Endpoint>], now: Instant) {
        self.monitor.reconfigure(self.spec.passive_health.as_ref(), backends, now);
        if let (Some(gate), Some(spec)) = (&self.gate, self.spec.max_in_flight) {
            gate.reconfigure(spec);
        }
        if let (Some(overload), Some(mode)) = (&self.overload, self.spec.adaptive) {
            overload.reconfigure(mode);
        }
    }

    /// A function that sets the configured circuit breaker of a backend.
    pub(in crate::pool) fn circuits(&self) -> impl Fn(&Endpoint, Instant) + Send + Sync + use<> {
        let (pool, breaker) = (self.pool.clone(), self.spec.circuit_breaker);
        move |endpoint, now| match (endpoint.circuit(), breaker) {
            (Some(circuit), Some(spec)) => circuit.reconfigure(spec, now),
            (None, Some(spec)) => {
                endpoint.set_circuit(Some(Circuit::new(pool.clone(), endpoint.address(), spec, now)));
            }
            (_, None) => endpoint.set_circuit(None),
        }
    }

    /// The number of queued requests; `None` without a gate.
    pub(in crate::pool) fn waiting(&self) -> Option<usize> {
        self.gate.as_ref().map(|gate| gate.waiting())
    }

    /// The adaptive limit; `None` without one.
    pub(in crate::pool) fn adaptive_limit(&self) -> Option<u32> {
        self.overload.as_ref().map(|overload| overload.limit())
    }

    /// Whether requests may wait.
    pub(in crate::pool) fn has_queue(&self) -> bool {
        self.gate.is_some()
    }

    /// Whether a backend may get one more request.
    pub(in crate::pool) fn allow(&self, endpoint: &Endpoint) -> bool {
        self.has_room(endpoint) && self.open_for(endpoint).is_none()
    }

    /// The circuit breaker of a backend, if the pool has them.
    pub(in crate::pool) fn circuit(&self, endpoint: &Endpoint) -> Option<Arc<Circuit>> {
        self.spec.circuit_breaker.and_then(|_| endpoint.circuit())
    }

    pub(in crate::pool) fn has_room(&self, endpoint: &Endpoint) -> bool {
        self.gate.as_ref().is_none_or(|gate| endpoint.in_flight() < gate.per_backend())
    }

    /// How long its breaker stays open; `None` if a request may pass.
    #[expect(
        clippy::disallowed_methods,
        reason = "a breaker depends on the time; the clock is read only if the pool has breakers"
    )]
    pub(in crate::pool) fn open_for(&self, endpoint: &Endpoint) -> Option<Duration> {
        self.circuit(endpoint)?.check(Instant::now()).err()
    }

    /// Counts a request at a backend; `None` if its breaker has opened since the backend was chosen.
    #[expect(clippy::disallowed_methods, reason = "breakers open and close by the clock; only where there is one")]
    pub(in crate::pool) fn lease(&self, endpoint: &Arc<Endpoint>) -> Option<Lease> {
        let permit = match self.circuit(endpoint) {
            Some(circuit) => {
                let permit = circuit.admit(Instant::now()).ok()?;
                Some((circuit, permit))
            }
            None => None,
        };
        Some(Lease::with_permit(Arc::clone(endpoint), permit))
    }

    /// A lease for the first attempt of a request: the result of `choose`, once there is room for it.
    ///
    /// # Errors
    /// The rejection. `backends` are those of the pool; `retry_after` is for a pool without a healthy backend.
    pub(in crate::pool) async fn reserve(
        &self,
        mut choose: impl FnMut() -> Option<Lease>,
        backends: impl Fn() -> Vec<Arc<Endpoint>>,
        retry_after: Duration,
    ) -> Result<Lease, Rejection> {
        let overloaded = Rejection::Overloaded { retry_after: RETRY_AFTER };
        let in_flight = match &self.overload {
            Some(overload) => Some(overload.admit().ok_or(overloaded)?),
            None => None,
        };
        let why = || self.unavailable_reason(&backends(), retry_after);
        let (mut lease, slot) = match &self.gate {
            None => (choose().ok_or_else(why)?, None),
            Some(gate) => {
                let choose = || match choose() {
                    Some(lease) => Choice::Chosen(lease),
                    None if self.is_busy(&backends()) => Choice::Busy,
                    None => Choice::Unavailable(why()),
                };
                let (lease, slot) = gate.admit(choose).await.map_err(|closed| match closed {
                    NotAdmitted::Full => Rejection::QueueFull { retry_after: gate.queue_timeout() },
                    NotAdmitted::TimedOut => Rejection::QueueTimeout { retry_after: gate.queue_timeout() },
                    NotAdmitted::Unavailable(rejection) => rejection,
                })?;
                (lease, Some(slot))
            }
        };
        lease.hold(slot, in_flight);
        Ok(lease)
    }

    /// Whether an available backend is at its limit.
    fn is_busy(&self, backends: &[Arc<Endpoint>]) -> bool {
        backends.iter().any(|endpoint| takes_requests(endpoint) && !self.has_room(endpoint))
    }

    /// Whether a healthy backend that was not attempted is only at its limit. Waiting for it is better than
    /// using an ejected backend.
    pub(in crate::pool) fn is_worth_waiting(
        &self,
        backends: impl Fn() -> Vec<Arc<Endpoint>>,
        attempted: &[Arc<Endpoint>],
    ) -> bool {
        let waits_for = |endpoint: &Arc<Endpoint>| {
            let healthy = takes_requests(endpoint) && !endpoint.passive_health().is_ejected();
            healthy && !self.has_room(endpoint) && !attempted.iter().any(|attempted| Arc::ptr_eq(attempted, endpoint))
        };
        self.gate.is_some() && backends().iter().any(waits_for)
    }

    /// How many more requests these backends may get; ejected ones count only if there are no others.
    fn room(&self, backends: &[Arc<Endpoint>], now: Instant) -> u32 {
        let available = || backends.iter().filter(|endpoint| takes_requests(endpoint));
        let not_ejected = || available().filter(|endpoint| !endpoint.passive_health().is_ejected());
        let room = |endpoint: &Arc<Endpoint>| {
            let bound = self.gate.as_ref().map_or(u32::MAX, |gate| gate.per_backend());
            let circuit = endpoint.circuit().map_or(u32::MAX, |circuit| circuit.room(now));
            bound.saturating_sub(endpoint.in_flight()).min(circuit)
        };
        let sum = |sum: u32, room: u32| sum.saturating_add(room);
        match not_ejected().next() {
            Some(_) => not_ejected().map(room).fold(0, sum),
            None => available().map(room).fold(0, sum),
        }
    }

    /// Why no backend can be picked.
    pub(in crate::pool) fn unavailable_reason(&self, backends: &[Arc<Endpoint>], retry_after: Duration) -> Rejection {
        let open = backends.iter().filter(|endpoint| endpoint.is_up()).filter_map(|endpoint| self.open_for(endpoint));
        match open.min() {
            Some(retry_after) => Rejection::CircuitOpen { retry_after },
            None => Rejection::NoHealthyBackend { retry_after },
        }
    }

    /// Runs outlier detection and measures latency for as long as it is polled.
    pub(in crate::pool) async fn watch(&self, backends: impl Fn() -> Vec<Arc<Endpoint>>) {
        tokio::join!(monitor::watch(&self.monitor, &self.pool, &backends), self.measure(), self.wake_queued(&backends));
    }

    /// Wakes queued requests when a backend comes up, or when a breaker becomes half-open, which depends on
    /// time only.
    #[expect(clippy::disallowed_methods, reason = "the background task of the pool reads the clock for its circuits")]
    async fn wake_queued(&self, backends: impl Fn() -> Vec<Arc<Endpoint>>) {
        let Some(gate) = &self.gate else { return std::future::pending().await };
        loop {
            let open = backends().iter().filter_map(|endpoint| self.open_for(endpoint)).collect::<Vec<_>>();
            // Zero means that a probe is in flight; its result notifies `changed`.
            let half_opens = async {
                match open.into_iter().filter(|left| !left.is_zero()).min() {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = half_opens => {}
            }
            gate.wake(self.room(&backends(), Instant::now()));
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the background task of the pool reads the clock at the end of each window"
    )]
    async fn measure(&self) {
        let Some(overload) = &self.overload else { return std::future::pending().await };
        let mut windows = tokio::time::interval(concurrency::WINDOW);
        loop {
            windows.tick().await;
            overload.window(&self.pool, Instant::now());
        }
    }
}

/// Whether a backend may get requests, without regard to its limits.
fn takes_requests(endpoint: &Endpoint) -> bool {
    endpoint.is_available() && endpoint.weight() > 0
}
