//! Outlier detection: a state machine that turns reports and the time into ejections.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::base::backend_address::BackendAddress;
use crate::pool::passive_health::config::Spec;
use crate::pool::passive_health::histogram::Counts;
use crate::pool::passive_health::tally::Share;
use crate::pool::passive_health::trials::Verdict;

/// The fewest backends with measured latency among which one can be slow.
const SLOW_BACKENDS_MIN: usize = 3;
/// How far the median latency of a backend must at least be above that of the pool to count as slow.
const SLOW_DIFFERENCE_MIN: Duration = Duration::from_millis(5);
/// The smallest number of waiting requests with which a backend can count as unresponsive.
const UNRESPONSIVE_WAITING_MIN: u32 = 3;
/// The fewest backends whose success rates are compared; with fewer none can be 1.9 deviations away.
const RATE_BACKENDS_MIN: usize = 5;
/// The number of windows per success rate.
const RATE_WINDOWS: u32 = 10;
/// The smallest number of requests for which the success rate of a backend is compared.
const RATE_REQUESTS_MIN: u32 = 100;
/// How far below the mean an outlier is, in standard deviations; `RATE_DIFFERENCE_MIN`: as a fraction of requests.
const RATE_DEVIATIONS: f64 = 1.9;
const RATE_DIFFERENCE_MIN: f64 = 0.1;
/// The peers count as healthy if their median failure rate is at most this.
const PEERS_FAIL_MAX: f64 = 0.1;
/// The maximum number of doublings; `max_ejection_time` is normally reached earlier.
const DOUBLINGS_MAX: u32 = 16;

/// The counts of a backend at the end of a window.
#[derive(Clone, Debug)]
pub struct Report {
    /// The backend.
    pub address: BackendAddress,
    /// Whether its health checks pass.
    pub up: bool,
    /// The outcomes of its requests; if the window has not ended, those until now.
    pub outcomes: Share,
    /// The times until its responses started.
    pub times: Counts,
    /// Requests that wait for a response.
    pub waiting: u32,
}

/// The reason of an ejection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// This many consecutive failures.
    Failures(u32),
    /// Its success rate and the mean of the pool, from 0 to 1.
    SuccessRate(f64, f64),
    /// Its median latency and that of the pool.
    Slow(Duration, Duration),
    /// No response for this time, with this many requests waiting.
    Unresponsive(Duration, u32),
    /// Its health check passed, but then a request failed.
    TrialFailed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(count) => write!(f, "{count} consecutive failures"),
            Self::SuccessRate(own, pool) => {
                write!(f, "success rate {:.0} %, pool {:.0} %", own * 100.0, pool * 100.0)
            }
            Self::Slow(own, pool) => write!(f, "median latency {} ms, pool {} ms", millis(*own), millis(*pool)),
            Self::Unresponsive(time, waiting) => {
                write!(f, "no response for {} ms, {waiting} requests waiting", time.as_millis())
            }
            Self::TrialFailed => f.write_str("a request failed after a passed health check"),
        }
    }
}

/// Milliseconds, with one decimal below 10.
fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.1}") } else { format!("{millis:.0}") }
}

/// When health checks may offer trials during an ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialTimes {
    /// Before the first trial.
    pub after: Duration,
    /// Between trials that decide nothing.
    pub pause: Duration,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// The backend is ejected, or its ejection is extended.
    Ejected {
        /// The backend.
        address: BackendAddress,
        /// The reason.
        reason: Reason,
        /// The duration.
        period: Duration,
        /// The trials; `None` if it returns only after the period.
        trials: Option<TrialTimes>,
    },
    /// The ejection has ended.
    Returned {
        /// The backend.
        address: BackendAddress,
    },
}

/// The history of one backend.
#[derive(Debug, Default)]
struct History {
    ejected_until: Option<Instant>,
    /// How often the duration of the next ejection is doubled.
    doublings: u32,
    /// When the last doubling was removed, or the ejection ended.
    recovering_since: Option<Instant>,
    /// Latencies since the last window in which the backend had enough responses to be compared.
    times: Counts,
    /// Its median latency in that window.
    median: Option<Duration>,
    slow_windows: u32,
    unresponsive_windows: u32,
    /// The outcomes of the last window.
    last: Share,
    /// The outcomes since the last comparison of success rates.
    rate: Share,
}

impl History {
    fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    /// Resets everything except the ejection and the doublings.
    fn restart(&mut self) {
        *self = Self { doublings: self.doublings, ejected_until: self.ejected_until, ..Self::default() };
    }
}

/// The outlier detector of one pool.
#[derive(Debug)]
pub struct Detector {
    spec: Spec,
    histories: BTreeMap<BackendAddress, History>,
    windows: u32,
}

impl Detector {
    /// A detector without history.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, histories: BTreeMap::new(), windows: 0 }
    }

    /// Whether a number of failures requires a call of [`Detector::consecutive_failures_reached`]: at the threshold
    /// and at each multiple, because the pool may have been too unhealthy for an ejection the first time.
    #[must_use]
    pub fn is_due(threshold: u32, consecutive_failures: u32) -> bool {
        consecutive_failures > 0 && consecutive_failures.is_multiple_of(threshold)
    }

    /// Applies a new `spec`. Current ejections keep their duration.
    pub fn reconfigure(&mut self, spec: Spec) {
        self.spec = spec;
    }

    /// Decides about a backend after consecutive failures; `gateway` if all were gateway failures. `pool` has
    /// the counts so far.
    pub fn consecutive_failures_reached(
        &mut self,
        address: BackendAddress,
        (in_a_row, gateway): (u32, bool),
        pool: &[Report],
        now: Instant,
    ) -> Option<Change> {
        if in_a_row < self.spec.consecutive_failures || !(gateway || self.peers_are_healthy(address, pool)) {
            return None;
        }
        self.eject(address, Reason::Failures(in_a_row), pool, now)
    }

    /// Whether the median failure rate of the peers is low, with enough requests. Not the mean: two may be
    /// unhealthy at the same time.
    fn peers_are_healthy(&self, address: BackendAddress, pool: &[Report]) -> bool {
        let last = |report: &Report| self.histories.get(&report.address).map_or(Share::default(), |s| s.last);
        let peers = pool.iter().filter(|report| report.address != address && self.takes_requests(report));
        let shares: Vec<Share> = peers.map(|report| report.outcomes.plus(last(report))).collect();
        let total: u32 = shares.iter().map(|share| share.total()).sum();
        let failing = lower_median(shares.into_iter().filter_map(Share::failing).collect());
        total >= self.spec.consecutive_failures && failing.is_some_and(|failing| failing <= PEERS_FAIL_MAX)
    }

    /// Ends a window: compares latency and success rates, and ends expired ejections.
    pub fn window(&mut self, pool: &[Report], now: Instant) -> Vec<Change> {
        let current: HashSet<BackendAddress> = pool.iter().map(|report| report.address).collect();
        self.histories.retain(|address, _| current.contains(address));
        let mut changes = self.returns(now);
        for report in pool {
            let spec = &self.spec;
            let history = self.histories.entry(report.address).or_default();
            if history.is_ejected() {
                continue;
            }
            history.recover(spec.ejection_time, now);
            history.last = report.outcomes;
            history.rate = history.rate.plus(report.outcomes);
            history.times.add(&report.times);
        }
        changes.extend(self.evaluate_latency(pool, now));
        self.windows = self.windows.wrapping_add(1);
        if self.windows.is_multiple_of(RATE_WINDOWS) {
            changes.extend(self.evaluate_success_rates(pool, now));
        }
        changes
    }

    /// Ends expired ejections.
    pub fn returns(&mut self, now: Instant) -> Vec<Change> {
        let expired = self.histories.iter_mut();
        let expired = expired.filter(|(_, history)| history.ejected_until.is_some_and(|until| until <= now));
        expired.map(|(address, history)| history.end_ejection(*address, now)).collect()
    }

    /// Ends the ejection of a backend before its time after a passed trial, or extends it after a failed one.
    pub fn trial_ended(&mut self, address: BackendAddress, verdict: Verdict, now: Instant) -> Option<Change> {
        let history = self.histories.get_mut(&address).filter(|history| history.is_ejected())?;
        Some(match verdict {
            Verdict::Passed => history.end_ejection(address, now),
            Verdict::Failed => history.begin_ejection((address, Reason::TrialFailed), &self.spec, now),
        })
    }

    /// When the next ejection expires.
    #[must_use]
    pub fn next_return(&self) -> Option<Instant> {
        self.histories.values().filter_map(|history| history.ejected_until).min()
    }

    fn evaluate_latency(&mut self, pool: &[Report], now: Instant) -> Vec<Change> {
        let mut compared = HashSet::new();
        // Waiting requests count only while the peers respond: a few long polls without other traffic are
        // normal.
        let responses = pool.iter().fold(0_u32, |responses, report| responses.saturating_add(report.times.total()));
        let responding = responses >= self.spec.minimum_requests;
        for report in pool.iter().filter(|report| report.up) {
            let Some(history) = self.histories.get_mut(&report.address).filter(|s| !s.is_ejected()) else { continue };
            let unresponsive = responding && report.waiting >= UNRESPONSIVE_WAITING_MIN && report.times.total() == 0;
            history.unresponsive_windows =
                if unresponsive { history.unresponsive_windows.saturating_add(1) } else { 0 };
            if history.times.total() >= self.spec.minimum_requests {
                history.median = std::mem::take(&mut history.times).median();
                compared.insert(report.address);
            }
        }
        let taking = pool.iter().filter(|report| self.takes_requests(report));
        let medians: Vec<Duration> = taking.filter_map(|report| self.histories.get(&report.address)?.median).collect();
        let measured = medians.len();
        let Some(median) = lower_median(medians) else { return Vec::new() };
        let line = median.mul_f64(self.spec.slow_factor).max(median + SLOW_DIFFERENCE_MIN);
        let mut found = Vec::new();
        for report in pool {
            let Some(history) = self.histories.get_mut(&report.address).filter(|s| !s.is_ejected()) else { continue };
            if compared.contains(&report.address) {
                let slow = measured >= SLOW_BACKENDS_MIN && history.median.is_some_and(|own| own > line);
                history.slow_windows = if slow { history.slow_windows.saturating_add(1) } else { 0 };
            }
            let silence = self.spec.window.saturating_mul(history.unresponsive_windows);
            if history.slow_windows >= self.spec.slow_windows {
                found.push((report.address, Reason::Slow(history.median.unwrap_or_default(), median)));
            } else if history.unresponsive_windows >= self.spec.slow_windows && silence > line && measured > 0 {
                found.push((report.address, Reason::Unresponsive(silence, report.waiting)));
            }
        }
        // The slowest are ejected first, because the limit may not permit all.
        found.sort_by_key(|(_, reason)| match reason {
            Reason::Slow(own, _) | Reason::Unresponsive(own, _) => std::cmp::Reverse(*own),
            _ => std::cmp::Reverse(Duration::ZERO),
        });
        found.into_iter().filter_map(|(address, reason)| self.eject(address, reason, pool, now)).collect()
    }

    fn evaluate_success_rates(&mut self, pool: &[Report], now: Instant) -> Vec<Change> {
        let mut rates: Vec<(BackendAddress, f64)> = Vec::new();
        for report in pool {
            let takes = self.takes_requests(report);
            let Some(history) = self.histories.get_mut(&report.address) else { continue };
            let share = std::mem::take(&mut history.rate);
            if let Some(failing) = share.failing().filter(|_| takes && share.total() >= RATE_REQUESTS_MIN) {
                rates.push((report.address, 1.0 - failing));
            }
        }
        if rates.len() < RATE_BACKENDS_MIN {
            return Vec::new();
        }
        // Exact: there are far fewer than 2^52 backends.
        let hosts = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / hosts;
        let deviation = (rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / hosts).sqrt();
        let line = (mean - RATE_DEVIATIONS * deviation).min(mean - RATE_DIFFERENCE_MIN);
        rates.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        let found = rates.into_iter().filter(|(_, rate)| *rate < line);
        found.filter_map(|(address, rate)| self.eject(address, Reason::SuccessRate(rate, mean), pool, now)).collect()
    }

    fn takes_requests(&self, report: &Report) -> bool {
        report.up && !self.histories.get(&report.address).is_some_and(History::is_ejected)
    }

    /// Ejects a backend unless `max_ejected_percent` is reached or no other backend takes requests.
    fn eject(&mut self, address: BackendAddress, reason: Reason, pool: &[Report], now: Instant) -> Option<Change> {
        let out = pool.iter().filter(|report| self.histories.get(&report.address).is_some_and(History::is_ejected));
        let share = pool.len().saturating_mul(self.spec.max_ejected_percent as usize) / 100;
        let others = pool.iter().any(|report| report.address != address && self.takes_requests(report));
        if out.count() >= share.max(1) || !others {
            return None;
        }
        let history = self.histories.entry(address).or_default();
        if history.is_ejected() {
            return None;
        }
        Some(history.begin_ejection((address, reason), &self.spec, now))
    }
}

impl History {
    /// Begins an ejection, or extends it.
    fn begin_ejection(&mut self, (address, reason): (BackendAddress, Reason), spec: &Spec, now: Instant) -> Change {
        let factor = 1_u32 << self.doublings.min(DOUBLINGS_MAX);
        let period = spec.ejection_time.saturating_mul(factor).min(spec.max_ejection_time);
        self.doublings = self.doublings.saturating_add(1).min(DOUBLINGS_MAX);
        self.restart();
        self.ejected_until = Some(now + period);
        let after = match reason {
            Reason::Failures(_) => Some(Duration::ZERO),
            Reason::TrialFailed => Some(spec.ejection_time),
            // A slow or hanging backend passes its checks as well.
            _ => None,
        };
        let trials = after.map(|after| TrialTimes { after, pause: spec.ejection_time });
        Change::Ejected { address, reason, period, trials }
    }

    /// Ends the ejection. The doublings stay.
    fn end_ejection(&mut self, address: BackendAddress, now: Instant) -> Change {
        self.ejected_until = None;
        self.restart();
        self.recovering_since = Some(now);
        Change::Returned { address }
    }

    /// Removes one doubling for each `period` without an ejection.
    fn recover(&mut self, period: Duration, now: Instant) {
        let since = *self.recovering_since.get_or_insert(now);
        if self.doublings > 0 && now.saturating_duration_since(since) >= period {
            self.doublings -= 1;
            self.recovering_since = Some(now);
        }
    }
}

/// The median; for an even number of values, the lower of the two in the middle.
fn lower_median<T: PartialOrd + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
