//! The filters `headers` and `security_headers`.

use std::io::Write as _;

use crate::lab::client::{connect, exchange, get, get_with, read_head};
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::{Lab, free_port, yaml};

fn with(port: u16, backend: &Recorder, filters: &str) -> Lab {
    Lab::start(&yaml(port, backend.port, "", &format!("filters: [{filters}]\n")))
}

#[test]
fn request_fields_are_removed_set_and_added_over_both_versions_of_http() {
    let (backend, port) = (Recorder::start(), free_port());
    let _lab = with(
        port,
        &backend,
        "{ headers: { request: { remove: X-Debug, set: { X-Real-IP: '${client.ip}', X-Host: '${request.host}' }, \
         set_if_absent: { X-Given: default, X-Missing: default }, add: { X-Given: more } } } }",
    );
    get_with(port, "/", "X-Debug: 1\r\nX-Given: mine\r\nX-Real-IP: 6.6.6.6\r\n");
    let mut frames = Frames::connect(port);
    let fields: [(&[u8], &[u8]); 3] = [(b"x-debug", b"1"), (b"x-given", b"mine"), (b"x-real-ip", b"6.6.6.6")];
    frames.headers(1, true, &[&request(b"GET", b"/")[..], &fields[..]].concat());
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
    for received in backend.take() {
        assert!(received.values("x-debug").is_empty());
        assert_eq!(received.values("x-real-ip"), ["127.0.0.1"], "the value of the client is replaced");
        assert_eq!(received.values("x-given"), ["mine", "more"]);
        assert_eq!(received.values("x-missing"), ["default"]);
        assert_eq!(received.values("x-host").len(), 1);
    }
}

#[test]
fn response_fields_of_backends_and_of_errors_are_changed() {
    let backend = Recorder::answering(
        b"HTTP/1.1 200 Fine\r\nServer: secret\r\nX-Frame-Options: ALLOW\r\nContent-Length: 0\r\n\r\n",
    );
    let port = free_port();
    let _lab = with(
        port,
        &backend,
        "{ security_headers: default }, { headers: { response: { remove: server, set: { X-From: '${upstream.pool} ${response.status}' } } } }",
    );
    let response = get(port, "/");
    assert_eq!((response.header("server"), response.header("x-frame-options")), ("", "ALLOW"));
    assert_eq!((response.header("x-content-type-options"), response.header("x-from")), ("nosniff", "a 200"));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200 Fine\r\n"), "the reason of the backend stays: {head}");
    let (closed, other) = (free_port(), free_port());
    let text = yaml(other, closed, "", "filters: [{ security_headers: strict }]\n");
    let _other = Lab::start(&text);
    let failed = get(other, "/");
    assert_eq!((failed.status, failed.header("x-frame-options")), (502, "DENY"));
}

/// The parser rejects a line break in any part of a request, so none reaches a variable.
#[test]
fn line_break_in_a_value_of_the_client_never_reaches_a_header() {
    let (backend, port) = (Recorder::start(), free_port());
    let _lab = with(
        port,
        &backend,
        "{ headers: { request: { set: { X-Q: '${request.query.q}', X-C: '${request.cookie.c}' } }, response: { set: { X-Q: '${request.query.q}' } } } }",
    );
    for target in ["/?q=%0d%0aX-Evil:%201", "/?q=a%00b"] {
        let response = get_with(port, target, "Cookie: c=%0d%0aX-Evil: 1\r\n");
        assert!(response.status == 400 || response.header("x-evil").is_empty(), "{response:?}");
    }
    let raw = exchange(port, b"GET /?q=a\rX-Evil: 1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(raw.status, 400);
    assert!(backend.take().iter().all(|received| received.values("x-evil").is_empty()));
}
