//! Pools without a network: what is picked from what, and what a configuration may say.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use super::administration::{Change, State};
use super::*;

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
    let pool = Pool::build("p".into(), &spec, Instant::now()).unwrap();
    pool.balancer.update().await.unwrap();
    pool
}

fn pick(pool: &Pool, tried: &[Arc<Endpoint>]) -> Option<Lease> {
    pool.pick(Key::NONE, tried, Instant::now())
}

fn change(pool: &Pool, port: u16, change: Change) -> Result<(), Refused> {
    pool.change(([127, 0, 0, 1], port).into(), change, crate::units::Timestamp::now(), Instant::now())
}

fn port(lease: Option<Lease>) -> u16 {
    lease.map_or(0, |lease| lease.endpoint().address().port())
}

const THREE: &str = "{balance: round_robin, health_check: {type: none}, backends: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}, {address: '127.0.0.1:3'}]}";

#[tokio::test]
async fn the_turn_is_even_from_the_first_request() {
    let pool = pool(THREE).await;
    let picked: Vec<u16> = (0..6).map(|_| port(pick(&pool, &[]))).collect();
    assert_eq!(picked, [1, 2, 3, 1, 2, 3]);
}

#[tokio::test]
async fn weights_are_shares() {
    let pool = pool("{balance: round_robin, health_check: {type: none}, backends: [{address: '127.0.0.1:1', weight: 3}, {address: '127.0.0.1:2'}, {address: '127.0.0.1:3', weight: 0}]}").await;
    let mut counts = [0; 4];
    for _ in 0..400 {
        counts[usize::from(port(pick(&pool, &[])))] += 1;
    }
    assert_eq!(counts, [0, 300, 100, 0]);
}

#[tokio::test]
async fn tried_backends_are_not_picked_again() {
    let pool = pool(THREE).await;
    let all = pool.candidates();
    let tried: Vec<Arc<Endpoint>> = all.iter().filter(|endpoint| endpoint.address().port() != 2).cloned().collect();
    assert!((0..10).all(|_| port(pick(&pool, &tried)) == 2));
    assert!(pick(&pool, &all).is_none());
}

#[tokio::test]
async fn a_backend_is_not_used_before_its_first_pass() {
    let pool = pool("{backends: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}]}").await;
    assert!(pick(&pool, &[]).is_none());
    let candidates = pool.candidates();
    let second = candidates.iter().find(|endpoint| endpoint.address().port() == 2).unwrap();
    second.set_health(Health::Up, Instant::now());
    assert!((0..4).all(|_| port(pick(&pool, &[])) == 2));
}

#[tokio::test]
async fn a_pick_counts_the_request_until_the_lease_ends() {
    let pool = pool(THREE).await;
    let lease = pick(&pool, &[]).unwrap();
    assert_eq!(lease.endpoint().in_flight(), 1);
    let endpoint = Arc::clone(lease.endpoint());
    drop(lease);
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test]
async fn backups_rest_until_too_few_primaries_are_available() {
    let pool = pool("{health_check: {type: none}, backup_threshold: 2, backends: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}, {address: '127.0.0.1:3', backup: true}]}").await;
    assert!((0..10).all(|_| port(pick(&pool, &[])) < 3));
    change(&pool, 1, Change::State(State::Draining)).unwrap();
    assert_eq!(change(&pool, 9, Change::State(State::Draining)), Err(Refused::Unknown));
    let picked: BTreeSet<u16> = (0..10).map(|_| port(pick(&pool, &[]))).collect();
    assert_eq!(picked, BTreeSet::from([2, 3]), "backups help the primary that is left");
    change(&pool, 1, Change::State(State::Enabled)).unwrap();
    assert!((0..10).all(|_| port(pick(&pool, &[])) < 3));
}

#[tokio::test]
async fn a_drained_backend_takes_no_new_request_and_keeps_its_open_ones() {
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

#[test]
fn members_are_checked() {
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
fn protocol_and_tls_must_agree() {
    let with = |keys: &str| faults(&format!("{{{keys}, backends: [{{address: 'a:1'}}]}}"));
    assert_eq!(with("protocol: http2"), ["protocol: this protocol needs TLS"]);
    assert_eq!(with("protocol: h2c, tls: {server_name: a.test}"), ["protocol: h2c is HTTP/2 without TLS"]);
    assert_eq!(with("protocol: auto, tls: {server_name: 'a b'}"), ["tls.server_name: `a b` is not a DNS name"]);
    assert_eq!(with("timeouts: {connect: 0s}"), ["timeouts.connect: must be longer than nothing"]);
}
