//! A histogram of times: gives a median without storing each time.
//!
//! Each doubling has four buckets, so a value is off by at most a quarter, from 64 µs to 67 s. Recording costs
//! one atomic addition without a lock, and memory is fixed. The median is used because one large report among a
//! hundred pages is no property of the backend.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Times below this many microseconds share a bucket, as a power of two.
const FLOOR: u32 = 6;
/// Doublings above the floor.
const DOUBLINGS: u32 = 20;
/// Buckets per doubling, as a power of two.
const STEPS: u32 = 2;
const BUCKETS: usize = 1 + ((DOUBLINGS as usize) << STEPS);

/// Times of many requests, recorded from many threads.
#[derive(Debug)]
pub struct Histogram([AtomicU32; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl Histogram {
    /// Records one time.
    pub fn record(&self, time: Duration) {
        if let Some(bucket) = self.0.get(bucket(time)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the counts since the last call.
    #[must_use]
    pub fn take(&self) -> Counts {
        Counts(std::array::from_fn(|index| self.0.get(index).map_or(0, |bucket| bucket.swap(0, Ordering::Relaxed))))
    }
}

/// Counted times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts([u32; BUCKETS]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Counts {
    /// Records one time.
    pub fn record(&mut self, time: Duration) {
        if let Some(bucket) = self.0.get_mut(bucket(time)) {
            *bucket = bucket.saturating_add(1);
        }
    }

    /// The number of recorded times.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        for (own, more) in self.0.iter_mut().zip(&other.0) {
            *own = own.saturating_add(*more);
        }
    }

    /// The median; `None` without recorded times.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        let half = u64::from(self.total()).div_ceil(2);
        if half == 0 {
            return None;
        }
        let mut seen = 0;
        let index = self.0.iter().position(|count| {
            seen += u64::from(*count);
            seen >= half
        })?;
        Some(middle(index))
    }
}

fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = micros.ilog2();
    if doubling < FLOOR {
        return 0;
    }
    let step = (micros >> (doubling - STEPS)) & ((1 << STEPS) - 1);
    let index = 1 + (u64::from(doubling - FLOOR) << STEPS) + step;
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(index: usize) -> Duration {
    let Some(above) = index.checked_sub(1) else { return Duration::from_micros(1 << (FLOOR - 1)) };
    let (doubling, step) = (above >> STEPS, (above & ((1 << STEPS) - 1)) as u64);
    let unit = (1_u64 << FLOOR << doubling) >> STEPS;
    Duration::from_micros(unit * ((1 << STEPS) + step) + unit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_time_is_returned_within_a_quarter() {
        for micros in [64, 100, 999, 1_000, 1_024, 12_345, 250_000, 9_999_999, 60_000_000] {
            let mut counts = Counts::default();
            counts.record(Duration::from_micros(micros));
            let read = counts.median().unwrap().as_secs_f64() * 1e6;
            let ratio = read / micros as f64;
            assert!((0.8..1.25).contains(&ratio), "{micros} is read as {read}");
        }
    }

    #[test]
    fn extreme_times_have_a_bucket() {
        let histogram = Histogram::default();
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(100), Duration::MAX] {
            histogram.record(time);
        }
        assert_eq!(histogram.take().total(), 4);
        assert_eq!(histogram.take().median(), None);
    }

    #[test]
    fn few_large_times_do_not_move_the_median() {
        let (mut many, mut few) = (Counts::default(), Counts::default());
        (0..60).for_each(|_| many.record(Duration::from_millis(2)));
        let before = many.median();
        (0..40).for_each(|_| few.record(Duration::from_secs(2)));
        many.add(&few);
        assert_eq!((many.median(), many.total()), (before, 100));
    }
}
