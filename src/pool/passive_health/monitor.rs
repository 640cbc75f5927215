//! Passive health at work: requests count, the keeper's task judges.
//!
//! A request touches a few atomics of its endpoint and no lock. When a row of failures reaches the
//! threshold it raises the pool's alarm, so that judgement does not wait for the window's end. The task
//! alone asks the [`Detector`], and what it decides is one flag that selection reads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::event::Event;
use crate::base::units::{Period, PoolName};
use crate::pool::endpoint::Endpoint;
use crate::pool::passive_health::config::Spec;
use crate::pool::passive_health::detector::{Change, Detector, Reason, Report};
use crate::pool::passive_health::state::Trigger;

/// What judges the backends of a pool and of those that come in its place when the configuration changes.
#[derive(Debug, Default)]
pub struct Alarm {
    trigger: Arc<Trigger>,
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
    /// The trigger that the backends of the pool fire.
    pub(in crate::pool) fn trigger(&self) -> &Arc<Trigger> {
        &self.trigger
    }

    /// From now on backends are judged by `spec`, with what is known about them, or not at all.
    pub(in crate::pool) fn follow(&self, spec: Option<&Spec>, backends: &[Arc<Endpoint>], now: Instant) {
        self.trigger.set_threshold(spec.map_or(0, |spec| spec.consecutive_failures));
        let mut judge = self.judge.lock();
        let Some(spec) = spec else {
            *judge = None;
            // Nobody would bring them back.
            backends.iter().for_each(|endpoint| endpoint.observed().readmit());
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

/// Judges a pool's backends for as long as it is polled.
#[expect(clippy::disallowed_methods, reason = "the pool's background task is where windows end")]
pub(in crate::pool) async fn watch(alarm: &Alarm, pool: &PoolName, backends: impl Fn() -> Vec<Arc<Endpoint>>) {
    while let Some(next) = alarm.next() {
        let raised = tokio::select! {
            () = tokio::time::sleep_until(next.into()) => false,
            () = alarm.trigger.fired() => true,
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
                endpoint.observed().eject(matches!(reason, Reason::Unresponsive(..)), now + period);
                endpoint.changed();
            }
            Event::BackendEjected { pool, backend: address, reason: reason.to_string(), period: Period(period) }
                .announce();
        }
        Change::Returned { address } => {
            if let Some(endpoint) = endpoint(address) {
                let observed = endpoint.observed();
                // What was seen while it was out says nothing about it now.
                let (_, _) = observed.tally().take();
                observed.tally().forget_rows();
                endpoint.start_slowly(now);
                observed.readmit();
                endpoint.changed();
            }
            Event::BackendReturned { pool, backend: address }.announce();
        }
    }
}
