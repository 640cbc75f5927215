//! Pools without a network: the backends that are picked, and the faults of invalid configurations.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::pool::endpoint::Endpoint;
use crate::pool::health::connectors::Connectors;
use std::collections::BTreeSet;

use crate::base::fault::{Faults, Place};
use crate::base::units::Timestamp;
use crate::pool::operator::overrides::{Change, State};

fn config(yaml: &str) -> Config {
    serde_yaml::from_str(yaml).unwrap()
}

fn faults(yaml: &str) -> Vec<String> {
    let mut faults = Faults::default();
    config(yaml).check(&Place::root(), &mut faults);
    faults.into_vec().into_iter().map(|fault| format!("{}: {}", fault.place, fault.problem)).collect()
}

async fn pool(yaml: &str) -> Pool {
    let mut faults = Faults::default();
    let spec = config(yaml).check(&Place::root(), &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    let pool = Pool::build("p".into(), &spec, &Connectors::default(), Instant::now()).unwrap();
    pool.balancer.update().await.unwrap();
    pool
}

fn pick(pool: &Pool, attempted: &[Arc<Endpoint>]) -> Option<Lease> {
    pool.pick(Key::NONE, attempted, Instant::now())
}

fn change(pool: &Pool, port: u16, change: Change) -> Result<(), OverrideRejected> {
    pool.change(([127, 0, 0, 1], port).into(), change, Timestamp::now(), Instant::now())
}

fn port(lease: Option<Lease>) -> u16 {
    lease.map_or(0, |lease| lease.endpoint().address().port())
}

const THREE: &str = "{balance: round_robin, health_check: {type: none}, backends: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}, {address: '127.0.0.1:3'}]}";

#[tokio::test]
async fn round_robin_is_even_from_the_first_request() {
    let pool = pool(THREE).await;
    let picked: Vec<u16> = (0..6).map(|_| port(pick(&pool, &[]))).collect();
    assert_eq!(picked, [1, 2, 3, 1, 2, 3]);
}

#[tokio::test]
async fn picks_follow_weights() {
    let pool = pool("{balance: round_robin, health_check: {type: none}, backends: [{address: '127.0.0.1:1', weight: 3}, {address: '127.0.0.1:2'}, {address: '127.0.0.1:3', weight: 0}]}").await;
    let mut counts = [0; 4];
    for _ in 0..400 {
        counts[usize::from(port(pick(&pool, &[])))] += 1;
    }
    assert_eq!(counts, [0, 300, 100, 0]);
}

#[tokio::test]
async fn attempted_backends_are_not_picked_again() {
    let pool = pool(THREE).await;
    let all = pool.candidates();
    let attempted: Vec<Arc<Endpoint>> = all.iter().filter(|endpoint| endpoint.address().port() != 2).cloned().collect();
    assert!((0..10).all(|_| port(pick(&pool, &attempted)) == 2));
    assert!(pick(&pool, &all).is_none());
}

#[tokio::test]
async fn backend_is_not_picked_before_its_first_passed_check() {
    let pool = pool("{backends: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}]}").await;
    assert!(pick(&pool, &[]).is_none());
    let candidates = pool.candidates();
    let second = candidates.iter().find(|endpoint| endpoint.address().port() == 2).unwrap();
    second.set_health(Health::Up, Instant::now());
    assert!((0..4).all(|_| port(pick(&pool, &[])) == 2));
}

#[tokio::test]
async fn pick_counts_the_request_until_the_lease_ends() {
    let pool = pool(THREE).await;
    let lease = pick(&pool, &[]).unwrap();
    assert_eq!(lease.endpoint().in_flight(), 1);
    let endpoint = Arc::clone(lease.endpoint());
    drop(lease);
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test]
async fn backups_get_requests_only_below_the_threshold() {
    let pool = pool("{health_check: {type: none}, backup_threshold: 2, backends: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}, {address: '127.0.0.1:3', backup: true}]}").await;
    assert!((0..10).all(|_| port(pick(&pool, &[])) < 3));
    change(&pool, 1, Change::State(State::Draining)).unwrap();
    assert_eq!(change(&pool, 9, Change::State(State::Draining)), Err(OverrideRejected::UnknownBackend));
    let picked: BTreeSet<u16> = (0..10).map(|_| port(pick(&pool, &[]))).collect();
    assert_eq!(picked, BTreeSet::from([2, 3]), "backups and the remaining primary share the requests");
    change(&pool, 1, Change::State(State::Enabled)).unwrap();
    assert!((0..10).all(|_| port(pick(&pool, &[])) < 3));
}

#[tokio::test]
async fn drained_backend_gets_no_new_request_and_keeps_its_requests() {
    let pool = pool(
        "{health_check: {type: none}, backends: [{address: '127.0.0.1:1', drain: true}, {address: '127.0.0.1:2'}]}",
    )
    .await;
    assert!((0..10).all(|_| port(pick(&pool, &[])) == 2));
    let lease = pick(&pool, &[]).unwrap();
    change(&pool, lease.endpoint().address().port(), Change::State(State::Draining)).unwrap();
    assert_eq!((lease.endpoint().in_flight(), pool.in_flight()), (1, 1));
    assert!(pick(&pool, &[]).is_none());
}

const ONE_EACH: &str = "balance: round_robin, health_check: {type: none}, max_in_flight: {per_backend: 1}, \
    queue: {timeout: 1h}, backends: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}]";

/// A pool of two backends with `max_in_flight` 1 each, and its background task.
async fn one_each(keys: &str) -> (Arc<Pool>, tokio::task::JoinHandle<()>) {
    let pool = Arc::new(pool(&format!("{{{keys} {ONE_EACH}}}")).await);
    let (keep, shutdown) = tokio::sync::watch::channel(false);
    let running = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move {
            pool.run(shutdown).await;
            drop(keep);
        }
    });
    pool.settled().await;
    (pool, running)
}

fn second(pool: &Pool) -> Arc<Endpoint> {
    pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == 2).unwrap()
}

/// A request that is served immediately or queued.
fn request(pool: &Arc<Pool>) -> tokio::task::JoinHandle<u16> {
    let pool = Arc::clone(pool);
    tokio::spawn(async move {
        let choose = || pool.pick(Key::NONE, &[], Instant::now());
        port(pool.reserve(choose).await.ok())
    })
}

async fn reserved(pool: &Pool) -> Lease {
    pool.reserve(|| pool.pick(Key::NONE, &[], Instant::now())).await.unwrap()
}

#[tokio::test]
async fn queued_request_is_sent_to_a_backend_that_comes_up() {
    type Switch = fn(&Endpoint, bool);
    let switches: [Switch; 2] = [
        |endpoint, up| endpoint.set_health(if up { Health::Up } else { Health::Down }, Instant::now()),
        |endpoint, up| {
            let state = if up { State::Enabled } else { State::Draining };
            endpoint.change(Change::State(state), Timestamp::now(), Instant::now());
        },
    ];
    for switch in switches {
        let (pool, running) = one_each("").await;
        switch(&second(&pool), false);
        let _first = reserved(&pool).await;
        let queued = request(&pool);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!queued.is_finished());
        switch(&second(&pool), true);
        assert_eq!(queued.await.unwrap(), 2);
        running.abort();
    }
}

#[tokio::test]
async fn queued_request_is_sent_to_a_readmitted_or_half_open_backend() {
    for keys in [
        "passive_health: {consecutive_failures: 1, ejection_time: 50ms},",
        "passive_health: off, circuit_breaker: {minimum_requests: 1, open_for: 50ms, probes: 1},",
    ] {
        let (pool, running) = one_each(keys).await;
        let mut leases = [reserved(&pool).await, reserved(&pool).await];
        leases.sort_by_key(|lease| lease.endpoint().address());
        let [_first, mut failing] = leases;
        failing.failed(Instant::now());
        drop(failing);
        // The background task ejects the backend. Until then it may get one more request.
        while keys.contains("eject") && !second(&pool).passive_health().is_ejected() {
            tokio::task::yield_now().await;
        }
        assert_eq!(request(&pool).await.unwrap(), 2);
        running.abort();
    }
}

#[tokio::test]
async fn ejected_backend_is_picked_only_if_no_other_is_healthy() {
    let (pool, running) = one_each("").await;
    let [first, ejected] =
        [1, 2].map(|port| pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == port).unwrap());
    ejected.passive_health().eject(false, Instant::now());
    let lease = reserved(&pool).await;
    assert_eq!(lease.endpoint().address(), first.address());
    assert!(pick(&pool, &[]).is_none(), "the request waits for the busy backend");
    assert_eq!(
        port(pick(&pool, &[Arc::clone(&first)])),
        2,
        "a request that has already attempted the busy backend gets the ejected one"
    );
    first.set_health(Health::Down, Instant::now());
    assert_eq!(port(pick(&pool, &[])), 2);
    running.abort();
}

#[test]
fn invalid_backends_are_reported() {
    assert_eq!(faults("{backends: []}"), ["backends: the pool has no backend"]);
    assert_eq!(faults("{backends: [{address: 'a:1', weight: 0}]}"), ["backends: every backend has weight 0"]);
    assert_eq!(
        faults("{backends: [{address: 'a:1'}, {address: 'a:1'}, {address: 'b'}, {address: 'c:1', weight: 1001}]}"),
        [
            "backends[1].address: `a:1` is in this pool already",
            "backends[2].address: `b` has no port",
            "backends[3].weight: 1001 is more than 1000",
        ]
    );
}

#[test]
fn protocol_that_does_not_fit_tls_is_reported() {
    let with = |keys: &str| faults(&format!("{{{keys}, backends: [{{address: 'a:1'}}]}}"));
    assert_eq!(with("protocol: http2"), ["protocol: this protocol needs TLS"]);
    assert_eq!(with("protocol: h2c, tls: {server_name: a.test}"), ["protocol: h2c is HTTP/2 without TLS"]);
    assert_eq!(with("protocol: auto, tls: {server_name: 'a b'}"), ["tls.server_name: `a b` is not a DNS name"]);
    assert_eq!(with("timeouts: {connect: 0s}"), ["timeouts.connect: must be greater than zero"]);
}
