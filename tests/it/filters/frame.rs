//! What all filters have in common: the order of chains, routes without a pool, reloads, `explain` and `plan`.

use serde_json::Value;

use crate::lab::client::{connect, exchange, get, get_with, read_head, read_response};
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Held;
use crate::lab::{Lab, free_port, run};
use crate::reload::{UNWATCHED, reloaded, replace};
use std::io::{Read as _, Write as _};

/// A configuration with these chains of the file, the listener and the route.
fn yaml(port: u16, backend: u16, (file, listener, route): (&str, &str, &str), more: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}', filters: [{listener}] }}]\nfilters: [{file}]\n\
         pools: {{ a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }} }}\n\
         routes: [{{ path: /, pool: a, name: rest, filters: [{route}] }}]\naccess_log: {{ format: json }}\n{more}"
    )
}

fn sets(value: &str) -> String {
    format!(
        "{{ headers: {{ request: {{ set: {{ X-Level: {value} }}, add: {{ X-All: {value} }} }}, response: {{ set: {{ X-Level: {value} }}, add: {{ X-All: {value} }} }} }} }}"
    )
}

#[test]
fn chains_run_in_the_order_file_listener_route_and_the_route_has_the_last_word() {
    let (backend, port) = (Recorder::start(), free_port());
    let _lab = Lab::start(&yaml(port, backend.port, (&sets("file"), &sets("listener"), &sets("route")), ""));
    let mut stream = connect(port);
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = read_head(&mut stream).to_lowercase();
    let values = |name: &str| head.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
    assert_eq!(values("x-level: "), ["route"], "{head}");
    assert_eq!(values("x-all: "), ["file", "listener", "route"], "{head}");
    let received = &backend.take()[0];
    assert_eq!(received.values("x-level"), ["route"]);
    assert_eq!(received.values("x-all"), ["file", "listener", "route"]);
}

#[test]
fn request_without_a_route_reaches_the_filters_of_file_and_listener() {
    let (backend, port) = (Recorder::start(), free_port());
    let text = yaml(port, backend.port, (&sets("file"), "{ redirect: { www: remove } }", ""), "");
    let lab = Lab::start(&text.replace("path: /,", "path: /only,"));
    let missing = get(port, "/x");
    assert_eq!((missing.status, missing.header("x-level")), (404, "file"));
    let redirected = exchange(port, b"GET /x HTTP/1.1\r\nHost: www.a.test\r\n\r\n");
    assert_eq!((redirected.status, redirected.header("location")), (302, "http://a.test/x"));
    assert_eq!(redirected.header("x-level"), "file", "a response of l7lb has the fields of filters, too");
    let line: Value = serde_json::from_str(&lab.wait_for_access("redirect")).unwrap();
    assert_eq!((&line["cause"], &line["status"]), (&"redirect".into(), &302.into()));
}

#[test]
fn route_without_a_pool_responds_and_rejects_what_passes_its_filters() {
    let port = free_port();
    let _lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\nroutes:\n\
           - {{ path: /text, filters: [{{ respond: {{ body: hello, headers: {{ X-Route: '${{route}}' }} }} }}], name: text }}\n\
           - {{ path: /moved, filters: [{{ redirect: {{ host: b.test }} }}] }}\n"
    ));
    let response = get(port, "/text");
    assert_eq!((response.status, response.body.as_str()), (200, "hello"));
    assert_eq!((response.header("x-route"), response.header("content-type")), ("text", "text/plain; charset=utf-8"));
    let mut stream = connect(port);
    stream.write_all(b"HEAD /text HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.to_lowercase().contains("content-length: 5\r\n") && all.ends_with("\r\n\r\n"), "{all}");
    let at_target = exchange(port, b"GET /moved HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(at_target.status, 404, "it passes the redirect, and there is no pool");
    let mut frames = Frames::connect(port);
    frames.headers(1, true, &request(b"GET", b"/text"));
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
}

#[test]
fn connection_stays_open_after_a_response_of_a_filter_to_a_request_with_a_body() {
    let port = free_port();
    let _lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\nroutes: [{{ path: /, filters: [{{ respond: {{ status: 204 }} }}] }}]\n"
    ));
    let mut stream = connect(port);
    for _ in 0..3 {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        let response = read_response(&mut stream);
        assert_eq!((response.status, response.header("content-length")), (204, ""));
    }
}

#[test]
fn request_keeps_its_filters_when_a_reload_replaces_them_meanwhile() {
    let (backend, port) = (Held::start(), free_port());
    let (one, two) = (
        "{ headers: { response: { set: { X-Listener: a } } } }",
        "{ headers: { response: { set: { X-Listener: b } } } }",
    );
    let lab = Lab::start(&yaml(port, backend.port, ("", one, &sets("a")), UNWATCHED));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    backend.arrived();
    replace(&lab, &yaml(port, backend.port, ("", two, &sets("b")), UNWATCHED));
    reloaded(&lab);
    backend.release();
    let response = read_response(&mut stream);
    assert_eq!((response.header("x-level"), response.header("x-listener")), ("a", "a"));
    backend.release();
    let again = get(port, "/");
    assert_eq!((again.header("x-level"), again.header("x-listener")), ("b", "b"));
}

#[test]
fn explain_shows_each_filter_with_its_effect_and_agrees_with_traffic() {
    let (backend, port) = (Recorder::start(), free_port());
    let route = "{ headers: { request: { set: { X-Client: '${client.ip}', Authorization: secret } } } }, { redirect: { path: /new } }";
    let lab = Lab::start(&yaml(port, backend.port, (&sets("file"), "", route), ""));
    let file = lab.folder().join("l7lb.yaml");
    let url = format!("http://localhost:{port}/old");
    let output = run(&["explain", &url, "--json", "--conf", file.to_str().unwrap()]);
    let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
    let filters = explained["filters"].as_array().unwrap();
    let brief: Vec<(&str, &str)> =
        filters.iter().map(|it| (it["level"].as_str().unwrap(), it["filter"].as_str().unwrap())).collect();
    assert_eq!(brief, [("file", "headers"), ("route", "headers"), ("route", "redirect")]);
    assert_eq!(filters[1]["effect"], "sets authorization: (hidden); sets x-client: 192.0.2.1");
    assert_eq!(filters[2]["effect"], format!("responds with 302 redirect to http://localhost:{port}/new"));
    assert_eq!(explained["own_response"], format!("302 redirect to http://localhost:{port}/new"));
    assert_eq!(get(port, "/old").header("location"), "http://localhost/new");
    assert!(backend.take().is_empty());
    assert_eq!(get(port, "/new").status, 200);
    assert_eq!(backend.take()[0].values("x-client"), ["127.0.0.1"]);
    let plan = lab.folder().join("next.yaml");
    std::fs::write(&plan, yaml(port, backend.port, ("", "", ""), "")).unwrap();
    let output = run(&["plan", plan.to_str().unwrap(), "--conf", file.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("302 redirect"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn configuration_tests_expect_what_filters_do() {
    let text = |expect: &str| {
        yaml(
            8080,
            1,
            (&sets("file"), "", "{ redirect: { www: remove } }, { headers: { request: { set: { X-A: b } } } }"),
            &format!("tests: [{{ request: 'http://{expect} }} }}]\n"),
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("l7lb.yaml");
    for (expect, code) in [
        ("www.a.test:8080/x', expect: { status: 302, cause: redirect, location: 'http://a.test:8080/x'", 0),
        ("www.a.test:8080/x', expect: { location: 'http://a.test/x'", 2),
        ("a.test:8080/x?y', expect: { path: '/x?y', host: 'a.test:8080', request_headers: { X-A: b }", 0),
        ("a.test:8080/x', expect: { request_headers: { X-A: c }", 2),
        ("a.test:8080/x', expect: { response_headers: { X-Level: file }", 0),
        ("a.test:8080/x', expect: { response_headers: { X-Level: other }", 2),
    ] {
        std::fs::write(&file, text(expect)).unwrap();
        let output = run(&["check", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{expect}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn stored_response_gets_the_fields_of_the_request_that_it_serves() {
    if crate::lab::lacks_own_engine() {
        return;
    }
    let backend = Recorder::answering(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok");
    let port = free_port();
    let route = "{ headers: { response: { set: { X-Tenant: '${request.header.x-tenant}' } } } }";
    let _lab =
        Lab::start(&yaml(port, backend.port, ("", "", route), "").replace("name: rest,", "name: rest, cache: {},"));
    for tenant in ["one", "two", "three"] {
        let response = get_with(port, "/x", &format!("X-Tenant: {tenant}\r\n"));
        assert_eq!((response.body.as_str(), response.header("x-tenant")), ("ok", tenant));
    }
    assert_eq!(backend.take().len(), 1);
}
