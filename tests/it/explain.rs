//! Traffic, the configuration's tests, `l7lb explain` and `l7lb plan` agree, whatever is changed.

use std::collections::BTreeMap;
use std::process::Output;

use l7lb::decision::explanation::Explanation;
use l7lb::plan::Plan;
use l7lb::plan::replay::End;
use l7lb::pool::Health;
use serde_json::Value;

use crate::lab::client::{get, get_with};
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
    assert_eq!(explained["refusal"]["cause"], line["cause"], "{explained:#}");
    let takers: Vec<_> =
        explained["routes"].as_array().unwrap().iter().filter(|route| route["verdict"] == "takes").collect();
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

/// `l7lb explain` of the running process.
fn ask_live(lab: &Lab, arguments: &[&str]) -> Output {
    let file = lab.folder().join("l7lb.yaml");
    run(&[&["explain", "--live", "--conf", file.to_str().unwrap()], arguments].concat())
}

fn explained_live(lab: &Lab, arguments: &[&str]) -> Explanation {
    let ended = ask_live(lab, &[arguments, &["--json"]].concat());
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// Where a request ends, as an explanation has it.
fn end(explanation: &Explanation) -> End {
    match (&explanation.refusal, explanation.pools.as_slice()) {
        (Some(refusal), _) => End::Refused { status: refusal.status, cause: refusal.cause.clone() },
        (None, [share]) => End::Pool(share.pool.to_string()),
        (None, pools) => panic!("one pool: {pools:?}"),
    }
}

#[test]
fn traffic_live_explanations_and_plans_agree_when_routes_change() {
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
    let paths = ["/", "/api", "/api", "/api/x/y", "/old/1", "/old/%2F", "/else/..", "/api/../old", "/.."];
    let lab = Lab::start(&before);
    // Where each of them ends: the explanation before it says so, and traffic does it.
    let ends = || {
        paths.map(|path| {
            let told = explained_live(&lab, &[&format!("http://localhost:{port}{path}"), "--from", "127.0.0.1"]);
            let answer = get(port, path);
            match end(&told) {
                End::Refused { status, .. } => assert_eq!(answer.status, status, "{path}"),
                End::Pool(_) => {
                    let picked = told.picked.as_ref().unwrap();
                    let name = if picked.backend.port() == one.port { "one" } else { "two" };
                    assert_eq!((answer.status, picked.chance), (200, 1.0), "{path}");
                    assert!(answer.body.contains(name), "{path} by {name}");
                }
            }
            end(&told)
        })
    };
    let was = ends();
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
    let is = ends();
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for (was, is) in was.iter().zip(&is).filter(|(was, is)| was != is) {
        *expected.entry(format!("{was} > {is}")).or_default() += 1.0;
    }
    let told: BTreeMap<String, f64> =
        plan.replay.moves.iter().map(|one| (format!("{} > {}", one.from, one.to), one.requests)).collect();
    let wanted = [("pool a > 404 no_route", 2.0), ("pool b > 429 rate_limited", 1.0), ("pool b > pool a", 3.0)];
    assert_eq!(expected, wanted.map(|(text, count)| (text.to_owned(), count)).into());
    assert_eq!(told, expected, "{plan}");
}

#[test]
fn a_running_process_explains_limits_and_backends_without_touching_them() {
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
    let ask = || explained_live(&lab, &[&url, "--from", "127.0.0.1", "-H", client]);
    for left in [2, 1, 0] {
        for _ in 0..3 {
            let told = ask();
            let state = told.limits[0].state.as_ref().unwrap();
            assert_eq!((state.admitted, state.remaining), (true, left), "{told}");
            assert_eq!(told.client.to_string(), "203.0.113.9");
        }
        assert_eq!(get_with(port, "/x", &format!("{client}\r\n")).status, 200);
    }
    assert_eq!(get_with(port, "/x", &format!("{client}\r\n")).status, 429);
    let told = ask();
    let refusal = told.refusal.as_ref().unwrap();
    assert_eq!((refusal.status, refusal.cause.as_str()), (429, "rate_limited"));
    assert!(!told.limits[0].state.as_ref().unwrap().admitted && told.to_string().contains("(spent; the next one"));

    let told = explained_live(&lab, &[&url]);
    let candidates = told.pools[0].candidates.as_ref().unwrap();
    let chances: Vec<f64> = candidates.iter().map(|candidate| candidate.chance).collect();
    let mut sorted = chances.clone();
    sorted.sort_by(f64::total_cmp);
    assert_eq!(sorted, [0.0, 0.25, 0.75], "{told}");
    let picked = told.picked.as_ref().unwrap();
    assert_eq!((picked.backend.port(), picked.chance, told.pools[0].in_flight), (one.port, 0.75, Some(0)), "{told}");
    assert!(candidates.iter().any(|one| one.address == picked.backend && one.health == Health::Up), "{told}");
    let said = told.to_string();
    assert!(
        said.contains("not picked, ") && said.contains(&format!("most likely backend 127.0.0.1:{} (75 %)", one.port))
    );
}

#[test]
fn a_host_beside_the_tls_name_is_misdirected_in_explanations_as_in_traffic() {
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
        let live = explained_live(&lab, &[&url, "-H", &host]);
        let file = run(&["explain", &url, "-H", &host, "--conf", &conf, "--json"]);
        let file: Explanation = serde_json::from_slice(&file.stdout).unwrap();
        for told in [live, file] {
            assert_eq!(told.refusal.map(|refusal| refusal.status), status, "{host}");
        }
    }
}

#[test]
fn what_cannot_be_explained_is_an_error_with_its_code() {
    let (one, port) = (Backend::start("one"), free_port());
    let lab = Lab::start(&crate::one_pool(port, &[&one], ""));
    assert_eq!(ask_live(&lab, &["no-url"]).status.code(), Some(2));
    assert_eq!(run(&["explain", "http://x/"]).status.code(), Some(2), "neither a file nor a process");
    let folder = lab.folder().to_owned();
    let conf = folder.join("l7lb.yaml");
    let text = std::fs::read_to_string(&conf).unwrap().replace("upgrade.sock", "nowhere/upgrade.sock");
    let other = folder.join("other.yaml");
    std::fs::write(&other, text).unwrap();
    let ended = run(&["explain", "--live", "http://x/", "--conf", other.to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(1), "no process is there");
}
