//! The phase of the process between start and end, for listeners, requests, signals and the control socket.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::base::units::{Period, RouteName};

/// The phases, in order; none is entered twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not accepting yet.
    Starting,
    /// Serving.
    Ready,
    /// Another process serves on the same sockets; this one finishes its requests.
    Replaced,
    /// Graceful shutdown has started. The process still accepts for `drain_delay`, until clients and load
    /// balancers have noticed.
    Draining,
    /// Remaining requests are being aborted.
    Aborting,
}

/// The most requests that are listed when they are aborted.
const NAMED_MAX: usize = 20;

/// A request that was aborted at shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortedRequest {
    /// Its route, if it had one.
    pub route: Option<RouteName>,
    /// The client address.
    pub client: IpAddr,
    /// How long it had been running.
    pub age: Duration,
}

impl fmt::Display for AbortedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.route.as_ref().map_or("-", RouteName::as_str);
        let age = Period(Duration::from_millis(u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX)));
        write!(f, "route={route} client={} after={age}", self.client)
    }
}

/// The aborted requests.
#[derive(Clone, Debug, Default)]
pub struct Aborted {
    /// The first ones.
    pub named: Vec<AbortedRequest>,
    /// The total number, including those not listed.
    pub total: usize,
}

struct Inner {
    phase: watch::Sender<Phase>,
    /// Milliseconds.
    drain_delay: AtomicU64,
    cut: Mutex<Aborted>,
}

/// The state of the process. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct Lifecycle(Arc<Inner>);

impl Lifecycle {
    /// The state of a process that starts. At shutdown it still accepts for `drain_delay`.
    #[must_use]
    pub fn new(drain_delay: Duration) -> Self {
        let phase = watch::Sender::new(Phase::Starting);
        let lifecycle = Self(Arc::new(Inner { phase, drain_delay: AtomicU64::new(0), cut: Mutex::default() }));
        lifecycle.set_drain_delay(drain_delay);
        lifecycle
    }

    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Enters `phase`; never goes back.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            let forward = phase > *now;
            *now = phase.max(*now);
            forward
        });
    }

    /// Whether clients may connect, as seen from outside: after an upgrade another process serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase(), Phase::Ready | Phase::Replaced)
    }

    /// Runs `work` from the time when the process serves until it stops serving.
    pub async fn run(&self, work: impl Future<Output = ()>) {
        let mut phases = self.0.phase.subscribe();
        // An error means that the process ends.
        if !phases.wait_for(|phase| *phase >= Phase::Ready).await.is_ok_and(|phase| *phase == Phase::Ready) {
            return;
        }
        tokio::select! {
            () = work => {}
            _ = phases.wait_for(|phase| *phase > Phase::Ready) => {}
        }
    }

    /// Waits until the process serves.
    pub async fn started(&self) {
        // An error means that the process ends.
        self.0.phase.subscribe().wait_for(|phase| *phase >= Phase::Ready).await.ok();
    }

    /// Waits until another process serves on the same sockets, or requests are aborted.
    pub async fn replaced(&self) {
        self.0.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Replaced | Phase::Aborting)).await.ok();
    }

    /// How long the process still accepts at shutdown.
    #[must_use]
    pub fn drain_delay(&self) -> Duration {
        Duration::from_millis(self.0.drain_delay.load(Ordering::Relaxed))
    }

    /// Sets the delay from a reloaded configuration.
    pub fn set_drain_delay(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.0.drain_delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Records an aborted request.
    pub fn record_aborted(&self, request: AbortedRequest) {
        let mut cut = self.0.cut.lock();
        cut.total = cut.total.saturating_add(1);
        if cut.named.len() < NAMED_MAX {
            cut.named.push(request);
        }
    }

    /// The requests aborted so far.
    #[must_use]
    pub fn aborted(&self) -> Aborted {
        self.0.cut.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_advance_and_work_ends_with_serving() {
        let life = Lifecycle::new(Duration::from_millis(1500));
        assert_eq!((life.is_ready(), life.drain_delay()), (false, Duration::from_millis(1500)));
        let work = tokio::spawn({
            let life = life.clone();
            async move { life.run(std::future::pending()).await }
        });
        tokio::task::yield_now().await;
        life.enter(Phase::Ready);
        tokio::task::yield_now().await;
        assert!(life.is_ready() && !work.is_finished());
        life.enter(Phase::Replaced);
        work.await.unwrap();
        assert!(life.is_ready(), "the new process is ready");
        life.enter(Phase::Draining);
        life.enter(Phase::Ready);
        assert_eq!((life.phase(), life.is_ready()), (Phase::Draining, false));
        life.run(std::future::pending()).await;
    }

    #[test]
    fn list_of_aborted_requests_is_limited() {
        let life = Lifecycle::new(Duration::ZERO);
        let request =
            AbortedRequest { route: None, client: [192, 0, 2, 1].into(), age: Duration::from_micros(1_500_900) };
        assert_eq!(request.to_string(), "route=- client=192.0.2.1 after=1s 500ms");
        (0..100).for_each(|_| life.record_aborted(request.clone()));
        let cut = life.aborted();
        assert_eq!((cut.named.len(), cut.total), (NAMED_MAX, 100));
    }
}
