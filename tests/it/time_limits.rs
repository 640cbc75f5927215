//! Limits of time: each has its own cause, and what nobody waits for any more is not begun.

use std::io::{Read, Write};
use std::time::Duration;

use crate::lab::client::{self, get, get_with};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};
use crate::unchecked;

/// A backend that takes a request and never answers.
fn hangs() -> Scripted {
    Scripted::start(|mut stream| {
        client::read_head(&mut stream);
        stream.read_exact(&mut [0]).ok();
    })
}

/// A backend whose answer never ends, though something always moves.
fn trickles() -> Scripted {
    Scripted::start(|mut stream| {
        client::read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").ok();
        while stream.write_all(b".").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn each_limit_has_its_own_cause() {
    let hangs = hangs();
    for (limits, cause) in [
        ("{ first_byte: 200ms }", "first_byte_timeout"),
        ("{ try: 200ms }", "try_timeout"),
        ("{ total: 200ms }", "total_timeout"),
        ("{ try: 200ms, total: 1m }", "try_timeout"),
    ] {
        let port = free_port();
        let lab = unchecked(port, &[hangs.port], &format!(", timeouts: {limits}"));
        let answer = get(port, "/x");
        assert_eq!((answer.status, answer.body.contains(cause)), (504, true), "{limits}: {answer:?}");
        let line = lab.wait_for_access("status=504");
        assert!(line.contains(&format!("cause={cause}")) && line.contains("tries=1 "), "{line}");
    }
}

/// A port at which connections are neither accepted nor refused: its queue is full.
fn deaf() -> (u16, socket2::Socket, Vec<socket2::Socket>) {
    let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = (0..4).map(|_| {
        let client = new();
        client.set_nonblocking(true).unwrap();
        client.connect(&address).ok();
        client
    });
    let waiting = waiting.collect();
    (address.as_socket().unwrap().port(), listener, waiting)
}

#[test]
fn connections_that_do_not_come_about_have_causes_of_their_own() {
    let (deaf, _listener, _waiting) = deaf();
    for (limits, cause) in [
        ("{ connect: 300ms }", "connect_timeout"),
        ("{ connect: 10s, try: 300ms }", "try_timeout"),
        ("{ connect: 10s, total: 300ms }", "total_timeout"),
    ] {
        let port = free_port();
        let _lab = unchecked(port, &[deaf], &format!(", timeouts: {limits}"));
        let answer = get(port, "/x");
        assert_eq!((answer.status, answer.body.contains(cause)), (504, true), "{limits}: {answer:?}");
    }
}

#[test]
fn a_backend_that_does_not_take_the_body_is_idle() {
    let deaf = Scripted::start(|mut stream| {
        client::read_head(&mut stream);
        // Until the other end gives up, which a socket with unread bytes hears as an error.
        let socket = socket2::SockRef::from(&stream);
        while socket.take_error().unwrap().is_none() && socket.peer_addr().is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    for (limits, cause) in [("{ idle: 300ms }", "idle_timeout"), ("{ total: 300ms }", "total_timeout")] {
        let port = free_port();
        let lab = Lab::start(&format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\nclient_timeouts: {{ body: 500ms }}\n\
             pools: {{ p: {{ health_check: {{ type: none }}, timeouts: {limits}, backends: [{{ address: '127.0.0.1:{}' }}] }} }}\n\
             routes: [{{ path: /, pool: p }}]\n",
            deaf.port
        ));
        let mut stream = client::connect(port);
        stream.write_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n").unwrap();
        let mut upload = stream.try_clone().unwrap();
        let uploading = std::thread::spawn(move || while upload.write_all(&[b'x'; 65536]).is_ok() {});
        let answer = client::read_answer(&mut stream);
        assert_eq!((answer.status, answer.body.contains(cause)), (504, true), "{limits}: {answer:?}");
        lab.wait_for_access("status=504");
        drop(lab);
        uploading.join().unwrap();
    }
}

#[test]
fn an_answer_that_moves_and_never_ends_is_ended_by_the_total_only() {
    let trickles = trickles();
    for (limits, cause) in [("{ total: 400ms }", "total_timeout"), ("{ try: 400ms }", "try_timeout")] {
        let port = free_port();
        let lab = unchecked(port, &[trickles.port], &format!(", timeouts: {limits}"));
        let mut stream = client::connect(port);
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).ok();
        assert!(all.ends_with(b".") && all.len() < 50_000, "cut off");
        assert!(lab.wait_for_access("path=/x").contains(&format!("cause={cause}")));
    }
}

#[test]
fn a_late_backend_is_given_up_for_another_where_the_route_says_so() {
    let (hangs, well) = (hangs(), Recorder::start());
    let port = free_port();
    let route = ", timeouts: { try: 200ms }, retry: { on: [connect, timeout] }";
    let lab = unchecked(port, &[hangs.port, well.port], route);
    assert!((0..4).all(|_| get(port, "/x").status == 200));
    lab.wait_for_access("tries=2");
}

#[test]
fn clients_deadlines_that_cannot_be_met_reach_no_backend() {
    let backend = Recorder::start();
    let port = free_port();
    let lab = unchecked(port, &[backend.port], "");
    for expired in ["X-Request-Timeout: 0\r\n", "grpc-timeout: 500u\r\n", "X-Request-Timeout: 0ms\r\n"] {
        let answer = get_with(port, "/x", expired);
        assert_eq!((answer.status, answer.body.contains("deadline_expired")), (504, true), "{answer:?}");
    }
    assert!(lab.wait_for_access("cause=deadline_expired").contains("tries=0 "));
    assert_eq!(backend.take(), []);
    for fine in ["X-Request-Timeout: 5\r\n", "grpc-timeout: 5S\r\n", "X-Request-Timeout: soon\r\n"] {
        assert_eq!(get_with(port, "/x", fine).status, 200, "{fine}");
    }
}

#[test]
fn a_shorter_deadline_of_the_clients_ends_its_request() {
    let hangs = hangs();
    let port = free_port();
    let lab = unchecked(port, &[hangs.port], ", timeouts: { total: 1m }");
    assert_eq!(get_with(port, "/x", "X-Request-Timeout: 200ms\r\n").status, 504);
    assert!(lab.wait_for_access("status=504").contains("cause=deadline_expired"));
}

#[test]
fn limits_hold_for_http2_backends_too() {
    let waits = Scripted::start(|stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut streams = Vec::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if request.uri().path() == "/trickles" {
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
    });
    for (limits, cause) in [("{ total: 300ms }", "total_timeout"), ("{ try: 300ms }", "try_timeout")] {
        let port = free_port();
        let lab = Lab::start(&format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
             pools: {{ p: {{ protocol: h2c, health_check: {{ type: none }}, timeouts: {limits}, backends: [{{ address: '127.0.0.1:{}' }}] }} }}\n\
             routes: [{{ path: /, pool: p }}]\n",
            waits.port
        ));
        let answer = get(port, "/hangs");
        assert_eq!((answer.status, answer.body.contains(cause)), (504, true), "{answer:?}");
        let mut stream = client::connect(port);
        stream.write_all(b"GET /trickles HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
        assert!(lab.wait_for_access("path=/trickles").contains(&format!("cause={cause}")));
    }
}
