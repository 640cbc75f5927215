//! Peak EWMA in a simulation with its own clock: five backends with exponential service times of 2 ms and 300
//! requests a second, as in `benches/bad_day`. Results depend only on the seed.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::pool::Lease;
use crate::pool::endpoint::{BackendSettings, Endpoint, PoolShared};
use crate::pool::passive_health::Outcome;
use crate::pool::selection::key::Key;

const BACKENDS: usize = 5;
/// The backend with the fault, if there is one.
const AFFECTED: usize = 2;
/// The fault begins after a second of load, as in the benchmark.
const HEALTHY_UNTIL: Duration = Duration::from_secs(1);
const REQUESTS: u32 = 3_600;
const RATE: u32 = 300;

/// The response time of the affected backend, from the time of the request and that of a healthy backend.
type Fault = fn(at: Duration, healthy: Duration) -> Duration;

/// How often each backend was chosen, and the latencies in order.
struct Run {
    shares: [u32; BACKENDS],
    latencies: Vec<Duration>,
}

impl Run {
    fn percentile(&self, share: f64) -> Duration {
        self.latencies[(share * self.latencies.len() as f64).ceil() as usize - 1]
    }
}

fn run(seed: u64, fault: Fault) -> Run {
    let start = Instant::now();
    let members: Vec<Member> = (1..=BACKENDS as u16)
        .map(|port| {
            let settings = BackendSettings::default();
            let endpoint = Endpoint::new(([127, 0, 0, 1], port).into(), settings, PoolShared::default(), start);
            Member { endpoint: Arc::new(endpoint), weight: 1 }
        })
        .collect();
    let policy = PeakEwma::build(&(), &members);
    let mut random = Rng::with_seed(seed);
    let mut open: BTreeMap<Reverse<(Duration, u32)>, Lease> = BTreeMap::new();
    let mut run = Run { shares: [0; BACKENDS], latencies: Vec::new() };
    for number in 0..REQUESTS + RATE {
        let at = Duration::from_secs(1) * number / RATE;
        while let Some(first) = open.last_entry().filter(|first| first.key().0.0 <= at) {
            let (Reverse((ended, _)), mut lease) = first.remove_entry();
            lease.response_started(Outcome::Success, start + ended);
        }
        let mut request = SelectionRequest {
            key: Key::NONE,
            now: start + at,
            attempted: &[],
            random: random.fork(),
            slow_start: Duration::ZERO,
            admits: &|_| true,
            traffic_share: 1.0,
        };
        let chosen = policy.choose(&members, &mut request).unwrap();
        let healthy = Duration::from_millis(2).mul_f64(-(1.0 - random.f64()).ln());
        let faulty = chosen == AFFECTED && at >= HEALTHY_UNTIL;
        let latency = if faulty { fault(at, healthy) } else { healthy };
        let mut lease = Lease::new(Arc::clone(&members[chosen].endpoint));
        lease.await_response(start + at);
        open.insert(Reverse((at + latency, number)), lease);
        if at >= HEALTHY_UNTIL {
            run.shares[chosen] += 1;
            run.latencies.push(latency);
        }
    }
    run.latencies.sort();
    run
}

#[test]
fn equal_backends_get_equal_shares() {
    for seed in 0..20 {
        let shares = run(seed, |_, healthy| healthy).shares;
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(f64::from(*most) <= 1.15 * f64::from(*least), "seed {seed}: {shares:?}");
    }
}

#[test]
fn percentiles_stay_near_those_of_a_healthy_pool_while_one_backend_is_slow() {
    let pauses: Fault = |at, healthy| {
        // The first 300 ms of each two seconds: responses wait until the end of the pause.
        let position = Duration::from_nanos((at.as_nanos() % 2_000_000_000) as u64);
        healthy.max(Duration::from_millis(300).saturating_sub(position))
    };
    let days: [(&str, Fault); 5] = [
        ("200 ms", |_, _| Duration::from_millis(200)),
        ("10 times slower", |_, healthy| healthy * 10),
        ("hangs", |_, _| Duration::from_secs(10)),
        ("pauses", pauses),
        ("slow for ten seconds", |at, healthy| healthy * if at < HEALTHY_UNTIL * 10 { 10 } else { 1 }),
    ];
    for seed in 0..20 {
        let good = run(seed, |_, healthy| healthy);
        for (name, fault) in days {
            let bad = run(seed, fault);
            for (share, factor) in [(0.99, 1.5), (0.999, 3.0)] {
                let (own, healthy) = (bad.percentile(share), good.percentile(share));
                assert!(
                    own <= healthy.mul_f64(factor),
                    "{name}, seed {seed}: p{} is {own:?}, healthy {healthy:?}, shares {:?}",
                    share * 100.0,
                    bad.shares
                );
            }
        }
    }
}

#[test]
fn recovered_backend_gets_its_share_again() {
    for seed in 0..20 {
        let brief = run(seed, |at, _| Duration::from_millis(if at < HEALTHY_UNTIL * 2 { 100 } else { 1 }));
        assert!(brief.shares[AFFECTED] < 10 + REQUESTS / 5 && brief.shares[AFFECTED] > 10, "{:?}", brief.shares);
    }
}

#[test]
fn latencies_are_equal_only_if_they_differ_little() {
    for (one, other, expected) in [
        (0.002, 0.002, true),
        (0.002, 0.004, true),
        (0.002, 0.0041, false),
        (0.000_1, 0.001, true),
        (0.000_1, 0.002, false),
        (0.0, 0.000_5, false),
        (0.0, 0.0, true),
        (f64::INFINITY, 0.002, false),
        (f64::INFINITY, f64::INFINITY, true),
    ] {
        assert_eq!((are_equal(one, other), are_equal(other, one)), (expected, expected), "{one} {other}");
    }
}
