//! The state file: operator overrides survive restarts, and damaged or stale content does no harm.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{call, socket};
use crate::lab::client::get;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};
use crate::one_pool;
use crate::reload::{UNWATCHED, reloaded, replace};

/// A folder that several processes use in turn.
struct Folder(Arc<tempfile::TempDir>);

impl Folder {
    fn new() -> Self {
        Self(Arc::new(tempfile::tempdir().unwrap()))
    }

    fn start(&self, yaml: &str) -> Lab {
        Lab::start_in(Arc::clone(&self.0), yaml)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn state(&self) -> Value {
        serde_json::from_slice::<Value>(&std::fs::read(self.file("state.json")).unwrap()).unwrap()["content"].clone()
    }
}

fn command(lab: &Lab, arguments: &[&str]) -> Output {
    let socket = socket(lab).display().to_string();
    let output = run(&[&["backends"], arguments, &["--socket", &socket]].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

fn address(backend: &Backend) -> String {
    format!("127.0.0.1:{}", backend.port)
}

fn overridden(lab: &Lab, backend: &Backend) -> Value {
    let (_, state) = call(lab, http::Method::GET, &format!("/pools/a/backends/{}", address(backend)), "");
    state["override"].clone()
}

fn stop(mut lab: Lab, signal: Signal) {
    lab.signal(signal);
    lab.wait_exit(PATIENCE);
}

#[test]
fn operator_overrides_survive_a_restart_and_a_crash() {
    let (one, two, port, folder) = (Backend::start("one"), Backend::start("two"), free_port(), Folder::new());
    let yaml = one_pool(port, &[&one, &two], UNWATCHED);
    let lab = folder.start(&yaml);
    assert!(!folder.file("state.json").exists(), "nothing is written without an override");
    command(&lab, &["drain", "a", &address(&one)]);
    command(&lab, &["weight", "a", &address(&two), "7"]);
    let before = (overridden(&lab, &one), overridden(&lab, &two));
    assert_eq!(folder.state()["overrides"].as_array().unwrap().len(), 2);
    assert_eq!(std::fs::metadata(folder.file("state.json")).unwrap().permissions().mode() & 0o777, 0o600);
    let mut lab = Some(lab);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        stop(lab.take().unwrap(), signal);
        let next = folder.start(&yaml);
        assert_eq!((overridden(&next, &one), overridden(&next, &two)), before, "{signal}");
        next.wait_for_log(&format!("backend overridden: pool=a backend={} state=draining", address(&one)));
        assert!((0..10).all(|_| get(port, "/apiA").header("x-backend") == "two"));
        lab = Some(next);
    }
    let lab = lab.unwrap();
    command(&lab, &["reset", "a", &address(&one)]);
    command(&lab, &["reset", "a", &address(&two)]);
    assert_eq!(folder.state()["overrides"], json!([]));
    stop(lab, Signal::SIGTERM);
    let lab = folder.start(&yaml);
    assert_eq!(overridden(&lab, &one), Value::Null);
}

#[test]
fn override_of_a_named_backend_is_restored_when_its_name_resolves() {
    let (one, port, folder) = (Backend::start("one"), free_port(), Folder::new());
    let named = one_pool(port, &[&one], UNWATCHED)
        .replace(&format!("'{}'", address(&one)), &format!("'localhost:{}'", one.port));
    let lab = folder.start(&named);
    command(&lab, &["disable", "a", &address(&one)]);
    stop(lab, Signal::SIGTERM);
    let lab = folder.start(&named);
    assert_eq!(overridden(&lab, &one)["state"], "disabled");
    assert_eq!(get(port, "/apiA").status, 503);
}

#[test]
fn damaged_state_file_is_reported_kept_aside_and_ignored() {
    let (one, port, folder) = (Backend::start("one"), free_port(), Folder::new());
    let yaml = one_pool(port, &[&one], UNWATCHED);
    std::fs::write(folder.file("state.json"), "{\"version\":1,\"overrides\":[{\"pool\":").unwrap();
    let lab = folder.start(&yaml);
    let line = lab.wait_for_log("state file: file=");
    assert!(line.contains("ERROR") && line.contains("EOF") && line.contains("state.json.damaged"), "{line}");
    assert_eq!(get(port, "/apiA").status, 200);
    assert!(folder.file("state.json.damaged").exists() && !folder.file("state.json").exists());
    command(&lab, &["weight", "a", &address(&one), "3"]);
    assert_eq!(folder.state()["overrides"][0]["override"]["weight"], 3);
    // A file that cannot be written is reported, and the change applies.
    std::fs::create_dir(folder.file("state.json.new")).unwrap();
    command(&lab, &["weight", "a", &address(&one), "4"]);
    lab.wait_for_log("cannot be written, its content ends with this process");
    assert_eq!(overridden(&lab, &one)["weight"], 4);
}

#[test]
fn overrides_of_removed_or_changed_backends_are_dropped_from_the_state_file() {
    let (one, two, port, folder) = (Backend::start("one"), Backend::start("two"), free_port(), Folder::new());
    let yaml = one_pool(port, &[&one, &two], UNWATCHED);
    let entry = |backend: &Backend| format!("{{ address: '{}' }}", address(backend));
    let changed = yaml.replace(&entry(&two), &format!("{{ address: '{}', weight: 5 }}", address(&two)));
    let removed = changed.replace(&format!("{}, ", entry(&one)), "");
    let lab = folder.start(&yaml);
    command(&lab, &["drain", "a", &address(&one)]);
    command(&lab, &["weight", "a", &address(&two), "7"]);
    // A reload ends an override.
    replace(&lab, &changed);
    reloaded(&lab);
    assert_eq!(folder.state()["overrides"].as_array().unwrap().len(), 1);
    command(&lab, &["weight", "a", &address(&two), "9"]);
    stop(lab, Signal::SIGTERM);
    // The file changes while no process runs: one backend is removed, the other one has other settings.
    let lab = folder.start(&removed.replace("weight: 5", "weight: 6"));
    lab.wait_for_log(&format!(
        "override dropped, the backend is not configured any more: pool=a backend={}",
        address(&one)
    ));
    lab.wait_for_log("override ended, the configured settings changed");
    assert_eq!(overridden(&lab, &two), Value::Null);
    eventually("the file has no override", PATIENCE, || folder.state()["overrides"] == json!([]));
}

#[test]
fn state_file_can_be_moved_and_turned_off() {
    let (one, port, folder) = (Backend::start("one"), free_port(), Folder::new());
    let yaml = |key: &str| {
        let server = format!(
            "server: {{ threads: 1, upgrade_sock: '{{folder}}/upgrade.sock', pid_file: '{{folder}}/l7lb.pid', {key} }}\n"
        );
        server + &one_pool(port, &[&one], UNWATCHED)
    };
    std::fs::create_dir(folder.file("elsewhere")).unwrap();
    for (key, exists) in [("state_file: off", false), ("state_file: '{folder}/elsewhere/overrides'", true)] {
        let lab = folder.start(&yaml(key));
        command(&lab, &["drain", "a", &address(&one)]);
        assert_eq!(folder.file("elsewhere/overrides").exists(), exists);
        assert!(!folder.file("state.json").exists());
        stop(lab, Signal::SIGTERM);
    }
}

#[test]
fn upgrade_keeps_overrides_when_the_old_process_does_not_respond_on_its_control_socket() {
    let (one, two, port, folder) = (Backend::start("one"), Backend::start("two"), free_port(), Folder::new());
    let mut lab = folder.start(&one_pool(port, &[&one, &two], UNWATCHED));
    command(&lab, &["drain", "a", &address(&one)]);
    std::fs::remove_file(socket(&lab)).unwrap();
    let next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    next.wait_until_ready();
    lab.wait_exit(PATIENCE);
    next.wait_for_log("those of the state file apply");
    assert_eq!(overridden(&next, &one)["state"], "draining");
    assert!((0..10).all(|_| get(port, "/apiA").header("x-backend") == "two"));
}
