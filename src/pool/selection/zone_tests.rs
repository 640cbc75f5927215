//! The zone preference of a pool, with every policy.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::fault::{Faults, Place};
use crate::base::units::Timestamp;
use crate::pool::endpoint::Endpoint;
use crate::pool::health::connectors::Connectors;
use crate::pool::operator::overrides::{Change, State};
use crate::pool::*;

const POLICIES: [&str; 5] =
    ["round_robin", "random", "least_requests", "peak_ewma", "{ type: consistent_hash, by: client_ip }"];

/// A local zone with weight 1, one with 2 and one with 6; a fair share is 3.
const UNEQUAL: &str = "{address: '127.0.0.1:1', zone: a}, {address: '127.0.0.1:2', zone: b, weight: 2}, \
    {address: '127.0.0.1:3', zone: c, weight: 4}, {address: '127.0.0.1:4', zone: c, weight: 2}";

/// Two backends in the local zone, and one in each of two others.
const LARGE: &str = "{address: '127.0.0.1:1', zone: a}, {address: '127.0.0.1:2', zone: a}, \
    {address: '127.0.0.1:3', zone: b}, {address: '127.0.0.1:4', zone: c}";

fn spec(zone: Option<&str>, rest: &str, backends: &str) -> Spec {
    let yaml = format!("{{ health_check: {{ type: none }}, {rest}, backends: [{backends}] }}");
    let mut faults = Faults::default();
    let mut spec = serde_yaml::from_str::<Config>(&yaml).unwrap().check(&Place::root(), &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    spec.local_zone = zone.map(|zone| zone.parse().unwrap());
    spec
}

/// A pool of a process in the zone `a`, and the time of its first pick.
async fn pool(rest: &str, backends: &str) -> (Pool, Instant) {
    build(&spec(Some("a"), rest, backends)).await
}

async fn build(spec: &Spec) -> (Pool, Instant) {
    let now = Instant::now();
    let pool = Pool::build("p".into(), spec, &Connectors::default(), now).unwrap();
    pool.balancer.update().await.unwrap();
    (pool, now)
}

fn backend(pool: &Pool, port: u16) -> Arc<Endpoint> {
    pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == port).unwrap()
}

fn pick(pool: &Pool, key: Key, now: Instant) -> Option<u16> {
    pool.pick(key, &[], now).map(|lease| lease.endpoint().address().port())
}

/// The share of each backend among 6,000 picks with different keys.
fn shares(pool: &Pool, now: Instant) -> BTreeMap<u16, f64> {
    let mut shares: BTreeMap<u16, f64> = BTreeMap::new();
    for number in 0..6_000_u32 {
        let key = if pool.spec().balance.key.is_some() { Key::of(&number.to_le_bytes()) } else { Key::NONE };
        *shares.entry(pick(pool, key, now).unwrap()).or_default() += 1.0 / 6e3;
    }
    shares
}

fn assert_shares(pool: &Pool, now: Instant, expected: &[(u16, f64)], within: f64) {
    let shares = shares(pool, now);
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), expected.iter().map(|one| one.0).collect::<Vec<_>>());
    for (port, share) in expected {
        assert!((shares[port] - share).abs() < within, "expected {expected:?}, got {shares:?}");
    }
}

#[tokio::test]
async fn shares_of_unequal_zones_follow_the_rule_for_every_policy() {
    for policy in POLICIES {
        let (pool, now) = pool(&format!("balance: {policy}"), UNEQUAL).await;
        // Keys are distributed less evenly within a zone.
        let within = if policy.contains("hash") { 0.08 } else { 0.03 };
        let share = 1.0 / 3.0;
        assert_shares(&pool, now, &[(1, share), (3, 2.0 * share * 2.0 / 3.0), (4, 2.0 * share / 3.0)], within);
        let (large, now) = self::pool(&format!("balance: {policy}"), LARGE).await;
        assert_shares(&large, now, &[(1, 0.5), (2, 0.5)], within);
    }
}

#[tokio::test]
async fn pool_without_a_local_zone_has_no_zone_preference() {
    let other = LARGE.replace("zone: a", "zone: d");
    let single = "{address: '127.0.0.1:1', zone: a}, {address: '127.0.0.1:2', zone: a}";
    let none = "{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}";
    let backup = "{address: '127.0.0.1:1', zone: a, backup: true}, {address: '127.0.0.1:2', zone: b}, \
        {address: '127.0.0.1:3', zone: c}";
    let cases = [(None, LARGE, 4), (Some("a"), &other, 4), (Some("a"), single, 2), (Some("a"), none, 2)];
    for (zone, backends, count) in cases.into_iter().chain([(Some("a"), backup, 2)]) {
        let (pool, now) = build(&spec(zone, "balance: round_robin", backends)).await;
        assert_eq!(pool.zone_preference(now), None, "{backends}");
        let shares = shares(&pool, now);
        assert_eq!(shares.len(), count, "{backends}");
        assert!(shares.values().all(|share| (share - 1.0 / count as f64).abs() < 1e-6), "{shares:?}");
    }
}

#[tokio::test]
async fn backends_without_a_zone_are_one_zone_that_is_not_local() {
    let backends = "{address: '127.0.0.1:1', zone: a}, {address: '127.0.0.1:2'}, {address: '127.0.0.1:3', weight: 2}";
    let (pool, now) = pool("balance: random", backends).await;
    assert_shares(&pool, now, &[(1, 0.5), (2, 1.0 / 6.0), (3, 1.0 / 3.0)], 0.03);
}

#[tokio::test]
async fn capacity_counts_only_backends_that_may_get_requests() {
    let (pool, start) = pool("balance: random, slow_start: 10s", LARGE).await;
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let local = |now: Instant| pool.zone_preference(now).unwrap().share_of(Some(&"a".parse().unwrap())).unwrap();
    assert!(local(start) >= 1.0);
    backend(&pool, 1).set_health(Health::Down, start);
    // Capacities 1, 1, 1: still a fair share.
    assert!(local(at(1)) >= 1.0);
    backend(&pool, 2).set_health(Health::Down, start);
    assert_shares(&pool, at(2), &[(3, 0.5), (4, 0.5)], 0.03);
    backend(&pool, 2).set_health(Health::Up, at(10));
    // A tenth of its weight at first: the fair share is 0.7.
    assert!((local(at(10)) - 0.1 / 0.7).abs() < 1e-9);
    assert_shares(&pool, at(10), &[(2, 0.1 / 0.7), (3, 0.3 / 0.7), (4, 0.3 / 0.7)], 0.03);
    // Half of its weight: the fair share is 2.5 / 3.
    assert!((local(at(15)) - 0.6).abs() < 1e-9);
    assert_shares(&pool, at(15), &[(2, 0.6), (3, 0.2), (4, 0.2)], 0.03);
    assert_shares(&pool, at(20), &[(2, 1.0)], 1e-9);
    let drain = |port: u16| {
        pool.change(([127, 0, 0, 1], port).into(), Change::State(State::Draining), Timestamp::now(), start).unwrap();
    };
    drain(2);
    assert_eq!(local(at(30)), 0.0);
    assert_shares(&pool, at(30), &[(3, 0.5), (4, 0.5)], 0.03);
    backend(&pool, 3).passive_health().eject(false, at(60));
    assert_shares(&pool, at(31), &[(4, 1.0)], 1e-9);
    backend(&pool, 4).passive_health().eject(false, at(60));
    assert_eq!(pool.zone_preference(at(32)), None, "no zone has capacity");
    assert_shares(&pool, at(32), &[(3, 0.5), (4, 0.5)], 0.03);
}

#[tokio::test]
async fn zone_that_failed_less_than_100_ms_ago_is_replaced_by_any_other() {
    let (pool, now) = pool("balance: random", LARGE).await;
    assert!([Some(1), Some(2)].contains(&pick(&pool, Key::NONE, now)));
    backend(&pool, 1).set_health(Health::Down, now);
    backend(&pool, 2).set_health(Health::Down, now);
    assert_shares(&pool, now + Duration::from_millis(99), &[(3, 0.5), (4, 0.5)], 0.03);
}

#[tokio::test]
async fn changed_weight_of_an_operator_changes_the_shares() {
    let (pool, now) = pool("balance: random", LARGE).await;
    pool.change(([127, 0, 0, 1], 3).into(), Change::Weight(8), Timestamp::now(), now).unwrap();
    // Capacities 2, 8, 1; the fair share is 11 / 3.
    let kept = 2.0 / (11.0 / 3.0);
    assert_shares(&pool, now, &[(1, kept / 2.0), (2, kept / 2.0), (3, 1.0 - kept)], 0.03);
}

#[tokio::test]
async fn retry_prefers_the_local_zone_until_its_backends_have_been_attempted() {
    let (pool, now) = pool("balance: random", LARGE).await;
    let mut attempted = Vec::new();
    let mut next = || {
        let lease = pool.pick(Key::NONE, &attempted, now)?;
        attempted.push(Arc::clone(lease.endpoint()));
        Some(lease.endpoint().address().port())
    };
    let order: Vec<u16> = std::iter::from_fn(&mut next).collect();
    assert!(order[..2] == [1, 2] || order[..2] == [2, 1], "{order:?}");
    assert!(order[2..] == [3, 4] || order[2..] == [4, 3], "{order:?}");
}

#[tokio::test]
async fn full_local_zone_uses_other_zones_instead_of_the_queue() {
    let (pool, now) = pool("balance: random, max_in_flight: { per_backend: 1 }, queue: { length: 9 }", LARGE).await;
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(pool.reserve(|| pool.pick(Key::NONE, &[], now)).await.unwrap());
    }
    let ports: Vec<u16> = leases.iter().map(|lease| lease.endpoint().address().port()).collect();
    assert!(ports[..2].iter().all(|port| *port <= 2) && ports[2..].iter().all(|port| *port > 2), "{ports:?}");
    assert_eq!(pool.queued_requests(), Some(0));
}

#[tokio::test]
async fn primaries_of_other_zones_precede_a_local_backup() {
    let backends = format!("{LARGE}, {{address: '127.0.0.1:5', zone: a, backup: true}}");
    let (pool, now) = pool("balance: random", &backends).await;
    assert_shares(&pool, now, &[(1, 0.5), (2, 0.5)], 0.03);
    (1..=2).for_each(|port| backend(&pool, port).set_health(Health::Down, now));
    assert_shares(&pool, now + Duration::from_secs(1), &[(3, 0.5), (4, 0.5)], 0.03);
    (3..=4).for_each(|port| backend(&pool, port).set_health(Health::Down, now));
    assert_shares(&pool, now + Duration::from_secs(2), &[(5, 1.0)], 1e-9);
}

#[tokio::test]
async fn key_keeps_its_backend_while_its_zone_has_capacity() {
    let backends = "{address: '127.0.0.1:1', zone: a}, {address: '127.0.0.1:2', zone: a}, {address: '127.0.0.1:3', \
        zone: b, weight: 2}, {address: '127.0.0.1:4', zone: c}, {address: '127.0.0.1:5', zone: c}";
    let (pool, now) = pool("balance: { type: consistent_hash, by: client_ip }, slow_start: 0s", backends).await;
    let all = |now: Instant| -> Vec<u16> {
        (0..2_000_u32).map(|key| pick(&pool, Key::of(&key.to_le_bytes()), now).unwrap()).collect()
    };
    let before = all(now);
    assert_eq!(before, all(now), "a key has one backend");
    backend(&pool, 1).set_health(Health::Down, now);
    let failed = all(now + Duration::from_secs(1));
    // The local zone keeps 1 / (5 / 3) of the keys, among them no new ones.
    let stayed = failed.iter().filter(|port| **port == 2).count() as f64 / 2e3;
    assert!((stayed - 0.6).abs() < 0.05, "{stayed}");
    backend(&pool, 1).set_health(Health::Up, now);
    assert_eq!(before, all(now + Duration::from_secs(2)), "keys return to their backends");
}

#[tokio::test]
async fn preview_agrees_with_picks_and_names_the_reason() {
    let (pool, now) = pool("balance: random", UNEQUAL).await;
    let preview = pool.preview(Key::NONE, None, now);
    let zones = preview.zones.unwrap();
    assert_eq!(
        zones.to_string(),
        "zone a is local and gets 33 %: its capacity of 1 is less than a fair share of 3 (9 in 3 zones); c gets 67 %"
    );
    let candidate = |port: u16| preview.candidates.iter().find(|one| one.address.port() == port).unwrap();
    assert!((candidate(1).chance - 1.0 / 3.0).abs() < 0.05, "{}", candidate(1));
    assert_eq!(candidate(2).reason, "in another zone, which gets no requests of this zone");
    assert!(candidate(2).to_string().contains(", zone b, "), "{}", candidate(2));
}

#[tokio::test]
async fn reload_with_another_local_zone_replaces_the_pool() {
    let (one, other) = (spec(Some("a"), "balance: random", LARGE), spec(Some("b"), "balance: random", LARGE));
    assert!(one.is_same(&one) && !one.is_same(&other));
    let (before, now) = build(&one).await;
    let after = Pool::build_replacement(&before, &other, &Connectors::default(), now).unwrap();
    after.balancer.update().await.unwrap();
    // Capacities 2, 1, 1 with b as the local zone; the fair share is 4 / 3.
    assert_shares(&after, now, &[(1, 0.125), (2, 0.125), (3, 0.75)], 0.03);
}
