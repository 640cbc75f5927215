//! A client that closes its sending side after its request still gets the response; one that disconnects does not
//! occupy a backend.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::{lacks_own_engine, yaml};
use crate::lab::client::{connect, connect_tls, read_head, tls_config};
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

/// Sends `request`, closes the sending side, and returns everything that is received then.
fn half_closed(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn half_closed_tls_client_gets_its_response_with_and_without_close_notify() {
    if lacks_own_engine() {
        return;
    }
    let backend = Backend::start("one");
    let port = free_port();
    let tls = "', tls: { certificates: [{ certificate: localhost.pem, key: localhost-key.pem }] } }]\n";
    let lab = Lab::start(&one_pool(port, &[&backend], "").replacen("' }]\n", tls, 1));
    for notify in [true, false] {
        let mut stream = connect_tls(port, tls_config(lab.folder(), &["http/1.1"]));
        write!(stream, "GET /apiA/delay/300ms?{notify} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        if notify {
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        let response = String::from_utf8(response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "close_notify: {notify}: {response}");
    }
}

#[test]
fn half_closed_clients_get_their_responses_under_load() {
    if lacks_own_engine() {
        return;
    }
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    std::thread::scope(|threads| {
        for client in 0..50 {
            threads.spawn(move || {
                for number in 0..20 {
                    let request = match number % 3 {
                        0 => "GET /apiA/delay/5ms HTTP/1.1\r\nHost: x\r\n\r\n",
                        1 => "POST /apiA HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
                        _ => "POST /apiA HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                    };
                    let response = half_closed(port, request.as_bytes());
                    assert!(response.starts_with("HTTP/1.1 200 "), "client {client}, request {number}: {response}");
                }
            });
        }
    });
}

#[test]
fn half_closed_client_gets_the_response_of_a_retry_and_after_a_wait_in_the_queue() {
    if lacks_own_engine() {
        return;
    }
    // The first request gets no response, the others a slow one.
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let [one, other] = [0, 1].map(|_| {
        let first = std::sync::Arc::clone(&first);
        Scripted::start(move |mut stream| {
            while !read_head(&mut stream).is_empty() {
                if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            }
        })
    });
    let port = free_port();
    let _lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ health_check: {{ type: none }}, max_in_flight: {{ total: 1 }}, queue: {{ length: 10, timeout: 10s }}, \
         backends: [{{ address: '127.0.0.1:{}' }}, {{ address: '127.0.0.1:{}' }}] }}\n\
         routes: [{{ path: /, pool: a }}]\n",
        one.port, other.port
    ));
    let responses: Vec<String> = std::thread::scope(|threads| {
        let clients: Vec<_> =
            (0..4).map(|_| threads.spawn(move || half_closed(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for response in responses {
        assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("ok"), "{response}");
    }
}
