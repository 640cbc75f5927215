//! What is expected of a pool is what it then does, under every policy.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use std::collections::BTreeMap;

use crate::base::fault::{Faults, Place};
use crate::pool::admission::circuit::CircuitState;
use crate::pool::operator::administration::{Change, State};
use crate::pool::selection::outlook::{Candidate, Outlook};
use std::net::SocketAddr;

use crate::base::units::Timestamp;
use std::sync::Arc;
use std::time::Instant;

use crate::http::rejection::Rejection;
use crate::pool::health::connectors::Connectors;
use crate::pool::*;

async fn pool(rest: &str, backends: &[&str]) -> Pool {
    let yaml = format!("{{ health_check: {{ type: none }}, {rest}, backends: [{}] }}", backends.join(", "));
    let mut faults = Faults::default();
    let spec = serde_yaml::from_str::<Config>(&yaml).unwrap().check(&Place::root(), &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    let pool = Pool::build("p".into(), &spec, &Connectors::default(), Instant::now()).unwrap();
    pool.balancer.update().await.unwrap();
    pool
}

const THREE: [&str; 3] =
    ["{address: '127.0.0.1:1', weight: 3}", "{address: '127.0.0.1:2'}", "{address: '127.0.0.1:3', weight: 2}"];

fn drain(pool: &Pool, port: u16) {
    let change = Change::State(State::Draining);
    pool.change(([127, 0, 0, 1], port).into(), change, Timestamp::now(), Instant::now()).unwrap();
}

fn chances(outlook: &Outlook) -> BTreeMap<u16, f64> {
    let chance = |candidate: &Candidate| (candidate.address.port(), candidate.chance);
    outlook.candidates.iter().map(chance).filter(|(_, chance)| *chance > 0.0).collect()
}

fn candidate(outlook: &Outlook, port: u16) -> &Candidate {
    outlook.candidates.iter().find(|candidate| candidate.address.port() == port).unwrap()
}

#[tokio::test]
async fn what_is_expected_is_what_is_picked_under_every_policy() {
    let policies = ["round_robin", "random", "least_requests", "peak_ewma", "{ type: consistent_hash, by: client_ip }"];
    for policy in policies {
        let pool = pool(&format!("balance: {policy}"), &THREE).await;
        // The first is slow and has much to do.
        let busy = pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == 1).unwrap();
        let _leases: Vec<Lease> = (0..3).map(|_| Lease::new(Arc::clone(&busy))).collect();
        for key in [Key::of(b"somebody"), Key::of(b"another")] {
            let expected = chances(&pool.outlook(key, None, Instant::now()));
            let mut picked: BTreeMap<u16, f64> = BTreeMap::new();
            for _ in 0..3000 {
                let lease = pool.pick(key, &[], Instant::now()).unwrap();
                *picked.entry(lease.endpoint().address().port()).or_default() += 1.0 / 3000.0;
            }
            for port in 1..=3 {
                let of = |shares: &BTreeMap<u16, f64>| shares.get(&port).copied().unwrap_or_default();
                let (expected, picked) = (of(&expected), of(&picked));
                assert!((expected - picked).abs() < 0.06, "{policy}: {port} {expected} {picked}");
            }
        }
    }
}

#[tokio::test]
async fn nobodys_turn_is_taken_by_a_question() {
    let pool = pool("balance: round_robin", &["{address: '127.0.0.1:1'}", "{address: '127.0.0.1:2'}"]).await;
    let picked = (0..6).map(|_| {
        let outlook = pool.outlook(Key::NONE, None, Instant::now());
        assert_eq!(chances(&outlook), BTreeMap::from([(1, 0.5), (2, 0.5)]));
        pool.pick(Key::NONE, &[], Instant::now()).unwrap().endpoint().address().port()
    });
    assert_eq!(picked.collect::<Vec<_>>(), [1, 2, 1, 2, 1, 2]);
}

#[tokio::test]
async fn each_obstacle_has_its_words() {
    let backends = [
        "{address: '127.0.0.1:1'}",
        "{address: '127.0.0.1:2', drain: true}",
        "{address: '127.0.0.1:4', backup: true}",
        "{address: '127.0.0.1:5'}",
        "{address: '127.0.0.1:6'}",
    ];
    let rest = "max_in_flight: { per_backend: 1 }, balance: least_requests, circuit_breaker: { minimum_requests: 1 }";
    let pool = pool(rest, &backends).await;
    let endpoint = |port| pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == port).unwrap();
    endpoint(5).set_health(Health::Down, Instant::now());
    let _full = Lease::new(endpoint(6));
    let outlook = pool.outlook(Key::NONE, None, Instant::now());
    assert_eq!((chances(&outlook), outlook.refusal), (BTreeMap::from([(1, 1.0)]), None));
    let words = |port| candidate(&outlook, port).obstacle.as_str();
    assert_eq!([words(1), words(2), words(5)], ["", "draining", "down"]);
    assert_eq!([words(4), words(6)], ["a backup, and enough others can", "it has as many requests as it may"]);
    let six = candidate(&outlook, 6);
    assert_eq!((six.in_flight, six.score, six.circuit), (1, Some(1.0), Some(CircuitState::Closed)));

    let circuit = endpoint(1).circuit().unwrap();
    let permit = circuit.admit(Instant::now()).unwrap();
    circuit.settle(permit, Some(true), Instant::now());
    let outlook = pool.outlook(Key::NONE, None, Instant::now());
    assert_eq!(chances(&outlook), BTreeMap::from([(4, 1.0)]), "the backup is what is left");
    assert!(candidate(&outlook, 1).obstacle.starts_with("its circuit breaker is open for 4s"), "{outlook:?}");
    assert_eq!(candidate(&outlook, 1).circuit, Some(CircuitState::Open));
    drain(&pool, 4);
    let outlook = pool.outlook(Key::NONE, None, Instant::now());
    assert!(matches!(outlook.refusal, Some(Rejection::CircuitOpen { .. })), "{outlook:?}");
}

#[tokio::test]
async fn who_is_bound_is_picked_where_it_can_be() {
    let pool = pool("balance: round_robin", &THREE).await;
    let wants = |address: SocketAddr| (address.port() == 3).then_some(0);
    let outlook = pool.outlook(Key::NONE, Some(&wants), Instant::now());
    assert_eq!(chances(&outlook), BTreeMap::from([(3, 1.0)]));
    drain(&pool, 3);
    let outlook = pool.outlook(Key::NONE, Some(&wants), Instant::now());
    assert_eq!(chances(&outlook).keys().copied().collect::<Vec<_>>(), [1, 2], "it moves");
}
