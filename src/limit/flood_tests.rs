//! Accuracy with more clients than the table holds.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::*;
use crate::http::client_address::ClientKey;

const WINDOW: Duration = Duration::from_secs(60);
/// Neither at the start of a window nor in the first window.
const MIDDLE: Duration = Duration::from_secs(60 + 18);
const STRANGERS: u64 = 100_000;

#[expect(clippy::disallowed_methods, reason = "an instant has no other constructor; only differences to it are used")]
fn epoch() -> Instant {
    Instant::now()
}

fn limiter(algorithm: Algorithm, limit: u32, epoch: Instant) -> Limiter {
    let limit = NonZeroU32::new(limit).unwrap();
    Limiter::new(Spec { algorithm, limit, window: WINDOW, burst: limit }, epoch)
}

/// 1,000 clients that send exactly `limit`, 100 that send twice as much, and a flood of clients with one
/// request each, interleaved and spread over `length` from `start`.
fn mixed_crowd(algorithm: Algorithm, start: Duration, length: Duration) {
    const LIMIT: u32 = 50;
    let epoch = epoch();
    let limiter = limiter(algorithm, LIMIT, epoch);
    let rounds = LIMIT * 2;
    let strangers = STRANGERS / u64::from(rounds);
    let mut greedy = vec![0; 100];
    for round in 0..rounds {
        let now = epoch + start + length * round / rounds;
        for stranger in 0..strangers {
            let stranger = ClientKey(1_000_000 + u64::from(round) * strangers + stranger);
            assert!(limiter.admit(stranger, now).admitted, "{algorithm:?}: a client with one request");
        }
        for client in (0..1000).filter(|_| round % 2 == 0) {
            assert!(
                limiter.admit(ClientKey(client), now).admitted,
                "{algorithm:?}: a client within its limit in round {round}"
            );
        }
        for (count, client) in greedy.iter_mut().zip(5000..) {
            *count += u32::from(limiter.admit(ClientKey(client), now).admitted);
        }
    }
    // One percent of 50 is less than one request.
    assert!(greedy.iter().all(|count| *count == LIMIT), "{algorithm:?}: {greedy:?}");
}

#[test]
fn mixed_clients_are_counted_exactly() {
    mixed_crowd(Algorithm::FixedWindow, WINDOW * 3, WINDOW - Duration::from_secs(1));
    mixed_crowd(Algorithm::SlidingWindow, WINDOW * 3, WINDOW - Duration::from_secs(1));
    // A bucket refills over time, so it is tested at one instant.
    mixed_crowd(Algorithm::TokenBucket, MIDDLE, Duration::ZERO);
}

#[test]
fn flood_does_not_grow_memory_and_heavy_clients_are_still_limited() {
    let epoch = epoch();
    let limiter = limiter(Algorithm::SlidingWindow, 100, epoch);
    let (size, now) = (limiter.size_bytes(), epoch + MIDDLE);
    let mut greedy = 0;
    for stranger in 0..200_000 {
        assert!(limiter.admit(ClientKey(10_000 + stranger), now).admitted);
        // It starts in the middle of the flood, with 500 other clients between two of its requests.
        if stranger > 100_000 && stranger % 500 == 0 {
            greedy += u32::from(limiter.admit(ClientKey(1), now).admitted);
        }
    }
    assert_eq!(greedy, 100, "a heavy client that starts during the flood is counted");
    for newcomer in 2..1000 {
        assert_eq!(limiter.admit(ClientKey(newcomer), now).remaining, 99, "a new client is not charged for others");
    }
    assert_eq!(limiter.size_bytes(), size);
    assert!(size < 9 * 1024 * 1024, "{size}");
    assert_eq!(limiter.slots(), 131_072);
}

/// The hardest case within the guarantee: all clients are equally heavy, so about 5,000 of them are forgotten
/// although they have reached their limit.
#[test]
fn hundred_thousand_clients_at_their_limit_are_counted_exactly() {
    for algorithm in [Algorithm::SlidingWindow, Algorithm::TokenBucket] {
        let epoch = epoch();
        let limiter = limiter(algorithm, 2, epoch);
        let admitted = |clients: u64, after: Duration| {
            (0..clients).filter(|key| limiter.admit(ClientKey(*key), epoch + after).admitted).count()
        };
        assert_eq!(admitted(STRANGERS, MIDDLE), 100_000, "{algorithm:?}");
        assert_eq!(admitted(STRANGERS, MIDDLE), 100_000, "{algorithm:?}: no client is charged for another");
        assert_eq!(admitted(STRANGERS, MIDDLE), 0, "{algorithm:?}: forgotten clients are remembered in the sketch");
        assert_eq!(admitted(1000, MIDDLE + WINDOW * 2), 1000, "{algorithm:?}: no client is charged for past windows");
    }
}
