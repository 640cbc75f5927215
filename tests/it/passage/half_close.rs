//! A client that closes its sending side after its request still gets the response; one that disconnects does not
//! occupy a backend.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::{lacks_own_engine, yaml};
use crate::lab::client::{connect, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

#[test]
fn half_closed_client_gets_its_response() {
    if lacks_own_engine() {
        return;
    }
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut stream = connect(port);
    stream.write_all(b"GET /apiA/delay/1500ms HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(response.to_ascii_lowercase().contains("connection: close"), "{response}");
    let line = lab.wait_for_access("/delay/");
    assert!(line.contains("status=200 ") && line.contains("cause=-"), "{line}");
}

#[test]
fn client_that_disconnects_later_ends_its_request_at_the_backend() {
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&ended);
    let backend = Scripted::start(move |mut stream| {
        read_head(&mut stream);
        // Without a response; the balancer closes the connection.
        seen.store(stream.read(&mut [0]).is_ok_and(|bytes| bytes == 0), std::sync::atomic::Ordering::Relaxed);
    });
    let port = free_port();
    let lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(1300));
    drop(stream);
    eventually("the backend's connection is closed", PATIENCE, || ended.load(std::sync::atomic::Ordering::Relaxed));
    assert!(lab.wait_for_access("path=/ ").contains("cause=client_closed"));
}
