//! Limits on requests in flight, queues and adaptive concurrency.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::{StatusBackend, pool};
use crate::lab::client::{Response, get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

/// Sends `count` requests concurrently; returns their responses as they arrive.
fn send_requests(port: u16, count: usize) -> mpsc::Receiver<Response> {
    let (sender, responses) = mpsc::channel();
    for _ in 0..count {
        let sender = sender.clone();
        thread::spawn(move || sender.send(get(port, "/")).ok());
    }
    responses
}

fn keys(limits: &str) -> String {
    format!("health_check: {{ type: none }}, {limits}")
}

#[test]
fn request_is_rejected_when_the_queue_is_full_and_queued_request_is_served() {
    for scope in ["per_backend", "total"] {
        let backend = StatusBackend::start(0);
        let port = free_port();
        let limits = format!("max_in_flight: {{ {scope}: 1 }}, queue: {{ length: 1, timeout: 1h }}");
        let lab = Lab::start(&pool(port, &[backend.port()], &keys(&limits)));
        let first = send_requests(port, 1);
        eventually("the first request reaches the backend", PATIENCE, || backend.backend.connections() == 1);
        let others = send_requests(port, 2);
        let rejected = others.recv_timeout(PATIENCE).unwrap();
        assert_eq!(rejected.status, 503);
        assert!(rejected.body.contains("queue_full"), "{rejected:?}");
        assert_eq!(rejected.header("retry-after"), "3600");
        assert!(others.try_recv().is_err(), "the other request is queued");
        backend.set(200);
        assert_eq!(first.recv_timeout(PATIENCE).unwrap().status, 200);
        assert_eq!(others.recv_timeout(PATIENCE).unwrap().status, 200);
        lab.wait_for_access("cause=queue_full");
    }
}

#[test]
fn queued_request_is_rejected_after_the_queue_timeout() {
    let backend = StatusBackend::start(0);
    let port = free_port();
    let limits = "max_in_flight: { total: 1 }, queue: { timeout: 100ms }";
    let _lab = Lab::start(&pool(port, &[backend.port()], &keys(limits)));
    let first = send_requests(port, 1);
    eventually("the first request reaches the backend", PATIENCE, || backend.backend.connections() == 1);
    let late = get(port, "/");
    assert_eq!((late.status, late.header("retry-after")), (503, "1"));
    assert!(late.body.contains("queue_timeout"), "{late:?}");
    backend.set(200);
    assert_eq!(first.recv_timeout(PATIENCE).unwrap().status, 200);
    assert_eq!(get(port, "/").status, 200, "the limit admits a request again");
}

#[test]
fn backend_at_its_limit_does_not_block_requests_to_another_backend() {
    let (busy, free) = (StatusBackend::start(0), StatusBackend::start(200));
    let port = free_port();
    let limits = "max_in_flight: { per_backend: 1 }, queue: { timeout: 1h }";
    let _lab = Lab::start(&pool(port, &[busy.port(), free.port()], &keys(limits)));
    let mut requests = Vec::new();
    eventually("the busy backend holds a request", PATIENCE, || {
        requests.push(send_requests(port, 1));
        busy.backend.connections() == 1
    });
    assert!((0..10).all(|_| get(port, "/").status == 200));
    busy.set(200);
    assert!(requests.iter().all(|response| response.recv_timeout(PATIENCE).is_ok()));
}

#[test]
fn queued_request_goes_to_a_backend_that_becomes_healthy() {
    // Two backends. Each has a switch for its health check, and one that releases the requests that it holds.
    let start = || {
        let (health, responds) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (healthy, responding) = (Arc::clone(&health), Arc::clone(&responds));
        let backend = Scripted::start(move |mut stream| {
            let head = read_head(&mut stream);
            let is_check = head.starts_with("GET /health ");
            while !is_check && !head.is_empty() && !responding.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            let status = if is_check && !healthy.load(Ordering::SeqCst) { 503 } else { 200 };
            write!(stream, "HTTP/1.1 {status} Scripted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
        });
        (backend, health, responds)
    };
    let ((first, _, first_responds), (second, second_health, second_responds)) = (start(), start());
    second_health.store(false, Ordering::SeqCst);
    let port = free_port();
    let keys = "health_check: { type: http, path: /health, interval: 100ms, unhealthy_interval: 100ms, fall: 3, rise: 1 }, \
                max_in_flight: { per_backend: 1 }, queue: { timeout: 1h }";
    let lab = Lab::start(&pool(port, &[first.port, second.port], keys));
    lab.wait_for_log(&format!("backend down: pool=a backend=127.0.0.1:{}", second.port));
    second_responds.store(true, Ordering::SeqCst);
    let responses = send_requests(port, 2);
    assert!(
        responses.recv_timeout(Duration::from_millis(300)).is_err(),
        "one request is at the backend, one is queued"
    );
    second_health.store(true, Ordering::SeqCst);
    assert_eq!(responses.recv_timeout(PATIENCE).unwrap().status, 200, "the first backend has not responded");
    first_responds.store(true, Ordering::SeqCst);
    assert_eq!(responses.recv_timeout(PATIENCE).unwrap().status, 200);
}

#[test]
fn adaptive_concurrency_rejects_above_its_limit_or_only_logs_in_observe_mode() {
    let backend = StatusBackend::start(0);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port()], &keys("adaptive_concurrency: { mode: enforce }")));
    let responses = send_requests(port, 60);
    for _ in 0..10 {
        let rejected = responses.recv_timeout(PATIENCE).unwrap();
        assert_eq!((rejected.status, rejected.header("retry-after")), (503, "1"));
        assert!(rejected.body.contains("overloaded"), "{rejected:?}");
    }
    lab.wait_for_log("overload: pool=a limit=50 rejected=");
    backend.set(200);
    assert!((0..50).all(|_| responses.recv_timeout(PATIENCE).unwrap().status == 200));

    backend.set(0);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port()], &keys("adaptive_concurrency: { mode: observe }")));
    let responses = send_requests(port, 60);
    lab.wait_for_log("overload: pool=a limit=50 would_reject=");
    backend.set(200);
    assert!((0..60).all(|_| responses.recv_timeout(PATIENCE).unwrap().status == 200));
}
