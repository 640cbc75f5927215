//! Routes with conditions on header fields, query parameters, cookies and clients.

use std::io::Write as _;

use l7lb::control::plan::Plan;
use serde_json::Value;

use crate::lab::client::{connect, get_with, read_response};
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Held;
use crate::lab::{Lab, free_port, run};
use crate::reload::{UNWATCHED, reloaded, replace};

const ROUTES: &str = "routes:\n\
  - { path: /, pool: plain, name: plain }\n\
  - { path: /, pool: special, name: header, headers: { X-Version: { exact: '2' } } }\n\
  - { path: /, pool: special, name: query, query: { preview: { present: true } }, headers: { X-Version: { exact: '2', not: true } } }\n\
  - { path: /cookie, pool: special, name: cookie, cookies: { beta: { regex: '^[0-9]+$' } } }\n\
  - { path: /client, pool: special, name: client, clients: 192.0.2.0/24, except_clients: 192.0.2.128/25 }\n";

fn yaml(port: u16, plain: u16, special: u16, rest: &str) -> String {
    let pool =
        |port: u16| format!("{{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{port}' }}] }}");
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\ntrusted_proxies: [127.0.0.0/8]\n\
         pools: {{ plain: {}, special: {} }}\naccess_log: {{ format: json }}\n{rest}",
        pool(plain),
        pool(special)
    )
}

/// A target, the header fields, and the route that it gets.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// The route of the last request in the access log.
fn logged(lab: &Lab, path: &str) -> String {
    let line: Value = serde_json::from_str(&lab.wait_for_access(path)).unwrap();
    line["route"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn conditions_select_routes_over_both_versions_of_http_and_explain_agrees() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, backend.port, ROUTES));
    let file = lab.folder().join("l7lb.yaml");
    let cases: [Case; 10] = [
        ("/1", &[], "plain"),
        ("/2", &[("x-version", "2")], "header"),
        ("/3", &[("x-version", "3")], "plain"),
        ("/4?preview", &[("x-version", "3")], "query"),
        ("/5?preview", &[("x-version", "2")], "header"),
        ("/cookie/6", &[("cookie", "a=b; beta=17")], "cookie"),
        ("/cookie/7", &[("cookie", "beta=x")], "plain"),
        ("/cookie/8", &[("x-version", "2")], "header"),
        ("/client/9", &[("x-forwarded-for", "192.0.2.5")], "client"),
        ("/client/0", &[("x-forwarded-for", "192.0.2.129")], "plain"),
    ];
    for (target, fields, route) in cases {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        assert_eq!(get_with(port, target, &lines).status, 200);
        let path = target.split('?').next().unwrap();
        assert_eq!(logged(&lab, &format!("\"{path}\"")), route, "{target} {fields:?}");

        let by_http2 = format!("/h2{target}").replace("/h2/c", "/c");
        let by_http2 = by_http2.replacen("/cookie/", "/cookie/h", 1).replacen("/client/", "/client/h", 1);
        let mut frames = Frames::connect(port);
        let pairs: Vec<(&[u8], &[u8])> =
            fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        frames.headers(1, true, &[&request(b"GET", by_http2.as_bytes())[..], &pairs].concat());
        assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
        let path = by_http2.split('?').next().unwrap();
        assert_eq!(logged(&lab, &format!("\"{path}\"")), route, "{by_http2} {fields:?}");

        let url = format!("http://localhost:{port}{target}");
        let headers: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut arguments = vec!["explain", &url, "--json", "--conf", file.to_str().unwrap(), "--from", "127.0.0.1"];
        headers.iter().for_each(|header| arguments.extend(["--header", header]));
        let output = run(&arguments);
        let explained: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(explained["route"], route, "{target}: {explained:#}");
    }
}

#[test]
fn stored_responses_of_routes_with_conditions_are_separate() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let plain = Recorder::answering(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nplain");
    let special = Recorder::answering(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nbeta");
    let port = free_port();
    let routes = ROUTES
        .replace("pool: plain,", "pool: plain, cache: {},")
        .replace("pool: special,", "pool: special, cache: {},");
    let _lab = Lab::start(&yaml(port, plain.port, special.port, &routes));
    for _ in 0..2 {
        assert_eq!(get_with(port, "/x", "X-Version: 2\r\n").body, "beta");
        assert_eq!(get_with(port, "/x", "").body, "plain");
    }
    assert_eq!((plain.take().len(), special.take().len()), (1, 1));
}

/// The reading of the path with a decoded slash must select the same route under the same conditions.
#[test]
fn encoded_slash_is_compared_under_the_same_conditions() {
    let (backend, port) = (Recorder::start(), free_port());
    let _lab = Lab::start(&yaml(
        port,
        backend.port,
        backend.port,
        "routes:\n  - { path: /, pool: plain }\n  - { path: /admin, pool: special, headers: { X-Role: { exact: admin } } }\n",
    ));
    assert_eq!(get_with(port, "/a/..%2Fadmin", "").status, 200, "without the field both are the first route");
    assert_eq!(get_with(port, "/a/..%2Fadmin", "X-Role: admin\r\n").status, 400);
}

#[test]
fn plan_replays_recorded_header_fields_and_notes_conditions_on_others() {
    let (backend, port) = (Recorder::start(), free_port());
    let rest = |version: &str| {
        format!(
            "recent_requests: {{ headers: X-Version }}\nreload: {{ watch: false }}\nroutes:\n  - {{ path: /, pool: plain }}\n  \
             - {{ path: /, pool: special, name: two, headers: {{ X-Version: {{ exact: '{version}' }} }} }}\n  \
             - {{ path: /q, pool: special, name: q, query: {{ a: {{ present: true }} }} }}\n"
        )
    };
    let lab = Lab::start(&yaml(port, backend.port, backend.port, &rest("2")));
    for version in ["2", "2", "3", "4"] {
        assert_eq!(get_with(port, "/x", &format!("X-Version: {version}\r\n")).status, 200);
    }
    let next = tempfile::tempdir_in(lab.folder()).unwrap();
    std::fs::write(next.path().join("localhost.pem"), "").unwrap();
    let file = Lab::configure(next.path(), &yaml(port, backend.port, backend.port, &rest("3")));
    // The `server` block stays unchanged.
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(&next.path().display().to_string(), &lab.folder().display().to_string());
    std::fs::write(&file, text).unwrap();
    let output =
        run(&["plan", file.to_str().unwrap(), "--json", "--conf", lab.folder().join("l7lb.yaml").to_str().unwrap()]);
    let plan: Plan = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let replay = plan.replay;
    assert_eq!((replay.requests, replay.moved), (4, 0.75), "{replay:?}");
    let notes = replay.notes.join("\n");
    assert!(notes.contains("route `q` has a condition on query a; queries are not recorded"), "{notes}");
    assert!(!notes.contains("x-version"), "{notes}");
}

#[test]
fn request_keeps_its_route_when_a_reload_changes_the_condition_meanwhile() {
    let (held, other, port) = (Held::start(), Recorder::start(), free_port());
    let rest = |version: &str| {
        format!(
            "{UNWATCHED}routes:\n  - {{ path: /, pool: plain, name: plain }}\n  \
             - {{ path: /, pool: special, name: special, headers: {{ X-Version: {{ exact: '{version}' }} }} }}\n"
        )
    };
    let lab = Lab::start(&yaml(port, other.port, held.port, &rest("2")));
    let mut stream = connect(port);
    stream.write_all(b"GET /first HTTP/1.1\r\nHost: a\r\nX-Version: 2\r\n\r\n").unwrap();
    held.arrived();
    replace(&lab, &yaml(port, other.port, held.port, &rest("3")));
    reloaded(&lab);
    held.release();
    assert_eq!(read_response(&mut stream).status, 200);
    assert_eq!(logged(&lab, "/first"), "special");
    assert_eq!(get_with(port, "/second", "X-Version: 2\r\n").body, "ok");
    assert_eq!(logged(&lab, "/second"), "plain");
}

#[test]
fn hostile_values_of_conditions_are_compared_in_linear_time_and_never_fail_a_request() {
    let (backend, port) = (Recorder::start(), free_port());
    let _lab = Lab::start(&yaml(
        port,
        backend.port,
        backend.port,
        "routes:\n  - { path: /, pool: plain }\n  - { path: /, pool: special, headers: { X-A: { regex: '^(a+)+$' } }, \
         query: { q: { regex: '(x*)*y' } }, cookies: { c: { prefix: a } } }\n",
    ));
    let long = "a".repeat(10_000);
    for lines in [
        format!("X-A: {long}!\r\nCookie: c={long}\r\n"),
        format!("Cookie: {}\r\n", "c=; ".repeat(4_000)),
        "X-A: \u{e9}\u{ff}\r\nX-A: a\r\nCookie: =;;=c; c\r\n".to_owned(),
    ] {
        let target = format!("/?q={}&%&q=%zz&=&&", "x".repeat(4_000));
        let status = get_with(port, &target, &lines).status;
        assert!(matches!(status, 200 | 400), "{status}");
    }
    assert!(!backend.take().is_empty());
}
