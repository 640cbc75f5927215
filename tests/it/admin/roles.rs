//! Each role may call the endpoints of its role and of those before it.

use http::Method;
use l7lb::config::admin::Role;
use l7lb::control::api::endpoints;

use super::{Admin, OPERATOR, OWNER, READER, TOKENS, cause};

#[test]
fn every_endpoint_is_served_to_its_role_and_those_above_only() {
    let admin = Admin::start(TOKENS);
    let address = format!("127.0.0.1:{}", admin.backend.port);
    let mut changes = 0;
    for endpoint in endpoints() {
        let path = endpoint.path.replace("{pool}", "a").replace("{address}", &address).replace("{id}", "unknown");
        let call = format!("{} {path}", endpoint.method);
        let body = match (&endpoint.method, endpoint.path.rsplit('/').next().unwrap()) {
            (&Method::PUT, "state") => r#"{"state":"enabled"}"#,
            (&Method::PUT, "weight") => r#"{"weight":2}"#,
            (&Method::PUT, "log-level") => r#"{"level":"info"}"#,
            (&Method::POST, "explain") => r#"{"request":"GET http://localhost/apiA"}"#,
            (&Method::POST, _) => "{}",
            _ => "",
        };
        let response = admin.call(None, &call, body);
        assert_eq!((response.status, cause(&response).as_str()), (401, "unauthenticated"), "{call}");
        for (token, role) in [(READER, Role::Read), (OPERATOR, Role::Operate), (OWNER, Role::Admin)] {
            let response = admin.call(Some(token), &call, body);
            if role < endpoint.role {
                assert_eq!((response.status, cause(&response).as_str()), (403, "forbidden"), "{call} as {role}");
            } else {
                // No request with this id is kept.
                let served = match response.status {
                    404 => cause(&response) == "unknown_request",
                    status => ![401, 403, 405].contains(&status),
                };
                assert!(served, "{call} as {role}: {response:?}");
            }
            if endpoint.role > Role::Read {
                changes += 1;
            }
        }
    }
    let recorded = admin.events("api_call");
    assert_eq!(recorded.len(), changes, "each call that changes something, or would, has one event: {recorded:#?}");
    let log_level = recorded.iter().filter(|event| event["call"] == "PUT /log-level");
    let log_level: Vec<String> = log_level.map(|e| format!("{} {} {}", e["caller"], e["from"], e["status"])).collect();
    assert_eq!(
        log_level,
        [
            r#""token reader" "127.0.0.1" 403"#,
            r#""token operator" "127.0.0.1" 403"#,
            r#""token owner" "127.0.0.1" 200"#
        ]
    );
}

#[test]
fn endpoints_that_change_nothing_are_for_readers_and_changes_of_the_process_for_admins() {
    for endpoint in endpoints() {
        let (method, path) = (&endpoint.method, endpoint.path);
        let expected = match (method.as_str(), path) {
            ("GET", _) | ("POST", "/explain") => Role::Read,
            // A draft can name files and variables of the process.
            ("POST", "/reload" | "/plan") | (_, "/log-level") => Role::Admin,
            _ => Role::Operate,
        };
        assert_eq!(endpoint.role, expected, "{method} {path}");
    }
}

#[test]
fn unknown_path_and_method_need_a_caller_as_well() {
    let admin = Admin::start(TOKENS);
    for (call, status) in [("GET /none", 404), ("DELETE /pools", 405), ("OPTIONS /pools", 405)] {
        assert_eq!(admin.call(None, call, "").status, 401, "{call}");
        assert_eq!(admin.call(Some(READER), call, "").status, status, "{call}");
    }
    let response = admin.call(Some(READER), "GET /version", "");
    assert_eq!(response.header("cache-control"), "no-store");
    assert!(response.headers.keys().all(|name| !name.starts_with("access-control-")), "{response:?}");
}

#[test]
fn calls_at_the_control_socket_are_recorded_with_the_user() {
    let admin = Admin::start(TOKENS);
    let (status, _) = crate::control::call(&admin.lab, Method::PUT, "/log-level", r#"{"level":"debug"}"#);
    assert_eq!(status, 200);
    let (status, _) = crate::control::call(&admin.lab, Method::POST, "/cache/purge", r#"{"all":true}"#);
    assert_eq!(status, 409);
    let recorded = admin.events("api_call");
    let uid = format!("uid {}", nix::unistd::geteuid());
    let shown: Vec<(String, u64)> =
        recorded.iter().map(|e| (e["call"].as_str().unwrap().to_owned(), e["status"].as_u64().unwrap())).collect();
    assert_eq!(shown, [("PUT /log-level".to_owned(), 200), ("POST /cache/purge".to_owned(), 409)]);
    assert!(recorded.iter().all(|event| event["caller"] == uid.as_str() && event["from"] == "control.sock"));
    assert!(admin.lab.log().contains("API call: caller=\"uid "), "{}", admin.lab.log());
}
