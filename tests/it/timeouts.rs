//! Timeouts: each has its own cause, and a request whose deadline has expired is not sent to a backend.

use std::io::{Read, Write};
use std::time::Duration;

use crate::lab::client::{self, get, get_with};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};
use crate::unchecked;

/// A backend that reads a request and never responds.
fn hanging_backend() -> Scripted {
    Scripted::start(|mut stream| {
        client::read_head(&mut stream);
        stream.read_exact(&mut [0]).ok();
    })
}

/// A backend that sends its response one byte at a time, without end.
fn trickling_backend() -> Scripted {
    Scripted::start(|mut stream| {
        client::read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").ok();
        while stream.write_all(b".").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn each_timeout_has_its_own_cause() {
    let hanging = hanging_backend();
    for (timeouts, cause) in [
        ("{ first_byte: 200ms }", "first_byte_timeout"),
        ("{ attempt: 200ms }", "attempt_timeout"),
        ("{ total: 200ms }", "total_timeout"),
        ("{ attempt: 200ms, total: 1m }", "attempt_timeout"),
    ] {
        let port = free_port();
        let lab = unchecked(port, &[hanging.port], &format!(", timeouts: {timeouts}"));
        let response = get(port, "/x");
        assert_eq!((response.status, response.body.contains(cause)), (504, true), "{timeouts}: {response:?}");
        let line = lab.wait_for_access("status=504");
        assert!(line.contains(&format!("cause={cause}")) && line.contains("attempts=1 "), "{line}");
    }
}

/// A port whose accept queue is full: connections are neither accepted nor refused.
fn unresponsive_port() -> (u16, socket2::Socket, Vec<socket2::Socket>) {
    let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let clients = (0..4).map(|_| {
        let client = new();
        client.set_nonblocking(true).unwrap();
        client.connect(&address).ok();
        client
    });
    let clients = clients.collect();
    (address.as_socket().unwrap().port(), listener, clients)
}

#[test]
fn connection_timeouts_have_their_own_causes() {
    let (unresponsive, _listener, _clients) = unresponsive_port();
    for (timeouts, cause) in [
        ("{ connect: 300ms }", "connect_timeout"),
        ("{ connect: 10s, attempt: 300ms }", "attempt_timeout"),
        ("{ connect: 10s, total: 300ms }", "total_timeout"),
    ] {
        let port = free_port();
        let _lab = unchecked(port, &[unresponsive], &format!(", timeouts: {timeouts}"));
        let response = get(port, "/x");
        assert_eq!((response.status, response.body.contains(cause)), (504, true), "{timeouts}: {response:?}");
    }
}

#[test]
fn backend_that_does_not_read_the_body_hits_the_idle_timeout() {
    let backend = Scripted::start(|mut stream| {
        client::read_head(&mut stream);
        // Wait until l7lb closes the connection. As the socket has unread data, that is a socket error.
        let socket = socket2::SockRef::from(&stream);
        while socket.take_error().unwrap().is_none() && socket.peer_addr().is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    for (timeouts, cause) in [("{ idle: 300ms }", "idle_timeout"), ("{ total: 300ms }", "total_timeout")] {
        let port = free_port();
        let lab = Lab::start(&format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\nclient_timeouts: {{ body: 500ms }}\n\
             pools: {{ p: {{ health_check: {{ type: none }}, timeouts: {timeouts}, backends: [{{ address: '127.0.0.1:{}' }}] }} }}\n\
             routes: [{{ path: /, pool: p }}]\n",
            backend.port
        ));
        let mut stream = client::connect(port);
        stream.write_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n").unwrap();
        let mut upload = stream.try_clone().unwrap();
        let uploading = std::thread::spawn(move || while upload.write_all(&[b'x'; 65536]).is_ok() {});
        let response = client::read_response(&mut stream);
        assert_eq!((response.status, response.body.contains(cause)), (504, true), "{timeouts}: {response:?}");
        lab.wait_for_access("status=504");
        drop(lab);
        uploading.join().unwrap();
    }
}

#[test]
fn endless_response_is_aborted_by_the_total_or_attempt_timeout() {
    let trickling = trickling_backend();
    for (timeouts, cause) in [("{ total: 400ms }", "total_timeout"), ("{ attempt: 400ms }", "attempt_timeout")] {
        let port = free_port();
        let lab = unchecked(port, &[trickling.port], &format!(", timeouts: {timeouts}"));
        let mut stream = client::connect(port);
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).ok();
        assert!(received.ends_with(b".") && received.len() < 50_000, "the response is aborted");
        assert!(lab.wait_for_access("path=/x").contains(&format!("cause={cause}")));
    }
}

#[test]
fn timed_out_attempt_is_retried_on_another_backend_if_the_route_allows_it() {
    let (hanging, healthy) = (hanging_backend(), Recorder::start());
    let port = free_port();
    let route = ", timeouts: { attempt: 200ms }, retry: { on: [connect, timeout] }";
    let lab = unchecked(port, &[hanging.port, healthy.port], route);
    assert!((0..4).all(|_| get(port, "/x").status == 200));
    lab.wait_for_access("attempts=2");
}

#[test]
fn request_with_an_expired_client_deadline_reaches_no_backend() {
    let backend = Recorder::start();
    let port = free_port();
    let lab = unchecked(port, &[backend.port], "");
    for expired in ["X-Request-Timeout: 0\r\n", "grpc-timeout: 500u\r\n", "X-Request-Timeout: 0ms\r\n"] {
        let response = get_with(port, "/x", expired);
        assert_eq!((response.status, response.body.contains("deadline_expired")), (504, true), "{response:?}");
    }
    assert!(lab.wait_for_access("cause=deadline_expired").contains("attempts=0 "));
    assert_eq!(backend.take(), []);
    for accepted in ["X-Request-Timeout: 5\r\n", "grpc-timeout: 5S\r\n", "X-Request-Timeout: soon\r\n"] {
        assert_eq!(get_with(port, "/x", accepted).status, 200, "{accepted}");
    }
}

#[test]
fn shorter_client_deadline_ends_the_request() {
    let hanging = hanging_backend();
    let port = free_port();
    let lab = unchecked(port, &[hanging.port], ", timeouts: { total: 1m }");
    assert_eq!(get_with(port, "/x", "X-Request-Timeout: 200ms\r\n").status, 504);
    assert!(lab.wait_for_access("status=504").contains("cause=deadline_expired"));
}

/// An HTTP/2 backend that never responds, except with an endless response at `/trickles` and
/// one that stops at `/stops`.
fn http2_backend() -> Scripted {
    Scripted::start(|stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (mut streams, mut bodies) = (Vec::new(), Vec::new());
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if request.uri().path() == "/stops" {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(bytes::Bytes::from_static(b"."), false).unwrap();
                    bodies.push(body);
                } else if request.uri().path() == "/trickles" {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    tokio::spawn(async move {
                        while body.send_data(bytes::Bytes::from_static(b"."), false).is_ok() {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    });
                } else {
                    streams.push(respond);
                }
            }
        });
    })
}

/// A balancer with one pool whose backend speaks HTTP/2, with these timeouts.
fn over_http2(port: u16, backend: u16, timeouts: &str) -> Lab {
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ protocol: h2c, health_check: {{ type: none }}, timeouts: {timeouts}, backends: [{{ address: '127.0.0.1:{backend}' }}] }} }}\n\
         routes: [{{ path: /, pool: p }}]\n"
    ))
}

#[test]
fn timeouts_apply_to_http2_backends() {
    let backend = http2_backend();
    for (timeouts, cause) in [("{ total: 300ms }", "total_timeout"), ("{ attempt: 300ms }", "attempt_timeout")] {
        let port = free_port();
        let lab = over_http2(port, backend.port, timeouts);
        let response = get(port, "/hangs");
        assert_eq!((response.status, response.body.contains(cause)), (504, true), "{response:?}");
        let mut stream = client::connect(port);
        stream.write_all(b"GET /trickles HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
        assert!(lab.wait_for_access("path=/trickles").contains(&format!("cause={cause}")));
    }
}

#[test]
fn first_byte_and_idle_timeouts_are_separate_for_http2_backends() {
    if std::env::var("L7LB_TEST_ENGINE").is_ok_and(|engine| engine == "pingora") {
        // Pingora's loop has one read timeout.
        return;
    }
    let backend = http2_backend();
    for (timeouts, path, cause) in [
        ("{ first_byte: 300ms, idle: 1m }", "/hangs", "first_byte_timeout"),
        ("{ first_byte: 1m, idle: 300ms }", "/stops", "idle_timeout"),
    ] {
        let port = free_port();
        let lab = over_http2(port, backend.port, timeouts);
        let mut stream = client::connect(port);
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
        assert!(lab.wait_for_access(&format!("path={path}")).contains(&format!("cause={cause}")));
    }
}
