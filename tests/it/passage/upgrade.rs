//! Which protocol switches a client and a backend may agree on (RFC 9110 §7.8).

use std::io::{Read, Write};

use super::{lacks_own_engine, yaml};
use crate::lab::client::{connect, read_head, read_response};
use crate::lab::frames::{Frames, HEADERS, request};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port};

/// A backend that switches without being asked, and treats what follows as a tunnel.
fn switching(answer: &'static str) -> Scripted {
    Scripted::start(move |mut stream| {
        if !read_head(&mut stream).is_empty() {
            stream.write_all(answer.as_bytes()).unwrap();
            stream.read_to_end(&mut Vec::new()).ok();
        }
    })
}

fn with_fields(version: &str, fields: &str) -> Vec<u8> {
    format!("GET /x HTTP/{version}\r\nHost: x\r\n{fields}\r\n").into_bytes()
}

#[test]
fn upgrade_that_may_not_be_offered_is_ignored() {
    let backend = Scripted::start(|mut stream| {
        while let head = read_head(&mut stream).to_ascii_lowercase()
            && !head.is_empty()
        {
            let offered = head.contains("upgrade") || head.contains("http2-settings");
            let body = if offered { "offered" } else { "ignored" };
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{body}").as_bytes()).unwrap();
        }
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    for (version, fields) in [
        ("1.1", "Upgrade: websocket\r\n"),
        ("1.1", "Connection: keep-alive\r\nUpgrade: websocket\r\n"),
        ("1.0", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"),
        ("1.1", "Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n"),
    ] {
        let mut stream = connect(port);
        stream.write_all(&with_fields(version, fields)).unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.body.as_str()), (200, "ignored"), "{fields}");
    }
}

#[test]
fn switch_that_was_not_requested_is_a_502() {
    let (plain, listed) = ("X: y\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    let websocket = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes";
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nbytes";
    for (fields, answer) in [(plain, websocket), ("Upgrade: websocket\r\n", websocket), (listed, other)] {
        let (backend, port) = (switching(answer), free_port());
        let lab = Lab::start(&yaml(port, backend.port, "", ""));
        let mut stream = connect(port);
        stream.write_all(&with_fields("1.1", fields)).unwrap();
        let response = read_response(&mut stream);
        assert_eq!(response.status, 502, "{fields}: {response:?}");
        assert!(response.body.contains("backend_failed"), "{response:?}");
        lab.wait_for_access("cause=backend_failed");
        let mut frames = Frames::connect(port);
        frames.headers(1, true, &request(b"GET", b"/x"));
        assert_eq!(frames.find(|frame| frame.kind == HEADERS).unwrap().status(), 502, "{fields} on HTTP/2");
    }
}

/// RFC 9110 requires both headers, but some servers omit one.
#[test]
fn switch_without_connection_or_upgrade_is_completed_and_forwarded() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive\r\nUpgrade: WebSocket\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\nhello",
        "HTTP/1.1 101 Whatever\r\n\r\nhello",
    ] {
        let (backend, port) = (switching(answer), free_port());
        let lab = Lab::start(&yaml(port, backend.port, "", ""));
        let mut stream = connect(port);
        stream.write_all(&with_fields("1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n")).unwrap();
        let head = read_head(&mut stream).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        drop(stream);
        lab.wait_for_access("status=101");
    }
}

#[test]
fn protocols_other_than_websocket_are_offered() {
    if lacks_own_engine() {
        return;
    }
    let backend = Scripted::start(|mut stream| {
        let head = read_head(&mut stream).to_ascii_lowercase();
        assert!(head.contains("\r\nupgrade: spdy/3.1\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n\r\n").unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let mut stream = connect(port);
    stream.write_all(&with_fields("1.1", "Connection: Upgrade\r\nUpgrade: h2c, SPDY/3.1\r\n")).unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: spdy/3.1\r\n"), "{head}");
    stream.write_all(b"ping").unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"ping");
}
