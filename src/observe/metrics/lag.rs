//! By how much timers of a worker are late, which is how long its events wait while it is busy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// The time between two measurements.
const INTERVAL: Duration = Duration::from_millis(500);

/// Measurements after which the largest delay of a period is complete.
const PERIOD: u32 = 20;

/// The largest delays of this period and of the last one, in microseconds.
#[derive(Debug, Default)]
pub struct Lag {
    current: AtomicU64,
    last: AtomicU64,
}

impl Lag {
    /// The largest delay in this period of 10 s and the last one.
    #[must_use]
    pub fn largest(&self) -> Duration {
        Duration::from_micros(self.current.load(Ordering::Relaxed).max(self.last.load(Ordering::Relaxed)))
    }

    /// Measures in the calling runtime, until it ends.
    #[expect(clippy::disallowed_methods, reason = "it measures the clock")]
    pub async fn measure(&self) {
        loop {
            for _ in 0..PERIOD {
                let begun = Instant::now();
                sleep(INTERVAL).await;
                self.note(begun.elapsed().saturating_sub(INTERVAL));
            }
            self.end_period();
        }
    }

    fn note(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.current.fetch_max(micros, Ordering::Relaxed);
    }

    fn end_period(&self) {
        self.last.store(self.current.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_delay_is_forgotten_after_the_next_period() {
        let lag = Lag::default();
        lag.note(Duration::from_millis(30));
        lag.note(Duration::from_millis(2));
        lag.end_period();
        lag.note(Duration::from_millis(5));
        assert_eq!(lag.largest(), Duration::from_millis(30));
        lag.end_period();
        assert_eq!(lag.largest(), Duration::from_millis(5));
    }
}
