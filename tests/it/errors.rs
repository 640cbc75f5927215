//! Error responses of the balancer: status code, cause, and whether the connection is kept.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::lab::client::{self, exchange, get, get_with, read_response};
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, free_port};
use crate::one_pool;

/// A lab with one pool per scripted behaviour, without health checks, at `/NAME`.
fn scripted_lab(port: u16, pools: &[(&str, u16)]) -> Lab {
    let pool = |(name, backend): &(&str, u16)| {
        format!(
            "  {name}: {{ health_check: {{ type: none }}, timeouts: {{ connect: 500ms, first_byte: 400ms, idle: 1s }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }}\n"
        )
    };
    let route = |(name, _): &(&str, u16)| format!("  - {{ path: /{name}, pool: {name} }}\n");
    let pools_text: String = pools.iter().map(pool).collect();
    let routes: String = pools.iter().map(route).collect();
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\nrequest_limits: {{ body_size: 1KiB }}\npools:\n{pools_text}routes:\n{routes}"
    ))
}

fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
}

#[test]
fn backend_fault_maps_to_its_status_code_and_cause() {
    let hangs = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.read_exact(&mut [0]).ok();
    });
    let closes = Scripted::start(|mut stream| read_head(&mut stream));
    let babbles = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"no such protocol\r\n\r\n").ok();
    });
    let stalls = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour").ok();
        stream.read_exact(&mut [0]).ok();
    });
    let pauses = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour ").ok();
        // Longer than the first-byte timeout, shorter than the idle timeout.
        std::thread::sleep(Duration::from_millis(600));
        stream.write_all(b"more").ok();
    });
    let port = free_port();
    let pools = [
        ("refuses", free_port()),
        ("hangs", hangs.port),
        ("closes", closes.port),
        ("babbles", babbles.port),
        ("stalls", stalls.port),
        ("pauses", pauses.port),
    ];
    let lab = scripted_lab(port, &pools);
    let mut stream = client::connect(port);
    for (path, status, cause) in [
        ("/refuses", 502, "connect_failed"),
        ("/hangs", 504, "first_byte_timeout"),
        ("/closes", 502, "backend_failed"),
        ("/babbles", 502, "backend_failed"),
    ] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.contains(cause)), (status, true), "{path}: {response:?}");
        assert_eq!(response.header("connection"), "keep-alive", "the client connection is kept");
        assert!(lab.wait_for_access(&format!("path={path} ")).contains(&format!("cause={cause}")));
    }
    assert_eq!(get(port, "/pauses").body, "four more", "a pause in the body has its own timeout");
    stream.write_all(b"GET /stalls HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).ok();
    assert!(all.ends_with("four"), "the body is truncated: {all:?}");
    assert!(lab.wait_for_access("path=/stalls").contains("cause=idle_timeout"));
}

#[test]
fn request_that_reached_a_backend_is_retried_only_if_idempotent() {
    let closes = Scripted::start(|mut stream| read_head(&mut stream));
    let good = Backend::start("good");
    let port = free_port();
    let lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ balance: round_robin, health_check: {{ type: none }}, passive_health: off, backends: [{{ address: '127.0.0.1:{}' }}, {{ address: '127.0.0.1:{}' }}] }} }}\n\
         routes: [{{ path: /, pool: p }}]",
        closes.port, good.port
    ));
    assert!((0..6).all(|_| get(port, "/x").status == 200), "GET goes to the other backend");
    assert!(lab.wait_for_access("attempts=2").contains("status=200"));
    let before = closes.connections();
    let posts: Vec<u16> = (0..6)
        .map(|_| {
            exchange(port, b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx").status
        })
        .collect();
    assert_eq!(posts.iter().filter(|status| **status == 502).count(), closes.connections() - before, "{posts:?}");
    assert!(posts.contains(&502) && posts.contains(&200), "POST is not repeated: {posts:?}");
}

#[test]
fn oversized_request_is_rejected() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = scripted_lab(port, &[("ok", backend.port)]);
    let cases: [(u16, &str, String); 6] = [
        (414, "target_too_long", format!("GET /ok?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(9000))),
        (431, "header_too_large", format!("GET /ok HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(33_000))),
        (431, "header_too_large", format!("GET /ok HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(130))),
        (413, "body_too_large", "POST /ok/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n".to_owned()),
        (
            413,
            "body_too_large",
            format!(
                "POST /ok/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n{}\r\n0\r\n\r\n",
                "x".repeat(0x800)
            ),
        ),
        (
            200,
            "1024",
            format!("POST /ok/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024)),
        ),
    ];
    for (status, word, request) in cases {
        let response = exchange(port, request.as_bytes());
        assert_eq!(
            (response.status, response.body.contains(word)),
            (status, true),
            "{}…: {response:?}",
            &request[..40]
        );
    }
}

#[test]
fn forbidden_method_or_missing_host_is_rejected_and_logged() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = scripted_lab(port, &[("ok", backend.port)]);
    assert_eq!(exchange(port, b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n").status, 405);
    lab.wait_for_access("method=CONNECT");
    assert_eq!(exchange(port, b"TRACE /ok HTTP/1.1\r\nHost: x\r\n\r\n").status, 405);
    assert_eq!(exchange(port, b"GET /ok HTTP/1.1\r\n\r\n").status, 400);
    assert!(lab.wait_for_access("status=400").contains("cause=bad_request"));
}

#[test]
fn error_page_has_the_cause_and_no_software_name() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let text = get(port, "/nowhere");
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert!(text.body.starts_with("404 no_route\n"), "{text:?}");
    assert_eq!(text.header("server"), "");
    assert!(text.body.contains(text.header("x-request-id")));
    let json = get_with(port, "/nowhere", "Accept: application/json\r\n");
    assert_eq!(json.header("content-type"), "application/json");
    assert!(json.body.starts_with("{\"status\":404,\"cause\":\"no_route\","), "{json:?}");
    // HEAD gets the same header without a body, and the connection is kept.
    let mut stream = client::connect(port);
    stream.write_all(b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_head(&mut stream);
    stream.write_all(b"GET /apiA HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(client::read_response(&mut stream).status, 200);
}

#[test]
fn connection_is_kept_after_an_error_where_http_and_pingora_allow_it() {
    let backend = Backend::start("ill");
    backend.set_health(false);
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut stream = client::connect(port);
    for (path, status) in [("/nowhere", 404), ("/apiA", 503), ("/nowhere", 404)] {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let response = client::read_response(&mut stream);
        assert_eq!((response.status, response.header("connection")), (status, "keep-alive"));
    }

    // After a failed attempt Pingora closes the connection, and the response has `Connection: close`.
    let port = free_port();
    let _lab = scripted_lab(port, &[("refuses", free_port())]);
    assert_eq!(get(port, "/refuses").header("connection"), "close");
}
