//! Backends from a file.

use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;

use super::{address, backends, source, wait_until_available, yaml};
use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

/// Replaces the file as a program should: a new file that gets the name.
fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join("backends.yaml")).unwrap();
}

fn list(backends: &[&Backend]) -> String {
    backends.iter().map(|backend| format!("- {}\n", address(backend))).collect()
}

fn start(folder: &Arc<tempfile::TempDir>, port: u16) -> Lab {
    let file = folder.path().join("backends.yaml").display().to_string();
    Lab::start_in(Arc::clone(folder), &yaml(port, &format!("[{{ file: '{file}', hold: 1h }}]")))
}

#[test]
fn rolling_change_of_the_file_under_load_fails_no_request() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut old: Vec<Backend> = (0..5).map(|n| Backend::start(&format!("old{n}"))).collect();
    write(folder.path(), &list(&old.iter().collect::<Vec<_>>()));
    let port = free_port();
    let lab = start(&folder, port);
    wait_until_available(&lab, &old.iter().collect::<Vec<_>>());
    let load = Load::start(port, "/", 4, 2);
    load.wait_for_more(100);
    let mut new: Vec<Backend> = Vec::new();
    for n in 0..5 {
        new.push(Backend::start(&format!("new{n}")));
        let both: Vec<&Backend> = old.iter().chain(&new).collect();
        write(folder.path(), &list(&both));
        wait_until_available(&lab, &both);
        let left = old.remove(0);
        let rest: Vec<&Backend> = old.iter().chain(&new).collect();
        write(folder.path(), &list(&rest));
        wait_until_available(&lab, &rest);
        lab.wait_for_log(&format!("backend removed: pool=p backend={} aborted=0", address(&left)));
        load.wait_for_more(50);
    }
    load.stop_without_failure();
    assert!(get(port, "/").header("x-backend").starts_with("new"));
}

#[test]
fn faulty_missing_or_emptied_file_changes_nothing_and_the_list_survives_a_restart() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    write(folder.path(), &list(&[&one, &two]));
    let port = free_port();
    let mut lab = start(&folder, port);
    wait_until_available(&lab, &[&one, &two]);

    write(folder.path(), &format!("{}- nonsense\n", list(&[&one])));
    let line = lab.wait_for_log("discovery failed, the last good list stays in use");
    assert!(line.contains("at line 2 column 3"), "{line}");
    eventually("the failure is shown", PATIENCE, || source(&lab)["failure"].is_string());
    write(folder.path(), "[]");
    lab.wait_for_log("discovery lacks too many backends, they stay for now");
    eventually("both are held", PATIENCE, || source(&lab)["held"] == 2 && source(&lab)["failure"].is_null());
    wait_until_available(&lab, &[&one, &two]);

    eventually("the lists are saved", PATIENCE, || folder.path().join("state.json.discovered").exists());
    lab.signal(Signal::SIGKILL);
    lab.wait_exit(PATIENCE);
    std::fs::remove_file(folder.path().join("backends.yaml")).unwrap();
    let lab = start(&folder, port);
    wait_until_available(&lab, &[&one, &two]);
    assert_eq!(get(port, "/").status, 200);
    lab.wait_for_log("discovery failed, the last good list stays in use");
}

#[test]
fn address_of_l7lb_itself_is_left_out() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let one = Backend::start("one");
    let port = free_port();
    write(folder.path(), &format!("{}- 127.0.0.1:{port}\n- 224.0.0.1:80\n", list(&[&one])));
    let lab = start(&folder, port);
    wait_until_available(&lab, &[&one]);
    let line = lab.wait_for_log("discovered backends rejected");
    assert!(line.contains("count=2") && line.contains("it is an address of l7lb itself"), "{line}");
    assert_eq!((backends(&lab).len(), source(&lab)["rejected"].as_u64()), (1, Some(2)));
}
