//! What a reload keeps: rate limit counts, health, ejections, and requests while backends are replaced.

use super::{UNWATCHED, reloaded, replace};
use crate::lab::client::get;
use crate::lab::load::{Load, burst};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

#[test]
fn rate_limit_counts_survive_reloads_until_the_limit_changes() {
    let one = Backend::start("one");
    let port = free_port();
    let limit = |number: u32| format!("rate_limit: {{ type: fixed_window, limit: {number}, window: 1h }}\n{UNWATCHED}");
    let lab = Lab::start(&one_pool(port, &[&one], &limit(5)));
    assert_eq!(burst(port, "/apiA", 4).into_iter().collect::<Vec<_>>(), [(200, 4)]);
    replace(&lab, &one_pool(port, &[&one], &limit(5)).replace("/apiA", "/apiB"));
    reloaded(&lab);
    assert_eq!(burst(port, "/apiB", 3).into_iter().collect::<Vec<_>>(), [(200, 1), (429, 2)]);
    replace(&lab, &one_pool(port, &[&one], &limit(6)));
    reloaded(&lab);
    assert_eq!(get(port, "/apiA").status, 200, "a new limit counts from zero");
}

#[test]
fn health_state_survives_a_reload() {
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    let port = free_port();
    // The second check is an hour away, so the health state after the reload comes from before it.
    let slow = |yaml: String| {
        yaml.replace("interval: 200ms, unhealthy_interval: 100ms", "interval: 1h, unhealthy_interval: 1h")
    };
    two.set_health(false);
    let lab = Lab::start(&slow(one_pool(port, &[&one, &two], UNWATCHED)));
    lab.wait_for_log("backend down");
    two.set_health(true);
    replace(&lab, &slow(one_pool(port, &[&one, &two, &three], UNWATCHED)));
    assert!(reloaded(&lab).contains("pools changed: a"));
    eventually("the new backend is used", PATIENCE, || get(port, "/apiA").header("x-backend") == "three");
    assert!(
        (0..9).all(|_| get(port, "/apiA").header("x-backend") != "two"),
        "it was down, and it has not been checked since"
    );
    let log = lab.log();
    let up = |backend: &Backend| log.matches(&format!("backend up: pool=a backend=127.0.0.1:{}", backend.port)).count();
    assert_eq!(
        [up(&one), up(&two), up(&three)],
        [1, 0, 1],
        "the reload triggers no check of an existing backend:\n{log}"
    );
}

#[test]
fn ejection_survives_a_reload_that_changes_another_key_of_the_pool() {
    let healthy: Vec<Backend> = (0..3).map(|number| Backend::start(&format!("healthy-{number}"))).collect();
    let failing = Backend::start("bad");
    let port = free_port();
    let yaml = |keys: &str| {
        let all: Vec<&Backend> = healthy.iter().chain([&failing]).collect();
        let keys = format!("pools:\n  a: {{ balance: round_robin, {keys}");
        one_pool(port, &all, UNWATCHED)
            .replace("pools:\n  a: {", &keys)
            .replace("pool: a }", "pool: a, retry: { attempts: 1 } }")
    };
    let lab = Lab::start(&yaml("slow_start: 0s,"));
    failing.inject_fault("fail");
    eventually("the backend is ejected", PATIENCE, || {
        get(port, "/apiA");
        lab.log().contains("backend ejected")
    });
    replace(&lab, &yaml("slow_start: 0s, timeouts: { first_byte: 7s },"));
    assert!(reloaded(&lab).contains("pools changed: a"));
    assert!((0..20).all(|_| get(port, "/apiA").status == 200));
    assert_eq!(lab.log().matches("backend ejected").count(), 1, "{}", lab.log());
}

#[test]
fn five_backends_are_replaced_by_reloads_without_a_failed_request() {
    let mut backends: Vec<Backend> = (1..=5).map(|number| Backend::start(&format!("old-{number}"))).collect();
    let port = free_port();
    let yaml = |backends: &[Backend]| one_pool(port, &backends.iter().collect::<Vec<_>>(), UNWATCHED);
    let lab = Lab::start(&yaml(&backends));
    let load = Load::start(port, "/apiA", 6, 3);
    for number in 0..5 {
        load.wait_for_more(100);
        let old = std::mem::replace(&mut backends[number], Backend::start(&format!("new-{}", number + 1)));
        replace(&lab, &yaml(&backends));
        assert!(reloaded(&lab).contains("pools changed: a"));
        // Dropping the old backend kills it.
        drop(old);
    }
    load.wait_for_more(100);
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
    assert!((0..10).all(|_| get(port, "/apiA").header("x-backend").starts_with("new-")));
}
