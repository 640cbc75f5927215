//! The outlier monitor: a background task that ejects backends.
//!
//! A request updates a few atomics of its endpoint without a lock. When consecutive failures reach the
//! threshold, it fires the trigger of the pool, so that the decision does not wait for the end of the window.
//! Only this task calls the [`Detector`]; the result is one flag that selection reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::{Period, PoolName};
use crate::pool::endpoint::Endpoint;
use crate::pool::passive_health::config::Spec;
use crate::pool::passive_health::detector::{Change, Detector, Reason, Report};
use crate::pool::passive_health::state::Trigger;

/// The outlier monitor of a pool. A replacing pool takes it over.
#[derive(Debug, Default)]
pub struct OutlierMonitor {
    trigger: Arc<Trigger>,
    /// Locked only by the background task of the pool.
    evaluate: Mutex<Option<Evaluation>>,
}

/// The detector, and the end of the current window.
#[derive(Debug)]
struct Evaluation {
    detector: Detector,
    window: Duration,
    window_ends: Instant,
}

impl OutlierMonitor {
    /// The trigger that the backends of the pool fire.
    pub(in crate::pool) fn trigger(&self) -> &Arc<Trigger> {
        &self.trigger
    }

    /// Applies a new `spec` and keeps the history; `None` turns passive health off.
    pub(in crate::pool) fn reconfigure(&self, spec: Option<&Spec>, backends: &[Arc<Endpoint>], now: Instant) {
        self.trigger.set_threshold(spec.map_or(0, |spec| spec.consecutive_failures));
        let mut evaluate = self.evaluate.lock();
        let Some(spec) = spec else {
            *evaluate = None;
            // Nothing would end their ejections.
            backends.iter().for_each(|endpoint| endpoint.passive_health().readmit());
            return;
        };
        let window = spec.window;
        let evaluate = evaluate.get_or_insert_with(|| Evaluation {
            detector: Detector::new(spec.clone()),
            window,
            window_ends: now + window,
        });
        evaluate.detector.reconfigure(spec.clone());
        evaluate.window = window;
        evaluate.window_ends = evaluate.window_ends.min(now + window);
    }

    /// When the next decision is due, unless the trigger fires before.
    fn next(&self) -> Option<Instant> {
        let evaluate = self.evaluate.lock();
        let evaluate = evaluate.as_ref()?;
        Some(evaluate.detector.next_return().map_or(evaluate.window_ends, |at| at.min(evaluate.window_ends)))
    }

    /// Decides what is due; about consecutive failures and trials if `raised`.
    fn evaluate(&self, raised: bool, backends: &[Arc<Endpoint>], now: Instant) -> Vec<Change> {
        let mut evaluate = self.evaluate.lock();
        let Some(evaluate) = evaluate.as_mut() else { return Vec::new() };
        if raised {
            let mut changes = evaluate_trials(&mut evaluate.detector, backends, now);
            changes.extend(evaluate_consecutive_failures(&mut evaluate.detector, backends, now));
            return changes;
        }
        if evaluate.window_ends > now {
            return evaluate.detector.returns(now);
        }
        evaluate.window_ends = now + evaluate.window;
        evaluate.detector.window(&reports(backends, End::Window), now)
    }
}

/// Monitors the backends of a pool for as long as it is polled.
#[expect(clippy::disallowed_methods, reason = "the pool's background task is where windows end")]
pub(in crate::pool) async fn watch(
    monitor: &OutlierMonitor,
    pool: &PoolName,
    backends: impl Fn() -> Vec<Arc<Endpoint>>,
) {
    while let Some(next) = monitor.next() {
        let raised = tokio::select! {
            () = tokio::time::sleep_until(next.into()) => false,
            () = monitor.trigger.fired() => true,
        };
        let (backends, now) = (backends(), Instant::now());
        let changes = monitor.evaluate(raised, &backends, now);
        if changes.is_empty() {
            continue;
        }
        let backends: HashMap<BackendAddress, &Arc<Endpoint>> =
            backends.iter().map(|endpoint| (endpoint.address(), endpoint)).collect();
        changes.into_iter().for_each(|change| apply(change, pool, &backends, now));
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
        let tally = endpoint.passive_health().tally();
        let (outcomes, times) = match end {
            End::Window => tally.take(),
            End::Nothing => (tally.outcomes(), Default::default()),
        };
        Report { address: endpoint.address(), up: endpoint.is_up(), outcomes, times, waiting: tally.waiting() }
    };
    backends.iter().map(report).collect()
}

fn evaluate_trials(detector: &mut Detector, backends: &[Arc<Endpoint>], now: Instant) -> Vec<Change> {
    let verdicts = backends.iter().filter_map(|endpoint| Some((endpoint, endpoint.passive_health().verdict()?)));
    verdicts.filter_map(|(endpoint, verdict)| detector.trial_ended(endpoint.address(), verdict, now)).collect()
}

fn evaluate_consecutive_failures(detector: &mut Detector, backends: &[Arc<Endpoint>], now: Instant) -> Vec<Change> {
    let pool = reports(backends, End::Nothing);
    let mut changes = Vec::new();
    for endpoint in backends {
        let (gateway, any) = endpoint.passive_health().tally().consecutive_failures();
        let change = detector.consecutive_failures_reached(endpoint.address(), (gateway, true), &pool, now);
        changes.extend(
            change.or_else(|| detector.consecutive_failures_reached(endpoint.address(), (any, false), &pool, now)),
        );
    }
    changes
}

fn apply(change: Change, pool: &PoolName, backends: &HashMap<BackendAddress, &Arc<Endpoint>>, now: Instant) {
    let endpoint = |address: BackendAddress| backends.get(&address);
    let pool = pool.clone();
    match change {
        Change::Ejected { address, reason, period, trials } => {
            if let Some(endpoint) = endpoint(address) {
                endpoint.passive_health().eject(matches!(reason, Reason::Unresponsive(..)), now + period);
                endpoint.passive_health().set_trials(trials.map(|trials| (now + trials.after, trials.pause)));
                endpoint.notify_change();
            }
            Event::BackendEjected { pool, backend: address, reason: reason.to_string(), period: Period(period) }
                .announce();
        }
        Change::Returned { address } => {
            if let Some(endpoint) = endpoint(address) {
                let observed = endpoint.passive_health();
                // Counts from before the ejection are outdated.
                let (_, _) = observed.tally().take();
                observed.tally().reset_consecutive_failures();
                endpoint.begin_slow_start(now);
                observed.readmit();
                endpoint.notify_change();
            }
            Event::BackendReturned { pool, backend: address }.announce();
        }
    }
}
