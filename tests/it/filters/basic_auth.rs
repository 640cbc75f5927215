//! The filter `basic_auth`.

use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::lab::authority::replace;
use crate::lab::client::{Response, connect, get, get_with, read_response};
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Held;
use crate::lab::{Lab, PATIENCE, eventually, free_port, run, yaml};
use crate::reload::{UNWATCHED, reloaded};

/// Users whose password is `secret`.
const USERS: &str = include_str!("../../config/users.htpasswd");

fn start(port: u16, backend: u16, keys: &str, more: &str) -> Lab {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    replace(&folder.path().join("users"), USERS);
    Lab::start_in(folder, &text(port, backend, keys, more))
}

fn text(port: u16, backend: u16, keys: &str, more: &str) -> String {
    yaml(port, backend, "", &format!("filters: [{{ basic_auth: {{ file: '{{folder}}/users'{keys} }} }}]\n{more}"))
}

fn basic(credentials: impl AsRef<[u8]>) -> String {
    format!("Basic {}", STANDARD.encode(credentials))
}

fn get_as(port: u16, credentials: &str) -> Response {
    get_with(port, "/", &format!("Authorization: {}\r\nX-User: root\r\n", basic(credentials)))
}

fn status_over_http2(port: u16, credentials: &str) -> u16 {
    let (mut frames, value) = (Frames::connect(port), basic(credentials));
    let fields: [(&[u8], &[u8]); 2] = [(b"authorization", value.as_bytes()), (b"x-user", b"root")];
    frames.headers(1, true, &[&request(b"GET", b"/")[..], &fields[..]].concat());
    frames.find(|frame| frame.stream == 1).unwrap().status()
}

#[test]
fn only_a_known_user_with_the_right_password_reaches_the_backend_over_both_versions_of_http() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = start(port, backend.port, ", realm: internal, user_header: X-User, remove: true", "");
    let response = get(port, "/");
    assert_eq!(response.status, 401);
    assert_eq!(response.header("www-authenticate"), "Basic realm=\"internal\", charset=\"UTF-8\"");
    lab.wait_for_access("cause=unauthorized");
    for wrong in ["alice:wrong", "mallory:secret", "alice:", ":"] {
        assert_eq!(get_as(port, wrong).status, 401, "{wrong}");
    }
    assert_eq!(status_over_http2(port, "bob:Secret"), 401);
    assert!(backend.take().is_empty());
    for user in ["alice", "bob", "carol", "alice"] {
        let credentials = format!("{user}:secret");
        assert_eq!((get_as(port, &credentials).status, status_over_http2(port, &credentials)), (200, 200), "{user}");
        for received in backend.take() {
            assert_eq!(received.values("x-user"), [user], "that of the client is replaced");
            assert!(received.values("authorization").is_empty(), "{received:?}");
        }
    }
    let (log, access) = (lab.log(), lab.access().join("\n"));
    for secret in ["secret", &basic("alice:secret")[6..]] {
        assert!(!log.contains(secret) && !access.contains(secret));
    }
}

#[test]
fn explain_agrees_with_traffic_as_far_as_no_password_is_checked() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = start(port, backend.port, "", "");
    let file = lab.folder().join("l7lb.yaml");
    let explain = |more: &[&str]| {
        let arguments = [&["explain", "--conf", file.to_str().unwrap(), "http://a/"], more].concat();
        String::from_utf8_lossy(&run(&arguments).stdout).into_owned()
    };
    let explained = explain(&[]);
    assert!(explained.contains("rejects it with 401 unauthorized"), "{explained}");
    assert_eq!(get(port, "/").status, 401);
    let explained = explain(&["--header", &format!("Authorization: {}", basic("alice:secret"))]);
    assert!(explained.contains("waits: checks the password"), "{explained}");
}

#[test]
fn malformed_credentials_count_as_none() {
    let (backend, port) = (Recorder::start(), free_port());
    let _lab = start(port, backend.port, ", failures: 1", "");
    let (nul, long) = (basic(b"alice:secret\0x"), basic([b'a'; 3000]));
    for value in ["Basic", "Basic %%%", "Bearer YWxpY2U6c2VjcmV0", "YWxpY2U6c2VjcmV0", "", &nul, &long] {
        assert_eq!(get_with(port, "/", &format!("Authorization: {value}\r\n")).status, 401, "{value}");
    }
    let right = format!("Authorization: {}\r\n", basic("alice:secret"));
    assert_eq!(get_with(port, "/", &format!("{right}{right}")).status, 401, "two fields");
    assert!(backend.take().is_empty());
    assert_eq!(get_with(port, "/", &right).status, 200, "none of them was a failure");
}

/// A field that `Connection` names is removed as one of the connection.
#[test]
fn connection_field_that_names_a_field_of_filters_is_rejected() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = start(port, backend.port, ", user_header: X-User", "");
    let right = format!("Authorization: {}\r\n", basic("alice:secret"));
    for option in ["X-User", "keep-alive, x-user"] {
        assert_eq!(get_with(port, "/", &format!("{right}Connection: {option}\r\n")).status, 400, "{option}");
    }
    let line = lab.wait_for_access("cause=bad_request");
    assert!(line.contains("Connection names a header that filters change"), "{line}");
    assert!(backend.take().is_empty());
    assert_eq!(get_with(port, "/", &format!("{right}Connection: X-Other\r\n")).status, 200);
    assert_eq!(backend.take()[0].values("x-user"), ["alice"]);
}

#[test]
fn client_with_too_many_failures_gets_429_also_with_the_right_password_and_others_do_not() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = start(port, backend.port, ", failures: 3, failure_window: 1h", "trusted_proxies: [127.0.0.0/8]\n");
    let from = |client: &str, credentials: &str| {
        get_with(port, "/", &format!("X-Forwarded-For: {client}\r\nAuthorization: {}\r\n", basic(credentials)))
    };
    for password in ["a", "b", "c"] {
        assert_eq!(from("192.0.2.1", &format!("alice:{password}")).status, 401);
    }
    for credentials in ["alice:d", "alice:secret"] {
        let response = from("192.0.2.1", credentials);
        assert_eq!(response.status, 429);
        assert!(response.header("retry-after").parse::<u32>().unwrap() > 3000, "{response:?}");
    }
    let line = lab.wait_for_access("cause=rate_limited");
    assert!(line.contains("too many wrong passwords"), "{line}");
    assert_eq!(from("192.0.2.2", "alice:secret").status, 200);
    for _ in 0..9 {
        assert_eq!(from("192.0.2.2", "alice:secret").status, 200, "a success is no failure");
    }
}

#[test]
fn replaced_file_applies_without_a_reload_and_a_weak_one_keeps_the_users() {
    let (backend, port) = (Recorder::start(), free_port());
    let lab = start(port, backend.port, ", failures: 1000", "");
    let file = lab.folder().join("users");
    assert_eq!([get_as(port, "alice:secret").status, get_as(port, "bob:secret").status], [200, 200]);
    replace(&file, USERS.replace("alice:", "dave:"));
    eventually("alice is no longer remembered", PATIENCE, || get_as(port, "alice:secret").status == 401);
    assert_eq!([get_as(port, "dave:secret").status, get_as(port, "bob:secret").status], [200, 200]);
    replace(&file, "alice:secret\n");
    let line = lab.wait_for_log("file of a filter not loaded");
    assert!(line.contains("line 1: the password is in plain text") && !line.contains("secret"), "{line}");
    assert_eq!([get_as(port, "alice:secret").status, get_as(port, "dave:secret").status], [401, 200]);
}

#[test]
fn request_in_progress_ends_although_a_reload_removes_its_user() {
    let (held, port) = (Held::start(), free_port());
    let lab = start(port, held.port, "", UNWATCHED);
    let mut stream = connect(port);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", basic("alice:secret"));
    stream.write_all(request.as_bytes()).unwrap();
    held.arrived();
    replace(&lab.folder().join("users"), USERS.replace("alice:", "dave:"));
    crate::reload::replace(&lab, &text(port, held.port, ", realm: new", UNWATCHED));
    reloaded(&lab);
    let response = get_as(port, "alice:secret");
    assert_eq!(response.status, 401);
    assert!(response.header("www-authenticate").contains("\"new\""), "{response:?}");
    held.release();
    assert_eq!(read_response(&mut stream).status, 200);
}
