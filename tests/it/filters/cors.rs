//! The filter `cors` with preflights and other requests, on HTTP/1.1 and HTTP/2.

use serde_json::Value;

use super::h2_client;
use crate::lab::client::{Response, exchange, get_with};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Held;
use crate::lab::{Lab, free_port, run};
use crate::reload::{UNWATCHED, file, reloaded, replace};

const APP: &str = "https://app.test";

fn yaml(port: u16, backend: u16, cors: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\naccess_log: {{ format: json }}\n\
         pools: {{ a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }} }}\n\
         routes: [{{ path: /, pool: a, filters: [{{ cors: {cors} }}] }}]\n{UNWATCHED}"
    )
}

const RULES: &str = "{ origins: ['https://app.test', 'https://*.app.test'], methods: [GET, PUT], headers: [X-Token], \
                     expose: [X-Total], credentials: true, max_age: 10m }";

/// A preflight from a page of `origin`, on HTTP/1.1 and HTTP/2.
fn preflights(port: u16, origin: &str) -> [Response; 2] {
    let fields = format!("Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n");
    let text = format!("OPTIONS /x HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n");
    let fields = [("origin", origin), ("access-control-request-method", "PUT")];
    [exchange(port, text.as_bytes()), h2_client::request(port, "OPTIONS", "/x", &fields)]
}

#[test]
fn preflight_is_responded_to_without_the_backend() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, RULES));
    for response in preflights(port, APP) {
        assert_eq!((response.status, response.body.as_str()), (204, ""), "{response:?}");
        for (name, value) in [
            ("access-control-allow-origin", APP),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "X-Token"),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(response.header(name), value, "{response:?}");
        }
    }
    for response in preflights(port, "https://evil.test") {
        assert_eq!((response.status, response.header("access-control-allow-origin")), (403, ""), "{response:?}");
    }
    let line: Value = serde_json::from_str(&lab.wait_for_access("\"status\":403")).unwrap();
    assert_eq!(line["cause"], "cors");
    assert!(backend.take().is_empty(), "no preflight reaches the backend");
}

#[test]
fn response_of_the_backend_gets_the_fields_for_the_origin_instead_of_its_own() {
    let answer = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\nContent-Length: 2\r\n\r\nok";
    let (backend, port) = (Recorder::answering(answer), free_port());
    let _lab = Lab::start(&yaml(port, backend.port, RULES));
    for (origin, allowed) in [("https://x.app.test", true), ("https://evil.test", false)] {
        let h1 = get_with(port, "/", &format!("Origin: {origin}\r\n"));
        let h2 = h2_client::request(port, "GET", "/", &[("origin", origin)]);
        for response in [h1, h2] {
            let wanted = if allowed { [origin, "true", "X-Total"] } else { ["", "", ""] };
            let names = ["allow-origin", "allow-credentials", "expose-headers"];
            let real = names.map(|name| response.header(&format!("access-control-{name}")));
            assert_eq!((response.status, real), (200, wanted), "{response:?}");
            assert!(response.header("vary").contains("Origin"), "{response:?}");
        }
    }
    assert_eq!(backend.take().len(), 4, "requests of any origin are forwarded");
}

#[test]
fn error_response_of_l7lb_can_be_read_by_the_page() {
    let (nothing, port) = (free_port(), free_port());
    let _lab = Lab::start(&yaml(port, nothing, RULES));
    let response = get_with(port, "/", &format!("Origin: {APP}\r\n"));
    assert_eq!((response.status, response.header("access-control-allow-origin")), (502, APP), "{response:?}");
}

#[test]
fn explain_agrees_with_traffic_about_preflights() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, RULES));
    for (origin, wanted) in [(APP, "responds with 204 cors"), ("https://evil.test", "responds with 403 cors")] {
        let [real, _] = preflights(port, origin);
        let url = format!("OPTIONS http://localhost:{port}/x");
        let origin = format!("Origin: {origin}");
        let method = "Access-Control-Request-Method: PUT";
        let configuration = file(&lab);
        let path = configuration.to_str().unwrap();
        let output = run(&["explain", &url, "--header", &origin, "--header", method, "--json", "--conf", path]);
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let effect = explained["filters"][0]["effect"].as_str().unwrap();
        assert!(effect == wanted && effect.contains(&real.status.to_string()), "{explained:#}");
    }
}

#[test]
fn request_keeps_the_rules_with_which_it_started_during_a_reload() {
    let (backend, port) = (Held::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, RULES));
    let request = std::thread::spawn(move || get_with(port, "/", &format!("Origin: {APP}\r\n")));
    backend.arrived();
    replace(&lab, &yaml(port, backend.port, "{ origins: ['https://other.test'] }"));
    reloaded(&lab);
    assert_eq!(preflights(port, APP).map(|response| response.status), [403, 403]);
    backend.release();
    assert_eq!(request.join().unwrap().header("access-control-allow-origin"), APP);
}
