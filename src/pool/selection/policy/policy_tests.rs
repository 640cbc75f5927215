//! Balancing policies with a fixed seed: the share of each backend, and the keys that move when a backend is
//! removed.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::pool::Lease;
use crate::pool::endpoint::Endpoint;
use crate::pool::endpoint::{BackendSettings, PoolShared};
use crate::pool::health::state::Health;
use crate::pool::passive_health::Outcome;
use crate::pool::selection::choice::{Member, Policy, SelectionRequest};
use crate::pool::selection::key::Key;
use crate::pool::selection::policy::consistent_hash::Ring;
use crate::pool::selection::policy::least_requests::LeastRequests;
use crate::pool::selection::policy::peak_ewma::PeakEwma;
use crate::pool::selection::policy::random::Weighted;
use crate::pool::selection::policy::round_robin::SmoothRoundRobin;

fn members(weights: &[u32], now: Instant) -> Vec<Member> {
    let shared = PoolShared::default();
    let member = |(port, weight): (u16, &u32)| {
        let endpoint = Endpoint::new(([127, 0, 0, 1], port).into(), BackendSettings::default(), shared.clone(), now);
        Member { endpoint: Arc::new(endpoint), weight: *weight }
    };
    (1..).zip(weights).map(member).collect()
}

fn request(now: Instant) -> SelectionRequest<'static> {
    SelectionRequest {
        key: Key::NONE,
        now,
        attempted: &[],
        random: Rng::with_seed(7),
        slow_start: Duration::ZERO,
        admits: &|_| true,
        traffic_share: 1.0,
    }
}

/// How often each member is chosen in `rounds` requests. Each request ends before the next one starts.
fn counts<P: Policy>(members: &[Member], request: &mut SelectionRequest<'_>, rounds: usize) -> Vec<usize> {
    let policy = P::build(&P::Config::default(), members);
    let mut counts = vec![0; members.len()];
    for _ in 0..rounds {
        if let Some(index) = policy.choose(members, request) {
            counts[index] += 1;
        }
    }
    counts
}

fn assert_shares(counts: &[usize], shares: &[f64], within: f64) {
    let all: usize = counts.iter().sum();
    for (count, share) in counts.iter().zip(shares) {
        assert!((*count as f64 / all as f64 - share).abs() <= within, "counts {counts:?}, expected shares {shares:?}");
    }
}

#[test]
fn picks_follow_weights_for_every_policy() {
    let now = Instant::now();
    let members = members(&[5, 3, 2], now);
    let shares = [0.5, 0.3, 0.2];
    assert_shares(&counts::<SmoothRoundRobin>(&members, &mut request(now), 10_000), &shares, 0.0);
    assert_shares(&counts::<Weighted>(&members, &mut request(now), 10_000), &shares, 0.02);
    assert_shares(&counts::<LeastRequests>(&members, &mut request(now), 10_000), &shares, 0.02);
    assert_shares(&counts::<PeakEwma>(&members, &mut request(now), 10_000), &shares, 0.02);
    assert_shares(&counts::<Ring>(&members, &mut request(now), 10_000), &shares, 0.07);
}

#[test]
fn share_of_a_down_backend_is_spread_over_the_others() {
    let now = Instant::now();
    let members = members(&[1, 1, 1, 1, 1], now);
    members[1].endpoint.set_health(Health::Down, now);
    let shares = [0.25, 0.0, 0.25, 0.25, 0.25];
    assert_shares(&counts::<SmoothRoundRobin>(&members, &mut request(now), 10_000), &shares, 0.0);
    assert_shares(&counts::<Weighted>(&members, &mut request(now), 10_000), &shares, 0.02);
    assert_shares(&counts::<LeastRequests>(&members, &mut request(now), 10_000), &shares, 0.02);
    assert_shares(&counts::<PeakEwma>(&members, &mut request(now), 10_000), &shares, 0.02);
    assert_shares(&counts::<Ring>(&members, &mut request(now), 10_000), &shares, 0.1);
}

#[test]
fn only_available_backend_is_chosen_by_every_policy() {
    let now = Instant::now();
    let mut weights = [1000; 60];
    weights[17] = 1;
    let members = members(&weights, now);
    for (index, member) in members.iter().enumerate() {
        member.endpoint.set_health(if index == 17 { Health::Up } else { Health::Down }, now);
    }
    assert_eq!(counts::<SmoothRoundRobin>(&members, &mut request(now), 10)[17], 10);
    assert_eq!(counts::<Weighted>(&members, &mut request(now), 10)[17], 10);
    assert_eq!(counts::<LeastRequests>(&members, &mut request(now), 10)[17], 10);
    assert_eq!(counts::<PeakEwma>(&members, &mut request(now), 10)[17], 10);
    assert_eq!(counts::<Ring>(&members, &mut request(now), 10)[17], 10);
}

#[test]
fn slow_start_applies_to_every_policy() {
    let now = Instant::now();
    let members = members(&[1, 1], now);
    members[0].endpoint.begin_slow_start(now);
    let half = now + Duration::from_secs(5);
    // Half of its own turns: one in three.
    let shares = [1.0 / 3.0, 2.0 / 3.0];
    let mut slow = SelectionRequest { slow_start: Duration::from_secs(10), ..request(half) };
    assert_shares(&counts::<SmoothRoundRobin>(&members, &mut slow, 10_000), &shares, 0.02);
    assert_shares(&counts::<Weighted>(&members, &mut slow, 10_000), &shares, 0.02);
    assert_shares(&counts::<Ring>(&members, &mut slow, 10_000), &shares, 0.06);
    let few = counts::<LeastRequests>(&members, &mut slow, 10_000)[0];
    assert!((2_000..4_000).contains(&few), "{few}");
    slow.now = now + Duration::from_secs(10);
    assert_shares(&counts::<Weighted>(&members, &mut slow, 10_000), &[0.5, 0.5], 0.02);
}

#[test]
fn least_requests_avoids_a_busy_backend() {
    let now = Instant::now();
    let members = members(&[1, 1, 2], now);
    let leases: Vec<Lease> = (0..4).map(|_| Lease::new(Arc::clone(&members[0].endpoint))).collect();
    let few = counts::<LeastRequests>(&members, &mut request(now), 10_000)[0];
    assert!(few < 200, "the busy backend is chosen only if eight draws find no other backend: {few}");
    drop(leases);
    // While requests stay in flight, picks follow the weights, without a burst to one backend.
    let policy = LeastRequests::build(&(), &members);
    let mut request = request(now);
    let held: Vec<Lease> = (0..400)
        .map(|_| Lease::new(Arc::clone(&members[policy.choose(&members, &mut request).unwrap()].endpoint)))
        .collect();
    assert_eq!(held.len(), 400);
    let in_flight = |index: usize| members[index].endpoint.in_flight();
    assert!((95..=105).contains(&in_flight(0)) && (195..=205).contains(&in_flight(2)), "{}", in_flight(2));
}

#[test]
fn peak_ewma_avoids_slow_and_failing_backends() {
    let now = Instant::now();
    let members = members(&[1, 1, 1, 1], now);
    members[0].endpoint.record_response_start(Some(Duration::from_millis(2)), now);
    members[1].endpoint.record_response_start(Some(Duration::from_millis(2)), now);
    members[2].endpoint.record_response_start(Some(Duration::from_millis(20)), now);
    members[3].endpoint.record(Outcome::ServerError, Some(Duration::ZERO), now);
    let counts = counts::<PeakEwma>(&members, &mut request(now), 10_000);
    assert!(counts[2] < 2_000 && counts[3] < 50, "{counts:?}");
}

/// Sends one request per millisecond. Member `index` responds after `times[index]` milliseconds, or never. Counts
/// how often each member is chosen.
fn open_loop(members: &[Member], times: [Option<u64>; 4], requests: u64, now: Instant) -> [u32; 4] {
    let policy = PeakEwma::build(&(), members);
    let mut request = request(now);
    let mut open: Vec<(u64, Lease)> = Vec::new();
    let mut counts = [0; 4];
    for millisecond in 0..requests {
        request.now = now + Duration::from_millis(millisecond);
        let (ended, in_flight): (Vec<_>, Vec<_>) = open.into_iter().partition(|(until, _)| *until <= millisecond);
        open = in_flight;
        ended.into_iter().for_each(|(_, mut lease)| lease.response_started(Outcome::Success, request.now));
        let index = policy.choose(members, &mut request).unwrap();
        let mut lease = Lease::new(Arc::clone(&members[index].endpoint));
        lease.await_response(request.now);
        counts[index] += 1;
        open.push((times[index].map_or(u64::MAX, |time| millisecond + time), lease));
    }
    counts
}

#[test]
fn peak_ewma_sends_hardly_any_request_to_a_hanging_backend() {
    let now = Instant::now();
    let members = members(&[1, 1, 1, 1], now);
    members.iter().for_each(|m| m.endpoint.record_response_start(Some(Duration::from_millis(2)), now));
    let counts = open_loop(&members, [Some(2), Some(2), Some(2), None], 30_000, now);
    assert!(counts[3] <= 3, "{counts:?}");
    assert!(counts[..3].iter().all(|count| *count > 7_000), "{counts:?}");
}

#[test]
fn peak_ewma_uses_a_recovered_backend_immediately() {
    let now = Instant::now();
    let members = members(&[1, 1, 1, 1], now);
    members.iter().for_each(|m| m.endpoint.record_response_start(Some(Duration::from_millis(2)), now));
    members[3].endpoint.record(Outcome::GatewayFailure, None, now);
    assert_eq!(
        open_loop(&members, [Some(2); 4], 1_000, now)[3],
        0,
        "a failure counts as a latency of one second, so the backend gets no request"
    );
    let later = now + Duration::from_secs(2);
    members[3].endpoint.set_health(Health::Down, later);
    members[3].endpoint.set_health(Health::Up, later);
    let counts = open_loop(&members, [Some(2); 4], 1_000, later);
    assert!(counts[3] > 150, "slow start resets the latency of earlier failures: {counts:?}");
}

#[test]
fn peak_ewma_uses_a_slow_backend_when_the_others_are_busy() {
    let now = Instant::now();
    let members = members(&[1, 1, 1, 1], now);
    members.iter().for_each(|m| m.endpoint.record_response_start(Some(Duration::from_millis(100)), now));
    members[3].endpoint.record_response_start(Some(Duration::from_secs(60)), now);
    // Without the slow backend, the others would have 33 requests in flight each. That costs more than 16 times
    // the latency.
    let counts = open_loop(&members, [Some(100); 4], 10_000, now);
    assert!((100..1_000).contains(&counts[3]), "{counts:?}");
}

#[test]
fn consistent_hash_moves_only_the_keys_of_a_removed_backend() {
    let now = Instant::now();
    let ten = members(&[1; 10], now);
    let nine = [&ten[..4], &ten[5..]].concat();
    let (before, after) = (Ring::build(&(), &ten), Ring::build(&(), &nine));
    let mut moved = 0;
    for key in 0..10_000_u32 {
        let mut request = SelectionRequest { key: Key::of(&key.to_le_bytes()), ..request(now) };
        let was = ten[before.choose(&ten, &mut request).unwrap()].endpoint.address();
        let is = nine[after.choose(&nine, &mut request).unwrap()].endpoint.address();
        if was.port() == 5 {
            moved += 1;
        } else {
            assert_eq!(was, is, "only the keys of the removed backend move");
        }
    }
    assert!((700..1_300).contains(&moved), "about one key in ten moves: {moved}");
}

#[test]
fn consistent_hash_bounds_the_load_of_a_popular_key() {
    let now = Instant::now();
    let members = members(&[1; 10], now);
    let ring = Ring::build(&(), &members);
    let mut request = SelectionRequest { key: Key::of(b"popular"), ..request(now) };
    let held: Vec<Lease> = (0..1_000)
        .map(|_| Lease::new(Arc::clone(&members[ring.choose(&members, &mut request).unwrap()].endpoint)))
        .collect();
    let most = members.iter().map(|member| member.endpoint.in_flight()).max();
    assert_eq!((held.len(), most), (1_000, Some(125)));
}
