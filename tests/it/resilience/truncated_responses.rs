//! Responses that are aborted after their header section.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;

use super::{StatusBackend, pool_without_retries};
use crate::lab::client::{connect, get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

const UNCHECKED: &str = "health_check: { type: none }";

/// A backend that sends the beginning of each response and then runs `then`.
fn truncating(then: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Scripted {
    Scripted::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nfour").unwrap();
            then(&mut stream);
        }
    })
}

/// Sends a request and ignores the response.
fn send_request(port: u16) {
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).ok();
}

#[test]
fn backend_that_truncates_responses_is_ejected() {
    let closes = truncating(|stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
    let stalls = truncating(|stream| drop(stream.read(&mut [0])));
    for (failing, keys) in [(closes, ""), (stalls, ", timeouts: { idle: 200ms }")] {
        let healthy: Vec<StatusBackend> = (0..3).map(|_| StatusBackend::start(200)).collect();
        let mut ports: Vec<u16> = healthy.iter().map(StatusBackend::port).collect();
        ports.push(failing.port);
        let port = free_port();
        let lab = Lab::start(&pool_without_retries(port, &ports, &format!("{UNCHECKED}{keys}")));
        let line =
            format!("backend ejected: pool=a backend=127.0.0.1:{} reason=\"5 consecutive failures\"", failing.port);
        eventually("the backend is ejected", PATIENCE, || {
            send_request(port);
            lab.log().contains(&line)
        });
        assert!((0..12).all(|_| get(port, "/").status == 200));
    }
}

/// An HTTP/2 backend. If `resets`, it resets each stream after the response header.
fn http2_backend(resets: bool) -> Scripted {
    Scripted::start_http2(move |_, _, (_, mut respond)| {
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        body.send_data(Bytes::from("four"), !resets).unwrap();
        tokio::spawn(async move {
            // After the response header, not instead of it.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            body.send_reset(h2::Reason::INTERNAL_ERROR);
        });
    })
}

#[test]
fn http2_backend_that_resets_streams_during_responses_is_ejected() {
    let (healthy, failing) = (http2_backend(false), http2_backend(true));
    let port = free_port();
    let lab =
        Lab::start(&pool_without_retries(port, &[healthy.port, failing.port], &format!("{UNCHECKED}, protocol: h2c")));
    eventually("the backend is ejected", PATIENCE, || {
        send_request(port);
        lab.log().contains(&format!("backend=127.0.0.1:{} reason=\"5 consecutive failures\"", failing.port))
    });
    assert!((0..6).all(|_| get(port, "/").body == "four"));
}

#[test]
fn client_aborts_do_not_eject_backends() {
    let endless = truncating(|stream| while stream.write_all(&[b'x'; 1000]).is_ok() {});
    let healthy = StatusBackend::start(200);
    let port = free_port();
    let lab = Lab::start(&pool_without_retries(port, &[endless.port, healthy.port()], UNCHECKED));
    let aborts = || lab.access().iter().filter(|line| line.contains("cause=client_closed")).count();
    eventually("ten clients have aborted their requests", PATIENCE, || {
        let mut stream = connect(port);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(read_head(&mut stream).contains(" 200 "));
        drop(stream);
        aborts() >= 10
    });
    assert!(!lab.log().contains("backend ejected"), "{}", lab.log());
}
