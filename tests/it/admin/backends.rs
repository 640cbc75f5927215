//! Backends that are drained, disabled, enabled and weighed while they are used.

use std::collections::BTreeSet;
use std::process::Output;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ask, socket};
use crate::lab::client::{get, get_with};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};
use crate::one_pool;
use crate::reload::{UNWATCHED, reloaded, replace};

/// `l7lb backends …`, asked of this process.
fn command(lab: &Lab, arguments: &[&str]) -> Output {
    let socket = socket(lab).display().to_string();
    run(&[&["backends"], arguments, &["--socket", &socket]].concat())
}

/// One that must succeed; what it printed.
fn done(lab: &Lab, arguments: &[&str]) -> String {
    let ended = command(lab, arguments);
    assert!(ended.status.success(), "{arguments:?}: {}\n{}", text(&ended.stderr), lab.log());
    text(&ended.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn address(backend: &Backend) -> String {
    format!("127.0.0.1:{}", backend.port)
}

fn told(lab: &Lab, backend: &Backend) -> Value {
    ask(lab, Method::GET, &format!("/pools/a/backends/{}", address(backend)), "").1
}

/// Who answers, in so many requests.
fn answering(port: u16, requests: usize) -> BTreeSet<String> {
    (0..requests).map(|_| get(port, "/apiA").header("x-backend").to_owned()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn five_backends_are_replaced_through_the_socket_without_a_failed_request() {
    let mut backends: Vec<Backend> = (1..=5).map(|number| Backend::start(&format!("old-{number}"))).collect();
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &backends.iter().collect::<Vec<_>>(), UNWATCHED));
    let load = Load::start(port, "/apiA", 6, 3);
    for backend in &mut backends {
        load.wait_for_more(100);
        let address = address(backend);
        done(&lab, &["drain", "a", &address, "--wait"]);
        assert_eq!(told(&lab, backend)["in_flight"], 0);
        backend.kill();
        backend.restart_as(&backend.name().replace("old", "new"));
        done(&lab, &["enable", "a", &address, "--wait"]);
    }
    load.wait_for_more(100);
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
    assert!(answering(port, 10).iter().all(|name| name.starts_with("new-")));
    assert!(!done(&lab, &["--json"]).contains("since"), "nothing is left of it");
}

#[test]
fn a_change_is_shown_and_survives_reloads_until_the_file_says_otherwise() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let yaml = one_pool(port, &[&one, &two], UNWATCHED);
    let lab = Lab::start(&yaml);
    eventually("both are used", PATIENCE, || answering(port, 10).len() == 2);
    let said = done(&lab, &["drain", "a", &address(&one)]);
    assert!(said.contains("draining, up") && said.contains("draining since 20"), "{said}");
    assert_eq!(answering(port, 10), names(&["two"]));
    done(&lab, &["weight", "a", &address(&one), "7"]);
    let before = told(&lab, &one);
    assert_eq!(
        (&before["state"], &before["weight"], &before["available"]),
        (&json!("draining"), &json!(7), &json!(false))
    );
    assert_eq!(before["written"], json!({ "address": address(&one), "weight": 1, "backup": false, "drain": false }));
    // Another key of the pool, another backend, another pool: all of it leaves what was said.
    let other = format!("{{ address: '{}', weight: 3 }}", address(&two));
    let changed = yaml.replace(&format!("{{ address: '{}' }}", address(&two)), &other).replace("fall: 2", "fall: 3");
    replace(&lab, &changed);
    reloaded(&lab);
    assert_eq!(told(&lab, &one)["override"], before["override"]);
    assert_eq!(answering(port, 10), names(&["two"]));
    let rewritten = format!("{{ address: '{}', weight: 2 }}", address(&one));
    replace(&lab, &changed.replace(&format!("{{ address: '{}' }}", address(&one)), &rewritten));
    reloaded(&lab);
    let after = told(&lab, &one);
    assert_eq!((&after["override"], &after["state"], &after["weight"]), (&Value::Null, &json!("enabled"), &json!(2)));
    lab.wait_for_log("override ended, the file says something else");
    eventually("it is used again", PATIENCE, || answering(port, 20).len() == 2);
    done(&lab, &["disable", "a", &address(&one)]);
    done(&lab, &["weight", "a", &address(&one), "5"]);
    let said = done(&lab, &["reset", "a", &address(&one), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["override"], Value::Null);
}

#[test]
fn a_backend_in_maintenance_is_not_checked_and_comes_back_after_a_check() {
    let (one, mut two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one, &two], UNWATCHED));
    eventually("both are up", PATIENCE, || answering(port, 10).len() == 2);
    done(&lab, &["disable", "a", &address(&two), "--wait"]);
    two.kill();
    let ended = command(&lab, &["enable", "a", &address(&two), "--wait", "--timeout", "300ms"]);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(text(&ended.stderr).contains("may not be given requests after 300ms: "), "{ended:?}");
    eventually("the check fails", PATIENCE, || told(&lab, &two)["health"] == "down");
    done(&lab, &["disable", "a", &address(&two)]);
    two.restart();
    assert_eq!(answering(port, 10), names(&["one"]));
    done(&lab, &["enable", "a", &address(&two), "--wait"]);
    eventually("it is used", PATIENCE, || answering(port, 10).len() == 2);
}

#[test]
fn sticky_clients_move_from_a_backend_that_is_drained_and_stay_where_they_are_then() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let yaml = one_pool(port, &[&one, &two], UNWATCHED).replace("pool: a }", "pool: a, sticky: { cookie: {} } }");
    let lab = Lab::start(&yaml);
    let first = get(port, "/apiA");
    let cookie = |answer: &crate::lab::client::Answer| {
        format!("Cookie: {}\r\n", answer.header("set-cookie").split(';').next().unwrap())
    };
    let bound = cookie(&first);
    let (at, other) = if first.header("x-backend") == "one" { (&one, "two") } else { (&two, "one") };
    assert!((0..5).all(|_| get_with(port, "/apiA", &bound).header("x-backend") == first.header("x-backend")));
    done(&lab, &["drain", "a", &address(at)]);
    let moved = get_with(port, "/apiA", &bound);
    assert_eq!(moved.header("x-backend"), other);
    done(&lab, &["enable", "a", &address(at)]);
    let bound = cookie(&moved);
    assert!((0..5).all(|_| get_with(port, "/apiA", &bound).header("x-backend") == other));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    let path = |pool: &str, address: &str, what: &str| format!("/pools/{pool}/backends/{address}/{what}");
    let own = address(&one);
    for (path, body, status, cause) in [
        (path("b", &own, "state"), r#"{"state":"draining"}"#, 404, "unknown_pool"),
        (path("a", "127.0.0.1:1", "state"), r#"{"state":"draining"}"#, 404, "unknown_backend"),
        (path("a", "nonsense", "state"), r#"{"state":"draining"}"#, 400, "malformed"),
        (path("a", &own, "state"), r#"{"state":"gone"}"#, 400, "malformed"),
        (path("a", &own, "weight"), r#"{"weight":1001}"#, 400, "malformed"),
        (path("a", &own, "weight"), r#"{"weight":-1}"#, 400, "malformed"),
        (path("a", &own, "nothing"), "{}", 404, "unknown_path"),
    ] {
        let (answered, problem) = ask(&lab, Method::PUT, &path, body);
        assert_eq!((answered.as_u16(), problem["cause"].as_str()), (status, Some(cause)), "{path} {body}: {problem}");
    }
    assert_eq!(told(&lab, &one)["override"], Value::Null);
    let ended = command(&lab, &["drain", "b", &own]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(text(&ended.stderr).contains("there is no pool `b`; known here: a"), "{ended:?}");
    assert_eq!(command(&lab, &["weight", "a", &own, "many"]).status.code(), Some(2));
    let nowhere = run(&["pools", "--socket", "/nowhere/control.sock"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("no process answers at /nowhere/control.sock"), "{nowhere:?}");
    assert_eq!(ask(&lab, Method::GET, "/backends?pool=b", "").0, StatusCode::NOT_FOUND);
}

#[test]
fn an_upgrade_hands_over_what_was_said_about_backends() {
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    let port = free_port();
    let yaml = one_pool(port, &[&one, &two, &three], UNWATCHED);
    let mut lab = Lab::start(&yaml);
    done(&lab, &["drain", "a", &address(&one)]);
    done(&lab, &["weight", "a", &address(&two), "7"]);
    done(&lab, &["drain", "a", &address(&three)]);
    let (first, second) = (told(&lab, &one), told(&lab, &two));
    // The new process finds other words about the third one.
    let third = format!("{{ address: '{}'", address(&three));
    replace(&lab, &yaml.replace(&third, &format!("{third}, weight: 2")));
    let load = Load::start(port, "/apiA", 2, 1);
    let next = lab.successor();
    lab.signal(nix::sys::signal::Signal::SIGQUIT);
    next.wait_until_ready();
    lab.wait_exit(PATIENCE);
    assert_eq!(told(&next, &one)["override"], first["override"]);
    assert_eq!((&told(&next, &two)["override"], &told(&next, &two)["weight"]), (&second["override"], &json!(7)));
    assert_eq!(told(&next, &three)["override"], Value::Null);
    next.wait_for_log("override not taken over, the file says something else");
    assert!(!answering(port, 20).contains("one"));
    load.wait_for_more(50);
    assert_eq!(load.stop().failed, Vec::<String>::new());
}
