//! Where the process is between its start and its end, known to all who act differently for it: listeners,
//! requests, signals, the control socket.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::base::units::{Period, RouteName};

/// The stations, in their order; there is no way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It does not accept yet.
    Starting,
    /// It serves.
    Ready,
    /// Another process serves at the same sockets, and this one finishes what it has.
    Replaced,
    /// It was asked to stop. It accepts for a while still, until all have heard that they should not come.
    Leaving,
    /// What is in flight still is cut.
    Cutting,
}

/// The most requests that are named when they are cut.
const NAMED_MAX: usize = 20;

/// A request that was cut because the process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutRequest {
    /// Its route, where it had one.
    pub route: Option<RouteName>,
    /// Who it was from.
    pub client: IpAddr,
    /// How long it had been going on.
    pub age: Duration,
}

impl fmt::Display for CutRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.route.as_ref().map_or("-", RouteName::as_str);
        let age = Period(Duration::from_millis(u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX)));
        write!(f, "route={route} client={} after={age}", self.client)
    }
}

/// What was cut.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    /// The first ones.
    pub named: Vec<CutRequest>,
    /// How many there were.
    pub total: usize,
}

struct Inner {
    phase: watch::Sender<Phase>,
    /// Milliseconds.
    drain_delay: AtomicU64,
    cut: Mutex<Cut>,
}

/// The life of the process. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Lifecycle(Arc<Inner>);

impl Lifecycle {
    /// The life of a process that starts. When it is asked to stop it accepts for `drain_delay` still.
    #[must_use]
    pub fn new(drain_delay: Duration) -> Self {
        let phase = watch::Sender::new(Phase::Starting);
        let lifecycle = Self(Arc::new(Inner { phase, drain_delay: AtomicU64::new(0), cut: Mutex::default() }));
        lifecycle.set_drain_delay(drain_delay);
        lifecycle
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Goes on to `phase`; never back.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            let forward = phase > *now;
            *now = phase.max(*now);
            forward
        });
    }

    /// Whether clients may come, as seen from outside: after an upgrade it is another process that they
    /// come to.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase(), Phase::Ready | Phase::Replaced)
    }

    /// Runs `work` while the process serves, from when it does.
    pub async fn run(&self, work: impl Future<Output = ()>) {
        let mut phases = self.0.phase.subscribe();
        // An error is the end of the process.
        if !phases.wait_for(|phase| *phase >= Phase::Ready).await.is_ok_and(|phase| *phase == Phase::Ready) {
            return;
        }
        tokio::select! {
            () = work => {}
            _ = phases.wait_for(|phase| *phase > Phase::Ready) => {}
        }
    }

    /// How long the process accepts after it was asked to stop.
    #[must_use]
    pub fn drain_delay(&self) -> Duration {
        Duration::from_millis(self.0.drain_delay.load(Ordering::Relaxed))
    }

    /// Another delay, from a configuration that was read anew.
    pub fn set_drain_delay(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.0.drain_delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Notes that a request was cut.
    pub fn note_cut(&self, request: CutRequest) {
        let mut cut = self.0.cut.lock();
        cut.total = cut.total.saturating_add(1);
        if cut.named.len() < NAMED_MAX {
            cut.named.push(request);
        }
    }

    /// What was cut so far.
    #[must_use]
    pub fn cut(&self) -> Cut {
        self.0.cut.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_goes_forward_only_and_work_ends_with_service() {
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
        assert!(life.is_ready(), "the other one is");
        life.enter(Phase::Leaving);
        life.enter(Phase::Ready);
        assert_eq!((life.phase(), life.is_ready()), (Phase::Leaving, false));
        life.run(std::future::pending()).await;
    }

    #[test]
    fn no_more_are_named_than_anybody_reads() {
        let life = Lifecycle::new(Duration::ZERO);
        let request = CutRequest { route: None, client: [192, 0, 2, 1].into(), age: Duration::from_micros(1_500_900) };
        assert_eq!(request.to_string(), "route=- client=192.0.2.1 after=1s 500ms");
        (0..100).for_each(|_| life.note_cut(request.clone()));
        let cut = life.cut();
        assert_eq!((cut.named.len(), cut.total), (NAMED_MAX, 100));
    }
}
