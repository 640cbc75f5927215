//! Operator overrides of the state and weight of a backend.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use crate::base::fault::{Faults, Place};
use crate::base::units::{Period, Timestamp};
use crate::pool::operator::overrides::{Change, State};
use std::sync::Arc;
use std::time::Instant;

use crate::pool::health::connectors::Connectors;
use crate::pool::*;

const THREE: &str = "[{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}, {address: '127.0.0.1:3', weight: 0}]";

async fn pool(keys: &str) -> Pool {
    let config: Config = serde_yaml::from_str(&format!("{{{keys}, backends: {THREE}}}")).unwrap();
    let mut faults = Faults::default();
    let spec = config.check(&Place::root(), &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    let pool = Pool::build("p".into(), &spec, &Connectors::default(), Instant::now()).unwrap();
    pool.balancer.update().await.unwrap();
    pool
}

fn change(pool: &Pool, port: u16, change: Change) -> Result<(), OverrideRejected> {
    pool.change(([127, 0, 0, 1], port).into(), change, Timestamp::now(), Instant::now())
}

/// How often each backend is picked in 1,000 requests with different keys.
fn picked(pool: &Pool) -> [usize; 3] {
    let mut counts = [0; 3];
    for number in 0..1000_u32 {
        let key = Key::of(&number.to_ne_bytes());
        if let Some(lease) = pool.pick(key, &[], Instant::now()) {
            counts[usize::from(lease.endpoint().address().port() - 1)] += 1;
        }
    }
    counts
}

#[tokio::test]
async fn overrides_take_effect_immediately_with_every_policy() {
    for balance in ["round_robin", "random", "least_requests", "peak_ewma", "{type: consistent_hash, by: client_ip}"] {
        let pool = pool(&format!("health_check: {{type: none}}, slow_start: 0s, balance: {balance}")).await;
        let [one, two, three] = picked(&pool);
        assert!(one > 300 && two > 300 && three == 0, "{balance}: {one} {two} {three}");
        change(&pool, 3, Change::Weight(8)).unwrap();
        let [one, two, three] = picked(&pool);
        assert!(one < 200 && two < 200 && three > 700, "{balance}: {one} {two} {three}");
        change(&pool, 3, Change::State(State::Draining)).unwrap();
        change(&pool, 1, Change::Weight(0)).unwrap();
        assert_eq!(picked(&pool), [0, 1000, 0], "{balance}");
        change(&pool, 2, Change::State(State::Disabled)).unwrap();
        assert_eq!(picked(&pool), [0, 0, 0], "{balance}");
        for port in 1..=3 {
            change(&pool, port, Change::Clear).unwrap();
        }
        let [one, two, three] = picked(&pool);
        assert!(one > 300 && two > 300 && three == 0, "{balance}: {one} {two} {three}");
    }
}

#[tokio::test]
async fn enabled_backend_gets_requests_only_after_a_passed_check() {
    let pool = pool("health_check: {type: tcp}").await;
    let now = Instant::now();
    let listed = pool.backends();
    assert_eq!(
        listed.iter().map(|backend| backend.target().to_string()).collect::<Vec<_>>().join(" "),
        "127.0.0.1:1 127.0.0.1:2 127.0.0.1:3"
    );
    let endpoint = Arc::clone(&listed[0].endpoint);
    endpoint.set_health(Health::Up, now);
    change(&pool, 1, Change::State(State::Draining)).unwrap();
    change(&pool, 1, Change::State(State::Enabled)).unwrap();
    assert!(endpoint.is_available(), "a drained backend is still checked, so its health is known");
    change(&pool, 1, Change::State(State::Disabled)).unwrap();
    assert!(endpoint.is_health_known(), "a disabled backend is not checked, so the pool does not wait for a check");
    change(&pool, 1, Change::State(State::Enabled)).unwrap();
    assert_eq!((endpoint.health(), endpoint.is_available()), (Health::Unknown, false));
}

#[tokio::test]
async fn invalid_overrides_are_rejected_without_side_effects() {
    let pool = pool("health_check: {type: none}").await;
    assert_eq!(change(&pool, 1, Change::Weight(1001)), Err(OverrideRejected::WeightTooLarge(1001)));
    assert_eq!(change(&pool, 7, Change::Clear), Err(OverrideRejected::UnknownBackend));
    assert_eq!(picked(&pool).iter().sum::<usize>(), 1000);
}

#[tokio::test]
async fn weight_override_during_a_reload_applies_to_the_new_pool() {
    let before = pool("health_check: {type: none}, slow_start: 0s").await;
    let mut spec = before.spec().clone();
    spec.config.removal_timeout = Period::seconds(1);
    let after = Pool::build_replacement(&before, &spec, &Connectors::default(), Instant::now()).unwrap();
    after.balancer.update().await.unwrap();
    change(&before, 1, Change::Weight(0)).unwrap();
    change(&before, 3, Change::Weight(1)).unwrap();
    after.update_weights();
    let [one, two, three] = picked(&after);
    assert!(one == 0 && two > 300 && three > 300, "{one} {two} {three}");
}
