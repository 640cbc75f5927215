//! The commands that ask a running process: what they print for people and for programs, and how they end.

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

fn ended(lab: &Lab, arguments: &[&str]) -> Output {
    run(&[arguments, &["--socket", socket(lab).to_str().unwrap()]].concat())
}

fn printed(lab: &Lab, arguments: &[&str]) -> String {
    let ended = ended(lab, arguments);
    assert!(ended.status.success(), "{arguments:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

fn read(lab: &Lab, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(lab, &[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn a_process_says_what_it_is_and_what_it_has() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let yaml = one_pool(free_port(), &[&one, &two], UNWATCHED).replace("path: /apiA,", "path: /apiA, name: first,");
    let lab = Lab::start(&yaml);
    eventually("both are up", PATIENCE, || read(&lab, &["pools"])["pools"][0]["available"] == 2);
    let conf = file(&lab).display().to_string();
    let status = run(&["status", "--conf", &conf]);
    let text = String::from_utf8(status.stdout).unwrap();
    for line in [
        format!("(pid {})", lab.pid()),
        "ready          yes".to_owned(),
        format!("{conf} ("),
        "2 of 2 available in 1 pool".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
    let status = read(&lab, &["status"]);
    let expected =
        json!({ "ready": true, "pid": lab.pid(), "generation": 1, "file": conf, "pools_without_backend": [] });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(status[key], *value, "{status}");
    }
    assert_eq!(
        printed(&lab, &["pools"]),
        "POOL  BALANCE    AVAILABLE  IN FLIGHT  WAITING\na     peak_ewma  2 of 2     0          -\n"
    );
    assert_eq!(printed(&lab, &["routes"]), "ROUTE  TAKES   POOLS  STICKY  LIMIT\nfirst  */apiA  a      no      -\n");
    assert_eq!(read(&lab, &["routes"])["routes"][0]["name"], "first");
    let backends = printed(&lab, &["backends", "list", "--pool", "a"]);
    assert_eq!(backends.lines().count(), 3, "{backends}");
    assert!(
        backends.starts_with("POOL  BACKEND") && backends.contains(&format!("127.0.0.1:{}", one.port)),
        "{backends}"
    );
    assert_eq!(ended(&lab, &["backends", "--pool", "b"]).status.code(), Some(2));
}

#[test]
fn the_level_of_the_log_and_the_events_are_told_and_followed() {
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
    assert_eq!(printed(&lab, &["log-level"]), "info\n");
    assert_eq!(printed(&lab, &["log-level", "debug"]), "debug\n");
    assert_eq!(read(&lab, &["log-level"]), json!({ "level": "debug" }));
    assert_eq!(ended(&lab, &["log-level", "loud"]).status.code(), Some(2));
    let followed = lines.next().unwrap().unwrap();
    let event: Value = serde_json::from_str(&followed).unwrap();
    assert_eq!((&event["event"], &event["log_level"]), (&json!("log_level_changed"), &json!("debug")));
    let after = event["number"].as_u64().unwrap() - 1;
    let text = printed(&lab, &["events", "--after", &after.to_string()]);
    assert!(text.ends_with("info   log level changed: level=debug\n") && text.lines().count() == 1, "{text}");
    drop(lab);
    assert_eq!(follower.wait().unwrap().code(), Some(1), "it ends with the process");
}

#[test]
fn a_faulty_file_is_one_indented_event_and_following_ends_with_its_reader() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], UNWATCHED));
    std::fs::write(file(&lab), "nonsense: 1\n").unwrap();
    assert_eq!(ended(&lab, &["reload"]).status.code(), Some(2));
    let told = printed(&lab, &["events"]);
    let further = told.lines().skip_while(|line| !line.contains("configuration rejected")).skip(1).collect::<Vec<_>>();
    assert!(!further.is_empty() && further.iter().all(|line| line.starts_with("       ")), "{told}");

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
fn status_ends_with_1_once_the_process_takes_no_requests() {
    let slow = Held::start();
    let port = free_port();
    let lab = unchecked(port, &[slow.port], "");
    let asking = std::thread::spawn(move || get(port, "/").status);
    slow.arrived();
    assert!(printed(&lab, &["status"]).contains("in flight      1 request\n"));
    lab.signal(Signal::SIGTERM);
    eventually("it is not ready", PATIENCE, || ended(&lab, &["status"]).status.code() == Some(1));
    let status = ended(&lab, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["ready"], &status["cause"]), (&json!(false), &json!("leaving")));
    slow.release();
    assert_eq!(asking.join().unwrap(), 200);
}
