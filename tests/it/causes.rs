//! Causes: the same name for the same reason in the access log, on error pages and for failed attempts.

use std::io::Write;

use serde_json::{Value, json};

use crate::lab::client::{exchange, get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, free_port};
use crate::{one_pool, unchecked};

#[test]
fn each_failed_attempt_has_its_cause_in_the_access_log() {
    let closes = Scripted::start(|mut stream| drop(read_head(&mut stream)));
    let port = free_port();
    let lab =
        unchecked(port, &[free_port(), closes.port, free_port()], ", retry: { attempts: 3, on: [connect, reset] }");
    let response = get(port, "/all");
    assert_eq!(response.status, 502, "{response:?}");
    let line = lab.wait_for_access("path=/all ");
    let (_, causes) = line.split_once(" failed_attempts=").unwrap();
    let mut causes: Vec<&str> = causes.split(' ').next().unwrap().split(',').collect();
    causes.sort_unstable();
    assert_eq!(causes, ["backend_failed", "connect_failed", "connect_failed"], "{line}");
    assert!(line.contains(" attempts=3 "), "{line}");
}

#[test]
fn response_after_a_failed_attempt_has_the_cause_of_that_attempt_only() {
    let errors = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
    });
    let (good, port) = (Backend::start("good"), free_port());
    let lab = Lab::start(&format!(
        "access_log: {{ format: json }}\n\
         listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ balance: round_robin, passive_health: off, health_check: {{ type: none }}, backends: [127.0.0.1:{}, 127.0.0.1:{}] }} }}\n\
         routes: [{{ path: /, pool: p, retry: {{ on: [503] }} }}]",
        errors.port, good.port
    ));
    for number in 0..4 {
        assert_eq!(get(port, &format!("/{number}")).status, 200);
    }
    let lines: Vec<Value> = (0..4)
        .map(|number| serde_json::from_str(&lab.wait_for_access(&format!("\"path\":\"/{number}\""))).unwrap())
        .collect();
    for line in &lines {
        let failed = (line["attempts"] == 2).then(|| json!(["retried_response"]));
        assert_eq!((&line["failed_attempts"], &line["cause"]), (&failed.unwrap_or_default(), &Value::Null), "{line}");
    }
    assert!(lines.iter().any(|line| line["attempts"] == 2), "{lines:?}");
}

#[test]
fn response_of_a_filter_or_of_l7lb_has_its_cause_in_the_access_log() {
    let (backend, port) = (Backend::start("one"), free_port());
    let lab = Lab::start(
        &one_pool(
            port,
            &[&backend],
            "chains:\n  answer: [{ respond: { status: 418 } }]\n  closed: [{ maintenance: {} }]\nfilters: []",
        )
        .replace(
            "routes: [",
            "routes: [{ path: /tea, filters: [{ chain: answer }] }, { path: /closed, filters: [{ chain: closed }] }, ",
        ),
    );
    for (request, status, cause) in [
        ("GET /tea", 418, "respond"),
        ("GET /closed", 503, "maintenance"),
        ("GET /nowhere", 404, "no_route"),
        ("GET /apiA/x", 200, "-"),
    ] {
        let response = exchange(port, format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        assert_eq!(response.status, status, "{request}: {response:?}");
        let path = request.split(' ').next_back().unwrap();
        let line = lab.wait_for_access(&format!("path={path} "));
        assert!(line.ends_with(&format!(" cause={cause}")) || line.contains(&format!(" cause={cause} ")), "{line}");
    }
    let last = b"OPTIONS /apiA/last HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 0\r\n\r\n";
    assert_eq!(exchange(port, last).status, 200);
    assert!(lab.wait_for_access("path=/apiA/last ").contains(" cause=last_recipient"));
}
