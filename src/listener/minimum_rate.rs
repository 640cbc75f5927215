//! The minimum rate of a client that sends a request or reads a response.
//!
//! Without it, a client that sends or reads a few bytes before each timeout keeps its connection, and a backend, for as
//! long as it likes. Only the time counts during which l7lb waits for the client: a slow backend is not the client's
//! fault, and a response that produces few bytes, such as an event stream, is not slow to read.

use std::time::Duration;

use tokio::time::Instant;

/// The minimum: so many bytes in each period of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Bytes per second; 0 for no minimum.
    pub bytes_per_second: u64,
    /// How much waiting is measured before the rate is judged.
    pub period: Duration,
}

impl RateLimit {
    /// The bytes of one period.
    fn bytes(&self) -> u64 {
        self.bytes_per_second.saturating_mul(self.period.as_secs())
    }
}

/// The rate of one direction of a client.
#[derive(Debug, Default)]
pub struct ClientRate {
    /// When the current wait has started.
    waiting_since: Option<Instant>,
    /// The waiting in this period.
    waited: Duration,
    /// The bytes in this period.
    bytes: u64,
}

impl ClientRate {
    /// Records that l7lb waits for the client from `now` on, unless it already does.
    pub fn wait(&mut self, now: impl FnOnce() -> Instant) {
        self.waiting_since.get_or_insert_with(now);
    }

    /// Records progress of `bytes`. Returns whether the client was too slow in the period that has ended. Without a
    /// wait before, it needs no clock.
    pub fn progress(&mut self, bytes: usize, limit: RateLimit, now: impl FnOnce() -> Instant) -> bool {
        // A length in memory fits into 64 bits.
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let Some(since) = self.waiting_since.take() else { return false };
        self.waited += now().saturating_duration_since(since);
        if self.waited < limit.period {
            return false;
        }
        let slow = self.bytes < limit.bytes();
        *self = Self::default();
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { bytes_per_second: 100, period: Duration::from_secs(30) };

    /// Sends `bytes` every `pause`; returns after how many of them the client counts as slow.
    fn parts_until_slow(bytes: usize, pause: Duration) -> Option<u32> {
        let (start, mut rate) = (Instant::now(), ClientRate::default());
        (1..1000).find(|part| {
            rate.wait(|| start + pause * (part - 1));
            rate.progress(bytes, LIMIT, || start + pause * *part)
        })
    }

    #[test]
    fn client_below_the_rate_is_slow_after_one_period() {
        assert_eq!(parts_until_slow(1, Duration::from_secs(5)), Some(6));
        assert_eq!(parts_until_slow(499, Duration::from_secs(5)), Some(6));
        assert_eq!(parts_until_slow(500, Duration::from_secs(5)), None);
        assert_eq!(parts_until_slow(1, Duration::from_millis(9)), None);
    }

    #[test]
    fn large_start_does_not_excuse_a_slow_rest() {
        let (start, mut rate) = (Instant::now(), ClientRate::default());
        assert!(!rate.progress(1 << 30, LIMIT, || start));
        rate.wait(|| start);
        assert!(!rate.progress(1, LIMIT, || start + LIMIT.period), "the start belongs to the first period");
        rate.wait(|| start);
        assert!(rate.progress(1, LIMIT, || start + LIMIT.period));
    }

    #[test]
    fn time_without_waiting_does_not_count() {
        let (start, mut rate) = (Instant::now(), ClientRate::default());
        for second in 0..1000 {
            assert!(!rate.progress(1, LIMIT, || start + Duration::from_secs(second)));
        }
    }
}
