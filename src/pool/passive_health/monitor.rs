//! Passive health at work: requests count, the keeper's task judges.
//!
//! A request touches a few atomics of its endpoint and no lock. When a row of failures reaches the
//! threshold it raises the pool's alarm, so that judgement does not wait for the window's end. The task
//! alone asks the [`Detector`], and what it decides is one flag that selection reads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::event::Event;
use crate::base::units::{Period, PoolName};
use crate::pool::endpoint::Endpoint;
use crate::pool::passive_health::{Change, Detector, Outcome, Reason, Report, Spec, Tally};

/// What judges the backends of a pool and of those that come in its place when the configuration changes.
#[derive(Debug, Default)]
pub struct Alarm {
    /// Failures in a row that raise it; 0 while traffic is not judged.
    consecutive_failures: AtomicU32,
    raised: Notify,
    /// Only the pool's background task takes this lock.
    judge: Mutex<Option<Judge>>,
}

/// What has been seen so far, and when it is looked at next.
#[derive(Debug)]
struct Judge {
    detector: Detector,
    window: Duration,
    window_ends: Instant,
}

impl Alarm {
    /// From now on backends are judged by `spec`, with what is known about them, or not at all.
    pub(in crate::pool) fn follow(&self, spec: Option<&Spec>, backends: &[Arc<Endpoint>], now: Instant) {
        self.consecutive_failures.store(spec.map_or(0, |spec| spec.consecutive_failures), Ordering::Relaxed);
        let mut judge = self.judge.lock();
        let Some(spec) = spec else {
            *judge = None;
            // Nobody would bring them back.
            backends.iter().for_each(|endpoint| endpoint.observed().ejected.store(false, Ordering::Relaxed));
            return;
        };
        let window = spec.window;
        let judge = judge.get_or_insert_with(|| Judge {
            detector: Detector::new(spec.clone()),
            window,
            window_ends: now + window,
        });
        judge.detector.follow(spec.clone());
        judge.window = window;
        judge.window_ends = judge.window_ends.min(now + window);
    }

    /// The failures in a row that raise it; `None` while traffic is not judged.
    fn threshold(&self) -> Option<u32> {
        let threshold = self.consecutive_failures.load(Ordering::Relaxed);
        (threshold > 0).then_some(threshold)
    }

    /// When there is something to judge again, if nothing is raised before.
    fn next(&self) -> Option<Instant> {
        let judge = self.judge.lock();
        let judge = judge.as_ref()?;
        Some(judge.detector.next_return().map_or(judge.window_ends, |at| at.min(judge.window_ends)))
    }

    /// Judges what is due; rows of failures where it was `raised`.
    fn judge(&self, raised: bool, backends: &[Arc<Endpoint>], now: Instant) -> Vec<Change> {
        let mut judge = self.judge.lock();
        let Some(judge) = judge.as_mut() else { return Vec::new() };
        if raised {
            return judge_rows(&mut judge.detector, backends, now);
        }
        if judge.window_ends > now {
            return judge.detector.returns(now);
        }
        judge.window_ends = now + judge.window;
        judge.detector.window(&reports(backends, End::Window), now)
    }
}

/// What requests note about one backend, and what was decided about it.
#[derive(Debug, Default)]
pub struct Observed {
    tally: Tally,
    ejected: AtomicBool,
    silent: AtomicBool,
    /// For people who ask; requests read `ejected`.
    ejected_until: Mutex<Option<Instant>>,
    alarm: Arc<Alarm>,
}

impl Observed {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(alarm: Arc<Alarm>) -> Self {
        Self { alarm, ..Self::default() }
    }

    /// Whether its traffic condemned it for now.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether it was ejected because it answers nobody, so that waiting for it is in vain.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// It takes no requests for now; `silent` where it answers nobody.
    pub fn eject(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
        self.ejected.store(true, Ordering::Relaxed);
    }

    fn take_back(&self) {
        self.silent.store(false, Ordering::Relaxed);
        self.ejected.store(false, Ordering::Relaxed);
    }

    /// Until when its traffic condemned it.
    #[must_use]
    pub fn ejected_until(&self) -> Option<Instant> {
        (*self.ejected_until.lock()).filter(|_| self.is_ejected())
    }

    /// What requests count.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Notes after what time an answer began.
    pub fn time(&self, time: Duration) {
        if self.alarm.threshold().is_some() {
            self.tally.time(time);
        }
    }

    /// Notes how a try ended, and raises the alarm if that makes one failure too many in a row.
    pub fn record(&self, outcome: Outcome) {
        let Some(threshold) = self.alarm.threshold() else { return };
        let (gateway, any) = self.tally.record(outcome);
        if Detector::is_due(threshold, gateway) || Detector::is_due(threshold, any) {
            self.alarm.raised.notify_one();
        }
    }
}

/// Judges a pool's backends for as long as it is polled.
#[expect(clippy::disallowed_methods, reason = "the pool's background task is where windows end")]
pub(in crate::pool) async fn watch(alarm: &Alarm, pool: &PoolName, backends: impl Fn() -> Vec<Arc<Endpoint>>) {
    while let Some(next) = alarm.next() {
        let raised = tokio::select! {
            () = tokio::time::sleep_until(next.into()) => false,
            () = alarm.raised.notified() => true,
        };
        let (backends, now) = (backends(), Instant::now());
        alarm.judge(raised, &backends, now).into_iter().for_each(|change| apply(change, pool, &backends, now));
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
                *endpoint.observed().ejected_until.lock() = Some(now + period);
                endpoint.observed().eject(matches!(reason, Reason::Silent(..)));
                endpoint.changed();
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
                observed.take_back();
                endpoint.changed();
            }
            Event::BackendReturned { pool, backend: address }.announce();
        }
    }
}
