//! What the limits promise, with the time passed in.

use super::*;

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
fn a_hundred_and_ten_requests_give_a_hundred() {
    for algorithm in ALGORITHMS {
        let limit = fixture(algorithm, 100, MINUTE, 100);
        assert_eq!(limit.admitted(1, 110, Duration::from_secs(1)), 100, "{algorithm:?}");
        assert_eq!(limit.admitted(2, 10, Duration::from_secs(1)), 10, "{algorithm:?}: others are not concerned");
    }
}

#[test]
fn a_bucket_gives_its_burst_and_then_one_at_a_time() {
    let limit = fixture(Algorithm::TokenBucket, 100, MINUTE, 20);
    assert_eq!(limit.admitted(1, 110, Duration::ZERO), 20);
    for n in 1..=100 {
        assert_eq!(limit.admitted(1, 2, Duration::from_millis(600 * n)), 1, "after {n} refills");
    }
    assert_eq!(limit.admitted(1, 110, MINUTE * 10), 20);
}

#[test]
fn nothing_drifts_over_a_thousand_seconds() {
    // 7 a second does not divide into nanoseconds.
    let limit = fixture(Algorithm::TokenBucket, 7, Duration::from_secs(1), 5);
    let admitted: usize = (0..=100_000).map(|n| limit.admitted(1, 1, Duration::from_millis(n * 10))).sum();
    assert_eq!(admitted, 5 + 7 * 1000);
}

#[test]
fn windows_have_edges() {
    let fixed = fixture(Algorithm::FixedWindow, 100, MINUTE, 100);
    assert_eq!(fixed.admitted(1, 150, Duration::from_secs(59)), 100);
    assert_eq!(fixed.admitted(1, 150, Duration::from_secs(60)), 100, "a fixed window starts anew");

    let sliding = fixture(Algorithm::SlidingWindow, 100, MINUTE, 100);
    assert_eq!(sliding.admitted(1, 150, Duration::from_secs(59)), 100);
    assert_eq!(sliding.admitted(1, 150, Duration::from_secs(60)), 0, "a sliding one does not");
    assert_eq!(sliding.admitted(1, 150, Duration::from_secs(90)), 50, "half of the last window still counts");
    assert_eq!(sliding.admitted(1, 150, Duration::from_secs(240)), 100);
}

#[test]
fn retry_after_is_exact() {
    for algorithm in ALGORITHMS {
        for (limit, window, burst) in
            [(100, MINUTE, 100), (7, Duration::from_secs(1), 3), (1, Duration::from_millis(1), 1)]
        {
            let fixture = fixture(algorithm, limit, window, burst);
            let start = Duration::from_millis(333);
            let refused = std::iter::repeat_with(|| fixture.at(1, start)).find(|v| !v.admitted).unwrap();
            let nearly = start + refused.retry_after - Duration::from_nanos(1);
            assert!(!fixture.at(1, nearly).admitted, "{algorithm:?} {limit}: just before");
            assert!(fixture.at(1, start + refused.retry_after).admitted, "{algorithm:?} {limit}: at the time");
        }
    }
}

#[test]
fn remaining_counts_down_and_reset_tells_when_it_is_whole() {
    for algorithm in ALGORITHMS {
        let limit = fixture(algorithm, 10, MINUTE, 10);
        let remaining: Vec<u32> = (0..11).map(|_| limit.at(1, Duration::ZERO).remaining).collect();
        assert_eq!(remaining, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0], "{algorithm:?}");
        let last = limit.at(1, Duration::ZERO);
        assert_eq!(limit.at(1, last.reset).remaining, 9, "{algorithm:?}: whole but for this one");
    }
}

/// A hundred thousand strangers in one window, while regular clients go about their business.
#[test]
fn nobody_innocent_pays_in_a_flood() {
    for algorithm in ALGORITHMS {
        let limit = fixture(algorithm, 100, Duration::from_secs(3600), 100);
        let (mut refused, mut greedy) = (0, 0);
        for round in 0..200_u64 {
            for stranger in 0..500 {
                let stranger = 1_000_000 + round * 500 + stranger;
                refused += usize::from(!limit.at(stranger, Duration::ZERO).admitted);
            }
            for client in 0..200 {
                // Each sends exactly its limit, in every other round.
                if round % 2 == 0 {
                    refused += usize::from(!limit.at(client, Duration::ZERO).admitted);
                }
            }
            for client in 500..550 {
                greedy += limit.admitted(client, 1, Duration::ZERO);
            }
        }
        assert_eq!(refused, 0, "{algorithm:?}: innocent requests refused");
        assert!((5000..=5050).contains(&greedy), "{algorithm:?}: 50 greedy clients got {greedy} of 5,000");
    }
}

#[test]
fn a_million_strangers_change_nothing_for_who_is_known() {
    let limit = fixture(Algorithm::FixedWindow, 100, Duration::from_secs(3600), 100);
    assert_eq!(limit.admitted(1, 90, Duration::ZERO), 90);
    for stranger in 0..1_000_000 {
        assert!(limit.at(10_000 + stranger, Duration::ZERO).admitted);
    }
    assert_eq!(limit.admitted(1, 100, Duration::ZERO), 10, "the heavy client is still known exactly");
    assert!(limit.admitted(2, 80, Duration::ZERO) == 80, "a newcomer under its limit passes");
}

#[test]
fn threads_share_one_count() {
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
fn odd_clocks_and_odd_numbers_are_no_panic() {
    for algorithm in ALGORITHMS {
        let back = fixture(algorithm, 2, MINUTE, 2);
        assert!(back.at(1, MINUTE * 5).admitted);
        assert!(back.limiter.admit(ClientKey(1), back.epoch).admitted, "{algorithm:?}: backwards is standing still");
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
