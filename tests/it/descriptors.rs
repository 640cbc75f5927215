//! A process without free file descriptors: what it logs, and what `check` says before.

use std::process::Command;
use std::time::Duration;

use crate::lab::client::get;
use crate::lab::{Backend, Lab, free_port};

/// Sets the soft limit of file descriptors of the process.
fn set_limit(lab: &Lab, limit: u64) {
    let (pid, limit) = (lab.pid().to_string(), format!("--nofile={limit}:"));
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

#[test]
fn exhausted_descriptors_are_logged_once_and_remove_no_backend() {
    let (port, backend) = (free_port(), Backend::start("one"));
    let lab = Lab::start(&format!(
        "listeners: 127.0.0.1:{port}\n\
         pools:\n  a:\n    backends: {}\n    \
         health_check: {{ type: http, path: /health, interval: 50ms, unhealthy_interval: 50ms, fall: 1 }}\n\
         routes: {{ path: /, pool: a }}\n",
        backend.port
    ));
    lab.wait_for_log("backend up: ");
    set_limit(&lab, 3);
    let waiting = std::thread::spawn(move || get(port, "/").status);
    let line = lab.wait_for_log("cannot accept connections: ");
    assert!(
        line.contains("all 3 file descriptors of the process are in use; raise the limit (`LimitNOFILE=`"),
        "{line}"
    );
    // Each worker fails ten times a second; two of them had time for several lines.
    std::thread::sleep(Duration::from_millis(500));
    set_limit(&lab, 1024);
    assert_eq!(waiting.join().unwrap(), 200, "the client was in the kernel's accept queue");
    let log = lab.log();
    assert_eq!(log.matches("cannot accept").count(), 1, "{log}");
    assert!(!log.contains("backend down"), "{log}");
}

#[test]
fn check_warns_of_a_file_descriptor_limit_that_is_too_small_for_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("l7lb.yaml");
    let text = "connection_limits: { total: 500 }\nlisteners: 8080\npools: { p: { backends: [1, 2, 3] } }\n\
        routes: { path: /, pool: p }\nserver: { threads: 4 }\n";
    std::fs::write(&file, text).unwrap();
    let check = |limit: u64| {
        let command = format!("ulimit -n {limit} && exec \"$0\" check \"$1\"");
        let output = Command::new("sh").args(["-c", &command, env!("CARGO_BIN_EXE_l7lb")]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "warnings do not fail the check");
        String::from_utf8(output.stderr).unwrap()
    };
    let warned = check(128);
    assert!(
        warned.contains("warning at connection_limits.total: the file descriptor limit of 128 allows only 50"),
        "{warned}"
    );
    assert!(
        warned.contains("warning at pools: 3 backends, 1 listen addresses and 4 threads need about 51"),
        "{warned}"
    );
    assert!(warned.contains("(`LimitNOFILE=`, `ulimit -n`) to 1250"), "{warned}");
    assert!(!check(4096).contains("warning"), "enough");
}
