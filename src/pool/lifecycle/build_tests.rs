//! Which state survives a changed pool configuration.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use crate::base::fault::{Faults, Place};
use crate::base::units::Timestamp;
use crate::pool::operator::overrides::{Change, State};
use crate::pool::passive_health::Outcome;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::rejection::Rejection;
use crate::pool::endpoint::Endpoint;
use crate::pool::health::connectors::Connectors;
use crate::pool::*;

const TWO: &str = "backends: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}]";

fn spec(yaml: &str) -> Spec {
    let config: Config = serde_yaml::from_str(&format!("{{balance: round_robin, {yaml}}}")).unwrap();
    let mut faults = Faults::default();
    let spec = config.check(&Place::root(), &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    spec
}

/// A pool as the keeper starts it.
async fn begun(pool: Pool) -> Pool {
    pool.balancer.update().await.unwrap();
    pool.take_over();
    pool
}

async fn first(yaml: &str) -> Pool {
    begun(Pool::build("p".into(), &spec(yaml), &Connectors::default(), Instant::now()).unwrap()).await
}

async fn next(before: &Pool, yaml: &str) -> Pool {
    begun(Pool::succeed(before, &spec(yaml), &Connectors::default(), Instant::now()).unwrap()).await
}

fn at(pool: &Pool, port: u16) -> Option<Arc<Endpoint>> {
    pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == port)
}

fn pick(pool: &Pool) -> Option<Lease> {
    pool.pick(Key::NONE, &[], Instant::now())
}

#[tokio::test]
async fn backends_keep_their_state_when_another_key_changes() {
    let now = Instant::now();
    let keys = format!("health_check: {{type: none}}, {TWO}");
    let before = first(&keys).await;
    let endpoint = at(&before, 1).unwrap();
    endpoint.begin_slow_start(now);
    endpoint.record_response_start(Some(Duration::from_millis(40)), now);
    endpoint.change(Change::State(State::Draining), Timestamp::now(), now);
    let lease = pick(&before).unwrap();
    let after = next(&before, &format!("timeouts: {{first_byte: 7s}}, slow_start: 1m, {keys}")).await;
    let same = at(&after, 1).unwrap();
    assert!(Arc::ptr_eq(&endpoint, &same));
    assert!(
        same.latency(now) > Duration::from_millis(39) && same.slow_start_factor(now, Duration::from_secs(60)) < 0.2
    );
    assert!(same.state() == State::Draining, "the override stays while the configured settings are unchanged");
    assert_eq!((after.in_flight(), at(&after, 2).unwrap().in_flight()), (1, 1));
    drop(lease);
    assert_eq!((after.in_flight(), at(&after, 2).unwrap().in_flight()), (0, 0));
    let drained =
        next(&after, &format!("health_check: {{type: none}}, {}", TWO.replace(":1'", ":1', drain: true"))).await;
    let back = next(&drained, &keys).await;
    assert!(at(&back, 1).unwrap().state() == State::Enabled, "the override ends when the configured settings change");
}

#[tokio::test]
async fn retry_budget_survives_a_reload() {
    let now = Instant::now();
    let before = first(TWO).await;
    while before.budget().withdraw(now) {}
    let after = next(&before, &format!("slow_start: 1m, {TWO}")).await;
    assert!(!after.budget().withdraw(now));
}

#[tokio::test]
async fn new_max_in_flight_counts_requests_already_in_flight() {
    let bound = |total: u32| {
        format!("health_check: {{type: none}}, max_in_flight: {{total: {total}}}, queue: {{length: 0}}, {TWO}")
    };
    let before = first(&bound(1)).await;
    let lease = before.reserve(|| pick(&before)).await.unwrap();
    let after = next(&before, &format!("slow_start: 1m, {}", bound(1))).await;
    assert!(matches!(after.reserve(|| pick(&after)).await, Err(Rejection::QueueFull { .. })));
    let wider = next(&after, &bound(2)).await;
    let second = wider.reserve(|| pick(&wider)).await.unwrap();
    assert!(wider.reserve(|| pick(&wider)).await.is_err(), "two requests are in flight");
    drop((lease, second));
    assert!(wider.reserve(|| pick(&wider)).await.is_ok());
}

#[tokio::test]
async fn open_breaker_stays_open_until_it_is_removed() {
    let breaker = |keys: &str| format!("health_check: {{type: none}}, circuit_breaker: {{{keys}}}, {TWO}");
    let before = first(&breaker("minimum_requests: 1")).await;
    for _ in 0..2 {
        let mut lease = pick(&before).unwrap();
        lease.failed(Instant::now());
    }
    assert!(pick(&before).is_none());
    let after = next(&before, &breaker("minimum_requests: 2")).await;
    assert!(pick(&after).is_none());
    let without = next(&after, &format!("health_check: {{type: none}}, {TWO}")).await;
    assert!(pick(&without).is_some());
    assert!(pick(&next(&without, &breaker("minimum_requests: 1")).await).is_some(), "a new breaker is closed");
}

#[tokio::test(start_paused = true)]
async fn ejection_continues_across_configuration_changes() {
    let passive = |keys: &str| format!("health_check: {{type: none}}, passive_health: {keys}, {TWO}");
    let before = Arc::new(first(&passive("{consecutive_failures: 2}")).await);
    let (_end, shutdown) = tokio::sync::watch::channel(false);
    let run = |pool: &Arc<Pool>| {
        let (pool, shutdown) = (Arc::clone(pool), shutdown.clone());
        tokio::spawn(async move { pool.run(shutdown).await })
    };
    let running = run(&before);
    let ill = at(&before, 1).unwrap();
    (0..2).for_each(|_| ill.record(Outcome::GatewayFailure, None, Instant::now()));
    while !ill.passive_health().is_ejected() {
        tokio::task::yield_now().await;
    }
    let after = Arc::new(next(&before, &passive("{consecutive_failures: 9, window: 3s}")).await);
    running.abort();
    let running = run(&after);
    assert!(at(&after, 1).unwrap().passive_health().is_ejected());
    assert!((0..4).all(|_| pick(&after).unwrap().endpoint().address().port() == 2));
    let off = next(&after, &passive("off")).await;
    running.abort();
    assert!(!at(&off, 1).unwrap().passive_health().is_ejected(), "without passive health no backend stays ejected");
}

#[tokio::test]
async fn removed_backend_aborts_requests_after_its_timeout_unless_it_is_added_again() {
    let keys = format!("health_check: {{type: none}}, removal_timeout: 20s, {TWO}");
    let before = first(&keys).await;
    let lease = before.pick(Key::NONE, &[at(&before, 2).unwrap()], Instant::now()).unwrap();
    let endpoint = at(&before, 1).unwrap();
    let one = keys.replace("{address: '127.0.0.1:1'}, ", "");
    let after = next(&before, &one).await;
    let must_abort = |seconds: u64| endpoint.must_abort(|| Instant::now() + Duration::from_secs(seconds));
    assert!(at(&after, 1).is_none());
    assert_eq!((must_abort(19), must_abort(21)), (false, true));
    assert_eq!(after.in_flight(), 1, "its requests still count for the pool");
    // Replaces the pool again without it, so that it is not among the backends of the replaced pool.
    let again = next(&after, &format!("slow_start: 1m, {one}")).await;
    let back = next(&again, &keys).await;
    assert!(Arc::ptr_eq(&at(&back, 1).unwrap(), &endpoint));
    assert!(!must_abort(999));
    drop(lease);
    assert_eq!(back.in_flight(), 0);
    back.remove(Instant::now());
    assert!(must_abort(21), "the pool is removed as well");
}

#[tokio::test]
async fn backends_without_health_check_count_as_healthy() {
    let before = first(TWO).await;
    at(&before, 1).unwrap().set_health(Health::Down, Instant::now());
    let after = next(&before, &format!("slow_start: 1m, {TWO}")).await;
    assert_eq!(at(&after, 1).unwrap().health(), Health::Down);
    let unchecked = next(&after, &format!("health_check: {{type: none}}, {TWO}")).await;
    assert_eq!(at(&unchecked, 1).unwrap().health(), Health::Up);
}
