//! Who may ask, and how what cannot be answered is refused.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{ask, raw, socket};
use crate::lab::client::get;
use crate::lab::scripted::Held;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::{one_pool, unchecked};

#[test]
fn the_control_socket_is_for_us_alone_and_says_what_runs() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    assert_eq!(std::fs::metadata(socket(&lab)).unwrap().permissions().mode() & 0o777, 0o600);
    let version = json!({ "version": env!("CARGO_PKG_VERSION"), "pid": lab.pid() });
    assert_eq!(ask(&lab, Method::GET, "/version", ""), (StatusCode::OK, version));
    assert_eq!(ask(&lab, Method::GET, "/live", ""), (StatusCode::OK, json!({ "live": true })));
    assert_eq!(ask(&lab, Method::GET, "/ready", ""), (StatusCode::OK, json!({ "ready": true })));
}

#[test]
fn what_is_not_there_is_refused_with_a_problem_document() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    let (status, problem) = ask(&lab, Method::GET, "/explode", "");
    let expected =
        json!({ "title": "Not Found", "status": 404, "cause": "unknown_path", "detail": "there is no /explode" });
    assert_eq!((status, problem), (StatusCode::NOT_FOUND, expected));
    let answer = raw(&lab, b"DELETE /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
    let head = answer.to_ascii_lowercase();
    assert!(head.contains("allow: get,head\r\n"), "{answer}");
    assert!(head.contains("content-type: application/problem+json\r\n"), "{answer}");
    assert!(answer.contains("\"cause\":\"method_not_allowed\""), "{answer}");
    // Neither nonsense nor a head without an end stops it from answering.
    assert!(raw(&lab, b"reload\n").starts_with("HTTP/1.1 400 "));
    let mut endless = UnixStream::connect(socket(&lab)).unwrap();
    let filler = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    endless.write_all(filler.as_bytes()).ok();
    assert_eq!(ask(&lab, Method::POST, "/reload", "").0, StatusCode::OK);
}

#[test]
fn who_is_silent_is_sent_away_and_who_leaves_disturbs_nobody() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    let mut silent = UnixStream::connect(socket(&lab)).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    silent.write_all(b"GET /version HTTP/1.1\r\n").unwrap();
    for _ in 0..20 {
        let mut hasty = UnixStream::connect(socket(&lab)).unwrap();
        hasty.write_all(b"POST /reload HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    assert_eq!(ask(&lab, Method::GET, "/live", "").0, StatusCode::OK);
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "it is closed: {rest:?}");
}

#[test]
fn a_process_that_leaves_is_alive_and_not_ready() {
    let slow = Held::start();
    let port = free_port();
    let mut lab = unchecked(port, &[slow.port], "");
    let asking = std::thread::spawn(move || get(port, "/"));
    slow.arrived();
    lab.signal(Signal::SIGTERM);
    eventually("it is no longer ready", PATIENCE, || ask(&lab, Method::GET, "/ready", "").0 == 503);
    assert_eq!(ask(&lab, Method::GET, "/ready", "").1["cause"], "leaving");
    let (status, problem) = ask(&lab, Method::POST, "/reload", "");
    assert_eq!((status.as_u16(), &problem["cause"]), (503, &json!("leaving")));
    assert_eq!(ask(&lab, Method::GET, "/live", "").0, StatusCode::OK);
    slow.release();
    assert_eq!(asking.join().unwrap().status, 200);
    assert!(lab.wait_exit(PATIENCE).success());
}

#[test]
fn who_is_neither_its_user_nor_root_is_not_answered() {
    if !nix::unistd::Uid::effective().is_root() {
        // Only root can be somebody else.
        return;
    }
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    let open = |path: &std::path::Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = lab.folder().join("l7lb");
    std::fs::copy(env!("CARGO_BIN_EXE_l7lb"), &program).unwrap();
    // Somebody has opened the folder and the socket to everybody.
    [lab.folder(), &socket(&lab), &program].into_iter().for_each(open);
    let asked = |user: u32| {
        let mut command = std::process::Command::new(&program);
        command.args(["pools", "--socket"]).arg(socket(&lab)).uid(user).output().unwrap()
    };
    let refused = asked(65_534);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no process answers"), "{refused:?}");
    lab.wait_for_log("somebody else than the user of this process is at the control socket");
    assert!(asked(0).status.success());
}
