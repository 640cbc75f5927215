//! Circuit breakers: requests are rejected while the circuit is open, and probes close it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{StatusBackend, pool};
use crate::lab::client::{connect, get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

fn keys(open_for: &str) -> String {
    format!(
        "health_check: {{ type: none }}, passive_health: off, \
         circuit_breaker: {{ minimum_requests: 5, open_for: {open_for}, probes: 1 }}"
    )
}

#[test]
fn open_circuit_rejects_immediately_with_retry_after() {
    let failing = StatusBackend::start(500);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[failing.port()], &keys("1h")));
    assert!((0..5).all(|_| get(port, "/").status == 500));
    lab.wait_for_log(&format!("circuit opened: pool=a backend=127.0.0.1:{}", failing.port()));
    let rejected = get(port, "/");
    assert_eq!(rejected.status, 503);
    assert!(rejected.body.contains("circuit_open"), "{rejected:?}");
    let seconds: u64 = rejected.header("retry-after").parse().unwrap();
    assert!((3590..=3600).contains(&seconds), "{rejected:?}");
    lab.wait_for_access("cause=circuit_open");
}

#[test]
fn backend_with_an_open_circuit_is_skipped() {
    let (failing, healthy) = (StatusBackend::start(500), StatusBackend::start(200));
    let port = free_port();
    let lab = Lab::start(&pool(port, &[failing.port(), healthy.port()], &keys("1h")));
    eventually("the circuit opens", PATIENCE, || {
        get(port, "/");
        lab.log().contains("circuit opened")
    });
    assert!((0..10).all(|_| get(port, "/").status == 200));
}

#[test]
fn successful_probe_closes_the_circuit() {
    let backend = StatusBackend::start(500);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port()], &keys("100ms")));
    assert!((0..5).all(|_| get(port, "/").status == 500));
    lab.wait_for_log("circuit opened");
    backend.set(200);
    eventually("a probe succeeds", PATIENCE, || get(port, "/").status == 200);
    lab.wait_for_log("circuit closed");
    assert!((0..10).all(|_| get(port, "/").status == 200));
}

/// A stream may stay open for days, so the probe succeeds when its response starts.
#[test]
fn endless_probe_closes_the_circuit_when_its_response_starts() {
    let status = Arc::new(AtomicU16::new(500));
    let current = Arc::clone(&status);
    let backend = Scripted::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            let (status, framing) = match current.load(Ordering::SeqCst) {
                0 => (200, "Transfer-Encoding: chunked\r\n\r\n1\r\nx"),
                status => (status, "Content-Length: 0\r\n"),
            };
            write!(stream, "HTTP/1.1 {status} Scripted\r\n{framing}\r\n").unwrap();
        }
    });
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port], &keys("100ms")));
    assert!((0..5).all(|_| get(port, "/").status == 500));
    lab.wait_for_log("circuit opened");
    status.store(0, Ordering::SeqCst);
    let mut streams = Vec::new();
    eventually("a probe succeeds", PATIENCE, || {
        let mut stream = connect(port);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let started = read_head(&mut stream).starts_with("HTTP/1.1 200");
        streams.push(stream);
        started
    });
    lab.wait_for_log("circuit closed");
    status.store(200, Ordering::SeqCst);
    assert!((0..10).all(|_| get(port, "/").status == 200), "the stream is still open");
}

/// A WebSocket may stay open for days, so the probe succeeds as soon as it is established.
#[test]
fn websocket_probe_closes_the_circuit_once_it_is_established() {
    let backend = StatusBackend::start(500);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port()], &keys("100ms")));
    assert!((0..5).all(|_| get(port, "/").status == 500));
    lab.wait_for_log("circuit opened");
    backend.set(101);
    let mut websocket = None;
    eventually("a probe succeeds", PATIENCE, || {
        let mut stream = connect(port);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
        let switched = read_head(&mut stream).starts_with("HTTP/1.1 101");
        websocket = switched.then_some(stream);
        switched
    });
    lab.wait_for_log("circuit closed");
    backend.set(200);
    assert!((0..10).all(|_| get(port, "/").status == 200));
    let mut stream = websocket.unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "the WebSocket stays open");
}
