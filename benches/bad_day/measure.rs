//! The arithmetic of the bench: when requests are due, and what their latencies come to.
//!
//! Nothing here touches a clock or a socket; `tests/bad_day.rs` tests it.

use std::collections::BTreeMap;
use std::time::Duration;

/// What became of one request.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When it was due, from the begin of the measurement.
    pub(crate) due: Duration,
    /// From then to the end of its answer, or to its failure.
    pub(crate) latency: Duration,
    /// From then to when the client got round to it: the client's own fault.
    pub(crate) late: Duration,
    /// Why it failed, such as `502` or `timeout`; none if it was answered with 200.
    pub(crate) failure: Option<String>,
}

/// What all requests of a run come to. Times are in microseconds.
///
/// Failed requests count among the latencies with the time that they took to fail.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Summary {
    pub(crate) requests: usize,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    /// The p99 of the second in which it was highest.
    pub(crate) worst_second: u64,
    pub(crate) errors: usize,
    /// How many failed of what.
    pub(crate) failures: BTreeMap<String, usize>,
    /// The p99 of the client's own lateness.
    pub(crate) client_late: u64,
}

/// When request `number` is due at `rate` requests a second.
pub(crate) fn due(number: u64, rate: u64) -> Duration {
    let rate = rate.max(1);
    Duration::from_secs(number / rate) + Duration::from_nanos(number % rate * 1_000_000_000 / rate)
}

/// The value that the given share of the values does not exceed (nearest rank), 0 of none.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is between 0 and the number of samples, far below 2^52"
    )]
    // The small subtraction keeps 0.999 × 1000 at 999, which floating point makes a hair more.
    let rank = (share * sorted.len() as f64 - 1e-9).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn sorted(values: impl Iterator<Item = Duration>) -> Vec<u64> {
    let mut values: Vec<u64> = values.map(|value| u64::try_from(value.as_micros()).unwrap_or(u64::MAX)).collect();
    values.sort_unstable();
    values
}

impl Summary {
    /// What the samples come to.
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let latencies = sorted(samples.iter().map(|sample| sample.latency));
        let mut seconds: BTreeMap<u64, Vec<Duration>> = BTreeMap::new();
        let mut failures: BTreeMap<String, usize> = BTreeMap::new();
        for sample in samples {
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
            client_late: percentile(&sorted(samples.iter().map(|sample| sample.late)), 0.99),
        }
    }
}
