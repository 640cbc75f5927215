//! How a backend misbehaves, switchable while it runs, for the bench of bad days and for trying by hand.
//!
//! `POST /mood/…` sets one mood, which holds until the next:
//!
//! | path | from then on |
//! |---|---|
//! | `/mood/normal` | nothing out of the ordinary |
//! | `/mood/slow/10` | every answer takes ten times its service time |
//! | `/mood/hang` | no answer; requests wait until the mood changes |
//! | `/mood/fail` | every answer is a 500, at its usual pace |
//! | `/mood/pause/300ms/2s` | it stands still for 300 ms of every 2 s, as in a collection of garbage |
//!
//! Moods do not touch health and count: what they model is a service that suffers while its health
//! endpoint still smiles.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One way to behave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mood {
    /// As usual.
    Normal,
    /// Every answer takes this many times its service time.
    Slow(f64),
    /// No answer at all.
    Hang,
    /// Every answer is a 500.
    Fail,
    /// It stands still for `pause` of every `period`.
    Pause {
        /// How long it stands still.
        pause: Duration,
        /// From the begin of one pause to the begin of the next.
        period: Duration,
    },
}

impl Mood {
    /// The mood that the segments after `/mood` name.
    pub(super) fn parse(segments: &[&str]) -> Option<Self> {
        match segments {
            ["normal"] => Some(Self::Normal),
            ["hang"] => Some(Self::Hang),
            ["fail"] => Some(Self::Fail),
            ["slow", factor] => {
                let factor = factor.parse().ok().filter(|factor| (0.0..=1e6).contains(factor))?;
                Some(Self::Slow(factor))
            }
            ["pause", pause, period] => {
                let pause = humantime::parse_duration(pause).ok()?;
                let period = humantime::parse_duration(period).ok()?;
                (pause < period).then_some(Self::Pause { pause, period })
            }
            _ => None,
        }
    }
}

/// What is left of the pause that a backend is in, `since` after the first one began.
fn left_of_pause(since: Duration, pause: Duration, period: Duration) -> Duration {
    let into = since.as_secs_f64() % period.as_secs_f64();
    pause.saturating_sub(Duration::from_secs_f64(into))
}

/// The mood of one backend, and how long its work takes.
#[derive(Debug)]
pub(super) struct Conduct {
    mood: Mutex<(Mood, Instant)>,
    changed: Notify,
    started: Instant,
    service_time: Duration,
    cold: Duration,
}

impl Conduct {
    /// A backend in its normal mood whose work takes `service_time` on average, exponentially
    /// distributed, and ten times that until it has run for `cold`.
    pub(super) fn new(service_time: Duration, cold: Duration) -> Self {
        let started = Instant::now();
        let mood = Mutex::new((Mood::Normal, started));
        Self { mood, changed: Notify::new(), started, service_time, cold }
    }

    /// Sets the mood; who hangs in the old one goes on.
    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock() = (mood, Instant::now());
        self.changed.notify_waiters();
    }

    fn mood(&self) -> (Mood, Instant) {
        *self.mood.lock()
    }

    /// Takes as long as one piece of work does in the present mood; false when it failed.
    pub(super) async fn work(&self) -> bool {
        loop {
            // Asked for before the mood is read, so that no change falls in between.
            let changed = self.changed.notified();
            match self.mood() {
                (Mood::Hang, _) => changed.await,
                _ => break,
            }
        }
        let (mood, since) = self.mood();
        let mut factor = if self.started.elapsed() < self.cold { 10.0 } else { 1.0 };
        if let Mood::Slow(times) = mood {
            factor *= times;
        }
        if !self.service_time.is_zero() {
            tokio::time::sleep(self.service_time.mul_f64(exponential(fastrand::f64()) * factor)).await;
        }
        if let Mood::Pause { pause, period } = mood {
            // Work that would be done inside a pause is done at its end.
            tokio::time::sleep(left_of_pause(since.elapsed(), pause, period)).await;
        }
        mood != Mood::Fail
    }
}

/// A value of the exponential distribution with mean 1, from a `uniform` one of [0, 1).
fn exponential(uniform: f64) -> f64 {
    -(1.0 - uniform).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moods_are_named_by_paths_and_nonsense_is_none() {
        let milliseconds = Duration::from_millis;
        let pause = Mood::Pause { pause: milliseconds(300), period: milliseconds(2000) };
        for (segments, mood) in [
            (vec!["normal"], Some(Mood::Normal)),
            (vec!["slow", "10"], Some(Mood::Slow(10.0))),
            (vec!["pause", "300ms", "2s"], Some(pause)),
            (vec!["pause", "2s", "2s"], None),
            (vec!["slow", "-1"], None),
            (vec!["slow", "NaN"], None),
            (vec!["slow"], None),
            (vec!["merry"], None),
            (vec![], None),
        ] {
            assert_eq!(Mood::parse(&segments), mood, "{segments:?}");
        }
    }

    #[test]
    fn a_pause_is_waited_for_to_its_end_and_only_inside_it() {
        for (since, left) in [(0, 300), (100, 200), (300, 0), (1999, 0), (2000, 300), (4299, 1)] {
            let waits =
                left_of_pause(Duration::from_millis(since), Duration::from_millis(300), Duration::from_millis(2000));
            assert!(waits.abs_diff(Duration::from_millis(left)) < Duration::from_micros(10), "{since}: {waits:?}");
        }
    }

    #[test]
    fn work_is_exponential() {
        assert_eq!(exponential(0.0), 0.0);
        assert!((exponential(0.5) - 0.693).abs() < 0.001, "the median is ln 2");
        assert!((exponential(0.99) - 4.605).abs() < 0.001);
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_goes_on_when_the_mood_changes() {
        let conduct = std::sync::Arc::new(Conduct::new(Duration::ZERO, Duration::ZERO));
        conduct.set(Mood::Hang);
        let waiting = tokio::spawn({
            let conduct = std::sync::Arc::clone(&conduct);
            async move { conduct.work().await }
        });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!waiting.is_finished());
        conduct.set(Mood::Fail);
        assert!(!waiting.await.unwrap(), "and meets the new one");
    }
}
