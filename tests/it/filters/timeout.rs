//! The filter `timeout`.

use std::io::Write as _;

use super::h2_client;
use crate::lab::client::{connect, get, get_with, read_head, read_response};
use crate::lab::scripted::{Held, Scripted};
use crate::lab::{Lab, free_port, run, yaml};
use crate::reload::{UNWATCHED, file, reloaded, replace};

/// A backend that reads a request and never responds.
fn hanging() -> Scripted {
    Scripted::start(|mut stream| {
        read_head(&mut stream);
        read_head(&mut stream);
    })
}

#[test]
fn timeouts_of_the_filter_replace_those_of_the_route_over_both_versions_of_http() {
    let backend = hanging();
    for (keys, cause) in [
        ("first_byte: 200ms", "first_byte_timeout"),
        ("attempt: 200ms", "attempt_timeout"),
        ("total: 200ms", "total_timeout"),
        ("attempt: 200ms, total: 1m", "attempt_timeout"),
    ] {
        let port = free_port();
        let filters = format!("filters: [{{ timeout: {{ {keys} }} }}]\naccess_log: {{ format: json }}\n");
        let text = yaml(port, backend.port, "", &filters).replace(
            "pool: a }]",
            "pool: a, timeouts: { first_byte: 50s }, filters: [{ rewrite: { add_prefix: /v1 } }, { timeout: { idle: 40s } }] }]",
        );
        let lab = Lab::start(&text);
        let response = get(port, "/x");
        assert_eq!((response.status, response.body.contains(cause)), (504, true), "{keys}: {response:?}");
        assert_eq!(h2_client::request(port, "GET", "/x", &[]).status, 504, "{keys}");
        lab.wait_for_access(&format!("\"cause\":\"{cause}\""));
        let explained = run(&["explain", "--conf", file(&lab).to_str().unwrap(), &format!("http://a:{port}/x")]);
        let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
        let shown = keys.replace(": ", " ");
        assert!(explained.contains(&format!("timeouts {shown}  ({shown})")), "{explained}");
    }
}

#[test]
fn pause_in_a_response_ends_by_the_timeout_of_the_filter_and_in_http2_backends_too() {
    let pausing = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").ok();
        read_head(&mut stream);
    });
    let port = free_port();
    let lab = Lab::start(&yaml(port, pausing.port, "", "filters: [{ timeout: { idle: 200ms } }]\n"));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
    lab.wait_for_access("cause=idle_timeout");
    let hanging = Scripted::start_http2(|_, _, stream| std::mem::forget(stream));
    let port = free_port();
    let _lab = Lab::start(&yaml(
        port,
        hanging.port,
        "protocol: h2c,",
        "filters: [{ timeout: { first_byte: 200ms, idle: 200ms } }]\n",
    ));
    let response = get(port, "/");
    assert_eq!((response.status, response.body.contains("first_byte_timeout")), (504, true), "{response:?}");
}

#[test]
fn filter_of_a_route_with_a_condition_concerns_only_its_requests() {
    let (backend, port) = (hanging(), free_port());
    let routes = "pool: a, timeouts: { first_byte: 200ms } }, { path: /, name: b, headers: { X-Batch: { present: true } }, \
                  pool: a, timeouts: { first_byte: 50s }, filters: [{ chain: short }] }]";
    let text = yaml(port, backend.port, "", "chains: { short: [{ timeout: { total: 300ms } }] }\n");
    let _lab = Lab::start(&text.replace("pool: a }]", routes));
    assert!(get(port, "/").body.contains("first_byte_timeout"));
    assert!(get_with(port, "/", "X-Batch: 1\r\n").body.contains("total_timeout"));
}

#[test]
fn request_keeps_its_timeouts_when_a_reload_shortens_them_meanwhile() {
    let (held, port) = (Held::start(), free_port());
    let text = |timeout: &str| {
        yaml(port, held.port, "", &format!("filters: [{{ timeout: {{ first_byte: {timeout} }} }}]\n{UNWATCHED}"))
    };
    let lab = Lab::start(&text("60s"));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    held.arrived();
    replace(&lab, &text("300ms"));
    reloaded(&lab);
    // The new timeout has expired for a request that arrived later.
    assert_eq!(get(port, "/").status, 504);
    held.release();
    assert_eq!(read_response(&mut stream).status, 200);
}
