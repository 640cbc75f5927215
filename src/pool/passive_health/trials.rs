//! The trials of an ejected backend: after a passed health check, one request at a time may try the backend, and decides
//! about the ejection.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The trials of one backend. The lock is taken only during an ejection.
#[derive(Debug, Default)]
pub(in crate::pool) struct Trials(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Counts ejections, so that a trial that outlasts its ejection does not decide about the next one.
    ejection: u64,
    /// When the health check may begin that offers the next trial.
    earliest: Option<Instant>,
    /// The pause after a trial that decided nothing.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// There is no trial.
    #[default]
    Closed,
    /// The next passed health check offers a trial.
    Waiting,
    /// The next suitable request is the trial.
    Offered,
    /// A request tries the backend.
    Running,
    /// The trial has ended.
    Decided(Verdict),
}

/// The result of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend has recovered.
    Passed,
    /// The backend still fails.
    Failed,
}

impl Trials {
    /// Begins an ejection: trials after health checks from `earliest` on, with this pause after one that decided
    /// nothing. `None` if there are no trials.
    pub(in crate::pool::passive_health) fn begin(&self, trials: Option<(Instant, Duration)>) {
        let mut state = self.0.lock();
        state.ejection = state.ejection.wrapping_add(1);
        state.phase = if trials.is_some() { Phase::Waiting } else { Phase::Closed };
        state.earliest = trials.map(|(earliest, _)| earliest);
        state.pause = trials.map_or(Duration::ZERO, |(_, pause)| pause);
    }

    /// Ends the trials with the ejection.
    pub(in crate::pool::passive_health) fn end(&self) {
        self.begin(None);
    }

    /// Offers a trial because a health check that began at `began` has passed. Returns whether one is on offer.
    pub(in crate::pool::passive_health) fn offer(&self, began: Instant) -> bool {
        let mut state = self.0.lock();
        if state.phase == Phase::Waiting && state.earliest.is_some_and(|earliest| earliest <= began) {
            state.phase = Phase::Offered;
        }
        state.phase == Phase::Offered
    }

    /// Whether a trial is on offer.
    pub(in crate::pool) fn is_offered(&self) -> bool {
        self.0.lock().phase == Phase::Offered
    }

    /// Takes the trial; returns the number of its ejection.
    pub(in crate::pool) fn take(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let offered = state.phase == Phase::Offered;
        offered.then(|| {
            state.phase = Phase::Running;
            state.ejection
        })
    }

    /// Ends the trial of this ejection with a verdict. Returns whether it decides.
    pub(in crate::pool) fn decide(&self, ejection: u64, verdict: Verdict) -> bool {
        self.leave(ejection, Phase::Decided(verdict), None)
    }

    /// Ends the trial of this ejection without a verdict: the next one follows after a pause.
    pub(in crate::pool) fn pause(&self, ejection: u64, now: Instant) {
        self.leave(ejection, Phase::Waiting, Some(now));
    }

    /// Ends the trial of this ejection because the backend did not get the request: the next passed check offers it
    /// again.
    pub(in crate::pool) fn give_back(&self, ejection: u64) {
        self.leave(ejection, Phase::Waiting, None);
    }

    fn leave(&self, ejection: u64, next: Phase, paused: Option<Instant>) -> bool {
        let mut state = self.0.lock();
        if state.ejection != ejection || state.phase != Phase::Running {
            return false;
        }
        state.phase = next;
        if let Some(now) = paused {
            state.earliest = now.checked_add(state.pause);
        }
        true
    }

    /// The verdict since the last call.
    pub(in crate::pool::passive_health) fn verdict(&self) -> Option<Verdict> {
        let mut state = self.0.lock();
        let Phase::Decided(verdict) = state.phase else { return None };
        state.phase = Phase::Closed;
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests take the current time as the start of their own clock")]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn trial_is_taken_by_one_request_after_a_check_that_began_during_the_ejection() {
        let now = Instant::now();
        let trials = Trials::default();
        assert!(!trials.offer(now), "it is not ejected");
        trials.begin(Some((now + SECOND, SECOND * 10)));
        assert!(!trials.offer(now), "the check began before the ejection");
        assert_eq!(trials.take(), None);
        assert!(trials.offer(now + SECOND) && trials.is_offered());
        let ejection = trials.take().unwrap();
        assert_eq!((trials.take(), trials.offer(now + SECOND * 2)), (None, false), "one at a time");
        assert!(trials.decide(ejection, Verdict::Passed));
        assert_eq!((trials.verdict(), trials.verdict()), (Some(Verdict::Passed), None));
    }

    #[test]
    fn trial_without_verdict_is_offered_again_after_a_pause_unless_the_backend_got_no_request() {
        let now = Instant::now();
        let trials = Trials::default();
        trials.begin(Some((now, SECOND * 10)));
        assert!(trials.offer(now));
        trials.give_back(trials.take().unwrap());
        assert!(trials.offer(now));
        trials.pause(trials.take().unwrap(), now);
        assert!(!trials.offer(now + SECOND * 9));
        assert!(trials.offer(now + SECOND * 10));
    }

    #[test]
    fn trial_that_outlasts_its_ejection_decides_nothing() {
        let now = Instant::now();
        let trials = Trials::default();
        trials.begin(Some((now, SECOND)));
        assert!(trials.offer(now));
        let old = trials.take().unwrap();
        trials.end();
        trials.begin(Some((now, SECOND)));
        assert!(trials.offer(now));
        let current = trials.take().unwrap();
        assert!(!trials.decide(old, Verdict::Failed));
        assert!(trials.decide(current, Verdict::Passed));
    }
}
