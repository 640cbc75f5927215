//! The active configuration, the events and the log level, as the API reports them.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{call, raw_exchange};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;
use crate::reload::{UNWATCHED, file, reloaded, replace};

fn get(lab: &Lab, path: &str) -> Value {
    let (status, response) = call(lab, Method::GET, path, "");
    assert_eq!(status, StatusCode::OK, "{response}");
    response
}

#[test]
fn active_configuration_is_reported_with_hash_and_generation_and_without_secrets() {
    let one = Backend::start("one");
    let port = free_port();
    let yaml = one_pool(port, &[&one], UNWATCHED).replace("path: /health", "path: /health, headers: { X-Key: '1234' }");
    let lab = Lab::start(&yaml);
    let hash = || {
        let sum = std::process::Command::new("sha256sum").arg(file(&lab)).output().unwrap();
        String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned()
    };
    let first = get(&lab, "/configuration");
    assert_eq!((&first["generation"], &first["sha256"]), (&json!(1), &json!(hash())));
    assert_eq!(first["file"], file(&lab).to_str().unwrap());
    assert_eq!(first["written"]["pools"]["a"]["health_check"]["headers"], json!({ "X-Key": "(hidden)" }));
    replace(&lab, &yaml.replace("pool: a }", "pool: b }"));
    let (status, problem) = call(&lab, Method::POST, "/reload", "");
    assert_eq!((status.as_u16(), &problem["cause"]), (422, &json!("configuration_rejected")));
    assert!(problem["diagnostics"][0].as_str().unwrap().contains("there is no pool `b`"), "{problem}");
    assert_eq!(get(&lab, "/configuration"), first, "a rejected file changes nothing");
    replace(
        &lab,
        &yaml.replace("path: /apiA,", "path: /apiB, rate_limit: { type: fixed_window, limit: 5, window: 1m },"),
    );
    reloaded(&lab);
    let second = get(&lab, "/configuration");
    assert_eq!((&second["generation"], &second["sha256"]), (&json!(2), &json!(hash())));
    assert!(second["applied"].as_str() > first["applied"].as_str());
    let route = json!({ "name": "*/apiB", "matches": "*/apiB", "pools": [{ "pool": "a", "weight": 1 }],
        "rate_limit": "5 requests in 1m, for each client", "sticky": false });
    assert_eq!(get(&lab, "/routes"), json!({ "routes": [route] }));
}

#[test]
fn events_are_returned_after_a_given_number() {
    let mut one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], UNWATCHED));
    let address = format!("127.0.0.1:{}", one.port);
    let events = |after: u64| get(&lab, &format!("/events?after={after}"))["events"].as_array().unwrap().clone();
    let up = &events(0)[0];
    assert_eq!((&up["event"], &up["pool"], &up["backend"]), (&json!("backend_up"), &json!("a"), &json!(address)));
    let seen = events(0).last().unwrap()["number"].as_u64().unwrap();
    one.kill();
    eventually("the backend_down event is recorded", PATIENCE, || {
        events(seen).iter().any(|event| event["event"] == "backend_down" && event["level"] == "warn")
    });
    assert!(events(seen).iter().all(|event| event["number"].as_u64() > Some(seen)));
    let (status, problem) = call(&lab, Method::GET, "/events?after=x", "");
    assert_eq!((status.as_u16(), &problem["cause"]), (400, &json!("malformed")));
    assert_eq!(call(&lab, Method::GET, "/events?since=1", "").0, StatusCode::BAD_REQUEST);
}

#[test]
fn log_level_changes_at_run_time_and_invalid_levels_are_rejected() {
    let mut one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], UNWATCHED));
    assert_eq!(get(&lab, "/log-level"), json!({ "level": "info" }));
    assert_eq!(call(&lab, Method::PUT, "/log-level", r#"{"level":"error"}"#).1, json!({ "level": "error" }));
    one.kill();
    eventually("the backend is down", PATIENCE, || get(&lab, "/events").to_string().contains("backend_down"));
    assert!(!lab.log().contains("backend down"), "logged below the configured level: {}", lab.log());
    call(&lab, Method::PUT, "/log-level", r#"{"level":"debug"}"#);
    one.restart();
    lab.wait_for_log("backend up");
    for body in ["", "{}", "{\"level\":\"loud\"}", "{\"level\":\"info\",\"more\":1}", "[]"] {
        let (status, problem) = call(&lab, Method::PUT, "/log-level", body);
        assert_eq!((status.as_u16(), &problem["cause"]), (400, &json!("malformed")), "{body}: {problem}");
    }
    let head = format!(
        "PUT /log-level HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        17 << 20
    );
    let response = raw_exchange(&lab, [head.into_bytes(), vec![b' '; 17 << 20]].concat());
    assert!(response.starts_with("HTTP/1.1 413 ") && response.contains("\"cause\":\"too_large\""), "{response}");
    assert_eq!(get(&lab, "/log-level"), json!({ "level": "debug" }), "rejected requests change nothing");
}
