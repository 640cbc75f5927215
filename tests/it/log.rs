//! The access log: one line per request, in both formats, across a rotation.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::client::{get, get_with};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

#[test]
fn json_access_log_line_has_all_fields() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], "access_log: { format: json }"));
    let answer = get_with(port, "/apiA/x?secret=1", "User-Agent: test\r\n");
    let line: Value = serde_json::from_str(&lab.wait_for_access("/apiA/x")).unwrap();
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["host"], "localhost");
    assert_eq!(line["path"], "/apiA/x", "without the query, which may contain secrets");
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes"], answer.body.len());
    assert_eq!(line["upstream"], format!("127.0.0.1:{}", backend.port));
    assert_eq!(line["attempts"], 1);
    assert_eq!(line["route"], "*/apiA");
    assert_eq!(line["request_id"], answer.header("x-request-id"));
    assert!(line["cause"].is_null());
    assert!(line["latency_ms"].as_f64().unwrap() >= line["upstream_latency_ms"].as_f64().unwrap());
}

#[test]
fn access_log_file_is_reopened_after_rotation() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], "access_log: { file: '{folder}/access.log' }"));
    let (current, rotated) = (lab.folder().join("access.log"), lab.folder().join("access.log.1"));
    let holds =
        |file: &std::path::Path, word: &str| std::fs::read_to_string(file).is_ok_and(|text| text.contains(word));
    get(port, "/before");
    eventually("the first line is written", PATIENCE, || holds(&current, "/before"));
    std::fs::rename(&current, &rotated).unwrap();
    lab.signal(Signal::SIGUSR1);
    eventually("the file is reopened", PATIENCE, || current.exists());
    get(port, "/after");
    eventually("the next line is in the new file", PATIENCE, || holds(&current, "/after"));
    assert!(!holds(&rotated, "/after") && !holds(&current, "/before"));
}

#[test]
fn client_abort_is_logged_as_client_closed() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut stream = crate::lab::client::connect(port);
    std::io::Write::write_all(&mut stream, b"GET /apiA/delay/2s HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(stream);
    assert!(lab.wait_for_access("/delay/").contains("cause=client_closed"));
}

#[test]
fn full_disk_loses_log_lines_but_no_request() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], "access_log: { file: /dev/full }"));
    for _ in 0..5 {
        assert_eq!(get(port, "/apiA").status, 200);
        lab.wait_for_log("access log lines lost: lines=1 reason=\"No space left on device");
    }
    assert_eq!(lab.log().matches("access log lines lost").count(), 1, "the operator log is not flooded: {}", lab.log());
}

#[test]
fn lost_log_lines_that_were_not_reported_yet_are_reported_when_the_process_ends() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&backend], "access_log: { file: /dev/full }"));
    get(port, "/apiA");
    lab.wait_for_log("access log lines lost: lines=1 ");
    for _ in 0..3 {
        get(port, "/apiA");
    }
    lab.signal(Signal::SIGTERM);
    lab.wait_exit(PATIENCE);
    lab.wait_for_log("access log lines lost: lines=3 reason=\"No space left on device");
}

#[test]
fn log_lines_that_a_blocked_destination_does_not_take_are_reported_when_the_process_ends() {
    let backend = Backend::start("one");
    let port = free_port();
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for both directions, so that neither side waits for the other; the lines are never read.
    let _reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let mut lab = Lab::start_in(folder, &one_pool(port, &[&backend], "access_log: { file: '{folder}/pipe' }"));
    // Together longer than the buffer of the pipe.
    let path = format!("/apiA/{}", "x".repeat(7000));
    for _ in 0..20 {
        assert_eq!(get(port, &path).status, 200);
    }
    lab.signal(Signal::SIGTERM);
    lab.wait_exit(PATIENCE);
    lab.wait_for_log("reason=\"the destination did not take them before the process ended\"");
}
