//! Passive health at work: requests count, the keeper's task judges.
//!
//! A request touches a few atomics of its endpoint and no lock. When a row of failures reaches the
//! threshold it raises the pool's alarm, so that judgement does not wait for the window's end. The task
//! alone has the [`Detector`], and what it decides is one flag that selection reads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::endpoint::Endpoint;
use super::outlier::{Change, Detector, Outcome, Report, Spec, Tally};
use crate::event::Event;
use crate::units::{Period, PoolName};

/// What is told to the task at once.
#[derive(Debug)]
pub struct Alarm {
    spec: Spec,
    raised: Notify,
}

impl Alarm {
    /// A quiet alarm.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, raised: Notify::new() }
    }
}

/// What requests note about one backend, and what was decided about it.
#[derive(Debug, Default)]
pub struct Observed {
    tally: Tally,
    ejected: AtomicBool,
    alarm: Option<Arc<Alarm>>,
}

impl Observed {
    /// Nothing was seen yet. Without an alarm nothing is judged.
    #[must_use]
    pub fn new(alarm: Option<Arc<Alarm>>) -> Self {
        Self { alarm, ..Self::default() }
    }

    /// Whether its traffic condemned it for now.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// What requests count.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Notes how a try ended and after what time its answer began, and raises the alarm if that makes one
    /// failure too many in a row.
    pub fn record(&self, outcome: Outcome, time: Option<Duration>) {
        let Some(alarm) = &self.alarm else { return };
        let (gateway, any) = self.tally.record(outcome, time);
        if Detector::is_due(&alarm.spec, gateway) || Detector::is_due(&alarm.spec, any) {
            alarm.raised.notify_one();
        }
    }
}

/// Judges a pool's backends for as long as it is polled.
#[expect(clippy::disallowed_methods, reason = "the pool's background task is where windows end")]
pub(super) async fn watch(alarm: &Alarm, pool: &PoolName, backends: impl Fn() -> Vec<Arc<Endpoint>>) {
    let mut detector = Detector::new(alarm.spec.clone());
    let mut windows = tokio::time::interval(alarm.spec.window);
    windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let return_at = detector.next_return();
        let changes = tokio::select! {
            _ = windows.tick() => detector.window(&reports(&backends(), End::Window), Instant::now()),
            () = alarm.raised.notified() => judge_rows(&mut detector, &backends(), Instant::now()),
            () = reached(return_at) => detector.returns(Instant::now()),
        };
        let backends = backends();
        changes.into_iter().for_each(|change| apply(change, pool, &backends, Instant::now()));
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether a report ends the window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Window,
    Nothing,
}

fn reports(backends: &[Arc<Endpoint>], end: End) -> Vec<Report> {
    let report = |endpoint: &Arc<Endpoint>| {
        let tally = endpoint.observed().tally();
        let (outcomes, times) = match end {
            End::Window => tally.take(),
            End::Nothing => (tally.outcomes(), Default::default()),
        };
        Report { address: endpoint.address(), up: endpoint.is_up(), outcomes, times, waiting: tally.waiting() }
    };
    backends.iter().map(report).collect()
}

fn judge_rows(detector: &mut Detector, backends: &[Arc<Endpoint>], now: Instant) -> Vec<Change> {
    let pool = reports(backends, End::Nothing);
    let mut changes = Vec::new();
    for endpoint in backends {
        let (gateway, any) = endpoint.observed().tally().rows();
        let change = detector.failed_in_a_row(endpoint.address(), (gateway, true), &pool, now);
        changes.extend(change.or_else(|| detector.failed_in_a_row(endpoint.address(), (any, false), &pool, now)));
    }
    changes
}

fn apply(change: Change, pool: &PoolName, backends: &[Arc<Endpoint>], now: Instant) {
    let endpoint = |address: SocketAddr| backends.iter().find(|endpoint| endpoint.address() == address);
    let pool = pool.clone();
    match change {
        Change::Ejected { address, reason, period } => {
            if let Some(endpoint) = endpoint(address) {
                endpoint.observed().ejected.store(true, Ordering::Relaxed);
            }
            Event::BackendEjected { pool, backend: address, reason: reason.to_string(), period: Period(period) }
                .announce();
        }
        Change::Returned { address } => {
            if let Some(endpoint) = endpoint(address) {
                let observed = endpoint.observed();
                // What was seen while it was out says nothing about it now.
                let (_, _) = observed.tally.take();
                observed.tally.forget_rows();
                endpoint.start_slowly(now);
                observed.ejected.store(false, Ordering::Relaxed);
            }
            Event::BackendReturned { pool, backend: address }.announce();
        }
    }
}
