//! Forwarding headers: what backends receive about the client, and what clients cannot forge.

use serde_json::Value;

use crate::lab::client::{Response, exchange, get_with};
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::{Backend, Lab, free_port, yaml};
use crate::one_pool;

/// The values of a header as the backend received it.
fn received(response: &Response, name: &str) -> Vec<String> {
    let echo: Value = serde_json::from_str(&response.body).unwrap_or_else(|e| panic!("{e}: {response:?}"));
    let pairs = echo["headers"].as_array().unwrap();
    let values = pairs.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    values.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

const FORGED: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine\r\n";

#[test]
fn forwarding_headers_of_an_untrusted_client_are_replaced() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let response = get_with(port, "/apiA/echo", FORGED);
    assert_eq!(received(&response, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received(&response, "x-forwarded-proto"), ["http"]);
    assert_eq!(received(&response, "x-forwarded-host"), ["localhost"]);
    assert_eq!(received(&response, "host"), ["localhost"], "Host is kept");
    assert!(received(&response, "x-real-ip").is_empty() && received(&response, "forwarded").is_empty());
    let id = received(&response, "x-request-id");
    assert!(id.len() == 1 && id[0].len() == 32 && id[0] != "mine", "{id:?}");
    assert_eq!(response.header("x-request-id"), id[0], "the response carries the request id too");
}

#[test]
fn forwarding_headers_of_a_trusted_proxy_are_extended() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], "trusted_proxies: [127.0.0.1/32]"));
    let response = get_with(port, "/apiA/echo", FORGED);
    assert_eq!(received(&response, "x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(received(&response, "x-forwarded-proto"), ["https"]);
    assert_eq!(received(&response, "x-forwarded-host"), ["evil"]);
    assert_eq!(received(&response, "x-request-id"), ["mine"]);
}

/// HTTP/2 clients send one field for each cookie; applications read only one `Cookie`.
#[test]
fn cookies_of_an_http2_client_reach_the_backend_in_one_field() {
    let backend = Recorder::start();
    let port = free_port();
    let _lab = Lab::start(&yaml(port, backend.port, "", ""));
    let cookies: [(&[u8], &[u8]); 3] = [(b"cookie", b"a=b"), (b"cookie", b"c=d; e=f"), (b"cookie", b"g=h")];
    let mut frames = Frames::connect(port);
    frames.headers(1, true, &[&request(b"GET", b"/x")[..], &cookies[..]].concat());
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
    assert_eq!(backend.take()[0].values("cookie"), ["a=b; c=d; e=f; g=h"]);
}

/// A limit of one request: each client is counted separately, however the proxy writes its address.
#[test]
fn clients_of_a_trusted_proxy_are_counted_separately_in_every_form_of_their_address() {
    let (backend, port) = (Backend::start("one"), free_port());
    let more = "trusted_proxies: [127.0.0.1/32, 10.0.0.0/8]\nrate_limit: { type: fixed_window, limit: 1, window: 1h }";
    let lab = Lab::start(&one_pool(port, &[&backend], more));
    for (first, again, client) in [
        ("X-Forwarded-For: 203.0.113.1:5678", "X-Forwarded-For: 203.0.113.1", "203.0.113.1"),
        ("X-Forwarded-For: [2001:db8:1::9]:443", "X-Forwarded-For: 2001:db8:1::9", "2001:db8:1::9"),
        (
            "X-Forwarded-For: [2001:db8:2::9]",
            "X-Forwarded-For: 6.6.6.6, [2001:db8:2::9]:1, 10.0.0.1:80",
            "2001:db8:2::9",
        ),
        ("Forwarded: for=203.0.113.2", "Forwarded: For=\"203.0.113.2:47\";proto=http", "203.0.113.2"),
        ("Forwarded: for=\"[2001:db8:3::9]:443\", for=10.0.0.1", "Forwarded: for=\"[2001:db8:3::9]\"", "2001:db8:3::9"),
        ("Forwarded: for=\", for=203.0.113.3", "Forwarded: for=_x, for=203.0.113.3", "203.0.113.3"),
        ("Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 203.0.113.4", "X-Forwarded-For: 203.0.113.4", "203.0.113.4"),
    ] {
        assert_eq!(get_with(port, "/apiA", &format!("{first}\r\n")).status, 200, "{first}");
        assert_eq!(get_with(port, "/apiA", &format!("{again}\r\n")).status, 429, "{again}");
        lab.wait_for_access(&format!("client={client} "));
    }
}

#[test]
fn client_named_by_forwarded_is_sent_to_backends() {
    let (backend, port) = (Backend::start("one"), free_port());
    let _lab = Lab::start(&one_pool(port, &[&backend], "trusted_proxies: [127.0.0.1/32]"));
    let lines = "Forwarded: for=6.6.6.6;proto=ftp, for=\"[2001:db8::7]:9\";proto=https\r\n";
    let response = get_with(port, "/apiA/echo", lines);
    assert_eq!(received(&response, "x-forwarded-for"), ["2001:db8::7, 127.0.0.1"]);
    assert_eq!(received(&response, "x-forwarded-proto"), ["https"]);
    assert_eq!(received(&response, "forwarded").len(), 1, "it is passed on");
    let response = get_with(port, "/apiA/echo", "Forwarded: for=unknown\r\n");
    assert_eq!(received(&response, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received(&response, "x-forwarded-proto"), ["http"]);
}

#[test]
fn forwarded_is_sent_if_configured() {
    let (backend, port) = (Backend::start("one"), free_port());
    let _lab = Lab::start(&one_pool(port, &[&backend], "send_forwarded: true"));
    let own = "for=127.0.0.1;host=localhost;proto=http";
    assert_eq!(received(&get_with(port, "/apiA/echo", FORGED), "forwarded"), [own]);
    let port = free_port();
    let more = "send_forwarded: true\ntrusted_proxies: [127.0.0.1/32]";
    let _trusting = Lab::start(&one_pool(port, &[&backend], more));
    for (sent, forwarded) in [
        ("", own.to_owned()),
        ("Forwarded: for=203.0.113.9\r\nForwarded: for=unknown\r\n", format!("for=203.0.113.9, for=unknown, {own}")),
        ("X-Forwarded-For: [2001:db8::7]:1\r\n", format!("for=\"[2001:db8::7]\";host=localhost;proto=http, {own}")),
        (FORGED, format!("for=6.6.6.6;host=evil;proto=https, {own}")),
    ] {
        assert_eq!(received(&get_with(port, "/apiA/echo", sent), "forwarded"), [forwarded], "{sent}");
    }
}

/// RFC 9110 §7.6.2: only OPTIONS and TRACE; l7lb always rejects TRACE itself.
#[test]
fn max_forwards_of_options_is_decremented_and_0_ends_at_l7lb() {
    let (backend, port) = (Backend::start("one"), free_port());
    let lab = Lab::start(&one_pool(port, &[&backend], ""));
    let send = |method: &str, path: &str, value: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: {value}\r\n\r\n");
        exchange(port, request.as_bytes())
    };
    for (method, value, forwarded) in
        [("OPTIONS", "3", "2"), ("OPTIONS", "1", "0"), ("OPTIONS", "x", "x"), ("GET", "0", "0"), ("GET", "5", "5")]
    {
        let response = send(method, "/apiA/echo", value);
        assert_eq!(received(&response, "max-forwards"), [forwarded], "{method} {value}");
    }
    let response = send("OPTIONS", "/apiA/last", "0");
    assert_eq!((response.status, response.body.as_str()), (200, ""), "{response:?}");
    assert_eq!((response.header("content-length"), response.header("connection")), ("0", "keep-alive"));
    let line = lab.wait_for_access("path=/apiA/last");
    assert!(line.contains(" status=200 ") && line.contains(" attempts=0 "), "{line}");
    assert_eq!(send("OPTIONS", "/nowhere", "0").status, 404, "routing and limits come first");
    assert_eq!(send("TRACE", "/apiA/echo", "0").status, 405);
}

#[test]
fn hop_by_hop_headers_are_not_forwarded() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let response = exchange(
        port,
        b"GET /apiA/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=9\r\nTE: trailers\r\nProxy-Connection: close\r\nX-Kept: 1\r\n\r\n",
    );
    for name in ["x-secret", "keep-alive", "proxy-connection"] {
        assert!(received(&response, name).is_empty(), "{name}: {response:?}");
    }
    assert_eq!(received(&response, "x-kept"), ["1"]);
}
