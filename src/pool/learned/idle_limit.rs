//! How long a backend keeps an idle connection, learned from what it announces and from what it does.
//!
//! A request on a connection that the backend is closing is lost, and only idempotent ones may be retried. So l7lb
//! must close an idle connection first. The limit is the smaller one of two:
//!
//! - **announced**: `Keep-Alive: timeout=N` in the latest response that has it;
//! - **observed**: the shortest idle time of the last three connections that the backend closed while they were idle,
//!   if these times are nearly equal. A backend also closes connections for other reasons, such as a restart. Then
//!   the times differ, or other connections stayed open for longer. Connections closed at the same moment count
//!   once.
//!
//! What was observed is forgotten when the backend comes up again, because it may be configured differently.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Observed idle times that must be nearly equal.
const OBSERVATIONS: usize = 3;
/// Nearly equal: the longest is at most a tenth, or this much, longer than the shortest.
const EQUAL_WITHIN: Duration = Duration::from_millis(30);
/// A shorter idle time is no timeout of a backend: requests that make it close the connection show such times.
const OBSERVED_MIN: Duration = Duration::from_millis(100);
/// Closes within this time count once.
const SAME_MOMENT: Duration = Duration::from_millis(20);
/// The shortest and longest margin; between them it is a tenth of the limit.
const MARGIN: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(1));
/// The value of a limit that is not known.
const UNKNOWN: u64 = u64::MAX;

/// The learned limit of one backend. Requests read it without a lock.
#[derive(Debug)]
pub struct IdleLimit {
    /// In milliseconds.
    announced: AtomicU64,
    /// In milliseconds.
    observed: AtomicU64,
    /// The longest idle time of a connection that was still open, in milliseconds.
    survived: AtomicU64,
    /// The last observed idle times, and when the last one ended.
    closes: Mutex<Closes>,
    /// Whether an operator was told that `keepalive_timeout` exceeds it.
    reported: AtomicBool,
}

#[derive(Debug, Default)]
struct Closes {
    idle: Vec<Duration>,
    last: Option<Instant>,
}

impl Default for IdleLimit {
    fn default() -> Self {
        Self {
            announced: AtomicU64::new(UNKNOWN),
            observed: AtomicU64::new(UNKNOWN),
            survived: AtomicU64::new(0),
            closes: Mutex::default(),
            reported: AtomicBool::new(false),
        }
    }
}

impl IdleLimit {
    /// How long the backend keeps an idle connection; `None` if it is not known.
    #[must_use]
    pub fn get(&self) -> Option<Duration> {
        let limit = self.announced.load(Ordering::Relaxed).min(self.observed.load(Ordering::Relaxed));
        (limit != UNKNOWN).then(|| Duration::from_millis(limit))
    }

    /// How long a connection may be idle before it is used again: at most `timeout`, and shorter than the limit.
    #[must_use]
    pub fn usable_for(&self, timeout: Duration) -> Duration {
        self.get().map_or(timeout, |limit| timeout.min(limit.saturating_sub(margin(limit))))
    }

    /// Records the value of a `Keep-Alive` response header.
    pub fn announce(&self, value: &[u8]) {
        if let Some(seconds) = announced_seconds(value) {
            self.announced.store(seconds.saturating_mul(1000).min(UNKNOWN - 1), Ordering::Relaxed);
        }
    }

    /// Records that the backend closed a connection at `now`, after it was idle for `idle`.
    pub fn observe_close(&self, idle: Duration, now: Instant) {
        let mut closes = self.closes.lock();
        let same = closes.last.is_some_and(|last| now.saturating_duration_since(last) < SAME_MOMENT);
        closes.last = Some(now);
        if same {
            return;
        }
        if closes.idle.len() >= OBSERVATIONS {
            closes.idle.remove(0);
        }
        closes.idle.push(idle);
        if let Some(limit) = agreed(&closes.idle) {
            let limit = milliseconds(limit);
            if limit >= self.survived.load(Ordering::Relaxed) {
                self.observed.store(limit, Ordering::Relaxed);
            }
        }
    }

    /// Records that a connection was still open after it was idle for `idle`.
    pub fn observe_open(&self, idle: Duration) {
        self.survived.fetch_max(milliseconds(idle), Ordering::Relaxed);
    }

    /// Forgets what was observed: the backend may have been restarted with other settings.
    pub fn forget_observations(&self) {
        *self.closes.lock() = Closes::default();
        self.observed.store(UNKNOWN, Ordering::Relaxed);
        self.survived.store(0, Ordering::Relaxed);
    }

    /// The limit if `timeout` exceeds it, the first time.
    pub fn newly_exceeded_by(&self, timeout: Duration) -> Option<Duration> {
        let limit = self.get().filter(|limit| *limit < timeout)?;
        (!self.reported.load(Ordering::Relaxed) && !self.reported.swap(true, Ordering::Relaxed)).then_some(limit)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(UNKNOWN - 1)
}

fn margin(limit: Duration) -> Duration {
    (limit / 10).clamp(MARGIN.0, MARGIN.1)
}

/// The shortest of the idle times, if there are enough and they are nearly equal.
fn agreed(idle: &[Duration]) -> Option<Duration> {
    let (shortest, longest) = (*idle.iter().min()?, *idle.iter().max()?);
    let equal = longest.saturating_sub(shortest) <= EQUAL_WITHIN.max(shortest / 10);
    (idle.len() == OBSERVATIONS && equal && shortest >= OBSERVED_MIN).then_some(shortest)
}

/// The number of seconds in `timeout=N`, which may be one of several parameters.
fn announced_seconds(value: &[u8]) -> Option<u64> {
    let parameters = str::from_utf8(value).ok()?.split(',').filter_map(|parameter| parameter.split_once('='));
    let mut timeouts = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
    timeouts.next()?.1.trim().trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The limit after closes with these idle times in milliseconds, one per second.
    fn observed(idle: &[u64]) -> Option<u64> {
        let (limit, now) = (IdleLimit::default(), Instant::now());
        for (close, idle) in (0..).zip(idle) {
            limit.observe_close(Duration::from_millis(*idle), now + SECOND * close);
        }
        limit.get().map(|limit| u64::try_from(limit.as_millis()).unwrap())
    }

    #[test]
    fn third_equal_idle_time_before_a_close_is_the_limit() {
        assert_eq!(observed(&[151, 150]), None);
        assert_eq!(observed(&[151, 150, 153]), Some(150));
        assert_eq!(observed(&[5000, 4900, 5300]), Some(4900));
        assert_eq!(observed(&[3, 700, 150, 151, 152]), Some(150), "earlier closes had other reasons");
    }

    #[test]
    fn closes_with_other_reasons_than_the_idle_time_teach_nothing() {
        assert_eq!(observed(&[3, 700, 150, 9000, 40, 12_000]), None);
        assert_eq!(observed(&[3, 4, 3, 3]), None, "requests that the backend does not survive");
        let (limit, now) = (IdleLimit::default(), Instant::now());
        for close in 0..9 {
            limit.observe_close(SECOND, now + Duration::from_millis(close));
        }
        assert_eq!(limit.get(), None, "a restart closes all connections at the same moment");
        limit.observe_open(SECOND * 3);
        (0..3).for_each(|close| limit.observe_close(SECOND, now + SECOND * close));
        assert_eq!(limit.get(), None, "another connection stayed open for longer");
        limit.forget_observations();
        (0..3).for_each(|close| limit.observe_close(SECOND, now + SECOND * close));
        assert_eq!(limit.get(), Some(SECOND));
    }

    #[test]
    fn announced_timeout_is_parsed_and_the_smaller_limit_counts() {
        for (value, expected) in [
            ("timeout=5", Some(5)),
            ("timeout=5, max=100", Some(5)),
            ("max=3,Timeout = \"7\"", Some(7)),
            ("timeout=", None),
            ("timeout=-1", None),
            ("max=100", None),
            ("", None),
        ] {
            assert_eq!(announced_seconds(value.as_bytes()), expected, "{value}");
        }
        let (limit, now) = (IdleLimit::default(), Instant::now());
        limit.announce(b"timeout=5");
        limit.announce(b"max=9");
        assert_eq!(limit.get(), Some(SECOND * 5));
        (0..3).for_each(|close| limit.observe_close(SECOND * 2, now + SECOND * close));
        assert_eq!(limit.get(), Some(SECOND * 2));
        limit.forget_observations();
        assert_eq!(limit.get(), Some(SECOND * 5));
    }

    #[test]
    fn connections_are_used_for_less_than_the_limit() {
        let limit = IdleLimit::default();
        assert_eq!(limit.usable_for(SECOND * 50), SECOND * 50, "nothing is known");
        limit.announce(b"timeout=5");
        assert_eq!(limit.usable_for(SECOND * 50), Duration::from_millis(4500));
        assert_eq!(limit.usable_for(SECOND), SECOND);
        limit.announce(b"timeout=60");
        assert_eq!(limit.usable_for(SECOND * 90), SECOND * 59);
        limit.announce(b"timeout=0");
        assert_eq!(limit.usable_for(SECOND * 90), Duration::ZERO);
    }

    #[test]
    fn exceeded_limit_is_reported_once() {
        let limit = IdleLimit::default();
        assert_eq!(limit.newly_exceeded_by(SECOND * 50), None);
        limit.announce(b"timeout=5");
        assert_eq!(limit.newly_exceeded_by(SECOND * 4), None);
        assert_eq!(limit.newly_exceeded_by(SECOND * 50), Some(SECOND * 5));
        assert_eq!(limit.newly_exceeded_by(SECOND * 50), None);
    }
}
