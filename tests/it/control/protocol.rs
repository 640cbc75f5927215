//! Access to the control socket, and rejections of invalid requests.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{call, raw_exchange, socket};
use crate::lab::client::get;
use crate::lab::scripted::Held;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::{one_pool, unchecked};

#[test]
fn control_socket_has_mode_0600_and_reports_version_liveness_and_readiness() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    assert_eq!(std::fs::metadata(socket(&lab)).unwrap().permissions().mode() & 0o777, 0o600);
    let version = json!({ "version": env!("CARGO_PKG_VERSION"), "pid": lab.pid() });
    assert_eq!(call(&lab, Method::GET, "/version", ""), (StatusCode::OK, version));
    assert_eq!(call(&lab, Method::GET, "/live", ""), (StatusCode::OK, json!({ "live": true })));
    assert_eq!(call(&lab, Method::GET, "/ready", ""), (StatusCode::OK, json!({ "ready": true })));
}

#[test]
fn unknown_paths_methods_and_malformed_requests_get_problem_documents() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    let (status, problem) = call(&lab, Method::GET, "/explode", "");
    let expected =
        json!({ "title": "Not Found", "status": 404, "cause": "unknown_path", "detail": "there is no /explode" });
    assert_eq!((status, problem), (StatusCode::NOT_FOUND, expected));
    let response = raw_exchange(&lab, b"DELETE /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{response}");
    let head = response.to_ascii_lowercase();
    assert!(head.contains("allow: get,head\r\n"), "{response}");
    assert!(head.contains("content-type: application/problem+json\r\n"), "{response}");
    assert!(response.contains("\"cause\":\"method_not_allowed\""), "{response}");
    // Neither a malformed request nor an endless header section stops the process from serving the socket.
    assert!(raw_exchange(&lab, b"reload\n").starts_with("HTTP/1.1 400 "));
    let mut endless = UnixStream::connect(socket(&lab)).unwrap();
    let filler = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    endless.write_all(filler.as_bytes()).ok();
    assert_eq!(call(&lab, Method::POST, "/reload", "").0, StatusCode::OK);
}

#[test]
fn idle_control_connections_are_closed_and_aborted_ones_do_not_affect_others() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    let mut idle = UnixStream::connect(socket(&lab)).unwrap();
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    idle.write_all(b"GET /version HTTP/1.1\r\n").unwrap();
    for _ in 0..20 {
        let mut aborted = UnixStream::connect(socket(&lab)).unwrap();
        aborted.write_all(b"POST /reload HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    assert_eq!(call(&lab, Method::GET, "/live", "").0, StatusCode::OK);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "the idle connection is closed without a response: {rest:?}");
}

#[test]
fn draining_process_is_live_but_not_ready_and_rejects_reloads() {
    let slow = Held::start();
    let port = free_port();
    let mut lab = unchecked(port, &[slow.port], "");
    let client = std::thread::spawn(move || get(port, "/"));
    slow.arrived();
    lab.signal(Signal::SIGTERM);
    eventually("the process is not ready", PATIENCE, || call(&lab, Method::GET, "/ready", "").0 == 503);
    assert_eq!(call(&lab, Method::GET, "/ready", "").1["cause"], "draining");
    let (status, problem) = call(&lab, Method::POST, "/reload", "");
    assert_eq!((status.as_u16(), &problem["cause"]), (503, &json!("draining")));
    assert_eq!(call(&lab, Method::GET, "/live", "").0, StatusCode::OK);
    slow.release();
    assert_eq!(client.join().unwrap().status, 200);
    assert!(lab.wait_exit(PATIENCE).success());
}

#[test]
fn control_socket_serves_only_its_own_user_and_root() {
    if !nix::unistd::Uid::effective().is_root() {
        // Only root can run a command as another user.
        return;
    }
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    let open = |path: &std::path::Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = lab.folder().join("l7lb");
    std::fs::copy(env!("CARGO_BIN_EXE_l7lb"), &program).unwrap();
    // File permissions that admit every user, so that only the check of the peer's user remains.
    [lab.folder(), &socket(&lab), &program].into_iter().for_each(open);
    let run_as = |user: u32| {
        let mut command = std::process::Command::new(&program);
        command.args(["pools", "--socket"]).arg(socket(&lab)).uid(user).output().unwrap()
    };
    let other = run_as(65_534);
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    assert!(String::from_utf8_lossy(&other.stderr).contains("no process responds"), "{other:?}");
    lab.wait_for_log("rejected a connection from another user at the control socket");
    assert!(run_as(0).status.success());
}
