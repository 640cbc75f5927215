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

#[test]
fn combined_and_template_lines_have_the_fields_of_the_request() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(
        port,
        &[&backend],
        "access_log: { format: combined, query: true, redact: { query: [token] } }",
    ));
    get_with(port, "/apiA/x?token=secret&b=1", "User-Agent: a\"b\r\nReferer: http://h/?token=secret\r\n");
    let line = lab.wait_for_access("/apiA/x");
    assert!(
        line.starts_with("127.0.0.1 - - [") && line.contains("] \"GET /apiA/x?token=[redacted]&b=1 HTTP/1.1\" 200 "),
        "{line}"
    );
    assert!(line.ends_with("\"http://h/?token=[redacted]\" \"a\\\"b\""), "{line}");

    let port = free_port();
    let template = "${client.ip} ${request.uri} ${response.status} ${response.header.x-request-id}=${request.id} <${request.header.user-agent}>";
    let more = format!("access_log: {{ template: '{template}', redact: {{ client_address: true }} }}");
    let lab = Lab::start(&one_pool(port, &[&backend], &more));
    let answer = get_with(port, "/apiA/x?a=1", "User-Agent: test\r\n");
    let id = answer.header("x-request-id");
    assert_eq!(lab.wait_for_access("/apiA/x"), format!("127.0.0.0 /apiA/x?a=1 200 {id}={id} <test>"));
    let missing = get(port, "/missing");
    let id = missing.header("x-request-id");
    assert_eq!(
        lab.wait_for_access("/missing"),
        format!("127.0.0.0 /missing 404 {id}={id} <->"),
        "a response of l7lb itself"
    );
}

#[test]
fn header_fields_of_request_and_response_are_logged_if_listed() {
    let backend = Backend::start("one");
    let port = free_port();
    let more =
        "access_log: { format: json, request_headers: [User-Agent, Cookie], response_headers: [Content-Type, X-None] }";
    let lab = Lab::start(&one_pool(port, &[&backend], more));
    get_with(port, "/missing", "User-Agent: test\r\nCookie: secret=1\r\n");
    let line: Value = serde_json::from_str(&lab.wait_for_access("/missing")).unwrap();
    assert_eq!(line["request_headers"], serde_json::json!({ "user-agent": "test", "cookie": "[redacted]" }));
    let expected = serde_json::json!({ "content-type": "text/plain; charset=utf-8", "x-none": null });
    assert_eq!(line["response_headers"], expected);
    assert!(line.get("query").is_none(), "only if configured");
}

#[test]
fn sampled_status_has_few_lines_and_others_have_all() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], "access_log: { sample: { 2xx: 0%, 404: 100% } }"));
    for number in 0..10 {
        assert_eq!(get(port, &format!("/apiA/{number}")).status, 200);
        assert_eq!(get(port, &format!("/missing/{number}")).status, 404);
    }
    lab.wait_for_access("/missing/9");
    let lines = lab.access();
    assert_eq!(lines.iter().filter(|line| line.contains("/missing/")).count(), 10);
    assert_eq!(lines.iter().filter(|line| line.contains("/apiA/")).count(), 0, "{lines:?}");
}
