//! The commands that query a running process: their text and JSON output, and their exit codes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::socket;
use crate::lab::client::get;
use crate::lab::scripted::Held;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};
use crate::reload::{UNWATCHED, file};
use crate::{one_pool, unchecked};

pub fn run_command(lab: &Lab, arguments: &[&str]) -> Output {
    run(&[arguments, &["--socket", socket(lab).to_str().unwrap()]].concat())
}

pub fn stdout_of(lab: &Lab, arguments: &[&str]) -> String {
    let output = run_command(lab, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn json_of(lab: &Lab, arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout_of(lab, &[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn status_commands_report_the_process_its_pools_routes_and_backends() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let yaml = one_pool(free_port(), &[&one, &two], UNWATCHED).replace("path: /apiA,", "path: /apiA, name: first,");
    let lab = Lab::start(&yaml);
    eventually("both backends are healthy", PATIENCE, || json_of(&lab, &["pools"])["pools"][0]["available"] == 2);
    let conf = file(&lab).display().to_string();
    let status = run(&["status", "--conf", &conf]);
    let text = String::from_utf8(status.stdout).unwrap();
    for line in [
        format!("(pid {})", lab.pid()),
        "ready          yes".to_owned(),
        format!("{conf} ("),
        "2 of 2 available in 1 pool".to_owned(),
    ] {
        assert!(text.contains(&line), "no {line:?} in:\n{text}");
    }
    let status = json_of(&lab, &["status"]);
    let expected =
        json!({ "ready": true, "pid": lab.pid(), "generation": 1, "file": conf, "pools_without_backend": [] });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(status[key], *value, "{status}");
    }
    assert_eq!(
        stdout_of(&lab, &["pools"]),
        "POOL  BALANCE    AVAILABLE  IN FLIGHT  WAITING\na     peak_ewma  2 of 2     0          -\n"
    );
    assert_eq!(
        stdout_of(&lab, &["routes"]),
        "ROUTE  MATCHES  POOLS  STICKY  LIMIT\nfirst  */apiA   a      no      -\n"
    );
    assert_eq!(json_of(&lab, &["routes"])["routes"][0]["name"], "first");
    let backends = stdout_of(&lab, &["backends", "list", "--pool", "a"]);
    assert_eq!(backends.lines().count(), 3, "{backends}");
    assert!(
        backends.starts_with("POOL  BACKEND") && backends.contains(&format!("127.0.0.1:{}", one.port)),
        "{backends}"
    );
    assert_eq!(run_command(&lab, &["backends", "--pool", "b"]).status.code(), Some(2));
}

#[test]
fn log_level_command_changes_the_level_and_emits_an_event_to_followers() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], UNWATCHED));
    let mut follower = Command::new(env!("CARGO_BIN_EXE_l7lb"))
        .args(["events", "--follow", "--json", "--socket", socket(&lab).to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"event\":\"backend_up\""));
    assert_eq!(stdout_of(&lab, &["log-level"]), "info\n");
    assert_eq!(stdout_of(&lab, &["log-level", "debug"]), "debug\n");
    assert_eq!(json_of(&lab, &["log-level"]), json!({ "level": "debug" }));
    assert_eq!(run_command(&lab, &["log-level", "loud"]).status.code(), Some(2));
    let followed = lines.next().unwrap().unwrap();
    let event: Value = serde_json::from_str(&followed).unwrap();
    assert_eq!((&event["event"], &event["log_level"]), (&json!("log_level_changed"), &json!("debug")));
    let after = event["number"].as_u64().unwrap() - 1;
    let text = stdout_of(&lab, &["events", "--after", &after.to_string()]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].ends_with("info   log level changed: level=debug"), "{text}");
    assert!(lines[1].ends_with("from=control.sock call=\"PUT /log-level\" status=200"), "{text}");
    drop(lab);
    assert_eq!(follower.wait().unwrap().code(), Some(1), "the follower exits when the process ends");
}

#[test]
fn rejected_reload_is_one_indented_event_and_follow_exits_when_its_reader_closes() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], UNWATCHED));
    std::fs::write(file(&lab), "nonsense: 1\n").unwrap();
    assert_eq!(run_command(&lab, &["reload"]).status.code(), Some(2));
    let events = stdout_of(&lab, &["events"]);
    let indented = events.lines().skip_while(|line| !line.contains("configuration rejected")).skip(1);
    let indented: Vec<&str> = indented.take_while(|line| !line.contains("API call: ")).collect();
    assert!(!indented.is_empty() && indented.iter().all(|line| line.starts_with("       ")), "{events}");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let follower = Command::new(env!("CARGO_BIN_EXE_l7lb"))
        .args(["events", "--follow", "--socket", socket(&lab).to_str().unwrap()])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((follower.status.code(), follower.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn status_exits_with_1_while_the_process_drains() {
    let slow = Held::start();
    let port = free_port();
    let lab = unchecked(port, &[slow.port], "");
    let client = std::thread::spawn(move || get(port, "/").status);
    slow.arrived();
    assert!(stdout_of(&lab, &["status"]).contains("in flight      1 request\n"));
    lab.signal(Signal::SIGTERM);
    eventually("the process is not ready", PATIENCE, || run_command(&lab, &["status"]).status.code() == Some(1));
    let status = run_command(&lab, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["ready"], &status["cause"]), (&json!(false), &json!("draining")));
    slow.release();
    assert_eq!(client.join().unwrap(), 200);
}
