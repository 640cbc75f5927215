//! The flight recorder: `why`, `slow`, `errors` and `tap` of a running process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use http::Method;
use serde_json::Value;

use crate::control::call;
use crate::lab::client::{connect, exchange, get, get_with};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

fn l7lb(lab: &Lab, arguments: &[&str]) -> (bool, String) {
    let socket = crate::control::socket(lab);
    let output = Command::new(env!("CARGO_BIN_EXE_l7lb"))
        .args(arguments)
        .args(["--socket", socket.to_str().unwrap()])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// A pool whose first backend refuses connections.
fn yaml(port: u16, good: &Backend, closed: u16) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         trusted_proxies: ['127.0.0.1/32']\n\
         pools:\n\
         \x20 a: {{ health_check: {{ type: none }}, passive_health: off, balance: round_robin, \
         backends: ['127.0.0.1:{closed}', '127.0.0.1:{}'] }}\n\
         \x20 down: {{ health_check: {{ type: none }}, passive_health: off, backends: ['127.0.0.1:{closed}'] }}\n\
         routes:\n\
         \x20 - {{ path: /api, pool: a }}\n\
         \x20 - {{ path: /down, pool: down }}\n",
        good.port
    )
}

#[test]
fn why_explains_a_failed_request_by_the_id_of_its_error_page() {
    let good = Backend::start("one");
    let (port, closed) = (free_port(), free_port());
    let lab = Lab::start(&yaml(port, &good, closed));
    let response = get(port, "/down/page?secret=1");
    assert_eq!(response.status, 502);
    let id = response.header("x-request-id").to_owned();
    assert!(response.body.contains(&id), "the page names the id");
    let mut story = Value::Null;
    eventually("the request is kept", PATIENCE, || {
        let (status, found) = call(&lab, Method::GET, &format!("/requests/{id}"), "");
        story = found;
        status == 200
    });
    let timeline = &story["timeline"];
    assert_eq!(timeline["kept"], "failed");
    assert_eq!((timeline["status"].as_u64(), timeline["cause"].as_str()), (Some(502), Some("connect_failed")));
    assert_eq!(timeline["ended_by"], "backend");
    assert_eq!(timeline["path"], "/down/page", "without the query");
    assert_eq!(timeline["attempts"][0]["backend"], format!("127.0.0.1:{closed}"));
    assert_eq!(timeline["attempts"][0]["outcome"], "connect_failed");
    assert_eq!(story["replaced"], false);
    let (done, text) = l7lb(&lab, &["why", &id]);
    assert!(done, "{text}");
    for part in [
        "request        GET localhost/down/page (HTTP/1.1)",
        "route          */down, pool down",
        "outcome        502, cause connect_failed (not retried: no other backend); the backend failed",
        &format!("attempt 1: backend 127.0.0.1:{closed} chosen"),
        "  connect_failed",
        "configuration  generation 1 since",
        "now, without its query, headers and body:",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn timeline_of_a_retried_request_has_both_attempts_in_order() {
    let good = Backend::start("one");
    let (port, closed) = (free_port(), free_port());
    let lab = Lab::start(&yaml(port, &good, closed));
    // A live reader gets every request, whether it is kept or not.
    let mut tap = Command::new(env!("CARGO_BIN_EXE_l7lb"))
        .args(["tap", "--json", "--route", "*/api", "--socket", crate::control::socket(&lab).to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tap.stdout.take().unwrap()).lines();
    let (first, retried) = std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            // The reader may not be connected yet.
            for _ in 0..200 {
                get_with(port, "/api", "X-Request-Id: retried\r\n");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        let first = next();
        let retried = std::iter::repeat_with(next).take(20).find(|one| one["attempts"].as_array().unwrap().len() == 2);
        tap.kill().unwrap();
        tap.wait().unwrap();
        requests.join().unwrap();
        (first, retried.expect("round robin begins with the closed backend for every other request"))
    });
    assert_eq!(first["request_id"], "retried");
    let attempts = retried["attempts"].as_array().unwrap();
    assert_eq!(attempts[0]["outcome"], "connect_failed");
    assert_eq!(attempts[1]["outcome"], "2xx");
    let ms = |attempt: usize, key: &str| attempts[attempt][key].as_f64().unwrap();
    let order = [
        ms(0, "chosen_ms"),
        ms(0, "outcome_ms"),
        ms(1, "chosen_ms"),
        ms(1, "outcome_ms"),
        retried["duration_ms"].as_f64().unwrap(),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!((retried["cause"].as_str(), retried["ended_by"].as_str()), (Some(""), Some("response")));
}

#[test]
fn errors_lists_rejections_of_the_listener_and_aborts_and_can_be_narrowed() {
    let good = Backend::start("one");
    let (port, closed) = (free_port(), free_port());
    let lab = Lab::start(&yaml(port, &good, closed));
    exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n");
    get(port, "/nowhere");
    get(port, "/down");
    let mut aborted = connect(port);
    aborted.write_all(b"GET /api/delay/5s HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(aborted);
    let causes = |query: &str| -> Vec<String> {
        let (status, found) = call(&lab, Method::GET, &format!("/requests?{query}"), "");
        assert_eq!(status, 200, "{found}");
        found["requests"].as_array().unwrap().iter().map(|one| one["cause"].as_str().unwrap().to_owned()).collect()
    };
    eventually("the abort is kept", PATIENCE, || causes("cause=client_closed").len() == 1);
    let mut all = causes("kept=failed");
    all.sort();
    assert_eq!(all, ["bad_request", "client_closed", "connect_failed", "no_route"]);
    assert_eq!(causes("status=5xx"), ["connect_failed"]);
    assert_eq!(causes("status=404"), ["no_route"]);
    assert_eq!(causes("kept=failed&client=192.0.2.9"), [""; 0]);
    assert_eq!(causes("kept=failed&since=1h&n=1").len(), 1);
    assert_eq!(call(&lab, Method::GET, "/requests?status=abc", "").0, 400);
    assert_eq!(call(&lab, Method::GET, "/requests/unknown", "").0, 404);
    let (done, text) = l7lb(&lab, &["errors", "--status", "5xx", "--since", "10m"]);
    assert!(done && text.contains("connect_failed") && !text.contains("no_route"), "{text}");
    let (done, text) = l7lb(&lab, &["why", "unknown"]);
    assert!(!done && text.contains("no request with the id `unknown` is kept"), "{text}");
}

#[test]
fn slow_lists_the_slowest_first() {
    let good = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&crate::one_pool(port, &[&good], ""));
    // Each worker has its own estimate, which begins with its first request.
    for _ in 0..30 {
        get(port, "/apiA");
    }
    get(port, "/apiA/delay/300ms");
    get(port, "/apiA/delay/100ms");
    let mut durations: Vec<f64> = Vec::new();
    eventually("two slow requests are kept", PATIENCE, || {
        let (_, found) = call(&lab, Method::GET, "/requests?slowest=true&kept=slow&slower=90ms", "");
        durations =
            found["requests"].as_array().unwrap().iter().map(|one| one["duration_ms"].as_f64().unwrap()).collect();
        durations.len() == 2
    });
    assert!(durations[0] >= 300.0 && durations[1] >= 100.0, "{durations:?}");
    let (done, text) = l7lb(&lab, &["slow", "--route", "*/apiA", "--slower", "200ms"]);
    assert!(done && text.contains("/apiA/delay/300ms") && !text.contains("/delay/100ms"), "{text}");
}
