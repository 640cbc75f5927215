//! The state that a pool takes over when its configuration changes.

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

/// Starts a pool as the pool service does.
async fn started(pool: Pool) -> Pool {
    pool.balancer.update().await.unwrap();
    pool.take_over_state();
    pool
}

async fn build(yaml: &str) -> Pool {
    started(Pool::build("p".into(), &spec(yaml), &Connectors::default(), Instant::now()).unwrap()).await
}

async fn replace(before: &Pool, yaml: &str) -> Pool {
    started(Pool::build_replacement(before, &spec(yaml), &Connectors::default(), Instant::now()).unwrap()).await
}

fn backend_at(pool: &Pool, port: u16) -> Option<Arc<Endpoint>> {
    pool.candidates().into_iter().find(|endpoint| endpoint.address().port() == port)
}

fn pick(pool: &Pool) -> Option<Lease> {
    pool.pick(Key::NONE, &[], Instant::now())
}

#[tokio::test]
async fn backends_keep_their_state_when_another_key_changes() {
    let now = Instant::now();
    let keys = format!("health_check: {{type: none}}, {TWO}");
    let before = build(&keys).await;
    let endpoint = backend_at(&before, 1).unwrap();
    endpoint.begin_slow_start(now);
    endpoint.record_response_start(Some(Duration::from_millis(40)), now);
    endpoint.change(Change::State(State::Draining), Timestamp::now(), now);
    let lease = pick(&before).unwrap();
    let after = replace(&before, &format!("timeouts: {{first_byte: 7s}}, slow_start: 1m, {keys}")).await;
    let same = backend_at(&after, 1).unwrap();
    assert!(Arc::ptr_eq(&endpoint, &same));
    assert!(
        same.latency(now) > Duration::from_millis(39) && same.slow_start_factor(now, Duration::from_secs(60)) < 0.2
    );
    assert!(same.state() == State::Draining, "the override stays while the configured settings are unchanged");
    assert_eq!((after.in_flight(), backend_at(&after, 2).unwrap().in_flight()), (1, 1));
    drop(lease);
    assert_eq!((after.in_flight(), backend_at(&after, 2).unwrap().in_flight()), (0, 0));
    let drained =
        replace(&after, &format!("health_check: {{type: none}}, {}", TWO.replace(":1'", ":1', drain: true"))).await;
    let back = replace(&drained, &keys).await;
    assert!(
        backend_at(&back, 1).unwrap().state() == State::Enabled,
        "the override ends when the configured settings change"
    );
}

#[tokio::test]
async fn backend_keeps_its_state_and_override_when_its_zone_changes() {
    let now = Instant::now();
    let zones =
        |zone: &str| format!("health_check: {{type: none}}, {}", TWO.replace(":1'", &format!(":1', zone: {zone}")));
    let before = build(&zones("a")).await;
    let endpoint = backend_at(&before, 1).unwrap();
    assert_eq!(endpoint.zone().unwrap().as_str(), "a");
    assert_eq!(backend_at(&before, 2).unwrap().zone(), None);
    endpoint.record_response_start(Some(Duration::from_millis(40)), now);
    endpoint.change(Change::Weight(7), Timestamp::now(), now);
    let same = backend_at(&replace(&before, &zones("b")).await, 1).unwrap();
    assert!(Arc::ptr_eq(&endpoint, &same));
    assert_eq!((same.zone().unwrap().as_str(), same.weight()), ("b", 7));
    assert!(same.latency(now) > Duration::from_millis(39));
}

#[tokio::test]
async fn retry_budget_survives_a_reload() {
    let now = Instant::now();
    let before = build(TWO).await;
    while before.budget().withdraw(now) {}
    let after = replace(&before, &format!("slow_start: 1m, {TWO}")).await;
    assert!(!after.budget().withdraw(now));
}

#[tokio::test]
async fn new_max_in_flight_counts_requests_already_in_flight() {
    let limit = |total: u32| {
        format!("health_check: {{type: none}}, max_in_flight: {{total: {total}}}, queue: {{length: 0}}, {TWO}")
    };
    let before = build(&limit(1)).await;
    let lease = before.reserve(|| pick(&before)).await.unwrap();
    let after = replace(&before, &format!("slow_start: 1m, {}", limit(1))).await;
    assert!(matches!(after.reserve(|| pick(&after)).await, Err(Rejection::QueueFull { .. })));
    let wider = replace(&after, &limit(2)).await;
    let second = wider.reserve(|| pick(&wider)).await.unwrap();
    assert!(wider.reserve(|| pick(&wider)).await.is_err(), "the limit counts both requests in flight");
    drop((lease, second));
    assert!(wider.reserve(|| pick(&wider)).await.is_ok());
}

#[tokio::test]
async fn open_breaker_stays_open_until_it_is_removed() {
    let breaker = |keys: &str| format!("health_check: {{type: none}}, circuit_breaker: {{{keys}}}, {TWO}");
    let before = build(&breaker("minimum_requests: 1")).await;
    for _ in 0..2 {
        let mut lease = pick(&before).unwrap();
        lease.failed(Instant::now());
    }
    assert!(pick(&before).is_none());
    let after = replace(&before, &breaker("minimum_requests: 2")).await;
    assert!(pick(&after).is_none());
    let without = replace(&after, &format!("health_check: {{type: none}}, {TWO}")).await;
    assert!(pick(&without).is_some());
    assert!(pick(&replace(&without, &breaker("minimum_requests: 1")).await).is_some(), "a new breaker is closed");
}

#[tokio::test(start_paused = true)]
async fn ejection_continues_across_configuration_changes() {
    let passive = |keys: &str| format!("health_check: {{type: none}}, passive_health: {keys}, {TWO}");
    let before = Arc::new(build(&passive("{consecutive_failures: 2}")).await);
    let (_end, shutdown) = tokio::sync::watch::channel(false);
    let run = |pool: &Arc<Pool>| {
        let (pool, shutdown) = (Arc::clone(pool), shutdown.clone());
        tokio::spawn(async move { pool.run(shutdown).await })
    };
    let running = run(&before);
    let failing = backend_at(&before, 1).unwrap();
    (0..2).for_each(|_| failing.record(Outcome::GatewayFailure, None, Instant::now()));
    while !failing.passive_health().is_ejected() {
        tokio::task::yield_now().await;
    }
    let after = Arc::new(replace(&before, &passive("{consecutive_failures: 9, window: 3s}")).await);
    running.abort();
    let running = run(&after);
    assert!(backend_at(&after, 1).unwrap().passive_health().is_ejected());
    assert!((0..4).all(|_| pick(&after).unwrap().endpoint().address().port() == 2));
    let off = replace(&after, &passive("off")).await;
    running.abort();
    assert!(
        !backend_at(&off, 1).unwrap().passive_health().is_ejected(),
        "turning passive health off readmits ejected backends"
    );
}

#[tokio::test]
async fn removed_backend_aborts_requests_after_its_timeout_unless_it_is_added_again() {
    let keys = format!("health_check: {{type: none}}, removal_timeout: 20s, {TWO}");
    let before = build(&keys).await;
    let lease = before.pick(Key::NONE, &[backend_at(&before, 2).unwrap()], Instant::now()).unwrap();
    let endpoint = backend_at(&before, 1).unwrap();
    let one = keys.replace("{address: '127.0.0.1:1'}, ", "");
    let after = replace(&before, &one).await;
    let must_abort = |seconds: u64| endpoint.must_abort(|| Instant::now() + Duration::from_secs(seconds));
    assert!(backend_at(&after, 1).is_none());
    assert_eq!((must_abort(19), must_abort(21)), (false, true));
    assert_eq!(after.in_flight(), 1, "the requests of the removed backend still count for the pool");
    // Replaces the pool again, so that the removed backend is not among the backends of the replaced pool.
    let again = replace(&after, &format!("slow_start: 1m, {one}")).await;
    let back = replace(&again, &keys).await;
    assert!(Arc::ptr_eq(&backend_at(&back, 1).unwrap(), &endpoint));
    assert!(!must_abort(999));
    drop(lease);
    assert_eq!(back.in_flight(), 0);
    back.remove(Instant::now());
    assert!(must_abort(21), "removing the pool removes its backends");
}

#[tokio::test]
async fn backends_without_health_check_count_as_healthy() {
    let before = build(TWO).await;
    backend_at(&before, 1).unwrap().set_health(Health::Down, Instant::now());
    let after = replace(&before, &format!("slow_start: 1m, {TWO}")).await;
    assert_eq!(backend_at(&after, 1).unwrap().health(), Health::Down);
    let unchecked = replace(&after, &format!("health_check: {{type: none}}, {TWO}")).await;
    assert_eq!(backend_at(&unchecked, 1).unwrap().health(), Health::Up);
}
