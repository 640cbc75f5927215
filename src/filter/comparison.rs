//! Compares the responses to requests with those to their copies, for the filter `mirror`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::latencies::Latencies;
use super::mirror_tally::Tally;
use crate::base::event::Event;
use crate::base::units::{PoolName, RouteName};

/// The pairs of status codes that are counted one by one.
const PAIRS_MAX: usize = 64;

/// The shortest time between two events about differences.
const EVENT_PAUSE: Duration = Duration::from_secs(60);

/// A response, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The status code.
    pub status: u16,
    /// The time from the selection of the backend to its response; `None` if no backend responded.
    pub latency: Option<Duration>,
}

/// The comparison of one route.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Pairs of a response and that to the copy, with the same status code.
    pub equal: u64,
    /// Those with different status codes.
    pub different: u64,
    /// Responses without a counterpart: the copy failed, or the client got none.
    pub unpaired: u64,
    /// The pairs by both status codes: that for the client first.
    pub pairs: BTreeMap<(u16, u16), u64>,
    /// Pairs of further status codes.
    pub other_pairs: u64,
    /// The latencies of the responses to clients, of pairs that have both.
    pub original: Latencies,
    /// Those of the responses to the copies.
    pub copy: Latencies,
    /// The last event, with the counts at that time.
    reported: Option<(Instant, u64, u64)>,
}

/// What differs since the last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differences {
    /// The pairs.
    pub compared: u64,
    /// Those with different status codes.
    pub different: u64,
    /// The status codes of the pair that is reported.
    pub statuses: (u16, u16),
}

impl Comparison {
    /// Adds a pair at `now`. Returns what to report, at most once in a minute.
    pub fn add(&mut self, original: Observed, copy: Observed, now: Instant) -> Option<Differences> {
        let statuses = (original.status, copy.status);
        let is_known = self.pairs.contains_key(&statuses);
        let pairs = match is_known || self.pairs.len() < PAIRS_MAX {
            true => self.pairs.entry(statuses).or_default(),
            false => &mut self.other_pairs,
        };
        *pairs = pairs.saturating_add(1);
        if let (Some(one), Some(other)) = (original.latency, copy.latency) {
            self.original.add(one);
            self.copy.add(other);
        }
        if original.status == copy.status {
            self.equal = self.equal.saturating_add(1);
            return None;
        }
        self.different = self.different.saturating_add(1);
        let (compared, different) = (self.equal.saturating_add(self.different), self.different);
        let is_early = |(at, _, _): (Instant, _, _)| now.saturating_duration_since(at) < EVENT_PAUSE;
        if self.reported.is_some_and(is_early) {
            return None;
        }
        let (_, compared_before, different_before) = self.reported.unwrap_or((now, 0, 0));
        self.reported = Some((now, compared, different));
        Some(Differences {
            compared: compared.saturating_sub(compared_before),
            different: different.saturating_sub(different_before),
            statuses,
        })
    }
}

/// A request and its copy, until both have ended.
#[derive(Debug)]
pub struct Pair {
    route: RouteName,
    pool: PoolName,
    tally: Arc<Tally>,
    halves: Mutex<Halves>,
}

/// The responses of a pair so far.
#[derive(Debug, Default)]
struct Halves {
    original: Option<Observed>,
    copy: Option<Observed>,
}

impl Pair {
    /// A request on `route` that is copied to `pool`.
    #[must_use]
    pub(super) fn new(route: RouteName, pool: PoolName, tally: Arc<Tally>) -> Self {
        Self { route, pool, tally, halves: Mutex::default() }
    }

    /// The client got its response.
    pub fn original(&self, observed: Observed, now: Instant) {
        self.halves.lock().original = Some(observed);
        self.compare(now);
    }

    /// The copy got its response.
    pub fn copy(&self, observed: Observed, now: Instant) {
        self.halves.lock().copy = Some(observed);
        self.compare(now);
    }

    /// Compares the responses once both are there.
    fn compare(&self, now: Instant) {
        let mut halves = self.halves.lock();
        let (Some(original), Some(copy)) = (halves.original, halves.copy) else { return };
        *halves = Halves::default();
        drop(halves);
        let differences = self.tally.compare(|comparison| comparison.add(original, copy, now)).flatten();
        if let Some(Differences { compared, different, statuses: (status, copy_status) }) = differences {
            let (route, pool) = (self.route.clone(), self.pool.clone());
            Event::MirrorDiffers { route, pool, compared, different, status, copy_status }.announce();
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let halves = self.halves.get_mut();
        if halves.original.is_some() || halves.copy.is_some() {
            self.tally.compare(|comparison| comparison.unpaired = comparison.unpaired.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(status: u16) -> Observed {
        Observed { status, latency: Some(Duration::from_millis(u64::from(status))) }
    }

    #[expect(clippy::disallowed_methods, reason = "any time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn pairs_are_counted_and_the_number_of_kinds_is_bounded() {
        let (mut comparison, now) = (Comparison::default(), start());
        for copy in [200, 200, 500] {
            comparison.add(observed(200), observed(copy), now);
        }
        assert_eq!((comparison.equal, comparison.different), (2, 1));
        assert_eq!(comparison.pairs, BTreeMap::from([((200, 200), 2), ((200, 500), 1)]));
        for status in 300..400 {
            comparison.add(observed(200), observed(status), now);
        }
        comparison.add(observed(200), observed(200), now);
        assert_eq!((comparison.pairs.len(), comparison.other_pairs), (PAIRS_MAX, 38));
        assert_eq!(comparison.pairs[&(200, 200)], 3, "known pairs are still counted");
        comparison.add(observed(200), Observed { status: 200, latency: None }, now);
        let p50 = comparison.original.quantile(0.5).unwrap();
        assert!((200..=225).contains(&p50.as_millis()), "{p50:?}");
    }

    #[test]
    fn differences_are_reported_at_once_and_then_once_a_minute_with_those_since() {
        let (mut comparison, now) = (Comparison::default(), start());
        let second = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(comparison.add(observed(200), observed(200), now), None);
        let first = comparison.add(observed(200), observed(500), now);
        assert_eq!(first, Some(Differences { compared: 2, different: 1, statuses: (200, 500) }));
        assert_eq!(comparison.add(observed(200), observed(500), second(59)), None);
        assert_eq!(comparison.add(observed(200), observed(200), second(60)), None, "it does not differ");
        let next = comparison.add(observed(404), observed(200), second(61));
        assert_eq!(next, Some(Differences { compared: 3, different: 2, statuses: (404, 200) }));
    }

    #[test]
    fn half_of_a_pair_without_the_other_is_unpaired() {
        let tally = Arc::new(Tally::comparing());
        let pair = || Pair::new("r".into(), "shadow".into(), Arc::clone(&tally));
        let now = start();
        pair().original(observed(200), now);
        pair().copy(observed(200), now);
        let both = pair();
        both.copy(observed(200), now);
        both.original(observed(200), now);
        drop(both);
        drop(pair());
        let comparison = tally.comparison().unwrap();
        assert_eq!((comparison.unpaired, comparison.equal, comparison.different), (2, 1, 0));
    }
}
