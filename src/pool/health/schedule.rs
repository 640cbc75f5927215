//! When a backend is checked next, and how results change its health.

use std::time::{Duration, Instant};

use crate::pool::health::state::Health;

/// The intervals and thresholds of a health check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CheckTiming {
    /// Time between checks of a healthy backend.
    pub interval: Duration,
    /// Time between checks after a failed one.
    pub unhealthy_interval: Duration,
    /// Consecutive passed checks after which an unhealthy backend is up.
    pub rise: u32,
    /// Consecutive failed checks after which a healthy backend is down.
    pub fall: u32,
}

/// The result of one check.
#[derive(Clone, Copy, Debug)]
pub struct CheckResult {
    /// Whether the check passed.
    pub passed: bool,
    /// When the check started.
    pub began: Instant,
    /// A number in 0..1 that shifts the next check by up to 10 % in either direction; the second one to any part of the
    /// interval, so that backends that were found together are not checked together.
    pub jitter: f64,
}

/// The check schedule of one backend. Pure: the time is an argument.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    due: Option<Instant>,
    /// Consecutive results that disagree with the current health.
    against: u32,
}

impl Schedule {
    /// When the next check is due, at the earliest `now`. The first check is due now, and so is one that is further away
    /// than `timing` allows, after the intervals have changed.
    #[must_use]
    pub fn next(&self, now: Instant, timing: &CheckTiming) -> Instant {
        let furthest = now + timing.interval.max(timing.unhealthy_interval).mul_f64(1.1);
        self.due.filter(|due| (now..=furthest).contains(due)).unwrap_or(now)
    }

    /// Applies the result of a check and returns the resulting health.
    pub fn observe(&mut self, health: Health, result: CheckResult, timing: &CheckTiming) -> Health {
        let passed = result.passed;
        let needed = match (health, passed) {
            // The first result decides immediately: a start must not take `rise` intervals.
            (Health::Unknown, _) => 1,
            (Health::Down, true) => timing.rise,
            (Health::Up, false) => timing.fall,
            (Health::Up, true) | (Health::Down, false) => 0,
        };
        self.against = if needed == 0 { 0 } else { self.against + 1 };
        let changed = needed > 0 && self.against >= needed;
        let reported = if passed { Health::Up } else { Health::Down };
        let health = if changed { reported } else { health };
        if changed {
            self.against = 0;
        }
        let interval = if health == Health::Up && passed { timing.interval } else { timing.unhealthy_interval };
        let part = if self.due.is_none() { result.jitter } else { 0.9 + 0.2 * result.jitter };
        self.due = Some(result.began + interval.mul_f64(part));
        health
    }
}

impl CheckTiming {
    /// The interval at which schedules are examined: short enough that no check is late by more than a tenth of
    /// the shortest interval.
    #[must_use]
    pub fn tick_interval(&self) -> Duration {
        (self.interval.min(self.unhealthy_interval) / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: CheckTiming =
        CheckTiming { interval: Duration::from_secs(20), unhealthy_interval: Duration::from_secs(5), rise: 2, fall: 3 };

    /// Applies results to a schedule and returns the health after each.
    fn run(from: Health, results: &[bool]) -> Vec<Health> {
        let (mut schedule, mut health) = (Schedule::default(), from);
        let began = Instant::now();
        results
            .iter()
            .map(|passed| {
                health = schedule.observe(health, CheckResult { passed: *passed, began, jitter: 0.5 }, &TIMING);
                health
            })
            .collect()
    }

    #[test]
    fn first_result_decides_the_health() {
        assert_eq!(run(Health::Unknown, &[true]), [Health::Up]);
        assert_eq!(run(Health::Unknown, &[false]), [Health::Down]);
    }

    #[test]
    fn consecutive_results_change_the_health_at_rise_and_fall() {
        use Health::{Down, Up};
        assert_eq!(run(Up, &[false, false, true, false, false, false]), [Up, Up, Up, Up, Up, Down]);
        assert_eq!(run(Down, &[true, false, true, true]), [Down, Down, Down, Up]);
    }

    #[test]
    fn unhealthy_backend_is_checked_more_often() {
        let began = Instant::now();
        let next = |health, passed, jitter| {
            let mut schedule = Schedule::default();
            assert_eq!(schedule.next(began, &TIMING), began);
            schedule.due = Some(began);
            schedule.observe(health, CheckResult { passed, began, jitter }, &TIMING);
            schedule.due.unwrap() - began
        };
        assert_eq!(next(Health::Up, true, 0.5), Duration::from_secs(20));
        assert_eq!(next(Health::Up, false, 0.5), Duration::from_secs(5), "the next check comes soon after a failure");
        assert_eq!(next(Health::Down, true, 0.5), Duration::from_secs(5));
        assert_eq!(next(Health::Up, true, 0.0), Duration::from_secs(18));
        assert_eq!(next(Health::Up, true, 1.0), Duration::from_secs(22));
    }

    #[test]
    fn second_checks_of_backends_that_were_found_together_spread_over_the_interval() {
        let began = Instant::now();
        let second = |jitter| {
            let mut schedule = Schedule::default();
            schedule.observe(Health::Unknown, CheckResult { passed: true, began, jitter }, &TIMING);
            schedule.due.unwrap() - began
        };
        assert_eq!(second(0.0), Duration::ZERO);
        assert_eq!(second(0.25), Duration::from_secs(5));
        assert_eq!(second(0.75), Duration::from_secs(15));
    }

    #[test]
    fn check_is_due_after_its_interval() {
        let began = Instant::now();
        let mut schedule = Schedule { due: Some(began), ..Schedule::default() };
        schedule.observe(Health::Unknown, CheckResult { passed: true, began, jitter: 0.5 }, &TIMING);
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(schedule.next(at(19), &TIMING), at(20));
        assert_eq!(schedule.next(at(20), &TIMING), at(20));
        assert_eq!(schedule.next(at(21), &TIMING), at(21));
        let quicker = CheckTiming { interval: Duration::from_secs(5), ..TIMING };
        assert_eq!(schedule.next(at(1), &quicker), at(1), "the intervals have changed");
    }
}
