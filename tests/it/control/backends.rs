//! Operator overrides: backends that are drained, disabled, enabled and weighted under traffic.

use std::collections::BTreeSet;
use std::process::Output;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{call, socket};
use crate::lab::client::{get, get_with};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};
use crate::one_pool;
use crate::reload::{UNWATCHED, reloaded, replace};

/// Runs `l7lb backends …` against this process.
fn backends_command(lab: &Lab, arguments: &[&str]) -> Output {
    let socket = socket(lab).display().to_string();
    run(&[&["backends"], arguments, &["--socket", &socket]].concat())
}

/// Runs `l7lb backends …`, which must succeed; returns its standard output.
fn run_backends(lab: &Lab, arguments: &[&str]) -> String {
    let output = backends_command(lab, arguments);
    assert!(output.status.success(), "{arguments:?}: {}\n{}", text(&output.stderr), lab.log());
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn address(backend: &Backend) -> String {
    format!("127.0.0.1:{}", backend.port)
}

fn backend_state(lab: &Lab, backend: &Backend) -> Value {
    call(lab, Method::GET, &format!("/pools/a/backends/{}", address(backend)), "").1
}

/// The names of the backends that respond to this number of requests.
fn responding(port: u16, requests: usize) -> BTreeSet<String> {
    (0..requests).map(|_| get(port, "/apiA").header("x-backend").to_owned()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn five_backends_are_replaced_through_the_control_socket_without_a_failed_request() {
    let mut backends: Vec<Backend> = (1..=5).map(|number| Backend::start(&format!("old-{number}"))).collect();
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &backends.iter().collect::<Vec<_>>(), UNWATCHED));
    let load = Load::start(port, "/apiA", 6, 3);
    for backend in &mut backends {
        load.wait_for_more(100);
        let address = address(backend);
        run_backends(&lab, &["drain", "a", &address, "--wait"]);
        assert_eq!(backend_state(&lab, backend)["in_flight"], 0);
        backend.kill();
        backend.restart_as(&backend.name().replace("old", "new"));
        run_backends(&lab, &["enable", "a", &address, "--wait"]);
    }
    load.wait_for_more(100);
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
    assert!(responding(port, 10).iter().all(|name| name.starts_with("new-")));
    assert!(!run_backends(&lab, &["--json"]).contains("since"), "an enabled backend has no override");
}

#[test]
fn override_is_reported_and_survives_reloads_until_the_file_changes_the_backend() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let yaml = one_pool(port, &[&one, &two], UNWATCHED);
    let lab = Lab::start(&yaml);
    eventually("both backends are used", PATIENCE, || responding(port, 10).len() == 2);
    let output = run_backends(&lab, &["drain", "a", &address(&one)]);
    assert!(output.contains("draining, up") && output.contains("draining since 20"), "{output}");
    assert_eq!(responding(port, 10), names(&["two"]));
    run_backends(&lab, &["weight", "a", &address(&one), "7"]);
    let before = backend_state(&lab, &one);
    assert_eq!(
        (&before["state"], &before["weight"], &before["available"]),
        (&json!("draining"), &json!(7), &json!(false))
    );
    assert_eq!(before["configured"], json!({ "address": address(&one), "weight": 1, "backup": false, "drain": false }));
    // A reload that changes another key of the pool and another backend keeps the override.
    let other = format!("{{ address: '{}', weight: 3 }}", address(&two));
    let changed = yaml.replace(&format!("{{ address: '{}' }}", address(&two)), &other).replace("fall: 2", "fall: 3");
    replace(&lab, &changed);
    reloaded(&lab);
    assert_eq!(backend_state(&lab, &one)["override"], before["override"]);
    assert_eq!(responding(port, 10), names(&["two"]));
    let rewritten = format!("{{ address: '{}', weight: 2 }}", address(&one));
    replace(&lab, &changed.replace(&format!("{{ address: '{}' }}", address(&one)), &rewritten));
    reloaded(&lab);
    let after = backend_state(&lab, &one);
    assert_eq!((&after["override"], &after["state"], &after["weight"]), (&Value::Null, &json!("enabled"), &json!(2)));
    lab.wait_for_log("override ended, the configured settings changed");
    eventually("the backend is used again", PATIENCE, || responding(port, 20).len() == 2);
    run_backends(&lab, &["disable", "a", &address(&one)]);
    run_backends(&lab, &["weight", "a", &address(&one), "5"]);
    let output = run_backends(&lab, &["reset", "a", &address(&one), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&output).unwrap()["override"], Value::Null);
}

#[test]
fn disabled_backend_is_not_checked_and_returns_after_a_passed_health_check() {
    let (one, mut two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one, &two], UNWATCHED));
    eventually("both backends are healthy", PATIENCE, || responding(port, 10).len() == 2);
    run_backends(&lab, &["disable", "a", &address(&two), "--wait"]);
    two.kill();
    let output = backends_command(&lab, &["enable", "a", &address(&two), "--wait", "--timeout", "300ms"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("not available after 300ms: "), "{output:?}");
    eventually("the health check fails", PATIENCE, || backend_state(&lab, &two)["health"] == "down");
    run_backends(&lab, &["disable", "a", &address(&two)]);
    two.restart();
    assert_eq!(responding(port, 10), names(&["one"]));
    run_backends(&lab, &["enable", "a", &address(&two), "--wait"]);
    eventually("the backend is used again", PATIENCE, || responding(port, 10).len() == 2);
}

#[test]
fn sticky_clients_move_off_a_drained_backend_and_do_not_move_back() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let yaml = one_pool(port, &[&one, &two], UNWATCHED).replace("pool: a }", "pool: a, sticky: { cookie: {} } }");
    let lab = Lab::start(&yaml);
    let first = get(port, "/apiA");
    let cookie = |response: &crate::lab::client::Response| {
        format!("Cookie: {}\r\n", response.header("set-cookie").split(';').next().unwrap())
    };
    let affinity = cookie(&first);
    let (current, other) = if first.header("x-backend") == "one" { (&one, "two") } else { (&two, "one") };
    assert!((0..5).all(|_| get_with(port, "/apiA", &affinity).header("x-backend") == first.header("x-backend")));
    run_backends(&lab, &["drain", "a", &address(current)]);
    let moved = get_with(port, "/apiA", &affinity);
    assert_eq!(moved.header("x-backend"), other);
    run_backends(&lab, &["enable", "a", &address(current)]);
    let affinity = cookie(&moved);
    assert!((0..5).all(|_| get_with(port, "/apiA", &affinity).header("x-backend") == other));
}

#[test]
fn invalid_operations_are_rejected_without_side_effects() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    let path = |pool: &str, address: &str, key: &str| format!("/pools/{pool}/backends/{address}/{key}");
    let backend = address(&one);
    for (path, body, status, cause) in [
        (path("b", &backend, "state"), r#"{"state":"draining"}"#, 404, "unknown_pool"),
        (path("a", "127.0.0.1:1", "state"), r#"{"state":"draining"}"#, 404, "unknown_backend"),
        (path("a", "nonsense", "state"), r#"{"state":"draining"}"#, 400, "malformed"),
        (path("a", &backend, "state"), r#"{"state":"gone"}"#, 400, "malformed"),
        (path("a", &backend, "weight"), r#"{"weight":1001}"#, 400, "malformed"),
        (path("a", &backend, "weight"), r#"{"weight":-1}"#, 400, "malformed"),
        (path("a", &backend, "nothing"), "{}", 404, "unknown_path"),
    ] {
        let (status_code, problem) = call(&lab, Method::PUT, &path, body);
        assert_eq!(
            (status_code.as_u16(), problem["cause"].as_str()),
            (status, Some(cause)),
            "{path} {body}: {problem}"
        );
    }
    assert_eq!(backend_state(&lab, &one)["override"], Value::Null);
    let output = backends_command(&lab, &["drain", "b", &backend]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no pool `b`; known here: a"), "{output:?}");
    assert_eq!(backends_command(&lab, &["weight", "a", &backend, "many"]).status.code(), Some(2));
    let without_process = run(&["pools", "--socket", "/nowhere/control.sock"]);
    assert_eq!(without_process.status.code(), Some(1));
    assert!(
        text(&without_process.stderr).contains("no process responds at /nowhere/control.sock"),
        "{without_process:?}"
    );
    assert_eq!(call(&lab, Method::GET, "/backends?pool=b", "").0, StatusCode::NOT_FOUND);
}

#[test]
fn operator_overrides_survive_an_upgrade_unless_the_file_changed_the_backend() {
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    let port = free_port();
    let yaml = one_pool(port, &[&one, &two, &three], UNWATCHED);
    let mut lab = Lab::start(&yaml);
    run_backends(&lab, &["drain", "a", &address(&one)]);
    run_backends(&lab, &["weight", "a", &address(&two), "7"]);
    run_backends(&lab, &["drain", "a", &address(&three)]);
    let (first, second) = (backend_state(&lab, &one), backend_state(&lab, &two));
    // The new process finds a changed entry of the third backend in the file.
    let third = format!("{{ address: '{}'", address(&three));
    replace(&lab, &yaml.replace(&third, &format!("{third}, weight: 2")));
    let load = Load::start(port, "/apiA", 2, 1);
    let next = lab.successor();
    lab.signal(nix::sys::signal::Signal::SIGQUIT);
    next.wait_until_ready();
    lab.wait_exit(PATIENCE);
    assert_eq!(backend_state(&next, &one)["override"], first["override"]);
    assert_eq!(
        (&backend_state(&next, &two)["override"], &backend_state(&next, &two)["weight"]),
        (&second["override"], &json!(7))
    );
    assert_eq!(backend_state(&next, &three)["override"], Value::Null);
    next.wait_for_log("override dropped, the configured settings differ");
    assert!(!responding(port, 20).contains("one"));
    load.wait_for_more(50);
    assert_eq!(load.stop().failed, Vec::<String>::new());
}
