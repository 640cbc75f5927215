//! A histogram of latencies with a fixed size.

use std::time::Duration;

/// Each power of two has this many buckets, so that a bucket is at most an eighth wider than its lower bound.
const PARTS: usize = 8;
/// The upper bound of the first bucket in microseconds, as a power of two: shorter latencies are not told apart.
const FIRST: u32 = 6;
/// Powers of two, up to 2^27 µs, which is more than two minutes.
const POWERS: usize = 21;
const BUCKETS: usize = POWERS * PARTS + 1;

/// The latencies of responses.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Box<[u32; BUCKETS]>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0 }
    }
}

impl Latencies {
    /// Adds a latency.
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(index(micros)) {
            *bucket = bucket.saturating_add(1);
            self.count = self.count.saturating_add(1);
        }
    }

    /// The latency that the share `quantile` of the latencies does not exceed, at most an eighth too large. `None` without
    /// latencies.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        // A count of responses is exact in this type for centuries.
        let rank = (self.count as f64 * quantile).ceil().max(1.0);
        let mut seen = 0_u64;
        for (index, count) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(u64::from(*count));
            if *count > 0 && seen as f64 >= rank {
                return Some(Duration::from_micros(upper_bound(index)));
            }
        }
        None
    }
}

/// The bucket of a latency in microseconds.
fn index(micros: u64) -> usize {
    let power = micros.checked_ilog2().unwrap_or_default();
    if power < FIRST {
        return 0;
    }
    // Three bits after the leading one.
    let part = (micros >> (power - PARTS.ilog2())) as usize % PARTS;
    let powers = (power - FIRST) as usize;
    (powers * PARTS + part).saturating_add(1).min(BUCKETS - 1)
}

/// The upper bound of a bucket in microseconds.
fn upper_bound(index: usize) -> u64 {
    let Some(index) = index.checked_sub(1) else { return 1 << FIRST };
    let unit = 1_u64 << (index / PARTS + FIRST as usize - PARTS.ilog2() as usize);
    unit.saturating_mul((PARTS + index % PARTS + 1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_at_most_an_eighth_too_large() {
        for micros in [64, 65, 100, 999, 1_000, 123_456, 1_000_000, 60_000_000, 120_000_000] {
            let mut latencies = Latencies::default();
            latencies.add(Duration::from_micros(micros));
            let quantile = latencies.quantile(0.5).unwrap().as_micros() as u64;
            assert!(micros <= quantile && quantile <= micros + micros / 8 + 1, "{micros}: {quantile}");
        }
    }

    #[test]
    fn quantiles_follow_the_order_of_latencies() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        for millis in 1..=100 {
            latencies.add(Duration::from_millis(millis));
        }
        let millis = |quantile| latencies.quantile(quantile).unwrap().as_secs_f64() * 1000.0;
        assert!((50.0..57.0).contains(&millis(0.5)), "{}", millis(0.5));
        assert!((99.0..112.0).contains(&millis(0.99)), "{}", millis(0.99));
        let mut extremes = Latencies::default();
        extremes.add(Duration::ZERO);
        extremes.add(Duration::MAX);
        assert_eq!(extremes.quantile(0.5), Some(Duration::from_micros(64)));
        assert!(extremes.quantile(1.0).unwrap() > Duration::from_secs(120));
    }
}
