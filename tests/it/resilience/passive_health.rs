//! Passive health: which backends are ejected, which stay, and when they return.

use std::io::{Read, Write};
use std::time::Duration;

use super::{StatusBackend, pool, pool_without_retries};
use crate::lab::client::{self, get};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

const UNCHECKED: &str = "health_check: { type: none }";

/// Sends requests until the log contains `pattern`; returns the status codes of the responses.
fn request_until_log(lab: &Lab, port: u16, pattern: &str) -> Vec<u16> {
    let mut seen = Vec::new();
    eventually(pattern, PATIENCE, || {
        seen.push(get(port, "/").status);
        lab.log().contains(pattern)
    });
    seen
}

fn healthy(count: usize) -> Vec<StatusBackend> {
    (0..count).map(|_| StatusBackend::start(200)).collect()
}

fn ports(backends: &[StatusBackend]) -> Vec<u16> {
    backends.iter().map(StatusBackend::port).collect()
}

#[test]
fn failing_backend_is_ejected_and_gets_no_more_requests() {
    for (status, reason) in [(500, "5 consecutive failures"), (503, "5 consecutive failures")] {
        let mut backends = healthy(4);
        backends.push(StatusBackend::start(status));
        let port = free_port();
        let lab = Lab::start(&pool_without_retries(port, &ports(&backends), UNCHECKED));
        let failing = backends[4].port();
        let line = format!("backend ejected: pool=a backend=127.0.0.1:{failing}");
        let seen = request_until_log(&lab, port, &line);
        let logged = lab.wait_for_log(&line);
        assert!(logged.contains(reason) && logged.contains("for=10s"), "{logged}");
        let failed = seen.iter().filter(|seen| **seen == status).count();
        assert!((5..=7).contains(&failed), "{failed} of {seen:?}");
        assert!((0..30).all(|_| get(port, "/").status == 200));
        assert_eq!(lab.log().matches("backend ejected").count(), 1, "{}", lab.log());
    }
}

#[test]
fn backend_that_refuses_connections_is_ejected_without_failed_requests() {
    let backends = healthy(4);
    let port = free_port();
    let mut all = ports(&backends);
    all.push(free_port());
    let lab = Lab::start(&pool(port, &all, UNCHECKED));
    let seen = request_until_log(&lab, port, "backend ejected");
    assert!(seen.iter().all(|status| *status == 200), "{seen:?}");
    assert!((0..20).all(|_| get(port, "/after").status == 200));
    let after = || -> Vec<String> { lab.access().into_iter().filter(|line| line.contains("path=/after")).collect() };
    eventually("all lines of the access log are written", PATIENCE, || after().len() == 20);
    assert!(
        after().iter().all(|line| line.contains("attempts=1")),
        "no attempt goes to the ejected backend: {:?}",
        after()
    );
}

#[test]
fn backend_ten_times_slower_than_its_peers_is_ejected() {
    let fast: Vec<Backend> = (0..4).map(|_| Backend::start_with("fast", &["--latency", "4ms"])).collect();
    let slow = Backend::start_with("slow", &["--latency", "60ms"]);
    let mut all: Vec<u16> = fast.iter().map(|backend| backend.port).collect();
    all.push(slow.port);
    let port = free_port();
    let keys = "health_check: { type: none }, passive_health: { window: 200ms, minimum_requests: 3 }";
    let lab = Lab::start(&pool(port, &all, keys));
    request_until_log(&lab, port, "backend ejected");
    let logged = lab.wait_for_log(&format!("backend ejected: pool=a backend=127.0.0.1:{}", slow.port));
    assert!(logged.contains("median"), "{logged}");
    assert!((0..10).all(|_| get(port, "/").header("x-backend") == "fast"));
}

#[test]
fn ejected_backend_returns_and_its_next_ejection_lasts_twice_as_long() {
    let mut backends = healthy(2);
    backends.push(StatusBackend::start(503));
    let port = free_port();
    let keys = "health_check: { type: none }, passive_health: { ejection_time: 2s }";
    let lab = Lab::start(&pool(port, &ports(&backends), keys));
    request_until_log(&lab, port, "for=2s");
    lab.wait_for_log("backend returned");
    // Two seconds without failures would reset the doubling.
    request_until_log(&lab, port, "for=4s");
    backends[2].set(200);
    eventually("the backend has returned again", PATIENCE, || lab.log().matches("backend returned").count() == 2);
    let returned = backends[2].port().to_string();
    eventually("the backend is used again", PATIENCE, || get(port, "/").header("x-backend") == returned);
    assert!((0..12).all(|_| get(port, "/").status == 200));
    assert_eq!(lab.log().matches("backend ejected").count(), 2, "{}", lab.log());
}

#[test]
fn hanging_backend_gets_at_most_three_requests_with_default_balancing() {
    let backends = healthy(3);
    let port = free_port();
    let _lab = Lab::start(&pool(port, &ports(&backends), UNCHECKED).replace("balance: round_robin, ", ""));
    assert!((0..30).all(|_| get(port, "/").status == 200));
    backends[2].set(0);
    // Each aborted request leaves its waiting time as a peak. Another request may follow once that has decayed.
    assert!((0..100).filter(|_| !responds_within(Duration::from_millis(300), port)).count() <= 3);
}

/// Sends a request; returns whether a response arrives within `patience`.
fn responds_within(patience: Duration, port: u16) -> bool {
    let mut stream = client::connect(port);
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read(&mut [0; 64]).is_ok()
}

#[test]
fn pending_requests_are_retried_when_their_unresponsive_backend_is_ejected() {
    let backends = healthy(4);
    let port = free_port();
    let keys = "health_check: { type: none }, passive_health: { window: 200ms, minimum_requests: 1 }";
    let yaml = pool(port, &ports(&backends), keys).replace("[connect, reset]", "[connect, reset, unresponsive]");
    let lab = Lab::start(&yaml);
    backends[3].set(0);
    let pending: Vec<_> = (0..32).map(|_| std::thread::spawn(move || get(port, "/pending").status)).collect();
    // A backend is unresponsive only if its peers respond meanwhile.
    eventually("the backend is ejected", PATIENCE, || {
        responds_within(Duration::from_millis(30), port);
        lab.log().contains("backend ejected")
    });
    assert!(lab.log().contains("no response for"), "{}", lab.log());
    let statuses: Vec<u16> = pending.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let retried =
        || lab.access().iter().filter(|line| line.contains("path=/pending") && line.contains("attempts=2")).count();
    eventually("at least three requests were pending there", PATIENCE, || retried() >= 3);
}

#[test]
fn at_most_half_of_a_pool_is_ejected() {
    let mut backends = healthy(1);
    backends.extend((0..3).map(|_| StatusBackend::start(503)));
    let port = free_port();
    let lab = Lab::start(&pool_without_retries(port, &ports(&backends), UNCHECKED));
    let seen: Vec<u16> = (0..80).map(|_| get(port, "/").status).collect();
    assert_eq!(lab.log().matches("backend ejected").count(), 2, "{}", lab.log());
    // One healthy and one failing backend are left, and round robin alternates between them.
    assert_eq!(seen[60..].iter().filter(|status| **status == 503).count(), 10, "{seen:?}");
}

#[test]
fn ejection_ends_early_after_a_passed_check_and_one_good_request() {
    let peer = Backend::start("healthy");
    let restarted = StatusBackend::start(200);
    let port = free_port();
    let keys = "health_check: { type: http, interval: 100ms, unhealthy_interval: 100ms, path: /health, fall: 1000000, status: [200] }, passive_health: { ejection_time: 5m }";
    let lab = Lab::start(&pool(port, &[peer.port, restarted.port()], keys));
    restarted.set(503);
    request_until_log(&lab, port, "backend ejected");
    restarted.set(200);
    request_until_log(&lab, port, "backend returned");
    let restarted = restarted.port().to_string();
    eventually("it is used again", PATIENCE, || get(port, "/").header("x-backend") == restarted);
}

#[test]
fn failed_trial_of_an_ejected_backend_reaches_no_client_and_extends_the_ejection() {
    for status in [500, 503] {
        let healthy = healthy(2);
        let failing = StatusBackend::start(status);
        let port = free_port();
        let keys = "health_check: { type: tcp, interval: 100ms }, passive_health: { ejection_time: 10s }";
        let mut all = ports(&healthy);
        all.push(failing.port());
        let lab = Lab::start(&pool(port, &all, keys));
        request_until_log(&lab, port, "backend ejected");
        let extended = "reason=\"a request failed after a passed health check\" for=20s";
        let seen = request_until_log(&lab, port, extended);
        assert!(seen.iter().all(|seen| *seen == 200), "{seen:?}");
        // A request that may not be repeated is no trial, and the ejection lasts.
        let post = || client::exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status;
        assert!((0..6).all(|_| post() == 200));
    }
}

#[test]
fn trial_that_gets_no_response_goes_to_another_backend() {
    let healthy = healthy(2);
    let hanging = StatusBackend::start(503);
    let port = free_port();
    let keys = "health_check: { type: tcp, interval: 100ms }, passive_health: { ejection_time: 10s }";
    let mut all = ports(&healthy);
    all.push(hanging.port());
    let lab = Lab::start(&pool(port, &all, keys));
    request_until_log(&lab, port, "backend ejected");
    hanging.set(0);
    eventually("a request is retried", PATIENCE, || {
        assert_eq!(get(port, "/").status, 200);
        lab.access().iter().any(|line| line.contains("attempts=2"))
    });
    hanging.set(200);
}

#[test]
fn ejected_backend_is_used_when_no_other_backend_is_available() {
    let peer = Backend::start("healthy");
    let ejected = StatusBackend::start(200);
    let port = free_port();
    let keys = "health_check: { type: http, interval: 100ms, unhealthy_interval: 100ms, path: /health, fall: 1, status: [200] }";
    let lab = Lab::start(&pool(port, &[peer.port, ejected.port()], keys).replace("fall: 1", "fall: 1000000"));
    ejected.set(503);
    request_until_log(&lab, port, "backend ejected");
    assert!((0..5).all(|_| get(port, "/").header("x-backend") == "healthy"));
    drop(peer);
    // With this `fall`, failed health checks do not mark the stopped backend as down. Connections to it are refused.
    assert_eq!(get(port, "/").header("x-backend"), ejected.port().to_string());
}

#[test]
fn url_that_fails_on_every_backend_ejects_none() {
    let backends: Vec<Backend> = (0..3).map(|_| Backend::start("healthy")).collect();
    let port = free_port();
    let all: Vec<u16> = backends.iter().map(|backend| backend.port).collect();
    let lab = Lab::start(&pool(port, &all, UNCHECKED));
    assert!((0..60).all(|_| get(port, "/status/500").status == 500));
    assert!((0..12).all(|_| get(port, "/").status == 200));
    assert!(!lab.log().contains("backend ejected"), "{}", lab.log());
}

#[test]
fn no_backend_is_ejected_with_passive_health_off() {
    let backends = [StatusBackend::start(200), StatusBackend::start(503)];
    let port = free_port();
    let lab =
        Lab::start(&pool_without_retries(port, &ports(&backends), "health_check: { type: none }, passive_health: off"));
    let failed = (0..40).filter(|_| get(port, "/").status == 503).count();
    assert_eq!(failed, 20);
    assert!(!lab.log().contains("backend ejected"), "{}", lab.log());
}
