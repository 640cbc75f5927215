//! Traffic, configuration tests, `l7lb explain` and `l7lb plan` agree on the outcome of requests.

use std::collections::BTreeMap;
use std::process::Output;

use l7lb::control::plan::Plan;
use l7lb::control::plan::replay::OutcomeKind;
use l7lb::decision::explanation::Explanation;
use l7lb::pool::Health;
use serde_json::Value;

use crate::lab::client::{get, get_with};
use crate::lab::{Backend, Lab, free_port, run};

/// Sends `GET path` with these routes and returns the status code and the route in the access log. Asserts that
/// `explain` reports the same, and that a configuration test passes with this expectation and fails with another.
fn checked_outcome(routes: &str, path: &str) -> (u16, Option<String>) {
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
    assert_eq!(explained["rejection"]["cause"], line["cause"], "{explained:#}");
    let selected: Vec<_> =
        explained["routes"].as_array().unwrap().iter().filter(|route| route["verdict"] == "matches").collect();
    assert_eq!(selected.len(), usize::from(route.is_some()), "{explained:#}");

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
fn traffic_configuration_tests_and_explain_agree_before_and_after_a_route_change() {
    let before = "[{ path: /, pool: a, name: rest }, { path: /apiA, pool: b, name: api-a }]";
    let after = "[{ path: /, pool: a, name: rest, methods: [POST] }, { path: /apiA/x, pool: b, name: api-a }]";
    let (rest, api) = (Some("rest".to_owned()), Some("api-a".to_owned()));
    assert_eq!(checked_outcome(before, "/apiA/y"), (200, api.clone()));
    assert_eq!(checked_outcome(before, "/apiAB"), (200, rest));
    assert_eq!(checked_outcome(after, "/apiA/y"), (404, None));
    assert_eq!(checked_outcome(after, "/apiA/./%78"), (200, api.clone()));
    assert_eq!(checked_outcome(after, "/apiA/x/%2F"), (200, api.clone()));
    assert_eq!(checked_outcome(after, "/apiA/x%2F.."), (404, None));
    assert_eq!(checked_outcome(after, "/apiA/x/..%2F"), (400, api));
    let coffee = "[{ path: /, pool: a, name: rest }, { path: /caf%C3%A9, pool: b, name: coffee }]";
    assert_eq!(checked_outcome(coffee, "/caf\u{e9}/|?{|}"), (200, Some("coffee".to_owned())));
}

#[test]
fn access_log_of_a_404_contains_the_nearest_routes() {
    let (one, port) = (Backend::start("one"), free_port());
    let lab = Lab::start(&crate::one_pool(port, &[&one], "access_log: { format: json }"));
    assert_eq!(get(port, "/apia").status, 404);
    let line: Value = serde_json::from_str(&lab.wait_for_access("/apia")).unwrap();
    assert_eq!(line["detail"], "nearest: */apiA");
}

/// Runs `l7lb explain --live`.
fn explain_live(lab: &Lab, arguments: &[&str]) -> Output {
    let file = lab.folder().join("l7lb.yaml");
    run(&[&["explain", "--live", "--conf", file.to_str().unwrap()], arguments].concat())
}

fn live_explanation(lab: &Lab, arguments: &[&str]) -> Explanation {
    let output = explain_live(lab, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The outcome of a request according to an explanation.
fn outcome(explanation: &Explanation) -> OutcomeKind {
    match (&explanation.rejection, explanation.pools.as_slice()) {
        (Some(rejection), _) => OutcomeKind::Rejected { status: rejection.status, cause: rejection.cause.clone() },
        (None, [share]) => OutcomeKind::Pool(share.pool.to_string()),
        (None, pools) => panic!("expected one pool: {pools:?}"),
    }
}

#[test]
fn traffic_live_explain_and_plan_agree_when_routes_change() {
    let (one, two, port) = (Backend::start("one"), Backend::start("two"), free_port());
    let yaml = |routes: &str| {
        format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\nreload: {{ watch: false }}\naccess_log: {{ format: json }}\n\
             pools:\n  a: {{ backends: [{{ address: '127.0.0.1:{}' }}] }}\n  b: {{ backends: [{{ address: '127.0.0.1:{}' }}] }}\n\
             routes: {routes}\n",
            one.port, two.port
        )
    };
    let before =
        yaml("[{ path: /, pool: a, name: rest }, { path: /api, pool: b, name: api }, { path: /old, pool: b }]");
    let after = yaml(
        "[{ path: /, pool: b, name: rest, methods: [POST] }, { path: /api, pool: b, name: api, rate_limit: { type: fixed_window, limit: 1, window: 1h } }, { path: /api/x, pool: a }, { path: /old, pool: a }]",
    );
    let paths =
        ["/", "/api", "/api", "/api/x/y", "/old/1", "/old/%2F", "/old/..%2Fapi", "/else/..", "/api/../old", "/.."];
    let lab = Lab::start(&before);
    // The outcome of each request. The explanation comes first, and the response must match it.
    let outcomes = || {
        paths.map(|path| {
            let explanation =
                live_explanation(&lab, &[&format!("http://localhost:{port}{path}"), "--from", "127.0.0.1"]);
            let response = get(port, path);
            match outcome(&explanation) {
                OutcomeKind::Rejected { status, .. } => assert_eq!(response.status, status, "{path}"),
                OutcomeKind::Pool(_) => {
                    let picked = explanation.picked.as_ref().unwrap();
                    let name = if picked.backend.port() == one.port { "one" } else { "two" };
                    assert_eq!((response.status, picked.chance), (200, 1.0), "{path}");
                    assert!(response.body.contains(name), "{path} by {name}");
                }
            }
            outcome(&explanation)
        })
    };
    let old = outcomes();
    let new = lab.folder().join("new.yaml");
    let server = std::fs::read_to_string(lab.folder().join("l7lb.yaml")).unwrap();
    let server = server.lines().next().unwrap().to_owned();
    std::fs::write(&new, format!("{server}\n{after}")).unwrap();
    let conf = lab.folder().join("l7lb.yaml").display().to_string();
    let planned = run(&["plan", new.to_str().unwrap(), "--conf", &conf, "--json"]);
    let plan: Plan = serde_json::from_slice(&planned.stdout).unwrap();
    std::fs::rename(&new, &conf).unwrap();
    let reloaded = run(&["reload", "--conf", &conf]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let new_outcomes = outcomes();
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for (from, to) in old.iter().zip(&new_outcomes).filter(|(from, to)| from != to) {
        *expected.entry(format!("{from} > {to}")).or_default() += 1.0;
    }
    let planned: BTreeMap<String, f64> =
        plan.replay.moves.iter().map(|one| (format!("{} > {}", one.from, one.to), one.requests)).collect();
    let wanted = [("pool a > 404 no_route", 2.0), ("pool b > 429 rate_limited", 1.0), ("pool b > pool a", 4.0)];
    assert_eq!(expected, wanted.map(|(text, count)| (text.to_owned(), count)).into());
    assert_eq!(planned, expected, "{plan}");
}

#[test]
fn live_explain_reports_limits_and_backends_without_side_effects() {
    let (one, two, port) = (Backend::start("one"), Backend::start("two"), free_port());
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\ntrusted_proxies: [127.0.0.0/8]\n\
         rate_limit: {{ type: fixed_window, limit: 3, window: 1h }}\n\
         pools: {{ p: {{ balance: round_robin, circuit_breaker: {{}}, backends: [{{ address: '127.0.0.1:{}', weight: 3 }}, {{ address: '127.0.0.1:{}' }}, {{ address: '127.0.0.1:{}', drain: true }}] }} }}\n\
         routes: [{{ path: /, pool: p, name: all }}]\n",
        one.port,
        two.port,
        free_port()
    );
    let lab = Lab::start(&yaml);
    let client = "X-Forwarded-For: 203.0.113.9";
    let url = format!("http://localhost:{port}/x");
    let explain = || live_explanation(&lab, &[&url, "--from", "127.0.0.1", "-H", client]);
    for left in [2, 1, 0] {
        for _ in 0..3 {
            let explanation = explain();
            let state = explanation.limits[0].state.as_ref().unwrap();
            assert_eq!((state.admitted, state.remaining), (true, left), "{explanation}");
            assert_eq!(explanation.client.to_string(), "203.0.113.9");
        }
        assert_eq!(get_with(port, "/x", &format!("{client}\r\n")).status, 200);
    }
    assert_eq!(get_with(port, "/x", &format!("{client}\r\n")).status, 429);
    let explanation = explain();
    let rejection = explanation.rejection.as_ref().unwrap();
    assert_eq!((rejection.status, rejection.cause.as_str()), (429, "rate_limited"));
    assert!(
        !explanation.limits[0].state.as_ref().unwrap().admitted
            && explanation.to_string().contains("(limit reached; the next request")
    );

    let explanation = live_explanation(&lab, &[&url]);
    let candidates = explanation.pools[0].candidates.as_ref().unwrap();
    let chances: Vec<f64> = candidates.iter().map(|candidate| candidate.chance).collect();
    let mut sorted = chances.clone();
    sorted.sort_by(f64::total_cmp);
    assert_eq!(sorted, [0.0, 0.25, 0.75], "{explanation}");
    let picked = explanation.picked.as_ref().unwrap();
    assert_eq!(
        (picked.backend.port(), picked.chance, explanation.pools[0].in_flight),
        (one.port, 0.75, Some(0)),
        "{explanation}"
    );
    assert!(candidates.iter().any(|one| one.address == picked.backend && one.health == Health::Up), "{explanation}");
    let text = explanation.to_string();
    assert!(
        text.contains("not picked, ") && text.contains(&format!("most likely backend 127.0.0.1:{} (75 %)", one.port))
    );
}

/// The health paths of a listener precede limits and routing, as in traffic.
#[test]
fn explain_says_that_l7lb_responds_itself() {
    let (one, port, plain) = (Backend::start("one"), free_port(), free_port());
    let yaml = format!(
        "listeners:\n  - {{ address: '127.0.0.1:{port}', health: {{ live: /livez, ready: /readyz }} }}\n  \
           - {{ address: '127.0.0.1:{plain}' }}\n\
         rate_limit: {{ type: fixed_window, limit: 100, window: 1h }}\n\
         pools: {{ p: {{ backends: [{{ address: '127.0.0.1:{}' }}] }} }}\nroutes: [{{ path: /, pool: p }}]\n",
        one.port
    );
    let lab = Lab::start(&yaml);
    let conf = lab.folder().join("l7lb.yaml").display().to_string();
    for (request, own) in [
        (format!("http://localhost:{port}/livez"), Some("the liveness check of the listener")),
        (format!("HEAD http://localhost:{port}/readyz?x"), Some("the readiness check of the listener")),
        (format!("POST http://localhost:{port}/livez"), None),
        (format!("http://localhost:{port}/livez/"), None),
        (format!("http://localhost:{plain}/livez"), None),
        (format!("OPTIONS http://localhost:{port}/x"), Some("`Max-Forwards: 0`")),
    ] {
        let arguments = [request.as_str(), "-H", "Max-Forwards: 0"];
        let file = run(&[&["explain", "--json", "--conf", &conf], &arguments[..]].concat());
        let file: Explanation = serde_json::from_slice(&file.stdout).unwrap();
        for explanation in [live_explanation(&lab, &arguments), file] {
            assert_eq!(explanation.own_response.as_deref(), own, "{request}: {explanation}");
            assert_eq!(explanation.pools.is_empty(), own.is_some(), "{request}: {explanation}");
            assert!(explanation.rejection.is_none(), "{request}: {explanation}");
            let outcome = own.map_or("route `*/` sends it".to_owned(), |own| format!("l7lb responds itself: {own}"));
            assert!(explanation.to_string().contains(&outcome), "{request}: {explanation}");
        }
    }
    assert_eq!((get(port, "/livez").body.as_str(), get(plain, "/livez").body.contains("one")), ("live\n", true));
    let tests = format!("tests: [{{ request: 'http://localhost:{port}/livez', expect: {{ route: '*/' }} }}]\n");
    Lab::configure(lab.folder(), &format!("{yaml}{tests}"));
    let checked = run(&["check", &conf]);
    let words = String::from_utf8_lossy(&checked.stderr);
    assert!(words.contains("but l7lb responds itself: the liveness check of the listener"), "{words}");
}

#[test]
fn explain_reports_421_for_a_host_outside_the_certificate() {
    let (one, port) = (Backend::start("one"), free_port());
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:{port}', tls: {{ certificates: [{{ certificate: '{{folder}}/localhost.pem', key: '{{folder}}/localhost-key.pem' }}] }} }}]\n\
         pools: {{ p: {{ backends: [{{ address: '127.0.0.1:{}' }}] }} }}\nroutes: [{{ path: /, pool: p }}]\n",
        one.port
    );
    let lab = Lab::start(&yaml);
    let url = format!("https://localhost:{port}/");
    let conf = lab.folder().join("l7lb.yaml").display().to_string();
    for (host, status) in [("localhost", None), ("other.test", Some(421))] {
        let host = format!("Host: {host}");
        let live = live_explanation(&lab, &[&url, "-H", &host]);
        let file = run(&["explain", &url, "-H", &host, "--conf", &conf, "--json"]);
        let file: Explanation = serde_json::from_slice(&file.stdout).unwrap();
        for explanation in [live, file] {
            assert_eq!(explanation.rejection.map(|rejection| rejection.status), status, "{host}");
        }
    }
}

#[test]
fn explain_exits_with_2_on_invalid_input_and_1_without_a_process() {
    let (one, port) = (Backend::start("one"), free_port());
    let lab = Lab::start(&crate::one_pool(port, &[&one], ""));
    assert_eq!(explain_live(&lab, &["no-url"]).status.code(), Some(2));
    assert_eq!(run(&["explain", "http://x/"]).status.code(), Some(2), "no file and no process");
    let folder = lab.folder().to_owned();
    let conf = folder.join("l7lb.yaml");
    let text = std::fs::read_to_string(&conf).unwrap().replace("upgrade.sock", "missing/upgrade.sock");
    let other = folder.join("other.yaml");
    std::fs::write(&other, text).unwrap();
    let output = run(&["explain", "--live", "http://x/", "--conf", other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "no process listens on this socket");
}
