//! A histogram of durations with fixed buckets.

use std::time::Duration;

/// The upper bounds of the buckets in microseconds; a last bucket has no bound.
const BOUNDS: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// The number of buckets.
const BUCKETS: usize = BOUNDS.len() + 1;

/// How often durations fell into each bucket, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The counts of the buckets, not cumulative.
    counts: [u64; BUCKETS],
    /// In microseconds.
    sum: u64,
}

impl Histogram {
    /// Counts a duration. A bucket includes its bound.
    pub fn observe(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // A partial microsecond exceeds a bound that the whole ones reach.
        let rounded = micros.saturating_add(u64::from(!duration.subsec_nanos().is_multiple_of(1_000)));
        let bucket = BOUNDS.partition_point(|bound| *bound < rounded);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(micros);
    }

    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of the durations in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a sum beyond 2^53 µs is 285 years")]
    pub fn sum_seconds(&self) -> f64 {
        self.sum as f64 / 1e6
    }

    /// The upper bound of each bucket in seconds, which is infinite for the last, and its count, not cumulative.
    #[expect(clippy::cast_precision_loss, reason = "the bounds are small")]
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.counts)
    }

    /// The duration that this share of all durations (from 0 to 1) does not exceed, in seconds; `None` without durations. It is
    /// interpolated in its bucket, as by `histogram_quantile` of Prometheus.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is not reached")]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share * count as f64;
        let (mut before, mut lower) = (0_u64, 0.0);
        for (upper, inside) in self.buckets() {
            if inside > 0 && (before + inside) as f64 >= rank {
                let part = ((rank - before as f64) / inside as f64).clamp(0.0, 1.0);
                return Some(if upper.is_finite() { lower + (upper - lower) * part } else { lower });
            }
            before += inside;
            lower = upper;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_counts_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for nanos in [0, 100_000, 100_001, 250_000, 60_000_000_000, 60_000_000_001, u64::MAX] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let found: Vec<(f64, u64)> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(found, [(0.0001, 2), (0.00025, 2), (60.0, 1), (f64::INFINITY, 2)]);
        assert_eq!(histogram.count(), 7);
    }

    #[test]
    fn sum_of_histograms_has_all_durations() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.observe(Duration::from_millis(3));
        other.observe(Duration::from_millis(700));
        one.add(&other);
        assert_eq!((one.count(), one.sum_seconds()), (2, 0.703));
    }

    #[test]
    fn quantile_is_interpolated_in_its_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for _ in 0..100 {
            histogram.observe(Duration::from_millis(2));
        }
        assert_eq!(histogram.quantile(1.0), Some(0.0025));
        assert_eq!(histogram.quantile(0.5), Some(0.00175));
        histogram.observe(Duration::from_secs(100));
        assert_eq!(histogram.quantile(1.0), Some(60.0), "the last bucket has no upper bound");
    }
}
