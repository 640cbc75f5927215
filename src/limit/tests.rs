//! Guarantees of the limits, with the time as an argument.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::*;
use crate::http::client_address::ClientKey;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket];
const MINUTE: Duration = Duration::from_secs(60);

struct Fixture {
    limiter: Limiter,
    epoch: Instant,
}

fn fixture(algorithm: Algorithm, limit: u32, window: Duration, burst: u32) -> Fixture {
    let (limit, burst) = (NonZeroU32::new(limit).unwrap(), NonZeroU32::new(burst).unwrap());
    let epoch = Instant::now();
    Fixture { limiter: Limiter::new(Spec { algorithm, limit, window, burst }, epoch), epoch }
}

impl Fixture {
    fn at(&self, client: u64, after: Duration) -> Verdict {
        self.limiter.admit(ClientKey(client), self.epoch + after)
    }

    fn admitted(&self, client: u64, requests: usize, after: Duration) -> usize {
        (0..requests).filter(|_| self.at(client, after).admitted).count()
    }
}

#[test]
fn limit_of_100_admits_100_of_110_requests() {
    for algorithm in ALGORITHMS {
        let limit = fixture(algorithm, 100, MINUTE, 100);
        assert_eq!(limit.admitted(1, 110, Duration::from_secs(1)), 100, "{algorithm:?}");
        assert_eq!(limit.admitted(2, 10, Duration::from_secs(1)), 10, "{algorithm:?}: other clients are not affected");
    }
}

#[test]
fn bucket_admits_its_burst_and_then_one_request_per_refill() {
    let limit = fixture(Algorithm::TokenBucket, 100, MINUTE, 20);
    assert_eq!(limit.admitted(1, 110, Duration::ZERO), 20);
    for n in 1..=100 {
        assert_eq!(limit.admitted(1, 2, Duration::from_millis(600 * n)), 1, "after {n} refills");
    }
    assert_eq!(limit.admitted(1, 110, MINUTE * 10), 20);
}

#[test]
fn refill_does_not_drift_over_a_thousand_seconds() {
    // 7 per second is not a whole number of nanoseconds.
    let limit = fixture(Algorithm::TokenBucket, 7, Duration::from_secs(1), 5);
    let admitted: usize = (0..=100_000).map(|n| limit.admitted(1, 1, Duration::from_millis(n * 10))).sum();
    assert_eq!(admitted, 5 + 7 * 1000);
}

#[test]
fn fixed_and_sliding_windows_differ_at_the_edge() {
    let fixed = fixture(Algorithm::FixedWindow, 100, MINUTE, 100);
    assert_eq!(fixed.admitted(1, 150, Duration::from_secs(59)), 100);
    assert_eq!(fixed.admitted(1, 150, Duration::from_secs(60)), 100, "a fixed window starts from zero");

    let sliding = fixture(Algorithm::SlidingWindow, 100, MINUTE, 100);
    assert_eq!(sliding.admitted(1, 150, Duration::from_secs(59)), 100);
    assert_eq!(sliding.admitted(1, 150, Duration::from_secs(60)), 0, "a sliding window does not");
    assert_eq!(sliding.admitted(1, 150, Duration::from_secs(90)), 50, "half of the last window still counts");
    assert_eq!(sliding.admitted(1, 150, Duration::from_secs(240)), 100);
}

#[test]
fn request_after_retry_after_is_admitted_and_not_before() {
    for algorithm in ALGORITHMS {
        for (limit, window, burst) in
            [(100, MINUTE, 100), (7, Duration::from_secs(1), 3), (1, Duration::from_millis(1), 1)]
        {
            let fixture = fixture(algorithm, limit, window, burst);
            let start = Duration::from_millis(333);
            let rejected = std::iter::repeat_with(|| fixture.at(1, start)).find(|v| !v.admitted).unwrap();
            let nearly = start + rejected.retry_after - Duration::from_nanos(1);
            assert!(!fixture.at(1, nearly).admitted, "{algorithm:?} {limit}: just before");
            assert!(fixture.at(1, start + rejected.retry_after).admitted, "{algorithm:?} {limit}: at the time");
        }
    }
}

#[test]
fn remaining_counts_down_and_reset_is_the_time_until_full() {
    for algorithm in ALGORITHMS {
        let limit = fixture(algorithm, 10, MINUTE, 10);
        let remaining: Vec<u32> = (0..11).map(|_| limit.at(1, Duration::ZERO).remaining).collect();
        assert_eq!(remaining, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0], "{algorithm:?}");
        let last = limit.at(1, Duration::ZERO);
        assert_eq!(limit.at(1, last.reset).remaining, 9, "{algorithm:?}: full except for this request");
    }
}

/// A hundred thousand clients in one window next to regular clients.
#[test]
fn client_within_its_limit_is_not_rejected_during_a_flood() {
    for algorithm in ALGORITHMS {
        let limit = fixture(algorithm, 100, Duration::from_secs(3600), 100);
        let (mut rejected, mut greedy) = (0, 0);
        for round in 0..200_u64 {
            for stranger in 0..500 {
                let stranger = 1_000_000 + round * 500 + stranger;
                rejected += usize::from(!limit.at(stranger, Duration::ZERO).admitted);
            }
            for client in 0..200 {
                // Each sends exactly its limit, in every second round.
                if round % 2 == 0 {
                    rejected += usize::from(!limit.at(client, Duration::ZERO).admitted);
                }
            }
            for client in 500..550 {
                greedy += limit.admitted(client, 1, Duration::ZERO);
            }
        }
        assert_eq!(rejected, 0, "{algorithm:?}: requests within the limit rejected");
        assert!((5000..=5050).contains(&greedy), "{algorithm:?}: 50 greedy clients got {greedy} of 5,000");
    }
}

#[test]
fn million_other_clients_do_not_affect_a_known_client() {
    let limit = fixture(Algorithm::FixedWindow, 100, Duration::from_secs(3600), 100);
    assert_eq!(limit.admitted(1, 90, Duration::ZERO), 90);
    for stranger in 0..1_000_000 {
        assert!(limit.at(10_000 + stranger, Duration::ZERO).admitted);
    }
    assert_eq!(limit.admitted(1, 100, Duration::ZERO), 10, "the heavy client is still counted exactly");
    assert!(limit.admitted(2, 80, Duration::ZERO) == 80, "a new client within its limit is admitted");
}

#[test]
fn concurrent_threads_share_one_count() {
    for algorithm in ALGORITHMS {
        let fixture = fixture(algorithm, 1000, MINUTE, 1000);
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.admitted(1, 500, Duration::ZERO))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 1000, "{algorithm:?}");
    }
}

#[test]
fn extreme_clocks_and_numbers_do_not_panic() {
    for algorithm in ALGORITHMS {
        let back = fixture(algorithm, 2, MINUTE, 2);
        assert!(back.at(1, MINUTE * 5).admitted);
        assert!(
            back.limiter.admit(ClientKey(1), back.epoch).admitted,
            "{algorithm:?}: a clock that goes back counts as standing still"
        );
        let before = back.epoch.checked_sub(MINUTE).unwrap_or(back.epoch);
        assert!(back.limiter.admit(ClientKey(2), before).admitted);

        let huge = fixture(algorithm, u32::MAX, Duration::from_secs(30 * 86_400), u32::MAX);
        assert_eq!(huge.admitted(1, 1000, MINUTE), 1000);
        let endless = fixture(algorithm, 1, Duration::MAX, 1);
        assert_eq!(endless.admitted(1, 3, MINUTE), 1);
        let tiny = fixture(algorithm, 1, Duration::from_millis(1), 1);
        assert_eq!(tiny.admitted(1, 2, Duration::from_millis(10)), 1);
        assert_eq!(tiny.admitted(1, 2, Duration::from_millis(12)), 1);
    }
}
