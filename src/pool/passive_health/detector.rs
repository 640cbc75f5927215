//! Outlier detection: a state machine from reports and the clock to ejections.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::pool::passive_health::config::Spec;
use crate::pool::passive_health::histogram::Counts;
use crate::pool::passive_health::tally::Share;

/// Fewest backends with measured times among which one can be slow.
const SLOW_HOSTS_MIN: usize = 3;
/// How much slower than its pool a slow backend is at least.
const SLOW_FLOOR: Duration = Duration::from_millis(5);
/// Requests that wait at a backend before its silence means something.
const UNRESPONSIVE_WAITING_MIN: u32 = 3;
/// Fewest backends whose success rates are compared; fewer cannot be 1.9 deviations apart.
const RATE_HOSTS_MIN: usize = 5;
/// Windows over which success rates are taken.
const RATE_WINDOWS: u32 = 10;
/// Requests of a backend that a success rate needs.
const RATE_REQUESTS_MIN: u32 = 100;
/// How far below the mean a rate is at least, in standard deviations and in all.
const RATE_DEVIATIONS: f64 = 1.9;
const RATE_FLOOR: f64 = 0.1;
/// The share of failures of the median peer up to which peers do well.
const PEERS_FAIL_MAX: f64 = 0.1;
/// Doublings after which the longest ejection is reached in any sensible configuration.
const DOUBLINGS_MAX: u32 = 16;

/// A backend at the end of a window.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who.
    pub address: SocketAddr,
    /// Whether its health checks let it take requests.
    pub up: bool,
    /// How its requests ended; of a window that goes on, those so far.
    pub outcomes: Share,
    /// How long answers took to begin.
    pub times: Counts,
    /// Requests that wait for an answer now.
    pub waiting: u32,
}

/// Why a backend was ejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// So many failures in a row.
    Failures(u32),
    /// Its success rate and the pool's mean, from 0 to 1.
    SuccessRate(f64, f64),
    /// Its median time and the pool's.
    Slow(Duration, Duration),
    /// No answer for so long, while so many requests wait.
    Unresponsive(Duration, u32),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(count) => write!(f, "{count} failures in a row"),
            Self::SuccessRate(own, pool) => {
                write!(f, "success rate {:.0} %, the pool's {:.0} %", own * 100.0, pool * 100.0)
            }
            Self::Slow(own, pool) => write!(f, "median {} ms, the pool's {} ms", millis(*own), millis(*pool)),
            Self::Unresponsive(time, waiting) => {
                write!(f, "no answer for {} ms, {waiting} requests wait", time.as_millis())
            }
        }
    }
}

/// Milliseconds with as many digits as the measure has.
fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.1}") } else { format!("{millis:.0}") }
}

/// What becomes of a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// It takes no requests for this long.
    Ejected {
        /// Who.
        address: SocketAddr,
        /// Why.
        reason: Reason,
        /// How long.
        period: Duration,
    },
    /// It takes requests again.
    Returned {
        /// Who.
        address: SocketAddr,
    },
}

/// What is remembered about one backend.
#[derive(Debug, Default)]
struct Standing {
    ejected_until: Option<Instant>,
    /// Doublings of the next ejection.
    doublings: u32,
    /// When the last doubling was taken back, or the backend returned.
    good_since: Option<Instant>,
    /// Times since its last window that was judged.
    times: Counts,
    /// Its median in that window.
    median: Option<Duration>,
    slow_windows: u32,
    unresponsive_windows: u32,
    /// The outcomes of the last window.
    last: Share,
    /// The outcomes since success rates were compared.
    rate: Share,
}

impl Standing {
    fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    /// Forgets what led to an ejection, but for the doublings.
    fn restart(&mut self) {
        *self = Self { doublings: self.doublings, ejected_until: self.ejected_until, ..Self::default() };
    }
}

/// The judge of one pool.
#[derive(Debug)]
pub struct Detector {
    spec: Spec,
    standings: BTreeMap<SocketAddr, Standing>,
    windows: u32,
}

impl Detector {
    /// A judge that has seen nothing yet.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, standings: BTreeMap::new(), windows: 0 }
    }

    /// Whether a row of failures is worth [`Detector::failed_in_a_row`]: the threshold, and each multiple
    /// of it, since the pool may have been too much out of order the first time.
    #[must_use]
    pub fn is_due(consecutive_failures: u32, in_a_row: u32) -> bool {
        in_a_row > 0 && in_a_row.is_multiple_of(consecutive_failures)
    }

    /// From now on judges by `spec`, with what it has seen. Whoever is ejected stays so for the time it was
    /// given.
    pub fn follow(&mut self, spec: Spec) {
        self.spec = spec;
    }

    /// Judges a backend after so many failures in a row; `gateway` where all were gateway failures.
    /// `pool` has the windows as they are so far.
    pub fn failed_in_a_row(
        &mut self,
        address: SocketAddr,
        (in_a_row, gateway): (u32, bool),
        pool: &[Report],
        now: Instant,
    ) -> Option<Change> {
        if in_a_row < self.spec.consecutive_failures || !(gateway || self.peers_do_well(address, pool)) {
            return None;
        }
        self.eject(address, Reason::Failures(in_a_row), pool, now)
    }

    /// Whether the median of the peers fails rarely, on enough requests to say so. The median, since two
    /// backends may be ill at once.
    fn peers_do_well(&self, address: SocketAddr, pool: &[Report]) -> bool {
        let last = |report: &Report| self.standings.get(&report.address).map_or(Share::default(), |s| s.last);
        let peers = pool.iter().filter(|report| report.address != address && self.takes_requests(report));
        let shares: Vec<Share> = peers.map(|report| report.outcomes.plus(last(report))).collect();
        let total: u32 = shares.iter().map(|share| share.total()).sum();
        let failing = lower_median(shares.into_iter().filter_map(Share::failing).collect());
        total >= self.spec.consecutive_failures && failing.is_some_and(|failing| failing <= PEERS_FAIL_MAX)
    }

    /// Ends a window: judges times and rates, and lets backends return whose time is over.
    pub fn window(&mut self, pool: &[Report], now: Instant) -> Vec<Change> {
        self.standings.retain(|address, _| pool.iter().any(|report| report.address == *address));
        let mut changes = self.returns(now);
        for report in pool {
            let spec = &self.spec;
            let standing = self.standings.entry(report.address).or_default();
            if standing.is_ejected() {
                continue;
            }
            standing.forgive(spec.ejection_time, now);
            standing.last = report.outcomes;
            standing.rate = standing.rate.plus(report.outcomes);
            standing.times.add(&report.times);
        }
        changes.extend(self.judge_times(pool, now));
        self.windows = self.windows.wrapping_add(1);
        if self.windows.is_multiple_of(RATE_WINDOWS) {
            changes.extend(self.judge_rates(pool, now));
        }
        changes
    }

    /// Lets backends return whose time is over.
    pub fn returns(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for (address, standing) in &mut self.standings {
            if standing.ejected_until.is_some_and(|until| until <= now) {
                standing.ejected_until = None;
                standing.restart();
                standing.good_since = Some(now);
                changes.push(Change::Returned { address: *address });
            }
        }
        changes
    }

    /// When the next backend returns.
    #[must_use]
    pub fn next_return(&self) -> Option<Instant> {
        self.standings.values().filter_map(|standing| standing.ejected_until).min()
    }

    fn judge_times(&mut self, pool: &[Report], now: Instant) -> Vec<Change> {
        let mut judged = Vec::new();
        // Silence means something only while the peers talk. At night, three long polls are no illness.
        let answers = pool.iter().fold(0_u32, |answers, report| answers.saturating_add(report.times.total()));
        let talking = answers >= self.spec.minimum_requests;
        for report in pool.iter().filter(|report| report.up) {
            let Some(standing) = self.standings.get_mut(&report.address).filter(|s| !s.is_ejected()) else { continue };
            let unresponsive = talking && report.waiting >= UNRESPONSIVE_WAITING_MIN && report.times.total() == 0;
            standing.unresponsive_windows =
                if unresponsive { standing.unresponsive_windows.saturating_add(1) } else { 0 };
            if standing.times.total() >= self.spec.minimum_requests {
                standing.median = std::mem::take(&mut standing.times).median();
                judged.push(report.address);
            }
        }
        let taking = pool.iter().filter(|report| self.takes_requests(report));
        let medians: Vec<Duration> = taking.filter_map(|report| self.standings.get(&report.address)?.median).collect();
        let measured = medians.len();
        let Some(median) = lower_median(medians) else { return Vec::new() };
        let line = median.mul_f64(self.spec.slow_factor).max(median + SLOW_FLOOR);
        let mut found = Vec::new();
        for report in pool {
            let Some(standing) = self.standings.get_mut(&report.address).filter(|s| !s.is_ejected()) else { continue };
            if judged.contains(&report.address) {
                let slow = measured >= SLOW_HOSTS_MIN && standing.median.is_some_and(|own| own > line);
                standing.slow_windows = if slow { standing.slow_windows.saturating_add(1) } else { 0 };
            }
            let silence = self.spec.window.saturating_mul(standing.unresponsive_windows);
            if standing.slow_windows >= self.spec.slow_windows {
                found.push((report.address, Reason::Slow(standing.median.unwrap_or_default(), median)));
            } else if standing.unresponsive_windows >= self.spec.slow_windows && silence > line && measured > 0 {
                found.push((report.address, Reason::Unresponsive(silence, report.waiting)));
            }
        }
        // The worst first, since not all may go.
        found.sort_by_key(|(_, reason)| match reason {
            Reason::Slow(own, _) | Reason::Unresponsive(own, _) => std::cmp::Reverse(*own),
            _ => std::cmp::Reverse(Duration::ZERO),
        });
        found.into_iter().filter_map(|(address, reason)| self.eject(address, reason, pool, now)).collect()
    }

    fn judge_rates(&mut self, pool: &[Report], now: Instant) -> Vec<Change> {
        let mut rates: Vec<(SocketAddr, f64)> = Vec::new();
        for report in pool {
            let takes = self.takes_requests(report);
            let Some(standing) = self.standings.get_mut(&report.address) else { continue };
            let share = std::mem::take(&mut standing.rate);
            if let Some(failing) = share.failing().filter(|_| takes && share.total() >= RATE_REQUESTS_MIN) {
                rates.push((report.address, 1.0 - failing));
            }
        }
        if rates.len() < RATE_HOSTS_MIN {
            return Vec::new();
        }
        // Far fewer backends than 2^52.
        let hosts = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / hosts;
        let deviation = (rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / hosts).sqrt();
        let line = (mean - RATE_DEVIATIONS * deviation).min(mean - RATE_FLOOR);
        rates.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        let found = rates.into_iter().filter(|(_, rate)| *rate < line);
        found.filter_map(|(address, rate)| self.eject(address, Reason::SuccessRate(rate, mean), pool, now)).collect()
    }

    fn takes_requests(&self, report: &Report) -> bool {
        report.up && !self.standings.get(&report.address).is_some_and(Standing::is_ejected)
    }

    /// Ejects a backend unless that would be one too many.
    fn eject(&mut self, address: SocketAddr, reason: Reason, pool: &[Report], now: Instant) -> Option<Change> {
        let out = pool.iter().filter(|report| self.standings.get(&report.address).is_some_and(Standing::is_ejected));
        let share = pool.len().saturating_mul(self.spec.max_ejected_percent as usize) / 100;
        let others = pool.iter().any(|report| report.address != address && self.takes_requests(report));
        if out.count() >= share.max(1) || !others {
            return None;
        }
        let standing = self.standings.entry(address).or_default();
        if standing.is_ejected() {
            return None;
        }
        let factor = 1_u32 << standing.doublings.min(DOUBLINGS_MAX);
        let period = self.spec.ejection_time.saturating_mul(factor).min(self.spec.max_ejection_time);
        standing.doublings = standing.doublings.saturating_add(1).min(DOUBLINGS_MAX);
        standing.restart();
        standing.ejected_until = Some(now + period);
        Some(Change::Ejected { address, reason, period })
    }
}

impl Standing {
    /// Takes one doubling back for each `period` of good behaviour.
    fn forgive(&mut self, period: Duration, now: Instant) {
        let since = *self.good_since.get_or_insert(now);
        if self.doublings > 0 && now.saturating_duration_since(since) >= period {
            self.doublings -= 1;
            self.good_since = Some(now);
        }
    }
}

/// The middle one, or the smaller of the middle two.
fn lower_median<T: PartialOrd + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
