//! The recent latency of a backend: a moving average that rises to peaks quickly and decays slowly (peak EWMA).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The time after which an old measurement keeps 1/e of its weight.
const DECAY: Duration = Duration::from_secs(10);

/// How much of the distance to a higher measurement the average rises. With 1, the average is the last peak, and the
/// peaks of equal backends differ by a factor of two or more. With a third, a single peak hardly makes a difference
/// among equal backends, and two or three responses still show that a backend has become slow.
const RISE: f64 = 1.0 / 3.0;

/// A moving average over time. Lock-free: two concurrent writers may lose one measurement.
#[derive(Debug, Default)]
pub(in crate::pool) struct Latency {
    /// Seconds, as the bits of an f64.
    average: AtomicU64,
    /// The time of the last measurement, in nanoseconds of the owner's clock.
    last_update: AtomicU64,
}

/// The weight that a measurement keeps after `elapsed` nanoseconds.
fn decay_factor(elapsed: u64) -> f64 {
    (-(elapsed as f64) / DECAY.as_nanos() as f64).exp()
}

impl Latency {
    /// Adds a measurement.
    pub(in crate::pool) fn record(&self, latency: Duration, now: u64) {
        let before = f64::from_bits(self.average.load(Ordering::Relaxed));
        let elapsed = now.saturating_sub(self.last_update.swap(now, Ordering::Relaxed));
        let measured = latency.as_secs_f64();
        let factor = decay_factor(elapsed);
        let rise = if before == 0.0 { 1.0 } else { RISE };
        let after = if measured >= before {
            before + (measured - before) * rise
        } else {
            before * factor + measured * (1.0 - factor)
        };
        self.average.store(after.to_bits(), Ordering::Relaxed);
    }

    /// Resets to the state before the first measurement.
    pub(in crate::pool) fn reset(&self) {
        self.average.store(0, Ordering::Relaxed);
    }

    /// The average, decayed by the time since the last measurement; zero before the first one.
    pub(in crate::pool) fn at(&self, now: u64) -> Duration {
        let average = f64::from_bits(self.average.load(Ordering::Relaxed));
        if average == 0.0 {
            return Duration::ZERO;
        }
        let elapsed = now.saturating_sub(self.last_update.load(Ordering::Relaxed));
        Duration::try_from_secs_f64(average * decay_factor(elapsed)).unwrap_or_default().max(Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn average_rises_quickly_and_decays_slowly() {
        let latency = Latency::default();
        assert_eq!(latency.at(5), Duration::ZERO);
        latency.record(Duration::from_millis(2), 0);
        assert!(latency.at(0) > Duration::from_micros(1999), "the first measurement counts in full");
        latency.record(Duration::from_millis(302), 1);
        let peak = latency.at(1);
        assert!(peak > Duration::from_millis(101) && peak < Duration::from_millis(103), "{peak:?}");
        latency.record(Duration::from_millis(2), SECOND);
        let after = latency.at(SECOND);
        assert!(after > Duration::from_millis(80) && after < Duration::from_millis(95), "{after:?}");
        assert!(latency.at(11 * SECOND) < after / 2);
        assert!(latency.at(u64::MAX) >= Duration::from_nanos(1), "zero is reserved for no measurement");
        latency.reset();
        assert_eq!(latency.at(12 * SECOND), Duration::ZERO);
    }
}
