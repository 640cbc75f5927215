//! Whose connection ends when: each end's `Connection: close` concerns that end alone.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{answering, yaml};
use crate::lab::client::{connect, read_answer, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

#[test]
fn a_client_that_closes_costs_no_connection_to_the_backend() {
    let backend = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut asked = 0;
    // Mostly the second request is carried by the connection of the first, unless it comes before
    // that one is back in the pool.
    eventually("a connection is used again", PATIENCE, || {
        for request in ["GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            let mut stream = connect(port);
            stream.write_all(request.as_bytes()).unwrap();
            let answer = read_answer(&mut stream);
            assert_eq!((answer.body.as_str(), answer.header("connection")), ("ok", "close"));
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            asked += 1;
        }
        backend.connections() < asked
    });
    let mut stream = connect(port);
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let answer = read_answer(&mut stream);
        assert_eq!((answer.body.as_str(), answer.header("connection")), ("ok", "keep-alive"));
    }
}

#[test]
fn a_backend_that_closes_costs_no_connection_to_the_client() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let answer = read_answer(&mut stream);
        assert_eq!((answer.body.as_str(), answer.header("connection")), ("ok", "keep-alive"));
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn a_kept_connection_that_the_backend_closed_is_replaced_without_the_client_noticing() {
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    // Each connection answers once and closes upon the next request: the race that no pool can win.
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
        let answer = read_answer(&mut stream);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
        if answer.header("connection") == "close" {
            stream = connect(port);
        }
    }
    assert_eq!(served.load(Ordering::Relaxed), 6);
    lab.wait_for_access("tries=2");
}
