//! The passive health of one backend: what its requests record, and whether it is ejected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pool::passive_health::detector::Detector;
use crate::pool::passive_health::tally::{Outcome, Tally};
use crate::pool::passive_health::trials::{Trials, Verdict};

/// Wakes the outlier monitor of a pool as soon as a backend reaches the threshold of consecutive failures.
#[derive(Debug, Default)]
pub struct Trigger {
    /// The threshold; 0 while passive health is off.
    consecutive_failures: AtomicU32,
    fired: Notify,
    /// Whether a backend may offer a trial.
    trial_hint: AtomicBool,
}

impl Trigger {
    /// Sets the threshold; 0 turns the trigger off.
    pub(in crate::pool) fn set_threshold(&self, consecutive_failures: u32) {
        self.consecutive_failures.store(consecutive_failures, Ordering::Relaxed);
    }

    /// The threshold; `None` while passive health is off.
    fn threshold(&self) -> Option<u32> {
        let threshold = self.consecutive_failures.load(Ordering::Relaxed);
        (threshold > 0).then_some(threshold)
    }

    pub(in crate::pool) fn may_offer_trial(&self) -> bool {
        self.trial_hint.load(Ordering::Relaxed)
    }

    pub(in crate::pool) fn set_trial_hint(&self, offered: bool) {
        self.trial_hint.store(offered, Ordering::SeqCst);
    }

    fn fire(&self) {
        self.fired.notify_one();
    }

    /// Waits until the trigger fires.
    pub(in crate::pool) async fn fired(&self) {
        self.fired.notified().await;
    }
}

/// What requests record about one backend, and whether it is ejected.
#[derive(Debug, Default)]
pub struct PassiveHealth {
    tally: Tally,
    ejected: AtomicBool,
    unresponsive: AtomicBool,
    trials: Trials,
    /// For display; requests read `ejected`.
    ejected_until: Mutex<Option<Instant>>,
    trigger: Arc<Trigger>,
}

impl PassiveHealth {
    /// The state of a backend without requests.
    #[must_use]
    pub fn new(trigger: Arc<Trigger>) -> Self {
        Self { trigger, ..Self::default() }
    }

    /// Whether it is ejected.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether it was ejected because it sends no responses, so that queued requests should not wait for it.
    #[must_use]
    pub fn is_unresponsive(&self) -> bool {
        self.unresponsive.load(Ordering::Relaxed)
    }

    /// Ejects the backend until `until`; `unresponsive` if it sends no responses.
    pub fn eject(&self, unresponsive: bool, until: Instant) {
        *self.ejected_until.lock() = Some(until);
        self.unresponsive.store(unresponsive, Ordering::Relaxed);
        self.ejected.store(true, Ordering::Relaxed);
    }

    /// The trials during the current ejection.
    pub(in crate::pool) fn trials(&self) -> &Trials {
        &self.trials
    }

    /// Sets the trials of the current ejection: after health checks from `earliest` on, with this pause after one that
    /// decided nothing.
    pub(in crate::pool) fn set_trials(&self, trials: Option<(Instant, Duration)>) {
        self.trials.begin(trials);
    }

    /// The verdict of a trial since the last call.
    pub(in crate::pool) fn verdict(&self) -> Option<Verdict> {
        if self.is_ejected() { self.trials.verdict() } else { None }
    }

    /// Offers a trial if it is ejected, because a health check that began at `began` has passed.
    pub(in crate::pool) fn offer_trial(&self, began: Instant) {
        if self.is_ejected() && self.trials.offer(began) {
            self.trigger.set_trial_hint(true);
        }
    }

    /// Ends the trial of this ejection, and wakes the outlier monitor, which ends or extends the ejection.
    pub(in crate::pool) fn decide_trial(&self, ejection: u64, verdict: Verdict) {
        if self.trials.decide(ejection, verdict) {
            self.trigger.fire();
        }
    }

    /// Ends the ejection.
    pub(in crate::pool) fn readmit(&self) {
        self.trials.end();
        self.unresponsive.store(false, Ordering::Relaxed);
        self.ejected.store(false, Ordering::Relaxed);
    }

    /// The end of its ejection.
    #[must_use]
    pub fn ejected_until(&self) -> Option<Instant> {
        (*self.ejected_until.lock()).filter(|_| self.is_ejected())
    }

    /// The counts of requests.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Records the time until a response started.
    pub fn time(&self, time: Duration) {
        if self.trigger.threshold().is_some() {
            self.tally.time(time);
        }
    }

    /// Records the good start of a response. Returns what [`PassiveHealth::retract_success`] needs.
    pub fn begin_success(&self) -> Option<(u32, u32)> {
        self.trigger.threshold().map(|_| self.tally.begin_success())
    }

    /// Removes the success of a response that broke off.
    pub fn retract_success(&self, begun: Option<(u32, u32)>) {
        if let Some(before) = begun {
            self.tally.retract_success(before);
        }
    }

    /// Records how an attempt ended, and fires the trigger at the threshold of consecutive failures.
    pub fn record(&self, outcome: Outcome) {
        let Some(threshold) = self.trigger.threshold() else { return };
        let (gateway, any) = self.tally.record(outcome);
        if Detector::is_due(threshold, gateway) || Detector::is_due(threshold, any) {
            self.trigger.fire();
        }
    }
}
