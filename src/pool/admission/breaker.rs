//! A circuit breaker: after too many failures it rejects requests for some time, then admits a few probes.
//!
//! Passive health compares backends and needs peers; a breaker looks at one backend alone. It fits a dependency
//! that needs a pause to recover, or a pool that fails as a whole, where requests would otherwise wait for
//! timeouts.
//!
//! - **closed**: all requests pass; outcomes are counted in a sliding window of ten steps. It opens when there
//!   are enough outcomes and too many of them are failures.
//! - **open**: no request passes for `open_for`.
//! - **half-open**: a few probes pass at a time. As many successes close it; one failure opens it again.
//!
//! A state machine; the time is an argument. The [`Permit`] drops outcomes of requests that started before the
//! last change of state, so that slow failures do not open it twice.

use std::time::{Duration, Instant};

/// Steps of the sliding window.
const STEPS: usize = 10;

/// The parameters of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The percentage of failures that opens it.
    pub failure_percent: u32,
    /// Requests in the window below which it stays closed.
    pub minimum_requests: u32,
    /// The length of the window.
    pub window: Duration,
    /// How long it stays open.
    pub open_for: Duration,
    /// Concurrent probes, and successes that close it.
    pub probes: u32,
}

/// Permission for one request. It must be returned with [`Breaker::settle`] for any outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a permit that is not settled blocks a probe"]
pub struct Permit {
    generation: u64,
}

/// What passes at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// All requests.
    All,
    /// No request, for this long.
    Nothing(Duration),
    /// A few probes at a time.
    Probes,
}

/// A change of state to report to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has opened.
    Opened,
    /// It has closed.
    Closed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Step {
    requests: u32,
    failures: u32,
}

impl Step {
    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

#[derive(Debug)]
enum State {
    Closed { steps: [Step; STEPS], newest: Instant },
    Open { until: Instant },
    HalfOpen { probing: u32, passed: u32 },
}

/// The breaker of one backend.
#[derive(Debug)]
pub struct Breaker {
    spec: Spec,
    state: State,
    /// Counts changes of state.
    generation: u64,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(spec: Spec, now: Instant) -> Self {
        Self { spec, state: closed(now), generation: 0 }
    }

    /// Applies a new `spec`, also to the outcomes counted so far. An open breaker closes at its planned time. A
    /// window of another length starts empty, because its steps differ.
    pub fn reconfigure(&mut self, spec: Spec, now: Instant) {
        match self.state {
            State::Closed { .. } if spec.window != self.spec.window => self.state = closed(now),
            State::HalfOpen { passed, .. } if passed >= spec.probes => self.turn(closed(now)),
            _ => {}
        }
        self.spec = spec;
    }

    /// Whether a request may pass.
    ///
    /// # Errors
    /// The time until the next request may pass; zero if that is unknown.
    pub fn check(&self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until } if until <= now => Ok(()),
            State::Open { until } => Err(until.saturating_duration_since(now)),
            State::HalfOpen { probing, passed } if probing + passed < self.spec.probes => Ok(()),
            // A probe in flight decides, at an unknown time.
            State::HalfOpen { .. } => Err(Duration::ZERO),
        }
    }

    /// What passes at present.
    #[must_use]
    pub fn passing(&self, now: Instant) -> Passing {
        match self.state {
            State::Closed { .. } => Passing::All,
            State::Open { until } if until > now => Passing::Nothing(until.saturating_duration_since(now)),
            State::Open { .. } | State::HalfOpen { .. } => Passing::Probes,
        }
    }

    /// How many requests may pass at present.
    #[must_use]
    pub fn room(&self, now: Instant) -> u32 {
        match self.state {
            State::Closed { .. } => u32::MAX,
            State::Open { until } if until <= now => self.spec.probes,
            State::Open { .. } => 0,
            State::HalfOpen { probing, passed } => self.spec.probes.saturating_sub(probing + passed),
        }
    }

    /// Admits a request.
    ///
    /// # Errors
    /// The time until the next request may pass; zero if that is unknown.
    pub fn admit(&mut self, now: Instant) -> Result<Permit, Duration> {
        self.check(now)?;
        if let State::Open { .. } = self.state {
            self.turn(State::HalfOpen { probing: 0, passed: 0 });
        }
        if let State::HalfOpen { probing, .. } = &mut self.state {
            *probing += 1;
        }
        Ok(Permit { generation: self.generation })
    }

    /// Returns a permit with the outcome: whether the request failed, or `None` if that is unknown.
    pub fn settle(&mut self, permit: Permit, failed: Option<bool>, now: Instant) -> Option<Change> {
        if permit.generation != self.generation {
            return None;
        }
        match (&mut self.state, failed) {
            (State::Closed { .. }, Some(failed)) => {
                self.count(Step { requests: 1, failures: u32::from(failed) }, now);
                (failed && self.must_open()).then(|| self.open(now))
            }
            (State::HalfOpen { .. }, Some(true)) => Some(self.open(now)),
            (State::HalfOpen { probing, passed }, outcome) => {
                *probing = probing.saturating_sub(1);
                *passed += u32::from(outcome.is_some());
                let closes = *passed >= self.spec.probes;
                closes.then(|| {
                    self.turn(closed(now));
                    Change::Closed
                })
            }
            (State::Closed { .. }, None) | (State::Open { .. }, _) => None,
        }
    }

    /// Records that a response broke off after its start had been settled as a success. `corrects` if it broke off so
    /// early that it was none; otherwise the failure counts in addition.
    pub fn broke_off(&mut self, permit: Permit, corrects: bool, now: Instant) -> Option<Change> {
        let is_current = permit.generation == self.generation;
        // The success of a probe may have closed it.
        let has_closed = permit.generation + 1 == self.generation;
        match self.state {
            State::HalfOpen { .. } if is_current => Some(self.open(now)),
            State::Closed { .. } if has_closed && corrects => Some(self.open(now)),
            State::Closed { .. } if is_current || has_closed => {
                self.count(Step { requests: u32::from(!corrects), failures: 1 }, now);
                self.must_open().then(|| self.open(now))
            }
            _ => None,
        }
    }

    /// Counts outcomes in the current step of a closed breaker.
    fn count(&mut self, outcomes: Step, now: Instant) {
        let State::Closed { steps, newest } = &mut self.state else { return };
        advance(steps, newest, self.spec.window, now);
        if let Some(step) = steps.first_mut() {
            *step = step.plus(outcomes);
        }
    }

    /// Whether the outcomes in the window open a closed breaker.
    fn must_open(&self) -> bool {
        let State::Closed { steps, .. } = &self.state else { return false };
        let all = steps.iter().fold(Step::default(), |all, step| all.plus(*step));
        let share = u64::from(all.requests) * u64::from(self.spec.failure_percent);
        all.requests >= self.spec.minimum_requests && u64::from(all.failures) * 100 >= share
    }

    fn open(&mut self, now: Instant) -> Change {
        self.turn(State::Open { until: now + self.spec.open_for });
        Change::Opened
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

fn closed(now: Instant) -> State {
    State::Closed { steps: [Step::default(); STEPS], newest: now }
}

/// Moves the window so that its first step contains `now`.
fn advance(steps: &mut [Step; STEPS], newest: &mut Instant, window: Duration, now: Instant) {
    // A window of zero length would make steps of zero length.
    let step = (window / STEPS as u32).max(Duration::from_nanos(1));
    let passed = now.saturating_duration_since(*newest).as_nanos() / step.as_nanos();
    if passed == 0 {
        return;
    }
    let shift = usize::try_from(passed).unwrap_or(STEPS).min(STEPS);
    steps.rotate_right(shift % STEPS);
    steps.iter_mut().take(shift).for_each(|step| *step = Step::default());
    *newest = if shift < STEPS { *newest + step * u32::try_from(shift).unwrap_or(0) } else { now };
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        failure_percent: 50,
        minimum_requests: 10,
        window: Duration::from_secs(10),
        open_for: Duration::from_secs(5),
        probes: 2,
    };

    fn second() -> Duration {
        Duration::from_secs(1)
    }

    fn request(breaker: &mut Breaker, failed: bool, now: Instant) -> Option<Change> {
        let permit = breaker.admit(now).unwrap();
        breaker.settle(permit, Some(failed), now)
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(SPEC, now);
        let changes: Vec<_> = (0..10).filter_map(|_| request(&mut breaker, true, now)).collect();
        assert_eq!(changes, [Change::Opened]);
        breaker
    }

    #[test]
    fn breaker_opens_at_the_failure_percentage_and_the_minimum_of_requests() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SPEC, now);
        assert!((0..9).all(|_| request(&mut breaker, true, now).is_none()), "nine are too few");
        let mut breaker = Breaker::new(SPEC, now);
        assert!((0..100).all(|turn| request(&mut breaker, turn % 5 > 2, now).is_none()), "40 %");
        let mut breaker = Breaker::new(SPEC, now);
        assert!((0..10).any(|turn| request(&mut breaker, turn % 2 == 1, now) == Some(Change::Opened)), "50 %");
    }

    #[test]
    fn open_breaker_reports_its_remaining_time_and_admits_probes_afterwards() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + second()), Err(second() * 4));
        assert_eq!(breaker.passing(now + second()), Passing::Nothing(second() * 4));
        assert_eq!(breaker.passing(now + second() * 5), Passing::Probes);
        let later = now + second() * 5;
        assert_eq!((breaker.room(now), breaker.room(later)), (0, 2));
        let (one, two) = (breaker.admit(later).unwrap(), breaker.admit(later).unwrap());
        assert_eq!(breaker.admit(later), Err(Duration::ZERO), "at most two probes");
        assert_eq!(breaker.room(later), 0);
        assert_eq!(breaker.settle(one, Some(false), later), None);
        assert_eq!(breaker.admit(later), Err(Duration::ZERO), "the probes in flight suffice to close it");
        assert_eq!(breaker.settle(two, Some(false), later), Some(Change::Closed));
        assert_eq!(breaker.room(later), u32::MAX);
        assert!((0..9).all(|_| request(&mut breaker, true, later).is_none()), "the window starts empty");
    }

    #[test]
    fn failed_probe_opens_the_breaker_again() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + second() * 6;
        let (one, two) = (breaker.admit(later).unwrap(), breaker.admit(later).unwrap());
        assert_eq!(breaker.settle(one, Some(true), later), Some(Change::Opened));
        assert_eq!(breaker.settle(two, Some(false), later), None, "an outcome from before the change is dropped");
        assert_eq!(breaker.admit(later), Err(second() * 5));
    }

    #[test]
    fn response_that_breaks_off_early_counts_as_one_failure_and_later_as_a_further_request() {
        let now = Instant::now();
        for (corrects, opens_at) in [(true, 10), (false, 5)] {
            let mut breaker = Breaker::new(Spec { failure_percent: 50, ..SPEC }, now);
            let breaks_off = |breaker: &mut Breaker| {
                let permit = breaker.admit(now).unwrap();
                assert_eq!(breaker.settle(permit, Some(false), now), None);
                breaker.broke_off(permit, corrects, now)
            };
            assert!((1..opens_at).all(|_| breaks_off(&mut breaker).is_none()));
            assert_eq!(breaks_off(&mut breaker), Some(Change::Opened), "{corrects}");
        }
    }

    #[test]
    fn probe_that_breaks_off_early_opens_the_breaker_that_it_has_closed() {
        let now = Instant::now();
        let later = now + second() * 6;
        for (corrects, change) in [(true, Some(Change::Opened)), (false, None)] {
            let mut breaker = opened(now);
            let (one, two) = (breaker.admit(later).unwrap(), breaker.admit(later).unwrap());
            assert_eq!(breaker.settle(one, Some(false), later), None);
            assert_eq!(breaker.settle(two, Some(false), later), Some(Change::Closed));
            assert_eq!(breaker.broke_off(one, corrects, later), change);
        }
    }

    #[test]
    fn probe_without_an_outcome_admits_another_probe() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + second() * 6;
        for _ in 0..100 {
            let permit = breaker.admit(later).unwrap();
            assert_eq!(breaker.settle(permit, None, later), None);
        }
        assert_eq!(request(&mut breaker, false, later), None);
        assert_eq!(request(&mut breaker, false, later), Some(Change::Closed));
    }

    #[test]
    fn new_parameters_apply_to_outcomes_counted_before() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SPEC, now);
        assert!((0..9).all(|_| request(&mut breaker, true, now).is_none()));
        breaker.reconfigure(Spec { minimum_requests: 20, ..SPEC }, now);
        assert!((0..10).all(|_| request(&mut breaker, true, now).is_none()));
        assert_eq!(request(&mut breaker, true, now), Some(Change::Opened));
        breaker.reconfigure(Spec { open_for: second(), ..SPEC }, now);
        assert_eq!(breaker.check(now), Err(second() * 5), "it stays open until its planned time");
        let later = now + second() * 5;
        assert_eq!(request(&mut breaker, false, later), None);
        breaker.reconfigure(Spec { probes: 1, ..SPEC }, later);
        assert!((0..9).all(|_| request(&mut breaker, true, later).is_none()), "one probe was enough");
        breaker.reconfigure(Spec { window: second(), ..SPEC }, later);
        assert!(
            (0..9).all(|_| request(&mut breaker, true, later).is_none()),
            "a window of another length starts empty"
        );
        assert_eq!(request(&mut breaker, true, later), Some(Change::Opened));
    }

    #[test]
    fn outcome_of_a_request_from_before_the_opening_is_ignored() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SPEC, now);
        let old: Vec<Permit> = (0..30).map(|_| breaker.admit(now).unwrap()).collect();
        let mut changes = old.into_iter().filter_map(|permit| breaker.settle(permit, Some(true), now));
        assert_eq!((changes.next(), changes.next()), (Some(Change::Opened), None));
    }

    #[test]
    fn sliding_window_drops_old_outcomes() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SPEC, now);
        assert!((0..9).all(|_| request(&mut breaker, true, now).is_none()));
        assert_eq!(request(&mut breaker, true, now + second() * 9), Some(Change::Opened), "still in the window");
        let mut breaker = Breaker::new(SPEC, now);
        assert!((0..9).all(|_| request(&mut breaker, true, now).is_none()));
        assert_eq!(request(&mut breaker, true, now + second() * 10), None, "forgotten");
        assert_eq!(request(&mut breaker, true, now + second() * 86_400), None);
        // One failure per second never makes ten in ten seconds among as many successes and more.
        for turn in 0..1000 {
            let at = now + second() * (86_500 + turn);
            assert_eq!(request(&mut breaker, true, at), None);
            assert!((0..2).all(|_| request(&mut breaker, false, at).is_none()));
        }
    }
}
