//! What a reload reports: faults in the file, changes that need an upgrade, a missing process.

use nix::sys::signal::Signal;

use super::{UNWATCHED, file, reload, reloaded, replace};
use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, free_port, run};
use crate::one_pool;

/// Runs `l7lb reload` with a file that is rejected; returns its standard error.
fn rejected(lab: &Lab) -> String {
    let output = reload(lab);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    stderr
}

#[test]
fn invalid_file_changes_nothing_and_is_logged_once() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one], ""));
    let load = Load::start(port, "/apiA", 2, 1);
    replace(&lab, &one_pool(port, &[&one], "").replace("pool: a }", "pool: b }"));
    let line = lab.wait_for_log("configuration rejected");
    assert!(line.contains("the previous one stays active"), "{line}");
    lab.wait_for_log("there is no pool `b`");
    load.wait_for_more(100);
    // The watch has read the file several times by now. A corrected file shows that the watch continues.
    replace(&lab, &one_pool(port, &[&one], "request_limits: { body_size: 1KiB }"));
    lab.wait_for_log("configuration reloaded");
    assert_eq!(lab.log().matches("configuration rejected").count(), 1, "{}", lab.log());
    let report = load.stop();
    assert_eq!((report.failed, report.statuses.len()), (Vec::new(), 1));
}

#[test]
fn reload_command_reports_faults_and_exits_with_2() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    replace(&lab, &one_pool(port, &[&one], UNWATCHED).replace("path: /apiA", "pth: /apiA"));
    let stderr = rejected(&lab);
    assert!(stderr.contains("the active configuration stays"), "{stderr}");
    assert!(stderr.contains("l7lb.yaml:5:") && stderr.contains("did you mean `path`?"), "{stderr}");
    assert_eq!(get(port, "/apiA").status, 200);
    // The command cannot find the control socket in an unreadable file, and the process could not load it either.
    std::fs::write(file(&lab), "listeners: [").unwrap();
    let stderr = rejected(&lab);
    assert!(stderr.contains("nothing was changed"), "{stderr}");
}

#[test]
fn file_whose_configuration_tests_fail_is_rejected() {
    let one = Backend::start("one");
    let port = free_port();
    let tested = |path: &str| {
        let tests = format!("tests: [{{ request: 'http://localhost{path}', expect: {{ pool: a }} }}]\n{UNWATCHED}");
        one_pool(port, &[&one], &tests)
    };
    let lab = Lab::start(&tested("/apiA"));
    replace(&lab, &tested("/apiB"));
    let stderr = rejected(&lab);
    assert!(stderr.contains("expected the pool `a`"), "{stderr}");
    replace(&lab, &tested("/apiA/more"));
    assert!(reload(&lab).status.success());
    assert_eq!(get(port, "/apiA").status, 200);
}

#[test]
fn reload_command_exits_with_1_without_a_running_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = Lab::configure(
        folder.path(),
        &one_pool(1, &[], "").replace("backends: []", "backends: [{ address: '127.0.0.1:1' }]"),
    );
    let output = run(&["reload", "--conf", file.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no process responds at") && stderr.contains("control.sock"), "{stderr}");
}

#[test]
fn changes_that_need_an_upgrade_are_reported_until_it_is_done() {
    let one = Backend::start("one");
    let (port, new_port) = (free_port(), free_port());
    let mut lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    let listeners = format!("listeners: [{{ address: '127.0.0.1:{new_port}' }}, ");
    replace(&lab, &one_pool(port, &[&one], UNWATCHED).replace("listeners: [", &listeners));
    assert!(reloaded(&lab).contains("needs an upgrade: listeners"));
    assert!(reloaded(&lab).contains("needs an upgrade: listeners"), "reported until the upgrade is done");
    assert_eq!(lab.log().matches("changed keys need an upgrade: keys=listeners").count(), 1, "{}", lab.log());
    assert!(std::net::TcpStream::connect(("127.0.0.1", new_port)).is_err());
    let next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    next.wait_until_ready();
    lab.wait_exit(crate::lab::PATIENCE);
    assert!(!lab.log().contains("control socket"), "{}", lab.log());
    assert_eq!(get(new_port, "/apiA").status, 200);
    assert!(reloaded(&next).contains("nothing changed"), "the new process handles the reload");
}
