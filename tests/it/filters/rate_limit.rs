//! The filter `rate_limit` on HTTP/1.1 and HTTP/2: keys, several windows, names, and what a reload keeps.

use serde_json::Value;

use super::h2_client;
use crate::lab::client::{get, get_with};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Held;
use crate::lab::{Lab, free_port, run};
use crate::reload::{UNWATCHED, file, reloaded, replace};

/// A file with these routes to the pool `a`.
fn yaml(port: u16, backend: u16, routes: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\naccess_log: {{ format: json }}\n\
         pools: {{ a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }} }}\n\
         routes: [{routes}]\n{UNWATCHED}"
    )
}

fn route(path: &str, filter: &str) -> String {
    format!("{{ path: {path}, pool: a, filters: [{{ rate_limit: {{ {filter} }} }}] }}")
}

const TWO: &str = "limits: { type: fixed_window, limit: 2, window: 1h }";

#[test]
fn each_key_has_its_limit_and_responses_name_what_is_left() {
    let (backend, port) = (Recorder::start(), free_port());
    let filter = format!("name: per-key, by: 'header:X-Key', {TWO}");
    let lab = Lab::start(&yaml(port, backend.port, &route("/", &filter)));
    let first = get_with(port, "/", "X-Key: a\r\n");
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, "\"per-key\";q=2;w=3600"));
    assert!(first.header("ratelimit").starts_with("\"per-key\";r=1;t="), "{first:?}");
    assert_eq!(h2_client::request(port, "GET", "/", &[("x-key", "a")]).status, 200);
    let h1 = get_with(port, "/", "X-Key: a\r\n");
    let h2 = h2_client::request(port, "GET", "/", &[("x-key", "a")]);
    for response in [h1, h2] {
        assert_eq!(response.status, 429, "{response:?}");
        assert!(response.header("ratelimit").starts_with("\"per-key\";r=0;t="), "{response:?}");
        let wait: u64 = response.header("retry-after").parse().unwrap();
        assert!((1..=3600).contains(&wait));
    }
    assert_eq!(get_with(port, "/", "X-Key: b\r\n").status, 200);
    let line: Value = serde_json::from_str(&lab.wait_for_access("\"status\":429")).unwrap();
    assert_eq!(line["cause"], "rate_limited");
    assert_eq!(backend.take().len(), 3);
}

#[test]
fn routes_share_a_limit_with_a_name_only() {
    let (backend, port) = (Recorder::start(), free_port());
    let (own, shared) = (TWO.to_owned(), format!("name: all, {TWO}"));
    let routes = [route("/a", &shared), route("/b", &shared), route("/c", &own), route("/d", &own)].join(", ");
    let _lab = Lab::start(&yaml(port, backend.port, &routes));
    assert_eq!(["/a", "/b", "/a", "/b"].map(|path| get(port, path).status), [200, 200, 429, 429]);
    assert_eq!(["/c", "/d", "/c", "/d"].map(|path| get(port, path).status), [200; 4]);
}

#[test]
fn observed_limit_rejects_nothing_and_explain_shows_what_it_would() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, &route("/", &format!("mode: observe, {TWO}"))));
    for _ in 0..5 {
        let response = get(port, "/");
        assert_eq!((response.status, response.header("ratelimit")), (200, ""));
    }
    let (url, configuration) = (format!("http://localhost:{port}/"), file(&lab));
    let output = run(&["explain", &url, "--live", "--json", "--conf", configuration.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("observes: 3 requests were over it"), "{text} {output:?}");
}

#[test]
fn explain_counts_nothing_and_agrees_with_traffic() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, &route("/", TWO)));
    let (url, configuration) = (format!("http://localhost:{port}/"), file(&lab));
    let effect = || {
        let arguments = ["explain", &url, "--from", "127.0.0.1", "--live", "--json", "--conf"];
        let output = run(&[&arguments[..], &[configuration.to_str().unwrap()]].concat());
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        explained["filters"][0]["effect"].as_str().unwrap().to_owned()
    };
    for _ in 0..3 {
        assert_eq!(effect(), "passes");
    }
    assert_eq!([200, 200, 429].map(|_| get(port, "/").status), [200, 200, 429]);
    assert_eq!(effect(), "rejects it with 429 rate_limited");
}

#[test]
fn reload_keeps_the_counts_of_an_equal_filter_and_requests_on_their_way() {
    let (backend, port) = (Held::start(), free_port());
    let shared = format!("name: all, {TWO}");
    let lab = Lab::start(&yaml(port, backend.port, &route("/", &shared)));
    let request = std::thread::spawn(move || get(port, "/"));
    backend.arrived();
    replace(&lab, &yaml(port, backend.port, &[route("/", &shared), route("/new", &shared)].join(", ")));
    reloaded(&lab);
    let other = std::thread::spawn(move || get(port, "/new").status);
    backend.arrived();
    assert_eq!(get(port, "/new").status, 429, "the request on its way counts");
    backend.release();
    backend.release();
    let response = request.join().unwrap();
    assert_eq!((response.status, other.join().unwrap()), (200, 200));
    assert!(response.header("ratelimit").starts_with("\"all\";r=1;"), "{response:?}");
}
