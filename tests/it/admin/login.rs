//! Tokens: wrong ones, failed logins, rotation, and where they must not appear.

use super::{Admin, OPERATOR, OWNER, READER, TOKENS, cause, write_token};
use crate::lab::{PATIENCE, eventually};
use crate::reload::{UNWATCHED, file};

#[test]
fn missing_and_wrong_credentials_get_a_401_with_a_challenge() {
    let admin = Admin::start(TOKENS);
    let wrong = format!("{}x", &READER[..READER.len() - 1]);
    for header in [
        String::new(),
        format!("Authorization: Bearer {wrong}\r\n"),
        format!("Authorization: Bearer {}\r\n", &READER[1..]),
        format!("Authorization: Basic {READER}\r\n"),
        "Authorization: Bearer\r\n".to_owned(),
        format!("Authorization: Bearer {READER}\r\nAuthorization: Bearer {READER}\r\n"),
    ] {
        let response = admin.call_with(&format!("Host: localhost\r\n{header}"), "GET /version", "");
        assert_eq!((response.status, cause(&response).as_str()), (401, "unauthenticated"), "{header}");
        assert_eq!(response.header("www-authenticate"), "Bearer realm=\"l7lb\"");
    }
    let headers = format!("Host: localhost\r\nauthorization: bearer  {READER}\r\n");
    assert_eq!(admin.call_with(&headers, "GET /version", "").status, 200, "the scheme is case-insensitive");
}

#[test]
fn tenth_failed_login_blocks_the_address_also_for_the_right_token() {
    let admin = Admin::start(TOKENS);
    for _ in 0..20 {
        assert_eq!(admin.call(None, "GET /version", "").status, 401, "a request without a token is no failed login");
    }
    for count in 1..=10 {
        assert_eq!(admin.call(Some("wrong"), "GET /version", "").status, 401, "{count}");
    }
    for token in ["wrong", OWNER] {
        let response = admin.call(Some(token), "GET /version", "");
        assert_eq!((response.status, cause(&response).as_str()), (429, "too_many_failed_logins"));
        let seconds: u64 = response.header("retry-after").parse().unwrap();
        assert!((1..=61).contains(&seconds), "{seconds}");
    }
    let failed = admin.events("login_failed");
    let blocked: Vec<bool> = failed.iter().map(|event| event["blocked"].as_bool().unwrap()).collect();
    assert_eq!(blocked, [false, true], "{failed:#?}");
    assert!(failed.iter().all(|event| event["from"] == "127.0.0.1"));
}

#[test]
fn replaced_token_file_takes_effect_without_a_reload_and_a_faulty_one_keeps_the_token() {
    let admin = Admin::start(TOKENS);
    let new = "rotated-0123456789abcdef0123456789abcdef";
    write_token(admin.lab.folder(), "owner", &format!("\n{new}\r\n\n"));
    admin.lab.wait_for_log("token loaded: token=owner");
    assert_eq!(admin.call(Some(OWNER), "GET /version", "").status, 401);
    assert_eq!(admin.call(Some(new), "PUT /log-level", r#"{"level":"info"}"#).status, 200);
    write_token(admin.lab.folder(), "owner", "short-secret");
    let line = admin.lab.wait_for_log("token not reloaded, the previous one stays valid: token=owner");
    assert!(line.contains("contains no token of at least 32 characters"), "{line}");
    assert_eq!(admin.call(Some(new), "GET /version", "").status, 200);
    assert_eq!(admin.call(Some(READER), "GET /version", "").status, 200);
    let log = admin.lab.log();
    assert!(!log.contains("short-secret") && !log.contains(new), "{log}");
}

#[test]
fn reload_changes_tokens_and_roles_and_a_removed_block_ends_all_access() {
    let admin = Admin::start_with(TOKENS, UNWATCHED);
    let before = std::fs::read_to_string(file(&admin.lab)).unwrap();
    let reload = |text: &str| {
        std::fs::write(file(&admin.lab), text).unwrap();
        let (status, response) = crate::control::call(&admin.lab, http::Method::POST, "/reload", "");
        assert_eq!(status, 200, "{response}");
        response
    };
    let response = reload(&before.replace("role: operate", "role: read").replace("name: owner", "name: boss"));
    assert_eq!(response["settings"], serde_json::json!(["admin"]));
    assert_eq!(response["needs_upgrade"], serde_json::json!([]));
    assert_eq!(admin.call(Some(OPERATOR), "PUT /log-level", "{}").status, 403);
    assert_eq!(admin.call(Some(OWNER), "PUT /log-level", r#"{"level":"info"}"#).status, 200);
    assert_eq!(admin.events("api_call").last().unwrap()["caller"], "token boss");
    let without: String = before.lines().filter(|line| !line.starts_with("admin:")).collect::<Vec<_>>().join("\n");
    assert_eq!(reload(&without)["needs_upgrade"], serde_json::json!(["admin"]), "the socket stays until an upgrade");
    assert_eq!(admin.call(Some(OWNER), "GET /version", "").status, 401);
}

#[test]
fn tokens_appear_neither_in_the_configuration_nor_in_events_nor_in_logs() {
    let admin = Admin::start(TOKENS);
    assert_eq!(admin.call(Some(OWNER), "PUT /log-level", r#"{"level":"trace"}"#).status, 200);
    let mut texts = String::new();
    for path in ["/configuration", "/events", "/openapi.json"] {
        texts += &admin.call(Some(OWNER), &format!("GET {path}"), "").body;
    }
    admin.call(Some("wrong-0123456789abcdef0123456789abcdef"), "GET /version", "");
    admin.call(Some(OWNER), "POST /reload", "");
    eventually("the reload is logged", PATIENCE, || admin.lab.log().contains("POST /reload"));
    texts += &admin.lab.log();
    texts += &admin.lab.access().join("\n");
    assert!(texts.contains("owner.token"), "the file is named");
    assert!(!texts.contains("0123456789abcdef"), "{texts}");
}
