//! When a backend is checked next, and what the results so far mean.

use std::time::{Duration, Instant};

use crate::pool::health::state::Health;

/// How often a backend is checked and how many answers in a row change its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rhythm {
    /// Time between checks of a backend that is well.
    pub interval: Duration,
    /// Time between checks after a failed one.
    pub unhealthy_interval: Duration,
    /// Passes in a row that bring a failed backend back.
    pub rise: u32,
    /// Failures in a row that take a backend out.
    pub fall: u32,
}

/// One finished check.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Whether the backend passed.
    pub passed: bool,
    /// When the check began.
    pub began: Instant,
    /// A number in 0..1 that shifts the next check by up to 10 % either way.
    pub jitter: f64,
}

/// When a backend is checked next, and what the checks so far add up to. Pure: time is passed in.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    due: Option<Instant>,
    /// Answers in a row that disagree with the current health.
    against: u32,
}

impl Schedule {
    /// Whether a check is due. The first one always is, and so is one that is further away than
    /// `rhythm` would have it: then the rhythm has changed.
    #[must_use]
    pub fn is_due(&self, now: Instant, rhythm: &Rhythm) -> bool {
        let furthest = now + rhythm.interval.max(rhythm.unhealthy_interval).mul_f64(1.1);
        self.due.is_none_or(|due| due <= now || due > furthest)
    }

    /// Takes in the answer of a check and says what the backend's health is now.
    pub fn observe(&mut self, health: Health, answer: Answer, rhythm: &Rhythm) -> Health {
        let passed = answer.passed;
        let needed = match (health, passed) {
            // The first answer of all decides: a start-up must not take `rise` intervals.
            (Health::Unknown, _) => 1,
            (Health::Down, true) => rhythm.rise,
            (Health::Up, false) => rhythm.fall,
            (Health::Up, true) | (Health::Down, false) => 0,
        };
        self.against = if needed == 0 { 0 } else { self.against + 1 };
        let changed = needed > 0 && self.against >= needed;
        let said = if passed { Health::Up } else { Health::Down };
        let health = if changed { said } else { health };
        if changed {
            self.against = 0;
        }
        let interval = if health == Health::Up && passed { rhythm.interval } else { rhythm.unhealthy_interval };
        self.due = Some(answer.began + interval.mul_f64(0.9 + 0.2 * answer.jitter));
        health
    }
}

impl Rhythm {
    /// How often the schedules are looked at: often enough that no check is late by more than a
    /// tenth of the shortest interval, seldom enough to cost nothing.
    #[must_use]
    pub fn beat(&self) -> Duration {
        (self.interval.min(self.unhealthy_interval) / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: Rhythm =
        Rhythm { interval: Duration::from_secs(20), unhealthy_interval: Duration::from_secs(5), rise: 2, fall: 3 };

    /// Runs answers through a schedule and returns the health after each.
    fn run(from: Health, answers: &[bool]) -> Vec<Health> {
        let (mut schedule, mut health) = (Schedule::default(), from);
        let began = Instant::now();
        answers
            .iter()
            .map(|passed| {
                health = schedule.observe(health, Answer { passed: *passed, began, jitter: 0.5 }, &RHYTHM);
                health
            })
            .collect()
    }

    #[test]
    fn the_first_answer_decides() {
        assert_eq!(run(Health::Unknown, &[true]), [Health::Up]);
        assert_eq!(run(Health::Unknown, &[false]), [Health::Down]);
    }

    #[test]
    fn fall_failures_in_a_row_take_out_and_rise_passes_bring_back() {
        use Health::{Down, Up};
        assert_eq!(run(Up, &[false, false, true, false, false, false]), [Up, Up, Up, Up, Up, Down]);
        assert_eq!(run(Down, &[true, false, true, true]), [Down, Down, Down, Up]);
    }

    #[test]
    fn a_failing_backend_is_asked_more_often() {
        let began = Instant::now();
        let next = |health, passed, jitter| {
            let mut schedule = Schedule::default();
            assert!(schedule.is_due(began, &RHYTHM));
            schedule.observe(health, Answer { passed, began, jitter }, &RHYTHM);
            schedule.due.unwrap() - began
        };
        assert_eq!(next(Health::Up, true, 0.5), Duration::from_secs(20));
        assert_eq!(next(Health::Up, false, 0.5), Duration::from_secs(5), "doubt is followed up quickly");
        assert_eq!(next(Health::Down, true, 0.5), Duration::from_secs(5));
        assert_eq!(next(Health::Up, true, 0.0), Duration::from_secs(18));
        assert_eq!(next(Health::Up, true, 1.0), Duration::from_secs(22));
    }

    #[test]
    fn it_is_due_when_its_time_has_come() {
        let began = Instant::now();
        let mut schedule = Schedule::default();
        schedule.observe(Health::Unknown, Answer { passed: true, began, jitter: 0.5 }, &RHYTHM);
        assert!(!schedule.is_due(began + Duration::from_secs(19), &RHYTHM));
        assert!(schedule.is_due(began + Duration::from_secs(20), &RHYTHM));
        let quicker = Rhythm { interval: Duration::from_secs(5), ..RHYTHM };
        assert!(schedule.is_due(began + Duration::from_secs(1), &quicker), "the rhythm has changed");
    }
}
