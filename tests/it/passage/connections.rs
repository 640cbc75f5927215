//! Connection reuse: `Connection: close` of one side does not affect the other side.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{answering, lacks_own_engine, yaml};
use crate::lab::client::{connect, exchange, read_head, read_response};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port, run};

#[test]
fn client_connection_close_keeps_the_backend_connection() {
    let backend = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut asked = 0;
    // The second request usually reuses the connection of the first, unless it arrives before that connection is
    // back in the pool.
    eventually("a connection is used again", PATIENCE, || {
        for request in ["GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            let mut stream = connect(port);
            stream.write_all(request.as_bytes()).unwrap();
            let response = read_response(&mut stream);
            assert_eq!((response.body.as_str(), response.header("connection")), ("ok", "close"));
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            asked += 1;
        }
        backend.connections() < asked
    });
    let mut stream = connect(port);
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.body.as_str(), response.header("connection")), ("ok", "keep-alive"));
    }
}

#[test]
fn backend_connection_close_keeps_the_client_connection() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.body.as_str(), response.header("connection")), ("ok", "keep-alive"));
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn closed_idle_backend_connection_is_replaced_without_a_failed_request() {
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    // Each connection serves one request and closes on the next: a race that no connection pool can avoid.
    let backend = Scripted::start(move |mut stream| {
        read_head(&mut stream);
        counter.fetch_add(1, Ordering::Relaxed);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        read_head(&mut stream);
    });
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    for _ in 0..6 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.as_str()), (200, "ok"));
        if response.header("connection") == "close" {
            stream = connect(port);
        }
    }
    assert_eq!(served.load(Ordering::Relaxed), 6);
    lab.wait_for_access("attempts=2");
}

/// A backend that closes connections after 150 ms idle. It loses a request that arrives just before that.
fn closing_idle_connections(head: &'static str) -> Scripted {
    const IDLE: Duration = Duration::from_millis(150);
    Scripted::start(move |mut stream| {
        let mut lost_from = None;
        while stream.peek(&mut [0]).is_ok_and(|read| read > 0) {
            let now = Instant::now();
            if lost_from.is_some_and(|from| now >= from) {
                return;
            }
            read_head(&mut stream);
            stream.write_all(head.as_bytes()).unwrap();
            lost_from = Some(Instant::now() + IDLE * 9 / 10);
            stream.set_read_timeout(Some(IDLE)).unwrap();
        }
    })
}

#[test]
fn post_is_not_lost_once_three_closes_have_shown_the_idle_limit_of_the_backend() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let backend = closing_idle_connections("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", ""));
    let post =
        || exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").status;
    for _ in 0..3 {
        assert_eq!(post(), 200);
        std::thread::sleep(Duration::from_millis(400));
    }
    // Pingora's loop has its own idle connections, and learns nothing from them.
    if lacks_own_engine() {
        return;
    }
    for wait in (126..150).step_by(2) {
        assert_eq!(post(), 200, "after {wait} ms");
        std::thread::sleep(Duration::from_millis(wait));
    }
    lab.wait_for_log("backend closes idle connections before keepalive_timeout: pool=a");
    let conf = lab.folder().join("l7lb.yaml");
    let listed = run(&["backends", "--json", "--conf", conf.to_str().unwrap()]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let limit = listed["backends"][0]["idle_limit_ms"].as_u64().unwrap();
    assert!(limit >= 100, "{limit}");
}

#[test]
fn announced_keep_alive_timeout_shortens_the_reuse_of_a_connection() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let backend =
        closing_idle_connections("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=0, max=9\r\n\r\nok");
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", ""));
    for _ in 0..4 {
        assert_eq!(
            exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").status,
            200
        );
    }
    assert_eq!(backend.connections(), 4, "an idle limit of zero allows no reuse");
    lab.wait_for_log("limit=0s keepalive_timeout=50s");
}
