//! The gate: a limit on requests in flight, and a short queue for requests beyond it.
//!
//! Choosing a backend and joining the queue happen under one lock, and so does passing on a free slot: no slot
//! can become free unnoticed between "none is free" and "the request is queued". Without `max_in_flight` there
//! is no gate and no cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::pool::admission::queue::{self, Queue};

/// The `max_in_flight:` block of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The largest number of requests in flight at one backend.
    #[serde(default)]
    pub per_backend: Option<u32>,
    /// The largest number of requests in flight at the pool.
    #[serde(default)]
    pub total: Option<u32>,
}

/// The `queue:` block of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// The largest number of queued requests.
    pub length: usize,
    /// The longest wait.
    pub timeout: Period,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { length: 256, timeout: Period::seconds(1) }
    }
}

/// The maximum of `queue.length`; a queued request keeps its connection and headers in memory.
const LENGTH_MAX: usize = 65_536;

/// Checked limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The largest number of requests in flight at one backend.
    pub per_backend: u32,
    /// The largest number of requests in flight at the pool.
    pub total: u32,
    /// The queue.
    pub queue: queue::Spec,
}

impl Config {
    /// Checks both blocks. `place` is the place of the pool in the configuration.
    pub fn check(&self, queue: QueueConfig, place: &Place, faults: &mut Faults) -> Spec {
        let own = place.key("max_in_flight");
        if self.per_backend.is_none() && self.total.is_none() {
            faults.add(own.clone(), "sets no limit", "give `per_backend`, `total` or both");
        }
        for (key, bound) in [("per_backend", self.per_backend), ("total", self.total)] {
            if bound == Some(0) {
                faults.add(own.key(key), "must be at least 1", "remove the key for no limit");
            }
        }
        if queue.length > LENGTH_MAX {
            let problem = format!("{} is more than {LENGTH_MAX}", queue.length);
            faults.add(place.key("queue").key("length"), problem, "a long queue delays every request");
        }
        if queue.length > 0 && queue.timeout.0.is_zero() {
            let hint = "write `length: 0` for no queue";
            faults.add(place.key("queue").key("timeout"), "must be greater than zero", hint);
        }
        Spec {
            per_backend: self.per_backend.unwrap_or(u32::MAX),
            total: self.total.unwrap_or(u32::MAX),
            queue: queue::Spec { length: queue.length, timeout: queue.timeout.0 },
        }
    }
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted<E> {
    /// The queue is full.
    Full,
    /// The queue timeout has expired.
    TimedOut,
    /// No backend is available, so the request is not queued.
    Unavailable(E),
}

/// The result of choosing a backend.
#[derive(Debug)]
pub enum Choice<T, E> {
    /// A backend was chosen.
    Chosen(T),
    /// All available backends are at their limits.
    Busy,
    /// There is no available backend.
    Unavailable(E),
}

#[derive(Debug)]
struct State {
    spec: Spec,
    in_flight: u32,
    queue: Queue<oneshot::Sender<()>>,
}

/// The gate of one pool. On a reload, the new version of the pool continues to use it.
#[derive(Debug)]
pub struct Gate {
    /// Read for each examined backend, so it is not behind the lock.
    per_backend: AtomicU32,
    state: Mutex<State>,
}

/// A slot of the gate. Dropping it admits the next queued request.
#[derive(Debug)]
pub struct Slot(Arc<Gate>);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        wake(&mut state);
    }
}

/// Wakes the next queued request. Skips requests that have already given up.
#[expect(clippy::disallowed_methods, reason = "the queue's order depends on how long it has been busy")]
fn wake(state: &mut State) {
    let now = Instant::now();
    while let Some(waiting) = state.queue.next(now) {
        if waiting.send(()).is_ok() {
            return;
        }
    }
}

impl Gate {
    /// A gate without requests in flight.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        let queue = Queue::new(spec.queue);
        Self { per_backend: AtomicU32::new(spec.per_backend), state: Mutex::new(State { spec, in_flight: 0, queue }) }
    }

    /// Applies a new `spec`. Requests in flight and in the queue stay.
    pub(in crate::pool) fn reconfigure(&self, spec: Spec) {
        self.per_backend.store(spec.per_backend, Ordering::Relaxed);
        let mut state = self.state.lock();
        let raised = spec.total > state.spec.total || spec.per_backend > state.spec.per_backend;
        state.spec = spec;
        state.queue.reconfigure(spec.queue);
        if raised {
            // The new limits may admit every queued request; requests that still exceed a limit queue again.
            (0..state.queue.len()).for_each(|_| wake(&mut state));
        }
    }

    /// Wakes queued requests while there are slots, at most `room`.
    pub(in crate::pool) fn wake(&self, room: u32) {
        let mut state = self.state.lock();
        let places = room.min(state.spec.total.saturating_sub(state.in_flight));
        (0..places).take(state.queue.len()).for_each(|_| wake(&mut state));
    }

    /// The largest number of requests in flight at one backend.
    #[must_use]
    pub fn per_backend(&self) -> u32 {
        self.per_backend.load(Ordering::Relaxed)
    }

    /// Retry-After of a rejection: the queue timeout, after which all requests queued now have left the queue.
    #[must_use]
    pub fn queue_timeout(&self) -> Duration {
        self.state.lock().queue.timeout()
    }

    /// The number of queued requests.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Admits the request with the backend that `choose` chooses, or queues it.
    ///
    /// # Errors
    /// Why the request is not admitted.
    #[expect(clippy::disallowed_methods, reason = "the wait begins here")]
    pub async fn admit<T, E>(
        self: &Arc<Self>,
        mut choose: impl FnMut() -> Choice<T, E>,
    ) -> Result<(T, Slot), NotAdmitted<E>> {
        let mut deadline = None;
        // A request woken from the queue goes ahead of those still queued, and keeps its ticket.
        let mut ticket = None;
        loop {
            let mut waiting = match self.try_admit(&mut choose, ticket)? {
                Ok(admitted) => return Ok(admitted),
                Err(waiting) => waiting,
            };
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.queue_timeout());
            let woken = tokio::time::timeout_at(deadline.into(), &mut waiting.wake_up).await;
            if woken.is_err() {
                return Err(NotAdmitted::TimedOut);
            }
            waiting.received_wake_up = true;
            ticket = Some(waiting.ticket);
        }
    }

    /// Admits or queues the request, under one lock.
    #[expect(clippy::disallowed_methods, reason = "the queue is joined now")]
    fn try_admit<T, E>(
        self: &Arc<Self>,
        choose: &mut impl FnMut() -> Choice<T, E>,
        ticket: Option<u64>,
    ) -> Result<Result<(T, Slot), Waiting>, NotAdmitted<E>> {
        let mut state = self.state.lock();
        if (ticket.is_some() || state.queue.is_empty()) && state.in_flight < state.spec.total {
            match choose() {
                Choice::Chosen(chosen) => {
                    state.in_flight += 1;
                    return Ok(Ok((chosen, Slot(Arc::clone(self)))));
                }
                Choice::Unavailable(e) => {
                    // The slot is still free.
                    wake(&mut state);
                    return Err(NotAdmitted::Unavailable(e));
                }
                Choice::Busy => {}
            }
        }
        let (waker, wake_up) = oneshot::channel();
        let now = Instant::now();
        let ticket = match ticket {
            Some(ticket) => {
                state.queue.rejoin(waker, ticket, now);
                ticket
            }
            None => state.queue.join(waker, now).map_err(|queue::Full| NotAdmitted::Full)?,
        };
        drop(state);
        Ok(Err(Waiting { gate: Arc::clone(self), ticket, wake_up, received_wake_up: false }))
    }
}

/// A queued request. Dropping it leaves the queue; if it was woken but did not use the slot, the next request is woken.
struct Waiting {
    gate: Arc<Gate>,
    ticket: u64,
    wake_up: oneshot::Receiver<()>,
    received_wake_up: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.received_wake_up {
            return;
        }
        let mut state = self.gate.state.lock();
        if !state.queue.leave(self.ticket) {
            wake(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(total: u32, length: usize, timeout: Duration) -> Arc<Gate> {
        Arc::new(Gate::new(Spec { per_backend: u32::MAX, total, queue: queue::Spec { length, timeout } }))
    }

    fn done() -> Choice<(), ()> {
        Choice::Chosen(())
    }

    #[tokio::test(start_paused = true)]
    async fn queued_request_gets_the_next_free_slot() {
        let gate = gate(1, 8, Duration::from_secs(1));
        let (_, first) = gate.admit(done).await.unwrap();
        let second = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.admit(done).await.map(|(_, slot)| slot) }
        });
        while gate.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert_eq!((gate.waiting(), gate.state.lock().in_flight), (0, 1));
        drop(second);
        assert_eq!(gate.state.lock().in_flight, 0);
    }

    #[tokio::test]
    async fn full_queue_rejects_immediately_and_queue_timeout_rejects_later() {
        let closed = gate(1, 0, Duration::from_secs(3600));
        let _first = closed.admit(done).await.unwrap();
        assert_eq!(closed.admit(done).await.unwrap_err(), NotAdmitted::Full);
        let short = gate(1, 1, Duration::from_millis(1));
        let _first = short.admit(done).await.unwrap();
        assert_eq!(short.admit(done).await.unwrap_err(), NotAdmitted::TimedOut);
        assert_eq!(short.waiting(), 0, "it has left the queue");
    }

    #[tokio::test]
    async fn unused_wake_up_goes_to_the_next_queued_request() {
        let gate = gate(1, 8, Duration::from_secs(3600));
        let (_, first) = gate.admit(done).await.unwrap();
        let mut choose = done;
        let gone = gate.try_admit(&mut choose, None).unwrap().unwrap_err();
        let mut next = gate.try_admit(&mut choose, None).unwrap().unwrap_err();
        drop(first);
        assert!(next.wake_up.try_recv().is_err(), "the first request was woken");
        drop(gone);
        assert_eq!(next.wake_up.try_recv(), Ok(()));
    }

    #[tokio::test]
    async fn as_many_queued_requests_are_woken_as_there_are_slots() {
        let gate = gate(3, 8, Duration::from_secs(3600));
        let (_, _first) = gate.admit(done).await.unwrap();
        let mut busy = || Choice::<(), ()>::Busy;
        let mut join = || gate.try_admit(&mut busy, None).unwrap().unwrap_err();
        let mut waiting = [join(), join(), join(), join()];
        let mut woken = || waiting.iter_mut().filter_map(|one| one.wake_up.try_recv().ok()).count();
        gate.wake(0);
        assert_eq!(woken(), 0);
        gate.wake(1);
        assert_eq!(woken(), 1);
        gate.wake(u32::MAX);
        assert_eq!(woken(), 2, "no more than the limit of the pool");
    }

    #[tokio::test]
    async fn request_without_an_available_backend_is_rejected_immediately() {
        let gate = gate(1, 8, Duration::from_secs(3600));
        assert_eq!(
            gate.admit(|| Choice::<(), _>::Unavailable("down")).await.unwrap_err(),
            NotAdmitted::Unavailable("down")
        );
        assert_eq!(gate.state.lock().in_flight, 0);
    }

    #[tokio::test]
    async fn request_waits_for_a_busy_backend_and_is_sent_there() {
        let gate = gate(u32::MAX, 8, Duration::from_secs(3600));
        let (_, elsewhere) = gate.admit(done).await.unwrap();
        let mut attempts = 0;
        let waits = gate.admit(|| {
            attempts += 1;
            if attempts == 1 { Choice::Busy } else { done() }
        });
        let (admitted, ()) = tokio::join!(waits, async {
            while gate.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            drop(elsewhere);
        });
        assert!(admitted.is_ok());
        assert_eq!(attempts, 2);
    }

    #[tokio::test]
    async fn woken_request_that_finds_no_room_keeps_its_place_in_a_full_queue() {
        let gate = gate(u32::MAX, 1, Duration::from_secs(3600));
        let mut attempts = 0;
        let waits = gate.admit(|| {
            attempts += 1;
            if attempts <= 2 { Choice::Busy } else { done() }
        });
        let competes = async {
            while gate.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            // The only place is taken between the wake-up and the second attempt.
            gate.wake(1);
            let mut busy = || Choice::<(), ()>::Busy;
            let other = gate.try_admit(&mut busy, None).unwrap().unwrap_err();
            while gate.waiting() < 2 {
                tokio::task::yield_now().await;
            }
            gate.wake(1);
            let _queued = other;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            admitted = waits => assert!(admitted.is_ok(), "its place was lost"),
            () = competes => {}
        }
    }

    #[tokio::test]
    async fn new_limits_count_requests_in_flight_and_admit_queued_requests() {
        let gate = gate(1, 8, Duration::from_secs(3600));
        let (_, first) = gate.admit(done).await.unwrap();
        let (waits, ()) = tokio::join!(gate.admit(done), async {
            while gate.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            let queue = queue::Spec { length: 0, timeout: Duration::from_secs(5) };
            gate.reconfigure(Spec { per_backend: 7, total: 2, queue });
        });
        let (_, second) = waits.unwrap();
        assert_eq!((gate.per_backend(), gate.queue_timeout()), (7, Duration::from_secs(5)));
        assert_eq!(gate.admit(done).await.unwrap_err(), NotAdmitted::Full, "two requests are in flight");
        drop((first, second));
        assert_eq!(gate.state.lock().in_flight, 0);
    }

    #[test]
    fn invalid_limits_are_reported() {
        let said = |config: &str, queue: &str| {
            let (config, queue): (Config, QueueConfig) =
                (serde_yaml::from_str(config).unwrap(), serde_yaml::from_str(queue).unwrap());
            let mut faults = Faults::default();
            config.check(queue, &Place::root(), &mut faults);
            faults.into_vec().into_iter().map(|fault| format!("{}: {}", fault.place, fault.problem)).collect::<Vec<_>>()
        };
        assert_eq!(said("{total: 5}", "{}"), [] as [String; 0]);
        assert_eq!(said("{per_backend: 5}", "{length: 0, timeout: 0}"), [] as [String; 0]);
        assert_eq!(
            said("{per_backend: 0}", "{length: 100000, timeout: 0}"),
            [
                "max_in_flight.per_backend: must be at least 1",
                "queue.length: 100000 is more than 65536",
                "queue.timeout: must be greater than zero"
            ]
        );
        assert_eq!(said("{}", "{}"), ["max_in_flight: sets no limit"]);
    }
}
