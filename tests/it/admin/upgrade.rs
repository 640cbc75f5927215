//! The admin API in a graceful upgrade.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use super::{Admin, READER, TOKENS};
use crate::lab::{PATIENCE, eventually};

#[test]
fn upgrade_hands_over_the_admin_port_without_a_failed_call() {
    let mut admin = Admin::start(TOKENS);
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let pid = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap()["pid"].as_u64().unwrap();
    let Admin { lab, port, .. } = &mut admin;
    let call = |port: u16| {
        let headers = format!("Host: localhost\r\nAuthorization: Bearer {READER}\r\n");
        let response = crate::lab::client::exchange(port, super::request(&headers, "GET /version", "").as_bytes());
        assert_eq!(response.status, 200, "{response:?}");
        pid(&response.body)
    };
    let port = *port;
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                call(port);
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
        let before = u64::from(lab.pid());
        assert_eq!(call(port), before);
        eventually("some calls", PATIENCE, || calls.load(Ordering::Relaxed) > 50);
        let next = lab.successor();
        lab.signal(Signal::SIGQUIT);
        next.wait_until_ready();
        assert!(lab.wait_exit(PATIENCE).success());
        let so_far = calls.load(Ordering::Relaxed);
        eventually("calls of the new process", PATIENCE, || calls.load(Ordering::Relaxed) > so_far + 50);
        assert_eq!(call(port), u64::from(next.pid()));
        stop.store(true, Ordering::Relaxed);
        calling.join().unwrap();
    });
}

#[test]
fn upgrade_by_a_reload_over_the_admin_port_adds_an_address() {
    let admin = Admin::start_with(TOKENS, crate::reload::UNWATCHED);
    let new_port = crate::lab::free_port();
    let file = crate::reload::file(&admin.lab);
    let text = std::fs::read_to_string(&file).unwrap();
    let listen = format!("listen: ['127.0.0.1:{}', '127.0.0.1:{new_port}']", admin.port);
    std::fs::write(&file, text.replace(&format!("listen: '127.0.0.1:{}'", admin.port), &listen)).unwrap();
    let response = admin.call(Some(super::OWNER), "POST /reload?upgrade_if_needed=true", "");
    assert_eq!(response.status, 200, "{response:?}");
    let reloaded: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!((&reloaded["upgraded"], &reloaded["needs_upgrade"]), (&true.into(), &serde_json::json!(["admin"])));
    let pid = i32::try_from(reloaded["pid"].as_i64().unwrap()).unwrap();
    let headers = format!("Host: localhost\r\nAuthorization: Bearer {READER}\r\n");
    for port in [admin.port, new_port] {
        let response = crate::lab::client::exchange(port, super::request(&headers, "GET /version", "").as_bytes());
        assert!(response.body.contains(&format!("\"pid\":{pid}")), "{response:?}");
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}
