//! Hostile input to filters: each gets a status and a cause, and other clients do not see any of it.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::h2_client;
use super::jwt::{Issuer, set};
use crate::lab::client::{connect, exchange, get, get_with, read_head};
use crate::lab::frames::{Frames, GOAWAY, HEADERS, RST_STREAM, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port, lacks_own_engine, run};

/// A route with filters, and these further blocks.
fn yaml(port: u16, backend: u16, filters: &str, more: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\naccess_log: {{ format: json }}\n\
         pools: {{ a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }} }}\n\
         routes: [{{ path: /, pool: a, filters: [{filters}] }}]\n{more}"
    )
}

/// Copies values of clients into fields for the backend and for the client.
const COPIES: &str = "{ headers: { request: { set: { X-Cookie: '${request.cookie.c}', X-Field: '${request.header.x-in}', X-Query: '${request.query.q}', X-Host: '${request.host}' } }, \
    response: { set: { X-Cookie: '${request.cookie.c}', X-Field: '${request.header.x-in}', X-Query: '${request.query.q}' } } } }";

/// The place of a hostile byte in a request.
#[derive(Clone, Copy, Debug)]
enum At {
    Query,
    Cookie,
    Field,
    Host,
}

#[test]
fn control_character_in_a_value_of_a_client_reaches_no_header_over_both_versions_of_http() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, COPIES, ""));
    for byte in [b'\r', b'\n', 0] {
        for at in [At::Query, At::Cookie, At::Field, At::Host] {
            let evil = [b"a", &[byte][..], b"X-Evil: 1"].concat();
            let part = |place: At, clean: &[u8]| {
                let is_here = std::mem::discriminant(&place) == std::mem::discriminant(&at);
                if is_here { [clean, &evil].concat() } else { clean.to_vec() }
            };
            let (target, cookie) = (part(At::Query, b"/?q="), part(At::Cookie, b"c="));
            let (field, host) = (part(At::Field, b"f"), part(At::Host, b"h"));
            let head = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: ", &host, b"\r\nCookie: ", &cookie];
            let head = [&head.concat()[..], b"\r\nX-In: ", &field, b"\r\n\r\n"].concat();
            let response = exchange(port, &head);
            assert_eq!((response.status, response.header("x-evil")), (400, ""), "{byte} {at:?}");

            let mut frames = Frames::connect(port);
            let mut fields = request(b"GET", &target).to_vec();
            fields[2].1 = &host;
            fields.extend([(&b"cookie"[..], &cookie[..]), (b"x-in", &field)]);
            frames.headers(1, true, &fields);
            let ending = |kind, stream| matches!(kind, RST_STREAM | GOAWAY) || kind == HEADERS && stream == 1;
            if let Some(frame) = frames.find(|frame| ending(frame.kind, frame.stream)) {
                assert!(frame.kind != HEADERS || frame.status() == 400, "{byte} {at:?}: {frame:?}");
            }
        }
    }
    assert!(backend.take().is_empty(), "no backend gets any of these requests");
    let is_logged = |line: &String| line.contains("\"cause\":\"bad_request\"") && line.contains("\"HTTP/1.1\"");
    eventually("each has its cause", PATIENCE, || lab.access().iter().filter(|line| is_logged(line)).count() == 12);
    let clean = get_with(port, "/?q=mine", "Cookie: c=own\r\nX-In: here\r\n");
    let shown = ["x-query", "x-cookie", "x-field", "x-evil"].map(|name| clean.header(name));
    assert_eq!((clean.status, shown), (200, ["mine", "own", "here", ""]));
}

#[test]
fn oversized_cookie_gets_431_and_a_large_one_reaches_no_other_client() {
    let (backend, port) = (Recorder::start(), free_port());
    let limit = "{ rate_limit: { by: 'cookie:c', limits: { type: fixed_window, limit: 1, window: 1h } } }";
    let lab = Lab::start(&yaml(port, backend.port, &format!("{COPIES}, {limit}"), ""));
    let cookie = |length: usize| format!("c={}", "x".repeat(length));
    let over = get_with(port, "/", &format!("Cookie: {}\r\n", cookie(33_000)));
    assert_eq!(over.status, 431);
    let line: Value = serde_json::from_str(&lab.wait_for_access("\"status\":431")).unwrap();
    assert_eq!(line["cause"], "header_too_large");
    assert!(backend.take().is_empty());
    let large = cookie(15_000);
    let accepted = get_with(port, "/", &format!("Cookie: {large}\r\n"));
    assert_eq!((accepted.status, accepted.header("x-cookie").len()), (200, 15_000));
    assert_eq!(backend.take()[0].values("x-cookie")[0].len(), 15_000);
    assert_eq!(get_with(port, "/", &format!("Cookie: {large}\r\n")).status, 429, "the whole value is the key");
    assert_eq!(get_with(port, "/", &format!("Cookie: {large}y\r\n")).status, 200);
    let over_h2 = h2_client::request(port, "GET", "/", &[("cookie", &large)]);
    assert_eq!(over_h2.status, 429);
    let other = get(port, "/");
    assert_eq!((other.status, other.header("x-cookie")), (200, ""));
}

#[test]
fn pathological_pattern_is_a_fault_wherever_patterns_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("l7lb.yaml");
    let long = "a".repeat(5000);
    let deep = format!("{}a{}", "(".repeat(200), ")".repeat(200));
    for (pattern, problem) in [
        ("((a{100}){100}){100}", "the regular expression is too large"),
        ("(\\\\pL{200}){200}", "the regular expression is too large"),
        (long.as_str(), "more than 4096 bytes"),
        (deep.as_str(), "is not a regular expression"),
        ("(a)\\\\1", "is not a regular expression"),
        ("(?=a)", "is not a regular expression"),
    ] {
        let route = "path: /, pool: a, filters: []";
        let places = [
            format!("path: /, pool: a, filters: [{{ rewrite: {{ regex: {{ match: \"{pattern}\", replace: / }} }} }}]"),
            format!("path: /, pool: a, headers: {{ X-A: {{ regex: \"{pattern}\" }} }}"),
            format!("path: /, pool: a, query: {{ a: {{ regex: \"{pattern}\" }} }}"),
            format!("path: /, pool: a, cookies: {{ a: {{ regex: \"{pattern}\" }} }}"),
        ];
        for place in places {
            std::fs::write(&file, yaml(8080, 1, "", "").replace(route, &place)).unwrap();
            let output = run(&["check", file.to_str().unwrap()]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{place}: {said}");
            assert!(said.contains(problem), "{place}: {said}");
        }
    }
}

/// These patterns take exponential time with backtracking, which would exceed the patience of the client.
#[test]
fn nested_repetition_is_matched_in_linear_time() {
    let (backend, port) = (Recorder::start(), free_port());
    let text = yaml(port, backend.port, "{ rewrite: { regex: { match: '^/(a+)+$', replace: /all } } }", "");
    let conditions = "{ path: /, pool: a, name: slow, cookies: { c: { regex: '^(a|a)*b$' } }, headers: { X-In: { regex: '^(a*)*c$' } } }";
    let _lab = Lab::start(&text.replace("routes: [", &format!("routes: [{conditions}, ")));
    let word = "a".repeat(7000);
    for (path, received) in [(format!("/{word}!"), format!("/{word}!")), (format!("/{word}"), "/all".to_owned())] {
        let response = get_with(port, &path, &format!("Cookie: c={word}!\r\nX-In: {word}!\r\n"));
        assert_eq!(response.status, 200);
        assert_eq!(backend.take()[0].brief(), format!("GET {received}"));
    }
}

/// The header has at most 1 MiB whatever is configured, so a token of this size is the longest that a filter gets.
#[test]
fn token_as_long_as_a_header_may_be_is_unauthorized() {
    let (backend, port, issuer) = (Recorder::start(), free_port(), Issuer::new("a"));
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("keys.json"), set(&[&issuer])).unwrap();
    let filter =
        "{ jwt: { keys: '{folder}/keys.json', cookie: t, header: Authorization, claim_headers: { X-User: sub } } }";
    let lab = Lab::start_in(folder, &yaml(port, backend.port, filter, "request_limits: { header_size: 1048575 }\n"));
    let (good, long) = (issuer.token(), "x".repeat(1_000_000));
    for token in [format!("{good}{long}"), format!("{long}.{good}"), ".".repeat(1_000_000), long] {
        for field in ["Authorization: Bearer ", "Cookie: t="] {
            let mut stream = connect(port);
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n{field}{token}\r\n\r\n").unwrap();
            let response = crate::lab::client::read_response(&mut stream);
            assert_eq!(response.status, 401, "{field}");
            assert!(response.header("www-authenticate").len() < 100 && response.body.len() < 1000, "{response:?}");
            let line = lab.wait_for_access(response.header("x-request-id"));
            assert!(line.contains("\"cause\":\"unauthorized\"") && line.len() < 2000, "{} bytes", line.len());
        }
    }
    assert!(backend.take().is_empty());
    assert_eq!(get_with(port, "/", &format!("Authorization: Bearer {good}\r\n")).status, 200);
    assert_eq!(backend.take()[0].values("x-user"), ["me"]);
}

#[test]
fn service_that_trickles_its_response_delays_only_the_requests_that_ask_it() {
    if lacks_own_engine() {
        return;
    }
    let (backend, port) = (Recorder::start(), free_port());
    let trickling = Scripted::start(|mut stream| {
        read_head(&mut stream);
        let mut bytes = b"HTTP/1.1 200 OK\r\nRemote-User: root\r\nContent-Length: 9\r\n\r\n123456789".iter().cycle();
        while bytes.next().is_some_and(|byte| stream.write_all(&[*byte]).is_ok()) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let filter = "{ forward_auth: { pool: auth, path: /verify, timeout: 2s, copy_headers: [Remote-User] } }";
    let pool = format!(
        "pools: {{ auth: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{}' }}] }}, ",
        trickling.port
    );
    let text = yaml(port, backend.port, filter, "").replace("pools: { ", &pool);
    let lab = Lab::start(&text.replace("routes: [", "routes: [{ path: /open, pool: a }, "));
    let waiting: Vec<_> = (0..8).map(|_| std::thread::spawn(move || get(port, "/closed").status)).collect();
    while trickling.connections() == 0 {
        std::thread::yield_now();
    }
    for _ in 0..20 {
        assert_eq!(get(port, "/open").status, 200);
    }
    assert!(waiting.iter().any(|client| !client.is_finished()), "others are served meanwhile");
    for client in waiting {
        assert_eq!(client.join().unwrap(), 503);
    }
    lab.wait_for_access("\"cause\":\"auth_unavailable\"");
    let received = backend.take();
    assert_eq!(received.len(), 20);
    assert!(received.iter().all(|received| received.values("remote-user").is_empty()));
}
