//! Backends that are registered through the control API.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{address, backends, wait_until_available, yaml};
use crate::control::{call, socket};
use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};

fn path(backend: &Backend) -> String {
    format!("/pools/p/backends/{}", address(backend))
}

fn put(lab: &Lab, backend: &Backend, settings: &str) -> (StatusCode, serde_json::Value) {
    call(lab, Method::PUT, &path(backend), settings)
}

fn start() -> (u16, Lab) {
    let port = free_port();
    (port, Lab::start(&yaml(port, "api")))
}

#[test]
fn pool_starts_empty_and_serves_registered_backends() {
    let (port, lab) = start();
    assert_eq!(get(port, "/").status, 503);
    let one = Backend::start("one");
    let (status, registered) = put(&lab, &one, r#"{ "weight": 3, "zone": "a", "labels": { "version": "7" } }"#);
    assert_eq!(status, StatusCode::OK, "{registered}");
    assert_eq!((&registered["revision"], &registered["expires"]), (&json!(1), &json!(null)));
    let listed = backends(&lab);
    assert_eq!((&listed[0]["source"], &listed[0]["labels"]), (&json!("api"), &json!({ "version": "7" })));
    assert_eq!((&listed[0]["weight"], &listed[0]["zone"]), (&json!(3), &json!("a")));
    wait_until_available(&lab, &[&one]);
    assert_eq!(get(port, "/").status, 200);
    let (_, changed) = put(&lab, &one, r#"{ "weight": 5 }"#);
    assert_eq!(changed["revision"], 2);
    assert_eq!(backends(&lab)[0]["weight"], 5, "the response arrives after the change");
    let (_, renewed) = put(&lab, &one, r#"{ "weight": 5 }"#);
    assert_eq!(renewed["revision"], 2);
    assert_eq!(lab.log().matches("backend registration changed:").count(), 1, "{}", lab.log());
}

#[test]
fn invalid_registration_gets_its_cause_and_changes_nothing() {
    let one = Backend::start("one");
    let port = free_port();
    let fixed = Backend::start("fixed");
    let yaml = yaml(port, &format!("[{{ api: {{}}, deny: [10.0.0.0/8] }}], backends: ['{}']", address(&fixed)))
        .replace("pools: {", "pools: { q: { backends: ['127.0.0.1:1'] },");
    let lab = Lab::start(&yaml);
    for (path, body, status, cause) in [
        ("/pools/q/backends/127.0.0.1:5".to_owned(), "{}", 409, "no_registrations"),
        ("/pools/x/backends/127.0.0.1:5".to_owned(), "{}", 404, "unknown_pool"),
        (path(&fixed), "{}", 409, "configured"),
        ("/pools/p/backends/10.1.1.1:80".to_owned(), "{}", 422, "address_rejected"),
        (format!("/pools/p/backends/127.0.0.1:{port}"), "{}", 422, "address_rejected"),
        ("/pools/p/backends/nonsense".to_owned(), "{}", 400, "malformed"),
        (path(&one), r#"{ "weight": 1001 }"#, 400, "malformed"),
        (path(&one), r#"{ "wieght": 1 }"#, 400, "malformed"),
        (path(&one), r#"{ "ttl": "10ms" }"#, 400, "malformed"),
        (path(&one), r#"{ "zone": "a b" }"#, 400, "malformed"),
        (path(&one), r#"{ "labels": { "a": "\n" } }"#, 400, "malformed"),
        (path(&one), "", 400, "malformed"),
    ] {
        let (got, problem) = call(&lab, Method::PUT, &path, body);
        assert_eq!((got.as_u16(), &problem["cause"]), (status, &json!(cause)), "{path} {body}: {problem}");
    }
    for (method, suffix) in [(Method::DELETE, ""), (Method::POST, "/renew")] {
        let (status, problem) = call(&lab, method, &format!("{}{suffix}", path(&one)), "");
        assert_eq!((status.as_u16(), &problem["cause"]), (404, &json!("unknown_backend")));
    }
    wait_until_available(&lab, &[&fixed]);
}

#[test]
fn registration_that_is_not_renewed_ends() {
    let (_, lab) = start();
    let (renewed, forgotten) = (Backend::start("renewed"), Backend::start("forgotten"));
    put(&lab, &renewed, r#"{ "ttl": "2s" }"#);
    put(&lab, &forgotten, r#"{ "ttl": "2s" }"#);
    wait_until_available(&lab, &[&renewed, &forgotten]);
    eventually("the other one expires", PATIENCE, || {
        let (status, _) = call(&lab, Method::POST, &format!("{}/renew", path(&renewed)), "");
        assert_eq!(status, StatusCode::OK);
        std::thread::sleep(Duration::from_millis(100));
        backends(&lab).len() == 1
    });
    lab.wait_for_log(&format!("backend registration expired: pool=p backend={}", address(&forgotten)));
    wait_until_available(&lab, &[&renewed]);
}

#[test]
fn entity_tag_lets_only_one_of_concurrent_writers_succeed() {
    let (_, lab) = start();
    let one = Backend::start("one");
    let send = |condition: &str, weight: u32| {
        let body = format!("{{\"weight\":{weight}}}");
        let request = format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{condition}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            path(&one),
            body.len()
        );
        crate::control::raw_exchange(&lab, request)
    };
    let created = send("If-None-Match: *\r\n", 1);
    assert!(created.starts_with("HTTP/1.1 200") && created.contains("etag: \"1\""), "{created}");
    assert!(send("If-None-Match: *\r\n", 2).starts_with("HTTP/1.1 412"));
    assert!(send("If-Match: \"1\"\r\n", 3).contains("etag: \"2\""));
    let late = send("If-Match: \"1\"\r\n", 4);
    assert!(late.starts_with("HTTP/1.1 412") && late.contains("condition_failed"), "{late}");
    assert_eq!(backends(&lab)[0]["weight"], 3);
    // Of many writers at once, exactly one creates it.
    let two = Backend::start("two");
    let lab = Arc::new(lab);
    let writers = (0..8).map(|weight| {
        let (lab, path) = (Arc::clone(&lab), path(&two));
        std::thread::spawn(move || {
            let body = format!("{{\"weight\":{}}}", weight + 1);
            let request = format!(
                "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIf-None-Match: *\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            crate::control::raw_exchange(&lab, request).starts_with("HTTP/1.1 200")
        })
    });
    let writers: Vec<_> = writers.collect();
    let created = writers.into_iter().map(|writer| writer.join().unwrap()).filter(|created| *created).count();
    assert_eq!(created, 1);
}

#[test]
fn registrations_survive_kill_restart_and_upgrade() {
    let port = free_port();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut lab = Lab::start_in(Arc::clone(&folder), &yaml(port, "api"));
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    put(&lab, &one, "{}");
    put(&lab, &two, r#"{ "ttl": "1h", "backup": true }"#);
    wait_until_available(&lab, &[&one, &two]);
    lab.signal(Signal::SIGKILL);
    lab.wait_exit(PATIENCE);
    let mut lab = Lab::start_in(Arc::clone(&folder), &yaml(port, "api"));
    wait_until_available(&lab, &[&one, &two]);

    let load = Load::start(port, "/", 2, 1);
    load.wait_for_more(50);
    let successor = lab.successor();
    lab.signal(Signal::SIGQUIT);
    lab.wait_exit(PATIENCE);
    wait_until_available(&successor, &[&one, &two]);
    load.wait_for_more(50);
    load.stop_without_failure();
    let (_, listed) = call(&successor, Method::PUT, &path(&two), r#"{ "ttl": "1h", "backup": true }"#);
    assert_eq!(listed["revision"], 2, "the registration is the same: {listed}");
}

#[test]
fn rolling_deployment_through_the_commands_under_load_fails_no_request() {
    let (port, lab) = start();
    let socket = socket(&lab).display().to_string();
    let command = |arguments: &[&str]| {
        let output = run(&[&["backends"], arguments, &["--socket", &socket]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut old: Vec<Backend> = (0..5).map(|n| Backend::start(&format!("old{n}"))).collect();
    for backend in &old {
        command(&["add", "p", &address(backend)]);
    }
    wait_until_available(&lab, &old.iter().collect::<Vec<_>>());
    let load = Load::start(port, "/", 4, 2);
    load.wait_for_more(100);
    let mut new: Vec<Backend> = Vec::new();
    for n in 0..5 {
        new.push(Backend::start(&format!("new{n}")));
        command(&["add", "p", &address(&new[n]), "--ttl", "1m", "--label", "version=2"]);
        wait_until_available(&lab, &old.iter().chain(&new).collect::<Vec<_>>());
        let mut left = old.remove(0);
        let removed = command(&["remove", "p", &address(&left), "--wait"]);
        assert!(removed.contains("0 requests in flight"), "{removed}");
        left.kill();
        load.wait_for_more(50);
    }
    load.stop_without_failure();
    let again = command(&["remove", "p", "127.0.0.1:1"]);
    assert!(again.contains("is not registered"), "{again}");
    assert!(command(&["renew", "p", &address(&new[0])]).contains("version=2"));
}
