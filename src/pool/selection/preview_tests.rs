//! The selection preview agrees with real picks for every policy.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use std::collections::BTreeMap;

use crate::base::backend_address::BackendAddress;
use crate::base::fault::{Faults, Place};
use crate::pool::admission::circuit::CircuitState;
use crate::pool::operator::overrides::{Change, State};
use crate::pool::selection::preview::{Candidate, SelectionPreview};

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

fn chances(preview: &SelectionPreview) -> BTreeMap<u16, f64> {
    let chance = |candidate: &Candidate| (candidate.address.port(), candidate.chance);
    preview.candidates.iter().map(chance).filter(|(_, chance)| *chance > 0.0).collect()
}

fn candidate(preview: &SelectionPreview, port: u16) -> &Candidate {
    preview.candidates.iter().find(|candidate| candidate.address.port() == port).unwrap()
}

#[tokio::test]
async fn preview_agrees_with_picks_for_every_policy() {
    let policies = ["round_robin", "random", "least_requests", "peak_ewma", "{ type: consistent_hash, by: client_ip }"];
    for policy in policies {
        let pool = pool(&format!("balance: {policy}"), &THREE).await;
        // Backend 1 has three requests in flight.
        let busy = pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == 1).unwrap();
        let _leases: Vec<Lease> = (0..3).map(|_| Lease::new(Arc::clone(&busy))).collect();
        for key in [Key::of(b"client-a"), Key::of(b"client-b")] {
            let expected = chances(&pool.preview(key, None, Instant::now()));
            let mut picked: BTreeMap<u16, f64> = BTreeMap::new();
            for _ in 0..3000 {
                let lease = pool.pick(key, &[], Instant::now()).unwrap();
                *picked.entry(lease.endpoint().address().port()).or_default() += 1.0 / 3000.0;
            }
            for port in 1..=3 {
                let share = |shares: &BTreeMap<u16, f64>| shares.get(&port).copied().unwrap_or_default();
                let (expected, picked) = (share(&expected), share(&picked));
                assert!((expected - picked).abs() < 0.06, "{policy}, port {port}: preview {expected}, picked {picked}");
            }
        }
    }
}

#[tokio::test]
async fn preview_does_not_advance_the_policy() {
    let pool = pool("balance: round_robin", &["{address: '127.0.0.1:1'}", "{address: '127.0.0.1:2'}"]).await;
    let picked = (0..6).map(|_| {
        let preview = pool.preview(Key::NONE, None, Instant::now());
        assert_eq!(chances(&preview), BTreeMap::from([(1, 0.5), (2, 0.5)]));
        pool.pick(Key::NONE, &[], Instant::now()).unwrap().endpoint().address().port()
    });
    assert_eq!(picked.collect::<Vec<_>>(), [1, 2, 1, 2, 1, 2]);
}

#[tokio::test]
async fn preview_gives_the_reason_for_each_unavailable_backend() {
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
    let _lease = Lease::new(endpoint(6));
    let preview = pool.preview(Key::NONE, None, Instant::now());
    assert_eq!((chances(&preview), preview.rejection), (BTreeMap::from([(1, 1.0)]), None));
    let reason = |port| candidate(&preview, port).reason.as_str();
    assert_eq!([reason(1), reason(2), reason(5)], ["", "draining", "down"]);
    assert_eq!(
        [reason(4), reason(6)],
        ["backup, and enough primary backends are available", "its limit of requests in flight is reached"]
    );
    let full = candidate(&preview, 6);
    assert_eq!((full.in_flight, full.score, full.circuit), (1, Some(1.0), Some(CircuitState::Closed)));

    let circuit = endpoint(1).circuit().unwrap();
    let permit = circuit.admit(Instant::now()).unwrap();
    circuit.settle(permit, Some(true), Instant::now());
    let preview = pool.preview(Key::NONE, None, Instant::now());
    assert_eq!(chances(&preview), BTreeMap::from([(4, 1.0)]), "only the backup is available");
    assert!(candidate(&preview, 1).reason.starts_with("its circuit breaker is open for 4s"), "{preview:?}");
    assert_eq!(candidate(&preview, 1).circuit, Some(CircuitState::Open));
    drain(&pool, 4);
    let preview = pool.preview(Key::NONE, None, Instant::now());
    assert!(matches!(preview.rejection, Some(Rejection::CircuitOpen { .. })), "{preview:?}");
}

#[tokio::test]
async fn preview_shows_the_affinity_backend_if_it_is_available() {
    let pool = pool("balance: round_robin", &THREE).await;
    let score = |address: BackendAddress| (address.port() == 3).then_some(0);
    let preview = pool.preview(Key::NONE, Some(&score), Instant::now());
    assert_eq!(chances(&preview), BTreeMap::from([(3, 1.0)]));
    drain(&pool, 3);
    let preview = pool.preview(Key::NONE, Some(&score), Instant::now());
    assert_eq!(chances(&preview).keys().copied().collect::<Vec<_>>(), [1, 2], "another backend is picked");
}

#[tokio::test]
async fn preview_excludes_an_ejected_backend_if_requests_wait_for_a_busy_one() {
    let backends = ["{address: '127.0.0.1:1'}", "{address: '127.0.0.1:2'}"];
    let pool = pool("max_in_flight: { per_backend: 1 }", &backends).await;
    let endpoint = |port| pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == port).unwrap();
    endpoint(2).passive_health().eject(false, Instant::now());
    let busy = Lease::new(endpoint(1));
    assert!(pool.pick(Key::NONE, &[], Instant::now()).is_none(), "the request waits");
    assert_eq!(chances(&pool.preview(Key::NONE, None, Instant::now())), BTreeMap::new());
    endpoint(1).set_health(Health::Down, Instant::now());
    drop(busy);
    let preview = pool.preview(Key::NONE, None, Instant::now());
    assert_eq!(chances(&preview), BTreeMap::from([(2, 1.0)]), "no other backend is healthy");
}
