//! Traffic, the configuration's tests and `l7lb explain` agree, whatever is changed.

use serde_json::Value;

use crate::lab::client::get;
use crate::lab::{Backend, Lab, free_port, run};

/// What each of the three says about `GET path` with these routes: status and route of the traffic's
/// access line; of `explain`; and whether a test that expects exactly that passes.
fn all_three(routes: &str, path: &str) -> (u16, Option<String>) {
    let (one, two, port) = (Backend::start("one"), Backend::start("two"), free_port());
    let yaml = |tests: &str| {
        format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\naccess_log: {{ format: json }}\n\
             pools:\n  a: {{ backends: [{{ address: '127.0.0.1:{}' }}] }}\n  b: {{ backends: [{{ address: '127.0.0.1:{}' }}] }}\n\
             routes: {routes}\n{tests}",
            one.port, two.port
        )
    };
    let lab = Lab::start(&yaml(""));
    let file = lab.folder().join("l7lb.yaml");
    let file = file.to_str().unwrap();
    let status = get(port, path).status;
    let line: Value = serde_json::from_str(&lab.wait_for_access("\"method\":\"GET\"")).unwrap();
    let route = line["route"].as_str().map(str::to_owned);

    let url = format!("GET http://localhost:{port}{path}");
    let explained = run(&["explain", &url, "--json", "--conf", file]);
    let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
    assert_eq!(explained["route"].as_str(), route.as_deref(), "{explained:#}");
    assert_eq!(explained["cause"], line["cause"], "{explained:#}");
    let takers: Vec<_> =
        explained["routes"].as_array().unwrap().iter().filter(|route| route["takes"] == true).collect();
    assert_eq!(takers.len(), usize::from(route.is_some()), "{explained:#}");

    let expect = match &route {
        Some(route) if status == 200 => format!("{{ route: '{route}' }}"),
        _ => format!("{{ status: {status} }}"),
    };
    for (expect, code) in [(expect.as_str(), 0), ("{ status: 413 }", 2)] {
        Lab::configure(lab.folder(), &yaml(&format!("tests: [{{ request: '{url}', expect: {expect} }}]")));
        let checked = run(&["check", file]);
        assert_eq!(checked.status.code(), Some(code), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    (status, route)
}

#[test]
fn traffic_tests_and_explanations_agree_when_a_route_changes() {
    let before = "[{ path: /, pool: a, name: rest }, { path: /apiA, pool: b, name: api-a }]";
    let after = "[{ path: /, pool: a, name: rest, methods: [POST] }, { path: /apiA/x, pool: b, name: api-a }]";
    let (rest, api) = (Some("rest".to_owned()), Some("api-a".to_owned()));
    assert_eq!(all_three(before, "/apiA/y"), (200, api.clone()));
    assert_eq!(all_three(before, "/apiAB"), (200, rest));
    assert_eq!(all_three(after, "/apiA/y"), (404, None));
    assert_eq!(all_three(after, "/apiA/./%78"), (200, api.clone()));
    assert_eq!(all_three(after, "/apiA/x/%2F"), (400, api));
}

#[test]
fn a_404_names_the_nearest_routes_in_the_log() {
    let (one, port) = (Backend::start("one"), free_port());
    let lab = Lab::start(&crate::one_pool(port, &[&one], "access_log: { format: json }"));
    assert_eq!(get(port, "/apia").status, 404);
    let line: Value = serde_json::from_str(&lab.wait_for_access("/apia")).unwrap();
    assert_eq!(line["detail"], "nearest: */apiA");
}
