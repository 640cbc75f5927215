//! At most so many requests in flight, and a short line for those that come beyond.
//!
//! Choosing a backend and joining the line happen under one lock, and so does handing a place on: between
//! "there is none" and "I wait" no place can become free unseen. Without `max_in_flight` there is no gate,
//! and requests pay nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::pool::admission::queue::{self, Line};

/// The `max_in_flight:` block of a pool, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests that one backend works on at once.
    #[serde(default)]
    pub per_backend: Option<u32>,
    /// Requests that the pool works on at once.
    #[serde(default)]
    pub total: Option<u32>,
}

/// The `queue:` block of a pool, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// Requests that wait at once.
    pub length: usize,
    /// The longest wait.
    pub timeout: Period,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { length: 256, timeout: Period::seconds(1) }
    }
}

/// Waiting requests keep their clients' connections and headers in memory.
const LENGTH_MAX: usize = 65_536;

/// Checked bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Requests that one backend works on at once.
    pub per_backend: u32,
    /// Requests that the pool works on at once.
    pub total: u32,
    /// Who may wait.
    pub queue: queue::Spec,
}

impl Config {
    /// Proves both blocks consistent. `place` is the pool's.
    pub fn check(&self, queue: QueueConfig, place: &Place, faults: &mut Faults) -> Spec {
        let own = place.key("max_in_flight");
        if self.per_backend.is_none() && self.total.is_none() {
            faults.add(own.clone(), "bounds nothing", "give `per_backend`, `total` or both");
        }
        for (key, bound) in [("per_backend", self.per_backend), ("total", self.total)] {
            if bound == Some(0) {
                faults.add(own.key(key), "must be at least 1", "remove the key for no bound");
            }
        }
        if queue.length > LENGTH_MAX {
            let problem = format!("{} is more than {LENGTH_MAX}", queue.length);
            faults.add(place.key("queue").key("length"), problem, "a long line is a delay for everybody");
        }
        if queue.length > 0 && queue.timeout.0.is_zero() {
            let hint = "write `length: 0` for no queue";
            faults.add(place.key("queue").key("timeout"), "must be longer than nothing", hint);
        }
        Spec {
            per_backend: self.per_backend.unwrap_or(u32::MAX),
            total: self.total.unwrap_or(u32::MAX),
            queue: queue::Spec { length: queue.length, timeout: queue.timeout.0 },
        }
    }
}

/// Why a request did not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed<E> {
    /// Too many wait already.
    Full,
    /// It waited as long as it may.
    Late,
    /// What it wanted cannot be had by waiting.
    Other(E),
}

/// What came of an attempt to choose a backend.
#[derive(Debug)]
pub enum Attempt<T, E> {
    /// It has one.
    Done(T),
    /// All that could be asked work on as much as they may.
    Busy,
    /// There is none.
    Failed(E),
}

#[derive(Debug)]
struct State {
    spec: Spec,
    in_flight: u32,
    line: Line<oneshot::Sender<()>>,
}

/// The gate of one pool, and of those that come in its place when the configuration changes.
#[derive(Debug)]
pub struct Gate {
    /// Read for each backend that is looked at, so it is not behind the lock.
    per_backend: AtomicU32,
    state: Mutex<State>,
}

/// A place behind the gate; dropping it lets the next one in.
#[derive(Debug)]
pub struct Slot(Arc<Gate>);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        wake(&mut state);
    }
}

/// Tells the next one that there may be a place. Some have left without a word.
#[expect(clippy::disallowed_methods, reason = "the line's order depends on how long it has been busy")]
fn wake(state: &mut State) {
    let now = Instant::now();
    while let Some(waiting) = state.line.next(now) {
        if waiting.send(()).is_ok() {
            return;
        }
    }
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        let line = Line::new(spec.queue);
        Self { per_backend: AtomicU32::new(spec.per_backend), state: Mutex::new(State { spec, in_flight: 0, line }) }
    }

    /// From now on `spec` holds. Nobody who is in or waits is sent away.
    pub(in crate::pool) fn follow(&self, spec: Spec) {
        self.per_backend.store(spec.per_backend, Ordering::Relaxed);
        let mut state = self.state.lock();
        let wider = spec.total > state.spec.total || spec.per_backend > state.spec.per_backend;
        state.spec = spec;
        state.line.follow(spec.queue);
        if wider {
            // There may be room for all who wait; for whom there is not, they wait on.
            (0..state.line.len()).for_each(|_| wake(&mut state));
        }
    }

    /// Calls those who wait and for whom there is room now: at backends for `room` of them.
    pub(in crate::pool) fn call(&self, room: u32) {
        let mut state = self.state.lock();
        let places = room.min(state.spec.total.saturating_sub(state.in_flight));
        (0..places).take(state.line.len()).for_each(|_| wake(&mut state));
    }

    /// Requests that one backend works on at once.
    #[must_use]
    pub fn per_backend(&self) -> u32 {
        self.per_backend.load(Ordering::Relaxed)
    }

    /// When it is worth coming again after a refusal: the line has moved on by then.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        self.state.lock().line.timeout()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().line.len()
    }

    /// Goes through the gate with what `attempt` chooses, or waits for a place.
    ///
    /// # Errors
    /// Why not.
    #[expect(clippy::disallowed_methods, reason = "the wait begins here")]
    pub async fn pass<T, E>(
        self: &Arc<Self>,
        mut attempt: impl FnMut() -> Attempt<T, E>,
    ) -> Result<(T, Slot), Closed<E>> {
        let mut until = None;
        // Who has waited may go ahead of those that wait still.
        let mut called = false;
        loop {
            let mut waiting = match self.try_pass(&mut attempt, called)? {
                Ok(passed) => return Ok(passed),
                Err(waiting) => waiting,
            };
            let until = *until.get_or_insert_with(|| Instant::now() + self.retry_after());
            let calling = tokio::time::timeout_at(until.into(), &mut waiting.call).await;
            if calling.is_err() {
                return Err(Closed::Late);
            }
            waiting.heard = true;
            called = true;
        }
    }

    /// Passes or joins the line, under one lock.
    #[expect(clippy::disallowed_methods, reason = "the line is joined now")]
    fn try_pass<T, E>(
        self: &Arc<Self>,
        attempt: &mut impl FnMut() -> Attempt<T, E>,
        called: bool,
    ) -> Result<Result<(T, Slot), Waiting>, Closed<E>> {
        let mut state = self.state.lock();
        if (called || state.line.is_empty()) && state.in_flight < state.spec.total {
            match attempt() {
                Attempt::Done(chosen) => {
                    state.in_flight += 1;
                    return Ok(Ok((chosen, Slot(Arc::clone(self)))));
                }
                Attempt::Failed(e) => {
                    // The place is free still.
                    wake(&mut state);
                    return Err(Closed::Other(e));
                }
                Attempt::Busy => {}
            }
        }
        let (caller, call) = oneshot::channel();
        let ticket = state.line.join(caller, Instant::now()).map_err(|queue::Full| Closed::Full)?;
        drop(state);
        Ok(Err(Waiting { gate: Arc::clone(self), ticket, call, heard: false }))
    }
}

/// A request in the line. Dropping it leaves the line; a call that nobody heard goes to the next one.
struct Waiting {
    gate: Arc<Gate>,
    ticket: u64,
    call: oneshot::Receiver<()>,
    heard: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.heard {
            return;
        }
        let mut state = self.gate.state.lock();
        if !state.line.leave(self.ticket) {
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

    fn done() -> Attempt<(), ()> {
        Attempt::Done(())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_of_who_leaves() {
        let gate = gate(1, 8, Duration::from_secs(1));
        let (_, first) = gate.pass(done).await.unwrap();
        let second = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.pass(done).await.map(|(_, slot)| slot) }
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
    async fn full_is_told_at_once_and_late_in_time() {
        let closed = gate(1, 0, Duration::from_secs(3600));
        let _first = closed.pass(done).await.unwrap();
        assert_eq!(closed.pass(done).await.unwrap_err(), Closed::Full);
        let short = gate(1, 1, Duration::from_millis(1));
        let _first = short.pass(done).await.unwrap();
        assert_eq!(short.pass(done).await.unwrap_err(), Closed::Late);
        assert_eq!(short.waiting(), 0, "it has left the line");
    }

    #[tokio::test]
    async fn a_call_that_nobody_hears_goes_to_the_next_one() {
        let gate = gate(1, 8, Duration::from_secs(3600));
        let (_, first) = gate.pass(done).await.unwrap();
        let mut attempt = done;
        let gone = gate.try_pass(&mut attempt, false).unwrap().unwrap_err();
        let mut next = gate.try_pass(&mut attempt, false).unwrap().unwrap_err();
        drop(first);
        assert!(next.call.try_recv().is_err(), "the first was called");
        drop(gone);
        assert_eq!(next.call.try_recv(), Ok(()));
    }

    #[tokio::test]
    async fn as_many_are_called_as_there_is_room_for() {
        let gate = gate(3, 8, Duration::from_secs(3600));
        let (_, _first) = gate.pass(done).await.unwrap();
        let mut busy = || Attempt::<(), ()>::Busy;
        let mut join = || gate.try_pass(&mut busy, false).unwrap().unwrap_err();
        let mut waiting = [join(), join(), join(), join()];
        let mut called = || waiting.iter_mut().filter_map(|one| one.call.try_recv().ok()).count();
        gate.call(0);
        assert_eq!(called(), 0);
        gate.call(1);
        assert_eq!(called(), 1);
        gate.call(u32::MAX);
        assert_eq!(called(), 2, "no more than the pool may work on");
    }

    #[tokio::test]
    async fn what_waiting_cannot_mend_is_told_at_once() {
        let gate = gate(1, 8, Duration::from_secs(3600));
        assert_eq!(gate.pass(|| Attempt::<(), _>::Failed("ill")).await.unwrap_err(), Closed::Other("ill"));
        assert_eq!(gate.state.lock().in_flight, 0);
    }

    #[tokio::test]
    async fn a_busy_backend_is_waited_for_and_asked_again() {
        let gate = gate(u32::MAX, 8, Duration::from_secs(3600));
        let (_, elsewhere) = gate.pass(done).await.unwrap();
        let mut attempts = 0;
        let waits = gate.pass(|| {
            attempts += 1;
            if attempts == 1 { Attempt::Busy } else { done() }
        });
        let (passed, ()) = tokio::join!(waits, async {
            while gate.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            drop(elsewhere);
        });
        assert!(passed.is_ok());
        assert_eq!(attempts, 2);
    }

    #[tokio::test]
    async fn other_bounds_hold_for_those_who_are_in_already_and_let_in_who_waits() {
        let gate = gate(1, 8, Duration::from_secs(3600));
        let (_, first) = gate.pass(done).await.unwrap();
        let (waits, ()) = tokio::join!(gate.pass(done), async {
            while gate.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            let queue = queue::Spec { length: 0, timeout: Duration::from_secs(5) };
            gate.follow(Spec { per_backend: 7, total: 2, queue });
        });
        let (_, second) = waits.unwrap();
        assert_eq!((gate.per_backend(), gate.retry_after()), (7, Duration::from_secs(5)));
        assert_eq!(gate.pass(done).await.unwrap_err(), Closed::Full, "two are in");
        drop((first, second));
        assert_eq!(gate.state.lock().in_flight, 0);
    }

    #[test]
    fn bounds_are_checked() {
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
                "queue.timeout: must be longer than nothing"
            ]
        );
        assert_eq!(said("{}", "{}"), ["max_in_flight: bounds nothing"]);
    }
}
