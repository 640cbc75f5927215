//! What an operator says of backends holds at once, whatever the policy.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use crate::base::fault::{Faults, Place};
use crate::base::units::{Period, Timestamp};
use crate::pool::operator::administration::{Change, State};
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

fn change(pool: &Pool, port: u16, change: Change) -> Result<(), Refused> {
    pool.change(([127, 0, 0, 1], port).into(), change, Timestamp::now(), Instant::now())
}

/// How often each of the ports is picked in 1,000 requests with different keys.
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
async fn weights_and_states_hold_at_once_under_every_policy() {
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
            change(&pool, port, Change::Nothing).unwrap();
        }
        let [one, two, three] = picked(&pool);
        assert!(one > 300 && two > 300 && three == 0, "{balance}: {one} {two} {three}");
    }
}

#[tokio::test]
async fn who_was_disabled_must_pass_a_check_first() {
    let pool = pool("health_check: {type: tcp}").await;
    let now = Instant::now();
    let found = pool.backends();
    assert_eq!(
        found.iter().map(|found| found.target.to_string()).collect::<Vec<_>>().join(" "),
        "127.0.0.1:1 127.0.0.1:2 127.0.0.1:3"
    );
    let endpoint = Arc::clone(&found[0].endpoint);
    endpoint.set_health(Health::Up, now);
    change(&pool, 1, Change::State(State::Draining)).unwrap();
    change(&pool, 1, Change::State(State::Enabled)).unwrap();
    assert!(endpoint.is_available(), "it was checked meanwhile");
    change(&pool, 1, Change::State(State::Disabled)).unwrap();
    assert!(endpoint.is_known(), "nobody waits for a check that is not made");
    change(&pool, 1, Change::State(State::Enabled)).unwrap();
    assert_eq!((endpoint.health(), endpoint.is_available()), (Health::Unknown, false));
}

#[tokio::test]
async fn what_a_file_could_not_say_is_refused() {
    let pool = pool("health_check: {type: none}").await;
    assert_eq!(change(&pool, 1, Change::Weight(1001)), Err(Refused::TooHeavy(1001)));
    assert_eq!(change(&pool, 7, Change::Nothing), Err(Refused::Unknown));
    assert_eq!(picked(&pool).iter().sum::<usize>(), 1000);
}

#[tokio::test]
async fn a_weight_that_is_changed_while_a_reload_is_under_way_is_not_lost() {
    let before = pool("health_check: {type: none}, slow_start: 0s").await;
    let mut spec = before.spec().clone();
    spec.written.removal_timeout = Period::seconds(1);
    let after = Pool::succeed(&before, &spec, &Connectors::default(), Instant::now()).unwrap();
    after.balancer.update().await.unwrap();
    change(&before, 1, Change::Weight(0)).unwrap();
    change(&before, 3, Change::Weight(1)).unwrap();
    after.reweigh();
    let [one, two, three] = picked(&after);
    assert!(one == 0 && two > 300 && three > 300, "{one} {two} {three}");
}
