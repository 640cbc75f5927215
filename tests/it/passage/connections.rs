//! Connection reuse: `Connection: close` of one side does not affect the other side.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{answering, yaml};
use crate::lab::client::{connect, read_head, read_response};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

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
