//! The filter `rewrite`.

use std::io::Write as _;

use serde_json::Value;

use crate::lab::client::{connect, exchange, get, get_with, read_response};
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Held;
use crate::lab::{Lab, free_port, run};
use crate::reload::{UNWATCHED, reloaded, replace};

/// A configuration with one route with this filter and these further keys.
fn yaml(port: u16, backend: u16, rewrite: &str, route: &str, more: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }} }}\n\
         routes: [{{ path: /, pool: a, name: rest{route}, filters: [{{ rewrite: {rewrite} }}] }}]\n\
         access_log: {{ format: json }}\n{more}"
    )
}

const PREFIX: &str = "{ strip_prefix: /app, add_prefix: /v1, host: '${request.query.site}.internal:81', query: { remove: site, set: { lang: en } } }";

#[test]
fn backend_gets_the_rewritten_target_over_both_versions_of_http_and_the_log_the_requested_one() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, PREFIX, "", ""));
    let target = "/app/x%20y?a=1&site=shop";
    assert_eq!(get_with(port, target, "X-Forwarded-Prefix: /forged\r\n").status, 200);
    let mut frames = Frames::connect(port);
    frames.headers(1, true, &request(b"GET", target.as_bytes()));
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
    let received = backend.take();
    assert_eq!(received.len(), 2);
    for received in received {
        assert_eq!(received.brief(), "GET /v1/x%20y?a=1&lang=en");
        assert_eq!(received.values("host"), ["shop.internal:81"]);
        assert_eq!(received.values("x-forwarded-prefix"), ["/app"]);
        assert_ne!(received.values("x-forwarded-host"), ["shop.internal:81"], "it is the requested one");
    }
    let line: Value = serde_json::from_str(&lab.wait_for_access("/app/")).unwrap();
    assert_eq!((&line["path"], &line["status"]), (&"/app/x%20y".into(), &200.into()));
}

#[test]
fn explain_agrees_with_traffic_about_a_rewritten_request() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, PREFIX, "", ""));
    let file = lab.folder().join("l7lb.yaml");
    let explain = |target: &str| {
        let url = format!("http://localhost:{port}{target}");
        let output = run(&["explain", &url, "--json", "--conf", file.to_str().unwrap()]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let effect = explain("/app/x?site=b")["filters"][0]["effect"].clone();
    assert_eq!(effect, "path /v1/x?lang=en; host b.internal:81; prefix /app");
    get(port, "/app/x?site=b");
    assert_eq!(backend.take()[0].brief(), "GET /v1/x?lang=en");
    assert_eq!(explain("/app/x?site=a%20b")["rejection"]["status"], 400);
    assert_eq!(get(port, "/app/x?site=a%20b").status, 400);
    assert!(backend.take().is_empty());
}

#[test]
fn redirects_and_cookies_of_the_backend_are_mapped_back_also_from_the_cache() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let backend = Recorder::answering(
        b"HTTP/1.1 301 Moved Permanently\r\nLocation: http://inner/login?a#b\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n",
    );
    let port = free_port();
    let rewrite = "{ strip_prefix: /app, host: inner, map_back: true }";
    let _lab = Lab::start(&yaml(port, backend.port, rewrite, ", cache: {}", ""));
    for _ in 0..3 {
        assert_eq!(get(port, "/app/x").header("location"), "http://localhost/app/login?a#b");
    }
    assert_eq!(backend.take().len(), 1);
    let elsewhere = get(port, "/other");
    assert_eq!(elsewhere.header("location"), "http://inner/login?a#b", "the requested path has no prefix");

    let backend = Recorder::answering(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/; Secure\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    );
    let port = free_port();
    let _other = Lab::start(&yaml(port, backend.port, "{ strip_prefix: /app, map_back: true }", "", ""));
    let mut stream = connect(port);
    stream.write_all(b"GET /app/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = crate::lab::client::read_head(&mut stream).to_lowercase();
    let cookies: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect();
    assert_eq!(cookies, ["a=1; path=/app; secure", "b=2"]);
}

#[test]
fn redirect_by_l7lb_itself_is_not_mapped_back() {
    let port = free_port();
    let rewrite = "{ strip_prefix: /app, map_back: true } }, { redirect: { path: /new }";
    let _lab = Lab::start(&yaml(port, 1, rewrite, "", ""));
    assert_eq!(get(port, "/app/x").header("location"), "http://localhost/new");
}

#[test]
fn hostile_value_in_a_rewritten_path_is_a_400_or_stays_one_request() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, "{ path: '/t/${request.header.x-tenant}/x' }", "", ""));
    for value in ["a%00b", "../../admin", "%2e%2e", "..%2fadmin", "..\\admin", "%", "a%0"] {
        let response = get_with(port, "/", &format!("X-Tenant: {value}\r\n"));
        assert_eq!(response.status, 400, "{value}");
    }
    let line: Value = serde_json::from_str(&lab.wait_for_access("%00")).unwrap();
    assert_eq!((&line["cause"], &line["detail"]), (&"bad_request".into(), &"the rewritten path has %00".into()));
    assert!(backend.take().is_empty());
    for (value, path) in [
        ("a HTTP/1.1", "/t/a%20HTTP/1.1/x"),
        ("a%0d%0aHost: b", "/t/a%0D%0AHost:%20b/x"),
        ("a?b#c", "/t/a%3Fb%23c/x"),
        ("caf\u{e9}", "/t/caf%C3%A9/x"),
    ] {
        assert_eq!(get_with(port, "/", &format!("X-Tenant: {value}\r\n")).status, 200, "{value}");
        let received = backend.take();
        assert_eq!(received.len(), 1, "{value}");
        assert_eq!(received[0].brief(), format!("GET {path}"), "{value}");
    }
    let raw = exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\nX-Tenant: a\rb\r\nConnection: close\r\n\r\n");
    assert_eq!(raw.status, 400);
}

#[test]
fn request_keeps_its_rewrite_when_a_reload_replaces_it_meanwhile() {
    let backend = Held::start_with(|mut stream, arrived| {
        use std::io::Read as _;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            head.push(byte[0]);
        }
        arrived();
        stream
            .write_all(b"HTTP/1.1 302 Found\r\nLocation: /in\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
    });
    let port = free_port();
    let prefix = |prefix: &str| format!("{{ strip_prefix: /{prefix}, map_back: true }}");
    let lab = Lab::start(&yaml(port, backend.port, &prefix("a"), "", UNWATCHED));
    let mut stream = connect(port);
    stream.write_all(b"GET /a/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    backend.arrived();
    replace(&lab, &yaml(port, backend.port, &prefix("b"), "", UNWATCHED));
    reloaded(&lab);
    backend.release();
    assert_eq!(read_response(&mut stream).header("location"), "/a/in");
    backend.release();
    assert_eq!(get(port, "/b/x").header("location"), "/b/in");
}
