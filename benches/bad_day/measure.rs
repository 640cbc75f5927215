//! The request schedule of the benchmark, and the statistics of its results.
//!
//! This module uses no clock and no socket; `tests/bad_day.rs` tests it.

use std::collections::BTreeMap;
use std::time::Duration;

/// The result of one request.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The scheduled time, from the start of the measurement.
    pub(crate) due: Duration,
    /// From the scheduled time to the end of the response, or to the failure.
    pub(crate) latency: Duration,
    /// From the scheduled time to the time when the client sent the request.
    pub(crate) send_delay: Duration,
    /// The cause of the failure, such as `502` or `timeout`; none for a 200.
    pub(crate) failure: Option<String>,
    /// The name of the backend that responded.
    pub(crate) backend: Option<String>,
}

/// The statistics of all requests of a run. Times are in microseconds.
///
/// The latencies include failed requests, with the time until they failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Summary {
    pub(crate) requests: usize,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    /// The p99 of the second in which it was highest.
    pub(crate) worst_second: u64,
    pub(crate) errors: usize,
    /// The number of failed requests for each cause.
    pub(crate) failures: BTreeMap<String, usize>,
    /// The number of responses of each backend that responded.
    #[serde(default)]
    pub(crate) shares: BTreeMap<String, usize>,
    /// The p99 of [`Sample::send_delay`].
    pub(crate) send_delay: u64,
}

/// The scheduled time of request `number` at `rate` requests per second.
pub(crate) fn due(number: u64, rate: u64) -> Duration {
    let rate = rate.max(1);
    Duration::from_secs(number / rate) + Duration::from_nanos(number % rate * 1_000_000_000 / rate)
}

/// The percentile of sorted values by the nearest-rank method, with `share` from 0 to 1; 0 if there are no values.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is between 0 and the number of samples, far below 2^52"
    )]
    // In floating point 0.999 × 1000 is slightly more than 999; the subtraction corrects this.
    let rank = (share * sorted.len() as f64 - 1e-9).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn sorted(values: impl Iterator<Item = Duration>) -> Vec<u64> {
    let mut values: Vec<u64> = values.map(|value| u64::try_from(value.as_micros()).unwrap_or(u64::MAX)).collect();
    values.sort_unstable();
    values
}

impl Summary {
    /// The statistics of the samples.
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let latencies = sorted(samples.iter().map(|sample| sample.latency));
        let mut seconds: BTreeMap<u64, Vec<Duration>> = BTreeMap::new();
        let mut failures: BTreeMap<String, usize> = BTreeMap::new();
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        for sample in samples {
            if let Some(backend) = &sample.backend {
                *shares.entry(backend.clone()).or_default() += 1;
            }
            seconds.entry(sample.due.as_secs()).or_default().push(sample.latency);
            if let Some(failure) = &sample.failure {
                *failures.entry(failure.clone()).or_default() += 1;
            }
        }
        let worst = seconds.into_values().map(|second| percentile(&sorted(second.into_iter()), 0.99)).max();
        Self {
            requests: samples.len(),
            p50: percentile(&latencies, 0.5),
            p99: percentile(&latencies, 0.99),
            p999: percentile(&latencies, 0.999),
            worst_second: worst.unwrap_or(0),
            errors: failures.values().sum(),
            failures,
            shares,
            send_delay: percentile(&sorted(samples.iter().map(|sample| sample.send_delay)), 0.99),
        }
    }
}
