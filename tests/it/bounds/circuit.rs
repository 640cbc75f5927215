//! Circuit breakers: refused at once while open, a few probes after.

use std::io::{Read, Write};

use super::{Moody, pool};
use crate::lab::client::{connect, get, read_head};
use crate::lab::{Lab, PATIENCE, eventually, free_port};

fn keys(open_for: &str) -> String {
    format!(
        "health_check: {{ type: none }}, passive_health: off, \
         circuit_breaker: {{ minimum_requests: 5, open_for: {open_for}, probes: 1 }}"
    )
}

#[test]
fn an_open_circuit_refuses_at_once_and_says_when_to_come_back() {
    let ill = Moody::start(500);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[ill.port()], &keys("1h")));
    assert!((0..5).all(|_| get(port, "/").status == 500));
    // It opens when the last of them has ended, a moment after its answer.
    lab.wait_for_log(&format!("circuit opened: pool=a backend=127.0.0.1:{}", ill.port()));
    let refused = get(port, "/");
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("circuit_open"), "{refused:?}");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3590..=3600).contains(&seconds), "{refused:?}");
    lab.wait_for_access("cause=circuit_open");
}

#[test]
fn another_backend_is_asked_while_one_circuit_is_open() {
    let (ill, well) = (Moody::start(500), Moody::start(200));
    let port = free_port();
    let lab = Lab::start(&pool(port, &[ill.port(), well.port()], &keys("1h")));
    eventually("it opens", PATIENCE, || {
        get(port, "/");
        lab.log().contains("circuit opened")
    });
    assert!((0..10).all(|_| get(port, "/").status == 200));
}

#[test]
fn probes_close_a_circuit_when_the_backend_is_well_again() {
    let backend = Moody::start(500);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port()], &keys("100ms")));
    assert!((0..5).all(|_| get(port, "/").status == 500));
    lab.wait_for_log("circuit opened");
    backend.set(200);
    eventually("a probe passes", PATIENCE, || get(port, "/").status == 200);
    lab.wait_for_log("circuit closed");
    assert!((0..10).all(|_| get(port, "/").status == 200));
}

/// A WebSocket may stay for days; that it came about is what the probe wanted to know.
#[test]
fn a_probe_that_switches_protocols_closes_the_circuit_while_it_goes_on() {
    let backend = Moody::start(500);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port()], &keys("100ms")));
    assert!((0..5).all(|_| get(port, "/").status == 500));
    lab.wait_for_log("circuit opened");
    backend.set(101);
    let mut conversation = None;
    eventually("a probe passes", PATIENCE, || {
        let mut stream = connect(port);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
        let switched = read_head(&mut stream).starts_with("HTTP/1.1 101");
        conversation = switched.then_some(stream);
        switched
    });
    lab.wait_for_log("circuit closed");
    backend.set(200);
    assert!((0..10).all(|_| get(port, "/").status == 200));
    let mut stream = conversation.unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "the conversation goes on");
}
